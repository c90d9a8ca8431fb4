"""The past of a ledger as series for Prometheus: what it would hold had it scraped us then.

Counters begin at 0 with the time asked for and end with a 0 at their repo's horizon, where the live ones
begin, so that `increase` over both counts each build once. All times are by our clock, in whole seconds.
"""

HOUR, DAY = 3600, 86_400


class BackfillError(Exception):
    """Nothing can be written, or no more; the message says why and what to do."""

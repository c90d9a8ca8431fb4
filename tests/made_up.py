"""Samples of families of which the simulated fortnight shows nothing: nobody is told there.

What the exporter itself shows takes the place of what is made up here.
"""

from collections.abc import Iterator, Sequence

WINDOWS = ("7d", "30d", "90d")
KINDS = ("opened", "changed", "resolved", "flapping", "stale", "digest", "reminder", "alert", "test")
OUTCOMES = ("delivered", "dead", "superseded", "expired")
ATTEMPTS = ("ok", "retry", "permanent", "ambiguous")
TARGETS = ("team", "mail")
PEERS = ("http://alertmanager:9093",)


def made_up(now: float, since: float, repos: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Lines of a page at `now` for these (server, repo), whose story begins at `since`."""
    days = (now - since) / 86_400
    for place, (server, repo) in enumerate(repos):
        of_repo = f'server="{server}",repo="{repo}"'
        red = place == 0 and days > 1
        yield f"ci_incidents_open{{{of_repo}}} {int(red)}.0"
        if red:
            of_build = f'{of_repo},branch="main",event="push"'
            yield f"ci_incident_opened_timestamp_seconds{{{of_build}}} {now - 3600}"
            yield f"ci_incident_first_build_number{{{of_build}}} 17.0"
        for window in WINDOWS:
            labels = f'{of_repo},window="{window}"'
            deployed = int(min(int(window[:-1]), days) * 2) + 1
            yield f"ci_delivery_deployments{{{labels}}} {deployed}.0"
            yield f"ci_delivery_failed_deployments{{{labels}}} {deployed // 8}.0"
            yield f"ci_delivery_lead_time_seconds{{{labels}}} {5400.0 + 600 * place}"
            yield f"ci_delivery_time_to_restore_seconds{{{labels}}} {2700.0 + 300 * place}"
    for target in TARGETS:
        for kind in KINDS:
            for place, outcome in enumerate(OUTCOMES):
                labels = f'target="{target}",kind="{kind}",outcome="{outcome}"'
                yield f"ci_notifications_total{{{labels}}} {int(days * 4) // (1 + 4 * place)}.0"
        for place, outcome in enumerate(ATTEMPTS):
            labels = f'target="{target}",outcome="{outcome}"'
            yield f"ci_notification_attempts_total{{{labels}}} {int(days * 40) // (1 + 6 * place)}.0"
        yield f'ci_notifications_pending{{target="{target}"}} 1.0'
        yield f'ci_notifications_dead{{target="{target}"}} 0.0'
        yield f'ci_notification_oldest_pending_timestamp_seconds{{target="{target}"}} {now - 45}'
    for peer in PEERS:
        yield f'ci_alertmanager_last_success_timestamp_seconds{{alertmanager="{peer}"}} {now - 30}'
        yield f'ci_alertmanager_clock_skew_seconds{{alertmanager="{peer}"}} 0.2'

"""The queries' common parts.

Gauges are taken as the `max by` of their own labels, so that two replicas of the exporter show what one
shows; counts are a sum of increases.
"""

SERVER = 'server=~"$server"'
REPO = f'{SERVER}, repo=~"$repo"'
BUILD = f'{REPO}, branch=~"$branch", event=~"$event"'
BAD = 'status=~"failure|error|timeout"'
JUDGED = 'status=~"success|failure|error|timeout"'
"""A cancelled, skipped or declined build says nothing about its branch."""
OF_REPO = "server, repo"
OF_BRANCH = "server, repo, branch"
OF_BUILD = "server, repo, branch, event"
RANGE, BAR, RATE = "$__range", "$__interval", "$__rate_interval"
BUILD_URL = (
    f"on (server, repo) group_left (build_url) max by (server, repo, build_url) (ci_repo_info{{{REPO}}})"
)
"""Multiplied with the number of a build, adds the address that is its page with that number behind it."""


def gauge(metric: str, where: str, by: str) -> str:
    """The gauge by these labels."""
    return f"max by ({by}) ({metric}{{{where}}})"


def total(metric: str, where: str, by: str) -> str:
    """The sum over all series of a gauge, whose labels are `by`."""
    return f"sum({gauge(metric, where, by)})"


def increase(metric: str, where: str, by: str = "", window: str = RANGE) -> str:
    """By how much it grew in a window."""
    group = f" by ({by}) " if by else ""
    return f"sum{group}(increase({metric}{{{where}}}[{window}]))"


def count(metric: str, where: str, by: str = "", window: str = RANGE) -> str:
    """How often it happened in a window, as a whole number."""
    return f"round({increase(metric, where, by, window)})"


def share(metric: str, part: str, whole: str, where: str, by: str = "", window: str = RANGE) -> str:
    """What part of all that happened has the label that `part` says: 0 to 1, nothing where nothing did."""
    above = increase(metric, f"{where}, {part}", by, window)
    return f"{above} / {increase(metric, f'{where}, {whole}', by, window)}"


def success(where: str, by: str = "", window: str = RANGE) -> str:
    """The success rate of builds."""
    return share("ci_builds_total", 'status="success"', JUDGED, where, by, window)


def quantile(q: float, histogram: str, where: str, by: str = "") -> str:
    """A quantile of what a histogram saw in the time range."""
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({q}, {increase(f'{histogram}_bucket', where, labels)})"


def quantile_now(q: float, histogram: str, where: str, by: str = "") -> str:
    """A quantile over time."""
    labels = f"{by}, le" if by else "le"
    rate = f"sum by ({labels}) (rate({histogram}_bucket{{{where}}}[{RATE}]))"
    return f"histogram_quantile({q}, {rate})"


def age(metric: str, where: str, by: str) -> str:
    """Seconds since the time that a gauge tells."""
    return f"time() - {gauge(metric, where, by)}"


def when(metric: str, where: str, by: str) -> str:
    """The time that a gauge tells, in the milliseconds that Grafana wants of a time."""
    return f"1000 * {gauge(metric, where, by)}"


def top(expression: str, size: int = 10) -> str:
    """The largest ones."""
    return f"topk({size}, {expression})"


def leading(expression: str, by: str, rank: str, size: int = 10, op: str = "topk") -> str:
    """Of a graph's series the first ones by `rank`, which is a query over the whole time range.

    With `topk` alone each point would have a choice of its own, and the graph far more series.
    """
    at_the_end = rank.replace(f"[{RANGE}])", f"[{RANGE}] @ end())")
    return f"{expression} and on ({by}) {op}({size}, {at_the_end})"


def busiest(expression: str, by: str, where: str, size: int = 20) -> str:
    """Of a graph's series those of the repos or branches with the most builds."""
    return leading(expression, by, increase("ci_builds_total", where, by), size)

"""Values that no server should send, put into what one did send."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from replay import NOW

from exporter.model import Build, Event, Status

HOSTILE = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=[])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
ODD_VALUES = JSON_VALUES | st.sampled_from(
    [2**31, 2**53, 2**53 + 1, 2**63, 2**64, NOW + 301, 1, "", "\ud800", "\0", [], {}]
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all that can be replaced in a value."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], odd: object) -> Any:
    changed = deepcopy(value)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = odd
    return changed


def is_sane(build: Build) -> bool:
    """True when a build holds nothing that a ledger or a page could choke on."""
    texts = (build.branch, build.ref, build.commit, build.environment, build.cron, build.author, build.title)
    times = [build.run, build.created, build.started, build.finished]
    times += [time for step in build.steps for time in (step.started, step.finished)]
    spans = [build.wait, build.duration, *(step.duration for step in build.steps)]
    return (
        0 < build.number <= 2**53
        and 0 <= build.id <= 2**53
        and 0 <= build.parent <= 2**53
        and isinstance(build.status, Status)
        and isinstance(build.event, Event)
        and all(time == 0 or 946_684_800 <= time <= NOW + 300 for time in times)
        and all(span is None or span >= 0 for span in spans)
        and all(len(text) <= 255 for text in (*texts, *(step.name for step in build.steps)))
        and all("\0" not in text and text.encode() is not None for text in texts)
        and all(abs(step.exit_code) <= 2**32 for step in build.steps)
    )

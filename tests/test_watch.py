"""A watch on a simulated server of each dialect: every build once, whatever happens."""

from pathlib import Path

import pytest
from rig import Rig, rig

DIALECTS = ("drone-0.5", "drone-0.8", "drone-1")


@pytest.fixture(params=DIALECTS)
def ci(request: pytest.FixtureRequest, tmp_path: Path):
    with rig(request.param, tmp_path) as made:
        yield made


def build(ci: Rig, outcome: str = "success", repo: str = "octo/hello", seconds: float = 30, **about) -> int:
    """A build runs and ends."""
    number = ci.world.start_build(repo, **about)
    ci.clock.advance(5)
    ci.world.run(repo, number)
    ci.clock.advance(seconds)
    ci.world.finish(repo, number, outcome)
    return number


def test_a_build_is_followed_from_pending_to_its_end(ci: Rig) -> None:
    ci.good_poll()
    assert ci.value("ci_builds_pending", repo="octo/hello") == 0
    number = ci.world.start_build("octo/hello")
    ci.good_poll()
    assert ci.value("ci_builds_pending", repo="octo/hello") == 1
    assert ci.counted("octo/hello", "failure") == 0, "the series is there before the build ends"
    ci.world.run("octo/hello", number)
    ci.good_poll()
    assert ci.value("ci_builds_running", repo="octo/hello") == 1
    ci.world.finish("octo/hello", number, "failure")
    ci.good_poll(150)
    assert ci.value("ci_builds_running", repo="octo/hello") == 0
    ci.good_poll()
    assert ci.counted("octo/hello", "failure") == 1
    assert ci.value("ci_last_build_status", repo="octo/hello", branch="main", event="push") == 2
    assert ci.value("ci_last_build_number", repo="octo/hello", branch="main", event="push") == number
    assert ci.value("ci_consecutive_failures", repo="octo/hello", branch="main", event="push") == 1


def test_a_short_build_between_two_polls_counts_and_its_series_is_born_at_0(ci: Rig) -> None:
    ci.good_poll()
    build(ci)
    ci.good_poll()
    assert ci.counted("octo/hello", "success") == 0
    ci.good_poll(130)
    assert ci.counted("octo/hello", "success") == 1
    assert ci.value("ci_build_queue_seconds_sum", repo="octo/hello") == 5


def test_history_moves_no_counter_and_feeds_the_gauges(ci: Rig) -> None:
    for outcome in ("failure", "success", "success", "success", "failure", "failure"):
        build(ci, outcome)
    ci.settle()
    assert ci.counted("octo/hello", "success") == 0
    assert ci.counted("octo/hello", "failure") == 0
    assert ci.value("ci_consecutive_failures", repo="octo/hello", branch="main", event="push") == 2
    assert (
        ci.value("ci_build_expected_duration_seconds", repo="octo/hello", branch="main", event="push") == 30
    )
    build(ci)
    ci.good_poll(150)
    ci.good_poll()
    assert ci.counted("octo/hello", "success") == 1
    assert ci.value("ci_consecutive_failures", repo="octo/hello", branch="main", event="push") == 0

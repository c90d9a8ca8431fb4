"""From builds to series: which label values there are, when a series begins, what it counts."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from rig import DAY, START, Rig, build, rig

from exporter.exposition import Page
from exporter.metrics import METRICS
from exporter.refresh import Refresher, Shown
from exporter.simulator import Clock, Leg, StepPlan, World

HELLO = "octo/hello"
OTHER = "other"
BRANCH = {"repo": HELLO, "branch": "main", "event": "push"}


@pytest.fixture
def ci(tmp_path: Path) -> Iterator[Rig]:
    with rig("drone-1", tmp_path) as made:
        yield made


def let_out(ci: Rig) -> None:
    """What ended is recorded, and new series are shown with what they count."""
    ci.good_poll(1)
    ci.good_poll(150)


def build_each(ci: Rig, branches: int) -> None:
    """A build of so many branches, seen one after the other."""
    for i in range(branches):
        build(ci, branch=f"feature/{i:02}")
        ci.good_poll()


def labels(ci: Rig, family: str, label: str) -> set[str]:
    return {found[label] for found, _ in ci.family(family)}


def count(ci: Rig, family: str, **wanted: str) -> float:
    return sum(value for found, value in ci.family(family) if wanted.items() <= found.items())


# Which label values there are


def test_the_first_20_branches_have_a_name_and_the_rest_are_other(ci: Rig) -> None:
    ci.settle()
    build_each(ci, 23)
    for branch in ("main", "master", "release/1.2"):
        build(ci, branch=branch)
    let_out(ci)
    named = {f"feature/{i:02}" for i in range(20)} | {"main", "master", "release/1.2"}
    assert labels(ci, "ci_builds_total", "branch") == named | {OTHER}
    assert count(ci, "ci_builds_total", branch=OTHER) == 3
    assert labels(ci, "ci_build_flaky_total", "branch") == named | {OTHER}
    for family, metric in METRICS.items():
        if metric.group == "What is true now" and "branch" in metric.labels:
            assert OTHER not in labels(ci, family, "branch"), family
    assert labels(ci, "ci_last_build_status", "branch") == named


def test_a_name_is_kept_when_others_come(ci: Rig) -> None:
    ci.settle()
    build_each(ci, 25)
    for i in (0, 24, 19, 20):
        build(ci, "failure", branch=f"feature/{i:02}")
    let_out(ci)
    assert count(ci, "ci_builds_total", branch="feature/00") == 2
    assert count(ci, "ci_builds_total", branch="feature/19", status="failure") == 1
    assert count(ci, "ci_builds_total", branch=OTHER) == 7


def test_a_branch_that_becomes_the_default_has_a_name_from_then_on(ci: Rig) -> None:
    ci.settle()
    build_each(ci, 20)
    build(ci, "failure", branch="trunk")
    let_out(ci)
    assert count(ci, "ci_builds_total", branch=OTHER) == 1
    ci.world.repos[HELLO].default_branch = "trunk"
    ci.world.touch(ci.world.repos[HELLO])
    ci.good_poll(600)
    build(ci, "failure", branch="trunk")
    let_out(ci)
    assert count(ci, "ci_builds_total", branch="trunk") == 1
    assert count(ci, "ci_builds_total", branch=OTHER) == 1, "what it counted stays there"
    trunk = {"repo": HELLO, "branch": "trunk", "event": "push"}
    assert ci.value("ci_consecutive_failures", **trunk) == 2, "a gauge knows all of its past"


def test_a_branch_named_in_the_configuration_gives_its_place_to_another(ci: Rig) -> None:
    ci.settle()
    build_each(ci, 21)
    let_out(ci)
    assert count(ci, "ci_builds_total", branch=OTHER) == 1
    ci.options["branches"] = ("feature/0[0-4]", "feature/20")
    ci.restart()
    for i in (0, 1, 2, 20, 21, 22):
        build(ci, branch=f"feature/{i:02}")
    let_out(ci)
    assert count(ci, "ci_builds_total", branch="feature/20") == 1
    assert count(ci, "ci_builds_total", branch="feature/22") == 1
    assert count(ci, "ci_builds_total", branch=OTHER) == 1


def test_branches_that_no_build_had_for_30_days_take_no_place(tmp_path: Path) -> None:
    """Where history is imported, too."""
    world = World("drone-1", clock=Clock(START - 60 * DAY), seed=1)
    world.add_repo(HELLO, default_branch="main")
    with rig("drone-1", tmp_path, world) as ci:
        for i in range(25):
            build(ci, branch=f"old/{i:02}")
        build(ci, "failure")
        ci.clock.advance(35 * DAY)
        for i in range(20):
            build(ci, branch=f"feature/{i:02}")
        ci.settle()
        named = {f"feature/{i:02}" for i in range(20)}
        assert labels(ci, "ci_last_build_status", "branch") == named | {"main"}
        assert labels(ci, "ci_builds_total", "branch") == named
        assert ci.value("ci_last_build_status", **BRANCH) == 2


def test_the_first_50_steps_have_a_name_and_the_rest_are_other(ci: Rig) -> None:
    ci.settle()
    build(ci, legs=[Leg("default", tuple(StepPlan(f"s{i:02}") for i in range(53)))])
    let_out(ci)
    assert labels(ci, "ci_steps_total", "step") == {f"s{i:02}" for i in range(50)} | {OTHER}
    assert count(ci, "ci_steps_total", step=OTHER, status="success") == 3
    assert count(ci, "ci_step_duration_seconds_count", step=OTHER) == 3
    assert count(ci, "ci_steps_total", step="s00") == 1


def test_the_first_20_environments_and_cron_jobs_of_a_repo(ci: Rig) -> None:
    ci.settle()
    for i in range(22):
        build(ci, event="promote", environment=f"env{i:02}")
        build(ci, event="cron", cron=f"job{i:02}")
        ci.good_poll()
    let_out(ci)
    assert labels(ci, "ci_deployments_total", "environment") == {f"env{i:02}" for i in range(20)} | {OTHER}
    assert count(ci, "ci_deployments_total", environment=OTHER, status="success") == 2
    assert labels(ci, "ci_last_cron_finished_timestamp_seconds", "cron") == {f"job{i:02}" for i in range(20)}
    assert count(ci, "ci_builds_total", event="deployment") == 22


def test_a_tag_belongs_to_its_base_branch_or_to_none(ci: Rig) -> None:
    ci.settle()
    build(ci, event="tag", tag="v1")
    let_out(ci)
    assert ci.counted(HELLO, "success", branch="", event="tag") == 1
    assert ci.value("ci_last_build_status", repo=HELLO, branch="", event="tag") == 1


# When a series begins


def test_a_branch_has_all_statuses_at_0_for_each_event_before_anything_ends(ci: Rig) -> None:
    ci.settle()
    ci.world.start_build(HELLO, branch="develop", event="pull_request")
    ci.good_poll()
    for event in ("push", "pull_request"):
        found = {
            of["status"]: value
            for of, value in ci.family("ci_builds_total")
            if of["branch"] == "develop" and of["event"] == event
        }
        assert found == dict.fromkeys(
            ("success", "failure", "error", "timeout", "cancelled", "skipped", "declined"), 0
        )
        assert count(ci, "ci_build_duration_seconds_count", branch="develop", event=event) == 0
    assert ci.value("ci_build_flaky_total", repo=HELLO, branch="develop") == 0
    assert ci.value("ci_build_restarts_total", repo=HELLO) == 0
    assert ci.value("ci_build_queue_seconds_count", repo=HELLO) == 0
    assert ci.value("ci_build_seconds_total", repo=HELLO, status="failure") == 0
    assert ci.value("ci_builds_running", repo=HELLO) == 0


def test_a_series_that_comes_with_its_first_event_is_0_for_2_minutes(ci: Rig) -> None:
    ci.settle()
    build(ci)
    ci.good_poll(0)
    began = ci.clock.now()
    for family in (
        "ci_builds_total",
        "ci_build_duration_seconds_count",
        "ci_steps_total",
        "ci_build_seconds_total",
    ):
        assert count(ci, family) == 0, family
        assert ci.family(family), family
    ci.good_poll(119)
    assert count(ci, "ci_builds_total") == 0
    ci.restart()
    ci.clock.set(began + 120)
    ci.refresher.tick()
    assert count(ci, "ci_builds_total") == 1, "time alone lets it out"
    build(ci)
    ci.good_poll(0)
    assert count(ci, "ci_builds_total") == 2, "and then it is never held back"


def test_a_series_says_when_it_began(ci: Rig) -> None:
    ci.settle()
    ci.world.start_build(HELLO)
    ci.good_poll(10)
    born = ci.clock.now()
    ci.good_poll(500)
    page = Page(created=True)
    refresher = Refresher(page, ci.ledger, abandoned_after=DAY, clock=ci.clock.now)
    refresher.show("ci", Shown(ci.watch.policy, ci.watch.skew, ci.watch.last_poll))
    text = bytes(page.render(True, False)).decode()
    (created,) = re.findall(r"^ci_builds_created\{.*status=\"failure\"\} (\S+)", text, re.MULTILINE)
    assert float(created) == born


# What counts


def test_exemplars_are_the_latest_builds_of_their_buckets(ci: Rig) -> None:
    ci.settle()
    for seconds in (20, 25, 100):
        build(ci, seconds=seconds)
    let_out(ci)
    text = bytes(ci.page.render(True, False)).decode()
    found = re.findall(r'ci_build_duration_seconds_bucket\{.*le="(\S+)"\} \S+ # (\{.*\}) (\S+) ', text)
    assert found == [
        ("30.0", '{build="2",url="https://ci.example.com/octo/hello/2"}', "25.0"),
        ("120.0", '{build="3",url="https://ci.example.com/octo/hello/3"}', "100.0"),
    ]


def test_only_good_builds_tell_how_long_a_build_takes(ci: Rig) -> None:
    ci.settle()
    for outcome in ("success", "failure", "timeout"):
        build(ci, outcome, seconds=40)
    let_out(ci)
    assert count(ci, "ci_build_duration_seconds_sum") == 40
    assert ci.value("ci_build_seconds_total", repo=HELLO, status="timeout") == 40
    assert ci.value("ci_build_seconds_total", repo=HELLO, status="failure") == 40


def test_a_flaky_commit_counts_once(ci: Rig) -> None:
    ci.settle()
    for outcome in ("failure", "success", "failure", "success"):
        build(ci, outcome, commit="c" * 40)
    build(ci, "failure", commit="d" * 40, event="cron", cron="nightly")
    build(ci, "success", commit="d" * 40, event="cron", cron="weekly")
    build(ci, "success", commit="e" * 40)
    build(ci, "failure", commit="e" * 40)
    build(ci, "failure", commit="f" * 40, event="promote", environment="prod")
    build(ci, "success", commit="f" * 40, event="promote", environment="prod")
    let_out(ci)
    assert ci.value("ci_build_flaky_total", repo=HELLO, branch="main") == 1


def test_a_flaky_commit_counts_by_the_horizon_of_its_good_end(ci: Rig) -> None:
    build(ci, "failure", commit="c" * 40)
    build(ci, "failure", commit="d" * 40)
    build(ci, "success", commit="d" * 40)
    ci.settle()
    build(ci, "success", commit="c" * 40)
    build(ci, "success", commit="d" * 40)
    let_out(ci)
    assert ci.value("ci_build_flaky_total", repo=HELLO, branch="main") == 2


def test_restarts_of_1_x_are_the_same_commit_again_by_a_persons_hand(ci: Rig) -> None:
    ci.settle()
    first = build(ci, "failure", commit="c" * 40)
    build(ci, commit="c" * 40, event="tag")
    build(ci, commit="c" * 40, by="octocat", event="custom", branch="develop")
    build(ci, commit="d" * 40, by="octocat")
    ci.good_poll()
    promoted = ci.world.restart(HELLO, first, event="promote", environment="prod")
    ci.world.run(HELLO, promoted)
    ci.world.finish(HELLO, promoted)
    let_out(ci)
    assert ci.value("ci_build_restarts_total", repo=HELLO) == 0
    for _ in range(2):
        again = ci.world.restart(HELLO, first)
        ci.world.run(HELLO, again)
        ci.world.finish(HELLO, again)
    let_out(ci)
    assert ci.value("ci_build_restarts_total", repo=HELLO) == 2


def test_deployments(ci: Rig) -> None:
    ci.settle()
    for outcome, environment in (("success", "staging"), ("success", "prod"), ("failure", "prod")):
        number = build(ci, outcome, event="promote", environment=environment)
    let_out(ci)
    assert ci.value("ci_deployments_total", repo=HELLO, environment="prod", status="success") == 1
    assert ci.value("ci_deployments_total", repo=HELLO, environment="prod", status="failure") == 1
    assert ci.value("ci_deployments_total", repo=HELLO, environment="staging", status="failure") == 0
    assert ci.value("ci_last_deployment_status", repo=HELLO, environment="prod") == 2
    assert ci.value("ci_last_deployment_status", repo=HELLO, environment="staging") == 1
    ended = ci.query(f"SELECT finished FROM builds WHERE number = {number}")[0][0]
    assert ci.value("ci_last_deployment_timestamp_seconds", repo=HELLO, environment="prod") == ended


@pytest.mark.parametrize("dialect", ["drone-0.5", "drone-0.8", "drone-1"])
def test_deployments_of_history_know_their_environment(dialect: str, tmp_path: Path) -> None:
    """Feeds of 0.5 and 0.8 do not tell it."""
    with rig(dialect, tmp_path) as ci:
        event = "promote" if dialect == "drone-1" else "deployment"
        for outcome in ("failure", "success"):
            build(ci, outcome, event=event, environment="prod")
        ci.settle()
        assert labels(ci, "ci_last_deployment_status", "environment") == {"prod"}
        assert ci.value("ci_last_deployment_status", repo=HELLO, environment="prod") == 1


def test_a_cron_jobs_last_end_and_interval(ci: Rig) -> None:
    ci.settle()
    for _ in range(3):
        build(ci, event="cron", cron="nightly")
        ci.good_poll(DAY - 35)
    job = {"repo": HELLO, "branch": "main", "cron": "nightly"}
    assert ci.value("ci_cron_interval_seconds", **job) == DAY
    ended = ci.query("SELECT max(finished) FROM builds")[0][0]
    assert ci.value("ci_last_cron_finished_timestamp_seconds", **job) == ended


def test_failures_in_a_row_are_told_once_they_are_bounded(tmp_path: Path) -> None:
    with rig("drone-1", tmp_path, import_rate=1 / 60) as ci:
        build(ci)
        for _ in range(150):
            build(ci, "failure", seconds=1)
        ci.good_poll()
        while ci.value("ci_import_repos_remaining"):
            assert ci.value("ci_consecutive_failures", **BRANCH) in (None, 150)
            ci.good_poll()
        assert ci.value("ci_consecutive_failures", **BRANCH) == 150


def test_failures_in_a_row_are_told_when_history_ends_without_a_good_build(ci: Rig) -> None:
    for _ in range(3):
        build(ci, "failure")
    ci.settle()
    assert ci.value("ci_consecutive_failures", **BRANCH) == 3
    assert ci.value("ci_last_success_timestamp_seconds", **BRANCH) is None
    assert ci.value("ci_last_failure_timestamp_seconds", **BRANCH) is not None


def test_what_is_known_of_a_repo(ci: Rig) -> None:
    ci.settle()
    assert ci.value("ci_repo_timeout_seconds", repo=HELLO) == 3600
    url = "https://ci.example.com/octo/hello/"
    assert ci.value("ci_repo_info", repo=HELLO, build_url=url, default_branch="main") == 1


def test_the_oldest_open_builds_of_a_branch(ci: Rig) -> None:
    ci.settle()
    times = []
    for running in (True, False):
        for _ in range(2):
            ci.clock.advance(10)
            times.append(ci.clock.now())
            ci.world.start_build(HELLO, running=running)
    ci.good_poll()
    where = {"repo": HELLO, "branch": "main"}
    assert ci.value("ci_oldest_running_build_started_timestamp_seconds", **where) == times[0]
    assert ci.value("ci_oldest_pending_build_queued_timestamp_seconds", **where) == times[2]
    assert ci.value("ci_oldest_blocked_build_created_timestamp_seconds", **where) is None
    assert ci.value("ci_builds_running", repo=HELLO) == 2
    assert ci.value("ci_builds_pending", repo=HELLO) == 2

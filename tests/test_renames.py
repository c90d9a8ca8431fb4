"""Repos get other names, swap them, take each other's, and are taken for no other: on each dialect."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rig import START, Rig, build, rig

from exporter.simulator import Clock, World

DIALECTS = ("drone-0.5", "drone-0.8", "drone-1")
A, B, C = "octo/a", "octo/b", "octo/c"
SWEEP = 601


def world_of(dialect: str, *names: str) -> World:
    world = World(dialect, clock=Clock(START), seed=1)
    for name in names:
        world.add_repo(name, default_branch="main")
    return world


@pytest.fixture(params=DIALECTS)
def ci(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    """A server with two repos: two builds of `a` ended well, and one of `b` failed."""
    with rig(request.param, tmp_path, world_of(request.param, A, B)) as made:
        made.settle()
        for repo, outcome in ((A, "success"), (A, "success"), (B, "failure")):
            build(made, outcome, repo)
        shown(made)
        assert counts(made) == {A: (2, 0), B: (0, 1)}
        yield made


@pytest.fixture(autouse=True)
def every_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")


def shown(ci: Rig) -> None:
    """A sweep, and what it found on the page."""
    ci.good_poll(SWEEP)
    ci.good_poll(150)


def rebuild(ci: Rig, *names: str) -> None:
    """The server is rebuilt with these repos alone, whose ids are 1, 2 …"""
    for name in list(ci.world.repos):
        ci.world.delete_repo(name)
    ci.world.replace_by_empty()
    for name in names:
        ci.world.add_repo(name, default_branch="main")


def counts(ci: Rig) -> dict[str, tuple[float, float]]:
    """Good and bad ends that the page counts of each repo."""
    found: dict[str, tuple[float, float]] = {}
    for labels, value in ci.family("ci_builds_total"):
        good, bad = found.get(labels["repo"], (0.0, 0.0))
        if labels["status"] == "success":
            good += value
        else:
            bad += value
        found[labels["repo"]] = good, bad
    assert len(ci.series()) == len(ci.samples()), "no series stands twice on the page"
    return found


def repos_on_page(ci: Rig) -> set[str]:
    return {labels["repo"] for _, labels, _ in ci.series() if "repo" in labels}


def messages(caplog: pytest.LogCaptureFixture, part: str) -> list[tuple[str, str]]:
    """Old and new names of what was logged with this in its message."""
    fields = [getattr(r, "fields", {}) for r in caplog.records if part in r.getMessage()]
    return [(about["before"], about["repo"]) for about in fields]


def test_a_renamed_repo_goes_on_under_its_new_name(ci: Rig, caplog: pytest.LogCaptureFixture) -> None:
    number = ci.world.start_build(A, running=True)
    ci.good_poll()
    ci.world.rename_repos({A: C})
    ci.good_poll(SWEEP)
    assert repos_on_page(ci) == {B, C}, "the old name is gone at once"
    assert counts(ci)[C] == (2, 0), "the new one has its values at once, so that no query sees an increase"
    assert ci.value("ci_builds_running", repo=C) == 1
    assert ci.value("ci_last_build_number", repo=C, branch="main", event="push") == 2
    assert ci.value("ci_builds_missing") == 0
    ci.world.finish(C, number, "failure")
    build(ci, repo=C)
    shown(ci)
    assert counts(ci) == {C: (3, 1), B: (0, 1)}
    assert messages(caplog, "another name by now") == [(A, C)]
    assert len(ci.query("SELECT id FROM repos")) == 2
    ci.restart()
    shown(ci)
    assert counts(ci) == {C: (3, 1), B: (0, 1)}


def test_a_build_of_the_new_name_is_reason_enough_to_look(ci: Rig) -> None:
    ci.good_poll()
    ci.world.rename_repos({A: C})
    build(ci, "failure", C)
    ci.good_poll()
    ci.good_poll(150)
    assert counts(ci) == {C: (2, 1), B: (0, 1)}


def test_what_ended_while_nobody_looked_counts_under_the_new_name(ci: Rig) -> None:
    number = ci.world.start_build(A, running=True)
    ci.good_poll()
    ci.close()
    ci.world.finish(A, number, "failure")
    ci.world.rename_repos({A: C})
    build(ci, repo=C)
    ci.clock.advance(3600)
    ci.open()
    shown(ci)
    assert counts(ci) == {C: (3, 1), B: (0, 1)}


def test_two_that_swap_names(ci: Rig, caplog: pytest.LogCaptureFixture) -> None:
    ci.world.rename_repos({A: B, B: A})
    ci.good_poll(SWEEP)
    assert counts(ci) == {A: (0, 0), B: (0, 0)}, (
        "a series that went on at another's value would be an increase"
    )
    assert ci.value("ci_last_build_number", repo=B, branch="main", event="push") == 2
    assert ci.value("ci_consecutive_failures", repo=A, branch="main", event="push") == 1
    assert set(messages(caplog, "another name by now")) == {(A, B), (B, A)}
    build(ci, repo=A)
    build(ci, "failure", B)
    shown(ci)
    assert counts(ci) == {A: (1, 0), B: (0, 1)}
    assert ci.value("ci_last_build_number", repo=B, branch="main", event="push") == 3


def test_a_name_that_another_repo_leaves_at_the_same_time(ci: Rig) -> None:
    ci.world.rename_repos({A: B, B: C})
    shown(ci)
    assert counts(ci) == {B: (0, 0), C: (0, 1)}
    build(ci, repo=B)
    shown(ci)
    assert counts(ci) == {B: (1, 0), C: (0, 1)}


def test_a_name_whose_repo_was_deleted(ci: Rig, caplog: pytest.LogCaptureFixture) -> None:
    ci.world.delete_repo(B)
    ci.world.rename_repos({A: B})
    shown(ci)
    assert counts(ci) == {B: (0, 0)}
    assert ci.value("ci_last_build_number", repo=B, branch="main", event="push") == 2
    assert ci.value("ci_consecutive_failures", repo=B, branch="main", event="push") == 0
    build(ci, repo=B)
    shown(ci)
    assert counts(ci) == {B: (1, 0)}
    assert [old for old, _ in messages(caplog, "another one's by now")] == [B]
    assert ci.query("SELECT count(*) FROM builds") == [(4,)], "what was recorded stays"
    ci.restart()
    shown(ci)
    assert counts(ci) == {B: (1, 0)}


@pytest.mark.parametrize("built", [False, True])
def test_a_new_repo_under_the_old_name_in_the_same_moment(ci: Rig, built: bool) -> None:
    number = ci.world.start_build(A, running=True)
    ci.good_poll()
    ci.world.rename_repos({A: C})
    ci.world.add_repo(A, default_branch="main")
    if built:
        build(ci, "failure", A)
        ci.good_poll()
    shown(ci)
    assert counts(ci)[C] == (2, 0)
    assert ci.value("ci_builds_running", repo=C) == 1
    ci.world.finish(C, number)
    build(ci, repo=A)
    shown(ci)
    assert counts(ci) == {C: (3, 0), A: (1, 1 if built else 0), B: (0, 1)}
    assert ci.query("SELECT DISTINCT generation FROM builds") == [(0,)], "no server was rebuilt"


def test_a_rename_that_repos_leaves_out_and_back(ci: Rig) -> None:
    ci.options["repos"] = {"exclude": ["old/*"]}
    ci.restart()
    ci.world.rename_repos({A: "old/a"})
    shown(ci)
    assert repos_on_page(ci) == {B}
    build(ci, "failure", "old/a")
    shown(ci)
    ci.world.rename_repos({"old/a": A})
    shown(ci)
    assert counts(ci) == {A: (2, 0), B: (0, 1)}, "what ended while it was left out is history"
    ci.settle()
    assert ci.value("ci_consecutive_failures", repo=A, branch="main", event="push") == 1
    build(ci, "failure", A)
    shown(ci)
    assert counts(ci) == {A: (2, 1), B: (0, 1)}


@pytest.mark.parametrize("builds", [0, 1, 4])
def test_a_rebuilt_server_gives_its_ids_to_others(
    ci: Rig, builds: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Its ids begin anew in another order, which looks as if two repos had swapped their names."""
    rebuild(ci, B, A)
    ci.clock.advance(60)
    for _ in range(builds):
        build(ci, "failure", A)
        build(ci, "success", B)
    shown(ci)
    assert counts(ci) == {A: (2, builds), B: (builds, 1)}
    assert messages(caplog, "another name by now") == []
    ci.world.rename_repos({A: C})
    build(ci, "failure", C)
    shown(ci)
    assert counts(ci)[C] == ((2, builds + 1) if builds else (0, 1))


def test_an_id_that_another_repo_has_by_now_is_looked_into_once(ci: Rig) -> None:
    rebuild(ci, "octo/first")
    for _ in range(3):
        build(ci, "failure", "octo/first")
    shown(ci)
    assert counts(ci) == {A: (2, 0), B: (0, 1), "octo/first": (0, 3)}
    ci.running.requests.clear()
    ci.good_poll(SWEEP)
    assert ci.asked("builds/{}") + ci.asked("{}/builds") == 0


def test_a_server_that_does_not_tell_is_asked_again(ci: Rig) -> None:
    """What is newest was not seen yet, and nothing but the build itself tells what repo it is of."""
    ci.world.faults.add("status", r"(octo/c/builds|repos/1/pipelines)/2$", status=502)
    ci.world.rename_repos({A: C})
    build(ci, repo=C)
    shown(ci)
    assert counts(ci) == {A: (2, 0), B: (0, 1)}, "it is taken for no new repo meanwhile"
    ci.world.faults.clear()
    shown(ci)
    assert counts(ci) == {C: (3, 0), B: (0, 1)}


class Names:
    """Increase by name as Prometheus sees it: over all looks, a fall being a reset."""

    def __init__(self) -> None:
        self.last: dict[str, float] = {}
        self.sums: dict[str, float] = {}

    def look(self, ci: Rig) -> None:
        for name, labels, value in ci.series():
            if name == "ci_builds_total":
                key = f"{labels['repo']} {labels['branch']} {labels['event']} {labels['status']}"
                before = self.last.get(key, value)
                self.last[key] = value
                self.sums[key] = self.sums.get(key, 0.0) + (value - before if value >= before else value)


ACTS = st.one_of(
    st.tuples(st.just("build"), st.sampled_from((A, B, C))),
    st.tuples(st.just("rename"), st.permutations((A, B, C))),
    st.tuples(st.just("delete"), st.sampled_from((A, B, C))),
    st.tuples(st.just("add"), st.sampled_from((A, B, C))),
    st.tuples(st.just("rebuild"), st.none()),
    st.tuples(st.just("restart"), st.none()),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(dialect=st.sampled_from(DIALECTS), acts=st.lists(ACTS, min_size=3, max_size=12))
def test_every_end_counts_once_whatever_names_do(
    dialect: str, acts: list[tuple[str, object]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """All increases together are the builds that ended, and every name has the builds of its own repo."""
    with rig(dialect, tmp_path_factory.mktemp("renames"), world_of(dialect, A, B)) as ci:
        ci.settle()
        seen, ended = Names(), 0
        own: dict[str, set[int]] = {A: set(), B: set()}
        for act, what in acts:
            there = ci.world.repos
            match act:
                case "build" if what in there:
                    number = build(ci, repo=str(what))
                    ended += 1
                    own[str(what)].add(int(there[str(what)].live[number].created))
                case "rename":
                    given_names = dict(zip((A, B, C), list(what), strict=True))  # type: ignore[call-overload]
                    names = {old: new for old, new in given_names.items() if old in there}
                    ci.world.rename_repos(names)
                    own = {names[old]: created for old, created in own.items()}
                case "delete" if what in there and len(there) > 1:
                    ci.world.delete_repo(str(what))
                    del own[str(what)]
                case "add" if what not in there:
                    ci.world.add_repo(str(what), default_branch="main")
                    own[str(what)] = set()
                case "rebuild":
                    ci.world.replace_by_empty()
                    own = {name: set() for name in own}
                case "restart":
                    ci.restart()
                case _:
                    continue
            for seconds in (SWEEP, 15, 150, 15):
                ci.good_poll(seconds)
                seen.look(ci)
        assert sum(seen.sums.values()) == ended
        for name, created in own.items():
            rows = ci.query(
                f"SELECT b.created FROM builds b JOIN repos r ON r.id = b.repo_id WHERE r.name = '{name}'"
            )
            assert created <= {row[0] for row in rows}

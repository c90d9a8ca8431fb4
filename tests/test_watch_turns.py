"""One repo's trouble is its own, and everybody has a turn."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from rig import DAY, START, Rig, build, rig

from exporter.app import App
from exporter.config import Config
from exporter.simulator import Clock, World

HELLO, OTHER = "octo/hello", "octo/other"


@pytest.fixture(params=["drone-0.5", "drone-0.8", "drone-1", "woodpecker"])
def ci(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    with rig(request.param, tmp_path, timeout=0.2) as made:
        made.world.add_repo(OTHER, default_branch="main")
        yield made


def ups(ci: Rig, looks: int) -> int:
    """In how many of so many looks the server was up."""
    found = 0
    for _ in range(looks):
        ci.poll()
        found += ci.value("ci_server_up") == 1
    return found


@pytest.mark.parametrize("kind", ["hang", "reset"])
def test_a_build_that_never_answers_counts_by_its_row_and_leaves_the_server_up(ci: Rig, kind: str) -> None:
    ci.settle()
    ci.world.faults.add(kind, rf"{ci.path(HELLO)}/\d+$")
    build(ci, "error")
    build(ci, repo=OTHER)
    assert ups(ci, 12) == 12
    ci.good_poll(150)
    assert ci.counted(OTHER, "success") == 1
    assert ci.counted(HELLO, "error") == 1


@pytest.mark.parametrize("kind", ["hang", "reset"])
def test_a_history_that_never_answers_keeps_no_other_from_being_read(tmp_path: Path, kind: str) -> None:
    world = World("drone-0.8", clock=Clock(START), seed=1)
    names = [f"load/r{i}" for i in range(4)]
    world.add_repos(names, builds=60)
    world.faults.add(kind, r"load/r2/builds\?")
    with rig("drone-0.8", tmp_path, world, timeout=0.2) as ci:
        assert ups(ci, 12) == 12
        read = dict(
            ci.query("SELECT r.name, count(*) FROM builds b JOIN repos r ON r.id = b.repo_id GROUP BY 1")
        )
        assert [read.get(name, 0) for name in names if name != "load/r2"] == [60, 60, 60]


@pytest.mark.parametrize("status", [500, 502])
def test_a_list_of_open_builds_that_fails_is_done_without(ci: Rig, status: int) -> None:
    ci.settle()
    ci.world.faults.add("status", "^/api/(builds|pipelines)", status=status)
    number = ci.world.start_build(HELLO, running=True)
    assert ups(ci, 3) == 3
    ci.world.finish(HELLO, number, "failure")
    ci.good_poll(150)
    assert ci.counted(HELLO, "failure") == 1


def test_a_new_repo_whose_first_build_never_answers_keeps_no_look_from_being_made(ci: Rig) -> None:
    ci.settle()
    ci.clock.advance(60)
    ci.world.add_repo("octo/new", default_branch="main")
    ci.world.faults.add("hang", f"{ci.path('octo/new')}/1$")
    for _ in range(3):
        build(ci, repo="octo/new")
    build(ci)
    assert ups(ci, 50) == 50
    assert ci.counted(HELLO, "success") == 1
    assert ci.value("ci_builds_running", repo="octo/new") == 0, "it is watched in the end"


def test_the_newest_builds_word_is_not_that_of_one_before_it(tmp_path: Path) -> None:
    """The rows of failures do not tell why; while their turn has not come nothing is claimed."""
    world = World("drone-0.8", clock=Clock(START - 40 * DAY), seed=1)
    for repo in (HELLO, OTHER):
        world.add_repo(repo, default_branch="main")
        for outcome in ["success"] * 120 + ["failure"]:
            number = world.start_build(repo)
            world.clock.advance(600)
            world.finish(repo, number, outcome)
    with rig("drone-0.8", tmp_path, world, import_rate=0.5) as ci:
        seen = set()
        for _ in range(30):
            ci.good_poll()
            for repo in (HELLO, OTHER):
                seen.add(ci.value("ci_last_build_status", repo=repo, branch="main", event="push"))
        assert seen <= {None, 2.0}
        assert 2.0 in seen


def test_an_import_gives_every_repo_its_turn(tmp_path: Path) -> None:
    world = World("drone-1", clock=Clock(START), seed=1)
    world.add_repos([f"load/r{i:02}" for i in range(30)], builds=900)
    with rig("drone-1", tmp_path, world, import_rate=1.0) as ci:
        for _ in range(40):
            ci.good_poll()
        read = ci.query("SELECT repo_id, count(*) FROM builds GROUP BY 1")
        counts = [int(str(count)) for _, count in read]
        assert len(counts) == 30
        assert max(counts) <= 2 * min(counts)


def test_where_many_builds_were_removed_the_page_is_found_in_few_steps(tmp_path: Path) -> None:
    world = World("drone-1", clock=Clock(START), seed=1)
    world.add_repo(HELLO, default_branch="main", builds=4000, days=80)
    for number in range(1000, 3000):
        world.remove_build(HELLO, number)
    with rig("drone-1", tmp_path, world) as ci:
        ci.settle()
        assert ci.query("SELECT count(*) FROM builds") == [(2000,)]
        assert ci.asked("/builds") <= 150


def test_a_number_out_of_all_reason_is_no_reason_to_keep_a_list_of_what_is_missing(tmp_path: Path) -> None:
    with rig("drone-1", tmp_path) as ci:
        ci.settle()
        for _ in range(5):
            build(ci)
        with ci.ledger.transaction() as conn:
            conn.exec_driver_sql("UPDATE repos SET highest = 9000000000")
            conn.exec_driver_sql("INSERT INTO gaps VALUES (1, 1, 0, 1, 9000000000, 0, 0)")
        ci.watch.roster.load()
        ci.world.faults.add("wrong_types", r"/builds\?page", row=2)
        for _ in range(5):
            ci.poll()
        assert int(str(ci.query("SELECT count(*) FROM gaps")[0][0])) <= 201
        assert ci.value("ci_server_up") == 1


def test_what_was_withdrawn_is_not_shown_by_the_next_process_either(tmp_path: Path) -> None:
    with rig("drone-1", tmp_path) as ci:
        ci.settle()
        build(ci)
        ci.good_poll()
        ci.good_poll(150)
        ci.world.faults.add("status", "")
        ci.clock.advance(700)
        ci.close()
        config = Config.model_validate({"servers": [ci.settings], "ledger": {"url": ci.ledger_url}})
        app = App(config, clock=ci.clock.now)
        text = bytes(app.work.page.render(False, False)).decode()
        app.stop()
        assert "ci_builds_total{" in text
        assert "ci_last_build_status{" not in text
        ci.open()


def test_our_clock_set_back_makes_no_counter_fall(tmp_path: Path) -> None:
    with rig("drone-1", tmp_path) as ci:
        ci.settle()
        build(ci)
        ci.good_poll()
        ci.good_poll(150)
        assert ci.counted(HELLO, "success") == 1
        ci.clock.set(ci.clock.now() - 900)
        ci.refresher.refresh(ci.watch.roster.by_id)
        assert ci.counted(HELLO, "success") == 1


def test_a_list_older_than_the_feed_hides_no_build(ci: Rig) -> None:
    ci.settle()
    ci.world.faults.add("stale", rf"{ci.path(HELLO)}(\?|$)", row=60)
    for repo in (HELLO, OTHER):
        for _ in range(60):
            build(ci, repo=repo, seconds=1)
    for _ in range(6):
        ci.good_poll(60)
    assert ci.counted(HELLO, "success") == 60
    assert ci.value("ci_builds_missing") == 0


@pytest.mark.parametrize("known", [5, 30])
def test_a_rebuilt_server_that_passed_the_old_numbers_between_two_looks_is_noticed(
    ci: Rig, known: int, caplog: pytest.LogCaptureFixture
) -> None:
    """80 builds: with 30 known, the list pages of every dialect end just above the highest one."""
    ci.settle()
    for _ in range(known):
        build(ci)
    ci.good_poll(150)
    ci.world.replace_by_empty()
    for _ in range(80):
        build(ci)
    for _ in range(10):
        ci.good_poll(60)
    assert ci.counted(HELLO, "success") == known + 80
    assert sum("numbers begin again" in record.getMessage() for record in caplog.records) == 1

"""The simulated ABF: build lists from birth to publishing, the search, its rights, its two kinds."""

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from reader import Reader, authorization, reading

from exporter.model import Status
from exporter.simulator import Clock, Leg, StepPlan, World
from exporter.simulator.history import DAY

NOW = 1_800_000_000.0
HELLO = "import/hello"
LISTS = "/api/v1/build_lists"
ALL = f"{LISTS}.json?filter[ownership]=everything&per_page=100"
UNTESTED = (Leg("", (StepPlan("build"), StepPlan("tests", exit_code=1))),)


class Distro(Reader):
    def row(self, number: int) -> dict[str, Any]:
        row: dict[str, Any] = self.get(f"{LISTS}/{number}.json")["build_list"]
        return row

    def says(self, number: int) -> int:
        """The code, which the search has to tell alike."""
        code = self.row(number)["status"]
        assert self.search(f"filter[id][]={number}") == {number: code}
        return int(code)

    def search(self, query: str = "") -> dict[int, int]:
        """Codes by id, in the order of the answer."""
        rows = self.get(f"{ALL}&{query}")["build_lists"]
        return {row["id"]: row["status"] for row in rows}

    def put(self, number: int, action: str) -> int:
        return self.send("PUT", f"{LISTS}/{number}/{action}.json").status_code

    def built(self, outcome: str = "success", seconds: float = 60.0, **what: Any) -> int:
        """A build that has just ended."""
        number = self.world.start_build(HELLO, running=True, **what)
        self.world.clock.advance(seconds)
        self.world.finish(HELLO, number, outcome, failed="build" if outcome == "failure" else "")
        return number


@pytest.fixture
def distro() -> Iterator[Distro]:
    world = World("abf", clock=Clock(NOW))
    world.add_repo(HELLO)
    world.add_repo("import/libgreet")
    yield from reading(world, Distro)


@pytest.fixture
def mandriva(distro: Distro) -> Distro:
    distro.world.openmandriva = True
    return distro


# One build list


def test_a_build_from_birth_to_end(distro: Distro) -> None:
    number = distro.world.start_build(HELLO, started=NOW + 10, finished=NOW + 70.4, intake=2)

    def look() -> tuple[int, int, int | None]:
        row = distro.row(number)
        return distro.says(number), row["updated_at"] - int(NOW), row["duration"]

    assert look() == (4000, 0, None)
    distro.world.clock.advance(2)
    assert look() == (2000, 2, None)
    distro.world.clock.advance(4)
    distro.world.touch_build(HELLO, number)
    assert look() == (2000, 6, None)
    distro.world.clock.advance(4)
    assert look() == (3000, 10, None)
    assert distro.row(number)["logs"] == []
    distro.world.clock.advance(60.4)
    assert look() == (0, 70, 60)
    row = distro.row(number)
    assert (row["created_at"], len(row["logs"]), len(row["packages"])) == (int(NOW), 2, 2)
    assert (row["project"]["fullname"], row["arch"]["name"]) == (HELLO, "x86_64")
    assert row["save_to_repository"]["platform"]["name"] == row["build_for_platform"]["name"] == "rosa2023.1"
    assert "publisher" not in row


@pytest.mark.parametrize(
    ("outcome", "code", "word"),
    [
        ("success", 0, Status.SUCCESS), ("failure", 666, Status.FAILURE), ("killed", 666, Status.FAILURE),
        ("timeout", 5000, Status.CANCELLED), ("error", 15000, Status.ERROR),
    ],
)  # fmt: skip
def test_every_end_in_the_codes_of_the_server(distro: Distro, outcome: str, code: int, word: Status) -> None:
    number = distro.built(outcome)
    assert distro.says(number) == code
    assert distro.row(number)["duration"] == (None if outcome == "error" else 60)
    [(_, run)] = distro.world.runs()
    assert distro.world.status(run) is word


def test_an_end_that_was_never_begun_has_no_duration(distro: Distro) -> None:
    number = distro.world.start_build(HELLO)
    distro.world.clock.advance(30)
    distro.world.finish(HELLO, number, "failure", failed="build")
    assert (distro.says(number), distro.row(number)["duration"]) == (666, None)


def test_a_build_is_put_back_and_runs_on_as_the_same(distro: Distro) -> None:
    number = distro.world.start_build(HELLO, running=True)
    distro.world.clock.advance(20)
    distro.world.requeue(HELLO, number)
    row = distro.row(number)
    assert (row["status"], row["updated_at"], row["duration"]) == (2000, int(NOW) + 20, None)
    distro.world.clock.advance(5)
    distro.world.run(HELLO, number)
    distro.world.clock.advance(30)
    distro.world.finish(HELLO, number)
    assert (distro.says(number), distro.row(number)["duration"]) == (0, 30)
    assert len(distro.world.runs()) == 1


def test_openmandriva_puts_back_in_silence(mandriva: Distro) -> None:
    number = mandriva.world.start_build(HELLO, running=True)
    mandriva.world.clock.advance(20)
    since = f"filter[updated_at_start]={int(NOW) + 1}"
    mandriva.world.requeue(HELLO, number)
    assert mandriva.search(since) == {}
    assert mandriva.says(number) == 2000


def test_a_cancel_ends_when_the_worker_has_heard_of_it(distro: Distro) -> None:
    number = distro.world.start_build(HELLO, running=True)
    distro.world.clock.advance(40)
    assert distro.put(number, "cancel") == 200
    assert (distro.says(number), distro.row(number)["duration"]) == (10000, 40)
    distro.world.clock.advance(1)
    row = distro.row(number)
    assert (distro.says(number), row["duration"], row["updated_at"]) == (5000, 41, int(NOW) + 41)
    assert distro.put(number, "cancel") == 422
    [(_, run)] = distro.world.runs()
    assert distro.world.status(run) is Status.CANCELLED
    distro.world.report_late(HELLO, number, "success")
    assert distro.says(number) == 0, "a late worker may still say otherwise"
    assert distro.world.status(run) is Status.SUCCESS


@pytest.mark.parametrize("running", [True, False])
def test_a_cancel_that_no_worker_confirms_ends_in_nothing(distro: Distro, running: bool) -> None:
    number = distro.world.start_build(HELLO, running=running)
    distro.world.clock.advance(10)
    distro.world.cancel(HELLO, number, reported=False)
    distro.world.clock.advance(3599)
    assert distro.says(number) == 10000
    assert distro.row(number)["duration"] == (10 if running else None)
    [(_, run)] = distro.world.runs()
    assert distro.world.status(run) is Status.RUNNING
    distro.world.clock.advance(1)
    assert distro.ask(f"{LISTS}/{number}.json").status_code == 404
    assert distro.search() == {}
    assert [distro.world.status(run) for _, run in distro.world.runs()] == [Status.CANCELLED]


def test_a_restart_keeps_id_and_duration(distro: Distro) -> None:
    number = distro.built("failure")
    distro.world.clock.advance(600)
    assert distro.world.restart(HELLO, number) == number

    def look() -> tuple[object, ...]:
        row = distro.row(number)
        return row["status"], row["updated_at"] - int(NOW), row["duration"], len(row["logs"])

    assert look() == (2000, 660, 60, 0)
    distro.world.clock.advance(5)
    distro.world.run(HELLO, number)
    assert look() == (3000, 665, 60, 0)
    distro.world.clock.advance(7)
    distro.world.finish(HELLO, number)
    assert look() == (0, 672, 7, 2)
    assert [distro.world.status(run) for _, run in distro.world.runs()] == [Status.FAILURE, Status.SUCCESS]


def test_tests_run_again_and_last_from_the_first_start(distro: Distro) -> None:
    number = distro.world.start_build(HELLO, running=True, legs=UNTESTED)
    distro.world.clock.advance(60)
    distro.world.finish(HELLO, number, "failure", legs=UNTESTED)
    assert distro.says(number) == 11000
    distro.world.clock.advance(100)
    assert distro.put(number, "rerun_tests") == 200
    assert (distro.says(number), distro.row(number)["duration"]) == (2500, 60)
    assert distro.put(number, "cancel") == 422
    distro.world.clock.advance(10)
    distro.world.run(HELLO, number)
    assert distro.says(number) == 2550
    distro.world.clock.advance(30)
    distro.world.finish(HELLO, number)
    assert (distro.says(number), distro.row(number)["duration"]) == (0, 200)
    assert [distro.world.status(run) for _, run in distro.world.runs()] == [Status.FAILURE, Status.SUCCESS]


# After its end


@pytest.mark.parametrize("testing", [False, True])
def test_publishing(distro: Distro, testing: bool) -> None:
    codes = (13000, 14000, 12000) if testing else (7000, 8000, 6000)
    number = distro.built()
    with pytest.raises(ValueError, match="not being published"):
        distro.world.published(HELLO, number)
    distro.world.publish(HELLO, number, testing=testing)
    assert distro.says(number) == codes[0]
    distro.world.clock.advance(20)
    distro.world.published(HELLO, number, failed=True)
    assert distro.says(number) == codes[1]
    distro.world.publish(HELLO, number, testing=testing, ends=distro.world.clock.now() + 20)
    distro.world.clock.advance(20)
    row = distro.row(number)
    assert (row["status"], row["duration"], row["updated_at"]) == (codes[2], 60, int(NOW) + 100)
    assert (row["package_version"], "publisher" in row) == ("rosa2023.1-2.12-3", True)
    [(_, run)] = distro.world.runs()
    assert distro.world.status(run) is Status.SUCCESS, "whatever became of it"


def test_what_is_published_by_itself_is_never_seen_as_built(distro: Distro) -> None:
    number = distro.built(publish="default")
    assert distro.says(number) == 7000
    distro.world.published(HELLO, number)
    assert distro.says(number) == 6000
    assert distro.row(distro.built("failure", publish="default"))["status"] == 666


def test_published_over_the_api(distro: Distro) -> None:
    number = distro.built()
    assert distro.put(number, "publish") == 200
    assert distro.says(number) == 0, "ROSA's is queued first"
    distro.world.clock.advance(3)
    assert distro.says(number) == 7000
    assert [distro.put(number, what) for what in ("publish", "reject_publish")] == [403, 422]
    distro.world.clock.advance(60)
    assert distro.says(number) == 6000
    other = distro.built()
    assert distro.put(other, "reject_publish") == 200
    assert distro.says(other) == 9000
    assert [distro.put(other, what) for what in ("publish", "cancel", "rerun_tests")] == [403, 422, 422]


def test_openmandriva_publishes_at_once(mandriva: Distro) -> None:
    number = mandriva.built()
    assert mandriva.put(number, "publish_into_testing") == 200
    assert mandriva.says(number) == 13000


def test_packages_are_lost_in_silence(distro: Distro) -> None:
    number = distro.built()
    distro.world.clock.advance(600)
    distro.world.lose_packages(HELLO, number)
    assert distro.says(number) == 777
    assert distro.row(number)["updated_at"] == int(NOW) + 60
    assert distro.search(f"filter[updated_at_start]={int(NOW) + 61}") == {}
    assert distro.search("filter[status]=777") == {number: 777}
    [(_, run)] = distro.world.runs()
    assert distro.world.status(run) is Status.FAILURE


def test_a_container(distro: Distro) -> None:
    number = distro.built()
    distro.world.clock.advance(100)
    assert distro.put(number, "create_container") == 200
    row = distro.row(number)
    assert (row["status"], row["container_status"], row["container_path"]) == (0, 7000, "")
    assert row["updated_at"] == int(NOW) + 160
    assert distro.put(number, "create_container") == 422
    distro.world.clock.advance(30)
    assert distro.row(number)["container_status"] == 6000
    assert distro.row(number)["container_path"].endswith(f"/container/{number}/x86_64/main/release/")


def test_acts_that_make_no_sense_are_refused(distro: Distro) -> None:
    number = distro.world.start_build(HELLO)
    with pytest.raises(ValueError, match="has not ended"):
        distro.world.publish(HELLO, number)
    with pytest.raises(ValueError, match="is pending"):
        distro.world.requeue(HELLO, number)
    with pytest.raises(ValueError, match="no approvals"):
        distro.world.block(HELLO)
    drone = World("drone-1", clock=Clock(NOW))
    drone.add_repo(HELLO)
    number = drone.start_build(HELLO, running=True)
    with pytest.raises(ValueError, match="puts no build back"):
        drone.requeue(HELLO, number)
    with pytest.raises(ValueError, match="queues at once"):
        drone.start_build(HELLO, intake=1)
    with pytest.raises(ValueError, match="publishes nothing"):
        drone.start_build(HELLO, publish="default")


def test_logs_are_files(distro: Distro) -> None:
    number = distro.built("failure")
    log = next(file for file in distro.row(number)["logs"] if file["file_name"] == "build.log")
    assert log["url"].startswith(distro.running.url)
    text = distro.ask(log["url"].removeprefix(distro.running.url)).content.decode()
    assert text == "+ go build\n正在编译 主程序 …\nok\n"
    live = distro.get(f"/build_lists/{number}/log")
    assert live == {"log": "Log not available yet.", "building": False}
    assert distro.ask(f"/api/v1/file_stores/{'0' * 40}").status_code == 404


def test_created_over_the_api(distro: Distro) -> None:
    wanted = {"project_id": 1, "commit_hash": "c0ffee", "arch_id": 1, "include_repos": [5]}
    made = distro.send("POST", f"{LISTS}.json", json={"build_list": wanted}).json()["build_list"]
    row = distro.row(made["id"])
    assert (row["status"], row["commit_hash"], row["arch"]["name"]) == (2000, "c0ffee", "i686")
    assert row["user"]["uname"] == "adminuser"
    chained = {"build_list": wanted | {"chain_config": {"next_level": True}}}
    made = distro.send("POST", f"{LISTS}.json", json=chained).json()["build_list"]
    assert (distro.says(made["id"]), made["chain_build_id"]) == (4000, 1)
    unknown = {"build_list": wanted | {"project_id": 9}}
    assert distro.send("POST", f"{LISTS}.json", json=unknown).status_code == 403
    assert distro.send("POST", f"{LISTS}.json", data="no json").status_code == 500


# The search


def test_the_search_is_ordered_by_the_last_change(distro: Distro) -> None:
    first, second, third = (distro.world.start_build(HELLO, at=NOW + i / 10) for i in range(3))
    distro.world.clock.advance(1)
    assert list(distro.search()) == [third, second, first]
    distro.world.run(HELLO, second, at=NOW + 0.7)
    distro.world.run(HELLO, first, at=NOW + 0.9)
    assert list(distro.search()) == [first, second, third]
    assert {row["id"]: distro.row(row["id"])["updated_at"] for row in distro.get(ALL)["build_lists"]} == {
        first: int(NOW), second: int(NOW), third: int(NOW),
    }  # fmt: skip


def test_the_window_is_inclusive_and_finer_than_seconds(distro: Distro) -> None:
    number = distro.world.start_build(HELLO, at=NOW + 0.4)
    at = int(NOW)
    assert list(distro.search(f"filter[updated_at_start]={at}")) == [number]
    assert distro.search(f"filter[updated_at_start]={at + 1}") == {}
    assert distro.search(f"filter[updated_at_end]={at}") == {}, "what shows the second is past it"
    assert list(distro.search(f"filter[updated_at_end]={at + 1}")) == [number]
    assert list(distro.search("filter[updated_at_start]=15/01/2027")) == [number]
    assert distro.search("filter[updated_at_start]=16/01/2027") == {}
    for ignored in ("updated_at_start]=soon", "created_at_start]=9999999999", "is_circle]=1"):
        assert list(distro.search(f"filter[{ignored}")) == [number]


def test_filters(distro: Distro) -> None:
    world = distro.world
    good = distro.built(by="ada")
    other = world.start_build("import/libgreet", branch="rosa2023.1/contrib/i686", cron="12.Jan")
    arches = {row["name"]: row["id"] for row in distro.get("/api/v1/arches.json")["architectures"]}
    assert distro.search("filter[status]=0") == {good: 0}
    assert distro.search("filter[status]=2000") == {other: 2000}
    assert distro.search("filter[status]=x") == {good: 0}
    assert list(distro.search(f"filter[arch_id]={arches['i686']}")) == [other]
    assert distro.search("filter[arch_id]=") == {}
    row = distro.row(other)
    platform, repository = row["build_for_platform"]["id"], row["save_to_repository"]["id"]
    assert len(distro.search(f"filter[build_for_platform_id]={platform}")) == 2
    assert list(distro.search(f"filter[save_to_repository_id]={repository}")) == [other]
    assert list(distro.search("filter[project_name]=lib")) == [other]
    assert list(distro.search("filter[project_name]=h_l%25o")) == [good]
    assert distro.search("filter[project_name]=LIB") == {}
    assert list(distro.search("filter[mass_build_id]=-1")) == [good]
    assert list(distro.search(f"filter[mass_build_id]={row['mass_build']['id']}")) == [other]
    assert list(distro.search(f"filter[id][]={good}&filter[id][]={other}&filter[status]=5")) == [other, good]
    answer = distro.get(f"{LISTS}.json?per_page=9&filter[status]=0&filter[ownership]=everything")
    assert answer["url"] == "/api/v1/build_lists?filter%5Bownership%5D=everything&filter%5Bstatus%5D=0"
    mine = distro.get("/api/v1/projects/1/build_lists.json")["build_lists"]
    assert [row["id"] for row in mine] == [good]
    assert distro.ask("/api/v1/projects/99/build_lists.json").status_code == 404
    assert distro.ask(f"{LISTS}/{good}abc.json").status_code == 200
    assert distro.ask(f"{LISTS}/abc.json").status_code == 404
    for broken in ("filter=x", "filter[status][]=", "page=-1", f"page={10**15}"):
        assert distro.ask(f"{LISTS}.json?{broken}").status_code == 500


def test_ownership(distro: Distro) -> None:
    world = distro.world
    world.add_repo("lin/hidden", private=True)
    ours, theirs = distro.built(by="adminuser"), distro.built(by="lin")
    hidden = world.start_build("lin/hidden", by="lin")

    def ids(query: str = "", token: str = world.token) -> set[int]:
        headers = {"Authorization": authorization("abf", token)}
        rows = distro.get(f"{LISTS}.json?per_page=100&{query}", headers=headers)["build_lists"]
        return {row["id"] for row in rows}

    assert ids() == ids("filter[ownership]=owned") == {ours}
    assert ids("filter[ownership]=everything") == {ours, theirs, hidden}
    lin = world.add_user("lin", repos=["lin/hidden"])
    ada = world.add_user("ada", repos=[])
    assert (ids(token=lin), ids("filter[ownership]=related", lin)) == ({theirs, hidden}, {hidden})
    assert (ids(token=ada), ids("filter[ownership]=everything", ada)) == (set(), {ours, theirs})
    assert hidden in ids(f"filter[id][]={hidden}", ada), "the id overrides visibility"
    headers = {"Authorization": authorization("abf", ada)}
    for number, status in ((hidden, 403), (theirs, 200), (99, 404)):
        assert distro.ask(f"{LISTS}/{number}.json", headers=headers).status_code == status


def test_pages(distro: Distro) -> None:
    distro.world.add_repo("import/old", builds=230)
    ids = [row["id"] for page in (1, 2, 3) for row in distro.get(f"{ALL}&page={page}")["build_lists"]]
    assert sorted(ids) == list(range(1, 231))
    assert len(distro.get(f"{LISTS}.json?filter[ownership]=everything")["build_lists"]) == 20
    assert distro.get(f"{ALL}&page=4")["build_lists"] == []
    for odd in ("page=0", "page=x"):
        rows = distro.get(f"{LISTS}.json?filter[ownership]=everything&per_page=1000&{odd}")["build_lists"]
        assert [row["id"] for row in rows] == ids[:100]
    times = [distro.row(number)["updated_at"] for number in ids[:60]]
    assert all(newer >= older for newer, older in pairwise(times))


def test_a_large_world_is_searched_without_reading_all_of_it() -> None:
    world = World("abf", clock=Clock(NOW))
    world.add_repos([f"load/r{i:05d}" for i in range(10_000)], builds=100)
    for distro in reading(world, Distro):
        first, second = (distro.get(f"{ALL}&page={page}")["build_lists"] for page in (1, 2))
        number = world.start_build("load/r00007")
        again = distro.get(ALL)["build_lists"]
        old = distro.row(17)
    assert len({row["id"] for row in first + second}) == 200
    assert [row["id"] for row in again] == [number, *(row["id"] for row in first[:99])]
    assert old["created_at"] < NOW - 89 * DAY


def test_a_build_of_the_past_comes_back_to_the_front(distro: Distro) -> None:
    distro.world.add_repo("import/old", builds=50)
    before = list(distro.search())
    number = before[30]
    distro.world.restart("import/old", number)
    rest = [one for one in before if one != number]
    assert list(distro.search()) == [number, *rest]
    distro.world.remove_build("import/old", before[10])
    distro.world.delete_repo(HELLO)
    assert list(distro.search()) == [number, *(one for one in rest if one != before[10])]
    distro.world.delete_repo("import/old")
    assert distro.search() == {}
    distro.world.add_repo("import/new")
    distro.world.replace_by_empty()
    assert distro.world.start_build("import/new") == 1


def test_history_and_its_details() -> None:
    world = World("abf", clock=Clock(NOW))
    world.add_repos([f"import/p{i}" for i in range(6)], builds=60)
    for distro in reading(world, Distro):
        codes = Counter(row for page in range(1, 5) for row in distro.search(f"page={page}").values())
        assert {0, 666, 5000, 6000, 8000, 9000, 11000, 12000, 15000} == set(codes)
        assert codes[6000] > codes[0]
        rows = [distro.row(number) for number in distro.search()]
        assert {row["auto_publish_status"] for row in rows} == {"none", "default", "testing"}
        assert all(row["updated_at"] >= row["created_at"] + (row["duration"] or 0) for row in rows)
        assert any(not row["user"]["name"].isascii() for row in rows)


def test_lists_of_projects_and_platforms(distro: Distro) -> None:
    projects = distro.get("/api/v1/projects.json")["projects"]
    assert [row["fullname"] for row in projects] == [HELLO, "import/libgreet"]
    rows = distro.get("/api/v1/platforms.json")["platforms"]
    platforms = {row["name"]: row["repositories"] for row in rows}
    assert {"rosa2021.1", "rosa2023.1"} == set(platforms)
    row = distro.row(distro.world.start_build(HELLO))
    assert row["save_to_repository"]["id"] in {one["id"] for one in platforms["rosa2023.1"]}
    assert distro.ask("/api/v1/projects.json?page=-1").status_code == 500
    assert distro.get("/api/v1/user.json")["user"]["uname"] == "adminuser"


# Who may


def status_for(distro: Distro, header: str, path: str = f"{LISTS}.json") -> int:
    return distro.ask(path, headers={"Authorization": header}).status_code


def test_ways_to_sign_in(distro: Distro) -> None:
    token = distro.world.token
    signed = {
        authorization("abf", token): (200, 200),
        authorization("abf", token, "any"): (401, 200),
        authorization("abf", "adminuser", "password-of-adminuser"): (200, 200),
        authorization("abf", "adminuser", "wrong"): (401, 401),
        authorization("abf", "nobody"): (401, 401),
        f"Bearer {token}": (401, 401),
        "Basic %%%": (401, 401),
        "": (401, 401),
    }
    distro.world.anonymous_access = False
    for which in (0, 1):
        distro.world.openmandriva = which == 1
        assert {header: status_for(distro, header) for header in signed} == {
            header: wanted[which] for header, wanted in signed.items()
        }
        assert status_for(distro, "", "/api/v1/arches.json") == 200
        parameter = f"{LISTS}.json?authentication_token={token}"
        assert status_for(distro, "", parameter) == (401 if which else 200)
        assert status_for(distro, "", f"{LISTS}.json?token={token}") == (401 if which else 302)
        assert distro.ask("/api/v1/user.json", headers={"Authorization": ""}).headers["WWW-Authenticate"]
    distro.world.revoke(token)
    assert status_for(distro, authorization("abf", token)) == 401


def test_openmandriva_as_shipped_knows_no_reader(mandriva: Distro) -> None:
    world = mandriva.world
    world.add_repo("lin/hidden", private=True)
    number, hidden = mandriva.built(), world.start_build("lin/hidden")
    assert set(mandriva.search()) == {number}
    assert mandriva.get(f"{LISTS}.json?filter[ownership]=owned")["build_lists"] == []
    assert [row["id"] for row in mandriva.get(f"{LISTS}.json")["build_lists"]] == [number]
    assert mandriva.ask(f"{LISTS}/{hidden}.json").status_code == 403
    assert status_for(mandriva, "", f"{LISTS}/{number}.json") == 200
    assert status_for(mandriva, "", "/api/v1/user.json") == 401
    assert mandriva.put(number, "publish") == 200
    row = mandriva.row(number)
    assert not {"new_core", "update_type"} & set(row)
    assert row["package_version"] is None
    assert mandriva.row(world.start_build(HELLO))["commit_hash"] is None


def test_rights_come_and_go(distro: Distro) -> None:
    world = distro.world
    number = world.start_build(HELLO)
    world.set_user(admin=False, push=False)
    assert [distro.put(number, what) for what in ("cancel", "publish", "reject_publish")] == [403] * 3
    assert [distro.put(number, what) for what in ("rerun_tests", "create_container")] == [403] * 2
    assert distro.ask(f"{LISTS}/{number}.json").status_code == 200
    world.make_private(HELLO)
    assert distro.ask(f"{LISTS}/{number}.json").status_code == 200
    world.set_user(repos=[])
    assert distro.ask(f"{LISTS}/{number}.json").status_code == 403
    assert distro.search() == {}
    world.make_private(HELLO, private=False)
    world.deny(HELLO)
    assert distro.ask("/api/v1/projects/1/build_lists.json").status_code == 403
    world.delete_repo(HELLO)
    assert distro.ask(f"{LISTS}/{number}.json").status_code == 404


# What the answers carry


def test_a_known_answer_is_spared(distro: Distro) -> None:
    number = distro.built()
    path = f"{LISTS}/{number}.json"
    first = distro.ask(path)
    mark = first.headers["ETag"]
    assert mark.startswith('W/"')
    again = distro.ask(path, headers={"If-None-Match": mark})
    assert (again.status_code, again.text, again.headers["ETag"]) == (304, "", mark)
    assert again.headers["Cache-Control"] == "max-age=0, private, must-revalidate"
    assert "Content-Type" not in again.headers
    distro.world.publish(HELLO, number)
    assert distro.ask(path, headers={"If-None-Match": mark}).status_code == 200
    assert distro.ask(path).headers["ETag"] != mark


def test_an_hour_has_so_many_requests(mandriva: Distro) -> None:
    world = mandriva.world
    mandriva.ask("/api/v1/user.json")
    world.hourly_limit = 3
    answers = [mandriva.ask(path) for path in ("/api/v1/user.json", f"{LISTS}.json", "/api/v1/nothing", ALL)]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["2", "1", "0", "0"]
    assert {answer.headers["X-RateLimit-Limit"] for answer in answers} == {"3"}
    assert [answer.status_code for answer in answers] == [200, 200, 404, 403]
    assert answers[3].json() == {"message": "403 Forbidden | Rate Limit Exceeded"}
    other = mandriva.world.add_user("ada")
    assert status_for(mandriva, authorization("abf", other)) == 200, "everybody has an hour of their own"
    world.clock.set(3600 * (NOW // 3600 + 1))
    assert mandriva.ask(ALL).headers["X-RateLimit-Remaining"] == "2"


def test_faults_speak_as_this_server_does(distro: Distro) -> None:
    number = distro.built()
    faults = distro.world.faults
    faults.add("unknown_status", times=1, value="4242")
    assert distro.search() == {number: 4242}
    faults.add("unknown_status", times=1)
    assert distro.row(number)["status"] == 31337
    faults.add("times", times=1, value="zero")
    assert distro.row(number)["updated_at"] == 0
    faults.add("wrong_types", times=1)
    assert distro.row(number)["id"] == str(number)
    faults.add("limit", times=1)
    answer = distro.ask(ALL)
    assert (answer.status_code, answer.headers["X-RateLimit-Remaining"]) == (403, "0")
    faults.add("not_found", times=1)
    assert distro.ask(ALL).json()["status"] == 404
    faults.add("not_admin", times=1)
    assert distro.ask(ALL).json() == {"message": "Access violation to this page!"}
    faults.add("status", times=1, status=503)
    answer = distro.ask(ALL)
    assert (answer.status_code, answer.headers["Content-Type"]) == (503, "text/html")
    assert distro.search() == {number: 0}

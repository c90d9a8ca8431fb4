"""The ledger on a real PostgreSQL server: it does what SQLite does, and outlives the server's absence."""

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic
from traceback import format_exception

import pasts
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from postgres import PASSWORD, Cluster, cluster, needs_postgresql
from process import configure, entry, exporter, first_look, until
from replay import NOW, opened, recording, replaying
from rig import Rig, rig
from sqlalchemy import func, insert, select, text

from exporter.backfill.blocks import LENGTHS
from exporter.ledger import Ledger, LedgerError, Moment, Policy, record, schema, watched
from exporter.ledger.folded import folded
from exporter.model import Build, Event, Status, Step
from exporter.simulator import Clock, World, serve
from exporter.telemetry import Telemetry

pytestmark = needs_postgresql()
DIALECTS = ("drone-0.5", "drone-0.8", "drone-1")
HELLO = "octo/hello"
LONGEST = "".join(chr(0x1F300 + place * 7 % 1009) for place in range(255))
"""As long as a name may be, in characters that take most room and hardly repeat."""
FOR_ALL = Policy(lambda _branch, _default: True, lambda _event, _branch: True, 30 * 86_400.0)


@pytest.fixture(scope="session")
def server() -> Iterator[Cluster]:
    with cluster() as made:
        yield made


@pytest.fixture
def url(server: Cluster) -> Iterator[str]:
    with server.database() as made:
        yield made


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    with closing(Ledger(url)) as made:
        made.lock()
        made.migrate()
        yield made


def test_the_migration_makes_the_tables_of_the_schema(ledger: Ledger) -> None:
    ledger.migrate()
    with ledger.reading() as conn:
        assert compare_metadata(MigrationContext.configure(conn), schema.metadata) == []
        indexes = dict(conn.execute(text("SELECT indexname, indexdef FROM pg_indexes")).all())
    assert indexes["builds_counted"].endswith("USING btree (repo_id) WHERE counted")
    assert indexes["builds_unsettled"].endswith("USING btree (repo_id) WHERE (state <> 2)")


def test_looking_at_an_empty_database_makes_nothing(url: str) -> None:
    with closing(Ledger(url)) as ledger:
        assert not ledger.exists()
        ledger.migrate()
        assert ledger.exists()
        assert ledger.size() > 1_000_000


def test_what_the_page_makes_is_enough(server: Cluster) -> None:
    page = (Path(__file__).parent.parent / "docs/scaling.md").read_text(encoding="utf-8")
    (sql,) = re.findall(r"^```sql\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    server.run(*filter(str.strip, sql.split(";")))
    try:
        with closing(Ledger(server.url("builds", "exporter", "PASSWORD"))) as ledger:
            ledger.lock()
            ledger.migrate()
            assert ledger.count_builds() == {}
    finally:
        server.run("DROP DATABASE builds (FORCE)", "DROP ROLE exporter")


# The same history on both


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_same_history_gives_the_same_ledger(dialect: str, url: str, tmp_path: Path) -> None:
    found = []
    for ledger_url in ("", url):
        with rig(dialect, tmp_path, ledger_url=ledger_url) as ci:
            live(ci)
            found.append(
                (contents(ci.ledger), {k: v for k, v in ci.samples().items() if k.startswith("ci_")})
            )
    (sqlite, page), (postgresql, same_page) = found
    for table, rows in sqlite.items():
        assert postgresql[table] == rows, table
    assert all(sqlite[table] for table in ("builds", "steps", "totals", "names", "heads"))
    assert same_page == page


def live(ci: Rig) -> None:
    """All that a watch goes through, with a look at the page after each."""
    for outcome in ("failure", "success", "success", "success", "failure", "failure"):
        build(ci, outcome)
    ci.settle()
    assert [counted(ci, word) for word in ("success", "failure")] == [0, 0], "history moves no counter"
    assert ci.value("ci_consecutive_failures", repo=HELLO, branch="main", event="push") == 2

    number = ci.world.start_build(HELLO)
    ci.good_poll()
    assert ci.value("ci_builds_pending", repo=HELLO) == 1
    ci.world.run(HELLO, number)
    ci.good_poll()
    assert ci.value("ci_builds_running", repo=HELLO) == 1
    ci.restart()
    ci.world.finish(HELLO, number, "failure")
    ci.good_poll()
    ci.good_poll()
    assert counted(ci, "failure") == 1, "a build is followed to its end, over a restart of the exporter"

    build(ci)
    ci.good_poll()
    assert counted(ci, "success") == 1, "a short build counts"

    again = ci.world.restart(HELLO, number)
    assert (again == number) is ci.world.traits.restart_in_place
    ci.world.run(HELLO, again)
    ci.clock.advance(20)
    ci.world.finish(HELLO, again)
    ci.good_poll()
    ci.good_poll()
    assert counted(ci, "success") == 2
    assert ci.value("ci_build_flaky_total", repo=HELLO, branch="main") == 1
    assert ci.value("ci_build_restarts_total", repo=HELLO) == 1

    build(ci, event="deployment", environment="prod")
    for _ in range(70):
        build(ci, seconds=1)
    ci.good_poll()
    ci.good_poll()
    assert counted(ci, "success") == 72, "a feed that ran over loses no build"
    assert ci.value("ci_builds_missing") == 0

    before = contents(ci.ledger)
    record_again(ci)
    assert contents(ci.ledger) == before, "what is known changes nothing"


def build(ci: Rig, outcome: str = "success", seconds: float = 30, **about: str) -> int:
    number = ci.world.start_build(HELLO, **about)
    ci.clock.advance(5)
    ci.world.run(HELLO, number)
    ci.clock.advance(seconds)
    ci.world.finish(HELLO, number, outcome)
    return number


def counted(ci: Rig, status: str) -> float:
    """What the ledger has counted; the page shows new series at 0 for a while."""
    total = (
        'SELECT value FROM totals WHERE family = \'ci_builds_total\' AND labels = \'["main","push","%s"]\''
    )
    return sum(float(str(row[0])) for row in ci.query(total % status))


def record_again(ci: Rig) -> None:
    server = ci.watch.server
    assert server is not None
    rows = server.feed("")[0]
    singles = [server.build(HELLO, row.number) for row in rows[:5]]
    with ci.ledger.transaction() as conn:
        (repo,) = watched.repo_states(conn, "ci")
        done = record(
            conn,
            repo,
            ci.watch.policy,
            [*rows, *server.builds(HELLO, 1).builds, *singles],
            ci.watch._moment(),
        )
    assert (done.ended, done.rewritten, done.changed) == ([], [], False)


def contents(ledger: Ledger) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table as Python has it, in one order."""
    with ledger.reading() as conn:
        return {
            table.name: sorted((tuple(row) for row in conn.execute(table.select())), key=repr)
            for table in schema.metadata.sorted_tables
        }


# Texts that databases do not like


@pytest.mark.parametrize(
    ("system", "name"),
    [
        ("drone-0.5", "build-deployment"),
        ("drone-0.5", "build-matrix"),
        ("drone-0.8", "build-deployment"),
        ("drone-0.8", "build-matrix"),
        ("drone-1.x", "build-cron"),
        ("drone-1.x", "build-promote"),
    ],
)
def test_no_text_of_a_server_breaks_an_insert(ledger: Ledger, system: str, name: str) -> None:
    with replaying(system, "user", "version") as replay:
        path = replay.asked_by(name)
        replay.serve(path, spoilt(recording(system, name)["body"]))
        server = opened(replay, Telemetry())
        _, _, _, owner, repo, _, number = path.split("/")
        build = server.build(f"{owner}/{repo}", int(number))
        server.session.close()
    rows = recorded(ledger, build)
    stored = [value for row in rows["builds"] + rows["steps"] for value in row if isinstance(value, str)]
    assert sum("\ufffd" in value for value in stored) > 5
    assert not any("\0" in value for value in stored)


def spoilt(value: object, key: str = "") -> object:
    """The answer with a NUL and half a character in each of its texts; words of the contract stay."""
    match value:
        case dict():
            return {name: spoilt(of, name) for name, of in value.items()}
        case list():
            return [spoilt(of) for of in value]
        case str() if value and key not in ("event", "status"):
            return f"{value[:3]}\0\ud800{value[3:]}\0\udfff"
        case _:
            return value


def recorded(ledger: Ledger, *builds: Build) -> dict[str, list[tuple[object, ...]]]:
    """All rows, once these builds of one repo were recorded and counted, twice."""
    horizon = min(build.created for build in builds) - 1
    row = {"server": "ci", "name": builds[0].repo, "horizon": horizon}
    with ledger.transaction() as conn:
        conn.execute(insert(schema.servers).values(name="ci", first_contact=horizon))
        conn.execute(insert(schema.repos).values(row))
        (repo,) = watched.repo_states(conn, "ci")
    for _ in range(2):
        with ledger.transaction() as conn:
            record(conn, repo, FOR_ALL, builds, Moment(NOW, NOW))
    assert len(list(ledger.facts([repo.id]))) == 1
    return contents(ledger)


def test_the_longest_names_fit_into_every_index(ledger: Ledger) -> None:
    rows = recorded(
        ledger,
        *(
            Build(
                repo=f"{LONGEST[:127]}/{LONGEST[:127]}", number=number, run=NOW - 100, status=Status.SUCCESS,
                detailed=True, event=event, branch=LONGEST, ref=LONGEST, commit=LONGEST, created=NOW - 100,
                started=NOW - 90, finished=NOW - 80, environment=LONGEST, cron=LONGEST, author=LONGEST,
                title=LONGEST, steps=(Step(name=LONGEST, status=Status.SUCCESS, exit_code=2**32),),
            )
            for number, event in enumerate((Event.CRON, Event.DEPLOYMENT), 2**53 - 1)
        ),
    )  # fmt: skip
    assert len(rows["builds"]) == 2
    with ledger.reading() as conn:
        assert folded(conn) == []


# One process at a time


def test_a_second_exporter_is_refused(ledger: Ledger, url: str) -> None:
    with closing(Ledger(url)) as second:
        with pytest.raises(LedgerError, match="in use by another build-exporter"):
            second.lock()
        ledger.close()
        second.lock()
        assert second.fault is None


def test_who_lost_the_lock_with_its_connection_writes_no_more(
    server: Cluster, ledger: Ledger, url: str
) -> None:
    server.stop()
    server.start()
    with closing(Ledger(url)) as second:
        second.lock()
        with pytest.raises(LedgerError, match="in use by another build-exporter"), ledger.transaction():
            pass
    with ledger.transaction() as conn:
        assert conn.execute(select(func.count()).select_from(schema.repos)).scalar_one() == 0


def test_a_command_beside_the_exporter_writes_in_its_turn(ledger: Ledger, url: str) -> None:
    """What it read does not change before it has written: neither overwrites what the other did."""
    wrote = threading.Event()

    def beside() -> None:
        with closing(Ledger(url)) as second, second.transaction() as conn:
            conn.execute(insert(schema.servers).values(name="ci", first_contact=NOW))
        wrote.set()

    thread = threading.Thread(target=beside)
    count = select(func.count()).select_from(schema.servers)
    with ledger.transaction() as conn:
        thread.start()
        assert not wrote.wait(0.3)
        assert conn.execute(count).scalar_one() == 0
    thread.join(10)
    with ledger.transaction() as conn:
        assert conn.execute(count).scalar_one() == 1


def test_who_reads_sees_one_moment(ledger: Ledger) -> None:
    count = select(func.count()).select_from(schema.servers)
    with ledger.reading() as conn:
        assert conn.execute(count).scalar_one() == 0
        with ledger.transaction() as other:
            other.execute(insert(schema.servers).values(name="ci", first_contact=NOW))
        assert conn.execute(count).scalar_one() == 0
    with ledger.reading() as conn:
        assert conn.execute(count).scalar_one() == 1


# A server that goes away


def test_a_transaction_whose_server_goes_away_is_undone(server: Cluster, ledger: Ledger) -> None:
    def interrupted() -> None:
        with ledger.transaction() as conn:
            conn.execute(insert(schema.servers).values(name="ci", first_contact=NOW))
            server.stop()

    with pytest.raises(LedgerError, match="ledger: "):
        interrupted()
    ledger.fault = None
    with pytest.raises(LedgerError), ledger.reading():
        pass
    assert ledger.fault is not None, "what cannot be read cannot be written either"
    server.start()
    with ledger.transaction() as conn:
        assert conn.execute(select(func.count()).select_from(schema.servers)).scalar_one() == 0
    assert ledger.fault is None


def test_connections_that_were_cut_while_idle_are_made_anew(
    server: Cluster, url: str, tmp_path: Path
) -> None:
    with rig("drone-1", tmp_path, ledger_url=url) as ci:
        ci.good_poll()
        server.stop()
        server.start()
        ci.good_poll()


def test_a_page_that_cannot_be_renewed_is_logged_when_it_begins_and_ends(
    server: Cluster, url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with rig("drone-1", tmp_path, ledger_url=url) as ci, caplog.at_level("INFO", "exporter.refresh"):
        ci.good_poll()
        page = ci.text()
        server.stop()
        for _ in range(2):
            ci.refresher.refresh([1])
            ci.refresher.measure()
        assert ci.text().partition("# HELP process")[0] == page.partition("# HELP process")[0]
        server.start()
        ci.refresher.measure()
        assert ci.value("ci_ledger_size_bytes") == ci.ledger.size()
    assert caplog.messages == ["the page cannot be renewed", "the page is renewed again"]


def test_a_server_that_stands_still_holds_nobody_up(server: Cluster, url: str) -> None:
    with closing(Ledger(f"{url}&connect_timeout=2", patience=0.2)) as ledger:
        ledger.lock()
        began = monotonic()
        with pytest.raises(LedgerError, match="not answered"), ledger.transaction() as conn, server.frozen():
            conn.execute(select(1))
        with server.frozen(), pytest.raises(LedgerError, match="timeout"), ledger.reading():
            pass
        assert monotonic() - began < 5
        with ledger.transaction() as conn:
            assert conn.execute(select(1)).scalar_one() == 1


def test_a_statement_that_takes_too_long_is_ended(url: str) -> None:
    with (
        closing(Ledger(url, patience=0.2)) as ledger,
        pytest.raises(LedgerError, match="statement timeout"),
        ledger.reading() as conn,
    ):
        conn.execute(select(func.pg_sleep(10)))


def test_what_the_address_asks_for_is_kept(url: str) -> None:
    query = "&application_name=mine&options=-c%20search_path%3Dci%20-c%20lock_timeout%3D7s"
    with closing(Ledger(url + query)) as ledger, ledger.reading() as conn:
        settings = ("application_name", "search_path", "lock_timeout", "statement_timeout")
        found = [conn.execute(text(f"SHOW {name}")).scalar_one() for name in settings]
    assert found == ["mine", "ci", "7s", "1min"]


def test_the_exporter_outlives_its_database(server: Cluster, url: str, tmp_path: Path) -> None:
    world = World("drone-1", clock=Clock.real(-1000), default_branch="main")
    world.add_repo(HELLO, builds=10)
    world.start_build(HELLO, running=True)
    (tmp_path / "address").write_text(f"{url}\n")
    with serve(world) as running:
        configure(tmp_path, entry(tmp_path, "ci", running), ledger={"url_file": "address"})
        first_look(tmp_path, world.clock)
        with exporter(tmp_path) as process:
            process.ready()
            before = until("the page", lambda: counts(process.metrics()))

            server.stop()
            until("a fault of the ledger", lambda: "ledger: " in process.get("/readyz").text)
            assert process.get("/readyz").status_code == 503
            world.start_build(HELLO, running=True, finished=world.clock.now())
            assert counts(process.metrics()) == before
            server.start()
            until("the ledger again", lambda: process.get("/readyz").status_code == 200)
            until("the build that ended meanwhile", lambda: sum(counts(process.metrics()).values()) == 1)

            process.kill()
            process.start()
            process.ready()
            assert sum(counts(process.metrics()).values()) == 1
            assert process.stop() == 0
            said = process.log_path.read_text()
        assert not any(form in said for form in (PASSWORD, url.split("@")[0].split(":")[2]))


def counts(page: dict[str, float]) -> dict[str, float]:
    return {series: value for series, value in page.items() if series.startswith("ci_builds_total")}


# What is said when it cannot be opened


SECRETS = ("hush", "s3cr3t")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("postgresql://ci:hush%40s3cr3t@/ledger?host={}", "password authentication failed"),
        ("postgresql://ci@/ledger?host={}&password=hush%40s3cr3t", "password authentication failed"),
        ("postgresql+psycopg://ci:hush%40s3cr3t@127.0.0.1:1/ledger", "refused"),
        ("postgresql://ci:hush%40s3cr3t@ledger.invalid/ledger", "ledger.invalid"),
        ("postgresql://ci:hush%40s3cr3t@/ledger?host={}&colour=blue", "colour"),
        ("postgresql://ci:hush@s3cr3t@/ledger?host={}", "letter or digit as %XX"),
        ("postgresql://ci:hush/s3cr3t@db/ledger", "letter or digit as %XX"),
        ("postgresql://ci:5432/ledger?password=hush@s3cr3t", "letter or digit as %XX"),
        ("postgresql://db:s3cr3t/ledger", "letter or digit as %XX"),
        ("mysql://ci:hush%40s3cr3t@db/ledger", "only sqlite and postgresql"),
    ],
)
def test_no_error_tells_the_password(server: Cluster, address: str, said: str) -> None:
    with (
        pytest.raises(LedgerError, match=said) as raised,
        closing(Ledger(address.format(server.directory))) as made,
    ):
        made.lock()
    assert str(raised.value).startswith("ledger: ")
    assert "\n" not in str(raised.value)
    traceback = "".join(line for line in format_exception(raised.value) if "File " not in line)
    assert not any(secret in traceback for secret in SECRETS)


@pytest.mark.parametrize("password", ["ci:hush%40s3cr3t@db/ledger", "ci@db/ledger?password=hush%40s3cr3t"])
def test_a_ledger_names_its_place_without_the_password(password: str) -> None:
    ledger = Ledger(f"postgresql://{password}")
    assert re.fullmatch(r"postgresql://ci(:\*\*\*)?@db/ledger", ledger.place)
    assert not any(secret in repr(ledger) for secret in SECRETS)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_cannot_hold_every_text_is_refused(server: Cluster, encoding: str) -> None:
    with server.database(encoding) as url, closing(Ledger(url)) as ledger:
        ledger.lock()
        with pytest.raises(LedgerError, match=f"encoding is {encoding}.*ENCODING 'UTF8'"):
            ledger.migrate()


def test_a_missing_driver_is_named(tmp_path: Path) -> None:
    configure(tmp_path, entry(tmp_path, "ci", "http://127.0.0.1:1"), ledger={"url": "postgresql://db/ledger"})
    program = "import sys; sys.modules['psycopg'] = None; from exporter.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "build-exporter: ledger: PostgreSQL's driver is not installed: "
        "pip install 'build-exporter[postgresql]'\n"
    )


def test_the_past_is_the_same_series(ledger: Ledger, tmp_path: Path) -> None:
    builds = pasts.made_up(8)
    pasts.take_in(ledger, pasts.HORIZON, builds)
    embedded, _ = pasts.ledger_with(tmp_path, pasts.HORIZON, builds)
    until = pasts.HORIZON + 3600
    here, there = (
        pasts.tracks_of(each, pasts.past_of(each, until=until), LENGTHS[0]) for each in (ledger, embedded)
    )
    assert here == there
    assert len(here) > 100

"""The ledger as a file: who may open it, what shape it has, what a failed write leaves of it."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, insert, select

from exporter.ledger import Ledger, LedgerError
from exporter.ledger.schema import HEAD, metadata, servers

OPEN_ELSEWHERE = """
import sys
from exporter.ledger import Ledger, LedgerError
ledger = Ledger(sys.argv[1])
try:
    ledger.lock()
except LedgerError as error:
    print(error)
else:
    print("opened")
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    made = opened(url)
    yield made
    made.close()


def opened(url: str) -> Ledger:
    made = Ledger(url)
    made.lock()
    made.migrate()
    return made


def elsewhere(url: str) -> str:
    """What another process says that opens the ledger."""
    command = [sys.executable, "-c", OPEN_ELSEWHERE, url]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def add(ledger: Ledger, name: str) -> None:
    with ledger.transaction() as conn:
        conn.execute(insert(servers).values(name=name, first_contact=1))


def known(ledger: Ledger) -> list[str]:
    with ledger.reading() as conn:
        return list(conn.execute(select(servers.c.name)).scalars())


# Who may open it


def test_one_process_at_a_time(ledger: Ledger, url: str) -> None:
    second = Ledger(url)
    with pytest.raises(LedgerError, match="is in use by another build-exporter; stop that one, or give"):
        second.lock()
    assert "is in use by another build-exporter" in elsewhere(url)
    ledger.close()
    assert elsewhere(url) == "opened"
    second.lock()
    second.close()


def test_the_lock_goes_with_its_process(url: str) -> None:
    """However that ended: a file that is left behind locks nobody out."""
    assert elsewhere(url) == "opened"
    assert elsewhere(url) == "opened"


def test_a_ledger_that_was_closed_is_not_written_any_more(ledger: Ledger) -> None:
    ledger.close()
    with pytest.raises(LedgerError, match="is closed"):
        add(ledger, "ci")


# What shape it has


def test_the_migrations_make_what_the_tables_say(ledger: Ledger) -> None:
    with ledger.reading() as conn:
        assert compare_metadata(MigrationContext.configure(conn), metadata) == []
        assert MigrationContext.configure(conn).get_current_revision() == HEAD
        migrated = schema_of(conn.connection.dbapi_connection)
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    with engine.connect() as conn:
        assert migrated == schema_of(conn.connection.dbapi_connection)
    engine.dispose()


def schema_of(connection: sqlite3.Connection) -> dict[str, object]:
    """Tables with their columns, keys and options, and indexes with their conditions."""
    found: dict[str, object] = {}
    rows = connection.execute("SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE '%alembic%'")
    for kind, name, sql in rows.fetchall():
        if kind == "table":
            columns = connection.execute(f"PRAGMA table_info({name})").fetchall()
            # `default` is for Python alone.
            found[name] = ([c[:4] + c[5:] for c in columns], "WITHOUT ROWID" in sql)
        else:
            found[name] = " ".join(sql.split()) if sql else None
    return found


def test_a_ledger_is_brought_up_once(url: str) -> None:
    opened(url).close()
    ledger = opened(url)
    add(ledger, "ci")
    ledger.close()
    again = opened(url)
    assert known(again) == ["ci"]
    again.close()


def test_the_ledger_of_a_later_version_is_refused(ledger: Ledger, url: str) -> None:
    with ledger.transaction() as conn:
        conn.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    ledger.close()
    later = Ledger(url)
    with pytest.raises(LedgerError, match="version 9999, which this program does not know; start the later"):
        later.migrate()
    later.close()


# What can be wrong with it


def message(url: str) -> str:
    ledger = Ledger(url)
    with pytest.raises(LedgerError) as caught:
        ledger.migrate()
    ledger.close()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/none/ledger.db"
    ledger = Ledger(url)
    with pytest.raises(LedgerError, match=r"cannot lock .*/none/ledger.db.lock: No such file or directory"):
        ledger.lock()
    ledger.close()
    assert "unable to open database file" in message(url)


def test_a_file_that_is_no_ledger(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_text("something else\n" * 100)
    assert "file is not a database" in message(f"sqlite:///{tmp_path}/ledger.db")


def test_a_ledger_that_is_damaged(ledger: Ledger, tmp_path: Path, url: str) -> None:
    add(ledger, "ci")
    ledger.close()
    path = tmp_path / "ledger.db"
    body = bytearray(path.read_bytes())
    body[200 : len(body)] = b"\x55" * (len(body) - 200)
    path.write_bytes(bytes(body))
    assert "malformed" in message(url)


def test_other_databases_are_refused() -> None:
    with pytest.raises(LedgerError, match="only sqlite and postgresql can hold a ledger"):
        Ledger("mysql://user:secret@host/name")


# What a failed write leaves


def test_a_transaction_is_kept_whole_or_not_at_all(ledger: Ledger) -> None:
    add(ledger, "kept")
    with pytest.raises(ZeroDivisionError), ledger.transaction() as conn:  # noqa: PT012
        conn.execute(insert(servers).values(name="half", first_contact=1))
        _ = 1 / 0
    assert known(ledger) == ["kept"]
    add(ledger, "next")
    assert known(ledger) == ["kept", "next"]


def test_a_fault_is_known_until_a_write_succeeds(ledger: Ledger) -> None:
    add(ledger, "ci")
    with pytest.raises(LedgerError, match="UNIQUE constraint failed"):
        add(ledger, "ci")
    assert ledger.fault is not None
    assert "UNIQUE constraint failed" in ledger.fault
    add(ledger, "other")
    assert ledger.fault is None


def test_a_full_disk_leaves_nothing_half_written(ledger: Ledger) -> None:
    add(ledger, "kept")
    with ledger.transaction() as conn:
        pages = conn.exec_driver_sql("PRAGMA page_count").scalar()
        conn.exec_driver_sql(f"PRAGMA max_page_count = {pages + 2}")
    rows = [{"name": f"{i}" * 50, "first_contact": 1} for i in range(5000)]
    with pytest.raises(LedgerError, match="database or disk is full"), ledger.transaction() as conn:
        conn.execute(insert(servers), rows)
    assert known(ledger) == ["kept"]
    with ledger.transaction() as conn:
        conn.exec_driver_sql("PRAGMA max_page_count = 100000")
    add(ledger, "next")
    assert known(ledger) == ["kept", "next"]


def test_reading_goes_on_beside_a_writer(ledger: Ledger) -> None:
    add(ledger, "before")
    with ledger.transaction() as conn:
        conn.execute(insert(servers).values(name="now", first_contact=1))
        assert known(ledger) == ["before"]
    assert known(ledger) == ["before", "now"]


def test_its_size_grows_with_what_is_written(ledger: Ledger) -> None:
    before = ledger.size()
    with ledger.transaction() as conn:
        conn.execute(insert(servers), [{"name": f"{i}" * 100, "first_contact": 1} for i in range(1000)])
    assert ledger.size() > before + 100_000
    assert ledger.count_builds() == {}

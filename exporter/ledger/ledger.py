"""The ledger as a whole: opened, locked, migrated, written in transactions, read for the page."""

import fcntl
import json
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import URL, Connection, TextClause, create_engine, event, func, make_url, select, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from exporter.incidents import State
from exporter.ledger.counts import Series, Total
from exporter.ledger.heads import BranchHead, CronHead, EnvironmentHead
from exporter.ledger.names import Name
from exporter.ledger.runs import Run
from exporter.ledger.schema import HEAD, SETTLED, builds, gaps, heads, incidents, names, repos, totals
from exporter.ledger.store import total_of
from exporter.ledger.watched import RepoState

if TYPE_CHECKING:
    from exporter.ledger.postgresql import Writer

PATIENCE = 60.0
"""Seconds that one statement may take on PostgreSQL."""
_FACTS_AT_ONCE = 200
_LAST_WAIT = 1.0
_STATE = msgspec.json.Decoder(State)
_SECRET_OPTIONS = ("password", "sslpassword")

Head = BranchHead | CronHead | EnvironmentHead


class LedgerError(Exception):
    """The ledger cannot be opened, read or written; the message says why and what to do."""


class LedgerInUseError(LedgerError):
    """Another exporter is on this ledger."""


@dataclass(slots=True)
class RepoFacts:
    """All that the page needs of one repo."""

    repo: RepoState
    names: dict[tuple[str, str], Name] = field(default_factory=dict)
    totals: dict[Series, Total] = field(default_factory=dict)
    heads: dict[tuple[str, str], str] = field(default_factory=dict)
    open: list[Run] = field(default_factory=list)
    red: list[State] = field(default_factory=list)
    """Its open incidents."""
    importing: bool = False


class Ledger:
    """One ledger, written by one process; every failure is a `LedgerError`."""

    def __init__(self, url: str, patience: float = PATIENCE) -> None:
        """Opens (and where there is none, makes) the ledger at a SQLAlchemy `url`.

        On PostgreSQL a statement may take `patience` (seconds).
        """
        self._url = _read(url)
        self._writing = threading.Lock()
        self._closed = False
        self._held = ExitStack()
        self._writer: Writer | None = None
        self._turn: TextClause | None = None
        self._reads: dict[str, Any] = {"reads": True}
        self.fault: str | None = None
        """Why it could not be read or written; None once a transaction went well again."""
        if self._url.get_backend_name() not in ("sqlite", "postgresql"):
            raise LedgerError(f"ledger: {self.place}: only sqlite and postgresql can hold a ledger")
        if self._sqlite:
            arguments = {"timeout": 10, "check_same_thread": False}
            self._engine = create_engine(self._url, connect_args=arguments)
            event.listen(self._engine, "connect", _set_up_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
            return
        try:
            from exporter.ledger import postgresql  # its driver is an extra
        except ImportError:
            raise LedgerError(
                "ledger: PostgreSQL's driver is not installed: pip install 'build-exporter[postgresql]'"
            ) from None
        with self._errors():
            self._engine = postgresql.open_engine(self._url, patience)
        self._reads |= postgresql.READS
        self._turn = postgresql.TURN

    @property
    def place(self) -> str:
        """Where it is, without a password."""
        return self._url.difference_update_query(_SECRET_OPTIONS).render_as_string(hide_password=True)

    @property
    def _sqlite(self) -> bool:
        return self._url.get_backend_name() == "sqlite"

    def lock(self) -> None:
        """Keeps other exporters off this ledger until `close`; refused while one is on it."""
        if not self._sqlite:
            from exporter.ledger.postgresql import Writer

            self._writer = Writer(self._engine, self._in_use)
            with self.transaction():
                return
        path = f"{self._url.database}.lock"
        try:
            with ExitStack() as stack:
                file = stack.enter_context(open(path, "a", encoding="ascii"))
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._held = stack.pop_all()
        except BlockingIOError:
            raise self._in_use() from None
        except OSError as error:
            raise LedgerError(f"ledger: cannot lock {path}: {error.strerror}") from error

    def _in_use(self) -> LedgerError:
        return LedgerInUseError(
            f"ledger: {self.place} is in use by another build-exporter; stop that one, or give this one "
            "a ledger of its own (ledger.url)"
        )

    def migrate(self) -> None:
        """Brings the tables to this version's shape; a newer version's ledger is refused."""
        with self._errors():
            with self._engine.connect() as conn:
                if not self._sqlite and (encoding := conn.scalar(text("SHOW server_encoding"))) != "UTF8":
                    raise LedgerError(
                        f"ledger: {self.place}: the database's encoding is {encoding}, which cannot hold "
                        "every text: make one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
                    )
                exists = self._engine.dialect.has_table(conn, "alembic_version")
                version = (
                    conn.execute(text("SELECT version_num FROM alembic_version")).scalar() if exists else None
                )
            if version == HEAD:
                return
            from exporter.ledger.migrate import TooNewError, upgrade  # Alembic is slow to import

            try:
                upgrade(self._engine, version)
            except TooNewError as error:
                raise LedgerError(f"ledger: {self.place}: {error}; start the later version") from error

    def exists(self) -> bool:
        """True when it was made already; looking makes none."""
        if self._sqlite and not Path(self._url.database or "").exists():
            return False
        with self.reading() as conn:
            return self._engine.dialect.has_table(conn, builds.name)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction that writes: all of it is kept, or nothing; one at a time, of all processes."""
        with self._writing:
            if self._closed:
                raise LedgerError(f"ledger: {self.place} is closed")
            begin = self._writer.begin if self._writer else self._engine.begin
            with self._errors(), begin() as conn:
                if self._turn is not None:
                    conn.execute(self._turn)
                yield conn
            self.fault = None

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read with, beside whoever writes."""
        with self._errors(), self._engine.connect().execution_options(**self._reads) as conn:
            yield conn

    def facts(self, repo_ids: Sequence[int] | None = None, server: str | None = None) -> Iterator[RepoFacts]:
        """What the page needs of these repos, or of all watched repos of a server."""
        with self.reading() as conn:
            if repo_ids is None:
                wanted = select(repos).where(repos.c.server == server, repos.c.watched)
                states = [RepoState(*row) for row in conn.execute(wanted)]
            else:
                states = [
                    RepoState(*row)
                    for at in range(0, len(repo_ids), _FACTS_AT_ONCE)
                    for row in conn.execute(
                        select(repos).where(repos.c.id.in_(repo_ids[at : at + _FACTS_AT_ONCE]))
                    )
                ]
            for at in range(0, len(states), _FACTS_AT_ONCE):
                yield from _facts(conn, states[at : at + _FACTS_AT_ONCE])

    def count_builds(self) -> dict[str, int]:
        """How many runs are kept, by server."""
        with self.reading() as conn:
            rows = conn.execute(
                select(repos.c.server, func.count())
                .join(builds, builds.c.repo_id == repos.c.id)
                .group_by(repos.c.server)
            )
            return {row[0]: row[1] for row in rows}

    def size(self) -> int:
        """Bytes on disk."""
        if self._sqlite:
            files = (Path(f"{self._url.database}{suffix}") for suffix in ("", "-wal"))
            return sum(f.stat().st_size for f in files if f.exists())
        with self.reading() as conn:
            return int(conn.execute(select(func.pg_database_size(func.current_database()))).scalar_one())

    def close(self) -> None:
        """Waits for a transaction in flight, though not for ever, then lets go of the ledger."""
        if not self._writing.acquire(timeout=_LAST_WAIT):
            return  # the end of the process undoes what could not be committed
        self._closed = True
        try:
            if self._writer is not None:
                self._writer.close()
            self._engine.dispose()
            self._held.close()
        finally:
            self._writing.release()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except LedgerError as error:
            self.fault = str(error)
            raise
        except SQLAlchemyError as error:
            reason = getattr(error, "orig", None) or error
            first = str(reason).strip().splitlines()[0] if str(reason).strip() else type(reason).__name__
            self.fault = f"ledger: {self.place}: {first}"
            raise LedgerError(self.fault) from error


def _read(address: str) -> URL:
    """The address in its parts. No error shows it: what cannot be read may be a password."""
    with suppress(ArgumentError, ValueError):
        if address.startswith("sqlite:") or re.fullmatch(r"\w+(\+\w+)?://([^/?#@]*@)?[^@]*", address):
            return make_url(address)
    raise LedgerError(
        "ledger: its address cannot be read; in a name or password, write every character that is no "
        "letter or digit as %XX (@ is %40)"
    )


def _facts(conn: Connection, states: Sequence[RepoState]) -> Iterable[RepoFacts]:
    found = {state.id: RepoFacts(state) for state in states}
    ids = list(found)
    for row in conn.execute(select(names).where(names.c.repo_id.in_(ids))):
        found[row.repo_id].names[row.kind, row.name] = Name(row.slot, row.since, row.last)
    for row in conn.execute(select(totals).where(totals.c.repo_id.in_(ids))):
        found[row.repo_id].totals[row.family, tuple(json.loads(row.labels))] = total_of(row)
    for row in conn.execute(select(heads).where(heads.c.repo_id.in_(ids))):
        found[row.repo_id].heads[row.kind, row.name] = row.state
    for row in conn.execute(select(builds).where(builds.c.repo_id.in_(ids), builds.c.state != SETTLED)):
        found[row.repo_id].open.append(Run(*row))
    red = select(incidents.c.repo_id, incidents.c.state).where(incidents.c.repo_id.in_(ids), text("red"))
    for repo_id, state in conn.execute(red):
        found[repo_id].red.append(_STATE.decode(state))
    for repo_id in conn.execute(
        select(gaps.c.repo_id).where(gaps.c.repo_id.in_(ids), gaps.c.history).distinct()
    ).scalars():
        found[repo_id].importing = True
    return found.values()


def _set_up_sqlite(connection: Any, _: object) -> None:
    # The driver's own BEGIN comes too late to keep a second writer out; ours is in `_begin_sqlite`.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "cache_size=-16000"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(conn: Connection) -> None:
    reads = conn.get_execution_options().get("reads", False)
    conn.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

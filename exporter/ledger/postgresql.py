"""What a ledger on PostgreSQL takes beside SQL: connections that give up in time, and one that may write."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from sqlalchemy import URL, Connection, Engine, create_engine, event, func, select, text
from sqlalchemy.exc import OperationalError

LOCK = 0x6275696C  # any number, as long as every exporter takes the same
TURN = text(f"SELECT pg_advisory_xact_lock({LOCK + 1})")
"""Begins a transaction that writes: one at a time, as on SQLite, whatever process they are of."""
CONNECT, LOCKED = 10, 10
"""Seconds that a connection may take to be made, and that a lock of another program is waited for."""
TAKEN_OVER = 2
"""Seconds after which the server has noticed that a process is gone which held the lock."""
READS = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
"""Options of a connection that reads: all that it sees is of one moment, as on SQLite."""

T = TypeVar("T")


def open_engine(url: URL, patience: float) -> Engine:
    """An engine none of whose statements takes longer than `patience` (seconds).

    The server ends those that do; where the server itself stands still, the connection is given up half
    as long after that. What `url` itself asks for counts more.
    """
    settings = {
        "statement_timeout": f"{patience * 1000:.0f}",
        "lock_timeout": f"{LOCKED * 1000}",
        # A minute after our machine is gone, the server lets others have the lock.
        "tcp_keepalives_idle": "30",
        "tcp_keepalives_interval": "10",
        "tcp_keepalives_count": "3",
    }
    defaults = {"application_name": "build-exporter", "connect_timeout": CONNECT}
    options = [f"-c {name}={value}" for name, value in settings.items()]
    engine = create_engine(
        url,
        paramstyle="format",
        client_encoding="utf8",
        pool_pre_ping=True,
        connect_args={
            **{name: value for name, value in defaults.items() if name not in url.query},
            "options": " ".join([*options, *url.normalized_query.get("options", ())]),
        },
    )

    def connect(_dialect: object, _record: object, cargs: Any, cparams: Any) -> Impatient:
        made = Impatient.connect(*cargs, **cparams)
        made.silence = patience * 1.5
        return made

    event.listen(engine, "do_connect", connect)
    return engine


class Impatient(psycopg.Connection[Any]):
    """A connection that is closed when the server has been silent for `silence` seconds."""

    silence: float

    def wait(self, gen: PQGen[T], *args: Any, **options: Any) -> T:
        """What an exchange with the server comes to."""
        return super().wait(self._heard(gen), *args, **options)

    def _heard(self, gen: PQGen[T]) -> PQGen[T]:
        """The same exchange, which the driver tells every 0.1 s whether there is something to be read."""
        heard = monotonic()
        try:
            waits_for = next(gen)
            while True:
                ready = yield waits_for
                if ready:
                    heard = monotonic()
                elif monotonic() - heard > self.silence:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"the server has not answered for {self.silence:.0f} s")
                waits_for = gen.send(ready)
        except StopIteration as done:
            result: T = done.value
            return result


class Writer:
    """The one connection that writes. It holds the lock, so that who loses it cannot write any more."""

    def __init__(self, engine: Engine, refuse: Callable[[], Exception]) -> None:
        """`refuse` makes the error that is raised while another process holds the lock."""
        self._engine, self._refuse = engine, refuse
        self._conn: Connection | None = None

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction, once the lock is ours."""
        conn = self._connected()
        with conn.begin():
            yield conn

    def close(self) -> None:
        """Lets go of the lock."""
        if self._conn is not None:
            self._conn.invalidate()
            self._conn.close()
            self._conn = None

    def _connected(self) -> Connection:
        """The connection, made anew where the server went away meanwhile."""
        if self._conn is not None and not self._is_alive(self._conn):
            self.close()
        if self._conn is None:
            with ExitStack() as stack:
                conn = stack.enter_context(self._engine.connect())
                try:
                    with conn.begin():
                        conn.execute(text(f"SET LOCAL lock_timeout = '{TAKEN_OVER}s'"))
                        conn.execute(select(func.pg_advisory_lock(LOCK)))
                except OperationalError as error:
                    if isinstance(error.orig, psycopg.errors.LockNotAvailable):
                        raise self._refuse() from None
                    raise
                stack.pop_all()
            self._conn = conn
        return self._conn

    def _is_alive(self, conn: Connection) -> bool:
        raw = None if conn.invalidated else conn.connection.dbapi_connection
        try:
            return raw is not None and self._engine.dialect.do_ping(raw)
        except psycopg.Error:
            return False

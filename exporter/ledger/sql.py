"""Rows in large numbers, as the database's driver takes them."""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import Connection, Dialect, Table
from sqlalchemy.dialects import postgresql, sqlite

T = TypeVar("T")
AT_ONCE = 500
"""Values in one IN list; SQLite takes 32,766 parameters a statement."""


def upsert(conn: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Writes whole rows, values in the order of the table's columns."""
    if rows:
        conn.exec_driver_sql(_upsert_sql(table, conn.dialect), list(rows))


@cache
def _upsert_sql(table: Table, dialect: Dialect) -> str:
    """The statement as the driver takes it: with thousands of rows the way there is what costs."""
    statement = (postgresql if dialect.name == "postgresql" else sqlite).insert(table)
    keys = [column.name for column in table.primary_key]
    values = {c.name: statement.excluded[c.name] for c in table.columns if c.name not in keys}
    return str(statement.on_conflict_do_update(index_elements=keys, set_=values).compile(dialect=dialect))


def chunks(values: Sequence[T]) -> Iterable[Sequence[T]]:
    """The values in parts that fit into one statement."""
    return (values[at : at + AT_ONCE] for at in range(0, len(values), AT_ONCE))

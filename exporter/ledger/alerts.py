"""The ledger's SQL for what Alertmanagers are told: which incidents are open, and what was told of them."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from operator import attrgetter

import msgspec
from sqlalchemy import Connection, bindparam, delete, select, text

from exporter.incidents import State
from exporter.ledger.schema import alerts, incidents
from exporter.ledger.sql import upsert

_DECODE = msgspec.json.Decoder(State)
# What is red or flapping is what time alone may change: there is an index of that.
_STIRRING = (
    select(incidents.c.repo_id, incidents.c.state)
    .where(text("wakes IS NOT NULL"))
    .order_by(incidents.c.repo_id, incidents.c.ref_class)
)
_OF_TARGET = select(alerts).where(alerts.c.target == bindparam("of_target")).order_by(alerts.c.labels)
_DROP = delete(alerts).where(
    alerts.c.target == bindparam("of_target"), alerts.c.labels == bindparam("of_labels")
)


@dataclass(frozen=True, slots=True)
class Alert:
    """A row of the table `alerts`; fields in the order of its columns."""

    target: str
    labels: str
    repo_id: int
    ref_class: str
    epoch: int
    opened: float
    resolved: float
    annotations: str
    url: str
    taken: str


def stirring(conn: Connection) -> list[tuple[int, str]]:
    """(repo, state) of all that is red or flapping, as it is stored: cheap to compare."""
    return [(repo_id, state) for repo_id, state in conn.execute(_STIRRING)]


def decode(state: str) -> State:
    """A state as `stirring` has it."""
    return _DECODE.decode(state)


def alerts_of(conn: Connection, target: str) -> list[Alert]:
    """All that a target is told, in the order of labels."""
    return [Alert(*row) for row in conn.execute(_OF_TARGET, {"of_target": target})]


def write_alerts(conn: Connection, told: Iterable[Alert]) -> None:
    """Stores alerts, in place of those with the same labels."""
    upsert(conn, alerts, [_ROW(alert) for alert in told])


def drop_alerts(conn: Connection, gone: Iterable[Alert]) -> None:
    """Forgets alerts."""
    where = [{"of_target": alert.target, "of_labels": alert.labels} for alert in gone]
    if where:
        conn.execute(_DROP, where)


_ROW = attrgetter(*(field.name for field in fields(Alert)))

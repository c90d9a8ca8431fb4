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
_RED = select(incidents.c.repo_id, incidents.c.ref_class, incidents.c.state).where(text("red"))
_TOLD = (
    select(incidents.c.repo_id, incidents.c.ref_class, incidents.c.state)
    .join(
        alerts,
        (alerts.c.repo_id == incidents.c.repo_id) & (alerts.c.ref_class == incidents.c.ref_class),
    )
    .where(alerts.c.target == bindparam("of_target"), alerts.c.resolved == 0)
)
_STIRRING = _RED.union(_TOLD).order_by("repo_id", "ref_class")
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


def stirring(conn: Connection, target: str) -> list[tuple[int, str]]:
    """(repo, state) of all that is red or was told to be, as it is stored: cheap to compare."""
    return [(repo_id, state) for repo_id, _, state in conn.execute(_STIRRING, {"of_target": target})]


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

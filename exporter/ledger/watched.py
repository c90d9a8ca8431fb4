"""The ledger's SQL for what is watched: servers, their repos, and the gaps in what was read of them."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Connection, and_, bindparam, delete, insert, select, update

from exporter.ledger.schema import SETTLED, UNREAD, builds, gaps, repos, servers, totals
from exporter.ledger.sql import chunks, upsert

_WRITE_GAP = (
    update(gaps)
    .where(gaps.c.id == bindparam("gap"))
    .values(high=bindparam("new_high"), failed=bindparam("now_failed"))
)
_DROP_GAP = delete(gaps).where(gaps.c.id == bindparam("gap"))
_HISTORY = select(gaps.c.id).where(gaps.c.repo_id == bindparam("repo"), gaps.c.history).limit(1)


@dataclass(slots=True)
class RepoState:
    """A row of the table `repos`; fields in the order of its columns."""

    id: int
    server: str
    name: str
    uid: str = ""
    default_branch: str = ""
    timeout: int = 0
    build_url: str = ""
    horizon: int = 0
    horizon_skew: float = 0.0
    generation: int = 0
    highest: int = 0
    highest_created: int = 0
    watched: bool = True
    missed_sweeps: int = 0
    missed_since: float = 0.0
    gone: bool = False
    pruned: int = 0
    judged: int = UNREAD


@dataclass(slots=True)
class ServerState:
    """A row of the table `servers`; fields in the order of its columns."""

    name: str
    first_contact: int = 0
    last_sweep: int = 0
    last_poll: float = 0.0
    skew: float = 0.0
    cursor: str = ""


@dataclass(slots=True)
class Gap:
    """Numbers `low` to `high` of a repo that are known to exist and not read yet."""

    id: int
    repo_id: int
    generation: int
    low: int
    high: int
    history: bool
    failed: bool


def server_state(conn: Connection, name: str) -> ServerState | None:
    row = conn.execute(select(servers).where(servers.c.name == name)).first()
    return ServerState(*row) if row else None


def write_server(conn: Connection, state: ServerState) -> None:
    upsert(conn, servers, [_row(state)])


def repo_states(conn: Connection, server: str) -> list[RepoState]:
    rows = conn.execute(select(repos).where(repos.c.server == server))
    return [RepoState(*row) for row in rows]


def repos_by_id(conn: Connection, ids: Collection[int]) -> dict[int, RepoState]:
    """These repos, whatever their server."""
    return {
        row[0]: RepoState(*row)
        for chunk in chunks(sorted(ids))
        for row in conn.execute(select(repos).where(repos.c.id.in_(chunk)))
    }


def write_repos(conn: Connection, states: Iterable[RepoState]) -> None:
    """Stores repos; one with id 0 is new and gets its id."""
    old: list[tuple[Any, ...]] = []
    for state in states:
        if state.id:
            old.append(_row(state))
            continue
        values = {f.name: getattr(state, f.name) for f in fields(state) if f.name != "id"}
        state.id = conn.execute(insert(repos).values(values).returning(repos.c.id)).scalar_one()
    upsert(conn, repos, old)


def gaps_of(conn: Connection, server: str) -> list[Gap]:
    """The gaps of a server's watched repos; live ones first, then newest repo's history first."""
    rows = conn.execute(
        select(gaps)
        .join(repos, repos.c.id == gaps.c.repo_id)
        .where(repos.c.server == server, repos.c.watched, ~repos.c.gone)
        .order_by(gaps.c.history, gaps.c.id)
    )
    return [Gap(*row) for row in rows]


def gaps_of_repo(conn: Connection, repo_id: int) -> list[Gap]:
    return [Gap(*row) for row in conn.execute(select(gaps).where(gaps.c.repo_id == repo_id))]


def imports(conn: Connection, repo_id: int) -> bool:
    """True while pages of a repo's history are to be read."""
    return conn.execute(_HISTORY, {"repo": repo_id}).first() is not None


def add_gap(
    conn: Connection, repo: RepoState, low: int, high: int, *, history: bool, failed: bool = False
) -> None:
    conn.execute(
        insert(gaps).values(
            repo_id=repo.id, generation=repo.generation, low=low, high=high, history=history, failed=failed
        )
    )


def write_gap(conn: Connection, gap: Gap) -> None:
    """Stores what is left of a gap; nothing left removes it."""
    if gap.low > gap.high:
        conn.execute(_DROP_GAP, {"gap": gap.id})
    else:
        conn.execute(_WRITE_GAP, {"gap": gap.id, "new_high": gap.high, "now_failed": gap.failed})


def drop_gaps(conn: Connection, repo: RepoState) -> None:
    conn.execute(delete(gaps).where(gaps.c.repo_id == repo.id))


def drop_totals(conn: Connection, repo: RepoState) -> None:
    """Lets the repo's counters and histograms begin again at 0."""
    conn.execute(delete(totals).where(totals.c.repo_id == repo.id))


def newest_created(conn: Connection, repo: RepoState, limit: int) -> dict[int, int]:
    """The newest builds known of a repo, of every generation: when they were created, by number."""
    rows = conn.execute(
        select(builds.c.number, builds.c.created)
        .where(builds.c.repo_id == repo.id, builds.c.created > 0)
        .order_by(builds.c.generation.desc(), builds.c.number.desc(), builds.c.run.desc())
        .limit(limit)
    )
    found: dict[int, int] = {}
    for number, created in rows:
        found.setdefault(number, created)
    return found


def newest_ended(conn: Connection, server: str) -> dict[str, tuple[int, int, int]]:
    """Of each repo whose highest number has ended: that number, when it started and finished."""
    rows = conn.execute(
        select(repos.c.name, builds.c.number, builds.c.started, builds.c.finished)
        .join(
            builds,
            and_(
                builds.c.repo_id == repos.c.id,
                builds.c.generation == repos.c.generation,
                builds.c.number == repos.c.highest,
            ),
        )
        .where(repos.c.server == server, builds.c.state >= SETTLED)
        .order_by(builds.c.run)
    )
    return {name: (number, started, finished) for name, number, started, finished in rows}


def _row(state: RepoState | ServerState) -> tuple[Any, ...]:
    return tuple(getattr(state, f.name) for f in fields(state))

"""The repos of one server as the ledger knows them: how one comes, changes and goes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from sqlalchemy import Connection

from exporter.config import ServerSettings
from exporter.http import ServerError
from exporter.ledger import Ledger, Moment, watched
from exporter.ledger.schema import NEWEST
from exporter.ledger.watched import RepoState, ServerState
from exporter.log import logger
from exporter.model import Build, Repo
from exporter.numbers import Numbers
from exporter.servers import Limits, Server, told_until

GONE_SWEEPS = 3
GONE_SECONDS = 30 * 60
"""A repo is gone when that many sweeps over that long did not list it (docs/metrics.md)."""

log = logger(__name__)


class Roster:
    """Which repos of a server are watched, by name and by the ledger's id."""

    def __init__(self, ledger: Ledger, settings: ServerSettings) -> None:
        self.name = settings.name
        self._ledger = ledger
        self._settings = settings
        self.stale = True
        """What memory holds may be of a transaction that failed: to be loaded."""
        self.server: ServerState | None = None
        self.told_until = 0
        """Up to when all was told that changed, where a feed says so (server's clock)."""
        self.repos: dict[str, RepoState] = {}
        self.by_id: dict[int, RepoState] = {}

    def load(self) -> None:
        """Reads what the ledger has, in place of what memory held."""
        with self._ledger.reading() as conn:
            self.server = watched.server_state(conn, self._settings.name)
            states = watched.repo_states(conn, self._settings.name)
        self.repos = {state.name: state for state in states}
        self.by_id = {state.id: state for state in states}
        self.told_until = told_until(self.server.cursor) if self.server else 0
        self.stale = False

    def watched(self, name: str) -> RepoState | None:
        """The repo, where it is watched and was listed."""
        repo = self.repos.get(name)
        return repo if repo is not None and repo.watched else None

    def greet(self, conn: Connection, now: Moment) -> ServerState:
        """The server's own row, made on first contact."""
        if self.server is None:
            self.server = ServerState(self._settings.name, int(now.server))
            watched.write_server(conn, self.server)
        return self.server

    def is_unsure(self, row: Build) -> bool:
        """True of a row whose repo is to be watched, and of which only a list tells what repo it is.

        It was in no list yet, or its numbers begin again: the server was rebuilt, or the name is another
        repo's by now.
        """
        known = self.repos.get(row.repo)
        if known is None:
            return self._settings.watches(row.repo)
        return known.watched and row.number <= known.highest and 0 < known.highest_created < row.created

    def wants(self, repo: Repo) -> bool:
        """True of a listed repo that the configuration watches."""
        return self._settings.watches(repo.name, active=repo.active)

    def wanted(self, listed: Sequence[Repo]) -> list[Repo]:
        """Those of a sweep's list that are to be watched."""
        return [repo for repo in listed if self.wants(repo)]

    def rename(self, conn: Connection, names: Mapping[int, str]) -> set[int]:
        """Gives repos, by the ledger's id, the names that they have by now; returns the ids of all changed.

        A repo that had such a name before and has no other one now is not shown any more; what is
        recorded of it stays.
        """
        holders = {name: self.repos[name] for name in names.values() if name in self.repos}
        moved = [self.by_id[repo_id] for repo_id in names]
        ousted = [state for state in holders.values() if state.id not in names]
        before = {state.id: state.name for state in (*moved, *ousted)}
        for state in (*moved, *ousted):
            # A name is one repo's alone, so all are let go before any is taken. No server's has a space.
            state.name = f"{state.name} {state.id}"
        for state in ousted:
            state.watched, state.gone = False, True
            self._tell("the name of a repo is another one's by now: it is not watched", state, before)
        watched.write_repos(conn, (*moved, *ousted))
        for state in moved:
            state.name = names[state.id]
            if state.name in holders:
                # Its values are no increase of the other's: a series that begins again at 0 shows none.
                watched.drop_totals(conn, state)
            self._tell("a repo has another name by now: what it was goes on under that", state, before)
        watched.write_repos(conn, moved)
        self.repos = {state.name: state for state in self.by_id.values()}
        return set(before)

    def _tell(self, message: str, state: RepoState, before: Mapping[int, str]) -> None:
        log.info(message, server=state.server, repo=state.name, before=before[state.id])

    def unmet(self, wanted: Sequence[Repo], limits: Limits) -> list[Repo]:
        """Those that earlier sweeps did not list, and that may have been made since the last one.

        Left out are those whose newest build is too old for the first one to matter.
        """
        if self.server is None or not self.server.last_sweep:
            return []
        since = self._counted_from(self.server, limits)
        return [
            repo
            for repo in wanted
            if repo.name not in self.repos and (repo.newest is None or repo.newest.created >= since)
        ]

    def update(
        self,
        conn: Connection,
        listed: Sequence[Repo],
        firsts: Mapping[str, int],
        limits: Limits,
        numbers: Numbers,
        now: Moment,
    ) -> set[int]:
        """Takes in a sweep's list; returns the ids of the repos that came, changed or went."""
        known = self.greet(conn, now)
        counted_from = self._counted_from(known, limits)
        if not limits.lists_repos:
            listed = [*listed, *self._known_beside(listed)]
        changed: list[RepoState] = []
        for repo in self.wanted(listed):
            state = self.repos.get(repo.name)
            if state is None:
                young = firsts.get(repo.name, 0) >= counted_from
                state = self._adopt(conn, repo, counted_from if young else None, now)
                if not (young and limits.lists_repos):
                    numbers.leave_to_import(conn, state, repo, wanted=self._imports)
                changed.append(state)
            before = replace(state)
            if not state.watched:
                state.watched = True
                _set_horizon(state, now)  # what ended while `repos:` left it out is history
                state.judged = min(state.judged, NEWEST)
                numbers.leave_to_import(conn, state, repo, wanted=self._imports)
            state.uid, state.timeout = repo.id or state.uid, repo.timeout or state.timeout
            state.default_branch = repo.default_branch or state.default_branch
            state.build_url = repo.build_url
            state.missed_sweeps, state.missed_since, state.gone = 0, 0.0, False
            if state != before:
                changed.append(state)
        changed += self._set_back(now)
        changed += self._miss({repo.name for repo in listed if self._is_seen(repo)}, now)
        changed += self._disown({repo.id: repo.name for repo in listed if repo.id})
        watched.write_repos(conn, changed)
        known.last_sweep = int(now.server)
        watched.write_server(conn, known)
        return {state.id for state in changed}

    @property
    def _imports(self) -> bool:
        return self._settings.import_ > 0

    def _counted_from(self, known: ServerState, limits: Limits) -> int:
        """Since when a repo may have had builds without being listed (server's clock)."""
        told = known.last_sweep - limits.listing_delay if limits.lists_repos else self.told_until
        return max(known.first_contact, told)

    def _known_beside(self, listed: Sequence[Repo]) -> Iterable[Repo]:
        """The repos that were met before and are not `listed`: where no list tells all, they are there."""
        names = {repo.name for repo in listed}
        for state in self.repos.values():
            if state.name not in names and not state.gone:
                yield Repo(name=state.name, build_url=state.build_url)

    def _adopt(self, conn: Connection, repo: Repo, counted_from: int | None, now: Moment) -> RepoState:
        """A repo that is seen for the first time, with its horizon.

        A repo that was made since the last sweep is counted from its first build on: what it built
        before we heard of it is no history (docs/metrics.md, "History and the present").
        """
        state = RepoState(
            id=0,
            server=self._settings.name,
            name=repo.name,
            uid=repo.id,
            default_branch=repo.default_branch,
            timeout=repo.timeout,
            build_url=repo.build_url,
            horizon=int(now.server) if counted_from is None else counted_from,
            horizon_skew=now.server - now.ours,
        )
        watched.write_repos(conn, [state])
        self.repos[state.name] = self.by_id[state.id] = state
        return state

    def _is_seen(self, repo: Repo) -> bool:
        return repo.active or not self._settings.repos.active_only

    def _disown(self, names: Mapping[str, str]) -> Iterable[RepoState]:
        """No repo has an id that the server gave to another one."""
        for state in self.repos.values():
            if names.get(state.uid, state.name) != state.name:
                state.uid = ""
                yield state

    def _set_back(self, now: Moment) -> Iterable[RepoState]:
        """No horizon is ahead of the server's clock, so that builds count although that was set back."""
        for state in self.repos.values():
            if state.horizon > now.server:
                _set_horizon(state, now)
                yield state

    def _miss(self, listed: set[str], now: Moment) -> Iterable[RepoState]:
        for state in self.repos.values():
            if state.name in listed:
                if state.watched and not self._settings.watches(state.name):
                    state.watched = False
                    yield state
                continue
            if state.gone:
                continue
            state.missed_sweeps += 1
            state.missed_since = state.missed_since or now.ours
            if state.missed_sweeps >= GONE_SWEEPS and now.ours - state.missed_since >= GONE_SECONDS:
                state.gone = True
                log.warning(
                    "a repo is not listed any more: its gauges are withdrawn",
                    server=state.server,
                    repo=state.name,
                )
            yield state


def _set_horizon(state: RepoState, now: Moment) -> None:
    state.horizon, state.horizon_skew = int(now.server), now.server - now.ours


def first_created(server: Server, repo: Repo) -> int:
    """When the repo's first build was created (Unix seconds); 0 where that cannot be told.

    Raises `ServerError` where there is no answer.
    """
    if not repo.counter:
        return int(server.session.server_now())
    if repo.newest is not None and repo.newest.number == 1:
        return repo.newest.created
    try:
        return server.build(repo.name, 1).created
    except ServerError as error:
        if error.status:
            return 0
        raise

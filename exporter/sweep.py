"""A sweep: every repo's newest build against the ledger, so that what a feed lost is found."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from exporter.faults import Faults
from exporter.gaps import GapReader
from exporter.http import ServerError
from exporter.intake import Intake
from exporter.ledger import Ledger, Moment
from exporter.ledger.watched import RepoState
from exporter.model import Repo
from exporter.renames import is_same, suspects
from exporter.roster import Roster, first_created
from exporter.servers import Server


class Sweeper:
    """Compares what one server lists with what is known of it."""

    def __init__(
        self,
        server: Server,
        gaps: GapReader,
        faults: Faults,
        intake: Intake,
        roster: Roster,
        ledger: Ledger,
        moment: Callable[[], Moment],
    ) -> None:
        self._server, self._gaps, self._faults = server, gaps, faults
        self._intake, self._roster, self._ledger, self._moment = intake, roster, ledger, moment

    def sweep(self) -> None:
        """Takes in which repos came, changed and went, and their newest builds."""
        listed = self._made_anew(self._renamed(self._completed(self._server.repos())))
        firsts, late = self._firsts(self._roster.wanted(listed))
        listed = [repo for repo in listed if repo.name not in late]
        wanted = self._roster.wanted(listed)
        with self._ledger.transaction() as conn:
            changed = self._roster.update(
                conn, listed, firsts, self._server.limits, self._intake.numbers, self._moment()
            )
            self._intake.gone(conn, changed)
            self._intake.changed |= changed
        self._intake.take_newest(repo.newest for repo in wanted)
        self._intake.reach(wanted)

    def _renamed(self, listed: Sequence[Repo]) -> list[Repo]:
        """Takes in new names of known repos; returns the list without those of which that is not sure yet."""
        names: dict[int, str] = {}
        late: set[str] = set()
        for repo, known in suspects(self._roster.by_id.values(), listed):
            taken = known.id in names or repo.name in names.values()
            if not taken and self._is_same(repo, known, late):
                names[known.id] = repo.name
        if names:
            with self._ledger.transaction() as conn:
                self._intake.changed |= self._roster.rename(conn, names)
        return [repo for repo in listed if repo.name not in late]

    def _made_anew(self, listed: Sequence[Repo]) -> list[Repo]:
        """Begins anew with repos whose names are others' by now; returns the list as `_renamed` does."""
        late: set[str] = set()
        anew: list[tuple[RepoState, int]] = []
        for repo in listed:
            known = self._roster.repos.get(repo.name)
            other = known and known.highest and known.uid and repo.id not in ("", known.uid)
            if known and other and self._is_same(repo, known, late) is False:
                anew.append((known, known.highest_created))
        self._intake.take((), anew=anew)
        return [repo for repo in listed if repo.name not in late]

    def _is_same(self, repo: Repo, known: RepoState, late: set[str]) -> bool | None:
        """Whether a listed repo is a known one; None where the server does not tell, and is asked no more.

        `late` takes in what is to be asked with the next sweep.
        """
        key = ("same", known.id, repo.name)
        try:
            same = is_same(self._server, self._gaps, self._ledger, repo, known)
        except ServerError as error:
            if not self._faults.bad(key, repo.name, error):
                late.add(repo.name)
            return None
        self._faults.good(key, repo.name)
        return same

    def _firsts(self, wanted: Sequence[Repo]) -> tuple[dict[str, int], set[str]]:
        """When the first builds of new repos were created, and the repos that are left to a later sweep."""
        firsts: dict[str, int] = {}
        late: set[str] = set()
        for repo in self._roster.unmet(wanted, self._server.limits):
            try:
                firsts[repo.name] = first_created(self._server, repo)
            except ServerError as error:
                if not self._faults.bad(("first", repo.name), repo.name, error):
                    late.add(repo.name)
            else:
                self._faults.good(("first", repo.name), repo.name)
        return firsts, late

    def _completed(self, listed: Iterable[Repo]) -> list[Repo]:
        """The list with the newest build of each repo that is to be asked for it by itself.

        A repo that does not answer is left out, unless it is known; then it is compared next time.
        """
        found: list[Repo] = []
        for repo in listed:
            known = self._roster.repos.get(repo.name)
            if repo.unseen and self._roster.wants(repo):
                try:
                    rows = self._server.builds(repo.name, 1).builds
                except ServerError as error:
                    self._faults.bad(("newest", repo.name), repo.name, error)
                    if known is None:
                        continue
                else:
                    self._faults.good(("newest", repo.name), repo.name)
                    number = max([repo.counter, *(row.number for row in rows)])
                    repo = replace(repo, newest=next(iter(rows), None), counter=number)
            found.append(repo)
        return found

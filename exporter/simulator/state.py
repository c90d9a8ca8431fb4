"""What a simulated server has: users, repos, builds, and plans for what happens when."""

import heapq
import itertools
import math
import threading
from bisect import insort
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import takewhile

from exporter.simulator.builds import Build
from exporter.simulator.cache import Cache
from exporter.simulator.changes import Change, Changes
from exporter.simulator.clock import Clock
from exporter.simulator.faults import Faults
from exporter.simulator.history import DAY, History
from exporter.simulator.invention import TRAITS
from exporter.simulator.repos import Repo, User


class State:
    """A CI server's contents; `World` makes things happen in it.

    Everything is guarded by one lock, so that a test and the HTTP thread can share it.
    """

    def __init__(
        self,
        dialect: str = "drone-1",
        *,
        clock: Clock | None = None,
        seed: int = 1,
        default_branch: str = "",
        url: str = "http://git.example.com",
    ) -> None:
        self.dialect = dialect
        self.traits = TRAITS[dialect]
        self.clock = clock or Clock.real()
        self.seed = seed
        self.default_branch = default_branch or self.traits.default_branch
        self.source_host = url
        self.source_host_down = False
        self.community = False
        """1.x: an edition without running lists, answering 501."""
        self.listing_delay = 0.0
        """Seconds after which a new repo is listed (0.5: up to 900, 0.8: up to 259,200)."""
        self.feed_repos = 15_000
        """0.5: how many of a user's repos the feed looks at (999 on SQLite)."""
        self.log_delay = 3.0
        """Woodpecker: seconds after a step's end at which the last lines of its log are there."""
        self.openmandriva = False
        """ABF: the server is OpenMandriva's, not ROSA's."""
        self.anonymous_access = True
        """OpenMandriva's ABF, as shipped: reading is anonymous, whatever token is sent."""
        self.hourly_limit = 0
        """Requests that a user may make in a clock hour (OpenMandriva's ABF: 3,000); 0: any number."""
        self.spent: Counter[tuple[int, str]] = Counter()
        """Requests made, by hour and user."""
        self.faults = Faults()
        self.cache = Cache()
        self._changes = Changes()
        self.lock = threading.RLock()
        self.users: dict[str, User] = {}
        self.denied: dict[str, set[str]] = {}
        """Logins to whom the source host refuses a repo, by its name."""
        self.edits = 0
        self.repos: dict[str, Repo] = {}
        self.by_id: dict[int, Repo] = {}
        self._sorted: list[str] = []
        self.histories: list[tuple[History, list[Repo]]] = []
        self._live: dict[int, tuple[Repo, int]] = {}
        """Repo and number of every build that was put in, by id."""
        self._open: dict[int, tuple[Repo, Build]] = {}
        self._next_id = 1
        self._next_repo = 1
        self._plans: list[tuple[float, int, Callable[[float], None]]] = []
        self._plan_numbers = itertools.count()
        self._happening = False
        self.token = self.add_user("adminuser", admin=True)
        """The token of `adminuser`, an admin with all rights."""

    # Time

    @contextmanager
    def moment(self, at: float | None = None) -> Iterator[float]:
        """The world held still at the clock's time (or at `at`), after all that was due by then."""
        with self.lock:
            now = self.clock.now() if at is None else at
            if not self._happening:
                self._happening = True
                try:
                    while self._plans and self._plans[0][0] <= now:
                        when, _, act = heapq.heappop(self._plans)
                        act(when)
                finally:
                    self._happening = False
            yield now

    def at(self, when: float, act: Callable[[float], None]) -> None:
        """Calls `act(when)` before anything is looked at or done at that time or later."""
        with self.lock:
            heapq.heappush(self._plans, (when, next(self._plan_numbers), act))

    # Users

    def add_user(
        self,
        login: str,
        *,
        admin: bool = False,
        push: bool = True,
        repos: Sequence[str] | None = None,
        token: str = "",
    ) -> str:
        """Makes a user and answers the token."""
        with self.lock:
            token = token or f"token-of-{login}"
            self.users[token] = User(login, admin, push, None if repos is None else frozenset(repos))
            return token

    def set_user(
        self,
        login: str = "adminuser",
        *,
        admin: bool | None = None,
        push: bool | None = None,
        repos: Sequence[str] | None = None,
    ) -> None:
        """Changes what a user may do; what is None stays."""
        with self.moment():
            for token, user in self.users.items():
                if user.login == login:
                    self.users[token] = replace(
                        user,
                        admin=user.admin if admin is None else admin,
                        push=user.push if push is None else push,
                        repos=user.repos if repos is None else frozenset(repos),
                    )
            self.edits += 1

    def revoke(self, token: str) -> None:
        """The token is nobody's from now on."""
        with self.lock:
            self.users.pop(token, None)

    # Repos

    def add_repo(
        self,
        name: str,
        *,
        builds: int = 0,
        private: bool = False,
        active: bool = True,
        gated: bool = False,
        timeout: int = 60,
        default_branch: str = "",
        days: float = 90.0,
    ) -> Repo:
        """Adds a repo with `builds` builds of the last `days` days."""
        repo = self.add_repos([name], builds=builds, days=days, default_branch=default_branch)[0]
        repo.private, repo.active, repo.gated, repo.timeout = private, active, gated, timeout
        return repo

    def add_repos(
        self, names: Sequence[str], *, builds: int = 0, days: float = 90.0, default_branch: str = ""
    ) -> list[Repo]:
        """Adds repos that share a history: `builds` each, over the last `days` days but two hours."""
        with self.moment() as now:
            branch = default_branch or self.default_branch
            history = None
            if builds and names:
                history = History(
                    self.seed, names, branch, builds, self._next_id, now - days * DAY, now - 7200, self.traits
                )
                self._next_id += history.total
            repos = []
            for place, name in enumerate(names):
                repo = Repo(self._next_repo, name, now, branch, history=history, place=place)
                repo.sparse = self.traits.numbers_are_ids
                repo.counter = history.number(place, builds) if history else 0
                self._next_repo += 1
                self.repos[name] = self.by_id[repo.id] = repo
                repos.append(repo)
            if history:
                self.histories.append((history, repos))
            if len(names) > 1:
                self._sorted = sorted(self.repos)
            elif names[0] not in self._sorted:
                insort(self._sorted, names[0])
            self.edits += 1
            return repos

    def drop_repo(self, name: str) -> None:
        """The repo and its builds are gone."""
        with self.moment():
            repo = self.repos.pop(name)
            del self.by_id[repo.id]
            self._sorted.remove(name)
            self._open = {i: pair for i, pair in self._open.items() if pair[0] is not repo}
            self.edits += 1

    def clear(self) -> None:
        """The server is rebuilt from empty: its repos stay by name, numbers and ids begin at 1."""
        with self.moment() as now:
            old = list(self.repos.values())
            self.repos, self.by_id, self._sorted = {}, {}, []
            self.histories, self._live, self._open = [], {}, {}
            self._plans = []
            self._next_id = self._next_repo = 1
            self.cache.clear()
            for repo in old:
                new = self.add_repos([repo.name], default_branch=repo.default_branch)[0]
                new.private, new.active, new.gated, new.added = repo.private, repo.active, repo.gated, now

    def touch(self, repo: Repo) -> None:
        """Forgets what was rendered of `repo`; to be called after any change of it."""
        repo.edits += 1
        repo.rows.clear()
        self.edits += 1

    # What is there

    def names(self, user: User, now: float) -> list[str]:
        """The repos on which the user has rights, by full name."""
        if user.repos is None and not self.listing_delay and not self.denied:
            return self._sorted
        return [
            name
            for name in self._sorted
            if self.has_rights(user, name) and self.repos[name].added + self.listing_delay <= now
        ]

    def names_until(self, now: float) -> float:
        """When a repo will be listed that is not yet; infinity where there is none."""
        if not self.listing_delay:
            return math.inf
        times = (repo.added + self.listing_delay for repo in self.repos.values())
        return min((at for at in times if at > now), default=math.inf)

    def has_rights(self, user: User, name: str) -> bool:
        """True when the source host lets the user see the repo as one of the user's own."""
        return (user.repos is None or name in user.repos) and user.login not in self.denied.get(name, ())

    def newest(self, wanted: Callable[[Repo], bool]) -> Iterator[tuple[Repo, Build]]:
        """The builds of all wanted repos, newest id first."""
        live = ((i, *self._live[i]) for i in reversed(self._live))
        old = [_of_repos(history, repos) for history, repos in self.histories]
        seen = -1
        for build_id, repo, number in heapq.merge(live, *old, key=lambda row: row[0], reverse=True):
            if build_id == seen or self.by_id.get(repo.id) is not repo or not wanted(repo):
                continue
            seen = build_id
            build = repo.get(number)
            if build is not None and build.id == build_id:
                yield repo, build

    def by_change(
        self, now: float, key: Hashable, wanted: Callable[[Change], bool], first: int, size: int
    ) -> list[Change]:
        """`size` of the wanted builds from the place `first` on, that which changed last first."""
        kept = self._changes.select(self.repos, self.histories, self.edits, now, key, wanted)
        return kept.part(first, size)

    def of_id(self, build_id: int) -> tuple[Repo, Build] | None:
        """The build of this id, where ids are numbers."""
        repo, number = self._live.get(build_id, (None, build_id))
        for history, repos in self.histories if repo is None else ():
            if history.first_id <= build_id < history.first_id + history.total:
                repo = repos[history.at(build_id - history.first_id)[0]]
        if repo is None or self.by_id.get(repo.id) is not repo:
            return None
        build = repo.get(number)
        return None if build is None else (repo, build)

    def put_in_since(self, build_id: int) -> list[tuple[Repo, Build]]:
        """The builds with a higher id that are there, the newest first."""
        found = []
        for newer in takewhile(lambda i: i > build_id, reversed(self._live)):
            repo, number = self._live[newer]
            build = repo.live.get(number)
            if build is not None and build.id == newer and self.by_id.get(repo.id) is repo:
                found.append((repo, build))
        return found

    def open_builds(self, now: float) -> list[tuple[Repo, Build]]:
        """Every build that has not ended, oldest id first."""
        over = [i for i, (_, build) in self._open.items() if build.ended(now) and not build.settling(now)]
        for build_id in over:
            del self._open[build_id]
        return [pair for _, pair in sorted(self._open.items())]

    # What every act is made of

    def find(self, repo: str, number: int) -> tuple[Repo, Build]:
        """The repo of this name and its build; LookupError where there is none."""
        place = self.repos[repo]
        build = place.get(number)
        if build is None:
            raise LookupError(f"{repo} has no build {number}")
        return place, build

    def changed(self, repo: Repo, build: Build) -> None:
        """Keeps a build that was changed, and forgets what was rendered of it."""
        build.edits += 1
        repo.live[build.number] = build
        self.touch(repo)

    def put(self, repo: Repo, build: Build, *, number: int = 0) -> Build:
        """Takes a build in: a new one gets the next number and id, `number` replaces that one."""
        if number:
            build.number = number
        else:
            build.id = self._next_id
            self._next_id += 1
            repo.counter = build.id if repo.sparse else repo.counter + 1
            build.number = repo.counter
            self._live[build.id] = (repo, build.number)
        repo.live[build.number] = build
        self._open[build.id] = (repo, build)
        self.touch(repo)
        return build

    def take_out(self, repo: Repo, number: int, *, reuse: bool = False) -> None:
        """The build's row is gone; `reuse`: the newest number is given out again."""
        build = repo.live.pop(number, None)
        if build:
            self._open.pop(build.id, None)
        if reuse and number == repo.counter:
            repo.counter -= 1
        else:
            repo.holes.add(number)
        self.touch(repo)


def _of_repos(history: History, repos: Sequence[Repo]) -> Iterator[tuple[int, Repo, int]]:
    """(id, repo, number) of every build of a history, newest first."""
    return ((build_id, repos[place], number) for build_id, place, number in history.newest())

"""ROSA's and OpenMandriva's ABF: what is asked of it.

Its lists tell ids and codes alone, so each change costs one more request. What was told is kept, so that
nothing is asked for twice; after a restart of this process it is recalled from what was recorded.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import msgspec

from exporter.filters import BuildListFilter
from exporter.http import ServerError, Session
from exporter.model import Build, Repo, Status, Step, User
from exporter.servers import Limits, Line, Operation, Page, Recall, told_until
from exporter.servers.abf_logs import read_logs
from exporter.servers.abf_search import LISTS, ROWS_AT_ONCE, Search
from exporter.servers.abf_wire import (
    CANCELING,
    PACKAGES_FAIL,
    STATUSES,
    UNSETTLED,
    BuildList,
    Me,
    Past,
    Row,
    is_told,
    past_of,
    read,
)
from exporter.servers.operations import change
from exporter.servers.wire import Reading, Shape, text

PAGE_SIZE = 20
"""Rows of a page of a repo's builds, each of which is asked for singly."""
MOST_SHOWN = 100
"""Build lists that are asked for singly in one look; the others come with the next."""
OVERLAP = 60
"""Seconds that a window goes back: times are cut to seconds, and rows of one second have no order."""
MARGIN = 2
"""Seconds by which the server's clock may be read wrong."""
FRESH = 120
"""Seconds between two looks up to which `updated_at` tells when a change came."""
OPEN_EVERY, OPEN_PAGES = 60.0, 5
"""Seconds between two looks at all open build lists; longer where there are more pages of them."""
LOST_EVERY = 600.0
"""Seconds between two looks for packages that were lost: no window shows them."""
TRIES = 10
"""Looks after which a build list that cannot be read is left alone until its code changes."""
MOST_KNOWN = 20_000

ME = Shape(Me)


@dataclass(slots=True)
class Taken:
    """What came of asking for build lists: by id when it changed and what it is; `left` was not asked."""

    shown: dict[int, tuple[int, Build]] = field(default_factory=dict)
    left: list[int] = field(default_factory=list)
    again: list[int] = field(default_factory=list)
    """Those that could not be read, and are to be asked for once more."""
    missing: list[int] = field(default_factory=list)


class Abf:
    """A server of ROSA's or OpenMandriva's ABF."""

    dialect = "abf"

    def __init__(self, session: Session, public_url: str, wanted: BuildListFilter, recall: Recall) -> None:
        self.name = session.name
        self.limits = Limits(
            feed_rows=0,
            page_size=PAGE_SIZE,
            restart_in_place=True,
            lists_repos=False,
            sparse_numbers=True,
            job_logs=True,
            operations=frozenset(Operation) - {Operation.RESTART},
        )
        self.session = session
        self._public_url = public_url.rstrip("/")
        self._lists = Search(session, wanted)
        self._recall = recall
        self._version = ""
        self._projects: dict[str, Repo] = {}
        self._known: dict[int, Past] = {}
        """What was told, by id, the last told last; recorded once the next look has its cursor."""
        self._unreadable: dict[int, int] = {}
        """The codes of rows that cannot be read, by id."""
        self._tries: dict[int, int] = {}
        self._waiting: list[int] | None = None
        """Ids to be read beside those of the window; None until it is known which."""
        self._again: dict[int, int] = {}
        """Ids that could not be read, and where the window is to begin so that it has them until they are."""
        self._began = self._newest = self._free = 0
        self._told, self._answers = "", 0
        self._looked = 0.0
        self._looked_at_open = self._looked_for_lost = -LOST_EVERY

    @property
    def version(self) -> str:
        return self._version

    def whoami(self) -> User:
        me = ME.one(self.session, self.session.get("/api/v1/user.json", "user")).user
        self._lists.base()
        return User(login=text(me.uname or me.name))

    def repos(self, *, brief: bool = False) -> list[Repo]:  # noqa: ARG002 - nothing is asked
        return list(self._projects.values())

    def feed(self, cursor: str) -> tuple[list[Build], str]:
        if cursor != self._told:
            # What was told last was not recorded, or it was another process that told it.
            self._known.clear()
            self._again.clear()
            self._waiting, self._newest, self._free, self._looked = None, 0, 0, 0.0
        began = self.session.server_now()
        before = int(began) - MARGIN
        told, since = told_until(cursor), told_until(cursor.partition(".")[2])
        since = min(since, int(began) - OVERLAP)  # that clock may have been set back
        if self._waiting is None:
            self._began = self._began or int(began)
            self._waiting = [] if since else self._unsettled()
        self._waiting += self._lost(began)
        start = since or self._began - OVERLAP
        free = max(self._free, start)
        rows = self._lists.search("feed", {"updated_at_start": start})
        window = {row.id: row.status for row in reversed(rows) if self._is_news(row)}
        asked = list(dict.fromkeys([*window, *self._again, *self._waiting]))
        taken = self._read(asked[:MOST_SHOWN], window)
        left = taken.left + asked[MOST_SHOWN:]
        done = window.keys().isdisjoint(left)
        self._waiting = [i for i in left if i not in window]
        self._again = {i: self._again.get(i, free) for i in taken.again}
        if since or not left:
            # What did not change since the list was asked for has its place in it: what is older is handled.
            times = [at for i, (at, _) in taken.shown.items() if i in window]
            self._newest = max(self._newest, *times, 0)
            passed = min(self._newest, before) if done else max(at for at in (*times, 0) if at < before)
            self._free = max(free, passed - OVERLAP)
            since = max(start, min([self._free, *self._again.values()]))
            told = max(told, since) if left or self._again else before - OVERLAP
        self._looked = began if done else 0.0
        self._answers += bool(taken.shown)
        self._told = f"{told}.{since}.{self._answers}"
        return [build for _, build in reversed(taken.shown.values())], self._told

    def open_builds(self) -> list[Build] | None:
        recorded = {build.number: build for build in self._recall.open()}
        now = self.session.server_now()
        pages = -(-len(recorded) // ROWS_AT_ONCE)
        if now - self._looked_at_open < OPEN_EVERY * max(1, pages / OPEN_PAGES):
            return list(recorded.values())
        codes = self._lists.codes(recorded)
        changed = [i for i, build in recorded.items() if i not in codes or self._is_changed(build, codes[i])]
        taken = self._read(changed[:MOST_SHOWN], codes, recorded)
        self._looked_at_open = now
        builds = recorded | {i: build for i, (_, build) in taken.shown.items()}
        for i in taken.missing:
            past, build = self._known.pop(i, None), builds.pop(i)
            # One that was cancelled and that no worker has is deleted after an hour.
            cancelled = past.code == CANCELING if past else build.status is Status.RUNNING
            if cancelled:
                steps = (Step(name="build", status=Status.CANCELLED),)
                builds[i] = replace(build, status=Status.CANCELLED, detailed=True, steps=steps)
        return list(builds.values())

    def builds(self, repo: str, page: int) -> Page:
        path = f"/api/v1/projects/{self._project_id(repo)}/build_lists"
        filters = {key: value for key, value in self._lists.base().items() if key != "project_name"}
        rows, count = self._lists.page(path, "builds", filters, page, PAGE_SIZE)
        codes = {row.id: row.status for row in rows if not self._is_left_to_feed(row)}
        recorded = self._recall.newest(codes)
        found = {i: b for i, b in recorded.items() if is_told(past_of(b), codes[i])}
        left = sorted(codes.keys() - found.keys(), reverse=True)
        taken = self._read(left, codes, recorded, keep=False)
        if taken.left:
            # Some were read before the server failed: all are asked for again.
            raise self.session.fault("status", path, "could not be read to its end")
        found |= {i: build for i, (_, build) in taken.shown.items() if build.repo == repo}
        return Page([found[i] for i in sorted(found, reverse=True)], count)

    def build(self, repo: str, number: int) -> Build:
        row = self._lists.show(number)
        if row.project.fullname != repo:
            what = f"is a build list of {text(row.project.fullname)}"
            raise self.session.fault("shape", f"{LISTS}/{number}", what, status=200, missing=True)
        return self._take(row, self._recall.newest([number]), keep=False)[1]

    def log(self, repo: str, number: int, step: Step) -> list[Line]:  # noqa: ARG002
        return read_logs(self.session, number, step)

    def restart(self, repo: str, number: int) -> Build | None:  # noqa: ARG002
        raise self.session.fault("status", f"{LISTS}/{number}", "is restarted on its page alone")

    def cancel(self, repo: str, number: int) -> None:  # noqa: ARG002
        self._change(number, "cancel", "it neither waits nor runs")

    def publish(self, repo: str, number: int) -> None:  # noqa: ARG002
        self._change(number, "publish", "there is nothing of it to publish")

    def reject(self, repo: str, number: int) -> None:  # noqa: ARG002
        self._change(number, "reject_publish", "there is nothing of it to reject")

    def _change(self, number: int, action: str, unfit: str) -> None:
        try:
            change(self.session, "PUT", f"{LISTS}/{number}/{action}.json", action)
        except ServerError as error:
            if error.status not in {403, 422} or error.reason == "limit":
                raise
            right = "the token's user may not do that, or " if error.status == 403 else ""
            what = f"answered {error.status}: {right}{unfit}"
            raise self.session.fault(
                error.reason, f"{LISTS}/{number}", what, status=error.status, unfit=not right
            ) from None

    def _unsettled(self) -> list[int]:
        """What is open at first contact, the oldest first."""
        found = (row.id for code in UNSETTLED for row in self._lists.search("open", {"status": code}))
        return sorted(set(found))

    def _lost(self, now: float) -> list[int]:
        """Build lists whose packages were found missing since: `updated_at` does not tell of that."""
        if now - self._looked_for_lost < LOST_EVERY:
            return []
        ids = [row.id for row in self._lists.search("lost", {"status": PACKAGES_FAIL})]
        recorded = self._recall.newest([i for i in ids if i not in self._known])
        pasts = {i: past_of(build) for i, build in recorded.items()} | self._known
        self._looked_for_lost = now
        return [i for i in ids if i in pasts and STATUSES.get(pasts[i].code) is not Status.FAILURE]

    def _is_left_to_feed(self, row: Row) -> bool:
        """True of one that changed since it was told: its run is told by one answer alone."""
        return row.id in self._known and not self._known[row.id].is_now(row.status)

    def _is_news(self, row: Row) -> bool:
        known = self._known.get(row.id)
        return (known is None or not known.is_now(row.status)) and self._unreadable.get(row.id) != row.status

    def _is_changed(self, build: Build, code: int) -> bool:
        """True when an open build has to be read; else its code is kept, which its record does not tell."""
        known = self._known.get(build.number)
        if known is None and STATUSES.get(code, Status.UNKNOWN) is build.status:
            self._keep(build.number, replace(past_of(build), code=code))
            return False
        return known is None or not known.is_now(code)

    def _read(
        self,
        ids: Collection[int],
        codes: Mapping[int, int],
        recorded: Mapping[int, Build] | None = None,
        *,
        keep: bool = True,
    ) -> Taken:
        """Asks for build lists one by one; raises only where the server fails before one was read."""
        taken = Taken(left=list(ids))
        if recorded is None:
            recorded = self._recall.newest([i for i in ids if i not in self._known])
        for i in ids:
            try:
                row = self._lists.show(i)
            except ServerError as error:
                if not self._is_of_row(i, error):
                    if taken.shown:
                        break
                    raise
                taken.left.remove(i)
                if error.missing:
                    taken.missing.append(i)
                if error.missing or error.status == 403 or self._tries[i] >= TRIES:
                    self._give_up(i, codes.get(i, -1))
                else:
                    taken.again.append(i)
                continue
            taken.left.remove(i)
            self._tries.pop(i, None)
            if Reading(self.session).repo(row.project.fullname):
                taken.shown[i] = self._take(row, recorded, keep=keep)
            else:
                self._give_up(i, row.status)
        return taken

    def _is_of_row(self, i: int, error: ServerError) -> bool:
        """True when a fault concerns this build list alone; it is counted then."""
        if error.reason not in {"auth", "status", "json", "shape"} or error.status not in {
            200,
            403,
            404,
            500,
        }:
            return False
        self.session.telemetry.failed(self.name, error.reason)
        self._tries[i] = self._tries.get(i, 0) + 1
        return True

    def _give_up(self, i: int, code: int) -> None:
        self._tries.pop(i, None)
        self._unreadable[i] = code
        if len(self._unreadable) > MOST_KNOWN:
            del self._unreadable[next(iter(self._unreadable))]

    def _take(self, row: BuildList, recorded: Mapping[int, Build], *, keep: bool) -> tuple[int, Build]:
        """The build of an answer, and when it changed."""
        past = self._known.get(row.id)
        if past is None and row.id in recorded:
            past = past_of(recorded[row.id])
        recent = self._looked > 0 and self.session.server_now() - self._looked <= FRESH
        unseen = past.open if past else row.created_at >= self._looked - OVERLAP
        now, build = read(past, row, Reading(self.session), fresh=recent and unseen)
        if keep:
            self._keep(row.id, now)
        self._meet(build, row)
        return row.updated_at, build

    def _keep(self, i: int, past: Past) -> None:
        self._known.pop(i, None)
        self._known[i] = past
        if len(self._known) > MOST_KNOWN:
            del self._known[next(iter(self._known))]

    def _meet(self, build: Build, row: BuildList) -> None:
        self._version = "OpenMandriva" if row.update_type is msgspec.UNSET else "ROSA"
        url = f"{self._public_url}/build_lists/"
        met = Repo(name=build.repo, id=str(row.project.id), build_url=url)
        if self._projects.get(met.name) != met:
            others = {name: repo for name, repo in self._projects.items() if repo.id != met.id}
            self._projects = {**others, met.name: met}

    def _project_id(self, repo: str) -> str:
        if repo not in self._projects:
            if recorded := self._recall.id_of(repo):
                return recorded
            name = repo.partition("/")[2]
            rows = self._lists.search("lookup", {"project_name": name})
            for i in {row.project_id: row.id for row in reversed(rows)}.values():
                self._read([i], {}, keep=False)
                if repo in self._projects:
                    break
            else:
                what = f"no build list of {repo} is to be found"
                raise self.session.fault("status", LISTS, what, status=404)
        return self._projects[repo].id

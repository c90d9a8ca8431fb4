"""What ROSA's and OpenMandriva's ABF answer, and what becomes of a build list from one code to the next.

Answers tell a code and no history: what a code means depends on what was known before. No I/O.
"""

from dataclasses import dataclass, replace

import msgspec

from exporter.model import Build, Event, Status, Step
from exporter.servers.wire import Code, Count, Number, Reading, span, text, title

SUCCESS, BUILD_ERROR, PACKAGES_FAIL, TESTS_FAILED = 0, 666, 777, 11000
WAITING, PENDING, STARTED, CANCELING, RESTARTING = 4000, 2000, 3000, 10000, 16000
CANCELED, UNPERMITTED_ARCH = 5000, 15000
RERUN_TESTS, RERUNNING_TESTS = 2500, 2550
PUBLISHED, PUBLISH, FAILED_PUBLISH, REJECTED = 6000, 7000, 8000, 9000
PUBLISHED_INTO_TESTING, PUBLISH_INTO_TESTING, FAILED_INTO_TESTING = 12000, 13000, 14000

STATUSES = {
    WAITING: Status.PENDING,
    PENDING: Status.PENDING,
    RERUN_TESTS: Status.PENDING,
    RESTARTING: Status.PENDING,
    STARTED: Status.RUNNING,
    CANCELING: Status.RUNNING,
    RERUNNING_TESTS: Status.RUNNING,
    SUCCESS: Status.SUCCESS,
    PUBLISH: Status.SUCCESS,
    PUBLISHED: Status.SUCCESS,
    FAILED_PUBLISH: Status.SUCCESS,
    REJECTED: Status.SUCCESS,
    PUBLISH_INTO_TESTING: Status.SUCCESS,
    PUBLISHED_INTO_TESTING: Status.SUCCESS,
    FAILED_INTO_TESTING: Status.SUCCESS,
    BUILD_ERROR: Status.FAILURE,
    TESTS_FAILED: Status.FAILURE,
    PACKAGES_FAIL: Status.FAILURE,
    CANCELED: Status.CANCELLED,
    UNPERMITTED_ARCH: Status.ERROR,
}
PUBLISHING = {
    PUBLISH: Status.RUNNING,
    PUBLISH_INTO_TESTING: Status.RUNNING,
    PUBLISHED: Status.SUCCESS,
    PUBLISHED_INTO_TESTING: Status.SUCCESS,
    FAILED_PUBLISH: Status.ERROR,
    FAILED_INTO_TESTING: Status.ERROR,
    REJECTED: Status.CANCELLED,
}
"""What each says of the step `publish`: the build itself ended before."""
BUILDING = frozenset({WAITING, PENDING, STARTED, RESTARTING})
TESTING = frozenset({RERUN_TESTS, RERUNNING_TESTS})
UNSETTLED = (STARTED, CANCELING, PENDING, WAITING, RERUNNING_TESTS, RERUN_TESTS, RESTARTING, PUBLISH,
             PUBLISH_INTO_TESTING)  # fmt: skip
"""Codes of which more is to come."""
TIMED = frozenset({SUCCESS, BUILD_ERROR, CANCELED, TESTS_FAILED})
"""Ends to which `duration` reaches."""
MADE_LATE = frozenset({SUCCESS, BUILD_ERROR, TESTS_FAILED, UNPERMITTED_ARCH, *PUBLISHING})
"""What a worker may still report of a build that was cancelled."""
LONGEST = 2**31
SLACK = 60
"""Seconds by which a queued time may be late: it is that of the first answer that told of it."""


class Named(msgspec.Struct, gc=False):
    """An architecture, a platform or a mass build."""

    name: str = ""
    id: Count = 0


class Repository(msgspec.Struct):
    name: str
    platform: Named


class Project(msgspec.Struct, gc=False):
    id: Number
    fullname: str


class Account(msgspec.Struct, gc=False):
    """Who started a build, or whom the token belongs to; a user's `name` may be empty."""

    uname: str = ""
    name: str = ""


class BuildList(msgspec.Struct):
    """`GET /api/v1/build_lists/ID.json`, below `build_list`."""

    id: Number
    status: Code
    created_at: int
    updated_at: int
    project: Project
    arch: Named
    save_to_repository: Repository
    duration: int | None = None
    commit_hash: str | None = None
    user: Account | None = None
    mass_build: Named | None = None
    update_type: str | msgspec.UnsetType | None = msgspec.UNSET
    """Only ROSA's answers have it."""


class Shown(msgspec.Struct):
    build_list: BuildList


class Row(msgspec.Struct, gc=False):
    """A build list in a search: no time and no name."""

    id: Number
    status: Code
    project_id: Count = 0


class Me(msgspec.Struct):
    """`GET /api/v1/user.json`."""

    user: Account


@dataclass(frozen=True, slots=True)
class Past:
    """What is known of a build list by its answers so far; times are Unix seconds, 0: not known."""

    code: int
    run: int
    """When its run was queued: when it was created, or when an end state was left again."""
    started: int = 0
    finished: int = 0
    rerun: bool = False
    """The run is one of its tests alone."""
    tests_failed: bool = False
    """It ended so before it was published."""
    put_back: bool = False
    """A worker had it before and gave it up, so that it waited twice."""
    publish_started: int = 0
    publish_finished: int = 0
    unknown: int | None = None
    """A code that came since, of which nothing is known: it may have any meaning, so it changes none."""

    @property
    def open(self) -> bool:
        return STATUSES.get(self.code, Status.PENDING).open

    def is_now(self, code: int) -> bool:
        """True when that is the last code that was told."""
        return code == (self.code if self.unknown is None else self.unknown)


def past_of(build: Build) -> Past:
    """What a recorded run tells of its build list; a code of those that mean the same."""
    steps = {step.name: step for step in build.steps}
    failed = "tests" in steps and steps["tests"].status is Status.FAILURE
    publish = steps.get("publish", Step(name="publish", status=Status.UNKNOWN))
    if publish.status in PUBLISHING.values():
        code = next(code for code, status in PUBLISHING.items() if status is publish.status)
    elif build.status is Status.FAILURE:
        code = TESTS_FAILED if failed else BUILD_ERROR
    else:
        found = (code for code in ALIKE if STATUSES[code] is build.status)
        code = next(found, -1)
    return Past(
        code=code,
        run=build.run,
        started=build.started,
        finished=build.finished,
        # Of an open run that began anew no steps are recorded: taken for one that tells no duration.
        rerun=build.run > build.created and "build" not in steps,
        tests_failed=failed,
        publish_started=publish.started,
        publish_finished=publish.finished,
    )


ALIKE = (PENDING, STARTED, SUCCESS, CANCELED, UNPERMITTED_ARCH)


def is_same_run(past: Past, code: int) -> bool:
    """True when the moves allow `code` after what is known; else a restart or test rerun came between."""
    if past.open or code == past.code or code == PACKAGES_FAIL:
        return True
    if code in PUBLISHING:
        return past.code in {SUCCESS, TESTS_FAILED, CANCELED, *PUBLISHING}
    return past.code == CANCELED and code in MADE_LATE


def is_told(past: Past, code: int) -> bool:
    """True when `code` tells of an end no more than what is known; what is recorded of it is not so exact."""
    same = STATUSES.get(past.code), PUBLISHING.get(past.code)
    return not past.open and same == (STATUSES.get(code), PUBLISHING.get(code))


def read(past: Past | None, row: BuildList, reading: Reading, *, fresh: bool) -> tuple[Past, Build]:
    """The build of an answer, and what is known of it from then on.

    `fresh`: it became what it is after the last look, so that `updated_at` tells when.
    """
    created = reading.moment("created", row.created_at)
    updated = reading.moment("finished", row.updated_at)
    now = _advance(past, row, created, updated, fresh=fresh)
    return now, _parse(row, now, created, reading)


def _advance(past: Past | None, row: BuildList, created: int, updated: int, *, fresh: bool) -> Past:
    code = row.status
    if past is not None and code not in STATUSES:
        return replace(past, unknown=code)
    if past is None:
        before = Past(code=-1, run=created)
    elif is_same_run(past, code):
        before = past
    else:
        swapped = {past.code, code} == {SUCCESS, TESTS_FAILED}
        before = Past(code=-1, run=max(updated, past.run + 1), rerun=swapped)
    rerun = code in TESTING or (before.rerun and code not in BUILDING)
    duration = _seconds(row, before.run, rerun=rerun)
    started, finished = _times(before, code, updated, duration, fresh=fresh)
    publish_started, publish_finished = before.publish_started, before.publish_finished
    publish, published = PUBLISHING.get(code), PUBLISHING.get(before.code)
    if publish is Status.RUNNING and published is not Status.RUNNING:
        publish_started, publish_finished = updated, 0
    elif publish not in {None, Status.RUNNING} and not publish_finished:
        publish_finished = updated
    return Past(
        code=code,
        run=before.run,
        started=started,
        finished=finished,
        rerun=rerun,
        tests_failed=code == TESTS_FAILED or (code in PUBLISHING and before.tests_failed),
        put_back=before.put_back or (before.code == STARTED and code in {PENDING, WAITING}),
        publish_started=publish_started,
        publish_finished=publish_finished,
    )


def _times(before: Past, code: int, updated: int, duration: int | None, *, fresh: bool) -> tuple[int, int]:
    """When the run began and ended: no answer says so, but `updated_at` does right after a change."""
    if code in {STARTED, RERUNNING_TESTS}:
        return (before.started if before.code == code else updated), 0
    if code == CANCELING or code not in STATUSES:
        return before.started, 0
    if STATUSES[code].open:
        return 0, 0
    if before.finished:
        return before.started, before.finished
    if fresh and code in TIMED and updated:
        return (before.started if duration is None else updated - duration), updated
    if before.started and duration is not None:
        return before.started, before.started + duration
    return 0, 0


def _seconds(row: BuildList, run: int, *, rerun: bool) -> int | None:
    """How long the run took.

    After a rerun of tests the server counts the time between as well; a build that was restarted and
    never began keeps the duration of the run before.
    """
    if row.duration is None or not 0 <= row.duration < LONGEST:
        return None
    kept = run > row.created_at and row.duration > row.updated_at - run + SLACK > SLACK
    return None if rerun or kept or row.status == UNPERMITTED_ARCH else row.duration


def _parse(row: BuildList, now: Past, created: int, reading: Reading) -> Build:
    status = STATUSES.get(row.status)
    if status is None:
        reading.unknown("status", row.status)
        status = Status.UNKNOWN
    elif now.tests_failed:
        status = Status.FAILURE
    ended = status is not Status.UNKNOWN and not status.open
    waited = ended and now.run == created and not now.put_back
    target = row.save_to_repository
    return Build(
        repo=row.project.fullname,
        number=row.id,
        run=now.run,
        id=row.id,
        status=status,
        detailed=True,
        event=Event.MANUAL,
        branch=text(f"{target.platform.name}/{target.name}/{row.arch.name}"),
        commit=text(row.commit_hash or ""),
        created=created,
        started=now.started,
        finished=now.finished if ended else 0,
        wait=span(created, now.started) if waited else None,
        duration=_seconds(row, now.run, rerun=now.rerun) if ended else None,
        author=text(row.user.uname or row.user.name) if row.user else "",
        title=title(row.mass_build.name if row.mass_build else ""),
        steps=steps_of(now),
    )


def steps_of(now: Past) -> tuple[Step, ...]:
    """The steps `build`, `tests` and `publish`, as far as the code tells of them."""
    code = now.code
    steps: list[Step] = []
    if code in {SUCCESS, TESTS_FAILED, *PUBLISHING, *TESTING}:
        if not now.rerun:
            steps.append(Step(name="build", status=Status.SUCCESS))
        tests = STATUSES[code] if code in TESTING else Status.FAILURE if now.tests_failed else Status.SUCCESS
        steps.append(Step(name="tests", status=tests))
    else:
        steps.append(Step(name="build", status=STATUSES.get(code, Status.UNKNOWN)))
    if code in PUBLISHING:
        steps.append(
            Step(
                name="publish",
                status=PUBLISHING[code],
                started=now.publish_started,
                finished=now.publish_finished,
                apart=True,
            )
        )
    return tuple(steps)

"""A made-up past of one repo, the ledgers that took it in, and the series that it makes."""

import random
from collections import defaultdict
from dataclasses import fields
from pathlib import Path

from rig import DAY, START

from exporter.backfill import HOUR
from exporter.backfill.blocks import spans
from exporter.backfill.past import Past, Wanted, seam_of
from exporter.backfill.tracks import Value, expect_order
from exporter.ledger import Ledger, Moment, Policy, record, watched
from exporter.ledger.counts import Series
from exporter.ledger.watched import RepoState, ServerState
from exporter.model import Build, Event, Status, Step

HORIZON = START
BEGIN = HORIZON // HOUR * HOUR - 20 * int(DAY)
SKEW = 95.5
POLICY = Policy(
    names_branch=lambda branch, default: branch == default,
    counts=lambda event, _: event != "tag",
    series_retention=30 * DAY,
)
NOW = Moment(HORIZON + 60.0, HORIZON + 60.0 + SKEW)


def repo_of(horizon: int) -> RepoState:
    none = {field.name: field.type() for field in fields(RepoState)}
    about = {"server": "ci", "name": "octo/hello", "default_branch": "main", "watched": True}
    return RepoState(**none | about | {"horizon": horizon, "horizon_skew": SKEW})


def ledger_with(directory: Path, horizon: int, builds: list[Build]) -> tuple[Ledger, RepoState]:
    """A ledger in a file that took in these builds, of a repo with that horizon (server's clock)."""
    ledger = Ledger(f"sqlite:///{directory}/{horizon}.db")
    ledger.migrate()
    return ledger, take_in(ledger, horizon, builds)


def take_in(ledger: Ledger, horizon: int, builds: list[Build]) -> RepoState:
    """Lets a ledger take in these builds."""
    repo = repo_of(horizon)
    with ledger.transaction() as conn:
        watched.write_server(conn, ServerState("ci", horizon, horizon, 1.0, SKEW, ""))
        watched.write_repos(conn, [repo])
        record(conn, repo, POLICY, builds, NOW)
    return repo


def made_up(seed: int) -> list[Build]:
    """Builds of many branches, restarted, flaky and deployed, which end in another order than they began."""
    dice = random.Random(seed)
    found = []
    for number in range(1, 400):
        created = BEGIN - int(2 * DAY) + number * 4700 + dice.randrange(4000)
        started, took = created + dice.randrange(900), dice.randrange(3, 9000)
        event = dice.choice([Event.PUSH] * 5 + [Event.PULL_REQUEST, Event.CRON, Event.DEPLOYMENT, Event.TAG])
        branch = dice.choice(["main"] * 6 + ["develop", f"topic-{dice.randrange(40)}"])
        status = dice.choice([Status.SUCCESS] * 4 + [Status.FAILURE] * 3 + list(Status)[:8])
        declined = status is Status.DECLINED
        steps = tuple(
            Step(name=name, status=dice.choice([Status.SUCCESS, Status.FAILURE, Status.SKIPPED]),
                 started=started, finished=started + dice.randrange(1, took))
            for name in ("clone", "build", dice.choice(["test", "lint"]))
        )  # fmt: skip
        found.append(
            Build(
                repo="octo/hello", number=number, run=created, id=number, status=status, detailed=True,
                event=event, branch=branch, ref=f"refs/heads/{branch}",
                commit=dice.choice(["", f"c{number // 8}", f"c{number // 8}", f"d{number}"]),
                created=created, started=0 if declined else started,
                finished=0 if declined else min(started + took, HORIZON),
                wait=None if declined else started - created, duration=None if declined else took,
                by_hand=dice.random() < 0.3, cron="nightly" if event is Event.CRON else "",
                environment=dice.choice(["prod", "test"]) if event is Event.DEPLOYMENT else "", steps=steps,
            )
        )  # fmt: skip
    return [build for build in found if build.created < HORIZON - 900]


def past_of(ledger: Ledger, *, until: int = 0, details: bool = True) -> Past:
    (facts,) = ledger.facts(server="ci")
    with ledger.reading() as conn:
        return Past(conn, facts, seam_of(conn, facts.repo), Wanted(BEGIN, until, POLICY, details, NOW.ours))


def tracks_of(ledger: Ledger, past: Past, length: int, cut: int = 0) -> dict[Series, dict[int, Value]]:
    """Every series with all its points: folded in spans of `length`, and read in those of `cut`."""
    found: dict[Series, dict[int, Value]] = defaultdict(dict)
    for whole in spans(BEGIN, past.last + 1, length):
        with ledger.reading() as conn:
            folded = past.tracks(conn, whole)
        for span in spans(whole.begin, whole.end, cut or length):
            for series, tracks in folded.items():
                points = [(time, v) for track in tracks for v, at in track.values(span) for time in at]
                expect_order([time for time, _ in points], span, str(series))
                found[series] |= points
    return dict(found)

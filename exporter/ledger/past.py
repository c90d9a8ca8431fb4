"""The heads of one repo within a transaction: loaded once, folded on, written back."""

from typing import TypeVar

import msgspec
from sqlalchemy import Connection

from exporter.ledger import store
from exporter.ledger.heads import (
    BranchHead,
    CronHead,
    EnvironmentHead,
    add_branch_end,
    add_cron_end,
    add_environment_end,
    knows_durations_since,
)
from exporter.ledger.names import BRANCH, CRON, ENVIRONMENT, Names
from exporter.ledger.runs import Run
from exporter.metrics import OTHER
from exporter.model import Event

Head = TypeVar("Head", BranchHead, CronHead, EnvironmentHead)
REFOLDED = 1000
"""Newest ends that a head is folded from anew, where it has to be."""


class Past:
    """What is known of a repo's branches, cron jobs and environments."""

    def __init__(self, conn: Connection, repo_id: int, names: Names) -> None:
        self._conn = conn
        self._repo_id = repo_id
        self._names = names
        self._stored = store.heads_of(conn, repo_id)
        self._heads: dict[store.HeadKey, BranchHead | CronHead | EnvironmentHead] = {}
        self._whole: set[store.HeadKey] = set()
        """Heads that were folded from all that is stored, what is being recorded included."""
        self._bare = not self._stored and not store.has_builds(conn, repo_id)

    def begin(self, branch: str, event: str) -> None:
        """Folds the head of a branch that was just named from what the ledger has of it."""
        if not self._bare:
            self._refold(branch, event)

    def rewrite(self, run: Run) -> None:
        """Folds anew what an end belongs to that now reads otherwise."""
        branch = self._label(run)
        if branch != OTHER:
            self._refold(branch, run.event)
        self._add_others(run, branch, starts=False)

    def add(self, run: Run) -> None:
        """Folds one new end in, which is stored already."""
        branch = self._label(run)
        key = (BRANCH, (branch, run.event))
        if branch != OTHER and key not in self._whole:
            head = self._head(key, BranchHead)
            if add_branch_end(head, run.point(), good=run.good, bad=run.bad):
                self._refold(branch, run.event)
        self._add_others(run, branch, starts=not (run.by_hand or run.restarted))

    def _add_others(self, run: Run, branch: str, *, starts: bool) -> None:
        if run.event == Event.CRON and branch != OTHER:
            cron = self._names.cron(run.cron, run.when_ended)
            if cron is not None:
                head = self._head((CRON, (branch, cron)), CronHead)
                add_cron_end(head, run.point(), run.created, scheduled=starts)
        if run.event == Event.DEPLOYMENT:
            environment = self._names.environment(run.environment, run.when_ended)
            add_environment_end(self._head((ENVIRONMENT, (environment,)), EnvironmentHead), run.point())

    def _refold(self, branch: str, event: str) -> None:
        ends = store.newest_ends(self._conn, self._repo_id, branch, event, REFOLDED)
        if ends:
            head = BranchHead()
            for run in reversed(ends):
                add_branch_end(head, run.point(), good=run.good, bad=run.bad)
            self._heads[BRANCH, (branch, event)] = head
            self._whole.add((BRANCH, (branch, event)))

    def needs_single(self, run: Run, *, last: bool) -> bool:
        """True when gauges would show what a row of history does not tell.

        That is so of the newest end of a named branch (`last`: no newer one is being recorded), and
        of the durations of its newest good ends.
        """
        durations = run.good and run.duration is None
        branch = self._label(run) if last or durations else OTHER
        if branch == OTHER:
            return False
        head = self._head((BRANCH, (branch, run.event)), BranchHead)
        if last and (head.last is None or head.last.key <= run.key):
            return True
        return durations and not knows_durations_since(head, run.key)

    def write(self) -> None:
        """Stores the heads that were folded on."""
        encoded = {key: msgspec.json.encode(head).decode() for key, head in self._heads.items()}
        store.write_heads(
            self._conn,
            self._repo_id,
            {key: state for key, state in encoded.items() if self._stored.get(key) != state},
        )

    def _label(self, run: Run) -> str:
        return self._names.branch(run.branch, run.when_ended)

    def _head(self, key: store.HeadKey, shape: type[Head]) -> Head:
        head = self._heads.get(key)
        if head is None:
            stored = self._stored.get(key)
            head = msgspec.json.decode(stored, type=shape) if stored else shape()
            self._heads[key] = head
        assert isinstance(head, shape)  # noqa: S101  # the kind is part of the key
        return head

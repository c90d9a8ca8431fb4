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
)
from exporter.ledger.names import BRANCH, CRON, ENVIRONMENT, Names
from exporter.ledger.runs import Run
from exporter.metrics import OTHER

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
        self._bare = not self._stored and not store.has_builds(conn, repo_id)

    def begin(self, branch: str, event: str) -> None:
        """Folds the head of a branch that was just named from what the ledger has of it."""
        if self._bare:
            return
        head = BranchHead()
        for run in store.newest_ends(self._conn, self._repo_id, branch, event, REFOLDED):
            add_branch_end(head, run.point(), good=run.good, bad=run.bad)
        self._heads[BRANCH, (branch, event)] = head

    def rewrite(self, run: Run) -> None:
        """Folds anew what an end belongs to that now reads otherwise."""
        store.write_runs(self._conn, [run], self._repo_id)
        if self._names.branch(run.branch, run.when_ended) != OTHER:
            self.begin(run.branch, run.event)

    def add(self, run: Run, branch: str, environment: str, cron: str | None) -> None:
        """Folds one new end in, under the names that it has as label values."""
        if branch != OTHER:
            head = self._head(BRANCH, (branch, run.event), BranchHead)
            if add_branch_end(head, run.point(), good=run.good, bad=run.bad) and head.good:
                head.failures = store.count_bad_since(
                    self._conn, self._repo_id, run.branch, run.event, head.good.key
                )
        if cron is not None and branch != OTHER:
            scheduled = not (run.by_hand or run.restarted)
            add_cron_end(
                self._head(CRON, (branch, cron), CronHead), run.point(), run.created, scheduled=scheduled
            )
        if environment:
            add_environment_end(self._head(ENVIRONMENT, (environment,), EnvironmentHead), run.point())

    def knows_newer(self, run: Run) -> bool:
        """True when an end later than `run` is known of its branch, or its branch has no name."""
        branch = self._names.branch(run.branch, run.when_ended)
        if branch == OTHER:
            return True
        head = self._head(BRANCH, (branch, run.event), BranchHead)
        return head.last is not None and head.last.key > run.key

    def write(self) -> None:
        """Stores the heads that were folded on."""
        encoded = {key: msgspec.json.encode(head).decode() for key, head in self._heads.items()}
        store.write_heads(
            self._conn,
            self._repo_id,
            {key: state for key, state in encoded.items() if self._stored.get(key) != state},
        )

    def _head(self, kind: str, labels: tuple[str, ...], shape: type[Head]) -> Head:
        key = (kind, labels)
        head = self._heads.get(key)
        if head is None:
            stored = self._stored.get(key)
            head = msgspec.json.decode(stored, type=shape) if stored else shape()
            self._heads[key] = head
        assert isinstance(head, shape)  # noqa: S101  # the kind is part of the key
        return head

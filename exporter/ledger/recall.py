"""What was recorded of one server's builds, for a dialect whose answers tell nothing of before."""

from collections.abc import Collection, Mapping
from dataclasses import replace

from sqlalchemy import select

from exporter.ledger import store
from exporter.ledger.ledger import Ledger
from exporter.ledger.runs import Run
from exporter.ledger.schema import OPEN, builds, repos
from exporter.ledger.sql import chunks
from exporter.model import Build

_RUNS = (
    select(repos.c.name, *builds.c)
    .join(repos, repos.c.id == builds.c.repo_id)
    .where(builds.c.generation == repos.c.generation)
    .order_by(builds.c.run)
)


class Recalled:
    """Reads the ledger (`exporter.servers.Recall`); raises `LedgerError`."""

    def __init__(self, ledger: Ledger, server: str) -> None:
        self._ledger, self._server = ledger, server

    def newest(self, numbers: Collection[int]) -> Mapping[int, Build]:
        """By number the newest run of each of these that was recorded, with the steps that were."""
        found: dict[int, tuple[str, Run]] = {}
        if not numbers:
            return {}
        with self._ledger.reading() as conn:
            of_server = _RUNS.where(repos.c.server == self._server)
            for chunk in chunks(sorted(numbers)):
                for name, *row in conn.execute(of_server.where(builds.c.number.in_(chunk))):
                    run = Run(*row)
                    found[run.number] = name, run
            return {
                number: replace(run.build(name), steps=tuple(store.steps_of(conn, run).values()))
                for number, (name, run) in found.items()
            }

    def open(self) -> list[Build]:
        """All runs that are recorded as open."""
        with self._ledger.reading() as conn:
            runs = [run for run in store.unsettled(conn, self._server) if run.state == OPEN]
            of_server = select(repos.c.id, repos.c.name).where(repos.c.server == self._server)
            names = {row.id: row.name for row in conn.execute(of_server)}
        return [run.build(names[run.repo_id]) for run in runs]

    def id_of(self, repo: str) -> str:
        """The server's own id of a recorded repo; empty where none is known."""
        known = select(repos.c.uid).where(repos.c.server == self._server, repos.c.name == repo)
        with self._ledger.reading() as conn:
            return conn.execute(known).scalar() or ""

"""The steps that answers tell of: stored with their runs, and those that end after their run did."""

from collections.abc import Iterator

from sqlalchemy import Connection

from exporter.ledger import store
from exporter.ledger.heads import Key
from exporter.ledger.runs import Run
from exporter.model import Build, Step


class Details:
    """The steps of one repo's runs, on their way into the ledger."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self._steps: dict[Key, tuple[Run, dict[int, Step]]] = {}
        self._late: list[tuple[Run, Step]] = []

    def take(self, run: Run, build: Build, *, settled: bool) -> None:
        """Takes in what `build` tells of its run, which ended; `settled`: that was known before.

        Afterwards a step may still go on (ABF publishes a build after its end): that it ended is told once,
        and never taken back.
        """
        told = dict(enumerate(build.steps))
        if settled:
            known = self._known(run)
            late = {at: step for at, step in told.items() if at not in known or known[at].status.open}
            self._late += [(run, step) for step in late.values() if not step.status.open]
            told = known | {at: s for at, s in told.items() if at in late or not s.status.open}
        self._steps[run.key] = run, told

    def late(self) -> Iterator[tuple[Run, Step]]:
        """The steps that ended after their run did."""
        return iter(self._late)

    def write(self) -> None:
        store.write_steps(self._conn, self._steps.values())

    def _known(self, run: Run) -> dict[int, Step]:
        return self._steps[run.key][1] if run.key in self._steps else store.steps_of(self._conn, run)

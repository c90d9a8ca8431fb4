"""The log that a message is about, found by its row."""

from collections.abc import Callable

from exporter.ledger.messages import Row
from exporter.model import Build, Status
from exporter.notify.fetch import LogReader
from exporter.servers import Server


def excerpts(
    reader: LogReader, server_of: Callable[[str], Server | None]
) -> Callable[[Row], tuple[str, str]]:
    """What reads the excerpt of a row: its lines, or else a note why there are none.

    `server_of` finds a server by its name; None while it does not answer.
    """

    def read(row: Row) -> tuple[str, str]:
        facts, server = row.told, server_of(row.server)
        if not facts.step:
            return "", ""
        if server is None:
            return "", "log unavailable: the server does not answer"
        build = Build(repo=facts.repo, number=facts.number, run=facts.run, status=Status.FAILURE)
        found = reader.read(server, build, facts.step)
        return found.text, found.note

    return read

"""The log that a message is about, found by its row."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

from exporter.config import Config
from exporter.ledger.messages import Row
from exporter.model import Build, Status
from exporter.notify.fetch import LogReader
from exporter.notify.redact import Redactor
from exporter.servers import Server

KEPT = 256


def log_reader(config: Config, stop: threading.Event) -> LogReader:
    """What reads logs and hides what the configuration says; set, `stop` ends its waits."""
    hide = Redactor(config.secrets, config.notify.redact.expressions)
    return LogReader(hide, config.notify.excerpt, stop)


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


def once(read: Callable[[Row], tuple[str, str]]) -> Callable[[Row], tuple[str, str]]:
    """The same, which asks once for all who want the log of one failure, and lets the others wait."""
    known: OrderedDict[tuple[object, ...], Future[tuple[str, str]]] = OrderedDict()
    lock = threading.Lock()

    def shared(row: Row) -> tuple[str, str]:
        facts = row.told
        failure = (row.repo_id, facts.number, facts.run, facts.step)
        with lock:
            reads = failure not in known
            found = known.setdefault(failure, Future())
            while len(known) > KEPT:
                known.popitem(last=False)
        if reads:
            try:
                found.set_result(read(row))
            except Exception as error:
                found.set_exception(error)
        return found.result()

    return shared

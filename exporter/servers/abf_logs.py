"""ABF's logs: files on a store beside the server, and the tail of what is being built."""

from contextlib import closing
from urllib.parse import urlsplit

import msgspec

from exporter.http import Session
from exporter.model import Step
from exporter.servers import Line
from exporter.servers.abf_search import LISTS
from exporter.servers.operations import lines, no_log
from exporter.servers.wire import Shape, text


class LogFile(msgspec.Struct, gc=False):
    """A file that a build left on the file store."""

    file_name: str
    url: str


class Files(msgspec.Struct):
    """What the answer with a single build list tells of its logs."""

    logs: list[LogFile] | None = None


class Shown(msgspec.Struct):
    build_list: Files


class Tail(msgspec.Struct):
    """`GET /build_lists/ID/log`: the end of the log of a build that runs."""

    log: str = ""
    building: bool = False


SHOWN = Shape(Shown)
TAIL = Shape(Tail)


def read_logs(session: Session, number: int, step: Step) -> list[Line]:
    """All files that a build left, each line with its file's name; of one that runs what it said last."""
    path = f"/build_lists/{number}/log"
    shown = SHOWN.one(session, session.get(f"{LISTS}/{number}.json", "build"))
    if files := shown.build_list.logs:
        return [line for file in files for line in _file(session, path, file)]
    if step.status.open:
        tail = TAIL.one(session, session.get(path, "log"))
        if tail.building:
            return lines(tail.log)
    raise no_log(session, path, step)


def _file(session: Session, path: str, file: LogFile) -> list[Line]:
    """The lines of a file, which is asked for without the token: its store may be another's."""
    name = text(file.file_name)
    try:
        parts = urlsplit(file.url)
        host = parts.hostname
    except ValueError:
        host = None
    if not host or parts.scheme not in {"http", "https"}:
        raise session.fault("shape", path, f"file {name} has no address on a file store", status=200)
    with closing(session.elsewhere(f"{parts.scheme}://{parts.netloc}")) as store:
        answer = store.ask(f"{parts.path}?{parts.query}" if parts.query else parts.path, "log")
        if answer.status == 404:
            what = f"file {name} is not on the file store any more"
            raise session.fault("status", path, what, status=404, missing=True)
        if answer.status != 200:
            store.check(answer)
        return lines(answer.body.decode("utf-8", "replace"), step=name)

"""What the dialects share beyond reading builds: logs, and requests that change something."""

import msgspec

from exporter.http import Answer, Method, ServerError, Session
from exporter.model import Status, Step
from exporter.servers import Line
from exporter.servers.wire import Shape, text

LONGEST_WORDS = 200
STDOUT, STDERR, EXIT_CODE, PROGRESS = 0, 1, 2, 4
"""Kinds of log lines; 3 is for machines."""
NO_RIGHT = {
    403: "the token's user has no right to change it",
    404: "the token's user has no right to change it (Drone calls that push or write), or it is not there",
}


class LogRow(msgspec.Struct, gc=False):
    """An entry of a Drone's log; what is 0 or empty may be left out."""

    out: str = ""
    time: int = 0
    proc: str = ""
    type: int = STDOUT


class Words(msgspec.Struct):
    """The body of a refusal in JSON; a build that could not be restarted has both."""

    error: str = ""
    message: str = ""


LOG = Shape(LogRow)


def read_log(session: Session, path: str, step: Step, *, of_job: bool = False) -> list[Line]:
    """The log that a Drone has at `path`; `of_job`: entries name a job's own steps, the last is `{}`."""
    rows = LOG.rows(session, log_answer(session, path, step))
    return [
        line
        for row in rows
        if row.proc or not of_job
        for line in lines(row.out, row.type, seconds=row.time, step=row.proc if of_job else "")
    ]


def log_answer(session: Session, path: str, step: Step) -> Answer:
    """The answer with a step's log; `ServerError.missing` says why there is none."""
    answer = session.ask(path, "log")
    if answer.status != 404:
        return session.check(answer)
    raise no_log(session, path, step)


def no_log(session: Session, path: str, step: Step) -> ServerError:
    """The fault of a step that has no log, with why it may have none."""
    if step.status is Status.SKIPPED:
        why = "it never ran, so it has no log"
    elif step.status.open:
        why = "it has not ended, and the server shows its log only then"
    else:
        why = "the server has no log of it: not yet (it may take half a minute), or no more"
    return session.fault("status", path, f"step {step.name}: {why}", status=404, missing=True)


def lines(out: str, kind: int = STDOUT, *, seconds: int = 0, step: str = "") -> list[Line]:
    """The lines that one entry of a log holds; none where it is for machines alone."""
    if kind == EXIT_CODE:
        return [Line(f"exit code {out}", seconds, step)]
    if kind not in {STDOUT, STDERR, PROGRESS}:
        return []
    return [Line(part, seconds, step) for part in out.removesuffix("\n").split("\n")]


def change(session: Session, method: Method, path: str, operation: str) -> Answer:
    """The answer to a request that changes something: JSON, or nothing with status 204.

    A refusal is told in the server's own words where it has some; `ServerError.unfit` where they are about
    the build's state.
    """
    answer = session.ask(path, operation, method=method)
    if answer.status == 204:
        return answer
    if said := words_of(session, answer):
        # Drone 0.8 says 500 where others say 400, with a sentence that begins so.
        unfit = answer.status < 500 or said.startswith("cannot ")
        what = f"answered {answer.status}: {said}"
        raise session.fault("status", path, what, status=answer.status, unfit=unfit)
    try:
        return session.check(answer)
    except ServerError as error:
        if error.status not in NO_RIGHT or error.reason == "limit":
            raise
        what = f"answered {error.status}: {NO_RIGHT[error.status]}"
        raise session.fault("auth", path, what, status=error.status) from None


def change_each(session: Session, method: Method, paths: list[str], operation: str) -> None:
    """Change everything at `paths`; what is in no state for it is passed over, unless all of it is."""
    refusals = []
    for path in paths:
        try:
            change(session, method, path, operation)
        except ServerError as error:
            if not error.unfit:
                raise
            refusals.append(error)
    if len(refusals) == len(paths):
        raise refusals[0]


def words_of(session: Session, answer: Answer) -> str:
    """What a server says of a refusal that may be for the build's state: one line, cut; empty where none."""
    if answer.status not in {400, 409, 422, 500}:
        return ""
    kind = answer.headers.get("Content-Type", "")
    body = answer.body.decode("utf-8", "replace")
    if answer.is_json:
        try:
            found = msgspec.json.decode(answer.body, type=Words)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return ""
        body = found.error or found.message
    elif not kind.startswith("text/plain"):
        return ""
    said = " ".join(session.without_token(body).split())
    return text("".join(c if c.isprintable() else "\ufffd" for c in said), LONGEST_WORDS)

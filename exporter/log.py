"""Log lines in logfmt or JSON, in which no server can write a line of its own and no secret is shown.

log = logger(__name__, server="drone")
log.info("import finished", repo="acme/app", builds=1200)

time=2024-05-01T10:00:00.000Z level=info msg="import finished" server=drone repo=acme/app builds=1200
"""

import json
import logging
import re
import sys
import traceback
from collections.abc import Iterable, Mapping, MutableMapping
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TextIO
from urllib.parse import quote

Value = str | int | float | bool
LONGEST = 4000
"""Characters of one value that are shown; a server may send any amount."""
QUIET = (
    "alembic", "apprise", "apscheduler", "asyncio", "ld_eventsource", "sqlalchemy", "urllib3", "uvicorn",
    "websockets",
)  # fmt: skip
"""Libraries of which only warnings are of interest to a user; some would log what was sent, token and all."""
PASSED = frozenset({"exc_info", "stack_info", "stacklevel"})


class Log(logging.LoggerAdapter[logging.Logger]):
    """A logger whose keyword arguments become fields of the line."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        passed = {key: value for key, value in kwargs.items() if key in PASSED}
        fields = {key: value for key, value in kwargs.items() if key not in PASSED}
        return msg, {**passed, "extra": {"fields": {**(self.extra or {}), **fields}}}

    def bind(self, **fields: object) -> "Log":
        """The same logger with more fields in every line."""
        return Log(self.logger, {**(self.extra or {}), **fields})


def logger(name: str, **fields: object) -> Log:
    """The logger of a module (`logger(__name__)`), with fields for every line."""
    return Log(logging.getLogger(name), fields)


class LineFormatter(logging.Formatter):
    """One record → one line; `tracebacks` adds the whole traceback of an exception to its line."""

    def __init__(self, form: Literal["logfmt", "json"], secrets: Iterable[str], tracebacks: bool) -> None:
        super().__init__()
        self.json = form == "json"
        self.tracebacks = tracebacks
        forms = {form for secret in secrets if secret for form in (secret, quote(secret, safe=""))}
        longest_first = sorted(forms, key=len, reverse=True)
        self.secret = re.compile("|".join(map(re.escape, longest_first))) if forms else None

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Value] = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "msg": self._shown(record.getMessage()),
        }
        if record.name.partition(".")[0] != "exporter":
            line["logger"] = record.name
        for key, value in getattr(record, "fields", {}).items():
            if value is not None:
                line[f"{key}_" if key in line else key] = self._shown(value)
        if record.exc_info and record.exc_info[1]:
            line |= self._exception(*record.exc_info[1:])
        if self.json:
            return json.dumps(line)
        return " ".join(f"{key}={_logfmt(value)}" for key, value in line.items())

    def _exception(self, error: BaseException, trace: TracebackType | None) -> Mapping[str, Value]:
        text = str(error)
        shown = {"error": self._shown(f"{type(error).__name__}: {text}" if text else type(error).__name__)}
        frames = traceback.extract_tb(trace)
        if frames:
            shown["at"] = f"{'/'.join(Path(frames[-1].filename).parts[-2:])}:{frames[-1].lineno}"
        if self.tracebacks:
            shown["traceback"] = self._without_secrets("".join(traceback.format_exception(error)))[
                -4 * LONGEST :
            ]
        return shown

    def _shown(self, value: object) -> Value:
        """The value as it may stand in a line: a number, or short text without secrets."""
        match value:
            case bool() | int():
                return value
            case float() if isfinite(value):
                return round(value, 3)
            case list() | tuple() | set() | frozenset():
                text = ", ".join(str(item) for item in value)
            case _:
                text = str(value)
        text = self._without_secrets(text)
        return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text)} characters)"

    def _without_secrets(self, text: str) -> str:
        return self.secret.sub("<secret>", text) if self.secret else text


def setup(
    level: str, form: Literal["logfmt", "json"], secrets: Iterable[str], stream: TextIO | None = None
) -> None:
    """Send every log line of this process, from `level` on, to `stream` (standard error)."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(LineFormatter(form, secrets, tracebacks=level == "debug"))
    root = logging.getLogger()
    for earlier in [h for h in root.handlers if isinstance(h.formatter, LineFormatter)]:
        root.removeHandler(earlier)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def _logfmt(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    if text and text.isprintable() and not re.search(r'[\s="\\]', text):
        return text
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(character: str) -> str:
    """What is invisible, turns the direction of text or ends a line or value is written as an escape."""
    if character.isprintable() and character not in '"\\':
        return character
    return json.dumps(character)[1:-1]

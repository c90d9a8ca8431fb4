"""What a server sends, made fit for a terminal, a file or a script: no line of it is obeyed or believed."""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from datetime import datetime
from typing import Any

from exporter.model import Build, Step
from exporter.servers import Line

LONGEST = 200
"""Characters of one value that are shown."""
LONGEST_ERROR = 1000
LONGEST_LINE = 2000
"""Characters of a log's line that are shown on a terminal; a file gets all of it."""
SEQUENCE = re.compile(
    "((?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]?"  # a control sequence, colours among them
    "|(?:\x1b[\\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x9c|\x1b\\\\)?"  # title, clipboard …
    "|\x1b[ -/]*[0-~]?)"
)
COLOUR = re.compile("\x1b\\[[0-9;:]*m")
PLAIN = "\x1b[0m"
UNSEEN = re.compile(
    "[\0-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
"""What moves the cursor, ends a line, turns the direction of text or cannot be written."""

Hide = Callable[[str], str]


def hiding(secrets: Iterable[str]) -> Hide:
    """Replaces every secret in a text, should a server or a log have repeated it."""
    longest_first = sorted(secrets, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
    return lambda text: pattern.sub("<secret>", text)


def without_secrets(build: Build, hide: Hide) -> Build:
    """The build with every secret in its texts replaced."""
    return replace(build, **_hidden(build, hide), steps=tuple(_step(step, hide) for step in build.steps))


def _step(step: Step, hide: Hide) -> Step:
    return replace(step, **_hidden(step, hide))


def _hidden(value: Build | Step, hide: Hide) -> dict[str, Any]:
    texts = {field.name: getattr(value, field.name) for field in fields(value)}
    return {name: hide(text) for name, text in texts.items() if type(text) is str}


def one_line(text: str, longest: int = LONGEST) -> str:
    """The text as one line without anything that a terminal obeys, cut to its longest."""
    shown = UNSEEN.sub("\ufffd", " ".join(SEQUENCE.sub("", text).split()))
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def lines_text(text: str) -> str:
    """The text with its lines and indents, without anything else that a terminal obeys."""
    return "\n".join(UNSEEN.sub("\ufffd", SEQUENCE.sub("", line)) for line in text.split("\n"))


def log_line(line: Line, *, colours: bool) -> str:
    """A line of a log; of its escape sequences only `colours` are kept, and those only where wanted."""
    # What a progress bar wrote over is gone on a terminal too.
    shown = line.text.rstrip("\r").rpartition("\r")[2]
    parts = SEQUENCE.split(shown)
    for place, part in enumerate(parts):
        if place % 2 == 0:
            parts[place] = UNSEEN.sub("\ufffd", part)
        elif not colours or not COLOUR.fullmatch(part):
            parts[place] = ""
    shown = "".join(parts)
    if colours and len(shown) > LONGEST_LINE:
        shown = f"{shown[:LONGEST_LINE]}{PLAIN}… ({len(shown)} characters)"
    return shown


def to_json(value: object) -> str:
    """The value as JSON in which nothing but ASCII stands."""
    return json.dumps(value, indent=2)


def record(server: str, build: Build) -> dict[str, object]:
    """A build for scripts: times are Unix seconds, durations seconds, null where there is none."""
    return {
        "server": server,
        "repo": build.repo,
        "number": build.number,
        "status": build.status.word,
        "event": build.event.value,
        "branch": build.branch,
        "ref": build.ref,
        "commit": build.commit,
        "title": build.title,
        "author": build.author,
        "environment": build.environment,
        "cron": build.cron,
        "parent": build.parent or None,
        "error": build.error,
        "queued": build.run or None,
        "started": build.started or None,
        "finished": build.finished or None,
        "wait": build.wait,
        "duration": build.duration,
    }


def step_record(step: Step) -> dict[str, object]:
    """A step for scripts."""
    return {
        "name": step.name,
        "status": step.status.word,
        "exit_code": step.exit_code,
        "ignored": step.ignored,
        "started": step.started or None,
        "finished": step.finished or None,
        "duration": step.duration,
    }


def span_text(seconds: float | None) -> str:
    """A duration as people say it: `45s`, `3m05s`, `2h03m`, `3d04h`; empty where there is none."""
    if seconds is None:
        return ""
    whole = int(seconds)
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // part:02}{smaller}"
    return f"{whole}s"


def moment_text(seconds: int) -> str:
    """A time of day where we are; empty for one that has not come."""
    return f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M:%S}" if seconds else ""

"""The few lines of a failing step's log that say why it failed, without secrets.

Order: decode, strip colours, collapse progress, drop what is invisible, redact, choose lines, cut. So no
secret is missed for what stood within it, and none is cut in half before it is looked for.
"""

import re
from collections.abc import Callable, Sequence
from itertools import pairwise

import regex

from exporter.notify.excerpt_errors import first_error
from exporter.notify.excerpt_lines import LEFT_OUT, plain
from exporter.servers import Line

MOST_LINES = 15
LONGEST_LINE = 200
"""Characters of a line."""
END_OF_LINE = 60
"""Of these from its end, where it is cut."""
MOST_BYTES = 1500
"""Bytes of the whole in UTF-8."""
BEFORE, AFTER, LAST = 2, 9, 4
"""Lines before the first error, after it, and at the log's end."""
EXIT_CODE = "exit code {}"
SILENT = re.compile(r"(?:\[(?:ERROR|INFO|WARN(?:ING)?)\]|npm (?:error|ERR!|warn|notice))?[\W_]*")
"""Lines without a word, rulers among them: they would take the place of those that say something."""


def excerpt(
    lines: Sequence[Line],
    hide: Callable[[str], str],
    *,
    exit_code: int = 0,
    patterns: Sequence[regex.Pattern[str]] = (),
) -> str:
    """At most 15 lines of a log, empty where it has none; `patterns` find what its repo calls an error.

    Raises what `hide` raises.
    """
    shown = hide("\n".join(plain(failing_part(lines)))).split("\n")
    telling = [line.rstrip() for line in shown if not SILENT.fullmatch(line)]
    last = EXIT_CODE.format(exit_code) if exit_code else ""
    return choose(telling, first_error(telling, patterns), last)


def choose(lines: Sequence[str], error: int | None, last: str = "") -> str:
    """The lines around `error` and the last ones, cut, with a mark where some are left out; then `last`."""
    if last and lines and lines[-1] == last:
        last = ""
    chosen: set[int] = set()
    text = last
    for place in _wanted(len(lines), error):
        if 0 <= place < len(lines) and place not in chosen:
            longer = _text(lines, sorted(chosen | {place}), last)
            if longer.count("\n") < MOST_LINES and len(longer.encode()) <= MOST_BYTES:
                chosen.add(place)
                text = longer
    return text if chosen else ""


def _wanted(count: int, error: int | None) -> list[int]:
    """Places of lines, the most telling first; what stands before takes what room is left."""
    if error is None:
        return list(range(count - 1, count - 1 - MOST_LINES, -1))
    around = [error + step for step in (0, 1, 2, -1, 3, -2, 4, 5)]
    end = [count - step for step in range(1, LAST + 1)]
    more = [*range(error + 6, error + AFTER + 1), *range(error - BEFORE - 1, error - MOST_LINES, -1)]
    return [*around, *end, *more]


def _text(lines: Sequence[str], places: Sequence[int], last: str) -> str:
    parts = [_cut(lines[places[0]])]
    for before, place in pairwise(places):
        if missing := place - before - 1:
            parts.append(LEFT_OUT.format(missing))
        parts.append(_cut(lines[place]))
    return "\n".join([*parts, last] if last else parts)


def _cut(line: str) -> str:
    """The line, without its middle where it is too long: many tools name the first cause last."""
    if len(line) <= LONGEST_LINE:
        return line
    return f"{line[: LONGEST_LINE - END_OF_LINE - 1]}…{line[-END_OF_LINE:]}"


def failing_part(lines: Sequence[Line]) -> Sequence[Line]:
    """Of a log that holds several steps (a job's) the one that failed, where its lines tell.

    A step's last line is its exit code; the last step before an abort has none (contract of Drone 0.5).
    """
    codes = {line.step: line.text for line in lines if line.text.startswith("exit code ")}
    if len({line.step for line in lines}) < 2:
        return lines
    failed = next((step for step, text in codes.items() if text != "exit code 0"), None)
    if failed is None and codes and lines[-1].step not in codes:
        failed = lines[-1].step
    return [line for line in lines if line.step == failed] if failed is not None else lines

"""A log's lines as a terminal would leave them: no colours, no progress, nothing invisible; 1 MiB at most."""

import re
from collections.abc import Iterable, Sequence

from exporter.servers import Line

MOST = 1 << 20
"""Characters of a log that are looked at."""
HEAD = MOST // 4
"""Of these from its beginning, where it has more; the others are from its end, where most errors are."""
LONGEST = 1 << 16
"""Characters of one line that are looked at: half of them from its end, what a progress bar said last."""
LEFT_OUT = "… {} lines left out"

SEQUENCE = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*+[ -/]*+[@-~]?"  # a control sequence, colours among them
    "|(?:\x1b[\\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*+(?:\x07|\x9c|\x1b\\\\)?"  # title, link …
    "|\x1b[ -/]*+[0-~]?"
)
BACKSPACED = re.compile("[^\b]\b")
INVISIBLE = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\uffff\ud800-\udfff"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Control, zero-width and bidirectional characters, fillers, tags and lone surrogates."""


def plain(lines: Sequence[Line]) -> list[str]:
    """The lines of a log, cleaned; where it is too long, a line says how many of its middle are missing."""
    head = _within(HEAD, lines)
    tail = _within(MOST - HEAD, reversed(lines[head:])) if head < len(lines) else 0
    shown = [_plain(line.text) for line in lines[:head]]
    if missing := len(lines) - head - tail:
        shown.append(LEFT_OUT.format(missing))
    return shown + [_plain(line.text) for line in lines[len(lines) - tail :]]


def _within(most: int, lines: Iterable[Line]) -> int:
    """How many of the lines come to no more than that many characters."""
    count = 0
    for line in lines:
        most -= min(len(line.text), LONGEST) + 1
        if most < 0:
            break
        count += 1
    return count


def _plain(text: str) -> str:
    if len(text) > LONGEST:
        text = _without_middle(text)
    text = SEQUENCE.sub("", text).rstrip("\r").rpartition("\r")[2]
    return INVISIBLE.sub("", BACKSPACED.sub("", text))


def _without_middle(text: str) -> str:
    """Both ends of a line, without the words that were cut: half a secret is not known for one."""
    head, tail = text[: LONGEST // 2], text[-LONGEST // 2 :]
    ends = [place.start() for place in re.finditer(r"\s", head)]
    start = re.search(r"\s", tail)
    return f"{head[: ends[-1]] if ends else ''} … {tail[start.end() :] if start else ''}"

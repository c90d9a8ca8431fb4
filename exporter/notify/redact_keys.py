"""Private keys in a text, also where one of their ends was cut off."""

import re
from bisect import bisect_right

EDGE = re.compile(r"-----(?:(BEGIN)|END) (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
PUBLIC = re.compile(r"-----BEGIN (?:[A-Z0-9]{1,20} ){0,3}(?:CERTIFICATE|PUBLIC KEY|SIGNATURE|MESSAGE)")
MATERIAL = re.compile(r"(?:[A-Za-z0-9+/]|\\[nr])+={0,2}[\"',]{0,2}")
HEADER = re.compile(r"(?:(?:Proc-Type|DEK-Info|Comment|Version|Charset|Hash): .{1,100})?")
MIXED = re.compile(r"(?=.*[a-z])(?=.*[A-Z])(?=.*[0-9])")
WIDTHS = frozenset({64, 70, 76})
"""Widths at which keys are wrapped (PEM, OpenSSH, MIME)."""
LONGEST = 150
"""Lines from a key's first to its last: all between is hidden, whatever it looks like."""
CUT = 3
"""Wrapped lines that are taken for the middle of a key whose first and last lines are missing."""


def without_keys(text: str, mark: str) -> str:
    """The text with `mark` for each private key; the lines stay, empty where only key was."""
    lines = text.split("\n")
    if "PRIVATE KEY" in text:
        lines = _without_marked(lines, mark)
    return "\n".join(_without_middles(lines, mark))


def _without_marked(lines: list[str], mark: str) -> list[str]:
    shown = list(lines)
    ends = [n for n, line in enumerate(lines) if any(not edge[1] for edge in EDGE.finditer(line))]
    begun, closed = -1, False
    for n, line in enumerate(lines):
        if "PRIVATE KEY" in line and EDGE.search(line):
            parts, place = [], 0
            for edge in EDGE.finditer(line):
                if edge[1] and begun < 0:
                    parts += [line[place : edge.start()], mark]
                    begun = n
                elif not edge[1]:
                    if begun < 0:
                        parts = [mark]
                        _hide_backwards(lines, shown, n)
                    begun, place = -1, edge.end()
            parts += [line[place:]] if begun < 0 else []
            shown[n] = "".join(parts)
            next_end = bisect_right(ends, n)
            closed = next_end < len(ends) and ends[next_end] - n <= LONGEST
        elif begun >= 0:
            if closed or _is_material(line, 1) or HEADER.fullmatch(line.strip()):
                shown[n] = ""
            else:
                begun = -1
    return shown


def _hide_backwards(lines: list[str], shown: list[str], end: int) -> None:
    """Hide the lines of a key before its last one, where its first is missing."""
    for n in range(end - 1, -1, -1):
        if shown[n] is not lines[n] or not _is_material(lines[n], 16 if n < end - 1 else 2):
            break
        shown[n] = ""


def _is_material(line: str, least: int) -> bool:
    """True for a line of at least so much base64 alone, or of a lot of it after something else."""
    word = line.rpartition(" ")[2].strip()
    alone = len(word) == len(line.strip())
    return len(word) >= (least if alone else 40) and MATERIAL.fullmatch(word) is not None


def _without_middles(lines: list[str], mark: str) -> list[str]:
    """The lines without what looks like a key's middle; certificates and the like are no secrets."""
    run: list[int] = []
    public = False
    for n, line in enumerate([*lines, ""]):
        if "-----" in line:
            public = PUBLIC.search(line) is not None or (public and "-----END" not in line)
        word = line.rpartition(" ")[2].strip() if len(line) >= min(WIDTHS) and not public else ""
        if len(word) in WIDTHS and MATERIAL.fullmatch(word) and MIXED.match(word):
            run.append(n)
            continue
        if len(run) >= CUT:
            # A shorter line that follows is the key's last.
            last = [n] if n < len(lines) and _is_material(line, 4) else []
            for place in (*run, *last):
                lines[place] = ""
            lines[run[0]] = mark
        run = []
    return lines

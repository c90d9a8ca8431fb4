"""Which lines of a log say what went wrong."""

import re
from collections.abc import Sequence

import regex

LONGEST = 1000
"""Characters of a line that are searched."""
LONGEST_SEARCH = 0.2
"""Seconds that one pattern of the configuration may take on a line."""

NOISE = re.compile(
    r"^\+ |\bwarn(?:ing)?\b|^WARN|\bnote:|\bno (?:errors?|failures?)\b|\b0 (?:errors?|fail(?:ures|ed)?)\b"
    r"|\b(?:errors?|fail(?:ures|ed)?)[:=][ ]?0\b"
    r"|^\s*(?:\[[ ]*(?:ok|pass(?:ed)?)[ ]*\]|(?:not )?ok\b(?! \d+ - .* # FAIL)|[✓✔√]|--- PASS|PASS\b)"
    r"|\b(?:PASSED|ok|OK|passed|skipped|SKIPPED)\s*(?:\[[^\]]*\]|\(.*\))?$|\(ignored\)|ignoring\b"
    r"|-Werror|\bretry(?:ing)?\b|\battempt \d",
    re.IGNORECASE,
)
"""What looks like an error and is none: commands, warnings, good tests, what is tried again."""
ASSERTION = re.compile(
    r"E[ ]{2,}\S|#\s+Failed test|\s{0,40}(?:● .|(?:[\w$]{1,80}\.){0,8}Assertion(?:Failed)?Error\b)"
    r"|\s{1,8}\d{1,3}\) (?:Failure|Error)\b|\s{1,8}Failure/Error: |\d{1,3}\) [\w\\]{1,100}::\w"
    r"|.{0,200}(?:\bpanicked at\b|\b[Aa]ssertion .{1,200} failed)"
)
"""How a test says why it failed. It comes before all else: good tests too write errors into the log."""
TEST = re.compile(
    r"FAIL(?:ED)?[ :]+\S|\s{0,40}(?:[✕✗✘×] |FAIL  ?\S|not ok \d|--- FAIL|\[\s*FAIL(?:ED)?\s*\])"
    r"|\[ERROR\] .{0,200}<<< (?:FAILURE|ERROR)!"
)
"""How a test that failed is listed."""
BEGINNING = re.compile(
    r"E: \S|(?:[\w.]{1,200}\.)?\w{0,80}(?:Error|Exception|Failure)(?:: |$)|fatal: "
    r"|npm (?:ERR!|error) (?!code |errno |syscall |path |A complete|A full|Exit |command |Lifecycle)\S"
    r"|\[ERROR\] (?:/|\S{1,200}\.\w+:)|\s{0,8}\d+:\d+\s+error\s|[A-Z]{1,5}\d{3,4} (?:\[\*\] )?\S"
    r"|[\w./-]{1,200}\.(?:go|ts|tsx|js|py|rs|c|cc|cpp|h|java|php|rb):\d+(?::\d+)?: ?(?!In |in )\S"
)
"""How a line begins that says why: linters and compilers name the place."""
CAUSE = re.compile(
    r"(?:\b|(?<=\d))(?:fatal |internal compiler )?error(?:\[\w+\]|[ ]\w{1,4}\d+)?: ?\S"
    r"|\bcaused by: |\w(?:Error|Exception): \S|\bException in thread |\bpanic: |\bfatal\b|\bfailed!"
    r"|undefined reference to|undefined symbol|multiple definition of|cannot (?:find|connect)|no rule to make"
    r"|command not found|: not found$|no such file or directory|read-only file system|no space left on"
    r"|connection (?:refused|reset|timed out)|could not (?:resolve|find|connect|read)"
    r"|unable to (?:connect|locate|find|access|resolve)|\bdenied\b|\bunauthorized\b"
    r"|segmentation fault|out of memory|killed\b|core dumped",
    re.IGNORECASE,
)
"""What says why, anywhere in a line."""
SIGN = re.compile(
    r"\berrors?\b|\bfail(?:ed|ure|ures|s)?\b|\bexception\b|\babort(?:ed|ing)?\b|\bfatal\b|\bcannot\b|\binvalid\b"
    r"|\bmissing\b|\bTraceback\b|\brefused\b|\btimed out\b|\btimeout\b|\bunexpected\b|\*\*\* ",
    re.IGNORECASE,
)
"""What says that something is wrong."""
HINTS = (
    "error", "fail", "fatal", "caused by", "panic", "undefined", "multiple definition", "cannot", "no rule",
    "not found", "no such file", "read-only", "no space", "connection", "could not", "unable", "denied",
    "unauthorized", "segmentation", "memory", "killed", "core dumped", "exception", "abort", "invalid",
    "missing", "traceback", "refused", "timed out", "timeout", "unexpected", "***",
)  # fmt: skip
"""Without one of these in lower case, neither `CAUSE` nor `SIGN` fits: looking for them is much faster."""


def first_error(lines: Sequence[str], patterns: Sequence[regex.Pattern[str]] = ()) -> int | None:
    """The place of the first strong error: by the configuration's patterns, else by ours; None: no error."""
    for place, line in enumerate(lines):
        if any(_fits(pattern, line) for pattern in patterns):
            return place
    found: dict[int, int] = {}
    for place, line in enumerate(lines):
        strength = _strength(line[:LONGEST])
        if strength and strength not in found and not _is_ignored(lines, place):
            found[strength] = place
    return found[max(found)] if found else None


def _strength(line: str) -> int:
    """0: no error; 1: something is wrong; 2: why; 3: a test failed; 4: why it did."""
    lowered = line.lower()
    hinted = any(hint in lowered for hint in HINTS)
    if ASSERTION.match(line):
        strength = 4
    elif TEST.match(line):
        strength = 3
    elif BEGINNING.match(line) or (hinted and CAUSE.search(line)):
        strength = 2
    else:
        strength = int(hinted and SIGN.search(line) is not None)
    return 0 if strength and NOISE.search(line) else strength


def _fits(pattern: regex.Pattern[str], line: str) -> bool:
    try:
        return pattern.search(line[:LONGEST], timeout=LONGEST_SEARCH) is not None
    except TimeoutError:
        return False


def _is_ignored(lines: Sequence[str], place: int) -> bool:
    """True where the next line says that it does not matter (Ansible)."""
    return place + 1 < len(lines) and lines[place + 1].strip() == "...ignoring"

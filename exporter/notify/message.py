"""What is told of a notice, as text in parts: what a target escapes and lays out as its channel wants it.

Nothing of a build is ever a template here, and whatever no reader sees or expects is dropped here.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from exporter.notify.notice import BuildFacts, Kind, Notice
from exporter.notify.text import cut, cut_bytes, link, many_lines, one_line, size, unlinked

TITLE, NAME, VALUE, LINE, EXCERPT = 300, 100, 200, 300, 4000
"""Characters of the parts at most; the excerpt is cut before it comes here."""
LINES, FEW_LINES = 60, 10
SHORT_TITLE, SHORT_LINE = 150, 120
LEAST_REST = 40
"""Bytes below which it is not worth to begin an excerpt."""


class Tone(Enum):
    """What a message means to whom it reaches; a target gives it a colour or a sign."""

    BAD = "bad"
    GOOD = "good"
    WARNING = "warning"
    INFO = "info"

    @property
    def sign(self) -> str:
        """A coloured dot, where a channel has no colours."""
        return {"bad": "\U0001f534", "good": "\U0001f7e2", "warning": "\U0001f7e1", "info": "\U0001f535"}[
            self.value
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """The text of a notice, not escaped for any channel."""

    tone: Tone
    title: str
    facts: tuple[tuple[str, str], ...] = ()
    """Label and value, each of one line."""
    lines: tuple[str, ...] = ()
    excerpt: str = ""
    """Several lines."""
    link: str = ""
    """A web address without characters that could end it; may be empty."""
    link_text: str = ""


def compose(notice: Notice, *, short: bool = False) -> Message:
    """The message of a notice; the short one has no excerpt, few lines and facts."""
    build = notice.build
    address = link(build.url if build else notice.url)
    lines = _lines(notice, FEW_LINES if short else LINES, SHORT_LINE if short else LINE)
    return Message(
        tone=_tone(notice),
        title=one_line(_title(notice), SHORT_TITLE if short else TITLE),
        facts=tuple(_facts(notice))[: 1 if short else None],
        lines=lines,
        excerpt="" if short else many_lines(notice.excerpt, EXCERPT),
        link=address,
        link_text="" if not address else f"Build #{build.number}" if build else "About this alert",
    )


def fitted(message: Message, longest: int, escape: Callable[[str], str] = unlinked) -> str:
    """The message as plain text of at most `longest` bytes: the title and the link whole before the rest.

    `escape` makes text dead, in whatever piece it is cut to afterwards; the link is left as it is.
    """
    title = cut_bytes(f"{message.tone.sign} {escape(message.title)}", longest // 2)
    head = [title, message.link] if 0 < size(message.link) < longest - size(title) else [title]
    rest = below(message, longest - size("\n".join(head)) - 1, escape)
    return "\n".join(filter(None, (*head, rest)))


def below(message: Message, longest: int, escape: Callable[[str], str] = unlinked) -> str:
    """What stands below the title, in at most `longest` bytes: facts before lines and excerpt."""
    left, told = longest, []
    for label, value in message.facts:
        fact = escape(f"{label}: {value}")
        if size(fact) + 1 <= left:
            told.append(fact)
            left -= size(fact) + 1
    rest = "\n\n".join(filter(None, ("\n".join(message.lines), message.excerpt)))
    if rest and left >= LEAST_REST:
        told += [""] * bool(told) + [cut_bytes(escape(rest), left - 1)]
    return "\n".join(told)


def span(seconds: float) -> str:
    """A duration in its two largest units: `2 h 10 min`."""
    left = max(int(seconds), 0)
    words = []
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, length)
        if count:
            words.append(f"{count} {unit}")
        if len(words) == 2 or (words and not count):
            break
    return " ".join(words) or "0 s"


def _tone(notice: Notice) -> Tone:
    match notice.kind:
        case Kind.OPENED | Kind.CHANGED | Kind.REMINDER:
            return Tone.BAD
        case Kind.RESOLVED:
            return Tone.WARNING if notice.flaky else Tone.GOOD
        case Kind.FLAPPING | Kind.DIGEST:
            return Tone.WARNING
        case Kind.ALERT:
            return Tone.BAD if notice.failures else Tone.GOOD
        case _:
            return Tone.INFO


def _title(notice: Notice) -> str:
    what, number = _subject(notice), f"#{notice.build.number}" if notice.build else ""
    after = f"after {span(notice.at - notice.since)} and {_count(notice.failures, 'failure')}"
    match notice.kind:
        case Kind.OPENED:
            return f"{what} {number} {_how(notice.build)}"
        case Kind.CHANGED:
            return f"{what} is still red: {number} {_how(notice.build)}"
        case Kind.REMINDER:
            return f"{what} is still red {after}: {number} {_how(notice.build)}"
        case Kind.RESOLVED if notice.flaky:
            return f"{what} is green again on the same commit (flaky): {number}, {after}"
        case Kind.RESOLVED:
            return f"{what} is green again: {number}, {after}"
        case Kind.FLAPPING:
            return f"{what} keeps turning red and green: told again once it is stable"
        case Kind.STALE:
            return f"{what} is closed without a good build: red since #{notice.first_number}"
        case Kind.DIGEST:
            return f"CI digest: {_count(len(notice.lines), 'change')}"
        case Kind.ALERT:
            return notice.lines[0] if notice.lines else "An alert of Prometheus"
        case Kind.TEST:
            return "Test message of build-exporter: this target works"


def _subject(notice: Notice) -> str:
    """Repo and what was built of it: `acme/web main`, `acme/web tag v1.2`."""
    repo, branch, ref = (one_line(text, NAME) for text in (notice.repo, notice.branch, notice.ref))
    if not ref or ref == branch:
        return f"{repo} {branch}".strip()
    if notice.event in {"tag", "pull_request"} or not branch:
        return f"{repo} {ref}"
    return f"{repo} {branch} ({ref})"


def _how(build: BuildFacts | None) -> str:
    """`failed at step test (exit 2)`."""
    if build is None:
        return "failed"
    verb = {"timeout": "timed out", "error": "ended with an error"}.get(build.status, "failed")
    step = f" at step {one_line(build.step, NAME)}" if build.step.strip() else ""
    return f"{verb}{step}" + (f" (exit {build.exit_code})" if build.exit_code is not None else "")


def _facts(notice: Notice) -> list[tuple[str, str]]:
    """The most important one first: a short message has that alone."""
    build = notice.build
    facts: list[tuple[str, str]] = []
    if notice.since and notice.kind in {Kind.OPENED, Kind.CHANGED, Kind.REMINDER, Kind.FLAPPING, Kind.STALE}:
        since = f"{_moment(notice.since)}, since #{notice.first_number}"
        facts.append(("Red since", f"{since}, {_count(notice.failures, 'failure')}"))
    if build:
        commit = one_line(build.commit, NAME)
        commit = commit[:10] if re.fullmatch(r"[0-9a-f]{40,64}", commit) else commit
        facts.append(("Commit", one_line(f"{commit} {build.title}", VALUE)))
        facts.append(("Author", one_line(build.author, NAME)))
        facts.append(("Duration", span(build.duration) if build.duration is not None else ""))
    facts.append(("Server", one_line(notice.server, NAME)))
    facts.append(("Log", one_line(notice.excerpt_note, VALUE)))
    return [(label, value) for label, value in facts if value]


def _lines(notice: Notice, most: int, longest: int) -> tuple[str, ...]:
    given = notice.lines[1:] if notice.kind is Kind.ALERT else notice.lines
    lines = [one_line(line, longest) for line in given[:most]]
    if len(given) > most:
        lines.append(cut(f"and {len(given) - most} more", longest))
    return tuple(filter(None, lines))


def _count(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")


def _moment(unix: int) -> str:
    try:
        return f"{datetime.fromtimestamp(unix, UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError, OSError):
        return "an unknown time"

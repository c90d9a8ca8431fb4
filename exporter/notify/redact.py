"""Text without the secrets in it: those that are known, those of the configuration, those that look so.

hide = Redactor(secrets=("hunter2-hunter2",))
hide("push to https://ci:s3cret@git.example.com failed")

push to https://<secret>@git.example.com failed
"""

import base64
import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import accumulate
from urllib.parse import quote, quote_plus

import regex

from exporter.notify.redact_keys import without_keys
from exporter.notify.redact_rules import RULES

MARK = "<secret>"
SHORTEST = 4
"""Characters of the shortest secret that is looked for: a shorter one stands in any text."""
SHORTEST_LINE = 8
"""Characters of a line of a secret, or of a part of its base64, that is a secret on its own."""
LONGEST_SEARCH = 1.0
"""Seconds that one pattern of the configuration may take."""


class SlowPatternError(Exception):
    """A pattern of the configuration took too long, so that nobody knows whether a secret is left."""


class Redactor:
    """Replaces every secret in a text by `<secret>`; lines stay lines. Threads may share it.

    `secrets` are known texts, looked for as they are and as they are written in addresses, JSON, HTML, hex
    and base64, broken into lines or not; `patterns` are the configuration's own, replaced whole.
    """

    def __init__(self, secrets: Iterable[str] = (), patterns: Sequence[regex.Pattern[str]] = ()) -> None:
        self._secrets = sorted(_forms(secrets), key=len, reverse=True)
        self._patterns = tuple(patterns)

    def __repr__(self) -> str:
        return f"Redactor({len(self._secrets)} forms, {len(self._patterns)} patterns)"

    def __call__(self, text: str) -> str:
        """The text without secrets; raises `SlowPatternError`."""
        text = _without_known(text, self._secrets)
        for pattern in self._patterns:
            try:
                text = pattern.sub(MARK, text, timeout=LONGEST_SEARCH)
            except TimeoutError:
                raise SlowPatternError("a pattern of `redact.patterns` takes too long") from None
        text = without_keys(text, MARK)
        lowered = text.lower()
        for rule in RULES:
            if any(trigger in lowered for trigger in rule.triggers):
                text = rule.pattern.sub(_masked, text)
        return text


def _masked(match: re.Match[str]) -> str:
    whole, group = match[0], match.lastindex or 0
    start = match.start()
    return whole[: match.start(group) - start] + MARK + whole[match.end(group) - start :]


def _forms(secrets: Iterable[str]) -> set[str]:
    """Each secret, and each of its lines, in every way in which a log may show it."""
    known: set[str] = set()
    for secret in secrets:
        lines = [line.strip() for line in secret.splitlines()]
        known |= {"".join(lines)} | {line for line in lines if len(line) >= SHORTEST_LINE}
    found: set[str] = set()
    for secret in known:
        if len(secret) >= SHORTEST:
            quoted = quote(secret, safe=""), quote_plus(secret), quote(secret)
            lower = [re.sub("%[0-9A-F]{2}", lambda code: code[0].lower(), text) for text in quoted]
            in_json = json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]
            found |= {secret, *quoted, *lower, *in_json, escape(secret)}
            as_hex = secret.encode().hex()
            found |= {as_hex, as_hex.upper()} if len(secret) >= SHORTEST_LINE else set()
            found |= set(_base64_forms(secret.encode()))
    return found


def _base64_forms(secret: bytes) -> Iterator[str]:
    """What of a secret's base64 is the same whatever stands before and after it (`user:secret`)."""
    for before in range(3):
        whole = (before + len(secret)) * 8 // 6
        text = base64.b64encode(b"\0" * before + secret).decode()[(0, 2, 3)[before] : whole]
        if len(text) >= SHORTEST_LINE:
            yield text
            yield text.replace("+", "-").replace("/", "_")


def _without_known(text: str, secrets: Sequence[str]) -> str:
    """The text without these, also where a line ends within one of them."""
    joined = text.replace("\n", "")
    spans: list[tuple[int, int]] = []
    for secret in secrets:
        start = joined.find(secret)
        while start >= 0:
            spans.append((start, start + len(secret)))
            start = joined.find(secret, start + 1)
    if not spans:
        return text
    # Places in `joined` before which a line ended.
    ends = list(accumulate(len(line) for line in text.split("\n")[:-1]))
    parts, done = [], 0
    for start, end in sorted(spans):
        first, last = start + bisect_right(ends, start), end + bisect_right(ends, end - 1)
        breaks = text.count("\n", first, last)
        if last <= done or (breaks and end - start < SHORTEST_LINE):
            continue
        parts += [text[done:first], MARK] if first >= done else []
        parts.append("\n" * text.count("\n", max(first, done), last))
        done = last
    return "".join([*parts, text[done:]])

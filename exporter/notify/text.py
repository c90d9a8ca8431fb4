"""Untrusted text made harmless: what no reader sees or expects is dropped, and what is too long is cut.

What a channel takes for markup is the matter of that channel's file; what is here holds for all of them.
"""

import re
import unicodedata
from collections.abc import Callable
from urllib.parse import quote, urlsplit

MARK = "…"
"""What stands where something was cut off."""
LONGEST_LINK = 1000
BREAKS = dict.fromkeys(map(ord, "\r\n\t\v\f\x1c\x1d\x1e\x1f\x85\u2028\u2029"), " ")
INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0")
"""Characters that show nothing though their category says otherwise."""
DROPPED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Control, format (bidi, zero width, tags), lone surrogates, separators."""
MORE_MARKS = re.compile(
    r"([\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]{3})"
    r"[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]+"
)
"""Accents heaped on one letter, which cover the lines around it."""


def one_line(text: str, longest: int) -> str:
    """The text as one line of visible characters, at most `longest` of them."""
    # Cut first: a server may send any amount, and only the beginning is wanted.
    seen = _visible(text[: 4 * longest + 100].translate(BREAKS))
    return cut(" ".join(seen.split()), longest)


def many_lines(text: str, longest: int) -> str:
    """The text as lines of visible characters, at most `longest` of them in all; indents stay."""
    lines = re.split(r"\r\n|[\n\v\f\r\x85\u2028\u2029]", text[: 4 * longest + 100].replace("\t", "    "))
    return cut("\n".join(_visible(line).rstrip() for line in lines).strip("\n"), longest)


def cut(text: str, longest: int) -> str:
    """The beginning of the text, with a mark where something is left out."""
    if len(text) <= longest:
        return text
    return text[: max(longest - len(MARK), 0)].rstrip() + MARK if longest > 0 else ""


def cut_bytes(text: str, longest: int) -> str:
    """The beginning of the text in at most `longest` bytes of UTF-8, never ending inside a character."""
    encoded = text.encode()
    if len(encoded) <= longest:
        return text
    kept = longest - len(MARK.encode())
    return encoded[:kept].decode(errors="ignore").rstrip() + MARK if kept >= 0 else ""


def size(text: str) -> int:
    """Bytes of the text in UTF-8."""
    return len(text.encode())


def link(address: str) -> str:
    """The web address with every character quoted that ends a link somewhere; empty where it is none."""
    try:
        parts = urlsplit(address)
        usable = parts.scheme in {"http", "https"} and re.fullmatch(r"[A-Za-z0-9.:\[\]-]+", parts.netloc)
    except ValueError:
        usable = None
    if not usable or len(address) > LONGEST_LINK or _visible(address) != address:
        return ""
    rest = re.sub("%(?![0-9A-Fa-f]{2})", "%25", parts._replace(scheme="", netloc="").geturl())
    safe = quote(rest, safe="/?#&=%:@!$,;+-._~")
    quoted = f"{parts.scheme}://{parts.netloc}{safe}"
    return quoted if len(quoted) <= LONGEST_LINK else ""


def escaped(text: str, longest: int, escape: Callable[[str], str]) -> str:
    """The text with every character escaped, in at most `longest` characters, cut between two of them."""
    parts = [escape(character) for character in text]
    if sum(map(len, parts)) <= longest:
        return "".join(parts)
    left, kept = longest - len(MARK), 0
    while len(parts[kept]) <= left:
        left -= len(parts[kept])
        kept += 1
    return "".join(parts[:kept]) + MARK


def unlinked(text: str) -> str:
    """The text with nothing left that a chat client makes a link or a call of by itself."""
    return re.sub(r"(?<![\w.+-])@(?=\S)", "\uff20", text.replace("://", "[:]//"))


def _visible(text: str) -> str:
    kept = (c for c in text if unicodedata.category(c) not in DROPPED and c not in INVISIBLE)
    return MORE_MARKS.sub(r"\1", "".join(kept))

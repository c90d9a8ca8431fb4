"""What a notice says in words, and that nothing of a build gets through it alive."""

import re
import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from receiver import HOSTILE, INVISIBLE, build, hostile, notice

from exporter.notify.message import Tone, below, compose, fitted, span
from exporter.notify.notice import Kind
from exporter.notify.slack import ENTITIES
from exporter.notify.text import cut, cut_bytes, escaped, link, many_lines, one_line, size, unlinked

TEXT = st.text(st.characters() | st.sampled_from(INVISIBLE + "<>&`@*_[]():/\\\n\r\t{}%"), max_size=300)


@pytest.mark.parametrize(
    ("changes", "title", "tone"),
    [
        ({}, "acme/web main #42 failed at step test (exit 2)", Tone.BAD),
        ({"build": build(exit_code=None)}, "acme/web main #42 failed at step test", Tone.BAD),
        ({"build": build(step="", exit_code=None)}, "acme/web main #42 failed", Tone.BAD),
        (
            {"build": build(status="timeout", exit_code=None)},
            "acme/web main #42 timed out at step test",
            Tone.BAD,
        ),
        (
            {"build": build(status="error", step="", exit_code=None)},
            "acme/web main #42 ended with an error",
            Tone.BAD,
        ),
        ({"event": "tag", "ref": "tag v1.2"}, "acme/web tag v1.2 #42 failed at step test (exit 2)", Tone.BAD),
        (
            {"event": "cron", "ref": "cron nightly"},
            "acme/web main (cron nightly) #42 failed at step test (exit 2)",
            Tone.BAD,
        ),
        ({"kind": Kind.CHANGED}, "acme/web main is still red: #42 failed at step test (exit 2)", Tone.BAD),
        (
            {"kind": Kind.RESOLVED, "build": build(number=45), "failures": 3},
            "acme/web main is green again: #45, after 2 h 10 min and 3 failures",
            Tone.GOOD,
        ),
        (
            {"kind": Kind.RESOLVED, "build": build(number=45), "flaky": True},
            "acme/web main is green again on the same commit (flaky): #45, after 2 h 10 min and 1 failure",
            Tone.WARNING,
        ),
        (
            {"kind": Kind.REMINDER, "failures": 5},
            "acme/web main is still red after 2 h 10 min and 5 failures: #42 failed at step test (exit 2)",
            Tone.BAD,
        ),
        (
            {"kind": Kind.FLAPPING},
            "acme/web main keeps turning red and green: told again once it is stable",
            Tone.WARNING,
        ),
        ({"kind": Kind.STALE}, "acme/web main is closed without a good build: red since #42", Tone.INFO),
        ({"kind": Kind.DIGEST, "lines": ("a", "b")}, "CI digest: 2 changes", Tone.WARNING),
        ({"kind": Kind.ALERT, "lines": ("Queue is stuck", "more")}, "Queue is stuck", Tone.BAD),
        ({"kind": Kind.ALERT, "lines": ("Queue is stuck",), "failures": 0}, "Queue is stuck", Tone.GOOD),
        ({"kind": Kind.TEST}, "Test message of build-exporter: this target works", Tone.INFO),
    ],
)
def test_titles(changes: dict[str, object], title: str, tone: Tone) -> None:
    message = compose(notice(**changes))
    assert (message.title, message.tone) == (title, tone)


def test_what_stands_below_the_title() -> None:
    message = compose(notice(failures=3, excerpt_note="log cut"))
    assert message.facts == (
        ("Red since", "2026-11-25 07:36 UTC, since #42, 3 failures"),
        ("Commit", "1a2b3c4d5e Parse dates without a zone"),
        ("Author", "ann"),
        ("Duration", "3 min 20 s"),
        ("Server", "drone"),
        ("Log", "log cut"),
    )
    assert (message.link, message.link_text) == ("https://ci.example.com/acme/web/42", "Build #42")
    assert fitted(message, 5000).splitlines() == [
        "\U0001f534 acme/web main #42 failed at step test (exit 2)",
        "https://ci.example.com/acme/web/42",
        "Red since: 2026-11-25 07:36 UTC, since #42, 3 failures",
        "Commit: 1a2b3c4d5e Parse dates without a zone",
        "Author: ann",
        "Duration: 3 min 20 s",
        "Server: drone",
        "Log: log cut",
        "",
        "E   AssertionError: 3 != 4",
        "exit code 2",
    ]


def test_the_short_message() -> None:
    lines = tuple(f"acme/web{number}" for number in range(30))
    message = compose(notice(lines=lines, repo="x" * 500, branch="y" * 500), short=True)
    assert (message.excerpt, len(message.facts), len(message.title)) == ("", 1, 150)
    assert message.lines == (*lines[:10], "and 20 more")
    assert message.link


def test_the_lines_of_an_alert_follow_its_title() -> None:
    message = compose(notice(kind=Kind.ALERT, lines=("Queue is stuck", "on drone", ""), build=None))
    assert (message.lines, message.link) == (("on drone",), "")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (-5, "0 s"),
        (59, "59 s"),
        (61, "1 min 1 s"),
        (7800, "2 h 10 min"),
        (3600, "1 h"),
        (90061, "1 d 1 h"),
    ],
)
def test_spans(seconds: float, words: str) -> None:
    assert span(seconds) == words


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://ci.example.com/acme/web/42?x=1#y", "https://ci.example.com/acme/web/42?x=1#y"),
        ("http://[::1]:8000/a%20b", "http://[::1]:8000/a%20b"),
        ("https://ci/a(b)|c<d>`e`*'\"", "https://ci/a%28b%29%7Cc%3Cd%3E%60e%60%2A%27%22"),
        ("https://ci/ä", "https://ci/%C3%A4"),
        ("https://ci/100%/%zz%2f", "https://ci/100%25/%25zz%2f"),
        ("javascript:alert(1)", ""),
        ("https://user:pass@ci/", ""),
        ("https://ci\u202e/", ""),
        ("https://ci/\u200bx", ""),
        ("https://ci/\nx", ""),
        ("https://c<i/", ""),
        ("https://[ci/", ""),
        ("//ci/x", ""),
        ("", ""),
        ("https://ci/" + "x" * 1000, ""),
    ],
)
def test_links(address: str, expected: str) -> None:
    assert link(address) == expected


def assert_seen(text: str) -> None:
    """Every character of it can be seen, and none of them turns the others round."""
    for character in text.replace("\n", ""):
        assert unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}, repr(character)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("kind", Kind)
def test_hostile_texts_lose_what_no_reader_sees(kind: Kind, text: str) -> None:
    for short in (False, True):
        message = compose(hostile(text, kind=kind), short=short)
        for part in (message.title, *message.lines, *(word for fact in message.facts for word in fact)):
            assert_seen(part)
            assert "\n" not in part
        assert_seen(message.excerpt)


@given(TEXT, st.integers(0, 50))
def test_one_line_is_one_line(text: str, longest: int) -> None:
    line = one_line(text, longest)
    assert_seen(line)
    assert "\n" not in line
    assert len(line) <= longest
    assert one_line(line, longest) == line


@given(TEXT, st.integers(0, 50))
def test_lines_keep_their_limit(text: str, longest: int) -> None:
    lines = many_lines(text, longest)
    assert_seen(lines)
    assert len(lines) <= longest


@given(st.text(st.characters(codec="utf-8")), st.integers(0, 60))
def test_cutting_keeps_whole_characters(text: str, longest: int) -> None:
    by_bytes, by_characters = cut_bytes(text, longest), cut(text, longest)
    assert size(by_bytes) <= longest
    assert len(by_characters) <= longest
    for part in (by_bytes, by_characters):
        assert part == text or not part or (part.endswith("…") and text.startswith(part[:-1]))


@given(st.text(st.characters(codec="utf-8") | st.sampled_from("<>&")), st.integers(1, 60))
def test_escaping_cuts_between_characters(text: str, longest: int) -> None:
    part = escaped(text, longest, lambda character: ENTITIES.get(character, character))
    assert len(part) <= longest
    assert not set(part) & set("<>")
    back = part.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    assert back == text or (back.endswith("…") and text.startswith(back[:-1]))


@given(TEXT)
def test_unlinked_text_calls_nobody(text: str) -> None:
    dead = unlinked(one_line(text, 300))
    assert "://" not in dead
    assert not re.search(r"(^|[^\w.+-])@\S", dead)


@given(TEXT, TEXT, st.integers(2048, 4000))
def test_a_fitted_text_keeps_its_limit_and_its_link(title: str, excerpt: str, longest: int) -> None:
    sent = notice(build=build(step=title, title=title, author=title), excerpt=excerpt * 30, branch=title)
    message = compose(sent)
    text = fitted(message, longest)
    assert size(text) <= longest
    assert message.link in text.split("\n")
    assert size(below(message, longest // 2)) <= longest // 2


def test_the_longest_title_leaves_room_for_the_longest_link() -> None:
    wide = "\U0001f600" * 500
    address = "https://ci.example.com/" + "x" * 977
    message = compose(notice(build=build(url=address, step=wide), repo=wide, branch=wide))
    text = fitted(message, 2048)
    assert len(address) == 1000
    assert address in text.split("\n")
    assert size(text) <= 2048


def test_a_time_that_is_none_is_no_fault() -> None:
    message = compose(replace(notice(), since=10**30))
    assert message.facts[0][1].startswith("an unknown time")

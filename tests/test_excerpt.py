"""What an excerpt shows of logs that real tools wrote, and of logs that were written to do harm."""

import re
from pathlib import Path
from typing import Any

import pytest
import regex
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.notify.excerpt import LONGEST_LINE, MOST_BYTES, MOST_LINES, excerpt, failing_part
from exporter.notify.excerpt_lines import INVISIBLE, LONGEST, MOST, plain
from exporter.notify.redact import MARK, Redactor
from exporter.servers import Line
from exporter.servers.operations import lines

LOGS = Path(__file__).parent / "data/logs"
CAUSES: dict[str, dict[str, Any]] = yaml.safe_load((LOGS / "causes.yaml").read_text(encoding="utf-8"))
ENOUGH = 0.85
HIDE = Redactor()
TOKEN = "ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a"


def log(*texts: str) -> list[Line]:
    return [Line(text) for text in texts]


def read(kind: str, name: str) -> list[Line]:
    return lines((LOGS / kind / f"{name}.log").read_bytes().decode("utf-8", "replace"))


@pytest.mark.parametrize("kind", CAUSES)
def test_excerpts_hold_the_line_that_explains_the_failure(kind: str) -> None:
    missed = [
        name
        for name, case in CAUSES[kind].items()
        if case["cause"] not in excerpt(read(kind, name), HIDE, exit_code=case["exit"])
    ]
    assert len(missed) <= (1 - ENOUGH) * len(CAUSES[kind]), missed


def test_the_corpus_is_whole() -> None:
    for kind, cases in CAUSES.items():
        assert {path.stem for path in (LOGS / kind).glob("*.log")} == set(cases)
        for name, case in cases.items():
            whole = "\n".join(plain(read(kind, name)))
            assert case["cause"] in whole, f"{kind}/{name}"
            assert HIDE(whole) == whole, f"{kind}/{name}: an invented secret, or a rule that sees too much"
    assert sum(map(len, CAUSES.values())) >= 20


MAKE = log(
    *(f"cc -c part{n}.c" for n in range(40)),
    "part40.c:3:1: error: expected ';'",
    *(f"cc -c part{n}.c" for n in range(41, 80)),
    "make: *** [all] Error 1",
)


def test_it_is_the_first_error_and_the_end() -> None:
    assert excerpt(MAKE, HIDE, exit_code=2).splitlines() == [
        "cc -c part38.c",
        "cc -c part39.c",
        "part40.c:3:1: error: expected ';'",
        *(f"cc -c part{n}.c" for n in range(41, 47)),
        "… 30 lines left out",
        "cc -c part77.c",
        "cc -c part78.c",
        "cc -c part79.c",
        "make: *** [all] Error 1",
        "exit code 2",
    ]


def test_a_log_without_errors_is_its_end() -> None:
    texts = [f"line {n}" for n in range(40)]
    assert excerpt(log(*texts), HIDE).splitlines() == texts[-MOST_LINES:]
    assert excerpt(log(*texts, "exit code 3"), HIDE, exit_code=3).splitlines()[-2:] == [
        "line 39",
        "exit code 3",
    ]
    for nothing in ((), ("", " ", "-----")):
        assert excerpt(log(*nothing), HIDE, exit_code=1) == ""


@pytest.mark.parametrize(
    "texts",
    [
        (
            "+ make || echo error: x",
            "warning: error: y",
            "0 errors, 0 failures",
            "ok 1 - error: z",
            "broken: pipe",
        ),
        ("fatal: [web]: FAILED! => no file", "...ignoring", "broken: pipe"),
        ("attempt 1 of 3: error: no answer", "retrying after error: no answer", "broken: pipe"),
    ],
)
def test_what_is_no_error_is_none(texts: tuple[str, ...]) -> None:
    fill = [f"line {n}" for n in range(60)]
    shown = excerpt(log(*texts[:-1], *fill, f"error: {texts[-1]}", *fill), HIDE)
    assert texts[-1] in shown
    assert texts[0] not in shown


def test_tests_that_fail_come_before_errors_in_the_log_of_good_ones() -> None:
    fill = [f"line {n}" for n in range(60)]
    shown = excerpt(log("db.Error: lost the connection", *fill, "E   assert 1 == 2", *fill), HIDE)
    assert "E   assert 1 == 2" in shown
    assert "db.Error" not in shown


def test_patterns_of_the_configuration_come_first_and_cannot_stop_it() -> None:
    texts = ("error: first", *(f"line {n}" for n in range(60)), "OOPS 42", *(f"line {n}" for n in range(60)))
    assert "OOPS 42" in excerpt(log(*texts), HIDE, patterns=[regex.compile(r"^OOPS \d")])
    assert "error: first" in excerpt(log(*texts), HIDE, patterns=[regex.compile("never")])
    hostile = log("error: first", "y" + "x" * 80)
    assert "error: first" in excerpt(hostile, HIDE, patterns=[regex.compile(r"(x|xx)+y")])


@pytest.mark.parametrize(
    "hidden",
    [
        f"{TOKEN[:9]}\x1b[31m{TOKEN[9:]}\x1b[0m",
        f"{TOKEN[:9]}\x1b]8;;https://example.com\x07{TOKEN[9:]}",
        f"{TOKEN[:9]}\u200b{TOKEN[9:]}",
        f"{TOKEN[:2]}\u202e{TOKEN[2:20]}\0{TOKEN[20:]}",
        f"{TOKEN[:9]}x\b{TOKEN[9:]}",
        f"{TOKEN[:9]}\xad{TOKEN[9:]}",
        f"50%\r{TOKEN}",
    ],
)
def test_secrets_are_found_behind_what_is_not_shown(hidden: str) -> None:
    assert excerpt(log(f"error: pushing with {hidden} failed"), HIDE).startswith(
        "error: pushing with" if "\r" not in hidden else MARK
    )
    shown = excerpt(log(f"error: pushing with {hidden} failed"), HIDE)
    assert MARK in shown
    assert TOKEN[20:30] not in shown


def test_secrets_are_gone_before_lines_are_cut() -> None:
    at_the_cut = "error: " + "x" * (LONGEST_LINE - 90) + f" {TOKEN} " + "y" * 200
    assert not re.search(TOKEN[:8], excerpt(log(at_the_cut), HIDE))
    key = ["-----BEGIN PRIVATE KEY-----", *["Ab3" * 21 + "+"] * 20, "-----END PRIVATE KEY-----"]
    shown = excerpt(log("error: bad key", *key, *(f"line {n}" for n in range(9))), HIDE)
    assert "Ab3" not in shown
    assert "line 8" in shown


def test_secrets_at_the_ends_of_what_is_looked_at_are_not_left_in_half() -> None:
    known = Redactor(["correct-horse-battery"])
    half = LONGEST // 2
    for before in range(half - 40, half + 40, 3):
        text = "error: " + "x" * (before - 8) + " correct-horse-battery " + "y" * (2 * LONGEST)
        assert "horse" not in "\n".join(plain(log(known(text))))
        cut = known("\n".join(plain(log(text))))
        assert not re.search("correct-h|battery", cut)


def test_a_long_log_is_its_two_ends() -> None:
    middle = [f"{n:07} " + "z" * 92 for n in range(2 * MOST // 100)]
    shown = plain(log("error: at the beginning", *middle, "the end"))
    assert sum(map(len, shown)) <= MOST
    assert "error: at the beginning" in excerpt(log("error: at the beginning", *middle, "the end"), HIDE)
    missing = next(line for line in shown if "left out" in line)
    assert int(missing.split()[1]) == len(middle) + 2 - (len(shown) - 1)
    one = plain(log("word " + "x" * (3 * MOST) + " last words"))
    assert one == ["word … last words"]


def test_progress_is_what_it_said_last() -> None:
    assert plain(
        log("0%\r50%\r100%\r", "\x1b[2K\rdone\r\x1b[K", "a\tb", "\x1b[1mbold\x1b[0m \x9b31mred")
    ) == [
        "100%",
        "done",
        "a\tb",
        "bold red",
    ]


def test_the_step_that_failed_is_taken_from_the_log_of_a_job() -> None:
    clone = [Line("error: hint of git", step="clone"), Line("exit code 0", step="clone")]
    broken = [Line("cc: broken", step="build"), Line("exit code 2", step="build")]
    notify = [Line("error: no such channel", step="notify"), Line("exit code 0", step="notify")]
    assert failing_part([*clone, *broken, *notify]) == broken
    assert failing_part([*clone, broken[0]]) == [broken[0]], "the last step before an abort has no exit code"
    assert failing_part([*clone, *notify]) == [*clone, *notify]
    files = [Line("a", step="build.log"), Line("b", step="root.log")]
    assert failing_part(files) == files


def test_an_excerpt_of_wide_characters_keeps_what_tells_most() -> None:
    wide = [f"行{n}" + "测" * 190 for n in range(40)]
    shown = excerpt(log(*wide[:20], "error: 坏" + "测" * 150, *wide[20:]), HIDE, exit_code=1)
    assert len(shown.encode()) <= MOST_BYTES
    assert "error: 坏" in shown
    assert shown.endswith("exit code 1")


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.text(max_size=400) | st.sampled_from(["error: x", "\x1b[31mFAIL\x1b", "\U000e0041" * 9]),
        max_size=60,
    ),
    st.integers(0, 300),
)
def test_whatever_a_log_holds_the_excerpt_is_small_and_visible(texts: list[str], code: int) -> None:
    shown = excerpt(log(*texts), HIDE, exit_code=code)
    rows = shown.split("\n")
    assert len(rows) <= MOST_LINES
    assert len(shown.encode()) <= MOST_BYTES
    assert all(len(row) <= LONGEST_LINE for row in rows)
    assert not INVISIBLE.search(shown)

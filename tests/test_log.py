"""A log line is one line, whatever a server sent, and holds no secret."""

import io
import json
import logging
import re
import shlex
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.log import LONGEST, LineFormatter, logger, setup

SECRET = "tok/en+1"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where lines go; logging is as before afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield io.StringIO()
    root.handlers[:], root.level = handlers, level


def formatted(form: str, message: str, **fields: object) -> str:
    record = logging.makeLogRecord(
        {"name": "exporter.watch", "levelname": "INFO", "msg": message, "created": 0.5}
    )
    record.fields = fields
    return LineFormatter("json" if form == "json" else "logfmt", [SECRET], tracebacks=False).format(record)


def test_a_line_has_time_level_message_and_fields_in_order(stream: io.StringIO) -> None:
    setup("info", "logfmt", [], stream)
    logger("exporter.watch", server="drone").bind(repo="acme/app").info(
        "import finished", builds=1200, seconds=1.23456, whole=True, nothing=None, odd=float("nan")
    )
    time, _, rest = stream.getvalue().partition(" ")
    assert re.fullmatch(r"time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time)
    assert rest == (
        'level=info msg="import finished" server=drone repo=acme/app builds=1200 seconds=1.235 '
        "whole=true odd=nan\n"
    )


def test_json_keeps_numbers(stream: io.StringIO) -> None:
    setup("info", "json", [], stream)
    logger("exporter.watch").warning("slow", seconds=1.5, repos=("a/b", "c/d"), odd=float("inf"), empty="")
    line = json.loads(stream.getvalue())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "level": "warning", "msg": "slow", "seconds": 1.5, "repos": "a/b, c/d", "odd": "inf", "empty": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain/value-1.0", "plain/value-1.0"),
        ("Ветка", "Ветка"),
        ("", '""'),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ('say "hi"', r'"say \"hi\""'),
        ("back\\slash", r'"back\\slash"'),
        ("line\nlevel=error", r'"line\nlevel=error"'),
        ("\x1b[31m", r'"\u001b[31m"'),
        ("\x85\u2028\u202e\u200b\x7f", r'"\u0085\u2028\u202e\u200b\u007f"'),
        ("\ud800", r'"\ud800"'),
    ],
)
def test_text_of_a_server_stays_in_its_value(value: str, shown: str) -> None:
    assert formatted("logfmt", "read", branch=value) == (
        f"time=1970-01-01T00:00:00.500Z level=info msg=read branch={shown}"
    )


@given(st.text(), st.text())
def test_any_text_makes_one_line_that_says_the_same(message: str, value: str) -> None:
    line = formatted("json", message, branch=value)
    assert line.isascii()
    assert "\n" not in line
    hidden = {SECRET: "<secret>"}
    assert [json.loads(line)[key] for key in ("msg", "branch")] == [
        hidden.get(t, t) for t in (message, value)
    ]
    assert formatted("logfmt", message, branch=value).isprintable()


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="'")))
def test_logfmt_is_split_again_as_it_was_written(value: str) -> None:
    assert shlex.split(formatted("logfmt", "read", branch=value))[3] == f"branch={value}"


@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_secrets_are_replaced_everywhere(stream: io.StringIO, form: str) -> None:
    setup("debug", "json" if form == "json" else "logfmt", [SECRET, f"{SECRET}-longer", ""], stream)
    log = logger("exporter.http", url=f"http://x/?token={SECRET}")
    log.info(f"asked with {SECRET}", encoded="a tok%2Fen%2B1 b", longer=f"{SECRET}-longer", many=[SECRET])
    logging.getLogger("urllib3").warning("retry %s", SECRET)
    try:
        raise OSError(f"no route with {SECRET}")
    except OSError:
        log.exception("failed")
    text = stream.getvalue()
    assert SECRET not in text
    assert "tok%2Fen" not in text
    assert "longer=<secret>" in text or '"longer": "<secret>"' in text
    assert text.count("<secret>") >= 8


def test_an_exception_is_one_line_with_its_place(stream: io.StringIO) -> None:
    setup("info", "logfmt", [], stream)
    log = logger("exporter.watch")
    try:
        json.loads("{")
    except ValueError:
        log.exception("failed")
    log.error("again", exc_info=ZeroDivisionError())
    first, second = stream.getvalue().splitlines()
    assert re.search(r' msg=failed error="JSONDecodeError: .+" at=json/decoder\.py:\d+$', first)
    assert second.endswith(" msg=again error=ZeroDivisionError")


def test_debug_adds_the_traceback_in_the_same_line(stream: io.StringIO) -> None:
    setup("debug", "logfmt", [], stream)
    try:
        json.loads("{")
    except ValueError:
        logger("exporter.watch").exception("failed")
    (line,) = stream.getvalue().splitlines()
    assert r' traceback="Traceback (most recent call last):\n' in line


def test_a_long_value_is_cut_but_its_length_told() -> None:
    line = formatted("logfmt", "read", body="x" * 10_000_000)
    assert line.endswith('x… (10000000 characters)"')
    assert len(line) < LONGEST + 100


def test_a_field_cannot_take_the_place_of_another() -> None:
    assert json.loads(formatted("json", "read", level="fatal", time="never"))["level"] == "info"
    assert json.loads(formatted("json", "read", level="fatal"))["level_"] == "fatal"


def test_libraries_speak_up_only_to_warn(stream: io.StringIO) -> None:
    setup("debug", "logfmt", [], stream)
    # Modules whose own level nothing in this process sets.
    for name in ("apscheduler.any", "urllib3.any", "uvicorn.any", "alembic.any"):
        logging.getLogger(name).info("chatter")
        logging.getLogger(name).warning("trouble")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[0].endswith("level=warning msg=trouble logger=apscheduler.any")


def test_a_second_setup_replaces_the_first(stream: io.StringIO) -> None:
    setup("info", "logfmt", [], stream)
    setup("error", "json", [], stream)
    logger("exporter.watch").info("quiet")
    logger("exporter.watch").error("loud")
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["msg"] == "loud"


def test_standard_error_is_the_default(stream: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    setup("info", "logfmt", [])
    logging.getLogger("exporter.watch").info("%d repos", 3, extra={"fields": {"server": "drone"}})
    assert capsys.readouterr().err.endswith('level=info msg="3 repos" server=drone\n')

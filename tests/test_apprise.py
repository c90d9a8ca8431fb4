"""Apprise, sending to a real web server on loopback."""

import io
import logging

import pytest
from receiver import HOSTILE, INVISIBLE, KEY, Case, build, hostile, notice, receiving, settings

from exporter import log
from exporter.notify.channels import open_target
from exporter.notify.notice import Kind
from exporter.notify.targets import Result, Target

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")


def opened(url: str, **more: object) -> Target:
    """A target whose JSON Apprise posts to the receiver."""
    address = url.replace("http://", "json://") + f"/{KEY}"
    return open_target(settings("apprise", "", url=address, **more))


def test_a_message_arrives_once_as_text() -> None:
    with receiving() as receiver:
        target = opened(receiver.url)
        assert target.send(notice(kind=Kind.RESOLVED, failures=3)).result is Result.OK
        (got,) = receiver.got
        assert got.path == f"/{KEY}"
        assert got.json["title"] == "acme/web main is green again: #42, after 2 h 10 min and 3 failures"
        assert got.json["type"] == "success"
        assert got.json["message"].splitlines()[0] == "https://ci.example.com/acme/web/42"
        assert "AssertionError" in got.json["message"]
        shown = target.preview(notice(kind=Kind.RESOLVED, failures=3))
        assert shown == f"{got.json['title']}\n\n{got.json['message']}"


@pytest.mark.parametrize("case", [Case(500), Case(404), Case(429), Case(does="reset"), Case(does="hang")])
def test_what_fails_is_tried_again_by_the_outbox_alone(case: Case) -> None:
    with receiving() as receiver:
        receiver.answer(case)
        target = opened(f"{receiver.url}", timeout=0.5)
        outcome = target.send(notice())
        receiver.done.set()
    assert (outcome.result, len(receiver.got)) == (Result.RETRY, 1)
    assert KEY not in f"{outcome!r} {target!r}"


def test_retries_in_the_url_are_not_done_and_redirects_not_followed() -> None:
    with receiving() as receiver:
        receiver.answer(Case(307, headers={"Location": f"{receiver.url}/elsewhere"}))
        url = receiver.url.replace("http://", "json://") + f"/{KEY}?retry=3&wait=0&redirect=yes"
        target = open_target(settings("apprise", "", url=url))
        assert target.send(notice()).result is Result.RETRY
        assert len(receiver.got) == 1


@pytest.mark.parametrize("url", [f"nosuch://{KEY}", f"json://:{KEY}@", "json://"])
def test_an_url_that_apprise_does_not_know_pauses(url: str) -> None:
    target = open_target(settings("apprise", "", url=url))
    outcome = target.send(notice())
    assert outcome.result is Result.PAUSE
    assert KEY not in f"{outcome!r}"


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_dead(text: str) -> None:
    with receiving() as receiver:
        target = opened(receiver.url)
        for kind in Kind:
            assert target.send(hostile(text, kind=kind)).result is Result.OK
        for got in receiver.got:
            first, _, rest = got.json["message"].partition("\n")
            if not first.startswith("https://ci.example.com/"):
                rest = got.json["message"]
            for shown in (got.json["title"], rest):
                assert not set(shown) & set(INVISIBLE)
                assert not set(shown.replace("[:]", "")) & set("<>`*~")
                assert "](" not in shown
                assert "://" not in shown
                assert " @" not in shown


def test_a_huge_message_keeps_its_link() -> None:
    with receiving() as receiver:
        huge = "日本語<&" * 50_000
        link = "https://ci.example.com/" + "x" * 900
        sent = notice(build=build(url=link, title=huge), excerpt=huge, branch=huge)
        assert opened(receiver.url).send(sent).result is Result.OK
        assert receiver.got[0].json["message"].splitlines()[0] == link


def test_a_closed_target_sends_nothing() -> None:
    with receiving() as receiver:
        target = opened(receiver.url)
        target.close()
        assert target.send(notice()).result is Result.RETRY
        assert receiver.got == []


def test_logs_are_told_no_secret() -> None:
    stream = io.StringIO()
    with receiving() as receiver:
        receiver.answer(Case(404, KEY))
        given = settings("apprise", "", url=receiver.url.replace("http://", "json://") + f"/{KEY}")
        log.setup("debug", "logfmt", given.secrets, stream)
        logging.getLogger("apprise").setLevel(logging.DEBUG)
        try:
            open_target(given).send(notice())
        finally:
            root = logging.getLogger()
            for handler in [h for h in root.handlers if isinstance(h.formatter, log.LineFormatter)]:
                root.removeHandler(handler)
            root.setLevel(logging.WARNING)
            logging.getLogger("apprise").setLevel(logging.WARNING)
    assert "apprise" in stream.getvalue()
    assert KEY not in stream.getvalue()

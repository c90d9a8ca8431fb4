"""Every target over HTTP: what each answer means, that no secret is told, that hostile text is dead."""

import base64
import hashlib
import hmac
import io
import json
import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import trustme
from receiver import (
    GOOD,
    HOSTILE,
    HTTP,
    INVISIBLE,
    KEY,
    Case,
    Receiver,
    build,
    hostile,
    notice,
    receiving,
    settings,
    target,
)

from exporter import log
from exporter.notify.channels import open_target
from exporter.notify.dingtalk import sign as dingtalk_sign
from exporter.notify.feishu import sign as feishu_sign
from exporter.notify.notice import Kind
from exporter.notify.targets import Outcome, Result
from exporter.notify.webhook import signature

OK, RETRY, PERMANENT = Result.OK, Result.RETRY, Result.PERMANENT
AMBIGUOUS, PAUSE, TOO_LARGE = Result.AMBIGUOUS, Result.PAUSE, Result.TOO_LARGE
DATE = {"Date": "Tue, 24 Nov 2026 19:00:00 GMT"}
LONG = "1" * 400
CODED = ("bot", "dingtalk", "wecom", "feishu", "lark")
ROBOTS = ("feishu", "lark")

ANSWERS: list[tuple[tuple[str, ...], Case, Result, float | None]] = [
    # What HTTP says, whoever it is.
    (HTTP, Case(201), OK, None),
    (HTTP, Case(302, headers={"Location": f"https://elsewhere.example/{KEY}"}), PAUSE, None),
    (HTTP, Case(400, "no"), PERMANENT, None),
    (HTTP, Case(401, {"error": KEY}), PAUSE, None),
    (HTTP, Case(403, f"<html>{KEY}</html>"), PAUSE, None),
    (HTTP, Case(404, f"no route {KEY}"), PAUSE, None),
    (HTTP, Case(407), PAUSE, None),
    (HTTP, Case(408), RETRY, None),
    (HTTP, Case(409), PERMANENT, None),
    (HTTP, Case(413), TOO_LARGE, None),
    (HTTP, Case(422, {"message": f"bad {KEY}"}), PERMANENT, None),
    (HTTP, Case(425), RETRY, None),
    (HTTP, Case(429), RETRY, None),
    (HTTP, Case(429, headers={"Retry-After": "7"}), RETRY, 7),
    (HTTP, Case(429, headers={"Retry-After": "Tue, 24 Nov 2026 19:00:09 GMT"} | DATE), RETRY, 9),
    (HTTP, Case(429, headers={"Retry-After": "Tue, 24 Nov 2026 18:00:00 GMT"} | DATE), RETRY, 0),
    (HTTP, Case(429, headers={"Retry-After": LONG}), RETRY, 3600),
    (HTTP, Case(503, headers={"Retry-After": "86400"}), RETRY, 3600),
    (HTTP, Case(429, headers={"Retry-After": "-5"}), RETRY, None),
    (HTTP, Case(429, headers={"Retry-After": "soon"}), RETRY, None),
    (HTTP, Case(429, {"retry_after": 1.5}), RETRY, 1.5),
    (HTTP, Case(429, {"parameters": {"retry_after": 30}}), RETRY, 30),
    (HTTP, Case(429, {"retry_after": 99999}), RETRY, 3600),
    (HTTP, Case(429, {"retry_after": True}), RETRY, None),
    (HTTP, Case(429, {"retry_after": -1}), RETRY, None),
    (HTTP, Case(429, '{"retry_after": NaN}'), RETRY, None),
    (HTTP, Case(429, "[" * 50_000), RETRY, None),
    (HTTP, Case(500), RETRY, None),
    (HTTP, Case(502, "x" * 300_000), RETRY, None),
    (HTTP, Case(504), RETRY, None),
    (HTTP, Case(does="hang"), AMBIGUOUS, None),
    (HTTP, Case(does="reset"), AMBIGUOUS, None),
    # A status without the body that goes with it.
    (("webhook", "slack"), Case(does="half"), OK, None),
    (CODED, Case(does="half"), AMBIGUOUS, None),
    (CODED, Case(200, "<html>a login page</html>"), AMBIGUOUS, None),
    (CODED, Case(200, {"unknown": 1}), AMBIGUOUS, None),
    (CODED, Case(200, []), AMBIGUOUS, None),
    # Slack's words.
    (("slack",), Case(400, "invalid_payload"), PERMANENT, None),
    (("slack",), Case(403, "invalid_token"), PAUSE, None),
    (("slack",), Case(404, "no_service"), PAUSE, None),
    (("slack",), Case(410, "channel_is_archived"), PAUSE, None),
    (("slack",), Case(400, "msg_too_long"), TOO_LARGE, None),
    (("slack",), Case(500, "rollup_error"), RETRY, None),
    (("bot",), Case(200, {"ok": False, "error": "invalid_auth"}), PAUSE, None),
    (("bot",), Case(200, {"ok": False, "error": "not_in_channel"}), PAUSE, None),
    (("bot",), Case(200, {"ok": False, "error": "msg_too_long"}), TOO_LARGE, None),
    (("bot",), Case(200, {"ok": False, "error": "ratelimited"}), RETRY, None),
    (("bot",), Case(200, {"ok": False, "error": "internal_error"}), AMBIGUOUS, None),
    (("bot",), Case(200, {"ok": False, "error": "invalid_blocks"}), PERMANENT, None),
    (("bot",), Case(200, {"ok": False}), AMBIGUOUS, None),
    (("bot",), Case(429, {"ok": False, "error": "ratelimited"}, {"Retry-After": "30"}), RETRY, 30),
    # Refusals with a status of 200.
    (("dingtalk",), Case(200, {"errcode": -1, "errmsg": "busy"}), RETRY, None),
    (("dingtalk",), Case(200, {"errcode": 310000, "errmsg": f"sign not match {KEY}"}), PAUSE, None),
    (("dingtalk",), Case(200, {"errcode": 130101, "errmsg": "send too fast"}), RETRY, 600),
    (("dingtalk",), Case(200, {"errcode": 460101, "errmsg": "too long"}), TOO_LARGE, None),
    (("dingtalk",), Case(200, {"errcode": 430104, "errmsg": "refused content"}), PERMANENT, None),
    (("wecom",), Case(200, {"errcode": 45009, "errmsg": "api freq out of limit"}), RETRY, 60),
    (("wecom",), Case(200, {"errcode": 45009, "errmsg": "x"}, {"Retry-After": "5"}), RETRY, 5),
    (("wecom",), Case(200, {"errcode": 40058, "errmsg": "exceed max length"}), TOO_LARGE, None),
    (("wecom",), Case(200, {"errcode": 93000, "errmsg": "invalid webhook url"}), PAUSE, None),
    (("wecom",), Case(200, {"errcode": 40008, "errmsg": "invalid message type"}), PERMANENT, None),
    (ROBOTS, Case(200, {"code": 9499, "msg": "Bad Request"}), TOO_LARGE, None),
    (ROBOTS, Case(200, {"code": 9499, "msg": "too many request"}), RETRY, 60),
    (ROBOTS, Case(400, {"code": 9499, "msg": "Bad Request"}), TOO_LARGE, None),
    (ROBOTS, Case(200, {"code": 19021, "msg": "sign match fail"}), PAUSE, None),
    (ROBOTS, Case(200, {"code": 19024, "msg": "Key Words Not Found"}), PAUSE, None),
    (ROBOTS, Case(200, {"code": 11232, "msg": "frequency limited"}), RETRY, 60),
    (ROBOTS, Case(200, {"code": 19002, "msg": "params error"}), PERMANENT, None),
]
"""What an answer means to the kinds of targets named before it, and after how many seconds to come back."""
TABLE = [
    pytest.param(kind, case, result, wait, id=f"{kind}-{number}-{case.does or case.status}")
    for number, (kinds, case, result, wait) in enumerate(ANSWERS)
    for kind in kinds
]


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """All that is logged meanwhile, without the formatter that would hide secrets."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(message)s %(fields)s", defaults={"fields": ""}))
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.mark.parametrize(("kind", "case", "result", "wait"), TABLE)
def test_what_an_answer_means(
    kind: str, case: Case, result: Result, wait: float | None, receiver: Receiver
) -> None:
    given = settings(kind, receiver.url, timeout=0.3 if case.does == "hang" else 3)
    body = GOOD[kind] if case.status == 201 else case.body
    if KEY in str(body):
        said = json.dumps(body) if isinstance(body, dict) else str(body)
        body = said.replace(KEY, " ".join(given.secrets))
    receiver.answer(replace(case, body=body))
    opened = open_target(given)
    outcome = opened.send(notice())
    opened.close()
    assert (outcome.result, outcome.retry_after) == (result, wait)
    assert len(receiver.got) == 1
    assert bool(outcome.detail) == (result is not OK)
    assert len(outcome.detail) <= 200
    assert KEY not in f"{outcome!r} {opened!r} {given!r} {vars(opened).get('post')!r}"


@pytest.mark.parametrize("kind", HTTP)
def test_good_messages_are_taken(kind: str, receiver: Receiver) -> None:
    receiver.answer(Case(200, GOOD[kind]))
    opened = target(kind, receiver.url)
    assert opened.send(notice()).result is OK
    assert opened.send(notice(), short=True).result is OK
    opened.close()
    whole, short = receiver.got
    assert "AssertionError" in whole.body.decode()
    assert "AssertionError" not in short.body.decode()
    assert all("https://ci.example.com/acme/web/42" in got.body.decode() for got in receiver.got)


@pytest.mark.parametrize("kind", HTTP)
def test_what_was_not_sent_is_sent_again(kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}", "http://no-such-host.invalid", f"https://127.0.0.1:{port}"):
        opened = target(kind, url)
        outcome = opened.send(notice())
        opened.close()
        assert outcome.result is RETRY
        assert outcome.detail.startswith("not sent: ")
        assert KEY not in outcome.detail


@pytest.mark.parametrize("kind", HTTP)
def test_a_preview_is_what_is_sent_but_signatures(kind: str, receiver: Receiver) -> None:
    receiver.answer(Case(200, GOOD[kind]))
    opened = target(kind, receiver.url)
    for short in (False, True):
        shown = opened.preview(notice(), short=short)
        opened.send(notice(), short=short)
        sent = {
            key: value for key, value in receiver.got[-1].json.items() if key not in {"timestamp", "sign"}
        }
        assert json.loads(shown) == sent
        assert KEY not in shown
    opened.close()


def test_a_connection_that_was_closed_meanwhile_costs_nothing(receiver: Receiver) -> None:
    receiver.answer(Case(200, does="leave"))
    opened = target("webhook", receiver.url)
    outcomes = []
    for _ in range(3):
        outcomes.append(opened.send(notice()).result)
        time.sleep(0.05)
    opened.close()
    assert (outcomes, len(receiver.got)) == ([OK] * 3, 3)


def test_a_certificate_that_is_not_trusted_gets_nothing(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    with receiving() as receiver:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("127.0.0.1").configure_cert(context)
        server = receiver._server
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        url = receiver.url.replace("http:", "https:")
        stranger = target("webhook", url)
        outcome = stranger.send(notice())
        stranger.close()
        assert (outcome.result, receiver.got) == (RETRY, [])
        assert "ca_file" in outcome.detail
        friend = target("webhook", url, ca_file=str(tmp_path / "ca.pem"))
        assert friend.send(notice()).result is OK
        friend.close()


def test_a_proxy_is_used_and_the_environments_is_not(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    receiver.answer(Case(200))
    direct = target("webhook", receiver.url)
    assert direct.send(notice()).result is OK
    direct.close()
    proxied = target("webhook", "http://far.example", proxy=receiver.url)
    assert proxied.send(notice()).result is OK
    proxied.close()
    assert receiver.got[1].path.startswith("http://far.example/hooks/")


def test_closing_ends_what_waits(receiver: Receiver) -> None:
    receiver.answer(Case(does="hang"))
    opened = target("webhook", receiver.url, timeout=60)
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(opened.send(notice())))
    thread.start()
    while not receiver.got:
        time.sleep(0.01)
    began = time.monotonic()
    opened.close()
    thread.join(5)
    assert time.monotonic() - began < 2
    assert [outcome.result for outcome in outcomes] == [AMBIGUOUS]
    assert opened.send(notice()).result is RETRY


@pytest.mark.parametrize("kind", HTTP)
def test_logs_are_told_no_secret(kind: str, receiver: Receiver) -> None:
    """What the libraries log of an address is hidden by the formatter that knows the settings' secrets."""
    stream, given = io.StringIO(), settings(kind, receiver.url)
    log.setup("debug", "logfmt", given.secrets, stream)
    logging.getLogger("urllib3").setLevel(logging.DEBUG)
    try:
        receiver.answer(Case(404, " ".join(("no route to", *given.secrets))))
        opened = open_target(given)
        log.logger("exporter.notify").info("told", outcome=opened.send(notice()), target=opened)
        opened.close()
    finally:
        root = logging.getLogger()
        for handler in [h for h in root.handlers if isinstance(h.formatter, log.LineFormatter)]:
            root.removeHandler(handler)
        root.setLevel(logging.WARNING)
        logging.getLogger("urllib3").setLevel(logging.WARNING)
    assert "urllib3" in stream.getvalue()
    assert KEY not in stream.getvalue()


# What arrives of hostile text, read as each channel reads it.


def texts(value: object) -> Iterator[str]:
    """Every text in a JSON value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)


def assert_plain(text: str, link: str) -> None:
    """Nothing of it is a call or a link but the build's."""
    rest = text.replace(link, "") if link else text
    assert "://" not in rest
    assert not re.search(r"(?<![\w.+-])@\S", rest), rest
    assert "<@" not in rest


def assert_dead_slack(body: dict[str, Any]) -> None:
    assert body["mrkdwn"] is False
    assert not re.search(r"[<>]", body["text"])
    (title,), (attachment,) = body["blocks"], body["attachments"]
    for block in (title, *attachment["blocks"]):
        for part in (*block.get("fields", ()), *filter(None, [block.get("text")])):
            if part["type"] == "plain_text":
                assert part["emoji"] is False
                assert not re.search(r"[<>]", part["text"])
            elif part["text"].startswith("```"):
                assert part["verbatim"] is True
                assert re.fullmatch(r"```\n[^`<>]*\n```", part["text"])
            else:
                assert re.fullmatch(r"<https://ci\.example\.com/[^<>|\s]*\|Build #42>", part["text"])


def assert_dead(kind: str, body: dict[str, Any]) -> None:
    links = re.findall(r"^https://ci\.example\.com/\S*$", "\n".join(texts(body)), re.MULTILINE)
    link = links[0] if links else ""
    assert len(links) <= 1 or kind == "webhook"
    match kind:
        case "slack" | "bot":
            assert_dead_slack(body)
        case "dingtalk":
            assert (body["msgtype"], body["at"]) == (
                "text",
                {"atMobiles": [], "atUserIds": [], "isAtAll": False},
            )
            content = body["text"]["content"]
            assert_plain(content, link)
        case "wecom":
            content = body["text"]["content"]
            assert body["msgtype"] == "text"
            assert body["text"] == {"content": content, "mentioned_list": [], "mentioned_mobile_list": []}
            assert_plain(content, link)
        case "feishu" | "lark":
            tags = re.findall(r'"tag": "(\w+)"', json.dumps(body))
            assert set(tags) == {"div", "plain_text"} | ({"action", "button"} if link else set())
            for text in texts(body):
                assert_plain(text, link)
        case _:
            assert set(body) == DOCUMENT


DOCUMENT = {
    "version", "key", "thread", "kind", "state", "title", "facts", "lines", "excerpt", "link", "server",
    "repo", "branch", "event", "ref", "since", "failures", "first_number", "flaky", "mention", "at", "build",
}  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("kind", HTTP)
def test_hostile_text_is_dead(kind: str, text: str, receiver: Receiver) -> None:
    receiver.answer(Case(200, GOOD[kind]))
    opened = target(kind, receiver.url)
    for which in Kind:
        outcome = opened.send(hostile(text, kind=which))
        assert outcome.result is OK, outcome
    opened.close()
    for got in receiver.got:
        for shown in texts(got.json):
            assert not set(shown) & set(INVISIBLE), repr(shown)
            assert "\r" not in shown
        assert_dead(kind, got.json)
        assert all("\n" not in value and "\r" not in value for value in got.headers.values())


HUGE = '日本語<&>`*"\\' * 40_000


@pytest.mark.parametrize("kind", HTTP)
def test_huge_messages_fit_and_keep_their_link(kind: str, receiver: Receiver) -> None:
    receiver.answer(Case(200, GOOD[kind]))
    opened = target(kind, receiver.url)
    link = "https://ci.example.com/" + "x" * 900
    facts = build(author=HUGE, title=HUGE, step=HUGE, commit=HUGE, url=link)
    people = tuple(f"1380000{n:04}" for n in range(100))
    sent = notice(
        build=facts,
        excerpt=HUGE,
        excerpt_note=HUGE,
        repo=HUGE,
        branch=HUGE,
        lines=(HUGE,) * 100,
        mention=people,
    )
    for short in (False, True):
        assert opened.send(sent, short=short).result is OK
    opened.close()
    for got in receiver.got:
        body = got.json  # whole characters, or it would be no JSON
        assert link in got.body.decode()
        if kind == "dingtalk":
            assert len(got.body) <= 20_000
        if kind in {"feishu", "lark"}:
            assert len(got.body) <= 20 * 1024
        if kind == "wecom":
            assert len(body["text"]["content"].encode()) <= 2048
        if kind in {"slack", "bot"}:
            parts = list(texts([body["attachments"], body["blocks"]]))
            assert max(map(len, parts)) <= 3000
            assert not re.search(r"&(?!amp;|lt;|gt;)", body["text"] + "".join(parts))


# What is a channel's own.


def test_the_signature_of_a_webhook(receiver: Receiver) -> None:
    page = (Path(__file__).parent.parent / "docs" / "targets.md").read_text(encoding="utf-8")
    documented = re.search(r"`sha256=([0-9a-f]{64})`", page)
    assert documented
    vector = signature(b"bea26a2221fd8090ea38720fc445eca6", "1795600000", b'{"version":1,"kind":"test"}')
    assert vector == f"sha256={documented[1]}"

    receiver.answer(Case(200))
    opened = target("webhook", receiver.url)
    opened.send(notice())
    opened.close()
    (got,) = receiver.got
    stamp = got.headers["X-Build-Exporter-Timestamp"]
    assert abs(int(stamp) - time.time()) < 60
    expected = hmac.new(f"{KEY}-signs".encode(), f"{stamp}.".encode() + got.body, hashlib.sha256).hexdigest()
    assert got.headers["X-Build-Exporter-Signature"] == f"sha256={expected}"
    assert got.headers["Idempotency-Key"] == got.json["key"] == notice().key
    assert got.json["build"] == {
        "number": 42,
        "url": "https://ci.example.com/acme/web/42",
        "commit": "1a2b3c4d5e6f7a8b9c0d1a2b3c4d5e6f7a8b9c0d",
        "author": "ann",
        "title": "Parse dates without a zone",
        "status": "failure",
        "step": "test",
        "exit_code": 2,
        "duration": 200.0,
        "finished": 1_795_600_000,
    }
    assert (got.json["title"], got.json["state"]) == ("acme/web main #42 failed at step test (exit 2)", "bad")


def test_a_webhook_without_a_secret_is_not_signed(receiver: Receiver) -> None:
    receiver.answer(Case(200))
    opened = target("webhook", receiver.url, secret=None)
    opened.send(notice(build=None))
    opened.close()
    assert not [name for name in receiver.got[0].headers if name.startswith("X-")]
    assert receiver.got[0].json["build"] is None


def test_a_webhook_that_is_documented() -> None:
    page = (Path(__file__).parent.parent / "docs" / "targets.md").read_text(encoding="utf-8")
    table = page[page.index("| field | what it is |") : page.index("All texts are plain")]
    fields = [row.split("|")[1] for row in table.splitlines() if row]
    named = {word for field in fields for word in re.findall(r"`(\w+)`", field)}
    assert named == DOCUMENT


def test_the_signature_of_dingtalk(receiver: Receiver) -> None:
    receiver.answer(Case(200, GOOD["dingtalk"]))
    opened = target("dingtalk", receiver.url, keyword="build")
    opened.send(notice(mention=("13800000000", "user-1", "@all", "all", "<x>")))
    opened.close()
    (got,) = receiver.got
    query = parse_qs(urlsplit(got.path).query)
    assert query["access_token"] == [KEY]
    (stamp,), (sent,) = query["timestamp"], query["sign"]
    assert abs(int(stamp) / 1000 - time.time()) < 60
    key = f"SEC{KEY}"
    expected = hmac.new(key.encode(), f"{stamp}\n{key}".encode(), hashlib.sha256).digest()
    assert sent == base64.b64encode(expected).decode() == dingtalk_sign(stamp, key)
    assert got.json["text"]["content"].startswith("build\n")
    assert got.json["at"] == {"atMobiles": ["13800000000"], "atUserIds": ["user-1"], "isAtAll": False}


def test_the_signature_of_feishu(receiver: Receiver) -> None:
    receiver.answer(Case(200, GOOD["feishu"]))
    opened = target("feishu", receiver.url, keyword="build")
    opened.send(notice(kind=Kind.RESOLVED, mention=("ou_84aad35d084aa403", "all", "ou_x></at><at id=all")))
    opened.close()
    (got,) = receiver.got
    stamp, key = got.json["timestamp"], f"{KEY}-signs"
    assert abs(int(stamp) - time.time()) < 60
    expected = hmac.new(f"{stamp}\n{key}".encode(), digestmod=hashlib.sha256).digest()
    assert got.json["sign"] == base64.b64encode(expected).decode() == feishu_sign(stamp, key)
    card = got.json["card"]
    assert card["header"]["template"] == "green"
    assert "build" in json.dumps(card["elements"])
    parts = [element["text"] for element in card["elements"] if element["tag"] == "div"]
    calls = [part["content"] for part in parts if part["tag"] == "lark_md"]
    assert calls == ["<at id=ou_84aad35d084aa403></at>"]


def test_who_is_called_in_wecom_and_slack(receiver: Receiver) -> None:
    receiver.answer(Case(200, GOOD["wecom"]))
    opened = target("wecom", receiver.url)
    opened.send(notice(mention=("wangqing", "13800000000", "@all")))
    opened.close()
    text = receiver.got[0].json["text"]
    assert (text["mentioned_list"], text["mentioned_mobile_list"]) == (["wangqing"], ["13800000000"])
    receiver.answer(Case(200, "ok"))
    opened = target("slack", receiver.url)
    opened.send(notice(mention=("U012AB3CD", "S012", "!channel", "ann")))
    opened.close()
    title, calls = (block["text"]["text"] for block in receiver.got[0].json["blocks"])
    assert (
        title == receiver.got[0].json["text"] == "\U0001f534 acme/web main #42 failed at step test (exit 2)"
    )
    assert calls == "<@U012AB3CD> <!subteam^S012>"


def test_a_bot_writes_over_its_message(receiver: Receiver) -> None:
    gone = Case(200, {"ok": False, "error": "message_not_found"})
    receiver.answer(Case(200, GOOD["bot"]), Case(200, GOOD["bot"]), gone, Case(200, GOOD["bot"]))
    opened = target("bot", receiver.url)
    first = opened.send(notice())
    assert first.reference == "C0123456789:1503435956.000247"
    second = opened.send(notice(kind=Kind.RESOLVED), reference=first.reference)
    third = opened.send(notice(kind=Kind.RESOLVED), reference=first.reference)
    opened.close()
    assert (second.reference, third.reference) == (first.reference, first.reference)
    asked = [(got.path, got.json["channel"], got.json.get("ts")) for got in receiver.got]
    where = ("C0123456789", "1503435956.000247")
    assert asked == [
        ("/chat.postMessage", "C0123456789", None),
        ("/chat.update", *where),
        ("/chat.update", *where),
        ("/chat.postMessage", "C0123456789", None),
    ]
    assert {got.headers["Authorization"] for got in receiver.got} == {f"Bearer xoxb-{KEY}"}
    assert receiver.got[1].json["attachments"][0]["color"] == "#2eb67d"


def test_a_bot_keeps_no_reference_that_is_none(receiver: Receiver) -> None:
    receiver.answer(Case(200, {"ok": True, "channel": "C1:../x", "ts": 5}))
    opened = target("bot", receiver.url)
    assert opened.send(notice()) == Outcome(result=OK)
    opened.close()


def test_a_message_that_cannot_be_written_costs_itself(receiver: Receiver, lines: io.StringIO) -> None:
    receiver.answer(Case(200))
    opened = target("webhook", receiver.url)
    broken = replace(notice(), mention=None)  # type: ignore[arg-type]
    assert opened.send(broken) == Outcome(result=PERMANENT, detail="not written: TypeError")
    assert "a message could not be written" in lines.getvalue()
    assert opened.send(notice()).result is OK
    opened.close()


def test_rates_are_those_of_the_channels(receiver: Receiver) -> None:
    rates = {}
    for kind in HTTP:
        opened = target(kind, receiver.url)
        rates[kind] = [(rate.count, rate.seconds) for rate in opened.rate]
        opened.close()
    assert rates == {
        "webhook": [],
        "slack": [(1, 1)],
        "bot": [(1, 1)],
        "dingtalk": [(18, 60)],
        "wecom": [(18, 60)],
        "feishu": [(4, 1), (90, 60)],
        "lark": [(4, 1), (90, 60)],
    }


def test_unquoted_secrets_are_known(receiver: Receiver) -> None:
    given = settings("webhook", "http://user:p%40ss@chat.example", secret=None)
    assert {"p%40ss", unquote("p%40ss"), KEY, f"{KEY}-query"} <= set(given.secrets)

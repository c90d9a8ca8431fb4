"""What is sent to the hooks, over real sockets: what is taken in, what is refused, and how it is counted."""

import http.client
import json
import re
import socket
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from desk import made
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from receiver import HOSTILE, INVISIBLE, KEY, target

from exporter.config_hooks import AlertmanagerSettings
from exporter.config_routes import MatchSettings
from exporter.headers import unix_time
from exporter.hooks import alerts
from exporter.hooks.alertmanager import AlertmanagerHook
from exporter.hooks.drone import DroneHook, digest_of, sign
from exporter.hooks.receiver import LARGEST, Hook, build_app
from exporter.ledger import Ledger
from exporter.ledger.messages import Row
from exporter.ledger.schema import outbox
from exporter.listener import Listener
from exporter.model import Event
from exporter.notify.facts import notice_of
from exporter.notify.message import Tone, compose
from exporter.routes import Route, Routes
from exporter.telemetry import HOOK_OUTCOMES, Telemetry

DATA = Path(__file__).parent / "data"
RECORDED = sorted(DATA.glob("recordings/drone-1.x/webhook-*.json"))
SECRET = b"hooksecret"
NOW = 1_795_600_000.0
JSON = {"Content-Type": "application/json"}
BEARER = {**JSON, "Authorization": f"Bearer {KEY}"}


@dataclass
class Place:
    """Hooks that are served, with a clock that the test turns, and what came of what was sent."""

    telemetry: Telemetry = field(default_factory=Telemetry)
    now: float = NOW
    hinted: list[str] = field(default_factory=list)
    address: str = ""

    def clock(self) -> float:
        return self.now

    def send(
        self, path: str, body: bytes, headers: Mapping[str, str], method: str = "POST"
    ) -> tuple[int, bytes]:
        host, port = self.address.rsplit(":", 1)
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        try:
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def counted(self, hook: str) -> dict[str, int]:
        """Outcomes that there were."""
        value = self.telemetry.registry.get_sample_value
        found = {
            each: int(value("ci_hook_requests_total", {"hook": hook, "outcome": each}) or 0)
            for each in HOOK_OUTCOMES
        }
        return {each: count for each, count in found.items() if count}


Serve = Callable[..., Place]


@pytest.fixture
def serve() -> Iterator[Serve]:
    listeners: list[Listener] = []

    def start(make: Callable[[Place], Hook], **options: float) -> Place:
        place = Place()
        hook = make(place)
        place.telemetry.keep_hooks({hook.name})
        listener = Listener("127.0.0.1:0", build_app([hook], place.telemetry, **options))
        listener.start()
        listeners.append(listener)
        place.address = listener.address
        return place

    yield start
    for listener in listeners:
        listener.stop()


def drone(place: Place, *secrets: tuple[str, bytes]) -> DroneHook:
    names = [name for name, _ in secrets or [("ci", SECRET)]]
    hints = {name: (lambda name=name: place.hinted.append(name)) for name in names}
    return DroneHook(secrets or [("ci", SECRET)], hints, place.clock)


def signed(body: bytes, at: float, secret: bytes = SECRET, **changes: str) -> dict[str, str]:
    """Headers as Drone makes them for a body, changed after they were signed."""
    date, digest = formatdate(at, usegmt=True), digest_of(body)
    signature = b64encode(sign(secret, date, digest)).decode()
    parts = f'keyId="hmac-key",algorithm="hmac-sha256",signature="{signature}",headers="date digest"'
    return {**JSON, "Date": date, "Digest": digest, "Signature": parts, **changes}


def test_signatures_are_those_of_drone() -> None:
    body = b'{"event":"build","action":"updated"}'
    assert digest_of(body) == "SHA-256=ozf1tQoYclAqeCIyZOXItiFQE5H4tnDnaSrsTI0cmK8="
    made = sign(b"bea26a2221fd8090ea38720fc445eca6", "Sat, 21 Nov 2026 20:44:29 GMT", digest_of(body))
    assert b64encode(made).decode() == "twZ/USDRUTl784lDq9eu9Ah0t6YQXp5WnFwZnHEcmaI="


def test_what_a_real_drone_posted_is_a_hint(serve: Serve) -> None:
    place = serve(lambda place: drone(place, ("other", b"other secret"), ("ci", SECRET)))
    assert len(RECORDED) == 6
    for count, path in enumerate(RECORDED, 1):
        recorded = json.loads(path.read_text())
        headers, body = recorded["request"]["headers"], recorded["body_text"].encode()
        place.now = unix_time(headers["Date"]) or 0.0
        assert place.send("/hooks/drone", body, headers) == (200, b"OK\n")
        assert place.hinted == ["ci"] * count
        assert place.send("/hooks/drone", body, headers) == (401, b"Unauthorized\n")
    assert place.counted("drone") == {"accepted": 6, "replayed": 6}


BODY = b'{"event":"build"}'


@pytest.mark.parametrize(
    ("headers", "outcome"),
    [
        (JSON, "unauthorized"),
        (signed(BODY, NOW, b"another secret"), "unauthorized"),
        (signed(BODY, NOW, Signature=""), "unauthorized"),
        (signed(BODY, NOW, Signature="\xff{}"), "unauthorized"),
        (signed(BODY, NOW, Signature=signed(BODY, NOW)["Signature"].replace("256", "512")), "unauthorized"),
        (signed(BODY, NOW, Signature=signed(BODY, NOW)["Signature"].replace(" digest", "")), "unauthorized"),
        (signed(BODY, NOW, Date=formatdate(NOW + 1, usegmt=True)), "unauthorized"),
        (signed(BODY, NOW, Digest=digest_of(b"{}")), "unauthorized"),
        (signed(BODY, NOW - 301), "stale"),
        (signed(BODY, NOW + 301), "stale"),
        (signed(BODY[:-1], NOW), "tampered"),
    ],
)
def test_a_hint_that_is_not_signed_now_and_whole_is_refused_in_one_word(
    serve: Serve, headers: dict[str, str], outcome: str
) -> None:
    place = serve(drone)
    assert place.send("/hooks/drone", BODY, headers) == (401, b"Unauthorized\n")
    assert (place.hinted, place.counted("drone")) == ([], {outcome: 1})
    for at in (NOW - 300, NOW + 300, NOW):  # and nothing of it stands in the way of what is good
        assert place.send("/hooks/drone", BODY, signed(BODY, at)) == (200, b"OK\n")


def test_a_header_that_stands_twice_is_no_signature(serve: Serve) -> None:
    place = serve(drone)
    lines = "".join(f"{name}: {value}\r\n" for name, value in signed(BODY, NOW).items())
    head = f"POST /hooks/drone HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n{lines}Date: x\r\n\r\n"
    assert raw(place, head.encode() + BODY).startswith(b"HTTP/1.1 401 ")
    assert place.counted("drone") == {"unauthorized": 1}


def test_a_signature_is_known_for_as_long_as_its_date_is_good(serve: Serve) -> None:
    place = serve(drone)
    headers = signed(BODY, NOW + 300)
    assert place.send("/hooks/drone", BODY, headers)[0] == 200
    for place.now in (NOW + 1, NOW + 599, NOW + 600, NOW + 601):
        assert place.send("/hooks/drone", BODY, headers)[0] == 401
    assert place.counted("drone") == {"accepted": 1, "replayed": 3, "stale": 1}
    assert place.hinted == ["ci"]


def test_servers_with_the_same_secret_are_both_looked_at(serve: Serve) -> None:
    place = serve(lambda place: drone(place, ("a", SECRET), ("b", SECRET), ("c", b"else")))
    assert place.send("/hooks/drone", BODY, signed(BODY, NOW))[0] == 200
    assert place.hinted == ["a", "b"]


def raw(place: Place, sent: bytes, wait: float = 10.0) -> bytes:
    """What comes back for these bytes until the connection is closed."""
    host, port = place.address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), wait) as client:
        client.sendall(sent)
        answer = b""
        while part := client.recv(65536):
            answer += part
        return answer


def head(headers: Mapping[str, str], length: str) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST /hooks/drone HTTP/1.1\r\nHost: x\r\n{lines}{length}\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/hooks/drone", signed(BODY, NOW), 405),
        ("PUT", "/hooks/drone", signed(BODY, NOW), 405),
        ("POST", "/hooks/drone", signed(BODY, NOW, **{"Content-Type": "text/plain"}), 415),
        ("POST", "/hooks/drone", signed(BODY, NOW, **{"Content-Encoding": "gzip"}), 415),
        ("POST", "/hooks/alertmanager", signed(BODY, NOW), 404),
        ("POST", "/hooks/drone/", signed(BODY, NOW), 404),
        ("GET", "/metrics", {}, 404),
    ],
)
def test_other_requests_are_refused(
    serve: Serve, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    place = serve(drone)
    assert place.send(path, BODY, headers, method)[0] == status
    assert place.hinted == []
    assert place.counted("drone") == ({} if status == 404 else {"invalid": 1})


def test_a_body_of_1_mib_is_taken_and_a_larger_one_is_not(serve: Serve) -> None:
    place = serve(drone)
    largest = b" " * LARGEST
    assert place.send("/hooks/drone", largest, signed(largest, NOW))[0] == 200
    headers = signed(largest + b" ", NOW)
    # Said in the head: nothing of it is read.
    assert raw(place, head(headers, f"Content-Length: {LARGEST + 1}")).startswith(b"HTTP/1.1 413 ")
    parts = b"%x\r\n%s\r\n" % (LARGEST, largest) + b"1\r\n \r\n"
    with suppress(ConnectionResetError):  # cut off while it still sends
        answer = raw(place, head(headers, "Transfer-Encoding: chunked") + parts)
        assert answer.startswith(b"HTTP/1.1 413 ")
    assert place.counted("drone") == {"accepted": 1, "oversized": 2}
    # Who is not let in learns nothing of sizes.
    assert raw(place, head(JSON, f"Content-Length: {LARGEST + 1}")).startswith(b"HTTP/1.1 401 ")
    assert place.hinted == ["ci"]


def test_a_body_that_does_not_come_is_not_waited_for(serve: Serve) -> None:
    place = serve(drone, patience=0.3)
    for headers, status in ((signed(BODY, NOW), b"408"), (JSON, b"401")):
        answer = raw(place, head(headers, f"Content-Length: {len(BODY)}") + BODY[:-1])
        assert answer.startswith(b"HTTP/1.1 " + status)
    assert place.counted("drone") == {"slow": 1, "unauthorized": 1}
    assert place.send("/hooks/drone", BODY, signed(BODY, NOW))[0] == 200


def test_who_hangs_up_in_the_middle_is_counted_and_no_error(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    place = serve(drone)
    host, port = place.address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), 10) as client:
        client.sendall(head(signed(BODY, NOW), "Content-Length: 100") + BODY)
    deadline = time.monotonic() + 5
    while place.counted("drone") != {"invalid": 1} and time.monotonic() < deadline:
        time.sleep(0.01)
    assert place.counted("drone") == {"invalid": 1}
    assert caplog.records == []


# Alerts.


@dataclass
class Alerts:
    """A hook for alerts with its ledger."""

    place: Place
    ledger: Ledger
    due: threading.Event

    def post(self, body: object, headers: Mapping[str, str] = BEARER) -> int:
        return self.place.send("/hooks/alertmanager", json.dumps(body).encode(), headers)[0]

    def rows(self) -> list[Row]:
        with self.ledger.reading() as conn:
            return [Row(*row) for row in conn.execute(outbox.select().order_by(outbox.c.id))]

    def titles(self) -> list[tuple[str, str]]:
        """Target and title of every message."""
        return [(row.target, compose(notice_of(row)).title) for row in self.rows()]


@pytest.fixture
def receive(serve: Serve, tmp_path: Path) -> Iterator[Callable[..., Alerts]]:
    ledger, due = made(tmp_path), threading.Event()

    def start(routes: Routes | None = None, **settings: object) -> Alerts:
        known = AlertmanagerSettings.model_validate(settings or {"token": SecretStr(KEY)})
        routes = routes or Routes(targets=("team",))
        hook = lambda place: AlertmanagerHook(known, ledger, routes, due, place.clock)  # noqa: E731
        return Alerts(serve(hook), ledger, due)

    yield start
    ledger.close()


def recorded(name: str) -> Any:
    return json.loads((DATA / f"hooks/webhook-{name}.json").read_text())["body"]


def alert(firing: bool = True, at: str = "2026-11-25T10:00:00Z", **labels: str) -> dict[str, object]:
    labels = {"alertname": "CIQueueStuck", **labels}
    ends = "0001-01-01T00:00:00Z" if firing else "2026-11-25T11:00:00.123456789Z"
    status = "firing" if firing else "resolved"
    return {"status": status, "labels": labels, "annotations": {}, "startsAt": at, "endsAt": ends}


def group(*given: dict[str, object], key: str = "{}:{}") -> dict[str, object]:
    return {"version": "4", "groupKey": key, "alerts": list(given)}


def test_alerts_are_messages_once_and_in_order(receive: Callable[..., Alerts]) -> None:
    hook = receive(Routes(targets=("team", "ops")))
    for name in ("firing", "firing", "resolved", "firing", "resolved"):
        body = recorded(name)
        body["alerts"][0]["annotations"]["value"] = str(time.monotonic())  # as copies may differ
        body["alerts"][0]["startsAt"] = "2026-11-25T10:00:00.5Z"
        assert hook.post(body) == 200
        assert hook.due.is_set()
    failed = 'acme/web main #%d failed at step "test"'
    assert hook.titles() == [
        (target, title)
        for title in (f"Firing: {failed % 42}", f"Resolved: {failed % 45}")
        for target in ("team", "ops")
    ]
    fired, _, resolved, _ = hook.rows()
    assert (fired.kind, fired.server, fired.repo_id, fired.excerpt) == ("alert", "drone.example", None, "")
    assert fired.thread == resolved.thread
    assert notice_of(fired).thread == notice_of(resolved).thread
    message, over = compose(notice_of(fired)), compose(notice_of(resolved))
    assert (message.tone, over.tone) == (Tone.BAD, Tone.GOOD)
    assert message.link == "https://drone.example/acme/web/42"
    assert message.lines == (
        "branch=main, event=push, repo=acme/web, server=drone.example, severity=warning",
    )
    assert hook.place.counted("alertmanager") == {"accepted": 5}


def test_what_fires_again_and_what_joins_is_told_and_a_reminder_after_an_hour(
    receive: Callable[..., Alerts],
) -> None:
    hook = receive()
    hook.place.now = alerts.read(json.dumps(group(alert())).encode()).alerts[0].changed + 30
    one, other = alert(server="a"), alert(server="b")
    for body in (
        group(one),
        group(one),
        group(one, other),
        group(other, one),  # a copy, in another order
        group(one, alert(False, server="b")),
        group(one, key="another group"),
    ):
        assert hook.post(body) == 200
    told = [title for _, title in hook.titles()]
    assert told == [
        "Firing: CIQueueStuck server=a",
        "Firing: CIQueueStuck (2 firing)",
        "Firing: CIQueueStuck (1 firing, 1 resolved)",
        "Firing: CIQueueStuck server=a",
    ]
    hook.place.now += 4 * 3600
    for body in (group(one, other), group(one, other), group(alert(server="a", at="2026-11-25T13:00:00Z"))):
        assert hook.post(body) == 200
    assert [title for _, title in hook.titles()][4:] == [told[1], told[0]]
    threads = {(row.thread, row.epoch) for row in hook.rows()}
    assert len(threads) == 6  # what fires is never written over an older message


def test_each_alert_goes_where_its_own_labels_lead(receive: Callable[..., Alerts]) -> None:
    routes = Routes(
        ("web", "alerts", "push", "rest"),
        (
            Route(("web",), repos=("acme/*",), goes_on=True),
            Route(("push",), events=(Event.PUSH,), goes_on=True),
            Route(("push",), failures=("error",), goes_on=True),
            Route(("alerts",), events=("alert",), servers=("a",)),
            Route(("rest",)),
        ),
    )
    hook = receive(routes)
    assert hook.post(group(alert(server="a", repo="acme/web"), alert(server="b", event="push"))) == 200
    assert hook.titles() == [
        ("web", "Firing: CIQueueStuck server=a, repo=acme/web"),
        ("alerts", "Firing: CIQueueStuck server=a, repo=acme/web"),
        ("rest", "Firing: CIQueueStuck server=b, event=push"),
    ]


def test_an_alert_is_no_message_to_an_alertmanager(receive: Callable[..., Alerts]) -> None:
    hook = receive(Routes(("chat", "am"), without_messages=frozenset({"am"})))
    assert hook.post(group(alert())) == 200
    assert [target for target, _ in hook.titles()] == ["chat"]


def test_routes_may_name_every_event_and_alerts() -> None:
    names = [*Event, "alert"]
    assert MatchSettings.model_validate({"event": names}).event == tuple(names)


BASIC = {"login": "am", "password": SecretStr(KEY)}


@pytest.mark.parametrize(
    ("settings", "authorization", "status"),
    [
        ({}, f"Bearer {KEY}", 200),
        ({}, f"bearer  {KEY}", 200),
        ({}, f"Bearer {KEY}x", 401),
        ({}, f"Bearer {KEY[:-1]}", 401),
        ({}, "Bearer ", 401),
        ({}, "", 401),
        ({}, f"Token {KEY}", 401),
        ({}, f"Basic {KEY}", 401),
        ({}, f"Bearer {KEY}, Bearer {KEY}", 401),
        (BASIC, f"Basic {b64encode(f'am:{KEY}'.encode()).decode()}", 200),
        (BASIC, f"Basic {b64encode(f'ma:{KEY}'.encode()).decode()}", 401),
        (BASIC, f"Basic {b64encode(b'am:').decode()}", 401),
        (BASIC, "Basic %%%", 401),
        (BASIC, f"Bearer am:{KEY}", 401),
        (BASIC, "Basic", 401),
    ],
)
def test_only_whom_the_settings_know_may_send_alerts(
    receive: Callable[..., Alerts], settings: dict[str, object], authorization: str, status: int
) -> None:
    hook = receive(None, **settings)
    body = json.dumps(group(alert())).encode()
    answer = hook.place.send("/hooks/alertmanager", body, {**JSON, "Authorization": authorization})
    assert answer == (status, b"OK\n" if status == 200 else b"Unauthorized\n")
    assert len(hook.rows()) == (status == 200)
    assert hook.place.counted("alertmanager") == {"accepted" if status == 200 else "unauthorized": 1}


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {**group(alert()), "version": "3"},
        group(),
        group(alert(), key=""),
        group({**alert(), "startsAt": "today"}),
        group({**alert(), "startsAt": "2026-11-25T10:00:00"}),
        group({**alert(), "labels": {"alertname": 1}}),
        group({**alert(), "status": "suppressed"}),
    ],
)
def test_what_is_no_webhook_of_an_alertmanager_is_refused(
    receive: Callable[..., Alerts], body: object
) -> None:
    hook = receive()
    assert hook.post(body) == 400
    assert hook.place.send("/hooks/alertmanager", b"[" * 100_000, BEARER)[0] == 400
    assert hook.place.send("/hooks/alertmanager", b"\xff", BEARER)[0] == 400
    assert (hook.rows(), hook.place.counted("alertmanager")) == ([], {"invalid": 3})


def test_where_the_ledger_is_busy_it_is_asked_for_again_and_told_once(receive: Callable[..., Alerts]) -> None:
    hook = receive()
    with hook.ledger.transaction():
        began = time.monotonic()
        assert hook.post(group(alert())) == 503
        assert time.monotonic() - began < 2
    assert hook.post(group(alert())) == 200
    assert [title for _, title in hook.titles()] == ["Firing: CIQueueStuck"]
    hook.ledger.close()
    assert hook.post(group(alert())) == 503
    assert hook.place.counted("alertmanager") == {"accepted": 1, "failed": 2}


LIVE = {"slack": "<!|<@", "bot": "<!|<@", "dingtalk": "(?<!\\w)@(all|所有人)", "wecom": "<@|@all"}
"""What calls people in each channel."""


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_of_alerts_come_out_dead(receive: Callable[..., Alerts], text: str) -> None:
    hook = receive()
    hostile = alert(alertname=text, server=text, repo=text, branch=text, other=text)
    keys = ("summary", "description", "runbook_url", "dashboard_url")
    hostile |= {"annotations": dict.fromkeys(keys, text), "generatorURL": text}
    plain = alert(alertname=text)
    assert hook.post(group(hostile, plain, key=text)) == 200
    (row,) = hook.rows()
    message = compose(notice_of(row))
    shown = "".join((message.title, *message.lines, message.link, *(value for _, value in message.facts)))
    assert not set(shown) & set(INVISIBLE)
    assert message.link == ""
    for kind, live in LIVE.items():
        channel = target(kind, "http://127.0.0.1:1")
        sent = json.dumps(json.loads(channel.preview(notice_of(row))), ensure_ascii=False)
        assert not re.search(live, sent), kind
        channel.close()


@given(st.permutations(range(4)), st.text(), st.floats(0, 3000))
def test_copies_have_one_key_and_changes_another(order: list[int], said: str, later: float) -> None:
    made = [alert(server=str(number)) for number in range(4)]

    def key(given: list[dict[str, object]], now: float) -> str:
        return alerts.content_key(alerts.read(json.dumps(group(*given)).encode()).alerts, now)

    start = alerts.read(json.dumps(group(made[0])).encode()).alerts[0].changed
    told = key(made, start + 30)
    assert key([made[n] | {"annotations": {"value": said}} for n in order], start + 30 + later) == told
    assert key([alert(False, server="0"), *made[1:]], start + 30) != told
    assert key([alert(server="0", at="2026-11-25T10:00:01Z"), *made[1:]], start + 31) != told
    assert key(made[1:], start + 30) != told

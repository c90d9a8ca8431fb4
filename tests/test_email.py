"""Mail to a real SMTP server on loopback."""

import contextlib
import email
import email.policy
import html
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session
from receiver import HOSTILE, INVISIBLE, KEY, build, hostile, notice

from exporter.config_notify import EmailSettings
from exporter.notify.email import Email
from exporter.notify.notice import Kind
from exporter.notify.targets import Result

OK, RETRY, PERMANENT = Result.OK, Result.RETRY, Result.PERMANENT
AMBIGUOUS, PAUSE, TOO_LARGE = Result.AMBIGUOUS, Result.PAUSE, Result.TOO_LARGE
PASSWORD = f"{KEY}-mail"


@dataclass
class Mailbox:
    """Takes mail as a test says; `reply` is answered to a command in place of the server's own."""

    replies: dict[str, str] = field(default_factory=dict)
    envelopes: list[Envelope] = field(default_factory=list)
    stops_at: str = ""
    sessions: list[Session] = field(default_factory=list)

    async def handle_MAIL(self, *given: Any) -> str:  # noqa: N802
        _, _, envelope, address, _ = given
        envelope.mail_from = address
        return self.replies.get("MAIL", "250 OK")

    async def handle_RCPT(self, *given: Any) -> str:  # noqa: N802
        _, _, envelope, address, _ = given
        reply = self.replies.get(address) or self.replies.get("RCPT", "250 OK")
        if reply.startswith("2"):
            envelope.rcpt_tos.append(address)
        return reply

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.envelopes.append(envelope)
        self.sessions.append(session)
        if self.stops_at == "DATA":
            server.transport.abort()
        return self.replies.get("DATA", "250 taken")

    @property
    def mails(self) -> list[EmailMessage]:
        return [_parsed(envelope.content) for envelope in self.envelopes]


def _parsed(content: object) -> EmailMessage:
    assert isinstance(content, bytes)
    parsed = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(parsed, EmailMessage)
    return parsed


@contextlib.contextmanager
def serving(mailbox: Mailbox, **options: Any) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    controller = Controller(mailbox, hostname="127.0.0.1", port=port, **options)
    controller.start()
    try:
        yield port
    finally:
        controller.stop()


def settings(port: int, **more: Any) -> EmailSettings:
    given = {"name": "ops", "type": "email", "host": "127.0.0.1", "port": port, "security": "none"}
    given |= {"timeout": 3, "from": "ci@example.com", "to": ("ops@example.com", "dev@example.com")}
    return EmailSettings.model_validate(given | more)


def target(port: int, **more: Any) -> Email:
    return Email(settings(port, **more))


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> tuple[trustme.CA, Path]:
    authority = trustme.CA()
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return authority, path


def context(authority: trustme.CA) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(made)
    return made


@pytest.mark.parametrize(
    ("replies", "result"),
    [
        ({}, OK),
        ({"MAIL": "421 going down"}, RETRY),
        ({"MAIL": "530 5.7.0 authentication required"}, PAUSE),
        ({"MAIL": "550 no such sender"}, PERMANENT),
        ({"MAIL": "552 too large"}, TOO_LARGE),
        ({"RCPT": "450 greylisted"}, RETRY),
        ({"RCPT": "550 no such user"}, PERMANENT),
        ({"ops@example.com": "550 no", "dev@example.com": "451 later"}, RETRY),
        ({"ops@example.com": "550 no such user"}, OK),
        ({"DATA": "451 later"}, RETRY),
        ({"DATA": "552 too large"}, TOO_LARGE),
        ({"DATA": "554 spam"}, PERMANENT),
    ],
)
def test_what_a_reply_means(replies: dict[str, str], result: Result) -> None:
    mailbox = Mailbox(replies)
    with serving(mailbox) as port:
        outcome = target(port).send(notice())
    assert outcome.result is result, outcome
    assert len(outcome.detail) <= 200
    if replies.get("ops@example.com") == "550 no such user":
        assert outcome.detail == "1 of 2 addresses were refused"
        assert mailbox.envelopes[0].rcpt_tos == ["dev@example.com"]


def test_a_mail_without_an_answer_may_have_arrived() -> None:
    mailbox = Mailbox(stops_at="DATA")
    with serving(mailbox) as port:
        outcome = target(port).send(notice())
    assert (outcome.result, len(mailbox.envelopes)) == (AMBIGUOUS, 1)
    assert outcome.detail.startswith("sent, and no answer: ")


def talking(behaviour: Callable[[socket.socket], object]) -> contextlib.AbstractContextManager[int]:
    @contextlib.contextmanager
    def talk() -> Iterator[int]:
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def accept() -> None:
                with contextlib.suppress(OSError):
                    connection, _ = listener.accept()
                    with connection:
                        behaviour(connection)

            thread = threading.Thread(target=accept)
            thread.start()
            yield listener.getsockname()[1]
            socket.socket.shutdown(listener, socket.SHUT_RDWR)
            thread.join()

    return talk()


def drip(connection: socket.socket) -> None:
    connection.sendall(b"220-hello\r\n")
    for _ in range(100):
        connection.sendall(b"220-x\r\n")
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("behaviour", "result"),
    [
        (lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"), RETRY),
        (lambda connection: connection.sendall(b"554 go away\r\n"), PERMANENT),
        (lambda connection: connection.close(), RETRY),
        (lambda connection: connection.recv(1), RETRY),
        (drip, RETRY),
    ],
)
def test_what_answers_otherwise_gets_no_mail(
    behaviour: Callable[[socket.socket], object], result: Result
) -> None:
    began = time.monotonic()
    with talking(behaviour) as port:
        outcome = target(port, timeout=1).send(notice())
        took = time.monotonic() - began
    assert outcome.result is result, outcome
    assert took < 2.5


def test_no_server_and_no_name_is_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert target(port).send(notice()).result is RETRY
    outcome = target(port, host="no-such-host.invalid").send(notice())
    assert (outcome.result, "`host`" in outcome.detail) == (RETRY, True)


def lets_in(*given: Any) -> AuthResult:
    data = given[-1]
    return AuthResult(success=(data.login, data.password) == (b"ci", PASSWORD.encode()), handled=False)


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_mail_is_sent_encrypted_and_signed_in(security: str, ca: tuple[trustme.CA, Path]) -> None:
    authority, path = ca
    key = "tls_context" if security == "starttls" else "ssl_context"
    mailbox = Mailbox()
    options = {key: context(authority), "authenticator": lets_in, "auth_require_tls": security == "starttls"}
    if security == "starttls":
        options["require_starttls"] = True
    with serving(mailbox, **options) as port:
        given = {"security": security, "login": "ci", "password": PASSWORD, "ca_file": path}
        assert target(port, **given).send(notice()).result is OK
        refused = target(port, **(given | {"password": f"{PASSWORD}-wrong"})).send(notice())
        assert refused.result is PAUSE
        assert KEY not in f"{refused!r} {target(port, **given)!r} {settings(port, **given)!r}"
        stranger = target(port, security=security).send(notice())
        assert stranger.result is RETRY
        assert "ca_file" in stranger.detail
        other = target(port, **(given | {"host": "localhost"})).send(notice())
        assert other.result is RETRY
    assert len(mailbox.envelopes) == 1
    assert mailbox.sessions[0].authenticated
    assert mailbox.sessions[0].ssl is not None or security == "tls"


def test_a_server_without_starttls_or_login_pauses(ca: tuple[trustme.CA, Path]) -> None:
    with serving(Mailbox()) as port:
        assert target(port, security="starttls").send(notice()).result is PAUSE
    with serving(Mailbox(), tls_context=context(ca[0]), auth_exclude_mechanism=("LOGIN", "PLAIN")) as port:
        opened = target(port, security="starttls", login="ci", password=PASSWORD, ca_file=ca[1])
        assert opened.send(notice()).result is PAUSE


def test_what_a_mail_says() -> None:
    mailbox = Mailbox()
    with serving(mailbox) as port:
        opened = target(port)
        called = notice(mention=("ann@example.com", "ops@example.com", "U012AB3CD"))
        for sent in (called, called, notice(key="2", kind=Kind.RESOLVED), notice(key="3", thread="other")):
            assert opened.send(sent).result is OK
    first, again, resolved, other = mailbox.mails
    assert mailbox.envelopes[0].rcpt_tos == ["ops@example.com", "dev@example.com", "ann@example.com"]
    assert mailbox.envelopes[0].mail_from == "ci@example.com"
    assert first["Subject"] == "acme/web main #42 failed at step test (exit 2)"
    assert (first["From"], first["To"]) == (
        "build-exporter <ci@example.com>",
        "ops@example.com, dev@example.com, ann@example.com",
    )
    assert parsedate_to_datetime(first["Date"]).timestamp() == 1_795_600_000
    assert first["Auto-Submitted"] == "auto-generated"
    assert first["Message-ID"] == again["Message-ID"] != resolved["Message-ID"]
    assert first["References"] == resolved["References"] == resolved["In-Reply-To"] != other["References"]
    shown = opened.preview(called)
    assert all(f"{name}: {value}" in shown for name, value in first.items() if name.isalpha())
    assert "AssertionError: 3 != 4" in shown
    for id_ in (first["Message-ID"], first["References"]):
        assert id_.endswith("@example.com>")
    text, page = first.get_body(("plain",)), first.get_body(("html",))
    assert text is not None
    assert page is not None
    assert "AssertionError: 3 != 4" in text.get_content()
    assert "https://ci.example.com/acme/web/42" in text.get_content().splitlines()
    assert '<a href="https://ci.example.com/acme/web/42">Build #42</a>' in page.get_content()


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_dead(text: str) -> None:
    mailbox = Mailbox()
    kinds = (Kind.OPENED, Kind.DIGEST, Kind.ALERT)
    with serving(mailbox) as port:
        opened = target(port, to=("ops@example.com",))
        for kind in kinds:
            assert opened.send(hostile(text, kind=kind)).result is OK
    assert [envelope.rcpt_tos for envelope in mailbox.envelopes] == [["ops@example.com"]] * len(kinds)
    for mail in mailbox.mails:
        assert "Bcc" not in mail
        assert len(mail.keys()) == 10, mail.keys()
        parts = [part.get_content() for part in mail.iter_parts()]
        assert len(parts) == 2
        for shown in (str(mail["Subject"]), *parts):
            assert not set(shown) & set(INVISIBLE)
        plain, page = parts
        links = [line for line in plain.splitlines() if line.startswith("https://ci.example.com/")]
        assert "://" not in plain.replace(links[0] if links else "\0", "")
        assert page.count("<a ") == len(links)
        assert "://" not in page.replace(f'<a href="{html.escape(links[0])}">' if links else "\0", "")
        assert "<script" not in page.lower()
        assert "<font" not in page.lower()


def test_a_huge_mail_keeps_its_link() -> None:
    mailbox = Mailbox()
    link = "https://ci.example.com/" + "x" * 900
    with serving(mailbox, data_size_limit=2**21) as port:
        huge = "日本語<&" * 100_000
        sent = notice(build=build(url=link, title=huge), excerpt=huge, branch=huge, lines=(huge,) * 50)
        assert target(port).send(sent).result is OK
    (mail,) = mailbox.mails
    plain = mail.get_body(("plain",))
    assert plain is not None
    assert link in plain.get_content()
    content = mailbox.envelopes[0].content
    assert isinstance(content, bytes)
    assert max(map(len, content.splitlines())) <= 998


def test_closing_ends_what_waits() -> None:
    held = threading.Event()

    def hold(connection: socket.socket) -> None:
        held.set()
        connection.recv(1)

    with talking(hold) as port:
        opened = target(port, timeout=60)
        outcomes: list[Any] = []
        thread = threading.Thread(target=lambda: outcomes.append(opened.send(notice())))
        thread.start()
        assert held.wait(5)
        time.sleep(0.05)
        opened.close()
        thread.join(5)
    assert [outcome.result for outcome in outcomes] == [RETRY]
    assert opened.send(notice()).result is RETRY

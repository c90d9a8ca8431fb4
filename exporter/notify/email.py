"""Mail by SMTP: text and simple HTML, in one thread for each incident."""

import hashlib
import html
import re
import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from exporter.config_notify import ADDRESS, EmailSettings
from exporter.connections import explanation
from exporter.notify.message import Message, Tone, fitted
from exporter.notify.notice import Notice
from exporter.notify.targets import MENTIONS, Base, Draft, Outcome, Rate, Result, without_secrets
from exporter.notify.text import unlinked

PORTS = {"starttls": 587, "tls": 465, "none": 25}
LONGEST = 30_000
"""Bytes of the text."""
AUTHENTICATION = frozenset({530, 534, 535, 538})
"""Replies to the login, or to the lack of one (RFC 4954)."""
SIZE = frozenset({523, 552})
GONE = smtplib.SMTPServerDisconnected
COLOURS = {Tone.BAD: "#d00000", Tone.GOOD: "#2e7d32", Tone.WARNING: "#b26a00", Tone.INFO: "#1264a3"}
STYLE = "white-space:pre-wrap;background:#f4f4f4;padding:8px;font-family:monospace"


class _RefusedError(Exception):
    """The server answered a command with `code`."""

    def __init__(self, code: int, reply: bytes) -> None:
        super().__init__(code)
        self.code, self.said = code, _words(reply)


class Email(Base):
    """The people at some addresses, through one mail server."""

    rate = (Rate(5, 1.0),)

    def __init__(self, settings: EmailSettings) -> None:
        super().__init__(settings.name)
        self._settings = settings
        self._closed = threading.Event()
        self._open: set[smtplib.SMTP] = set()

    def shown(self, draft: Draft) -> str:
        """The headers and the text."""
        mail = letter(draft.notice, draft.message, self._settings.from_, self._receivers(draft))
        headers = [f"{name}: {value}" for name, value in mail.items()]
        return "\n".join((*headers, "", fitted(draft.message, LONGEST)))

    def deliver(self, draft: Draft) -> Outcome:
        """Send it to the configured addresses, and to the people that it calls."""
        to = self._receivers(draft)
        content = letter(draft.notice, draft.message, self._settings.from_, to).as_bytes()
        handed_over = False
        try:
            with self._connected() as smtp:
                refused = self._address(smtp, to)
                handed_over = True
                code, reply = smtp.data(content)
                if code != 250:
                    raise _RefusedError(code, reply)
        except _RefusedError as error:
            return self._refusal(error.code, error.said)
        except smtplib.SMTPResponseException as error:
            return self._refusal(error.smtp_code, _words(error.smtp_error))
        except OSError as error:
            if isinstance(error, smtplib.SMTPException) and not isinstance(error, GONE):
                what = "it offers no STARTTLS or login: look at `security` and `login`"
                return self._outcome(Result.PAUSE, what)
            known = explanation(error, self._settings.timeout)
            what = known[1].replace("`url`", "`host`") if known else "the mail server hung up"
            if handed_over:
                return self._outcome(Result.AMBIGUOUS, f"sent, and no answer: {what}")
            return self._outcome(Result.RETRY, f"not sent: {what}")
        what = f"{refused} of {len(to)} addresses were refused" if refused else ""
        return self._outcome(Result.OK, what)

    def close(self) -> None:
        """End what waits."""
        self._closed.set()
        for smtp in tuple(self._open):
            _hang_up(smtp)

    def _receivers(self, draft: Draft) -> tuple[str, ...]:
        people = [handle for handle in draft.notice.mention[:MENTIONS] if re.fullmatch(ADDRESS, handle)]
        return tuple(dict.fromkeys((*self._settings.to, *people)))

    @contextmanager
    def _connected(self) -> Iterator[smtplib.SMTP]:
        """A session that ends by the timeout, whatever the server does."""
        given = self._settings
        port = given.port or PORTS[given.security]
        context = ssl.create_default_context(cafile=given.ca_file)
        host_name = given.from_.rpartition("@")[2]
        smtp: smtplib.SMTP
        if given.security == "tls":
            smtp = smtplib.SMTP_SSL(timeout=given.timeout, context=context, local_hostname=host_name)
        else:
            smtp = smtplib.SMTP(timeout=given.timeout, local_hostname=host_name)
        watch = threading.Timer(given.timeout, _hang_up, (smtp,))
        watch.daemon = True
        self._open.add(smtp)
        watch.start()
        try:
            if self._closed.is_set():
                raise ConnectionAbortedError
            # smtplib checks the certificate against the name that the constructor was given.
            smtp._host = given.host  # type: ignore[attr-defined]
            code, reply = smtp.connect(given.host, port)
            if code != 220:
                raise _RefusedError(code, reply)
            smtp.ehlo_or_helo_if_needed()
            if given.security == "starttls":
                smtp.starttls(context=context)
                smtp.ehlo()
            if given.login and given.password:
                smtp.login(given.login, given.password.get_secret_value())
            yield smtp
            with suppress(OSError, smtplib.SMTPException):
                smtp.quit()
        finally:
            watch.cancel()
            self._open.discard(smtp)
            smtp.close()

    def _address(self, smtp: smtplib.SMTP, to: tuple[str, ...]) -> int:
        """Names sender and receivers; how many receivers were refused. Raises where it is all of them."""
        code, reply = smtp.mail(self._settings.from_)
        if code != 250:
            raise _RefusedError(code, reply)
        replies = [smtp.rcpt(address) for address in to]
        refusals = sorted(reply for reply in replies if reply[0] not in {250, 251})
        if len(refusals) == len(to):
            raise _RefusedError(*refusals[0])
        return len(refusals)

    def _refusal(self, code: int, said: str) -> Outcome:
        if code in AUTHENTICATION:
            return self._outcome(Result.PAUSE, f"not let in: look at `login` and the password ({code})")
        if code in SIZE:
            return self._outcome(Result.TOO_LARGE, f"the message is too large ({code}: {said})")
        if 400 <= code < 500:
            return self._outcome(Result.RETRY, f"not now ({code}: {said})")
        if 500 <= code < 600:
            return self._outcome(Result.PERMANENT, f"refused ({code}: {said})")
        return self._outcome(
            Result.RETRY, "what answered there does not speak SMTP: look at `host` and `port`"
        )

    def _outcome(self, result: Result, detail: str) -> Outcome:
        return Outcome(result=result, detail=without_secrets(detail, self._settings.secrets))


def letter(notice: Notice, message: Message, sender: str, to: tuple[str, ...]) -> EmailMessage:
    """The mail; the same notice makes the same Message-ID, and those of an incident refer to one id."""
    domain = sender.rpartition("@")[2]
    mail = EmailMessage(policy=SMTP)
    mail["Subject"] = message.title
    mail["From"] = Address(display_name="build-exporter", addr_spec=sender)
    mail["To"] = ", ".join(to)
    mail["Date"] = format_datetime(datetime.fromtimestamp(notice.at, UTC))
    mail["Message-ID"] = _id(notice.key, domain)
    mail["References"] = mail["In-Reply-To"] = _id(f"thread {notice.thread}", domain)
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(fitted(message, LONGEST) + "\n", cte="quoted-printable")
    mail.add_alternative(page(message), subtype="html", cte="quoted-printable")
    return mail


def page(message: Message) -> str:
    """The message as HTML: no image, script or address but that of the build."""
    colour = COLOURS[message.tone]
    parts = [f'<p style="border-left:6px solid {colour};padding-left:8px"><b>{_dead(message.title)}</b></p>']
    rows = "".join(
        f'<tr><td style="padding-right:12px">{_dead(label)}</td><td>{_dead(value)}</td></tr>'
        for label, value in message.facts
    )
    parts += [f"<table>{rows}</table>"] * bool(rows)
    parts += [f"<p>{_dead(line)}</p>" for line in message.lines]
    parts += [f'<pre style="{STYLE}">{_dead(message.excerpt)}</pre>'] * bool(message.excerpt)
    if message.link:
        parts.append(f'<p><a href="{html.escape(message.link)}">{html.escape(message.link_text)}</a></p>')
    return f"<!DOCTYPE html><html><body>{''.join(parts)}</body></html>\n"


def _words(reply: bytes | str) -> str:
    return reply.decode(errors="replace") if isinstance(reply, bytes) else reply


def _dead(text: str) -> str:
    return html.escape(unlinked(text))


def _id(text: str, domain: str) -> str:
    return f"<{hashlib.sha256(text.encode()).hexdigest()[:32]}@{domain}>"


def _hang_up(smtp: smtplib.SMTP) -> None:
    """Ends the wait of whichever thread uses the session."""
    if smtp.sock is not None:
        with suppress(OSError):
            socket.socket.shutdown(smtp.sock, socket.SHUT_RDWR)

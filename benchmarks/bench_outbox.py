"""How fast messages leave the outbox, and what that costs whoever writes beside it.

A thousand red branches are told to a webhook on loopback that answers at once; meanwhile transactions as
a watch writes them are timed.
"""

import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median

from pydantic import SecretStr

from exporter.config_notify import WebhookSettings
from exporter.ledger import Ledger, messages
from exporter.ledger.messages import AGE, Facts, Row
from exporter.ledger.schema import WAITING, repos
from exporter.notify.channels import open_target
from exporter.notify.outbox import Outbox
from exporter.routes import Routes
from exporter.telemetry import Telemetry

MESSAGES, THREADS = 3000, 1000
LEAST = 200.0
"""Messages a second that are promised."""


@contextmanager
def receiver() -> Iterator[tuple[str, list[float]]]:
    """A webhook that takes everything at once: its address, and when each message came."""
    came: list[float] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            came.append(time.monotonic())
            self.send_response_only(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/", came
    finally:
        server.shutdown()


def rows(now: float) -> list[Row]:
    """Messages of many incidents, several of each."""
    made = []
    for number in range(MESSAGES):
        thread = f"1 push:b{number % THREADS}"
        row = Row(0, messages.message_key(number), "hook", thread, 1, "opened", "ci", None, WAITING)
        row.created = row.ready = row.due = now
        row.expires, row.excerpt = now + AGE, "line of a log\n" * 10
        row.facts = messages.encode(
            Facts(repo="octo/hello", branch="main", event="push", number=number, title="Parse dates", at=now)
        )
        made.append(row)
    return made


def writes(ledger: Ledger, over: threading.Event) -> list[float]:
    """Seconds that each of a watch's transactions took, ten a second, until it is over."""
    took: list[float] = []
    while not over.wait(0.1):
        began = time.monotonic()
        with ledger.transaction() as conn:
            conn.execute(repos.update().values(highest=len(took)))
        took.append(time.monotonic() - began)
    return took


def main() -> int:
    with tempfile.TemporaryDirectory() as directory, receiver() as (url, came):
        ledger = Ledger(f"sqlite:///{Path(directory)}/ledger.db")
        ledger.lock()
        ledger.migrate()
        settings = WebhookSettings(
            name="hook", type="webhook", url=SecretStr(url), secret=SecretStr("s" * 32)
        )
        due, over = threading.Event(), threading.Event()
        outbox = Outbox(ledger, [open_target(settings)], Routes(("hook",)), Telemetry(), due)
        waits: list[float] = []
        writer = threading.Thread(target=lambda: waits.extend(writes(ledger, over)))
        with ledger.transaction() as conn:
            messages.add(conn, rows(time.time()))
        writer.start()
        began = time.monotonic()
        outbox.start()
        while len(came) < MESSAGES and time.monotonic() < began + 120:
            time.sleep(0.02)
        seconds = came[-1] - began
        over.set()
        writer.join()
        outbox.stop(5.0)
        ledger.close()
    rate = len(came) / seconds
    typical, longest = median(waits) * 1e3, max(waits) * 1e3
    print(f"outbox: {len(came)} messages in {seconds:.1f} s: {rate:.0f}/s to a webhook (least: {LEAST:g})")
    print(f"        a transaction beside it: median {typical:.1f} ms, longest {longest:.1f} ms")
    return 0 if rate >= LEAST and len(came) == MESSAGES else 1


if __name__ == "__main__":
    sys.exit(main())

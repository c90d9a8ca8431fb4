"""How soon people are told of a failure, with the lines of its log: from the end of the build to the target.

Builds of many repos fail at once on a simulated Drone 1.x of 1,000 repos, again and again, and a webhook on
loopback notes what comes; once with the change stream, and once by polling alone every 15 s. The targets,
at the 99th percentile: 2 s with the stream, 16.5 s without.
"""

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from bench_stream import POLL, STREAMS, percentile, wait
from simulated import Simulated, simulated

DIALECT = "drone-1"
TARGETS = {"auto": 2.0, "off": POLL + 1.5}
NAMES = {"auto": "with the stream", "off": "by polling alone"}


class Receiver(ThreadingHTTPServer):
    """A webhook that answers at once, and notes when it heard of which build."""

    daemon_threads = True

    def __init__(self) -> None:
        self.heard: dict[tuple[str, int], float] = {}
        self.excerpts = 0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if told["kind"] in {"opened", "changed"}:
                    receiver.heard[told["repo"], told["build"]["number"]] = time.monotonic()
                    receiver.excerpts += bool(told["excerpt"])
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


@contextmanager
def told(server: Simulated, stream: str) -> Iterator[Receiver]:
    """Runs the command, which tells a webhook, until the block ends."""
    with tempfile.TemporaryDirectory() as directory, Receiver() as receiver:
        home = Path(directory)
        (home / "token").write_text(server.admin)
        (home / "hook").write_text(f"http://127.0.0.1:{receiver.server_port}/")
        config = {
            "servers": [
                {
                    "name": "ci", "url": server.url, "token_file": "token", "poll": f"{POLL:g}s",
                    "stream": stream, "import": "0",
                }
            ],
            "ledger": {"url": f"sqlite:///{home}/ledger.db"},
            "web": {"listen": "127.0.0.1:0"},
            "notify": {"storm": 0, "targets": [{"name": "hook", "type": "webhook", "url_file": "hook"}]},
        }  # fmt: skip
        (home / "config.yaml").write_text(json.dumps(config))
        command = [sys.executable, "-m", "exporter", "run", "--config", str(home / "config.yaml")]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            try:
                next(filter(None, (re.search(r"listen=(\S+)", line) for line in process.stderr)))
                yield receiver
            finally:
                process.terminate()
                receiver.shutdown()


def measure(repos: int, at_once: int, rounds: int) -> None:
    chance = random.Random(1)
    with (
        simulated(DIALECT, repos, 3) as server,
        told(server, "auto") as with_stream,
        told(server, "off") as without,
    ):
        wait("the stream", lambda: server.asked().get(f"GET {STREAMS[DIALECT]}"))
        wait("the first looks", lambda: server.asked().get("GET /api/user/builds", 0) > 1)
        time.sleep(POLL)
        ends: dict[tuple[str, int], float] = {}
        for turn in range(rounds):
            names = [f"load/r{(turn * at_once + i) % repos:05d}" for i in range(at_once)]
            started = [(name, server.tell("start", repo=name, running=True)["number"]) for name in names]
            time.sleep(chance.uniform(0.2, 1.0) * POLL)
            for name, number in started:
                ends[name, number] = time.monotonic()
                server.tell("finish", repo=name, number=number, outcome="failure")
        receivers = {"auto": with_stream, "off": without}
        for receiver in receivers.values():
            wait("every message", lambda heard=receiver.heard: ends.keys() <= heard.keys())
        print(f"messages: {rounds} times {at_once} failures at once, of {repos} repos on {DIALECT}")
        for stream, receiver in receivers.items():
            delays = sorted(receiver.heard[build] - at for build, at in ends.items())
            half, most = percentile(delays, 0.5), percentile(delays, 0.99)
            print(
                f"  {NAMES[stream]}: p50 {half:.2f} s, p99 {most:.2f} s "
                f"(target: at most {TARGETS[stream]:g} s), {receiver.excerpts} of {len(ends)} with an excerpt"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repos", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=6)
    chosen = parser.parse_args()
    measure(chosen.repos, chosen.at_once, chosen.rounds)


if __name__ == "__main__":
    main()

"""Real Alertmanagers on loopback, alone or as a cluster, and what they tell a receiver of the test's."""

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import requests
from process import until
from programs import path_of
from receiver import Receiver

SWIFT = (
    "--cluster.settle-timeout=1s",
    "--cluster.gossip-interval=20ms",
    "--cluster.pushpull-interval=200ms",
    "--cluster.peer-timeout=100ms",
)
"""Of a cluster the second waits that long for the first. What it was to tell then is what it knew before: it
must be little of `group_interval`, or it tells of something that is over meanwhile."""


class Alertmanager:
    """One Alertmanager that tells `receiver` at once; it can be started again, with or without its memory."""

    def __init__(self, directory: Path, receiver: Receiver, port: int, cluster: tuple[str, ...] = ()) -> None:
        """`cluster`: its own address there, then those of the others."""
        self.url = f"http://127.0.0.1:{port}"
        self._directory, self._cluster, self._lives = directory, cluster, 0
        directory.mkdir()
        config = {
            "route": {
                "receiver": "test",
                "group_by": ["repo", "branch", "event"],
                "group_wait": "50ms",
                "group_interval": "1s" if cluster else "200ms",
                "repeat_interval": "1h",
            },
            "receivers": [{"name": "test", "webhook_configs": [{"url": receiver.url}]}],
        }
        (directory / "alertmanager.yml").write_text(json.dumps(config))

    def start(self, *, forgetful: bool = False) -> "Alertmanager":
        """`forgetful`: it knows no more what it sent."""
        self._lives += forgetful
        own, *others = self._cluster or ("",)
        with (self._directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    str(path_of("prometheus-alertmanager")),
                    f"--config.file={self._directory}/alertmanager.yml",
                    f"--storage.path={self._directory}/data-{self._lives}",
                    f"--web.listen-address={self.url.removeprefix('http://')}",
                    f"--cluster.listen-address={own}",
                    *(f"--cluster.peer={other}" for other in others),
                    *SWIFT,
                ],
                stderr=log,
            )
        return self

    def ready(self) -> "Alertmanager":
        """This, once it answers and, in a cluster, tells its receiver of alerts."""

        def answers() -> bool:
            assert self.process.poll() is None, (self._directory / "log").read_text()
            try:
                status = requests.get(f"{self.url}/api/v2/status", timeout=5).json()["cluster"]
            except requests.ConnectionError:
                return False
            alone = not self._cluster
            return alone or (status["status"] == "ready" and len(status["peers"]) == len(self._cluster))

        until("an Alertmanager", answers)
        return self

    def alerts(self) -> list[dict[str, Any]]:
        """What it holds open."""
        return list(requests.get(f"{self.url}/api/v2/alerts", timeout=5).json())

    def stop(self) -> None:
        """Ends it in order: it writes down what it sent."""
        self.process.terminate()
        self.process.wait(10)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def alertmanagers(directory: Path, receiver: Receiver, count: int = 1) -> Iterator[list[Alertmanager]]:
    """So many, as a cluster where they are several."""
    ports = free_ports(2 * count)
    gossip = [f"127.0.0.1:{port}" for port in ports[count:]]
    with ExitStack() as stack:
        made = []
        for place, port in enumerate(ports[:count]):
            cluster = (gossip[place], *(each for each in gossip if each != gossip[place]))
            made.append(
                Alertmanager(directory / f"am-{place}", receiver, port, cluster if count > 1 else ()).start()
            )
            stack.callback(made[-1].kill)
        yield [each.ready() for each in made]


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in taken]


def told(receiver: Receiver) -> list[dict[str, Any]]:
    """Every alert that the receiver was told of, in order: those of Alertmanager's webhook, version 4."""
    return [alert for got in receiver.got for alert in got.json["alerts"]]


def colours(receiver: Receiver, branch: str = "main") -> list[str]:
    """`firing` and `resolved` as the receiver was told of a branch."""
    return [alert["status"] for alert in told(receiver) if alert["labels"]["branch"] == branch]


def unix(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()

"""Reads a simulated world over HTTP, as its admin."""

import base64
from collections.abc import Iterator
from typing import Any, TypeVar

import requests

from exporter.simulator import Running, World, serve

R = TypeVar("R", bound="Reader")


class Reader:
    """A session at a world that is being served."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.world = running.world
        self.session = requests.Session()
        self.session.headers["Authorization"] = authorization(self.world.dialect, self.world.token)

    def ask(self, path: str, **how: Any) -> requests.Response:
        return self.send("GET", path, **how)

    def send(self, method: str, path: str, **how: Any) -> requests.Response:
        how.setdefault("timeout", 5)
        return self.session.request(method, self.running.url + path, allow_redirects=False, **how)

    def get(self, path: str, **how: Any) -> Any:
        answer = self.ask(path, **how)
        assert answer.status_code == 200, answer.text
        return answer.json()


def authorization(dialect: str, token: str, password: str = "") -> str:
    """The header that shows a token to a server of this dialect."""
    if dialect == "abf":
        return f"Basic {base64.b64encode(f'{token}:{password}'.encode()).decode()}"
    return f"Bearer {token}" if dialect == "woodpecker" else token


def reading(world: World, kind: type[R]) -> Iterator[R]:
    """Serves a world for as long as a fixture or a loop goes on."""
    with serve(world) as running:
        reader = kind(running)
        yield reader
        reader.session.close()

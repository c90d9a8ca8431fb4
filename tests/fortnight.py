"""A fortnight of the exporter's own pages, taken as a simulated clock steps through it, as blocks of a TSDB.

The exporter reads two simulated servers that have a life of their own; in the end one build waits, one
runs, one waits for approval, one was forgotten by its agent, and a branch is red.
"""

import re
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

from made_up import made_up
from programs import path_of
from pydantic import SecretStr

from exporter.app import App
from exporter.config import Config
from exporter.simulator import Clock, World, serve
from exporter.simulator.life import Life

DAY, HOUR = 86_400, 3600
END = 1_795_500_000
"""A full hour, and for that reason the end of a step."""
BEGIN = END - 14 * DAY
DENSE = 3 * HOUR
"""So long before the end a page is taken every five minutes, and every two hours before that."""
BLOCK = 336 * HOUR
SERVERS = {
    "platform": ("drone-0.8", ("platform/gateway", "platform/accounts")),
    "cloud": ("drone-1", ("shop/checkout", "shop/storefront")),
}


def make_world(dialect: str, repos: tuple[str, ...], clock: Clock, seed: int) -> World:
    """A server whose builds come and go, and where something of everything is open in the end."""
    world = World(dialect, clock=clock, seed=seed, default_branch="main")
    for repo in repos:
        world.add_repo(repo, timeout=60)
    crons = {repos[0]: ("nightly", float(DAY))}
    Life(world=world, repos=repos, since=BEGIN, lively=END + DAY, quiet=3600.0, crons=crons).begin()
    first, second = repos
    last = END - 600.0
    world.at(END - 4.0 * DAY, lambda at: _start(world, first, at, running=True))
    world.at(last - 300, lambda at: _start(world, first, at, started=at, finished=at + 60, outcome="failure"))
    world.at(last, lambda at: _start(world, second, at, running=True))
    world.at(last, lambda at: _start(world, second, at, branch="develop"))
    world.at(last, lambda at: _start(world, first, at, event="pull_request", gated=True))
    return world


def _start(world: World, repo: str, at: float, **about: object) -> None:
    world.start_build(repo, at=at, **about)  # type: ignore[arg-type]


def pages(directory: Path) -> Iterator[tuple[int, list[str]]]:
    """Time and lines of each page; the ledger is kept in `directory`."""
    clock = Clock(float(BEGIN))
    with ExitStack() as stack:
        servers: list[dict[str, object]] = []
        for seed, (name, (dialect, repos)) in enumerate(SERVERS.items()):
            world = make_world(dialect, repos, clock, seed)
            url = stack.enter_context(serve(world)).url
            token = SecretStr(world.token)
            servers.append({"name": name, "url": url, "token": token, "dialect": dialect, "import_rate": 0.0})
        ledger = {"url": SecretStr(f"sqlite:///{directory}/ledger.db")}
        app = App(Config.model_validate({"servers": servers, "ledger": ledger}), clock=clock.now)
        stack.callback(app.stop)
        repos = [(name, repo) for name, (_, repos) in SERVERS.items() for repo in repos]
        while (now := int(clock.now())) <= END:
            for watch in app.work.watches:
                watch.cycle()
            app.work.refresher.tick()
            app.work.refresher.measure()
            page = bytes(app.work.page.render(False, False)).decode()
            shown = [line for line in page.splitlines() if line and not line.startswith("#")]
            families = {re.split(r"[{ ]", line, maxsplit=1)[0] for line in shown}
            extra = made_up(now, BEGIN, repos)
            yield now, ["up 1.0", *shown, *(line for line in extra if line.split("{")[0] not in families)]
            clock.advance(2 * HOUR if now < END - DENSE else 300)


def write_blocks(pages: Iterable[tuple[int, list[str]]], instance: str, tsdb: Path) -> None:
    """Adds what a Prometheus that scrapes these pages of this exporter has in its TSDB.

    `promtool` takes minutes for what spans several blocks, and seconds for one block at a time.
    """
    parts: dict[int, list[str]] = {}
    target = f'job="ci",instance="{instance}"'
    for now, lines in pages:
        parts.setdefault(now // BLOCK, []).extend(f"{_scraped(line, target)} {now}\n" for line in lines)
    tsdb.mkdir(exist_ok=True)
    file = tsdb / "samples.om"
    for part in parts.values():
        file.write_text("".join(part) + "# EOF\n", encoding="utf-8")
        command = [str(path_of("promtool")), "tsdb", "create-blocks-from", "--max-block-duration=336h"]
        made = subprocess.run(
            [*command, "openmetrics", str(file), str(tsdb)], capture_output=True, text=True, check=False
        )
        assert made.returncode == 0, made.stderr
    file.unlink()


def _scraped(line: str, target: str) -> str:
    """A line of the page with the labels that Prometheus adds."""
    name, brace, rest = line.partition("{")
    if brace:
        return f"{name}{{{target},{rest}"
    name, _, value = line.partition(" ")
    return f"{name}{{{target}}} {value}"

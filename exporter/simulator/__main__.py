"""`python -m exporter.simulator`: one simulated server in a process of its own."""

import argparse
import signal
import sys
import threading

from exporter.simulator.clock import Clock
from exporter.simulator.control import act
from exporter.simulator.history import DAY
from exporter.simulator.invention import TRAITS
from exporter.simulator.life import Life
from exporter.simulator.server import serve
from exporter.simulator.world import World


def main(arguments: list[str] | None = None) -> None:
    """Serves until it is told to end; prints the address, an admin's token and a reader's."""
    parser = argparse.ArgumentParser(prog="python -m exporter.simulator", description=__doc__)
    parser.add_argument("--dialect", choices=sorted(TRAITS), default="drone-1")
    parser.add_argument("--repos", type=int, default=100)
    parser.add_argument("--builds", type=int, default=100, help="history of each repo")
    parser.add_argument("--days", type=float, default=90.0, help="over which the history is spread")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--cache", type=int, default=256, help="megabytes of rendered answers to keep")
    parser.add_argument("--life", action="store_true", help="builds come and go by themselves")
    chosen = parser.parse_args(arguments)

    world = World(chosen.dialect, clock=Clock.real(), seed=chosen.seed)
    world.cache.limit = chosen.cache * 1_000_000
    names = [f"load/r{i:05d}" for i in range(chosen.repos)]
    world.add_repos(names, builds=chosen.builds, days=chosen.days)
    reader = world.add_user("reader", push=False)
    if chosen.life:
        now = world.clock.now()
        Life(world=world, repos=names, since=now - DAY / 24, lively=now - DAY / 24).begin()
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    with serve(world, chosen.port, lambda counts, ask, body: act(world, counts, ask, body)) as running:
        sys.stdout.write(f"{running.url}\n{world.token}\n{reader}\n")
        sys.stdout.flush()
        over.wait()


if __name__ == "__main__":
    main()

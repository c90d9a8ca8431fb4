"""The worlds that the demo shows: one server of each kind, with a past and a life."""

import time
from collections.abc import Callable
from functools import partial

from exporter.simulator.clock import Clock
from exporter.simulator.history import DAY
from exporter.simulator.life import Life
from exporter.simulator.world import World

LEGACY = ("billing", "ledger-sync", "invoice-pdf", "mailer", "reports", "sftp-gate", "vat-rates", "archive")
PLATFORM = (
    "gateway", "accounts", "search", "notifier", "web-shop", "warehouse", "pricing", "ops-tools",
    "helm-charts", "docs",
)  # fmt: skip
CLOUD = (
    "checkout", "storefront", "recommender", "mobile-api", "design-system", "payments", "catalog",
    "edge-cache", "terraform", "qa-suite",
)  # fmt: skip
FORGE = (
    "compiler", "stdlib", "registry", "playground", "website", "editor-plugin", "fuzzers", "bench",
    "installer", "manual",
)  # fmt: skip
DISTRO = (
    "glibc", "gcc", "openssl", "python3", "firefox", "kernel-desktop", "plasma-workspace", "libreoffice",
    "mesa", "qt6-base",
)  # fmt: skip
SERVERS = (
    ("legacy", "drone-0.5", "finance", LEGACY),
    ("platform", "drone-0.8", "platform", PLATFORM),
    ("cloud", "drone-1", "shop", CLOUD),
    ("forge", "woodpecker", "lang", FORGE),
    ("distro", "abf", "import", DISTRO),
)
"""(name of the server, dialect, owner of the repos, their names)."""
STUCK = "cloud"
"""Where a build hangs that is not given up yet."""
PAST = 14 * DAY
"""How far back the history of the demo goes."""


def demo_worlds(
    now: float,
    *,
    clock: Clock | None = None,
    tick: Callable[[], float] = time.time,
    seed: int = 7,
    past: float = PAST,
    every: float = 8.0,
    agents: int = 7,
) -> list[tuple[str, str, World]]:
    """(name of the server, dialect, world) of one server of each kind, where builds end all the time.

    Their clock stands at `now` (Unix seconds) and runs with `tick`, unless `clock` is given.
    `past`: seconds of history; `every`: seconds from one build of a server to its next one; `agents`: how
    many run at once.
    """
    clock = clock or Clock.real(now - tick(), tick)
    made = []
    for number, (name, dialect, owner, repos) in enumerate(SERVERS, 1):
        branch = "main" if dialect == "drone-1" else ""
        world = World(dialect, clock=clock, seed=seed + number, default_branch=branch)
        names = [f"{owner}/{repo}" for repo in repos]
        for i, repo in enumerate(names):
            # The busiest has a short time limit, so that some builds run into it while one looks.
            world.add_repo(repo, private=i == 2, gated=i == 3, timeout=1 if i == 0 else 60)
        world.add_repo(f"{owner}/empty")
        life = Life(
            world=world, repos=names, since=now - past, lively=now - 300, every=every, agents=agents,
            crons={names[1]: ("nightly", DAY), names[4]: ("smoke", 3600.0)},
        )  # fmt: skip
        # Its agent died three days ago: such a build stays open, and is given up in the end.
        world.at(now - 3 * DAY, partial(_forgotten, world, names[-1]))
        if name == STUCK:
            world.at(now - 3 * 3600, partial(_forgotten, world, names[-2]))
        if world.traits.gates:
            world.at(now - 60, partial(_waiting, world, names[3]))
        life.begin()
        made.append((name, dialect, world))
    return made


def _forgotten(world: World, repo: str, at: float) -> None:
    world.start_build(repo, running=True, at=at)


def _waiting(world: World, repo: str, at: float) -> None:
    world.start_build(repo, event="pull_request", pull=42, gated=True, at=at)

"""The whole page of a small world, kept as a file: what changes there, changes for users.

`UPDATE_GOLDEN=1 pytest tests/test_golden.py` writes the files anew; read the difference before it is
committed.
"""

import os
import subprocess
from pathlib import Path

import pytest
from programs import needs
from rig import START, Rig, rig

from exporter.config_delivery import DeliverySettings
from exporter.delivery import DeliveryGauges
from exporter.metrics import METRICS
from exporter.simulator import Clock, World

GOLDEN = Path(__file__).parent / "data" / "golden"
OF_THE_PROCESS = (
    "python_",
    "process_",
    "ci_alertmanager_",
    "ci_server_poll_duration_seconds",
    "ci_exporter_build_info",
    "ci_ledger",
    "ci_hook_requests_total",
)
"""Families that say nothing of the world: times of this machine, versions, sizes."""


def history(world: World) -> None:
    """What had ended before the exporter came."""
    world.add_repo("octo/hello", default_branch="main")
    world.add_repo("octo/quiet", default_branch="main")
    for outcome in ("success", "failure", "success", "success", "success"):
        run(world, "octo/hello", outcome)
    run(world, "octo/hello", "failure", event="cron", cron="nightly")


def live(world: World) -> None:
    """What ends while it watches."""
    run(world, "octo/hello", "failure", commit="c" * 40)
    run(world, "octo/hello", "success", commit="c" * 40)
    run(world, "octo/hello", "cancelled", branch="develop")
    run(world, "octo/hello", "timeout", branch="develop")
    run(world, "octo/hello", "error")
    run(world, "octo/hello", "success", event="pull_request", pull=7)
    run(world, "octo/hello", "success", event="tag", tag="v1.0")
    if world.dialect == "abf":
        number = world.start_build("octo/hello", running=True)
        world.finish("octo/hello", number)
        world.publish("octo/hello", number, ends=world.clock.now() + 30)
    elif world.dialect == "drone-1":
        run(world, "octo/hello", "success", event="promote", environment="production")
        run(world, "octo/hello", "success", event="cron", cron="nightly")
    else:
        run(world, "octo/hello", "success", event="deployment", environment="production")
    world.start_build("octo/hello", running=True)
    world.start_build("octo/hello", branch='odd "name"\\')


def run(world: World, repo: str, outcome: str, **about: object) -> None:
    number = world.start_build(repo, **about)
    world.clock.advance(5)
    world.run(repo, number)
    world.clock.advance(40)
    world.finish(repo, number, outcome)
    world.clock.advance(15)


def page(ci: Rig, *, openmetrics: bool) -> str:
    text = bytes(ci.page.render(openmetrics, False)).decode()
    kept, keep = [], True
    for line in text.splitlines():
        if line.startswith("# HELP "):
            keep = not line.split()[2].startswith(OF_THE_PROCESS)
        if keep and not line.startswith('ci_exporter_series{family="p'):
            kept.append(line)
    return "\n".join(kept) + "\n"


@pytest.mark.parametrize("dialect", ["drone-0.5", "drone-0.8", "drone-1", "woodpecker", "abf"])
def test_page_is_the_golden_one(dialect: str, tmp_path: Path) -> None:
    world = World(dialect, clock=Clock(START), seed=3)
    history(world)
    with rig(dialect, tmp_path, world) as ci:
        ci.settle()
        live(world)
        ci.good_poll()
        ci.good_poll(150)
        ci.good_poll()
        ci.telemetry.add_target("team")
        ci.telemetry.waiting("team", pending=1, dead=0, oldest=float(START))
        DeliveryGauges(ci.page, ci.ledger, DeliverySettings(), {"ci": ci.watch.policy}, ci.clock.now).renew()
        for suffix, openmetrics in (("txt", False), ("openmetrics.txt", True)):
            file = GOLDEN / f"{dialect}.{suffix}"
            text = page(ci, openmetrics=openmetrics)
            if os.environ.get("UPDATE_GOLDEN"):
                file.parent.mkdir(exist_ok=True)
                file.write_text(text, encoding="utf-8")
            assert text == file.read_text(encoding="utf-8")


@needs("promtool")
@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*[!s].txt")), ids=lambda file: file.stem)
def test_promtool_finds_nothing_in_it(file: Path) -> None:
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=file.read_bytes(), capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


def test_every_family_that_a_world_can_show_is_in_one() -> None:
    text = "".join(file.read_text(encoding="utf-8") for file in GOLDEN.glob("*[!s].txt"))
    shown = {line.split()[2] for line in text.splitlines() if line.startswith("# HELP ")}
    blocked = {
        "ci_oldest_blocked_build_created_timestamp_seconds",
        "ci_cron_interval_seconds",
        "ci_delivery_time_to_restore_seconds",
    }
    assert {name for name in METRICS if not name.startswith(OF_THE_PROCESS)} - shown <= blocked

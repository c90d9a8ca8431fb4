"""`build-exporter run` that ends as by a power cut, at a point that is named: `crashing.py POINT run`."""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from exporter.cli import main
from exporter.intake import Intake
from exporter.ledger import messages
from exporter.notify.outbox import Outbox

POINTS: dict[str, tuple[object, str]] = {
    "before the commit": (messages, "add"),
    "after the commit": (Intake, "take"),
    "after the send": (Outbox, "_note"),
}
"""What is called last: the messages are written, and not committed; they are; one was sent, and not noted."""


def dies(point: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def called(*args: Any, **options: Any) -> Any:
        result = None if point == "after the send" else call(*args, **options)
        told = {
            "before the commit": lambda: bool(args[1]),
            "after the commit": lambda: args[0].counted > 0,
            "after the send": lambda: bool(args[2]),
        }
        if told[point]():
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **options) if point == "after the send" else result

    return called


if __name__ == "__main__":
    crash = sys.argv.pop(1)
    place, name = POINTS[crash]
    setattr(place, name, dies(crash, getattr(place, name)))
    sys.exit(main())

"""The command `build-exporter`; the only place that prints.

Exit codes: 0 good, 1 the thing asked is bad, 2 wrong use or configuration, 3 a server refused or
could not be reached.
"""

import os
import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Runs the command line and ends the process."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        # Loading takes a moment, and an interrupt within an import would leave a traceback.
        signal.signal(signal.SIGINT, lambda *_: os._exit(1))
    from exporter.cli.commands import perform

    signal.signal(signal.SIGINT, before)
    try:
        sys.exit(perform())
    except KeyboardInterrupt:
        sys.exit(1)

"""The command `build-exporter`; the only place that prints.

Exit codes: 0 good, 1 the thing asked is bad, 2 wrong use or configuration, 3 a server refused or
could not be reached.
"""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Runs the command line and ends the process."""
    try:
        # Loading takes a moment, in which Ctrl-C must leave no traceback either.
        from exporter.cli.commands import perform

        sys.exit(perform())
    except KeyboardInterrupt:
        sys.exit(1)

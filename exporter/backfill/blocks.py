"""Spans as files of OpenMetrics, and those as blocks of a Prometheus's TSDB.

A block of promtool's takes in what one aligned span of 162 hours has; a file that reaches over several costs
it many times as long. Shorter spans, which Prometheus compacts by itself, bound the memory that it takes.
"""

import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self

from exporter.backfill import HOUR, BackfillError
from exporter.backfill.tracks import Span

LENGTHS = tuple(hours * HOUR for hours in (162, 54, 18, 6, 2))
"""Lengths of a block in seconds that Prometheus compacts: 2 h · 3^n, within `LONGEST`."""
LARGEST = 1_200_000_000
"""Bytes that a file should not exceed: promtool maps it into memory. It makes every series anew for each."""
LINE = 200
"""Bytes of a line, and what is written around changes beside it."""
LONGEST = "336h"
PROMTOOL = "promtool"


def promtool() -> str | None:
    """Where promtool is installed, if it is."""
    return shutil.which(PROMTOOL)


def command(program: str, file: str, directory: str) -> list[str]:
    """The command that makes blocks of a file."""
    limit = f"--max-block-duration={LONGEST}"  # it is hidden, and must stand before `openmetrics`
    return [program, "tsdb", "create-blocks-from", limit, "openmetrics", file, directory]


def spans(begin: int, end: int, length: int) -> Iterator[Span]:
    """The spans of that length from `begin` up to `end`, one for each block."""
    while begin < end:
        last = min((begin // length + 1) * length, end)
        yield Span(begin, last)
        begin = last


def length_of(lines: int) -> int:
    """How long spans may be where each hour has so many lines."""
    hourly = max(1, lines) * LINE
    fitting = (length for length in LENGTHS if length // HOUR * hourly <= LARGEST)
    return next(fitting, LENGTHS[-1])


class Blocks:
    """Makes blocks of one file while the next one is written; without promtool the files stay as they are."""

    def __init__(self, program: str | None, directory: Path, *, keep_text: bool) -> None:
        self._program, self._directory, self._keep_text = program, directory, keep_text
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="promtool")
        self._made: Future[None] | None = None

    def add(self, file: Path) -> None:
        """Takes in a file; raises `BackfillError` where none could be made of the one before."""
        self._wait()
        if self._program is not None:
            self._made = self._worker.submit(self._make, self._program, file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        try:
            if failed is None:
                self._wait()
        finally:
            self._worker.shutdown()

    def _wait(self) -> None:
        made, self._made = self._made, None
        if made is not None:
            made.result()

    def _make(self, program: str, file: Path) -> None:
        self._directory.mkdir(exist_ok=True)
        made = subprocess.run(  # noqa: S603  # a program and paths of the user's own
            command(program, str(file), str(self._directory)), capture_output=True, text=True, check=False
        )
        if made.returncode:
            reason = (made.stderr.strip() or made.stdout.strip() or "it gave no reason").splitlines()[-1]
            raise BackfillError(f"promtool made no block of {file}: {reason}")
        if not self._keep_text:
            file.unlink()

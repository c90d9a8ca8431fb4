"""Programs that are started, looked after and ended, and nothing of them left behind."""

import os
import queue
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias, TypeVar

Heard: TypeAlias = queue.SimpleQueue[int]
"""Numbers of signals, and 0 for a program that ended."""
T = TypeVar("T")

GRACE = 5.0
"""Seconds that a program has to end by itself."""
STEP = 0.1
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class EndedError(Exception):
    """The demo was told to end."""


class ProgramError(Exception):
    """A program did not do what it was started for; `str()` says what it wrote last."""


@contextmanager
def hearing() -> Iterator[Heard]:
    """What is told to end within it does so where it waits next, and is not interrupted elsewhere."""
    heard: Heard = queue.SimpleQueue()
    before = {number: signal.signal(number, lambda got, _: heard.put(got)) for number in SIGNALS}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Child:
    """A program in a process group of its own, so that Ctrl-C reaches it through us alone."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        environ: Mapping[str, str],
        over: Callable[[], None],
    ) -> None:
        """Starts it; what it writes goes to the file `log`. `over` is called once it has ended."""
        self.name, self.log = name, log
        self._over, self._call = threading.Event(), over
        self._lock = threading.Lock()
        with log.open("ab") as file:
            self._process = subprocess.Popen(  # noqa: S603  # programs of this package's choice
                [*_with_us(), *command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environ},
                start_new_session=True,
            )
        threading.Thread(target=self._watch, name=name, daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._over.is_set()

    @property
    def code(self) -> int:
        """Its exit code, or the number of the signal that ended it, below 0; 0 while it runs."""
        return self._process.returncode or 0

    @property
    def last_words(self) -> str:
        """The last line that it wrote."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "nothing")[:1000]

    def ask(self) -> None:
        """Tells it to end."""
        self._signal(signal.SIGTERM)

    def wait(self, until: float) -> None:
        """Waits for its end up to this monotonic time, then ends it."""
        if not self._over.wait(max(0.0, until - time.monotonic())):
            self._signal(signal.SIGKILL)
            self._over.wait()

    def _signal(self, number: signal.Signals) -> None:
        with self._lock:
            if self._process.returncode is None:
                os.killpg(self.pid, number)

    def _watch(self) -> None:
        # While its end is not taken note of, no other process has its number: its group can be ended safely.
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with self._lock:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
        self._over.set()
        self._call()


class Children:
    """The programs of a demo; leaving the `with` ends them all.

    Signals and deaths are heard where one waits: in `pause` and what is built on it. There, a signal raises
    `EndedError`.
    """

    def __init__(
        self,
        directory: Path,
        died: Callable[[Child], None],
        heard: Heard | None = None,
        grace: float = GRACE,
    ) -> None:
        """`died` is told of each that ends by itself, once it was started to stay; `heard`: of `hearing`."""
        self._directory, self._died, self._grace = directory, died, grace
        self._children: list[Child] = []
        self._staying: set[Child] = set()
        self._heard = heard or queue.SimpleQueue()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in reversed(self._children):
            child.ask()
        until = time.monotonic() + self._grace
        for child in self._children:
            child.wait(until)

    def start(self, name: str, command: Sequence[str], environ: Mapping[str, str] | None = None) -> Child:
        """Starts a program that stays, and looks after it."""
        child = self._start(name, command, environ)
        self._staying.add(child)
        return child

    def run(self, name: str, command: Sequence[str]) -> None:
        """Runs a program to its end; raises `ProgramError` where that is a bad one."""
        child = self._start(name, command, None)
        while not child.ended:
            self.pause(STEP)
        if child.code:
            raise ProgramError(f"{name} failed: {child.last_words}")

    def until(self, child: Child, look: Callable[[], T], seconds: float) -> T:
        """What `look` answers once that is true; raises `ProgramError` where `child` ends, or on time-out."""
        deadline = time.monotonic() + seconds
        while not (found := look()):
            if child.ended or time.monotonic() > deadline:
                self._staying.discard(child)
                how = "ended at once" if child.ended else f"did not answer within {seconds:g} s"
                raise ProgramError(f"{child.name} {how}: {child.last_words}")
            self.pause(STEP)
        return found

    def pause(self, seconds: float) -> None:
        """Waits so long, or shorter where a program ends; raises `EndedError` on a signal."""
        with suppress(queue.Empty):
            if self._heard.get(timeout=seconds):
                raise EndedError
        for child in [child for child in self._staying if child.ended]:
            self._staying.discard(child)
            self._died(child)

    def _start(self, name: str, command: Sequence[str], environ: Mapping[str, str] | None) -> Child:
        log = self._directory / f"{name}.log"
        child = Child(name, command, log, environ or {}, lambda: self._heard.put(0))
        self._children.append(child)
        return child


def _with_us() -> list[str]:
    """What lets a program end when we are killed, where the system has it (util-linux)."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []

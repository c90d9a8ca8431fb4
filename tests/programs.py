"""Programs that some tests run, which `make test-tools` or a package of Python installs."""

import shutil
import sys
from glob import glob
from pathlib import Path

import pytest

POSTGRESQL = sorted(glob("/usr/lib/postgresql/*/bin"), reverse=True)
"""Debian keeps the server's programs out of the path, one directory a version."""
BESIDE_PYTHON = str(Path(sys.executable).parent)
"""Where packages of Python put their programs."""


def path_of(program: str) -> str | None:
    """Where the program is installed, if it is."""
    return next(
        filter(None, (shutil.which(program, path=where) for where in (None, BESIDE_PYTHON, *POSTGRESQL))),
        None,
    )


def needs(*programs: str) -> pytest.MarkDecorator:
    """Marks a test that runs these programs: skipped without them, failed with CI=true."""
    return pytest.mark.needs(*programs)

"""Programs that some tests run, which `make test-tools` installs."""

import shutil
from glob import glob

import pytest

POSTGRESQL = sorted(glob("/usr/lib/postgresql/*/bin"), reverse=True)
"""Debian keeps the server's programs out of the path, one directory a version."""


def path_of(program: str) -> str | None:
    """Where the program is installed, if it is."""
    return next(filter(None, (shutil.which(program, path=where) for where in (None, *POSTGRESQL))), None)


def needs(*programs: str) -> pytest.MarkDecorator:
    """Marks a test that runs these programs: skipped without them, failed with CI=true."""
    return pytest.mark.needs(*programs)

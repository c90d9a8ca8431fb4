"""The settings of log excerpts: what is an error in them, and what is left out as secret."""

from pathlib import Path
from typing import Annotated

import regex
from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator

from exporter import fields
from exporter.filters import Settings

SHORTEST = 4
"""Characters of the shortest value that can be left out: a shorter one stands in any text."""


def _expression(pattern: str) -> str:
    try:
        compiled = regex.compile(pattern)
    except regex.error as error:
        raise ValueError(f"is no regular expression: {error}") from None
    if compiled.search(""):
        raise ValueError("fits where nothing stands, and so everywhere")
    return pattern


Expression = Annotated[str, Field(min_length=1), AfterValidator(_expression)]


class RedactSettings(Settings):
    """What is left out of log excerpts, beside all secrets of this file and what looks like one."""

    values_file: Path | None = None
    """File with values to leave out, one a line, each of at least 4 characters; relative to the directory
    of the configuration file."""
    values: tuple[SecretStr, ...] = Field(default=(), validate_default=True, exclude=True)
    """The values themselves, as read; never in the file."""
    patterns: tuple[Expression, ...] = ()
    """Regular expressions; all that fits is left out. One that takes longer than a second on a log costs
    the message its excerpt."""

    @field_validator("values")
    @classmethod
    def _read_values(cls, given: tuple[SecretStr, ...], info: ValidationInfo) -> tuple[SecretStr, ...]:
        if given and info.context is not None:
            raise ValueError("a secret does not belong in this file: use values_file")
        file = info.data.get("values_file")
        if file is None:
            return given
        text = fields.text_of("values", file, info)
        if len(text.encode()) >= fields.SECRET_SIZE:
            raise fields.fault("values_file", f"{file} is larger than {fields.SECRET_SIZE >> 10} KiB")
        found = []
        for number, line in enumerate(text.splitlines(), start=1):
            value = line.strip()
            if value and len(value) < SHORTEST:
                raise fields.fault(
                    "values_file", f"{file}: line {number} has less than {SHORTEST} characters"
                )
            found += [SecretStr(value)] if value else []
        return tuple(found)

    @property
    def expressions(self) -> tuple[regex.Pattern[str], ...]:
        """The patterns, ready to search with."""
        return tuple(map(regex.compile, self.patterns))


class ExcerptSettings(Settings):
    """The lines of a failing step's log that a message shows."""

    patterns: dict[fields.RepoPattern, tuple[Expression, ...]] = Field(default_factory=dict)
    """By pattern of `owner/name`: regular expressions that find the line that says what went wrong, where
    the built-in ones choose badly."""

    def of(self, repo: str) -> tuple[regex.Pattern[str], ...]:
        """The expressions of all patterns that fit the repo, in the order of the file."""
        fitting = (own for pattern, own in self.patterns.items() if fields.fits(repo, (pattern,)))
        return tuple(regex.compile(expression) for own in fitting for expression in own)

"""The kinds of values that settings have: durations, addresses, patterns, files and secrets.

A value that is refused says what to write instead and never repeats what may be a secret.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, StrictInt, ValidationInfo
from pydantic_core import PydanticCustomError

LONGEST = 36500 * 86400.0
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
SECRET_SIZE = 65536


@dataclass(frozen=True, slots=True)
class Source:
    """The file that settings come from: what its relative paths and names of variables refer to."""

    directory: Path
    environ: Mapping[str, str]
    names: set[tuple[str, str]] = field(default_factory=set)
    """Servers and targets met so far."""

    def claim(self, kind: str, name: str) -> None:
        """Takes in that a server or target has this name; raises `ValueError` when another has it."""
        if (kind, name) in self.names:
            raise ValueError(f"is the name of another {kind} already")
        self.names.add((kind, name))


def suggestion(word: str, known: list[str]) -> str:
    """`; did you mean …?`, or the list of what is known where nothing is near."""
    near = get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"


def seconds(text: str) -> float:
    """The length of a duration like `15s`, `90d` or `1h30m`; `0` needs no unit."""
    if not re.fullmatch(r"(?:[0-9]+(?:\.[0-9]+)?[smhdw])+|0", text):
        raise ValueError("must be a duration with its unit, like 15s, 10m, 1h30m or 90d")
    length = sum(float(number) * UNITS[unit] for number, unit in re.findall(r"([0-9.]+)([smhdw])", text))
    if length > LONGEST:
        raise ValueError("must be at most 36500d")
    return length


def _duration(least: str) -> Callable[[object, ValidationInfo], float]:
    def read(value: object, info: ValidationInfo) -> float:
        if info.context is None and isinstance(value, int | float):
            return float(value)  # from code: seconds already, and free of the file's minimum
        length = seconds(str(value))
        if length < seconds(least):
            raise ValueError(f"must be at least {least}")
        return length

    return read


def _web_address(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or re.search(r"[^!-~]", url):
        raise ValueError("must be an address like https://ci.example.com")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user or password")
    if "?" in url or "#" in url:
        raise ValueError("must not hold a query (?) or fragment (#)")
    return url.rstrip("/")


def _name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", name):
        raise ValueError("must be letters, digits, '.', '_' and '-', at most 63, the first a letter or digit")
    return name


def _listen(listen: str) -> str:
    fits_form = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})", listen)
    if not fits_form or int(fits_form[2]) > 65535:
        raise ValueError("must be an address and a port, like 127.0.0.1:9848 or [::1]:9848")
    return listen


def _port(port: int) -> int:
    if not 0 < port < 65536:
        raise ValueError("must be a port, from 1 to 65535")
    return port


def _some(given: tuple[object, ...]) -> tuple[object, ...]:
    if not given:
        raise ValueError("must not be empty")
    return given


def _existing(path: Path, info: ValidationInfo) -> Path:
    if isinstance(info.context, Source):
        path = info.context.directory / path
    if not os.path.isfile(path):
        raise ValueError("the file named here does not exist")
    return path


def _repo_pattern(pattern: str) -> str:
    if "/" not in pattern and "*" not in pattern:
        raise ValueError(
            "is matched with owner/name, so that it never fits; write owner/* for all repos of an owner"
        )
    return pattern


def _owner(name: str) -> str:
    if re.search(r"[*?\[\]]", name):
        raise ValueError("is no pattern: write patterns like team-*/* under include")
    if name.startswith("/") or name.endswith("/"):
        raise ValueError("must be an owner's name alone, without '/' at its ends")
    return name


def secret(key: str, inline: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
    """The secret that `<key>_file` or `<key>_env` names, else `inline`; errors never show a value."""
    file, variable = info.data.get(f"{key}_file"), info.data.get(f"{key}_env")
    if sum(given is not None for given in (file, variable, inline)) > 1:
        raise ValueError(f"is given twice: keep one of {key}, {key}_file and {key}_env")
    if file is not None:
        return SecretStr(_one_line(text_of(key, file, info), f"{key}_file", f"{file} "))
    if variable is not None:
        value = info.context.environ.get(variable, "") if isinstance(info.context, Source) else ""
        return SecretStr(_one_line(value, f"{key}_env", "the environment variable named here "))
    return inline


def kept_secret(key: str, given: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
    """As `secret`, where the file must not hold the secret itself."""
    if given is not None and info.context is not None:
        raise ValueError(f"a secret does not belong in this file: use {key}_file or {key}_env")
    return secret(key, given, info)


def text_of(key: str, file: Path, info: ValidationInfo) -> str:
    """The beginning of the text of the file that `<key>_file` names; it holds secrets."""
    path = info.context.directory / file if isinstance(info.context, Source) else file
    try:
        with path.open("rb") as opened:
            return opened.read(SECRET_SIZE).decode()
    except UnicodeDecodeError:
        raise fault(f"{key}_file", f"{file} is not text") from None
    except OSError as error:
        # A bare word may be the secret itself, written under the wrong key: it is not repeated.
        shown = str(file) if "/" in str(file) or os.path.exists(path) else "the file named here"
        raise fault(f"{key}_file", f"{shown} cannot be read: {error.strerror}") from None


def _one_line(text: str, key: str, what: str) -> str:
    value = text.strip()
    if not value:
        raise fault(key, f"{what}is empty or not set")
    if re.search(r"[^!-~]", value):
        raise fault(key, f"{what}must hold one line of printable ASCII without spaces")
    return value


def fault(key: str, text: str) -> PydanticCustomError:
    """An error of the setting `key` beside the one that is being validated."""
    return PydanticCustomError("beside", "{text}", {"text": text, "key": key})


def fits(text: str, patterns: Iterable[str]) -> bool:
    """True when a pattern fits the whole text; upper and lower case differ."""
    return any(fnmatchcase(text, pattern) for pattern in patterns)


Duration = Annotated[float, BeforeValidator(_duration("1s"))]
MaybeDuration = Annotated[float, BeforeValidator(_duration("0"))]
LongDuration = Annotated[float, BeforeValidator(_duration("1h"))]
SOME = AfterValidator(_some)
Name = Annotated[str, AfterValidator(_name)]
Port = Annotated[StrictInt, AfterValidator(_port)]
Listen = Annotated[str, AfterValidator(_listen)]
WebAddress = Annotated[str, AfterValidator(_web_address)]
ExistingFile = Annotated[Path, AfterValidator(_existing)]
Patterns = tuple[Annotated[str, Field(min_length=1)], ...]
Owner = Annotated[str, Field(min_length=1), AfterValidator(_owner)]
RepoPattern = Annotated[str, Field(min_length=1), AfterValidator(_repo_pattern)]

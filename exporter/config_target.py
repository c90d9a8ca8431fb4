"""What the settings of all targets share: a name, how long they may take, and what of them is secret."""

import re
from collections.abc import Iterator
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from exporter import fields
from exporter.filters import Settings

SECRET_PATH, SECRET_WORD, SECRET_SEGMENT = 12, 8, 16
"""Characters from which on a part of a webhook's address is taken for a secret of its own."""


class TargetSettings(Settings):
    """One place that messages go to."""

    name: fields.Name
    """What the target is called in `routes`, metrics and logs: letters, digits, `.`, `_`, `-`. Keep it:
    what waits for another name is not sent."""
    timeout: fields.Duration = Field(default="10s", validate_default=True)
    """How long it may take to send one message."""
    ca_file: fields.ExistingFile | None = None
    """Certificates (PEM) to trust in place of the system's."""

    @field_validator("name")
    @classmethod
    def _unique(cls, name: str, info: ValidationInfo) -> str:
        if isinstance(info.context, fields.Source):
            info.context.claim("target", name)
        return name

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every text of it that must never be shown."""
        given = (getattr(self, name) for name in type(self).model_fields)
        read = [value.get_secret_value() for value in given if isinstance(value, SecretStr)]
        parts = [part for secret in read if "://" in secret for part in _secret_parts(secret)]
        return tuple(dict.fromkeys(filter(None, (*read, *parts))))


def _secret_parts(address: str) -> Iterator[str]:
    """What of an address is a secret even alone, as it is sent and as it may come back."""
    try:
        parts = urlsplit(address)
        words = [parts.username, parts.password]
    except ValueError:
        return
    web = parts.scheme in {"http", "https"}
    if not web:
        # Apprise takes tokens from wherever a host or user would stand.
        words += [word for word in re.split(r"[@:/]", parts.netloc) if len(word) >= SECRET_WORD]
    words += [value for _, value in parse_qsl(parts.query) if len(value) >= SECRET_WORD]
    words += [parts.query] if len(parts.query) >= SECRET_WORD else []
    words += [parts.path] if len(parts.path) >= SECRET_PATH else []
    least = SECRET_SEGMENT if web else SECRET_WORD
    words += [segment for segment in parts.path.split("/") if len(segment) >= least]
    for word in filter(None, words):
        yield from (word, unquote(word))

"""The settings of an Alertmanager, which is told what is red in place of what happens."""

import base64
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from exporter import fields
from exporter.config_target import TargetSettings
from exporter.filters import Text


class AlertmanagerSettings(TargetSettings):
    """An Alertmanager, or all of a cluster."""

    type: Literal["alertmanager"]
    """`alertmanager`."""
    urls: Annotated[tuple[fields.WebAddress, ...], fields.SOME]
    """Where it answers, like `http://alertmanager:9093`. Of a cluster the address of every one of it, not
    that of a load balancer: each must be told itself."""
    login: Text | None = None
    """Name of the user, where it wants a password."""
    password_file: Path | None = None
    """File that holds the password of `login`; relative to the directory of the configuration file."""
    password_env: str | None = None
    """Environment variable that holds the password, instead of `password_file`."""
    password: SecretStr | None = Field(default=None, validate_default=True, exclude=True)
    """The password itself, as read; never in the file."""
    token_file: Path | None = None
    """File that holds a bearer token, where it wants one."""
    token_env: str | None = None
    """Environment variable that holds the token, instead of `token_file`."""
    token: SecretStr | None = Field(default=None, validate_default=True, exclude=True)
    """The token itself, as read; never in the file."""
    proxy: fields.WebAddress | None = None
    """HTTP proxy through which it is reached."""

    @field_validator("urls")
    @classmethod
    def _once(cls, urls: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        for url in urls:
            if "/api/v" in url:
                raise ValueError(
                    "must be addresses of Alertmanagers themselves: write what stands before /api"
                )
        known = info.context.names if isinstance(info.context, fields.Source) else set()
        for url in urls:
            if ("alertmanager", url) in known or urls.count(url) > 1:
                raise ValueError(f"{url} is named twice")
        known |= {("alertmanager", url) for url in urls}
        return urls

    @field_validator("password")
    @classmethod
    def _read_password(cls, given: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        read, login = fields.kept_secret("password", given, info), info.data.get("login")
        if (read is None) == (login is None):
            return read
        if login:
            raise fields.fault("login", "has no password: add password_file or password_env")
        raise fields.fault("name", "has a password, but no login")

    @field_validator("token")
    @classmethod
    def _read_token(cls, given: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        read = fields.kept_secret("token", given, info)
        if read is not None and info.data.get("login") is not None:
            raise fields.fault("login", "stands beside a token: keep one of them")
        return read

    @property
    def authorization(self) -> str:
        """The header of that name; empty where nobody has to say who they are."""
        if self.token is not None:
            return f"Bearer {self.token.get_secret_value()}"
        if self.password is None:
            return ""
        pair = f"{self.login}:{self.password.get_secret_value()}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"

"""The settings below `hooks`: who may send what to the exporter."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator

from exporter import fields
from exporter.filters import Settings, Text


def _known_server(name: str, info: ValidationInfo) -> str:
    if isinstance(info.context, fields.Source) and ("server", name) not in info.context.names:
        known = sorted(other for kind, other in info.context.names if kind == "server")
        raise ValueError(f"is no server{fields.suggestion(name, known) if known else ': there are none'}")
    return name


class AlertmanagerSettings(Settings):
    """Alerts of an Alertmanager, at `/hooks/alertmanager`: with a token, or with `login` and password."""

    token_file: Path | None = None
    """File that holds the token that Alertmanager sends (`authorization: {credentials_file: …}`)."""
    token_env: str | None = None
    """Environment variable that holds the token, instead of `token_file`."""
    token: SecretStr | None = Field(default=None, validate_default=True, exclude=True)
    """The token itself, as read; never in the file."""
    login: Text | None = None
    """Name that Alertmanager signs in with (`basic_auth: {username: …}`), instead of a token."""
    password_file: Path | None = None
    """File that holds the password of `login`."""
    password_env: str | None = None
    """Environment variable that holds the password, instead of `password_file`."""
    password: SecretStr | None = Field(default=None, validate_default=True, exclude=True)
    """The password itself, as read; never in the file."""

    @field_validator("token")
    @classmethod
    def _read_token(cls, given: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        return fields.kept_secret("token", given, info)

    @field_validator("password")
    @classmethod
    def _read_password(cls, given: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        read, login = fields.kept_secret("password", given, info), info.data.get("login")
        if (read is None) != (login is None):
            what = "has no password: add password_file or password_env" if login else "is missing: a name"
            raise fields.fault("login", what)
        if "token" in info.data and (read is None) == (info.data["token"] is None):
            what = "stands beside a token: keep one of them" if read else NOBODY
            raise fields.fault("login" if read else "token_file", what)
        return read


class DroneHookSettings(Settings):
    """What a Drone server (1.0 or newer) says of its builds, at `/hooks/drone`."""

    server: Annotated[Text, AfterValidator(_known_server)]
    """Name of the server below `servers` that is looked at then."""
    secret_file: Path | None = None
    """File that holds the server's `DRONE_WEBHOOK_SECRET`: each server has its own."""
    secret_env: str | None = None
    """Environment variable that holds the secret, instead of `secret_file`."""
    secret: SecretStr | None = Field(default=None, validate_default=True, exclude=True)
    """The secret itself, as read; never in the file."""

    @field_validator("secret")
    @classmethod
    def _read_secret(cls, given: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        read = fields.kept_secret("secret", given, info)
        if read is None:
            raise fields.fault("server", "has no secret: add secret_file or secret_env")
        return read

    @property
    def key(self) -> bytes:
        """The bytes that signatures are made with."""
        return self.secret.get_secret_value().encode() if self.secret else b""


class HooksSettings(Settings):
    """What others may send to the exporter, on an address of its own; off where nothing is named here."""

    listen: fields.Listen = "127.0.0.1:9849"
    """Address and port; nothing is listened on while neither `alertmanager` nor `drone` is there."""
    alertmanager: AlertmanagerSettings | None = None
    """Alerts that are passed on to the targets of `notify`."""
    drone: tuple[DroneHookSettings, ...] = ()
    """Servers that say when a build changed, so that it is looked at once."""

    @property
    def on(self) -> bool:
        """True when there is something to listen for."""
        return self.alertmanager is not None or bool(self.drone)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every text that must never be shown."""
        given = [hook.secret for hook in self.drone]
        if self.alertmanager:
            given += [self.alertmanager.token, self.alertmanager.password]
        return tuple(secret.get_secret_value() for secret in given if secret is not None)


NOBODY = "is missing: anybody could send alerts; add token_file, token_env or a login"

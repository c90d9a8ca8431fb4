"""The settings below `notify`: where messages go."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from exporter import fields
from exporter.config_alertmanager import AlertmanagerSettings
from exporter.config_excerpt import ExcerptSettings, RedactSettings
from exporter.config_routes import People, QuietSettings, RouteSettings
from exporter.config_target import TargetSettings
from exporter.filters import Settings, Text
from exporter.routes import Routes, handles

SLACK_API = "https://slack.com/api"
ADDRESS = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@[A-Za-z0-9.-]+"
ADDRESSES = "must be mail addresses, like ci@example.com"


class HttpSettings(TargetSettings):
    """A target behind a web address, which is a secret."""

    url_file: Path | None = None
    """File that holds the address; relative to the directory of the configuration file."""
    url_env: str | None = None
    """Environment variable that holds the address, instead of `url_file`."""
    url: SecretStr | None = Field(default=None, validate_default=True, exclude=True)
    """The address itself, as read; never in the file."""
    proxy: fields.WebAddress | None = None
    """HTTP proxy through which it is reached."""

    @field_validator("url")
    @classmethod
    def _read_url(cls, given: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        return _address(fields.kept_secret("url", given, info), info)


class SignedSettings(HttpSettings):
    """A target that may want its messages signed."""

    secret_file: Path | None = None
    """File that holds the secret that messages are signed with; without one they are not signed."""
    secret_env: str | None = None
    """Environment variable that holds the secret, instead of `secret_file`."""
    secret: SecretStr | None = Field(default=None, validate_default=True, exclude=True)
    """The secret itself, as read; never in the file."""

    @field_validator("secret")
    @classmethod
    def _read_secret(cls, given: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        return fields.kept_secret("secret", given, info)


class WebhookSettings(SignedSettings):
    """JSON, to a program of yours."""

    type: Literal["webhook"]
    """`webhook`."""


class DingtalkSettings(SignedSettings):
    """A robot of a DingTalk group."""

    type: Literal["dingtalk"]
    """`dingtalk`."""
    keyword: Text | None = None
    """The word that the robot demands in every message, if it does."""


class FeishuSettings(SignedSettings):
    """A robot of a Feishu or Lark group."""

    type: Literal["feishu", "lark"]
    """`feishu` or `lark`."""
    keyword: Text | None = None
    """The word that the robot demands in every message, if it does."""


class WecomSettings(HttpSettings):
    """A robot of a WeCom group."""

    type: Literal["wecom"]
    """`wecom`."""


class SlackSettings(HttpSettings):
    """A Slack channel, by an incoming webhook (`url_*`) or as a bot (`token_*` and `channel`)."""

    type: Literal["slack"]
    """`slack`."""
    channel: Text | None = None
    """Id of the channel (`C0123456789`) that the bot writes to."""
    api_url: fields.WebAddress = SLACK_API
    """Where Slack's Web API answers."""
    token_file: Path | None = None
    """File that holds the token (`xoxb-…`, scope `chat:write`) of a bot that is in the channel. As a bot,
    what becomes of a red branch is written over the message that told of it."""
    token_env: str | None = None
    """Environment variable that holds the token, instead of `token_file`."""
    token: SecretStr | None = Field(default=None, validate_default=True, exclude=True)
    """The token itself, as read; never in the file."""

    @field_validator("url")
    @classmethod
    def _read_url(cls, given: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        read = fields.kept_secret("url", given, info)
        return None if read is None else _address(read, info)

    @field_validator("token")
    @classmethod
    def _read_token(cls, given: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        read, has_url = fields.kept_secret("token", given, info), info.data.get("url") is not None
        if "url" in info.data and (read is not None) == has_url:
            what = "has both an address and a token: keep one" if read else NO_WAY
            raise fields.fault("name", what)
        if read is not None and "channel" in info.data and info.data["channel"] is None:
            raise fields.fault("name", "has a token, but no channel: add its id as channel")
        return read


class EmailSettings(TargetSettings):
    """Mail, by SMTP."""

    type: Literal["email"]
    """`email`."""
    timeout: fields.Duration = Field(default="30s", validate_default=True)
    """How long it may take to send one message."""
    host: Text
    """Name or address of the mail server."""
    port: fields.Port | None = None
    """Its port; left out: 587 with `starttls`, 465 with `tls`, 25 with `none`."""
    security: Literal["starttls", "tls", "none"] = "starttls"
    """`starttls`, `tls` from the first byte, or `none`."""
    from_: Text = Field(validation_alias="from")
    """The sender's address, like `ci@example.com`."""
    to: Annotated[tuple[Text, ...], fields.SOME]
    """The addresses that get every message."""
    login: Text | None = None
    """Name of the user, where the server wants one."""
    password_file: Path | None = None
    """File that holds the password of `login`; relative to the directory of the configuration file."""
    password_env: str | None = None
    """Environment variable that holds the password, instead of `password_file`."""
    password: SecretStr | None = Field(default=None, validate_default=True, exclude=True)
    """The password itself, as read; never in the file."""

    @field_validator("from_", "to")
    @classmethod
    def _addresses(cls, given: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for address in (given,) if isinstance(given, str) else given:
            if not re.fullmatch(ADDRESS, address):
                raise ValueError(ADDRESSES)
        return given

    @field_validator("password")
    @classmethod
    def _read_password(cls, given: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        read, login = fields.kept_secret("password", given, info), info.data.get("login")
        if (read is None) != (login is None):
            what = "has no password: add password_file or password_env"
            raise (
                fields.fault("login", what) if login else fields.fault("name", "has a password, but no login")
            )
        if read is not None and info.data.get("security") == "none":
            raise fields.fault("security", "must not be none where a password is sent")
        return read


class AppriseSettings(TargetSettings):
    """Anything else that Apprise reaches, by its URL; needs `pip install 'build-exporter[apprise]'`."""

    type: Literal["apprise"]
    """`apprise`."""
    url_file: Path | None = None
    """File that holds Apprise's URL; relative to the directory of the configuration file."""
    url_env: str | None = None
    """Environment variable that holds Apprise's URL, instead of `url_file`."""
    url: SecretStr | None = Field(default=None, validate_default=True, exclude=True)
    """The URL itself, as read; never in the file."""

    @field_validator("url")
    @classmethod
    def _read_url(cls, given: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if find_spec("apprise") is None:
            raise fields.fault("type", "needs another package: pip install 'build-exporter[apprise]'")
        read = fields.kept_secret("url", given, info)
        if read is None or "://" not in read.get_secret_value():
            raise fields.fault("name", "has no URL like json://host/path: add url_file or url_env")
        return read


ChannelSettings: TypeAlias = (
    WebhookSettings
    | EmailSettings
    | SlackSettings
    | DingtalkSettings
    | WecomSettings
    | FeishuSettings
    | AppriseSettings
)
"""Targets that are told in messages what happens; an Alertmanager is told what is."""
AnyTarget = Annotated[ChannelSettings | AlertmanagerSettings, Field(discriminator="type")]


class NotifySettings(Settings):
    """Who is told what."""

    targets: tuple[AnyTarget, ...] = ()
    """Where messages go; none: nobody is told."""
    routes: tuple[RouteSettings, ...] = ()
    """Who is told of what, tried from the top; none: every target is told of all but pull requests."""
    quiet_hours: tuple[QuietSettings, ...] = ()
    """Hours in which messages wait for their end."""
    people: People = Field(default_factory=dict)
    """How authors are called: by their name at the CI server, the handle at a target's name or type."""
    storm: Annotated[int, Field(strict=True, ge=0)] = 5
    """Openings on one server within 2 minutes that are told one by one; later ones are a digest. `0`: all
    are told one by one."""
    max_age: fields.Duration = Field(default="6h", validate_default=True)
    """What is red for longer when it can be told at last is a line of a digest."""
    excerpt: ExcerptSettings = ExcerptSettings()
    """The lines of a failing step's log that a message shows."""
    redact: RedactSettings = RedactSettings()
    """What is left out of them, beside all secrets of this file and what looks like one."""

    @property
    def channels(self) -> tuple[ChannelSettings, ...]:
        """The targets that get messages."""
        return tuple(t for t in self.targets if not isinstance(t, AlertmanagerSettings))

    @property
    def alertmanagers(self) -> tuple[AlertmanagerSettings, ...]:
        """The targets that get alerts."""
        return tuple(t for t in self.targets if isinstance(t, AlertmanagerSettings))

    @property
    def rules(self) -> Routes:
        """All that says who is told what, as `exporter.routes` knows it."""
        names = tuple(target.name for target in self.targets)
        return Routes(
            targets=names,
            without_messages=frozenset(target.name for target in self.alertmanagers),
            routes=tuple(route.route for route in self.routes),
            quiet=tuple(hours.quiet for hours in self.quiet_hours),
            storm=self.storm,
            max_age=self.max_age,
            mention=handles(self.people, {target.name: target.type for target in self.targets}),
        )

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every text that must never be shown."""
        hidden = (value.get_secret_value() for value in self.redact.values)
        return (*(secret for target in self.targets for secret in target.secrets), *hidden)


NO_WAY = "has no address: add url_file or url_env, or token_file or token_env of a bot"


def _address(read: SecretStr | None, info: ValidationInfo) -> SecretStr:
    """The web address of a target, checked without repeating any of it."""
    if read is None:
        raise fields.fault("name", "has no address: add url_file or url_env")
    try:
        parts = urlsplit(read.get_secret_value())
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.fragment:
        raise fields.fault(
            next((key for key in ("url_file", "url_env") if info.data.get(key) is not None), "url"),
            "must hold an address like https://chat.example.com/hooks/…",
        )
    return read

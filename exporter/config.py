"""The settings that the configuration file may hold, their defaults, and how the file is read.

What a setting means to a user is said once, below its field; docs/configuration.md is made from it.
Durations are seconds here and text (`15s`, `1h30m`) in the file.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import (
    Field,
    SecretStr,
    StrictBool,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from exporter import fields, yamlfile
from exporter.config_delivery import DeliverySettings
from exporter.config_errors import explained, shown
from exporter.config_hooks import HooksSettings
from exporter.config_notify import NotifySettings
from exporter.filters import BuildListFilter, Only, RepoFilter, Settings, Text
from exporter.metrics import METRICS
from exporter.model import Event

LEDGER = "sqlite:///build-exporter.db"
ALWAYS_NAMED = ("main", "master", "release/*")


class ServerSettings(Settings):
    """One CI server."""

    name: fields.Name
    """What the server is called in the label `server`: letters, digits, `.`, `_`, `-`. Keep it: another
    name is another server, with a history of its own."""
    url: fields.WebAddress
    """Where the server answers, with the path prefix if it has one."""
    public_url: fields.WebAddress = Field(default="", validate_default=True)
    """Where people open the server, for links; the same as `url` where it is left out."""
    login: Text | None = None
    """Name of a user who signs in with a password, where there is no token (`abf` only)."""
    password_file: Path | None = None
    """File that holds the password of `login`; relative to the directory of the configuration file."""
    password_env: str | None = None
    """Environment variable that holds the password of `login`, instead of `password_file`."""
    password: SecretStr | None = Field(default=None, validate_default=True, exclude=True)
    """The password itself, as read; never in the file."""
    token_file: Path | None = None
    """File that holds a user's token; relative to the directory of the configuration file."""
    token_env: str | None = None
    """Environment variable that holds a user's token, instead of `token_file`."""
    token: SecretStr | None = Field(default=None, validate_default=True, exclude=True)
    """The token itself, as read; never in the file."""
    dialect: Literal["auto", "drone-0.5", "drone-0.8", "drone-1", "woodpecker", "abf"] = "auto"
    """What the server speaks: `drone-0.5`, `drone-0.8` (0.6 to 0.8), `drone-1` (1.x and 2.x), `woodpecker`
    (3.x), `abf` (ROSA's and OpenMandriva's); `auto` finds out."""
    repos: RepoFilter = RepoFilter()
    """Which repos are watched."""
    abf: BuildListFilter = BuildListFilter()
    """Which build lists are read (`abf` only)."""
    only: Only = Only()
    """Which builds count."""
    branches: fields.Patterns = ()
    """Patterns of branches that get a label value of their own, beside the default branch, `main`,
    `master` and `release/*`. It filters nothing."""
    poll: fields.Duration = Field(default="15s", validate_default=True)
    """Time between two looks for new and changed builds; at least `1s`."""
    sweep: fields.Duration = Field(default="10m", validate_default=True)
    """Time between two comparisons of every repo's newest build."""
    import_: fields.MaybeDuration = Field(default="90d", validate_default=True, validation_alias="import")
    """How far back history is read when a repo is first seen; `0`: not at all."""
    import_rate: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] = 10.0
    """Requests a second that reading history makes at most; `0`: as many as the server answers."""
    timeout: fields.Duration = Field(default="30s", validate_default=True)
    """How long the server may take for one answer."""
    ca_file: fields.ExistingFile | None = None
    """Certificates (PEM) to trust in place of the system's."""
    proxy: fields.WebAddress | None = None
    """HTTP proxy through which the server is reached."""
    stream: Literal["auto", "off"] = "auto"
    """Whether the server's change stream makes the next look come sooner, where it has one; `off`: it is
    looked at every `poll` only."""
    allow_writes: StrictBool = False
    """Whether `build-exporter builds` may restart and cancel there (ABF: cancel, publish and reject); the
    token's user needs the right to."""

    @field_validator("name")
    @classmethod
    def _unique(cls, name: str, info: ValidationInfo) -> str:
        if isinstance(info.context, fields.Source):
            info.context.claim("server", name)
        return name

    @field_validator("public_url", mode="before")
    @classmethod
    def _default_address(cls, value: object, info: ValidationInfo) -> object:
        return value or info.data.get("url") or "http://unknown"

    @field_validator("stream", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: object) -> object:
        return "off" if value is False else value  # as YAML reads an `off` without quotes

    @field_validator("password")
    @classmethod
    def _read_password(cls, given: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        read, login = fields.kept_secret("password", given, info), info.data.get("login")
        if info.context is not None and login is None and read is not None:
            raise fields.fault("name", "has a password, but no login: add it, or keep to a token")
        if info.context is not None and login is not None and read is None:
            raise fields.fault("login", "has no password: add password_file or password_env")
        return read

    @field_validator("token")
    @classmethod
    def _read_token(cls, given: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        read, login = fields.kept_secret("token", given, info), info.data.get("login")
        if info.context is not None and login is None and read is None:
            raise fields.fault(
                "name", "has no token, and every server needs one: add token_file or token_env"
            )
        if login is not None and read is not None:
            raise fields.fault("login", "stands beside a token: keep one of them")
        return read

    def watches(self, repo: str, *, active: bool = True) -> bool:
        """True when the repo `owner/name`, switched on at the server or not, is to be read."""
        return self.repos.refuses(repo, active=active) is None

    def counts(self, event: Event, branch: str) -> bool:
        """True when builds of this event and branch go into metrics and messages."""
        return (not self.only.events or event in self.only.events) and (
            not self.only.branches or fields.fits(branch, self.only.branches)
        )

    def names_branch(self, branch: str, default_branch: str) -> bool:
        """True when the branch has a label value of its own, however many others there are."""
        return branch != "" and (
            branch == default_branch
            or fields.fits(branch, ALWAYS_NAMED)
            or fields.fits(branch, self.branches)
        )


class LedgerSettings(Settings):
    """Where builds are kept, and for how long."""

    url_file: Path | None = None
    """File that holds the address of the ledger, for one with a password."""
    url_env: str | None = None
    """Environment variable that holds the address of the ledger, instead of `url_file`."""
    url: SecretStr = Field(default=LEDGER, validate_default=True)
    """`sqlite:///FILE` (relative to the working directory; `sqlite:////FILE` from the root) or
    `postgresql://USER@HOST/NAME`."""
    retention: fields.LongDuration = Field(default="400d", validate_default=True)
    """How long builds are kept; counters do not fall when they go."""
    series_retention: fields.LongDuration = Field(default="30d", validate_default=True)
    """How long the counters of a repo, branch or step stay without a build."""
    abandoned_after: fields.LongDuration = Field(default="48h", validate_default=True)
    """How long a build may be open before it is taken for abandoned."""

    @field_validator("url", mode="before")
    @classmethod
    def _read_url(cls, url: object, info: ValidationInfo) -> SecretStr:
        if not isinstance(url, str | SecretStr):
            raise fields.fault("url", "must be text")
        inline = url if isinstance(url, SecretStr) else SecretStr(url)
        read = fields.secret("url", None if url == LEDGER else inline, info) or inline
        if not re.match(r"(sqlite:///.|postgresql(\+psycopg)?://.)", read.get_secret_value()):
            raise ValueError("must begin with sqlite:/// or postgresql://")
        return read


class WebSettings(Settings):
    """Where the exporter itself answers."""

    listen: fields.Listen = "127.0.0.1:9848"
    """Address and port; `0.0.0.0:9848` is every address: read docs/opening.md first."""
    config_file: fields.ExistingFile | None = None
    """File in the form of Prometheus's `--web.config.file`: TLS, client certificates, users."""
    lifecycle: StrictBool = False
    """Whether `POST /-/reload` loads this file anew."""

    @property
    def host(self) -> str:
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])


class MetricsSettings(Settings):
    """What stands on the page `/metrics`."""

    disable: tuple[str, ...] = ()
    """Names of families to leave out."""
    created: StrictBool = False
    """Whether the OpenMetrics form has `_created` lines; Prometheus would store each as a series."""

    @field_validator("disable")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in METRICS:
                raise ValueError(f"{name} is no family{fields.suggestion(name, list(METRICS))}")
        return names


class LogSettings(Settings):
    """How the exporter logs, to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """`debug`, `info`, `warning` or `error`."""
    format: Literal["logfmt", "json"] = "logfmt"
    """`logfmt` or `json`."""


class Config(Settings):
    """The whole file."""

    servers: Annotated[tuple[ServerSettings, ...], fields.SOME]
    """The CI servers to read."""
    ledger: LedgerSettings = LedgerSettings()
    """Where builds are kept, and for how long."""
    web: WebSettings = WebSettings()
    """Where the exporter itself answers."""
    metrics: MetricsSettings = MetricsSettings()
    """What stands on the page `/metrics`."""
    log: LogSettings = LogSettings()
    """How the exporter logs."""
    delivery: DeliverySettings = DeliverySettings()
    """Which builds are deployments."""
    notify: NotifySettings = NotifySettings()
    """Who is told what."""

    hooks: HooksSettings = HooksSettings()
    """What others may send to the exporter."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every text that must never be shown."""
        given = [secret for server in self.servers for secret in (server.token, server.password)]
        read = [secret.get_secret_value() for secret in given if secret is not None]
        ledger = urlsplit(self.ledger.url.get_secret_value())
        password, options = ledger.password or "", parse_qs(ledger.query)
        read += [password, unquote(password), *options.get("password", ()), *options.get("sslpassword", ())]
        return tuple(dict.fromkeys(filter(None, (*read, *self.notify.secrets, *self.hooks.secrets))))


class ConfigError(Exception):
    """The file cannot be used; `messages` are lines `file:line:column: key: what is wrong`."""

    def __init__(self, messages: list[str]) -> None:
        super().__init__("\n".join(messages))
        self.messages = messages


def load(path: Path, environ: Mapping[str, str] | None = None) -> Config:
    """The settings in the file, secrets read; raises `ConfigError` with all that is wrong at once."""
    try:
        document = yamlfile.read(path)
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from None
    except yamlfile.NotYamlError as fault:
        raise ConfigError([f"{path}:{fault.place[0]}:{fault.place[1]}: {fault}"]) from None
    problems = list(document.problems)
    source = fields.Source(path.resolve().parent, os.environ if environ is None else environ)
    values = {} if document.values is None else document.values
    try:
        config = Config.model_validate(values, context=source, by_alias=True, by_name=False)
    except ValidationError as refused:
        told = {(place, key) for place, key, _ in problems}
        errors = refused.errors(include_url=False, include_input=False)
        found = (explained(Config, error) for error in errors)
        placed = ((document.place(key), key, text) for key, text in found)
        problems += (problem for problem in placed if problem[:2] not in told)
    if problems:
        lines = sorted((place, shown(key), text) for place, key, text in problems)
        raise ConfigError([f"{path}:{line}:{column}: {key}{text}" for (line, column), key, text in lines])
    return config

"""The targets of a configuration file become settings, or one line for each thing that is wrong."""

from importlib import util
from pathlib import Path

import pytest

from exporter import config_notify
from exporter.config import Config, ConfigError, load

SECRET = "hunter2-VerySecret-0123456789"
SERVERS = "servers: [{name: drone, url: https://drone.example.com, token_env: TOKEN}]\n"
ENVIRON = {
    "TOKEN": "a-token",
    "URL": f"https://chat.example.com/hooks/{SECRET}?key={SECRET}-key",
    "SECRET": f"{SECRET}-signs",
    "BOT": f"xoxb-{SECRET}",
    "PASSWORD": f"{SECRET}-mail",
    "APPRISE": f"tgram://{SECRET}/12345678",
    "NO_ADDRESS": f"chat.example.com/{SECRET}",
}
NAMES = "webhook, email, slack, dingtalk, wecom, feishu, lark, apprise, alertmanager"


def read(directory: Path, targets: str) -> Config:
    path = directory / "config.yaml"
    path.write_text(f"{SERVERS}notify:\n  targets:\n{targets}", encoding="utf-8")
    return load(path, ENVIRON)


def errors(directory: Path, targets: str) -> list[str]:
    """The messages, each without the path that it begins with."""
    with pytest.raises(ConfigError) as refused:
        read(directory, targets)
    assert SECRET not in str(refused.value)
    return [message.removeprefix(f"{directory / 'config.yaml'}:") for message in refused.value.messages]


def error(directory: Path, target: str) -> str:
    """The one message about a target, without its place."""
    (message,) = errors(directory, f"    - {{name: a, {target}}}\n")
    return message.partition(" ")[2]


def test_nobody_is_told_without_targets(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(SERVERS)
    assert load(path, ENVIRON).notify.targets == ()


def test_every_type_is_read(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("a certificate")
    (tmp_path / "url").write_text(f"{ENVIRON['URL']}\n")
    config = read(
        tmp_path,
        """
    - {name: hook, type: webhook, url_file: url, secret_env: SECRET, timeout: 3s, ca_file: ca.pem}
    - {name: team, type: slack, url_env: URL, proxy: "http://proxy:3128"}
    - {name: bot, type: slack, token_env: BOT, channel: C0123456789}
    - {name: ding, type: dingtalk, url_env: URL, secret_env: SECRET, keyword: build}
    - {name: wecom, type: wecom, url_env: URL}
    - {name: fei, type: feishu, url_env: URL}
    - {name: lark, type: lark, url_env: URL, secret_env: SECRET}
    - name: ops
      type: email
      host: mail.example.com
      security: tls
      from: ci@example.com
      to: [ops@example.com]
      login: ci
      password_env: PASSWORD
    - {name: other, type: apprise, url_env: APPRISE}
""",
    )
    kinds = [type(target).__name__.removesuffix("Settings") for target in config.notify.targets]
    assert kinds == [
        "Webhook", "Slack", "Slack", "Dingtalk", "Wecom", "Feishu", "Feishu", "Email", "Apprise"
    ]  # fmt: skip
    hook, mail = config.notify.targets[0], config.notify.targets[7]
    assert hook.timeout == 3
    assert hook.ca_file == tmp_path / "ca.pem"
    assert isinstance(mail, config_notify.EmailSettings)
    assert (mail.from_, mail.to, mail.port) == ("ci@example.com", ("ops@example.com",), None)
    for secret in (
        *(value for name, value in ENVIRON.items() if name != "NO_ADDRESS"),
        SECRET,
        f"{SECRET}-key",
    ):
        assert secret in config.secrets
    assert SECRET not in repr(config)


def test_all_errors_are_told_at_once_with_their_lines(tmp_path: Path) -> None:
    targets = f"""    - name: a b
      type: slak
      url_env: URL
    - type: webhook
      url: https://chat.example.com/{SECRET}
      timeout: 0
    - name: a
      url_env: URL
    - {{name: c, type: dingtalk, url_env: URL, chanel: x}}
    - {{name: c, type: wecom, url_env: NOWHERE}}
    - text
    - {{name: d, type: email, host: h, from: ci, to: [], port: 70000, login: ci}}
    - {{name: e, type: email, to: ops@example.com, port: "25", security: ssl}}
"""
    assert errors(tmp_path, targets) == [
        "5:7: notify.targets[0].type: is no known type; did you mean slack?",
        "7:7: notify.targets[1].name: is missing",
        "8:7: notify.targets[1].url: a secret does not belong in this file: use url_file or url_env",
        "9:7: notify.targets[1].timeout: must be at least 1s",
        f"10:7: notify.targets[2].type: is missing; known are {NAMES}",
        "12:47: notify.targets[3].chanel: is no known key; known are name, timeout, ca_file, url_file, "
        "url_env, proxy, secret_file, secret_env, type, keyword",
        "13:8: notify.targets[4].name: is the name of another target already",
        "13:30: notify.targets[4].url_env: the environment variable named here is empty or not set",
        "14:7: notify.targets[5]: must be a mapping with the keys name, timeout, ca_file, type",
        "15:39: notify.targets[6].from: must be mail addresses, like ci@example.com",
        "15:49: notify.targets[6].to: must not be empty",
        "15:57: notify.targets[6].port: must be a port, from 1 to 65535",
        "15:70: notify.targets[6].login: has no password: add password_file or password_env",
        "16:7: notify.targets[7].from: is missing",
        "16:7: notify.targets[7].host: is missing",
        "16:30: notify.targets[7].to: must be a list, like [a, b]",
        "16:51: notify.targets[7].port: must be a whole number",
        "16:63: notify.targets[7].security: must be one of 'starttls', 'tls' or 'none'",
    ]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("type: 5", f"type: is no known type; known are {NAMES}"),
        ("type: null", f"type: is no known type; known are {NAMES}"),
        ("type: webhook", "name: has no address: add url_file or url_env"),
        (
            "type: webhook, url_env: NO_ADDRESS",
            "url_env: must hold an address like https://chat.example.com/hooks/…",
        ),
        ("type: slack", "name: has no address: add url_file or url_env, or token_file or token_env of a bot"),
        (
            "type: slack, url_env: URL, token_env: BOT, channel: C1",
            "name: has both an address and a token: keep one",
        ),
        ("type: slack, token_env: BOT", "name: has a token, but no channel: add its id as channel"),
        ("type: apprise", "name: has no URL like json://host/path: add url_file or url_env"),
        ("type: feishu, url_env: URL, keyword: ''", "keyword: must not be empty"),
        ("type: wecom, url_env: URL, proxy: x", "proxy: must be an address like https://ci.example.com"),
    ],
)
def test_what_is_wrong_with_a_target(tmp_path: Path, target: str, message: str) -> None:
    assert error(tmp_path, target) == f"notify.targets[0].{message}"


MAIL = "type: email, host: h, from: ci@example.com, to: [a@example.com]"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("port: 70000", "port: must be a port, from 1 to 65535"),
        ("port: 0", "port: must be a port, from 1 to 65535"),
        ("port: '25'", "port: must be a whole number"),
        ("login: ci", "login: has no password: add password_file or password_env"),
        ("password_env: PASSWORD", "name: has a password, but no login"),
        (
            "login: ci, password_env: PASSWORD, security: none",
            "security: must not be none where a password is sent",
        ),
        ("security: ssl", "security: must be one of 'starttls', 'tls' or 'none'"),
    ],
)
def test_what_is_wrong_with_mail(tmp_path: Path, more: str, message: str) -> None:
    assert error(tmp_path, f"{MAIL}, {more}") == f"notify.targets[0].{message}"


@pytest.mark.parametrize(
    "address", ["ci", '"CI <ci@example.com>"', '"ci@example.com\\r\\nBcc: x@y.z"', "ä@example.com"]
)
def test_addresses_are_nothing_but_addresses(tmp_path: Path, address: str) -> None:
    target = f"type: email, host: h, from: {address}, to: [a@example.com]"
    assert error(tmp_path, target) == "notify.targets[0].from: must be mail addresses, like ci@example.com"


def test_apprise_needs_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(util, "find_spec", lambda _: None)
    monkeypatch.setattr(config_notify, "find_spec", util.find_spec)
    message = "notify.targets[0].type: needs another package: pip install 'build-exporter[apprise]'"
    assert error(tmp_path, "type: apprise, url_env: APPRISE") == message


def test_alertmanagers_are_targets_that_get_no_messages(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        """
    - {name: hook, type: webhook, url_env: URL}
    - name: am
      type: alertmanager
      urls: ["http://a:9093/", "http://b:9093/prefix"]
      login: ci
      password_env: PASSWORD
    - {name: other, type: alertmanager, urls: ["http://c:9093"], token_env: SECRET}
""",
    ).notify
    assert [target.name for target in config.channels] == ["hook"]
    am, other = config.alertmanagers
    assert am.urls == ("http://a:9093", "http://b:9093/prefix")
    assert am.authorization.startswith("Basic ")
    assert other.authorization == f"Bearer {ENVIRON['SECRET']}"
    assert config.rules.targets == ("hook", "am", "other")
    assert config.rules.without_messages == {"am", "other"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("", "urls: is missing"),
        ("urls: []", "urls: must not be empty"),
        ('urls: ["a:9093"]', "urls[0]: must be an address like https://ci.example.com"),
        ('urls: ["http://u:p@a"]', "urls[0]: must not hold a user or password"),
        ('urls: ["http://a/api/v2"]', "urls: must be addresses of Alertmanagers themselves"),
        ('urls: ["http://a", "http://a/"]', "urls: http://a is named twice"),
        ('urls: ["http://a"], login: x', "login: has no password"),
        ('urls: ["http://a"], password_env: PASSWORD', "name: has a password, but no login"),
        (
            'urls: ["http://a"], login: x, password_env: PASSWORD, token_env: SECRET',
            "login: stands beside a token",
        ),
        ('urls: ["http://a"], token: x', "token: a secret does not belong in this file"),
    ],
)
def test_what_is_wrong_with_an_alertmanager(tmp_path: Path, settings: str, message: str) -> None:
    told = error(tmp_path, f"type: alertmanager, {settings}".rstrip(", "))
    assert message in told


def test_one_alertmanager_is_of_one_target(tmp_path: Path) -> None:
    targets = "".join(f"    - {{name: {n}, type: alertmanager, urls: ['http://a']}}\n" for n in "ab")
    assert errors(tmp_path, targets) == ["5:37: notify.targets[1].urls: http://a is named twice"]

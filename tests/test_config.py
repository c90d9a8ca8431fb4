"""A configuration file becomes settings, or every one of its errors with its line."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.config import Config, ConfigError, LedgerSettings, ServerSettings, load
from exporter.model import Event

SECRET = "hunter2-VerySecret"
SERVER = "servers:\n  - name: drone\n    url: https://drone.example.com\n    token_env: TOKEN\n"
ENVIRON = {"TOKEN": SECRET}
DURATION = "must be a duration with its unit, like 15s, 10m, 1h30m or 90d"
ADDRESS = "must be an address like https://ci.example.com"
LISTEN = "must be an address and a port, like 127.0.0.1:9848 or [::1]:9848"
TEXT = "must be text; if it looks like something else to YAML, put it in quotes"
KIND = "is of no known kind; text that looks like something else needs quotes"
OWNER = "is matched with owner/name, so that it never fits; write owner/* for all repos of an owner"
NO_PATTERN = "is no pattern: write patterns like team-*/* under include"
ALONE = "must be an owner's name alone, without '/' at its ends"
NO_FILE = "cannot be read: No such file or directory"
RATE = "must be a number, 0 or greater"


def write(directory: Path, text: str) -> Path:
    path = directory / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def read(directory: Path, text: str) -> Config:
    return load(write(directory, text), ENVIRON)


def errors(directory: Path, text: str) -> list[str]:
    """The messages without the file's path, which each of them must begin with."""
    path = write(directory, text)
    with pytest.raises(ConfigError) as refused:
        load(path, ENVIRON)
    assert SECRET not in str(refused.value)
    assert SECRET not in repr(refused.value)
    assert all(message.startswith(f"{path}:") for message in refused.value.messages)
    return [message.removeprefix(f"{path}:") for message in refused.value.messages]


def server(**settings: object) -> ServerSettings:
    return ServerSettings.model_validate({"name": "drone", "url": "http://drone", "token": SECRET} | settings)


def test_a_short_file_gets_the_defaults(tmp_path: Path) -> None:
    config = read(tmp_path, SERVER)
    (drone,) = config.servers
    assert (drone.name, drone.dialect, drone.public_url) == ("drone", "auto", "https://drone.example.com")
    assert (drone.poll, drone.sweep, drone.import_, drone.timeout) == (15, 600, 90 * 86400, 30)
    assert drone.import_rate == 10
    assert (drone.ca_file, drone.proxy, drone.branches) == (None, None, ())
    assert config.ledger.url.get_secret_value() == "sqlite:///build-exporter.db"
    assert (config.ledger.retention, config.ledger.series_retention) == (400 * 86400, 30 * 86400)
    assert config.ledger.abandoned_after == 48 * 3600
    assert (config.web.host, config.web.port, config.web.lifecycle) == ("127.0.0.1", 9848, False)
    assert (config.metrics.disable, config.metrics.created) == ((), False)
    assert (config.log.level, config.log.format) == ("info", "logfmt")


def test_every_setting_of_a_server_is_read(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("a certificate")
    (tmp_path / "token").write_text(f"  {SECRET}\n")
    text = """
servers:
  - name: drone-1
    url: http://[::1]:8000/ci/
    public_url: https://ci.example.com/
    token_file: token
    dialect: drone-0.5
    repos: {include: ["acme/*"], exclude: ["*/archive-*"], owners: [acme], active_only: false}
    only: {events: [push, tag], branches: [main]}
    branches: [develop]
    poll: 5s
    sweep: 1h30m
    import: 0
    import_rate: 0
    timeout: 1.5m
    ca_file: ca.pem
    proxy: http://proxy:3128
web: {listen: "[::1]:0", lifecycle: true}
metrics: {disable: [ci_steps_total]}
"""
    config = read(tmp_path, text)
    assert (config.web.host, config.web.port, config.web.lifecycle) == ("::1", 0, True)
    assert config.metrics.disable == ("ci_steps_total",)
    (drone,) = config.servers
    assert (drone.url, drone.public_url) == ("http://[::1]:8000/ci", "https://ci.example.com")
    assert drone.token is not None
    assert drone.token.get_secret_value() == SECRET
    assert drone.dialect == "drone-0.5"
    assert (drone.poll, drone.sweep, drone.import_, drone.timeout) == (5, 5400, 0, 90)
    assert (drone.import_rate, drone.proxy) == (0, "http://proxy:3128")
    assert drone.ca_file == tmp_path / "ca.pem"


def test_all_errors_are_told_at_once_with_their_lines(tmp_path: Path) -> None:
    text = f"""servers:
  - name: drone one
    url: ftp://drone
    token: {SECRET}
    pol: 15s
    sweep: 5
    repos: {{include: [acme], exclud: []}}
    only: {{events: [pusch], branches: main}}
    branches: [1.0]
  - name: b
    url: http://b
    token_file: missing/token
    timeout: 0.1s
    timeout: 2s
  - {{name: b, url: "http://c:99999/"}}
ledger: {{url: "mysql://root:{SECRET}@db/ci", retention: 5m}}
web: {{listen: ":9848", lifecycle: "yes"}}
metrics: {{disable: [ci_build_total]}}
log: {{level: loud}}
1: 2
notfy: {{}}
"""
    assert errors(tmp_path, text) == [
        "2:5: servers[0].name: must be letters, digits, '.', '_' and '-', at most 63, "
        "the first a letter or digit",
        "3:5: servers[0].url: must be an address like https://ci.example.com",
        "4:5: servers[0].token: a secret does not belong in this file: use token_file or token_env",
        "5:5: servers[0].pol: is no known key; did you mean poll?",
        "6:5: servers[0].sweep: must be a duration with its unit, like 15s, 10m, 1h30m or 90d",
        f"7:23: servers[0].repos.include[0]: {OWNER}",
        "7:30: servers[0].repos.exclud: is no known key; did you mean exclude?",
        "8:21: servers[0].only.events[0]: must be one of 'push', 'pull_request', 'tag', 'cron', "
        "'deployment' or 'manual'",
        "8:29: servers[0].only.branches: must be a list, like [a, b]",
        f"9:16: servers[0].branches[0]: {TEXT}",
        "12:5: servers[1].token_file: missing/token cannot be read: No such file or directory",
        "13:5: servers[1].timeout: must be at least 1s",
        "14:5: servers[1].timeout: stands twice, first in line 13",
        "15:6: servers[2].name: has no token, and every server needs one: add token_file or token_env",
        "15:6: servers[2].name: is the name of another server already",
        "15:15: servers[2].url: must be an address like https://ci.example.com",
        "16:10: ledger.url: must begin with sqlite:/// or postgresql://",
        f"16:{38 + len(SECRET)}: ledger.retention: must be at least 1h",
        "17:7: web.listen: must be an address and a port, like 127.0.0.1:9848 or [::1]:9848",
        "17:24: web.lifecycle: must be true or false",
        "18:11: metrics.disable: ci_build_total is no family; did you mean ci_builds_total?",
        "19:7: log.level: must be one of 'debug', 'info', 'warning' or 'error'",
        "20:1: a key must be text",
        "21:1: notfy: is no known key; did you mean notify?",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1:1: servers: is missing"),
        (
            "- a",
            "1:1: must be a mapping with the keys servers, ledger, web, metrics, log, delivery, "
            "notify, hooks",
        ),
        ("servers: []", "1:1: servers: must not be empty"),
        ("servers: 1", "1:1: servers: must be a list, like [a, b]"),
        ("servers: [", "1:11: expected the node content, but found '<stream end>'"),
        (f"servers: *{SECRET}", "1:10: a value that begins with * needs quotes"),
        (f"servers: !{SECRET}!x y", "1:10: found undefined tag handle"),
        ("servers: a: b", "1:11: mapping values are not allowed here"),
        ("servers: \x01", "1:1: holds characters that are not allowed, or is not UTF-8"),
        ("[" * 5000, "1:1: is nested too deeply"),
        (SERVER + f"log: !{SECRET} x", f"5:1: log: {KIND}"),
        (SERVER + "log: {level: 2024-99-99}", f"5:7: log.level: {KIND}"),
        (SERVER + "log: &log {level: *log}", "5:12: log.level: refers to itself"),
        (SERVER + "log: {[a]: 1}", "5:7: log: a key must be text"),
        (SERVER + "log: 5", "5:1: log: must be a mapping with the keys level, format"),
        (SERVER + "web: {listen: '127.0.0.1:70000'}", f"5:7: web.listen: {LISTEN}"),
        (SERVER + "web: {config_file: no.yaml}", "5:7: web.config_file: the file named here does not exist"),
        (SERVER + "ledger: {url: 5}", "5:10: ledger.url: must be text"),
        (
            SERVER + "metrics: {disable: [ci_builds_totl]}",
            "5:11: metrics.disable: ci_builds_totl is no family; did you mean ci_builds_total?",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    assert errors(tmp_path, text) == [message]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("dialect: 5", "must be one of 'auto', 'drone-0.5', 'drone-0.8', 'drone-1', 'woodpecker' or 'abf'"),
        ("abf: 5", "must be a mapping with the keys ownership, project, platform, arch"),
        ("login: 5", TEXT),
        ("import_: 5d", "is no known key; did you mean import?"),
        ("poll: 0.9s", "must be at least 1s"),
        ("poll: 0", "must be at least 1s"),
        ("poll: 15", DURATION),
        ("poll: 1:30", DURATION),
        ("poll: true", DURATION),
        ("poll:", DURATION),
        ("import: 99999999d", "must be at most 36500d"),
        ("stream: true", "must be one of 'auto' or 'off'"),
        ("stream: 'no'", "must be one of 'auto' or 'off'"),
        ("import_rate: -1", RATE),
        ("import_rate: .nan", RATE),
        ("import_rate: '1'", RATE),
        ("import_rate: true", RATE),
        ("ca_file: nowhere.pem", "the file named here does not exist"),
        ("ca_file: 5", TEXT),
        ("public_url: 5", TEXT),
        (f"proxy: http://me:{SECRET}@proxy", "must not hold a user or password"),
        (f"public_url: http://x/?token={SECRET}", "must not hold a query (?) or fragment (#)"),
        (f"public_url: http://{SECRET} x/", ADDRESS),
        ("public_url: 'http://[::1'", ADDRESS),
        ("public_url: 'http:///x'", ADDRESS),
    ],
)
def test_what_is_wrong_with_a_server(tmp_path: Path, setting: str, message: str) -> None:
    key = setting.partition(":")[0]
    assert errors(tmp_path, f"{SERVER}    {setting}\n") == [f"5:5: servers[0].{key}: {message}"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("branches: ['']", "5:16: servers[0].branches[0]: must not be empty"),
        ("repos: {include: []}", "5:13: servers[0].repos.include: must not be empty"),
        ("repos: {owners: [acme, '']}", "5:28: servers[0].repos.owners[1]: must not be empty"),
        ("repos: {owners: [team-*]}", f"5:22: servers[0].repos.owners[0]: {NO_PATTERN}"),
        ("repos: {owners: [acme/]}", f"5:22: servers[0].repos.owners[0]: {ALONE}"),
        ("repos: {active_only: 1}", "5:13: servers[0].repos.active_only: must be true or false"),
        ("repos: {exclude: [acme]}", f"5:23: servers[0].repos.exclude[0]: {OWNER}"),
        ("only: {branches: [no]}", f"5:23: servers[0].only.branches[0]: {TEXT}"),
    ],
)
def test_what_is_wrong_in_a_list(tmp_path: Path, setting: str, message: str) -> None:
    assert errors(tmp_path, f"{SERVER}    {setting}\n") == [message]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read: No such file or directory"):
        load(tmp_path / "nowhere.yaml")
    (tmp_path / "config.yaml").write_bytes(b"servers: \xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("token_file: /no/such/file", f"token_file: /no/such/file {NO_FILE}"),
        ("token_file: empty", "token_file: empty is empty or not set"),
        ("token_file: binary", "token_file: binary is not text"),
        ("token_file: two", "token_file: two must hold one line of printable ASCII without spaces"),
        ("token_file: .", "token_file: . cannot be read: Is a directory"),
        (f"token_file: {SECRET}", f"token_file: the file named here {NO_FILE}"),
        (f"token_env: {SECRET}", "token_env: the environment variable named here is empty or not set"),
        ("token_env: BLANK", "token_env: the environment variable named here is empty or not set"),
        (
            "token_file: empty\n    token_env: TOKEN",
            "token: is given twice: keep one of token, token_file and token_env",
        ),
    ],
)
def test_a_token_that_cannot_be_read_is_never_repeated(tmp_path: Path, setting: str, message: str) -> None:
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "two").write_text(f"{SECRET}\n{SECRET}\n")
    (line,) = errors(tmp_path, f"servers:\n  - name: a\n    url: http://a\n    {setting}\n")
    assert line.partition(": servers[0].")[2] == message


ABF = "servers:\n  - name: abf\n    url: https://abf.example.com\n"


def test_a_login_takes_the_place_of_a_token(tmp_path: Path) -> None:
    text = f"""{ABF}    dialect: abf
    login: ada
    password_file: password
    abf: {{ownership: related, project: hello, platform: rosa2023.1, arch: x86_64}}
"""
    (tmp_path / "password").write_text(f"{SECRET}\n")
    config = read(tmp_path, text)
    (abf,) = config.servers
    assert (abf.login, abf.token) == ("ada", None)
    assert abf.password is not None
    assert abf.password.get_secret_value() == SECRET
    assert config.secrets == (SECRET,)
    for shown in (repr(config), config.model_dump_json()):
        assert SECRET not in shown
    chosen = abf.abf
    assert (chosen.ownership, chosen.project, chosen.platform, chosen.arch) == (
        "related", "hello", "rosa2023.1", "x86_64"
    )  # fmt: skip
    assert server().abf.ownership == "everything"


NO_PASSWORD = "4:5: servers[0].login: has no password: add password_file or password_env"
NOT_HERE = "a secret does not belong in this file: use password_file or password_env"
NOT_SET = "the environment variable named here is empty or not set"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["login: ada"], NO_PASSWORD),
        (["login: ada", "token_env: TOKEN"], NO_PASSWORD),
        (
            ["login: ada", "password_env: TOKEN", "token_env: TOKEN"],
            "4:5: servers[0].login: stands beside a token: keep one of them",
        ),
        (
            ["token_env: TOKEN", "password_env: TOKEN"],
            "2:5: servers[0].name: has a password, but no login: add it, or keep to a token",
        ),
        (["login: ada", f"password: {SECRET}"], f"5:5: servers[0].password: {NOT_HERE}"),
        (["login: ada", "password_env: NONE"], f"5:5: servers[0].password_env: {NOT_SET}"),
        (
            ["token_env: TOKEN", "abf: {ownership: all}"],
            "5:11: servers[0].abf.ownership: must be one of 'everything', 'owned' or 'related'",
        ),
        (["token_env: TOKEN", "abf: {arch: ''}"], "5:11: servers[0].abf.arch: must not be empty"),
        (
            ["token_env: TOKEN", "abf: {arches: [a]}"],
            "5:11: servers[0].abf.arches: is no known key; did you mean arch?",
        ),
    ],
)
def test_what_is_wrong_with_an_account(tmp_path: Path, settings: list[str], message: str) -> None:
    lines = "".join(f"    {line}\n" for line in settings)
    assert message in errors(tmp_path, ABF + lines)


def test_the_environment_of_the_process_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", SECRET)
    assert load(write(tmp_path, SERVER)).servers[0].token == read(tmp_path, SERVER).servers[0].token


def test_secrets_are_never_shown_but_listed_for_the_log(tmp_path: Path) -> None:
    address = "postgresql://ci:p%40ss@db.example.com/ci?sslpassword=k%2Fey"
    (tmp_path / "ledger").write_text(address)
    config = read(tmp_path, SERVER + "ledger: {url_file: ledger}\n")
    assert config.ledger.url.get_secret_value() == address
    assert config.secrets == (SECRET, "p%40ss", "p@ss", "k/ey")
    for shown in (repr(config), str(config), config.model_dump_json(), repr(config.model_dump())):
        assert SECRET not in shown
        assert "p%40ss" not in shown


def test_a_ledger_address_from_the_environment(tmp_path: Path) -> None:
    path = write(tmp_path, SERVER + "ledger: {url_env: LEDGER}\n")
    assert load(path, ENVIRON | {"LEDGER": "sqlite:////var/x.db"}).ledger.url.get_secret_value() == (
        "sqlite:////var/x.db"
    )


def test_a_changed_token_is_a_changed_configuration(tmp_path: Path) -> None:
    path = write(tmp_path, SERVER)
    assert load(path, ENVIRON) == load(path, ENVIRON)
    assert load(path, ENVIRON) != load(path, {"TOKEN": "another"})


def test_settings_made_in_code_take_seconds_and_have_no_minimum() -> None:
    drone = server(poll=0.01, import_=0)
    assert (drone.poll, drone.import_) == (0.01, 0)
    assert LedgerSettings().url.get_secret_value() == "sqlite:///build-exporter.db"


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        server().name = "other"


def test_watched_repos_are_included_and_not_excluded() -> None:
    drone = server(repos={"include": ["acme/*", "*/tools"], "exclude": ["*/archive-*"]})
    assert drone.watches("acme/app")
    assert drone.watches("other/tools")
    assert not drone.watches("acme/archive-1")
    assert not drone.watches("other/app")
    assert not drone.watches("ACME/app")
    assert server().watches("any/thing")


def test_watched_repos_are_of_owners() -> None:
    drone = server(repos={"owners": ["acme", "group/team"], "exclude": ["*/old"]})
    assert drone.watches("acme/app")
    assert drone.watches("group/team/app")
    assert not drone.watches("acme/old")
    assert not drone.watches("acme-two/app")
    assert not drone.watches("group/app")
    assert not drone.watches("Acme/app")


def test_repos_that_are_switched_off_are_watched_on_request() -> None:
    assert not server().watches("acme/app", active=False)
    drone = server(repos={"active_only": False, "exclude": ["*/old"]})
    assert drone.watches("acme/app", active=False)
    assert not drone.watches("acme/old", active=False)


def test_only_filters_by_event_and_branch() -> None:
    assert server().counts(Event.PULL_REQUEST, "")
    drone = server(only={"events": ["push", "tag"], "branches": ["main", "release/*"]})
    assert drone.counts(Event.PUSH, "release/2")
    assert not drone.counts(Event.PUSH, "feature")
    assert not drone.counts(Event.CRON, "main")


def test_named_branches() -> None:
    drone = server(branches=["dev*"])
    named = [
        branch
        for branch in ("trunk", "main", "master", "release/1", "develop", "feature", "release", "")
        if drone.names_branch(branch, "trunk")
    ]
    assert named == ["trunk", "main", "master", "release/1", "develop"]
    assert not drone.names_branch("", "")


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_in_its_own_words(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any-{os.getpid()}.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigError):
        load(path, ENVIRON)

"""The commands as a user runs them: what they say, how they end, and what they leave behind."""

import json
import os
import pty
import re
import select
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest
import requests
from process import COMMAND, command, configure, entry, expect_clean, exporter, first_look, until
from raw import response, serving

from exporter.simulator import Clock, Leg, Running, StepPlan, World, serve

ENDS_WITHIN = 5.0


@pytest.fixture
def ci() -> Iterator[Running]:
    """A quiet Drone 1.x with a public repo of some history."""
    world = World("drone-1", clock=Clock.real(), default_branch="main")
    world.add_repo("octo/hello", builds=20)
    with serve(world) as running:
        yield running


def rows(directory: Path, sql: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(directory / "ledger.db") as ledger:
        return ledger.execute(sql).fetchall()


def end_a_build(ci: Running, repo: str = "octo/hello") -> int:
    """A build comes and goes, later than the second in which the repo was first seen."""
    number = ci.world.start_build(repo, running=True)
    ci.world.clock.advance(1)
    ci.world.finish(repo, number, "failure")
    return number


# run


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_everything_kept(ci: Running, tmp_path: Path, number: signal.Signals) -> None:
    configure(tmp_path, entry(tmp_path, "drone", ci))
    with exporter(tmp_path) as process:
        process.ready()
        build = end_a_build(ci)
        ended = f"SELECT status, counted FROM builds WHERE number = {build} AND state = 2"
        until("the end in the ledger", lambda: rows(tmp_path, ended))
        began = time.monotonic()
        process.signal(number)
        assert process.wait() == 0
        assert time.monotonic() - began < ENDS_WITHIN
    assert rows(tmp_path, ended) == [(2, 1)]
    assert rows(tmp_path, "PRAGMA integrity_check") == [("ok",)]
    assert len(process.lines) == 1, "an orderly life is one line long"


@pytest.mark.parametrize("kind", ["hang", "trickle"])
def test_a_server_that_never_comes_to_an_end_does_not_hold_it_up(
    ci: Running, tmp_path: Path, kind: str
) -> None:
    configure(tmp_path, entry(tmp_path, "drone", ci, timeout="5m"), log={"level": "debug"})
    with exporter(tmp_path) as process:
        process.ready()
        fault = ci.world.faults.add(kind, "/api/user/builds", seconds=3600.0)
        until("a request that gets no answer", lambda: fault.struck)
        began = time.monotonic()
        assert process.stop() == 0
        assert time.monotonic() - began < ENDS_WITHIN
    assert len(process.lines) == 1


def test_a_second_process_on_the_ledger_is_refused(ci: Running, tmp_path: Path) -> None:
    configure(tmp_path, entry(tmp_path, "drone", ci))
    with exporter(tmp_path) as process:
        process.ready()
        second = command(tmp_path, "run")
        assert second.returncode == 2
        assert second.stderr.count("\n") == 1
        assert "ledger.db is in use by another build-exporter; stop that one, or" in second.stderr
        assert process.metrics()['ci_server_up{server="drone"}'] == 1
        assert process.stop() == 0


def test_a_port_in_use_is_named(ci: Running, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        configure(tmp_path, entry(tmp_path, "drone", ci), web={"listen": f"127.0.0.1:{port}"})
        done = command(tmp_path, "run")
        assert done.returncode == 2
        assert done.stderr == f"build-exporter: 127.0.0.1:{port}: another program listens there already\n"
        with exporter(tmp_path, "run", "--web.listen-address", "127.0.0.1:0") as process:
            process.ready()
            assert process.stop() == 0


def test_quiet_while_all_is_well(ci: Running, tmp_path: Path) -> None:
    configure(tmp_path, entry(tmp_path, "drone", ci))
    with exporter(tmp_path) as process:
        process.ready()
        end_a_build(ci)
        polls = ("GET", "/api/user/builds")
        seen = ci.requests[polls]
        until("20 polls", lambda: ci.requests[polls] >= seen + 20, 40)
        assert process.stop() == 0
    (line,) = process.lines
    assert line.split(" ", 1)[1] == (
        f'level=info msg=watching servers="drone ({ci.url})" listen={process.address} '
        f"ledger=sqlite:///{tmp_path}/ledger.db"
    )


def test_json_lines_and_a_fault_that_is_told_when_it_begins_and_ends(ci: Running, tmp_path: Path) -> None:
    configure(tmp_path, entry(tmp_path, "drone", ci), log={"format": "json"})
    with exporter(tmp_path) as process:
        address = until("the first line", lambda: process.lines and json.loads(process.lines[0])["listen"])
        ready = f"http://{address}/readyz"
        until("readiness", lambda: requests.get(ready, timeout=5).status_code == 200)
        fault = ci.world.faults.add("status", "/api/user/builds", status=502)
        until("two polls that fail", lambda: fault.struck > 1)
        ci.world.faults.off(fault)
        until("the line that says it is over", lambda: len(process.lines) == 3)
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
    said = [json.loads(line) for line in process.lines]
    assert [line["level"] for line in said] == ["info", "error", "info"]
    assert said[0]["msg"] == "watching"
    assert "/api/user/builds: answered 502" in said[1]["msg"]
    assert said[2] == {
        "time": said[2]["time"],
        "level": "info",
        "msg": "the server is polled again",
        "server": "drone",
    }


def test_users_of_a_web_config(ci: Running, tmp_path: Path) -> None:
    configure(tmp_path, entry(tmp_path, "drone", ci))
    hashed = bcrypt.hashpw(b"let me in", bcrypt.gensalt(4)).decode()
    (tmp_path / "web.yaml").write_text(f"basic_auth_users:\n  prometheus: {hashed}\n")
    with exporter(tmp_path, "run", "--web.config.file", "web.yaml") as process:
        process.started()
        assert process.get("/metrics").status_code == 401
        login = ("prometheus", "let me in")
        assert requests.get(f"http://{process.address}/metrics", auth=login, timeout=5).status_code == 200
        assert process.stop() == 0
    (tmp_path / "web.yaml").write_text("basic_auth_users:\n  prometheus: secret\n")
    done = command(tmp_path, "run", "--web.config.file", "web.yaml")
    assert done.returncode == 2
    assert done.stderr.startswith("build-exporter: web.yaml:2:3: ")


def test_once(ci: Running, tmp_path: Path) -> None:
    configure(tmp_path, entry(tmp_path, "drone", ci))
    ci.world.start_build("octo/hello", running=True)
    done = command(tmp_path, "run", "--once")
    assert (done.returncode, done.stderr) == (0, "")
    ((*found, ended, counted, fault),) = cells(done.stdout)
    assert (found, counted, fault) == (["drone", "1", "1"], "0", "none")
    assert int(ended) > 0, "the newest of history are in the feed"
    ci.world.finish("octo/hello", 21)
    ((*found, ended, counted, fault),) = cells(command(tmp_path, "run", "--once").stdout)
    assert (found, counted, fault) == (["drone", "1", "0"], "1", "none")
    ci.world.revoke(ci.world.token)
    done = command(tmp_path, "run", "--once")
    assert done.returncode == 3
    assert "the token was not accepted" in done.stdout


def cells(table: str) -> list[list[str]]:
    """The rows of a printed table, without its head."""
    lines = (line for line in table.splitlines() if line.startswith("│"))
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def test_bars_on_a_terminal(ci: Running, tmp_path: Path) -> None:
    ci.world.add_repo("octo/old", builds=500)
    configure(tmp_path, entry(tmp_path, "drone", ci, import_rate=2.0))
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [COMMAND, "run"], cwd=tmp_path, stderr=end, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    )
    os.close(end)
    shown = b""

    def read(wanted: bytes) -> bool:
        nonlocal shown
        if select.select([terminal], [], [], 0.1)[0]:
            shown += os.read(terminal, 65536)
        return wanted in shown

    try:
        until("a bar", lambda: read(b"history of drone"))
        assert b"msg=watching" in shown
        ci.world.faults.add("status", "/api/user/builds", times=1)
        until("a log line above it", lambda: read(b"polled again"))
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    expect_clean(tmp_path, shown.decode())


# Another configuration


def test_reload(ci: Running, tmp_path: Path) -> None:
    web = {"listen": "127.0.0.1:0", "lifecycle": True}
    second = World("drone-0.8", clock=Clock.real())
    second.add_repo("finance/billing", builds=3)
    with serve(second) as other, exporter_of(tmp_path, web, entry(tmp_path, "drone", ci)) as process:
        process.ready()

        def reload() -> requests.Response:
            return requests.post(f"http://{process.address}/-/reload", timeout=10)

        number = end_a_build(ci)
        last = 'ci_last_build_number{server="drone",repo="octo/hello",branch="main",event="push"}'
        until("the build on the page", lambda: process.metrics().get(last) == number)

        configure(tmp_path, entry(tmp_path, "drone", ci), entry(tmp_path, "old", other), web=web)
        process.signal(signal.SIGHUP)
        until("the new server", lambda: process.metrics().get('ci_server_up{server="old"}') == 1)
        assert process.metrics()[last] == number
        assert any('server="old",repo="finance/billing"' in series for series in process.metrics())
        assert "the configuration was loaded" in process.lines[-1]

        (tmp_path / "config.yaml").write_text("servers:\n  - name: drone\n    url: https://x\n    pol: 3s\n")
        process.signal(signal.SIGHUP)
        until("a line of it", lambda: "the old one stays" in process.lines[-1])
        assert "config.yaml:4:5: servers[0].pol: is no known key; did you mean poll?" in process.lines[-1]
        refused = reload()
        assert refused.status_code == 500
        assert refused.text == (
            "config.yaml:2:5: servers[0].name: has no token, and every server needs one: add token_file or "
            "token_env\nconfig.yaml:4:5: servers[0].pol: is no known key; did you mean poll?\n"
        )

        configure(tmp_path, entry(tmp_path, "old", other), ledger={"url": "sqlite:///new.db"})
        refused = reload()
        assert refused.text == ("ledger.url: takes a restart to change\nweb: takes a restart to change\n"), (
            "named in a sentence each"
        )
        assert process.metrics()[last] == number

        configure(tmp_path, entry(tmp_path, "old", other), web=web)
        assert reload().text == "Reloaded.\n"
        left = {series for series in process.metrics() if 'server="drone"' in series}
        assert left <= {'ci_ledger_builds{server="drone"}'}, "the ledger keeps what was counted"
        until("readiness", lambda: process.get("/readyz").status_code == 200)
        assert process.metrics()['ci_server_up{server="old"}'] == 1
        assert process.stop() == 0


def exporter_of(directory: Path, web: dict[str, object], *servers: dict[str, object]):
    configure(directory, *servers, web=web)
    return exporter(directory)


# Wrong use


def test_no_configuration(tmp_path: Path) -> None:
    for arguments in (["run"], ["check"], ["explain"], ["run", "--config", "config.yaml"]):
        done = command(tmp_path, *arguments)
        assert done.returncode == 2
        assert done.stderr == (
            "build-exporter: config.yaml: there is no such file: copy config.example.yaml to it and name "
            "your servers, or name another file with --config; `build-exporter demo` needs none\n"
        )
    assert list(tmp_path.iterdir()) == []


def test_all_errors_of_a_configuration_at_once(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("servers:\n  - nam: drone\n    url: ci\nweb: {listen: 9848}\n")
    done = command(tmp_path, "run", "--config", "bad.yaml")
    assert done.returncode == 2
    told = [line.split(": ")[:3] for line in done.stderr.splitlines()]
    assert ["build-exporter", "bad.yaml:2:5", "servers[0].nam"] in told
    assert ["build-exporter", "bad.yaml:3:5", "servers[0].url"] in told
    assert ["build-exporter", "bad.yaml:4:7", "web.listen"] in told


def test_unknown_words(tmp_path: Path) -> None:
    for arguments in (["run", "--onse"], ["chekc"], ["explain", "--limit", "many"]):
        done = command(tmp_path, *arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("Usage: build-exporter")
        assert "Error: " in done.stderr


def test_ctrl_c_while_it_loads(tmp_path: Path) -> None:
    with exporter(tmp_path) as process:
        maps = Path(f"/proc/{process.process.pid}/maps")
        until("some of what it loads", lambda: "pydantic_core" in maps.read_text())
        process.signal(signal.SIGINT)
        assert process.wait() in (1, 2), "2: it was quicker, and found no configuration"


def test_help() -> None:
    here = Path.cwd()
    done = command(here, "--help")
    assert done.returncode == 0
    for name in ("run", "check", "explain", "demo"):
        assert f"  {name} " in done.stdout
        assert command(here, name, "-h").returncode == 0
    assert command(here, "--version").stdout.startswith("build-exporter, version ")


# check


def test_check_of_what_is_good(ci: Running, tmp_path: Path) -> None:
    reader = ci.world.add_user("reader")
    entries = [entry(tmp_path, "drone", ci), entry(tmp_path, "plain", ci, repos={"include": ["octo/*"]})]
    ci.world.add_repo("acme/app")
    ci.world.add_repo("acme/off", active=False)
    (tmp_path / "plain.token").write_text(reader)
    configure(tmp_path, *entries)
    done = command(tmp_path, "check")
    assert (done.returncode, done.stderr) == (0, "")
    assert cells(done.stdout) == [
        ["drone", "drone-1", "1.10.1", "adminuser", "administrator", "2 of 2", "nothing"],
        ["plain", "drone-1", "1.10.1", "reader", "user", "1 of 2", "nothing"],
    ]
    assert "drone: left out, switched off at the server: 1 (acme/off)\n" in done.stdout
    assert "plain: left out, fit no pattern of `include`: 1 (acme/app)\n" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "drone.token", "plain.token"]


def test_check_of_a_filter_that_leaves_nothing(ci: Running, tmp_path: Path) -> None:
    configure(tmp_path, entry(tmp_path, "drone", ci, repos={"include": ["acme/*"]}))
    done = command(tmp_path, "check")
    assert done.returncode == 1
    assert "`repos:` leaves out every repo that the token's user sees" in " ".join(done.stdout.split())


def test_check_says_what_leaves_repos_out(ci: Running, tmp_path: Path) -> None:
    ci.world.add_repos([f"acme/archive-{i}" for i in range(5)])
    ci.world.add_repo("acme/app")
    ci.world.add_repo("team/tool")
    ci.world.add_repo("acme/off", active=False)
    repos = {
        "owners": ["acme", "octo", "nobody"],
        "include": ["*/a*", "octo/*", "Acme/*"],
        "exclude": ["*/archive-*", "*/attic-*"],
        "active_only": False,
    }
    configure(tmp_path, entry(tmp_path, "drone", ci, repos=repos))
    done = command(tmp_path, "check", "--repos")
    assert done.returncode == 0
    told = [line.removeprefix("drone: ") for line in done.stdout.splitlines() if line.startswith("drone: ")]
    assert told[:-1] == [
        "watched: 2 (acme/app, octo/hello)",
        "left out, by `exclude` pattern */archive-*: "
        "5 (acme/archive-0, acme/archive-1, acme/archive-2 and 2 more)",
        "left out, fit no pattern of `include`: 1 (acme/off)",
        "left out, of none of `owners`: 1 (team/tool)",
        "`include`: Acme/* fits no repo: upper and lower case differ",
        "`exclude`: */attic-* fits no repo: is it spelt right?",
        "`owners`: nobody fits no repo: is it spelt right?",
    ]
    assert told[-1].rstrip() == "9 repos"
    assert ["acme/archive-4", "left out, by `exclude` pattern */archive-*"] in cells(done.stdout)
    assert ["octo/hello", "watched"] in cells(done.stdout)


def test_check_repeats_nothing_that_a_terminal_obeys(tmp_path: Path) -> None:
    answers = {
        "/api/user": b'{"login":"ada\\u001b]52;c;aGk=\\u0007\\u001b[31m","admin":false}',
        "/version": b'{"version":"1.10.1\\u009b31m"}',
        "/api/user/repos": b'[{"id":1,"slug":"octo/a\\u009b31mb\\u202e","active":true}]',
    }

    def behaviour(connection: socket.socket, request: bytes, _: int) -> None:
        path = request.split()[1].decode().partition("?")[0]
        connection.sendall(response(200, answers.get(path, b"[]")))

    with serving(behaviour) as server:
        configure(tmp_path, entry(tmp_path, "ci", server.url, dialect="drone-1", stream="off"))
        done = command(tmp_path, "check", "--repos")
    assert (done.returncode, done.stderr) == (0, "")
    assert cells(done.stdout)[0][:4] == ["ci", "drone-1", "1.10.1", "ada"]
    assert "octo/ab\ufffd" in done.stdout
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", done.stdout)


def test_check_does_not_take_public_repos_for_a_good_token(ci: Running, tmp_path: Path) -> None:
    public = requests.get(f"{ci.url}/api/repos/octo/hello/builds", timeout=5)
    assert public.status_code == 200, "the server answers anybody"
    configure(tmp_path, entry(tmp_path, "drone", ci))
    (tmp_path / "drone.token").write_text("token-that-is-nobodys")
    done = command(tmp_path, "check")
    assert done.returncode == 3
    assert cells(done.stdout)[0][:2] == ["drone", "auto"]
    told = " ".join(cell[-1] for cell in cells(done.stdout))
    assert "server drone: /api/user: answered 401: the token was not accepted: make a new one" in told


def test_check_of_a_server_that_is_not_there(ci: Running, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}"
    configure(tmp_path, entry(tmp_path, "gone", nowhere), entry(tmp_path, "drone", ci))
    done = command(tmp_path, "check")
    assert done.returncode == 3
    assert "server gone: /version: the connection was refused" in " ".join(
        cell[-1] for cell in cells(done.stdout)
    )
    assert cells(done.stdout)[-1][0] == "drone"
    assert cells(done.stdout)[-1][-1] == "nothing"


# explain


def test_explain_names_what_was_folded(tmp_path: Path) -> None:
    clock = Clock.real(-1000)
    world = World("drone-1", clock=clock, default_branch="main")
    world.add_repo("octo/hello")
    steps = tuple(StepPlan(f"step-{i:02}") for i in range(53))
    world.start_build("octo/hello", running=True, legs=[Leg("default", steps)])
    with serve(world) as running:
        configure(tmp_path, entry(tmp_path, "drone", running))
        none = command(tmp_path, "explain")
        assert none.returncode == 1
        assert "there is no ledger yet: start `build-exporter run` first" in none.stderr
        first_look(tmp_path, clock)
        assert "No name is folded into `other`." in command(tmp_path, "explain").stdout
        world.finish("octo/hello", 1)
        assert command(tmp_path, "run", "--once").returncode == 0
    done = command(tmp_path, "explain", "--limit", "2")
    assert done.returncode == 0
    counts = {row[0]: row[1] for row in cells(done.stdout) if len(row) == 2}
    assert counts["ci_builds_total"] == "7"
    assert [row for row in cells(done.stdout) if len(row) == 5] == [
        ["drone", "octo/hello", "step", "step-50", "1"],
        ["drone", "octo/hello", "step", "step-51", "1"],
    ]
    assert "… and 1 more (--limit)" in done.stdout


# demo


def test_demo(tmp_path: Path) -> None:
    began = time.monotonic()
    with exporter(tmp_path, "demo", "--web.listen-address", "127.0.0.1:0", TMPDIR=str(tmp_path)) as process:
        process.started()

        def real() -> bool:
            page = process.metrics()
            shown = {
                name
                for name in ("legacy", "platform", "cloud", "forge", "distro")
                if page.get(f'ci_server_up{{server="{name}"}}')
            }
            return len(shown) == 5 and all(
                any(v > 0 for s, v in page.items() if s.startswith(f'ci_builds_running{{server="{name}"'))
                for name in shown
            )

        until("real values of every server", real, 10 - (time.monotonic() - began))
        assert f"http://{process.address}/metrics" in process.output
        process.signal(signal.SIGINT)
        assert process.wait(ENDS_WITHIN) == 0
    assert len(process.lines) == 1
    assert list(tmp_path.glob("build-exporter-demo-*")) == []

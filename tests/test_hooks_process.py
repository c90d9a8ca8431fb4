"""The real command with hooks: a real Alertmanager posts to it, and a signed hint brings a look at once."""

import json
import re
import signal
import socket
import subprocess
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path

import requests
from process import Exporter, configure, entry, exporter, until
from programs import needs, path_of
from receiver import Receiver, receiving

from exporter.app import App
from exporter.config import load
from exporter.hooks.drone import digest_of, sign
from exporter.simulator import Clock, World, serve

SUMMARY = "Builds of acme/web wait since an hour"


@contextmanager
def alertmanager(directory: Path, hook: str) -> Iterator[str]:
    """A running Alertmanager that posts to the hook; its address."""
    receiver = {
        "name": "build-exporter",
        "webhook_configs": [
            {
                "url": hook,
                "send_resolved": True,
                "http_config": {"authorization": {"credentials_file": str(directory / "hook.token")}},
            }
        ],
    }
    route = {
        "receiver": "build-exporter",
        "group_wait": "0s",
        "group_interval": "1s",
        "group_by": ["alertname"],
    }
    (directory / "am.yml").write_text(json.dumps({"route": route, "receivers": [receiver]}))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (directory / "am.log").open("wb") as log:
        process = subprocess.Popen(
            [
                str(path_of("prometheus-alertmanager")),
                f"--config.file={directory}/am.yml",
                f"--storage.path={directory}/am",
                f"--web.listen-address={address}",
                "--cluster.listen-address=",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        until("Alertmanager", lambda: answers(f"http://{address}/-/ready"))
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(20)


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.ConnectionError:
        return False


def hooks_of(process: Exporter) -> str:
    said = re.search(r"msg=watching .*hooks=(\S+)", process.log)
    assert said, process.log
    return f"http://{said[1]}/hooks"


def hint(url: str, secret: str) -> int:
    """The answer to a hint that is signed now."""
    body = json.dumps({"event": "build", "at": time.time()}).encode()
    date, digest = formatdate(usegmt=True), digest_of(body)
    made = b64encode(sign(secret.encode(), date, digest)).decode()
    signature = f'keyId="hmac-key",algorithm="hmac-sha256",signature="{made}",headers="date digest"'
    headers = {"Date": date, "Digest": digest, "Signature": signature, "Content-Type": "application/json"}
    return requests.post(f"{url}/drone", body, headers=headers, timeout=10).status_code


def titles(receiver: Receiver) -> list[str]:
    return [got.json["title"] for got in receiver.got]


@needs("prometheus-alertmanager")
def test_a_real_alertmanager_is_passed_on_and_a_hint_brings_a_look(tmp_path: Path) -> None:
    world = World("drone-1", clock=Clock.real(), seed=1)
    world.add_repo("octo/hello", default_branch="main")
    (tmp_path / "hook.token").write_text("the token of the hook\n".replace(" ", "-"))
    (tmp_path / "drone.token").write_text("a-secret-of-drone\n")
    with receiving() as receiver, serve(world) as server:
        configure(
            tmp_path,
            entry(tmp_path, "ci", server, poll="1h", stream="off"),
            notify={"targets": [{"name": "team", "type": "webhook", "url_env": "TARGET"}]},
            hooks={
                "listen": "127.0.0.1:0",
                "alertmanager": {"token_file": "hook.token"},
                "drone": [{"server": "ci", "secret_file": "drone.token"}],
            },
        )
        with exporter(tmp_path, TARGET=receiver.url) as process:
            process.ready()
            url = hooks_of(process)
            with alertmanager(tmp_path, f"{url}/alertmanager") as sender:
                alert = {"labels": {"alertname": "CIQueueStuck", "repo": "acme/web"}}
                alert |= {"annotations": {"summary": SUMMARY}}
                start = datetime.now(UTC) - timedelta(minutes=1)
                given = alert | {"startsAt": start.isoformat()}
                assert requests.post(f"{sender}/api/v2/alerts", json=[given], timeout=10).ok
                until("the alert", lambda: len(receiver.got) == 1)
                given |= {"endsAt": (datetime.now(UTC) - timedelta(seconds=0.1)).isoformat()}
                assert requests.post(f"{sender}/api/v2/alerts", json=[given], timeout=10).ok
                until("the all-clear", lambda: len(receiver.got) == 2)
            assert titles(receiver) == [f"Firing: {SUMMARY}", f"Resolved: {SUMMARY}"]
            assert [got.json["kind"] for got in receiver.got] == ["alert", "alert"]

            number = world.start_build("octo/hello")
            world.run("octo/hello", number)
            world.finish("octo/hello", number, "success")
            asked = sum(server.requests.values())
            time.sleep(1.1)
            assert sum(server.requests.values()) == asked
            assert hint(url, "another") == 401
            assert hint(url, "a-secret-of-drone") == 200
            until("a look", lambda: sum(server.requests.values()) > asked, 5.0)
            page = process.metrics()
            for hook, outcome, count in (
                ("alertmanager", "accepted", 2),
                ("drone", "accepted", 1),
                ("drone", "unauthorized", 1),
                ("drone", "replayed", 0),
            ):
                assert page[f'ci_hook_requests_total{{hook="{hook}",outcome="{outcome}"}}'] == count

            (tmp_path / "drone.token").write_text("a-newer-secret\n")
            process.signal(signal.SIGHUP)
            until("the new secret", lambda: hint(url, "a-newer-secret") == 200, 10.0)
            assert hint(url, "a-secret-of-drone") == 401
            assert process.stop() == 0


def test_hooks_are_off_by_default_and_their_address_takes_a_restart(tmp_path: Path) -> None:
    (tmp_path / "hook.token").write_text("token-of-the-hook\n")
    path = configure(tmp_path, entry(tmp_path, "ci", "http://127.0.0.1:1"))
    plain = load(path)
    configure(
        tmp_path,
        entry(tmp_path, "ci", "http://127.0.0.1:1"),
        hooks={"alertmanager": {"token_file": "hook.token"}},
    )
    assert "token-of-the-hook" in load(path).secrets
    app = App(plain, load=lambda: load(path))
    assert app.hooks is None
    assert app.reload() == "hooks: takes a restart to change"
    app.stop()

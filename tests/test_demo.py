"""`make demo`: the whole with the programs that are installed, and nothing left of it afterwards."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
import yaml
from process import command, until
from programs import needs

from exporter.demo.children import Children, ProgramError
from exporter.demo.receiver import LARGEST, Receiver
from exporter.listener import Listener

PLAY = """
from exporter.cli.common import say
from exporter.demo.stage import Extent, play
play(say, Extent(days=8, lived=0.25))
"""
SHORT = """
import sys
from pathlib import Path
from exporter.demo.children import Children
with Children(Path(sys.argv[1]), print) as children:
    child = children.start("sleep", ["sh", "-c", "echo; exec sleep 300"])
    children.until(child, child.log.read_text, 10)
    print(child.pid, flush=True)
    children.pause(300)
"""
GRAFANA = f"""#!{sys.executable}
import http.server, json, os, pathlib, sys
settings = {{name: value for name, value in os.environ.items() if name.startswith("GF_")}}
files = [str(file) for file in pathlib.Path(settings["GF_PATHS_PROVISIONING"]).rglob("*.*")]

class Settings(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps([sys.argv[1:], settings, files]).encode())

address = settings["GF_SERVER_HTTP_ADDR"], int(settings["GF_SERVER_HTTP_PORT"])
http.server.HTTPServer(address, Settings).serve_forever()
"""
"""Stands where Grafana would, and answers with what it was started with."""
ENDS_WITHIN = 10.0
HOSTILE = {
    "status": "firing",
    "groupLabels": {"alertname": "<script>alert(1)</script>"},
    "alerts": [
        {
            "status": "firing",
            "labels": {"repo": "<b>octo</b>"},
            "annotations": {
                "summary": "<img src=x onerror=alert(1)>",
                "description": "a & b",
                "dashboard_url": "javascript:alert(1)",
                "build_url": 'https://ci.example.com/"onclick="x',
            },
            "generatorURL": "http://[",
        },
        "no alert",
    ],
}
TOLD = {
    "title": "red <again>",
    "kind": "opened",
    "facts": [{"label": "author", "value": "<b>ada</b>"}, "no fact"],
    "lines": ["& more"],
    "excerpt": "exit 2 </pre>",
    "link": "http://ci.example.com/octo/hello/7",
}


class Demo:
    """A demo as a process of its own, in a directory for temporary files of its own."""

    def __init__(self, directory: Path, **environ: str) -> None:
        self.directory = directory
        self._output = directory / "output"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PLAY],
                env={**os.environ, "TMPDIR": str(directory), **environ},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        return self._output.read_text()

    def started(self) -> str:
        """What it says once everything is up."""

        def said() -> bool:
            assert self.process.poll() is None, self.output
            return "Ctrl-C ends" in self.output

        until("the whole demo", said, 60)
        return self.output

    def url(self, name: str) -> str:
        """Where it says that this is."""
        found = re.search(rf"^  {name} +(http://\S+)$", self.output, re.MULTILINE)
        assert found, self.output
        return found[1]

    def children(self) -> dict[int, str]:
        """Process numbers and commands of what it started."""
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return {int(pid): Path(f"/proc/{pid}/cmdline").read_text() for pid in found}

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(ENDS_WITHIN)


@contextmanager
def demo(directory: Path, **environ: str) -> Iterator[Demo]:
    """A `Demo` that does not outlive the test."""
    made = Demo(directory, **environ)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.process.terminate()
            made.process.wait(ENDS_WITHIN)


def alive(pid: int) -> bool:
    """Whether the process runs: one that nobody took note of yet has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).status_code == 200
    except requests.RequestException:
        return False


def left(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir() if path.name.startswith("build-exporter-demo-")]


@needs("prometheus", "promtool", "prometheus-alertmanager")
def test_everything_is_there_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/grafana").write_text(GRAFANA)
    (tmp_path / "bin/grafana").chmod(0o755)
    with demo(tmp_path, PATH=f"{tmp_path}/bin:{os.environ['PATH']}") as running:
        running.started()
        urls = {
            name: running.url(name)
            for name in ("exporter", "messages", "alertmanager", "prometheus", "grafana")
        }

        def value(query: str) -> float:
            asked = requests.get(f"{urls['prometheus']}api/v1/query", params={"query": query}, timeout=10)
            result = asked.json()["data"]["result"]
            return float(result[0]["value"][1]) if result else 0.0

        assert value("sum(last_over_time(ci_builds_total[1h] offset 7d))") > 0
        until("a scrape", lambda: value("count(up == 1)") == 1)
        until("builds that run", lambda: value("sum(ci_builds_running)") > 0)
        until("an alert in Prometheus", lambda: value('count(ALERTS{alertstate="firing"})') > 0)

        def told() -> list[dict[str, object]]:
            return list(requests.get(f"{urls['messages']}messages", timeout=10).json())

        def of_alertmanager() -> list[dict[str, object]]:
            return [message for message in told() if message.get("version") == "4"]

        assert until("an alert", of_alertmanager)[-1]["status"] == "firing"
        until("a message of the exporter", lambda: len(told()) > len(of_alertmanager()))
        page = requests.get(urls["messages"], timeout=10).text
        assert page.count('<article class="firing">') >= 1
        assert re.search("is red|failed|flaky|has not run", page)

        check_grafana(urls["grafana"], urls["prometheus"])
        children = running.children()
        assert len(children) == 4
        (victim,) = (pid for pid, said in children.items() if "alertmanager" in said.split("\0")[0])
        os.kill(victim, signal.SIGKILL)
        until("what is said of it", lambda: "alertmanager has ended (signal 9" in running.output)
        assert answers(urls["prometheus"])
        assert len(left(tmp_path)) == 1
        assert running.end(signal.SIGINT) == 0
    assert not [pid for pid in children if alive(pid)]
    assert not [url for url in urls.values() if answers(url)]
    assert left(tmp_path) == []
    assert "Traceback" not in running.output


def check_grafana(url: str, prometheus: str) -> None:
    """It is given the shipped dashboards, and the demo's Prometheus to ask."""
    arguments, settings, files = requests.get(url, timeout=5).json()
    assert arguments[0] == "server"
    assert (settings["GF_AUTH_ANONYMOUS_ENABLED"], settings["GF_AUTH_ANONYMOUS_ORG_ROLE"]) == (
        "true",
        "Viewer",
    )
    provisioning = Path(settings["GF_PATHS_PROVISIONING"])
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())["datasources"]
    assert (f"{source['url']}/", source["uid"]) == (prometheus, "prometheus")
    (provider,) = yaml.safe_load((provisioning / "dashboards/ci.yaml").read_text())["providers"]
    boards = [Path(file).name for file in files if Path(file).parent == Path(provider["options"]["path"])]
    assert len(boards) == 6
    assert not [file for file in files if "alerting" in file]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    with demo(tmp_path, PATH=str(tmp_path / "bin")) as running:
        said = running.started()
        for title in ("Prometheus", "promtool", "Alertmanager", "Grafana"):
            assert f"{title} is not installed (" in said
        assert "as root: apt install prometheus-alertmanager" in said
        assert 'ci_server_up{server="legacy"} 1.0' in requests.get(running.url("exporter"), timeout=10).text
        assert running.end(signal.SIGTERM) == 0
    assert left(tmp_path) == []


def test_ending_while_history_is_made(tmp_path: Path) -> None:
    with demo(tmp_path) as running:
        until("its beginning", lambda: "(simulated, abf)" in running.output)
        time.sleep(0.5)
        assert running.end(signal.SIGINT) == 0
    assert left(tmp_path) == []


def test_addresses_are_the_demos_own_choice(tmp_path: Path) -> None:
    done = command(tmp_path, "demo", "--all", "--web.listen-address", "127.0.0.1:0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("build-exporter: --all chooses addresses itself: ")


# children


def test_what_a_program_left_behind_ends_with_it(tmp_path: Path) -> None:
    died = []
    with Children(tmp_path, died.append) as children:
        child = children.start("shell", ["sh", "-c", "sleep 300 & echo $!; sleep 0.2; exit 3"])
        until("its end", lambda: child.ended)
        children.pause(1)
        assert ([c.name for c in died], child.code) == (["shell"], 3)
        until("the end of what it started", lambda: not alive(int(child.last_words)))


def test_a_program_that_does_not_end_is_ended(tmp_path: Path) -> None:
    with Children(tmp_path, print, grace=0.5) as children:
        child = children.start("deaf", ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"])
        children.until(child, lambda: child.log.read_text(), 5)
        began = time.monotonic()
    assert child.code == -signal.SIGKILL
    assert time.monotonic() - began < ENDS_WITHIN


def test_a_program_that_does_not_come_up_says_why(tmp_path: Path) -> None:
    with Children(tmp_path, print) as children:
        child = children.start("broken", ["sh", "-c", "echo no such flag; exit 2"])
        with pytest.raises(ProgramError, match="broken ended at once: no such flag"):
            children.until(child, lambda: False, 10)
        child = children.start("slow", ["sleep", "300"])
        with pytest.raises(ProgramError, match=r"slow did not answer within 0\.2 s: nothing"):
            children.until(child, lambda: False, 0.2)
        with pytest.raises(ProgramError, match="run failed: oh"):
            children.run("run", ["sh", "-c", "echo oh; exit 1"])


@needs("setpriv")
def test_children_end_with_their_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", SHORT, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert alive(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until("the end of its child", lambda: not alive(pid))


# The page


@pytest.fixture
def page() -> Iterator[str]:
    listener = Listener("127.0.0.1:0", Receiver().app)
    listener.start()
    yield f"http://{listener.address}/"
    listener.stop()


def test_messages_are_shown_as_text_the_newest_first(page: str) -> None:
    assert "None came yet" in requests.get(page, timeout=5).text
    requests.post(f"{page}alertmanager", json=HOSTILE, timeout=5)
    requests.post(f"{page}webhook", json=TOLD, timeout=5)
    answer = requests.get(page, timeout=5)
    text = answer.text
    assert text.index("opened red &lt;again&gt;") < text.index("firing &lt;script&gt;")
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    assert "a &amp; b" in text
    assert "<li>author: &lt;b&gt;ada&lt;/b&gt;</li>" in text
    assert "<p>&amp; more</p>" in text
    assert "<pre>exit 2 &lt;/pre&gt;</pre>" in text
    assert 'href="http://ci.example.com/octo/hello/7"' in text
    for live in ("<script", "<img", "<b>", "javascript:", '"onclick'):
        assert live not in text, live
    assert 'href="https://ci.example.com/&quot;onclick=&quot;x"' in text
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert '<meta http-equiv="refresh" content="5">' in text


@pytest.mark.parametrize(
    "body", [[], 1, None, {}, {"alerts": 1}, {"alerts": [{}]}, {"title": {}}, {"title": "x", "facts": 1}]
)
def test_whatever_comes_is_shown(page: str, body: object) -> None:
    assert requests.post(page + "x", data=json.dumps(body), timeout=5).status_code == 200
    assert "<article" in requests.get(page, timeout=5).text


def test_what_is_no_message_is_refused(page: str) -> None:
    assert requests.post(page + "x", data=b"{", timeout=5).status_code == 400
    assert requests.post(page + "x", data=b"[" * 100_000, timeout=5).status_code == 400
    assert requests.post(page + "x", data=b'"' + b"x" * LARGEST, timeout=5).status_code == 413
    assert requests.get(page + "messages", timeout=5).json() == []


def test_as_many_as_a_page_holds_are_kept() -> None:
    receiver = Receiver(kept=2)
    listener = Listener("127.0.0.1:0", receiver.app)
    listener.start()
    for number in range(3):
        requests.post(f"http://{listener.address}/x", json=number, timeout=5)
    shown = requests.get(f"http://{listener.address}/messages", timeout=5).json()
    listener.stop()
    assert shown == [2, 1]

"""Our own HTTP, over real sockets: what is answered, and what bad clients cost the others."""

import base64
import errno
import gzip
import hashlib
import http.client
import json
import logging
import re
import select
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bcrypt
import pytest
import requests
import trustme
from programs import needs, path_of
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from exporter import __version__
from exporter.access import Access, Guard
from exporter.exposition import Body, Page
from exporter.listener import Listener, ListenError, Patience
from exporter.metrics import METRICS, Exemplar, Histogram, Sample
from exporter.web import accepts_gzip, build_app, wants_openmetrics

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT = "text/plain; version=0.0.4; charset=utf-8"
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
MEGABYTE = 1024 * 1024

Serve = Callable[..., str]


@pytest.fixture(scope="module")
def serve() -> Iterator[Serve]:
    """Serve an application on a free port of loopback; the address comes back."""
    listeners: list[Listener] = []

    def start(
        render: Callable[[bool, bool, frozenset[str] | None], Body] | None = None,
        failures: Callable[[], list[str]] = list,
        reload: Callable[[], str] | None = None,
        **options: object,
    ) -> str:
        app = build_app(render or small_page().render, failures, reload)
        listener = Listener("127.0.0.1:0", app, **options)
        listener.start()
        listeners.append(listener)
        return f"http://{listener.address}"

    yield start
    with ThreadPoolExecutor() as pool:
        list(pool.map(Listener.stop, listeners))


def small_page() -> Page:
    page = Page()
    counts = [1, *[0] * len(METRICS["ci_build_duration_seconds"].buckets)]
    exemplar = Exemplar((("build", "17"), ("url", "https://ci.example.com/acme/app/17")), 9.0, time.time())
    page.put(
        ("drone", "acme/app"),
        [
            Sample(METRICS["ci_builds_total"], ("drone", "acme/app", "main", "push", "success"), 41.0),
            Sample(
                METRICS["ci_build_duration_seconds"],
                ("drone", "acme/app", "main", "push"),
                Histogram(counts, 9.0, {0: exemplar}),
            ),
            Sample(METRICS["ci_builds_running"], ("drone", "acme/app"), 2.0),
        ],
    )
    return page


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    """The address of an application with a small page, for tests that only ask."""
    listener = Listener("127.0.0.1:0", build_app(small_page().render, list))
    listener.start()
    yield f"http://{listener.address}"
    listener.stop()


@pytest.fixture(scope="module")
def large_page() -> Page:
    """A page of more than 20 MB."""
    page = Page()
    metric = METRICS["ci_step_duration_seconds"]
    value = Histogram(range(len(metric.buckets) + 1), 12.5)
    for number in range(16_000):
        repo = f"acme/application-{number:06}"
        page.put(("drone", repo), [Sample(metric, ("drone", repo, "build/compile"), value)])
    assert len(page.render(False, False)) > 20 * MEGABYTE
    return page


def connect(url: str, sent: str = "", *, buffer: int = 0) -> socket.socket:
    """A client that has sent so much and reads nothing by itself."""
    host, port = url.removeprefix("http://").rsplit(":", 1)
    client = socket.socket()
    if buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    client.settimeout(10)
    client.connect((host, int(port)))
    client.sendall(sent.encode())
    return client


def cut_off(client: socket.socket, within: float = 10) -> bool:
    """Whether the server ends the connection while the client reads nothing."""
    poll = select.poll()
    poll.register(client, select.POLLRDHUP)
    return bool(poll.poll(within * 1000))


def scrape(url: str, **headers: str) -> requests.Response:
    with requests.Session() as session:
        return session.get(f"{url}/metrics", headers=headers, timeout=20)


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ([PROMETHEUS_2], True),
        ([PROMETHEUS_3], True),
        ([BROWSER], False),
        ([], False),
        ([""], False),
        (["*/*"], False),
        (["application/json"], False),
        (["application/openmetrics-text"], True),
        (["Application/OpenMetrics-Text; Version=1.0.0; Charset=utf-8"], True),
        (["application/openmetrics-text;version=0.0.1"], False),
        (["application/openmetrics-text;version=2.0.0"], False),
        (['application/openmetrics-text;version="1.0.0"'], True),
        (["application/openmetrics-text;q=0"], False),
        (["application/openmetrics-text;q=0.4,text/plain;q=0.5"], False),
        (["text/*;q=0.5", "application/openmetrics-text;q=0.5"], True),
        (["application/openmetrics-text;q=nan"], False),
        (["application/openmetrics-text;q=much, ;;,"], False),
    ],
)
def test_the_format_is_what_the_client_likes_best(accept: list[str], wanted: bool) -> None:
    assert wants_openmetrics(accept) is wanted


@pytest.mark.parametrize(
    ("accept", "taken"),
    [
        (["gzip"], True),
        (["gzip, deflate, br"], True),
        (["GZIP;q=0.5"], True),
        (["gzip;q=0"], False),
        (["gzip;q=0.0, *"], False),
        (["*"], True),
        (["*;q=0"], False),
        (["identity"], False),
        (["gzip;q=0.5, identity"], False),
        (["deflate"], False),
        ([], False),
        (["deflate", "gzip"], True),
    ],
)
def test_gzip_is_sent_to_who_takes_it(accept: list[str], taken: bool) -> None:
    assert accepts_gzip(accept) is taken


@pytest.mark.parametrize(("accept", "kind"), [(PROMETHEUS_2, OPENMETRICS), (BROWSER, TEXT)])
def test_a_scrape_gets_its_format_zipped_or_not(serve: Serve, accept: str, kind: str) -> None:
    page = small_page()
    url = serve(page.render)
    plain = scrape(url, Accept=accept, **{"Accept-Encoding": "gzip;q=0"})
    zipped = scrape(url, Accept=accept, **{"Accept-Encoding": "gzip"})
    assert plain.status_code == zipped.status_code == 200
    assert plain.headers["Content-Type"] == zipped.headers["Content-Type"] == kind
    assert plain.headers["Vary"] == "Accept, Accept-Encoding"
    assert "Content-Encoding" not in plain.headers
    assert zipped.headers["Content-Encoding"] == "gzip"
    assert plain.content == zipped.content == bytes(page.render(kind == OPENMETRICS, False))
    assert int(plain.headers["Content-Length"]) == len(plain.content)
    assert "Server" not in plain.headers


def test_names_restrict_the_families(served: str) -> None:
    text = requests.get(
        f"{served}/metrics",
        params={"name[]": ["ci_builds_total", "ci_build_duration_seconds_sum"]},
        headers={"Accept": OPENMETRICS},
        timeout=10,
    ).text
    assert [f.name for f in parse_openmetrics(text)] == ["ci_builds", "ci_build_duration_seconds"]
    assert requests.get(f"{served}/metrics?name[]=nothing", timeout=10).text == ""


@pytest.mark.parametrize("page", ["/", "/metrics", "/healthz", "/readyz"])
def test_head_is_get_without_a_body(served: str, page: str) -> None:
    told, shown = requests.head(served + page, timeout=10), requests.get(served + page, timeout=10)
    assert (told.status_code, told.content) == (200, b"")
    assert told.headers["Content-Length"] == shown.headers["Content-Length"] != "0"
    assert told.headers["Content-Type"] == shown.headers["Content-Type"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/metrics", 405),
        ("DELETE", "/", 405),
        ("PUT", "/healthz", 405),
        ("GET", "/-/reload", 405),
        ("GET", "/metrics/", 404),
        ("GET", "/../etc/passwd", 404),
        ("GET", "/%00", 404),
    ],
)
def test_other_methods_and_paths_are_refused(served: str, method: str, path: str, status: int) -> None:
    host = served.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=10)
    connection.request(method, path)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    assert answer.status == status
    assert body in {"Method Not Allowed\n", "Not Found\n"}
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert ("Allow" in answer.headers) is (status == 405)


def test_what_is_no_http_is_answered_with_400(served: str) -> None:
    with connect(served, "what is this?\r\n\r\n") as client:
        assert client.recv(1000).startswith(b"HTTP/1.1 400 ")


def test_the_index_links_to_every_page_and_runs_nothing(served: str) -> None:
    index = requests.get(served, timeout=10)
    assert f"Version {__version__}" in index.text
    for link in re.findall(r'href="([^"]+)"', index.text):
        assert requests.get(f"{served}/{link}", timeout=10).status_code == 200
    assert re.findall(r'href="([^"]+)"', index.text) == ["metrics", "healthz", "readyz"]
    assert "<script" not in index.text
    (style,) = re.findall("<style>(.*?)</style>", index.text)
    allowed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert index.headers["Content-Security-Policy"] == (
        f"default-src 'none'; style-src 'sha256-{allowed}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


def test_health_is_about_the_process_and_readiness_about_the_rest(serve: Serve) -> None:
    failing = ["server drone: not tried yet", "ledger: disk full"]
    url = serve(failures=lambda: failing)
    answer = requests.get(f"{url}/readyz", timeout=10)
    assert (answer.status_code, answer.text) == (503, "server drone: not tried yet\nledger: disk full\n")
    assert requests.get(f"{url}/healthz", timeout=10).status_code == 200
    failing.clear()
    assert requests.get(f"{url}/readyz", timeout=10).status_code == 200


def test_reload_is_off_unless_it_is_allowed(served: str) -> None:
    answer = requests.post(f"{served}/-/reload", timeout=10)
    assert (answer.status_code, answer.text) == (
        403,
        "Reloading over HTTP is off: set web.lifecycle to true.\n",
    )


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_reload_says_what_is_wrong(serve: Serve, method: str) -> None:
    wrong = ["config.yaml:3:1: servres: is no known key"]
    url = serve(reload=lambda: wrong.pop() if wrong else "")
    answer = requests.request(method, f"{url}/-/reload", timeout=10)
    assert (answer.status_code, answer.text) == (500, "config.yaml:3:1: servres: is no known key\n")
    assert requests.request(method, f"{url}/-/reload", timeout=10).status_code == 200


def test_reload_is_not_for_the_pages_of_other_sites(serve: Serve) -> None:
    called: list[str] = []
    url = serve(reload=lambda: called.append("reloaded") or "")
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200)):
        headers = {"Sec-Fetch-Site": site}
        assert requests.post(f"{url}/-/reload", headers=headers, timeout=10).status_code == status
    assert called == ["reloaded"]


def test_a_page_that_cannot_be_rendered_is_logged_once_and_told_in_a_line(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "exporter")
    broken = [True]

    def render(openmetrics: bool, zipped: bool, names: frozenset[str] | None) -> Body:
        if broken:
            raise LookupError("hidden words")
        return small_page().render(openmetrics, zipped, names)

    url = serve(render)
    for _ in range(3):
        answer = scrape(url)
        assert answer.status_code == 500
        assert answer.text == "This cannot be answered; the exporter's log says why.\n"
    broken.clear()
    for _ in range(2):
        assert scrape(url).status_code == 200
    assert [record.message for record in caplog.records] == [
        "rendering /metrics fails",
        "rendering /metrics works again",
    ]


def test_an_error_elsewhere_shows_the_client_nothing(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    def failures() -> list[str]:
        raise LookupError("hidden words")

    answer = requests.get(f"{serve(failures=failures)}/readyz", timeout=10)
    assert answer.status_code == 500
    assert "hidden" not in answer.text
    assert "hidden words" in caplog.text


def test_others_are_answered_while_a_page_is_rendered(serve: Serve) -> None:
    rendering, go_on = threading.Event(), threading.Event()

    def render(openmetrics: bool, zipped: bool, names: frozenset[str] | None) -> Body:
        rendering.set()
        assert go_on.wait(10)
        return small_page().render(openmetrics, zipped, names)

    url = serve(render)
    answers: list[int] = []
    scraping = threading.Thread(target=lambda: answers.append(scrape(url).status_code))
    scraping.start()
    assert rendering.wait(10)
    assert requests.get(f"{url}/healthz", timeout=10).status_code == 200
    assert answers == []
    go_on.set()
    scraping.join()
    assert answers == [200]


GET = "GET /metrics HTTP/1.1\r\nHost: exporter\r\n\r\n"


def resident() -> int:
    """Bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_clients_that_read_nothing_cost_neither_time_nor_memory(serve: Serve, large_page: Page) -> None:
    url = serve(large_page.render)
    whole = bytes(large_page.render(False, False))
    before = resident()
    stalled = [connect(url, GET, buffer=4096) for _ in range(20)]
    for client in stalled:
        assert client.recv(15) == b"HTTP/1.1 200 OK"
    answer = scrape(url, **{"Accept-Encoding": "identity"})
    assert answer.content == whole
    del answer
    assert resident() - before < 4 * len(whole)
    for client in stalled:
        client.close()


def test_a_client_that_reads_nothing_is_cut_off_in_the_end(serve: Serve, large_page: Page) -> None:
    url = serve(large_page.render, patience=Patience(stall=0.3))
    with connect(url, GET, buffer=4096) as client:
        assert cut_off(client)
    assert scrape(url).status_code == 200


def test_a_slow_client_gets_it_all(serve: Serve, large_page: Page) -> None:
    url = serve(large_page.render, patience=Patience(stall=0.5))
    whole = bytes(large_page.render(False, False))
    with connect(url, GET.replace("1.1", "1.0"), buffer=MEGABYTE) as client:
        came = bytearray()
        while part := client.recv(MEGABYTE, socket.MSG_WAITALL):
            came += part
            time.sleep(0.05)
    assert came.partition(b"\r\n\r\n")[2] == whole


def test_a_client_that_goes_away_harms_nobody(
    serve: Serve, large_page: Page, caplog: pytest.LogCaptureFixture
) -> None:
    url = serve(large_page.render)
    for _ in range(10):
        client = connect(url, GET, buffer=4096)
        assert client.recv(15) == b"HTTP/1.1 200 OK"
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    assert scrape(url).content == bytes(large_page.render(False, False))
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("sent", ["", "GET /metrics HT", GET + "GET /met"])
def test_a_request_that_never_ends_is_cut_off(serve: Serve, sent: str) -> None:
    with connect(serve(patience=Patience(request=0.2)), sent) as client:
        assert cut_off(client)


def test_an_endless_head_is_cut_off(served: str) -> None:
    endless = b"X-Long: " + b"x" * 1000 + b"\r\n"
    with connect(served, "GET /metrics HTTP/1.1\r\n") as client, pytest.raises(ConnectionError):
        client.sendall(endless * 10_000)


def test_a_body_that_comes_with_its_head_is_not_taken_for_a_part_of_it(served: str) -> None:
    body = "x" * 200_000
    head = f"POST /-/reload HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with connect(served, head + body) as client:
        assert client.recv(12) == b"HTTP/1.1 403"


def test_a_connection_is_kept_until_it_has_been_idle(serve: Serve) -> None:
    with connect(serve(patience=Patience(idle=1, request=0.2)), GET) as client:
        assert client.recv(15) == b"HTTP/1.1 200 OK"
        assert not cut_off(client, 0.5)
        assert cut_off(client)


def test_too_many_connections_are_turned_away(serve: Serve) -> None:
    url = serve(patience=Patience(connections=3))
    kept = [connect(url, GET) for _ in range(3)]
    for client in kept:
        assert client.recv(15) == b"HTTP/1.1 200 OK"
    with connect(url) as fourth:
        assert cut_off(fourth)
    for client in kept:
        client.sendall(GET.encode())
        client.close()


def test_stopping_does_not_wait_for_a_client_that_reads_nothing(large_page: Page) -> None:
    listener = Listener("127.0.0.1:0", build_app(large_page.render, list))
    listener.start()
    with connect(f"http://{listener.address}", GET, buffer=4096) as client:
        assert client.recv(15) == b"HTTP/1.1 200 OK"
        began = time.monotonic()
        listener.stop(2.0)
        assert time.monotonic() - began < 2.0
        assert cut_off(client)
    host, port = listener.address.split(":")
    with socket.socket() as late:
        assert late.connect_ex((host, int(port))) == errno.ECONNREFUSED


def test_stopping_lets_an_answer_out(serve: Serve) -> None:
    rendering, go_on = threading.Event(), threading.Event()

    def render(openmetrics: bool, zipped: bool, names: frozenset[str] | None) -> Body:
        rendering.set()
        assert go_on.wait(10)
        return small_page().render(openmetrics, zipped, names)

    listener = Listener("127.0.0.1:0", build_app(render, list))
    listener.start()
    answers: list[int] = []
    url = f"http://{listener.address}"
    scraping = threading.Thread(target=lambda: answers.append(scrape(url).status_code))
    scraping.start()
    assert rendering.wait(10)
    stopping = threading.Thread(target=listener.stop, args=(10,))
    stopping.start()
    go_on.set()
    scraping.join()
    stopping.join()
    assert answers == [200]


def test_a_server_that_cannot_start_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ListenError, match="the server did not start; the log says why"):
        Listener("127.0.0.1:0", build_app(Page().render, list), tls="no context").start()
    assert [record.message for record in caplog.records] == ["the listener ended"]


def test_what_was_never_started_can_be_stopped() -> None:
    Listener("127.0.0.1:0", build_app(Page().render, list)).stop()


@pytest.mark.parametrize(
    ("asked", "address"), [("[::1]:0", r"\[::1\]:\d+"), ("localhost:0", r".*:\d+"), (":0", r"\[::\]:\d+")]
)
def test_addresses_of_both_kinds_are_listened_on(asked: str, address: str) -> None:
    listener = Listener(asked, build_app(small_page().render, list))
    listener.start()
    assert re.fullmatch(address, listener.address)
    port = listener.address.rpartition(":")[2]
    for host in {"[::1]:0": ["[::1]"], "localhost:0": ["localhost"], ":0": ["[::1]", "127.0.0.1"]}[asked]:
        assert scrape(f"http://{host}:{port}").status_code == 200
    listener.stop()


def test_a_port_in_use_is_an_error_before_start_returns(served: str) -> None:
    address = served.removeprefix("http://")
    with pytest.raises(ListenError, match=f"^{address}: another program listens there already$"):
        Listener(address, build_app(Page().render, list)).start()


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("9848", "9848: an address is host:port, [::1]:port or :port"),
        ("localhost:", "localhost:: an address is host:port, [::1]:port or :port"),
        ("localhost:65536", "localhost:65536: an address is host:port, [::1]:port or :port"),
        ("localhost:١", "localhost:١: an address is host:port, [::1]:port or :port"),
        ("::1:9848", "::1:9848: an IPv6 address stands in brackets: [::1]:9848"),
        ("nowhere.invalid:9848", "nowhere.invalid:9848: the name nowhere.invalid has no address"),
        ("a..b:9848", "a..b:9848: the name a..b has no address"),
        ("192.0.2.1:9848", "192.0.2.1:9848: this machine has no such address"),
    ],
)
def test_an_address_that_cannot_be_listened_on_is_named(address: str, why: str) -> None:
    with pytest.raises(ListenError) as refused:
        Listener(address, build_app(Page().render, list)).start()
    assert str(refused.value) == why


class Prometheus:
    """A running Prometheus, asked over its HTTP API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, **params: str) -> object:
        answer = requests.get(f"{self.url}/api/v1/{path}", params=params, timeout=10)
        return answer.json()["data"]

    def value(self, query: str) -> float | None:
        found = self.ask("query", query=query)["result"]
        return float(found[0]["value"][1]) if found else None

    def until(self, query: str, wanted: float) -> None:
        """Wait for a scrape that brings this value."""
        end = time.monotonic() + 20
        while self.value(query) != wanted:
            assert time.monotonic() < end, (query, self.value(query), self.ask("targets")["activeTargets"])
            time.sleep(0.05)


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Callable[[list[dict[str, object]]], Prometheus]]:
    """Debian's Prometheus with the given scrape jobs."""
    running: list[subprocess.Popen[bytes]] = []

    def start(jobs: list[dict[str, object]]) -> Prometheus:
        config = {"global": {"scrape_interval": "200ms", "scrape_timeout": "200ms"}, "scrape_configs": jobs}
        (tmp_path / "prometheus.yml").write_text(json.dumps(config))
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        program = [
            path_of("prometheus"),
            f"--config.file={tmp_path}/prometheus.yml",
            f"--storage.tsdb.path={tmp_path}/data",
            f"--web.listen-address={address}",
            "--enable-feature=exemplar-storage",
            "--log.level=warn",
        ]
        with (tmp_path / "prometheus.log").open("wb") as log:
            running.append(subprocess.Popen(program, stdout=log, stderr=log))
        end = time.monotonic() + 20
        while True:
            try:
                if requests.get(f"http://{address}/-/ready", timeout=10).ok:
                    return Prometheus(f"http://{address}")
            except requests.ConnectionError:
                assert running[-1].poll() is None, (tmp_path / "prometheus.log").read_text()
            assert time.monotonic() < end
            time.sleep(0.05)

    yield start
    for process in running:
        process.terminate()
        process.wait(20)


@needs("prometheus")
def test_a_real_prometheus_scrapes_it(
    serve: Serve, prometheus: Callable[[list[dict[str, object]]], Prometheus], tmp_path: Path
) -> None:
    page = small_page()
    plain = serve(page.render).removeprefix("http://")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name, identity in (("server", "127.0.0.1"), ("client", "prometheus.example.com")):
        issued = authority.issue_cert(identity)
        issued.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
        issued.private_key_pem.write_to_path(tmp_path / f"{name}.key")
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    (tmp_path / "web.yml").write_text(
        "tls_server_config: {cert_file: server.pem, key_file: server.key, client_ca_file: ca.pem, "
        "client_auth_type: RequireAndVerifyClientCert}\n"
        f"basic_auth_users: {{prometheus: '{hashed}'}}\n"
    )
    access = Access(tmp_path / "web.yml")
    app = Guard(build_app(page.render, list), access)
    guarded = Listener("127.0.0.1:0", app, tls=access.tls, allowed=access.allows)
    guarded.start()
    tls = {"ca_file": "ca.pem", "cert_file": "client.pem", "key_file": "client.key"}
    server = prometheus(
        [
            {"job_name": "plain", "static_configs": [{"targets": [plain]}]},
            {
                "job_name": "guarded",
                "scheme": "https",
                "tls_config": tls,
                "basic_auth": {"username": "prometheus", "password": "secret"},
                "static_configs": [{"targets": [guarded.address]}],
            },
        ]
    )
    builds = 'ci_builds_total{status="success",repo="acme/app",job="%s"}'
    for job in ("plain", "guarded"):
        server.until(builds % job, 41)
        server.until(f'up{{job="{job}"}}', 1)
    page.put(
        ("drone", "acme/app"),
        [Sample(METRICS["ci_builds_total"], ("drone", "acme/app", "main", "push", "success"), 42.0)],
    )
    for job in ("plain", "guarded"):
        server.until(builds % job, 42)
        assert server.value(f'min_over_time(up{{job="{job}"}}[1m])') == 1
        assert server.value(f'min_over_time(scrape_samples_scraped{{job="{job}"}}[1m])') > 0
    now = time.time()
    exemplars = server.ask(
        "query_exemplars",
        query="ci_build_duration_seconds_bucket",
        start=str(now - 600),
        end=str(now + 600),
    )
    assert {e["labels"]["url"] for found in exemplars for e in found["exemplars"]} == {
        "https://ci.example.com/acme/app/17"
    }
    assert [t["lastError"] for t in server.ask("targets")["activeTargets"]] == ["", ""]
    own = requests.get(f"{server.url}/metrics", timeout=10).text
    wrong = "sample_(duplicate|out_of)|exemplar_out_of|exceeded|cache_flush_forced"
    counted = re.findall(rf"^(prometheus_target_scrapes_\w*(?:{wrong})\w*) (\S+)$", own, re.MULTILINE)
    assert len(counted) >= 4
    assert {count for _, *_, count in counted} == {"0"}
    assert (tmp_path / "prometheus.log").read_text() == ""
    guarded.stop()


def test_gzip_is_what_the_page_holds(serve: Serve, large_page: Page) -> None:
    url = serve(large_page.render)
    with requests.get(
        f"{url}/metrics", headers={"Accept-Encoding": "gzip"}, stream=True, timeout=20
    ) as answer:
        assert gzip.decompress(answer.raw.read()) == bytes(large_page.render(False, False))

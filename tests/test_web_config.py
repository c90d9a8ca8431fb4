"""The file in Prometheus's form: what it may say, and what it does to real connections."""

import asyncio
import base64
import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bcrypt
import pytest
import requests
import trustme
from cryptography.hazmat.primitives import serialization
from starlette.datastructures import Headers

from exporter.access import REMEMBERED, Access, Guard
from exporter.exposition import Page
from exporter.listener import Listener
from exporter.web import build_app
from exporter.web_config import (
    CIPHERS_12,
    CLIENT_AUTH,
    CURVES,
    HEADERS,
    TLS_KEYS,
    VERSIONS,
    WebConfigError,
    load,
)

SECRET = "correct horse"
HASH = bcrypt.hashpw(SECRET.encode(), bcrypt.gensalt(4)).decode()
USERS = f"basic_auth_users: {{ann: '{HASH}'}}\n"
TLS = "tls_server_config: {cert_file: server.pem, key_file: server.key%s}\n"

Serve = Callable[[str], str]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def folder(tmp_path: Path, authority: trustme.CA) -> Path:
    """Certificates of a server, of a client whom the authority knows, and of one whom it does not."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issue(authority, tmp_path, "server", "127.0.0.1")
    issue(authority, tmp_path, "client", "prometheus.example.com")
    issue(authority, tmp_path, "other", "10.0.0.7")
    issue(trustme.CA(), tmp_path, "stranger", "prometheus.example.com")
    return tmp_path


def issue(authority: trustme.CA, folder: Path, name: str, identity: str) -> None:
    issued = authority.issue_cert(identity)
    issued.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
    issued.private_key_pem.write_to_path(folder / f"{name}.key")


@pytest.fixture(scope="module")
def listeners() -> Iterator[list[Listener]]:
    """What the tests have started, to be stopped in the end."""
    started: list[Listener] = []
    yield started
    with ThreadPoolExecutor() as pool:
        list(pool.map(Listener.stop, started))


@pytest.fixture
def serve(folder: Path, listeners: list[Listener]) -> Serve:
    """Serve the application behind a file with the given text; the address comes back."""

    def start(text: str) -> str:
        (folder / "web.yml").write_text(text)
        access = Access(folder / "web.yml")
        app = Guard(build_app(Page().render, list), access)
        listener = Listener("127.0.0.1:0", app, tls=access.tls, allowed=access.allows)
        listener.start()
        listeners.append(listener)
        return f"{'https' if access.tls else 'http'}://{listener.address}"

    return start


def status(url: str, folder: Path, client: str = "", **options: object) -> int:
    """The answer's status over a new connection."""
    cert = (str(folder / f"{client}.pem"), str(folder / f"{client}.key")) if client else None
    with requests.Session() as session:
        return session.get(url, verify=str(folder / "ca.pem"), cert=cert, timeout=10, **options).status_code


def messages(folder: Path, text: str) -> list[str]:
    """What is wrong with a file, its own path left out."""
    path = folder / "web.yml"
    path.write_text(text)
    with pytest.raises(WebConfigError) as refused:
        load(path)
    return [message.removeprefix(f"{path}:") for message in refused.value.messages]


def b64(text: str) -> str:
    return f"Basic {base64.b64encode(text.encode()).decode()}"


def served_certificate(url: str) -> bytes:
    host, port = url.removeprefix("https://").split(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection((host, int(port)), 10) as raw, context.wrap_socket(raw) as session:
        return session.getpeercert(binary_form=True) or b""


def test_every_wrong_thing_is_named_at_once_with_its_place(folder: Path) -> None:
    text = """\
tls_server_config:
  cert_file: server.pem
  keyfile: server.key
  min_version: TLS10
  max_version: TLS9
  cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]
  curve_preferences: [CurveP256, X25519]
  client_auth_type: RequireAnyClientCert
  client_allowed_sans: prometheus
http_server_config:
  http2: maybe
  headers:
    Server: mine
    X-Frame-Options: never
    Strict-Transport-Security: "a\\nb"
basic_auth_users:
  ann: 12345
  bob: swordfish
  "a:b": "%s"
more: 1
"""
    found = messages(folder, text % HASH)
    assert found == [
        "1:1: tls_server_config.key_file: is missing",
        "3:3: tls_server_config.keyfile: is no known key; did you mean key_file?",
        "4:3: tls_server_config.min_version: TLS10 is broken and not supported; use TLS12 or TLS13",
        "5:3: tls_server_config.max_version: must be one of TLS12, TLS13",
        "6:19: tls_server_config.cipher_suites.0: is not supported; did you mean "
        "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA?",
        "7:3: tls_server_config.curve_preferences: may name one curve only, or be left out for all of them",
        "8:3: tls_server_config.client_auth_type: RequireAnyClientCert takes certificates that nobody "
        "checks; use RequireAndVerifyClientCert",
        "9:3: tls_server_config.client_allowed_sans: must be a list, like [a, b]",
        "11:3: http_server_config.http2: must be true or false",
        "13:5: http_server_config.headers.Server: is no known key; known are Content-Security-Policy, "
        "Strict-Transport-Security, X-Content-Type-Options, X-Frame-Options, X-XSS-Protection",
        "14:5: http_server_config.headers.X-Frame-Options: must be one of deny, sameorigin",
        "15:5: http_server_config.headers.Strict-Transport-Security: must be one line of printable ASCII",
        "17:3: basic_auth_users.ann: must be text; if it looks like something else to YAML, put it in quotes",
        "18:3: basic_auth_users.bob: must be a bcrypt hash, as `htpasswd -nBC 10 USER` makes it, in quotes",
        "19:3: basic_auth_users.a:b: a user's name cannot hold a colon",
        "20:1: more: is no known key; known are tls_server_config, http_server_config, basic_auth_users",
    ]
    assert "swordfish" not in "".join(found)


@pytest.mark.parametrize(
    ("tls", "wrong"),
    [
        ("client_auth_type: RequireAndVerifyClientCert", "client_ca_file: is missing: who signs"),
        ("client_ca_file: ca.pem", "client_ca_file: has no effect without client_auth_type"),
        (
            "client_allowed_sans: [a]",
            "client_allowed_sans: needs client_auth_type: RequireAndVerifyClientCert",
        ),
        ("client_auth_type: Sometimes", "client_auth_type: must be one of NoClientCert, Verify"),
        ("max_version: TLS12, min_version: TLS13", "max_version: is below min_version"),
        ("max_version: TLS12, cipher_suites: [TLS_AES_128_GCM_SHA256]", "max_version: is below"),
        ("curve_preferences: [brainpool]", "curve_preferences.0: must be one of CurveP256"),
        ("prefer_server_cipher_suites: 1", "prefer_server_cipher_suites: must be true or false"),
        ("cipher_suites: no", "cipher_suites: must be a list"),
        (
            "client_ca_file: web.yml, client_auth_type: VerifyClientCertIfGiven",
            "client_ca_file: cannot be used: no certificate or crl found",
        ),
        (
            "client_ca_file: gone.pem, client_auth_type: VerifyClientCertIfGiven",
            "client_ca_file: {folder}/gone.pem cannot be read: No such file or directory",
        ),
    ],
)
def test_what_tls_cannot_do_is_refused(folder: Path, tls: str, wrong: str) -> None:
    found = messages(folder, TLS % f", {tls}")
    assert [wrong.format(folder=folder) in message for message in found] == [True]


@pytest.mark.parametrize(
    ("cert", "key", "wrong"),
    [
        (
            "gone.pem",
            "server.key",
            "1:21: tls_server_config.cert_file: {folder}/gone.pem cannot be read: No such",
        ),
        (
            "server.pem",
            "/gone.key",
            "1:44: tls_server_config.key_file: /gone.key cannot be read: No such file",
        ),
        (
            "server.pem",
            "client.key",
            "tls_server_config.cert_file: certificate and key cannot be used: key values",
        ),
        ("server.key", "server.key", "tls_server_config.cert_file: certificate and key cannot be used:"),
        ("server.pem", "locked.key", "tls_server_config.cert_file: certificate and key cannot be used:"),
    ],
)
def test_certificates_are_looked_at_when_the_file_is_read(
    folder: Path, cert: str, key: str, wrong: str
) -> None:
    private = serialization.load_pem_private_key((folder / "server.key").read_bytes(), None)
    locked = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"password"),
    )
    (folder / "locked.key").write_bytes(locked)
    (found,) = messages(folder, f"tls_server_config: {{cert_file: {cert}, key_file: {key}}}\n")
    assert wrong.format(folder=folder) in found


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("- a\n", "1:1: must be a mapping"),
        ("basic_auth_users: [ann]\n", "1:1: basic_auth_users: must be a mapping"),
        ("basic_auth_users: {ann: }\n", "1:20: basic_auth_users.ann: must be a bcrypt hash"),
        (
            f"basic_auth_users: {{ann: {HASH[:7]}{'a' * 53}}}\n",
            "1:20: basic_auth_users.ann: must be a bcrypt",
        ),
        ("basic_auth_users: {ann: a, ann: b}\n", "stands twice"),
        ("a: [\n", "2:1: "),
    ],
)
def test_a_file_of_another_shape_is_refused(folder: Path, text: str, wrong: str) -> None:
    assert any(wrong in message for message in messages(folder, text))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(WebConfigError, match=r"gone\.yml: cannot be read: No such file"):
        load(tmp_path / "gone.yml")


def test_a_file_may_be_empty(folder: Path) -> None:
    (folder / "web.yml").write_text("")
    config, context = load(folder / "web.yml")
    assert (config.tls, config.users, config.headers, context) == (None, {}, {}, None)


def test_the_whole_form_is_understood(folder: Path) -> None:
    (folder / "web.yml").write_text(
        TLS
        % ", client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.pem, client_allowed_sans: [a], "
        "min_version: TLS12, max_version: TLS13, prefer_server_cipher_suites: false, "
        "cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, TLS_AES_128_GCM_SHA256], "
        "curve_preferences: [X25519]"
        + f"http_server_config: {{http2: true, headers: {{X-Frame-Options: deny, X-XSS-Protection: ''}}}}\n"
        f"basic_auth_users: {{ann: '{HASH}'}}\n"
    )
    config, context = load(folder / "web.yml")
    assert context is not None
    assert [c["name"] for c in context.get_ciphers() if c["protocol"] == "TLSv1.2"] == [
        "ECDHE-ECDSA-AES256-GCM-SHA384"
    ]
    assert not context.options & ssl.OP_CIPHER_SERVER_PREFERENCE
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert config.headers == {"X-Frame-Options": "deny"}
    assert config.users == {"ann": HASH}
    assert HASH not in repr(config)


@pytest.mark.parametrize("suite", CIPHERS_12)
def test_every_suite_that_is_offered_is_one_of_openssl(folder: Path, suite: str) -> None:
    (folder / "web.yml").write_text(TLS % f", cipher_suites: [{suite}]")
    context = load(folder / "web.yml")[1]
    assert context is not None
    assert len([c for c in context.get_ciphers() if c["protocol"] != "TLSv1.3"]) == 1


@pytest.mark.parametrize("curve", CURVES)
def test_every_curve_that_is_offered_is_one_of_openssl(folder: Path, serve: Serve, curve: str) -> None:
    url = serve(TLS % f", curve_preferences: [{curve}]")
    assert status(url, folder) == 200


def test_tls_serves_every_page_and_nothing_in_the_clear(folder: Path, serve: Serve) -> None:
    url = serve(TLS % "")
    for page in ("/", "/metrics", "/healthz"):
        assert status(url + page, folder) == 200
    with pytest.raises(requests.ConnectionError):
        requests.get(url.replace("https", "http"), timeout=10)
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(url, timeout=10)


@pytest.mark.parametrize(
    ("tls", "offered", "meets"),
    [
        ("", ssl.TLSVersion.TLSv1_2, True),
        (", min_version: TLS13", ssl.TLSVersion.TLSv1_2, False),
        (", max_version: TLS12", ssl.TLSVersion.TLSv1_3, False),
        (", cipher_suites: [TLS_AES_256_GCM_SHA384]", ssl.TLSVersion.TLSv1_2, False),
        (", cipher_suites: [TLS_AES_256_GCM_SHA384]", ssl.TLSVersion.TLSv1_3, True),
    ],
)
def test_versions_are_kept(
    folder: Path, serve: Serve, tls: str, offered: ssl.TLSVersion, meets: bool
) -> None:
    host, port = serve(TLS % tls).removeprefix("https://").split(":")
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.minimum_version = context.maximum_version = offered
    with socket.create_connection((host, int(port)), 10) as raw:
        if meets:
            context.wrap_socket(raw, server_hostname=host).close()
        else:
            with pytest.raises(ssl.SSLError):
                context.wrap_socket(raw, server_hostname=host)


@pytest.mark.parametrize(
    ("kind", "client", "answered"),
    [
        ("RequireAndVerifyClientCert", "client", True),
        ("RequireAndVerifyClientCert", "stranger", False),
        ("RequireAndVerifyClientCert", "", False),
        ("VerifyClientCertIfGiven", "client", True),
        ("VerifyClientCertIfGiven", "stranger", False),
        ("VerifyClientCertIfGiven", "", True),
        ("RequireAndVerifyClientCert, client_allowed_sans: [prometheus.example.com]", "client", True),
        ("RequireAndVerifyClientCert, client_allowed_sans: [prometheus.example.com]", "other", False),
        ("RequireAndVerifyClientCert, client_allowed_sans: ['::1', 10.0.0.7]", "other", True),
    ],
)
def test_clients_show_certificates(
    folder: Path, serve: Serve, kind: str, client: str, answered: bool
) -> None:
    url = serve(TLS % f", client_ca_file: ca.pem, client_auth_type: {kind}")
    if answered:
        assert status(f"{url}/metrics", folder, client) == 200
    else:
        with pytest.raises(requests.ConnectionError):
            status(f"{url}/metrics", folder, client)


def test_a_new_certificate_is_shown_without_a_restart(
    folder: Path, serve: Serve, authority: trustme.CA
) -> None:
    url = serve(TLS % "")
    old = served_certificate(url)
    with requests.Session() as kept:
        assert kept.get(url, verify=str(folder / "ca.pem"), timeout=10).status_code == 200
        issue(authority, folder, "server", "127.0.0.1")
        assert served_certificate(url) != old
        assert kept.get(url, verify=str(folder / "ca.pem"), timeout=10).status_code == 200
    assert status(url, folder) == 200


def test_a_broken_change_leaves_in_force_what_was(
    folder: Path, serve: Serve, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "exporter")
    url = serve(TLS % "")
    old = served_certificate(url)
    whole = (folder / "server.key").read_bytes()
    (folder / "server.key").write_text("half a key")
    for _ in range(3):
        assert served_certificate(url) == old
    (told,) = caplog.records
    assert told.message == "the web configuration was not read: what was before stays"
    assert told.fields["error"] == (
        f"{folder}/web.yml:1:21: tls_server_config.cert_file: certificate and key cannot be used: no PEM "
        "file that OpenSSL understands"
    )
    (folder / "server.key").write_bytes(whole)
    assert served_certificate(url) == old
    assert [record.message for record in caplog.records[1:]] == ["the web configuration was read again"]


def test_a_file_that_goes_away_leaves_in_force_what_was(
    folder: Path, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    url = serve(USERS)
    (folder / "web.yml").unlink()
    for _ in range(2):
        assert status(url, folder) == 401
        assert status(url, folder, auth=("ann", SECRET)) == 200
    (told,) = caplog.records
    assert told.fields["error"] == f"{folder}/web.yml: cannot be read: No such file or directory"


def test_tls_is_not_taken_off_by_a_change(
    folder: Path, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    url = serve(TLS % "")
    (folder / "web.yml").write_text("")
    assert status(url, folder) == 200
    assert [r.fields["error"] for r in caplog.records] == [
        f"{folder}/web.yml: TLS is put on or off by a restart only"
    ]


@pytest.mark.parametrize("page", ["/", "/metrics", "/healthz", "/readyz", "/-/reload", "/nothing"])
def test_every_page_asks_for_a_user(folder: Path, serve: Serve, page: str) -> None:
    answer = requests.get(serve(USERS) + page, timeout=10)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="build-exporter", charset="UTF-8"'
    assert answer.text == "Unauthorized\n"


def test_the_right_user_reads_and_the_wrong_ones_do_not(folder: Path, serve: Serve) -> None:
    url = serve(USERS)
    for auth in [
        ("ann", "wrong"),
        ("bob", SECRET),
        ("", SECRET),
        ("ann", ""),
        ("ann", "a\0b"),
        ("ann", "x" * 100),
    ]:
        assert status(url, folder, auth=auth) == 401
        assert status(url, folder, auth=("ann", SECRET)) == 200


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic",
        "Basic !!",
        "Basic /w==",
        "Bearer abc",
        b64("ann"),
        b64(f"ann:{SECRET}").replace("Basic", "Digest"),
    ],
)
def test_a_header_that_is_none_of_basic_is_refused(folder: Path, serve: Serve, header: str) -> None:
    assert status(serve(USERS), folder, headers={"Authorization": header}) == 401


def test_a_long_password_counts_as_far_as_bcrypt_reads(folder: Path, serve: Serve) -> None:
    hashed = bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode()
    url = serve(f"basic_auth_users: {{ann: '{hashed}'}}\n")
    assert status(url, folder, auth=("ann", "x" * 100)) == 200


def test_users_are_read_anew_when_the_file_changes(folder: Path, serve: Serve) -> None:
    url = serve(USERS)
    assert status(url, folder, auth=("ann", SECRET)) == 200
    other = bcrypt.hashpw(b"other", bcrypt.gensalt(4)).decode()
    (folder / "web.yml").write_text(f"basic_auth_users: {{ann: '{other}', bob: '{HASH}'}}\n")
    assert status(url, folder, auth=("ann", SECRET)) == 401
    assert status(url, folder, auth=("ann", "other")) == 200
    assert status(url, folder, auth=("bob", SECRET)) == 200
    (folder / "web.yml").write_text("")
    assert status(url, folder) == 200


def test_a_correct_password_costs_one_bcrypt_and_an_unknown_user_as_much(folder: Path, serve: Serve) -> None:
    slow = bcrypt.hashpw(SECRET.encode(), bcrypt.gensalt(12)).decode()
    url = serve(f"basic_auth_users: {{ann: '{slow}', bob: '{HASH}'}}\n")

    def takes(auth: tuple[str, str], expected: int) -> float:
        start = time.perf_counter()
        assert status(url, folder, auth=auth) == expected
        return time.perf_counter() - start

    first = takes(("ann", SECRET), 200)
    remembered = min(takes(("ann", SECRET), 200) for _ in range(5))
    assert first > 4 * remembered
    assert takes(("nobody", SECRET), 401) > 4 * remembered


def test_passwords_are_checked_beside_the_pages(folder: Path, serve: Serve) -> None:
    slow = bcrypt.gensalt(14)
    hashed = bcrypt.hashpw(b"never asked", bcrypt.gensalt(4)).decode()
    url = serve(f"basic_auth_users: {{ann: '{HASH}', eve: '{slow.decode()}{hashed[29:]}'}}\n")
    assert status(url, folder, auth=("ann", SECRET)) == 200
    guessing = threading.Thread(target=status, args=(url, folder), kwargs={"auth": ("eve", "guess")})
    guessing.start()
    for _ in range(3):
        assert status(url, folder, auth=("ann", SECRET)) == 200
    assert guessing.is_alive()
    guessing.join()


def test_few_passwords_are_remembered() -> None:
    users = {f"user{number}": HASH for number in range(REMEMBERED + 5)}
    guard = Guard(lambda *_: None, None)

    async def all_of_them() -> list[bool]:
        knocks = [guard._knows(Headers({"authorization": b64(f"{user}:{SECRET}")}), users) for user in users]
        return [await knock for knock in knocks]

    assert all(asyncio.run(all_of_them()))
    assert len(guard._remembered) == REMEMBERED
    assert SECRET.encode() not in b"".join(guard._remembered)


def test_headers_are_added_to_every_answer(folder: Path, serve: Serve) -> None:
    url = serve(
        USERS
        + "http_server_config: {headers: {Strict-Transport-Security: max-age=60, X-Frame-Options: DENY}}\n"
    )
    for auth in (None, ("ann", SECRET)):
        headers = requests.get(f"{url}/metrics", auth=auth, timeout=10).headers
        assert headers["Strict-Transport-Security"] == "max-age=60"
        assert headers["X-Frame-Options"] == "DENY"
        assert "Server" not in headers


OPENING = (Path(__file__).parent.parent / "docs" / "opening.md").read_text(encoding="utf-8")


def test_every_key_is_documented() -> None:
    table = "".join(line for line in OPENING.splitlines() if line.startswith("|"))
    named = set(re.findall(r"`([^`]+)`", table))
    keys = {f"tls_server_config.{key}" for key in TLS_KEYS} | {"http_server_config.http2"}
    missing = [key for key in keys if key not in named and key.split(".")[1] not in named]
    assert missing == []
    assert {*HEADERS, *CLIENT_AUTH, *VERSIONS, *CURVES} <= named

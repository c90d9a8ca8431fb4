"""The file that says who may read our pages, in the form that every Prometheus exporter has.

Form: https://prometheus.io/docs/prometheus/latest/configuration/https/.
"""

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from exporter import yamlfile
from exporter.fields import suggestion

TLS_KEYS = (
    "cert_file",
    "key_file",
    "client_auth_type",
    "client_ca_file",
    "client_allowed_sans",
    "min_version",
    "max_version",
    "cipher_suites",
    "prefer_server_cipher_suites",
    "curve_preferences",
)
CLIENT_AUTH = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
UNCHECKED = ("RequestClientCert", "RequireAnyClientCert")
VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
OLD_VERSIONS = ("TLS10", "TLS11")
CIPHERS_12 = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
}
CIPHERS_13 = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
CURVES = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}
HEADERS: dict[str, tuple[str, ...]] = {
    "Content-Security-Policy": (),
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
}
"""The headers that may be set, and the values that they may have where these are few."""
BCRYPT = re.compile(r"\$2[abxy]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")


class WebConfigError(ValueError):
    """The file cannot be used; `messages` has a line for everything that is wrong in it."""

    def __init__(self, messages: list[str]) -> None:
        super().__init__("\n".join(messages))
        self.messages = messages


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How connections are encrypted, in the words of Python's `ssl`; paths are whole."""

    cert_file: Path
    key_file: Path
    client_auth: ssl.VerifyMode = ssl.CERT_NONE
    client_ca_file: Path | None = None
    client_allowed_sans: frozenset[str] = frozenset()
    """Names of which a client's certificate must have one; empty: any certificate will do."""
    min_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    max_version: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED
    ciphers: tuple[str, ...] = ()
    prefer_server_ciphers: bool = True
    curve: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebConfig:
    """What the file says."""

    tls: Tls | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    """bcrypt hashes by user; empty: everyone may read."""


def load(path: Path) -> tuple[WebConfig, ssl.SSLContext | None]:
    """The file and the TLS that it asks for; raises `WebConfigError` with all that is wrong at once."""
    try:
        document = yamlfile.read(path)
    except OSError as error:
        raise WebConfigError([f"{path}: cannot be read: {error.strerror}"]) from None
    except yamlfile.NotYamlError as fault:
        raise WebConfigError([f"{path}:{fault.place[0]}:{fault.place[1]}: {fault}"]) from None
    reader = _Reader(document, path.resolve().parent)
    config = reader.config()
    context = None
    if config.tls and not reader.problems:
        try:
            context = context_of(config.tls)
        except _TlsError as error:
            reader.wrong(("tls_server_config", error.key), str(error))
    if reader.problems:
        lines = sorted((place, ".".join(map(str, key)), text) for place, key, text in reader.problems)
        raise WebConfigError(
            [
                f"{path}:{line}:{column}: {f'{key}: ' if key else ''}{text}"
                for (line, column), key, text in lines
            ]
        )
    return config, context


class _TlsError(Exception):
    """OpenSSL refuses what `key` names."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key


def context_of(tls: Tls) -> ssl.SSLContext:
    """TLS as OpenSSL does it; raises `_TlsError`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = tls.min_version
    context.maximum_version = tls.max_version
    context.options |= ssl.OP_NO_RENEGOTIATION
    if not tls.prefer_server_ciphers:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if tls.ciphers:
        context.set_ciphers(":".join(tls.ciphers))
    if tls.curve:
        context.set_ecdh_curve(tls.curve)
    for key, file in (("cert_file", tls.cert_file), ("key_file", tls.key_file)):
        _readable(key, file)
    try:
        # An encrypted key would otherwise make OpenSSL ask on the terminal.
        context.load_cert_chain(tls.cert_file, tls.key_file, password="")
    except (OSError, ValueError) as error:
        raise _TlsError("cert_file", f"certificate and key cannot be used: {_reason(error)}") from None
    if tls.client_ca_file:
        _readable("client_ca_file", tls.client_ca_file)
        try:
            context.load_verify_locations(tls.client_ca_file)
        except OSError as error:
            raise _TlsError("client_ca_file", f"cannot be used: {_reason(error)}") from None
    context.verify_mode = tls.client_auth
    return context


def _readable(key: str, file: Path) -> None:
    try:
        file.open("rb").close()
    except OSError as error:
        raise _TlsError(key, f"{file} cannot be read: {error.strerror}") from None


def _reason(error: Exception) -> str:
    reason = error.reason if isinstance(error, ssl.SSLError) else str(error)
    return reason.replace("_", " ").lower() if reason else "no PEM file that OpenSSL understands"


class _Reader:
    """The walk through the file; what is wrong is gathered in `problems`."""

    def __init__(self, document: yamlfile.Document, directory: Path) -> None:
        self.problems = list(document.problems)
        self._document = document
        self._directory = directory

    def wrong(self, key: yamlfile.Key, text: str) -> None:
        self.problems.append((self._document.place(key), key, text))

    def config(self) -> WebConfig:
        known = ("tls_server_config", "http_server_config", "basic_auth_users")
        top = self._mapping((), self._document.values, known)
        http = self._mapping(("http_server_config",), top.get("http_server_config"), ("http2", "headers"))
        self._flag(("http_server_config", "http2"), http, True)
        return WebConfig(
            tls=self._tls(top.get("tls_server_config")),
            headers=self._headers(http.get("headers")),
            users=self._users(top.get("basic_auth_users")),
        )

    def _mapping(self, key: yamlfile.Key, value: object, known: tuple[str, ...] = ()) -> dict[str, object]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.wrong(key, "must be a mapping")
            return {}
        for name in value if known else ():
            if name not in known:
                self.wrong((*key, name), f"is no known key{suggestion(name, list(known))}")
        return value

    def _flag(self, key: yamlfile.Key, mapping: dict[str, object], default: bool) -> bool:
        value = mapping.get(str(key[-1]), default)
        if not isinstance(value, bool):
            self.wrong(key, "must be true or false")
            return default
        return value

    def _text(self, key: yamlfile.Key, value: object) -> str:
        if value is not None and not isinstance(value, str):
            self.wrong(key, "must be text; if it looks like something else to YAML, put it in quotes")
        return value if isinstance(value, str) else ""

    def _texts(self, key: yamlfile.Key, value: object) -> list[str]:
        if value is None:
            return []
        if not isinstance(value, list):
            self.wrong(key, "must be a list, like [a, b]")
            return []
        return [self._text((*key, place), item) for place, item in enumerate(value)]

    def _chosen(self, key: yamlfile.Key, word: str, choices: Mapping[str, object]) -> bool:
        if word and word not in choices:
            self.wrong(key, f"must be one of {', '.join(choices)}")
        return word in choices

    def _file(self, key: yamlfile.Key, value: object) -> Path | None:
        text = self._text(key, value)
        return self._directory / text if text else None

    def _tls(self, value: object) -> Tls | None:
        at = "tls_server_config"
        given = self._mapping((at,), value, TLS_KEYS)
        if not given:
            return None
        cert, key, authority = (
            self._file((at, name), given.get(name)) for name in ("cert_file", "key_file", "client_ca_file")
        )
        for name, file in (("cert_file", cert), ("key_file", key)):
            if not file:
                self.wrong((at, name), "is missing")
        ciphers, only_13 = self._ciphers((at, "cipher_suites"), given.get("cipher_suites"))
        newest = ssl.TLSVersion.MAXIMUM_SUPPORTED
        least = VERSIONS["TLS13" if only_13 else "TLS12"]
        min_version = self._version((at, "min_version"), given.get("min_version"), least)
        max_version = self._version((at, "max_version"), given.get("max_version"), newest)
        if max_version is not newest and max(min_version, least) > max_version:
            self.wrong((at, "max_version"), "is below min_version, or below what cipher_suites need")
        tls = Tls(
            cert_file=cert or Path(),
            key_file=key or Path(),
            client_auth=self._client_auth((at, "client_auth_type"), given.get("client_auth_type")),
            client_ca_file=authority,
            client_allowed_sans=frozenset(
                self._texts((at, "client_allowed_sans"), given.get("client_allowed_sans"))
            ),
            min_version=max(min_version, least),
            max_version=max_version,
            ciphers=ciphers,
            prefer_server_ciphers=self._flag((at, "prefer_server_cipher_suites"), given, True),
            curve=self._curve((at, "curve_preferences"), given.get("curve_preferences")),
        )
        if tls.client_auth is not ssl.CERT_NONE and not authority:
            self.wrong((at, "client_ca_file"), "is missing: who signs the clients' certificates?")
        if authority and tls.client_auth is ssl.CERT_NONE:
            self.wrong((at, "client_ca_file"), "has no effect without client_auth_type")
        if tls.client_allowed_sans and tls.client_auth is not ssl.CERT_REQUIRED:
            what = "needs client_auth_type: RequireAndVerifyClientCert"
            self.wrong((at, "client_allowed_sans"), what)
        return tls

    def _client_auth(self, key: yamlfile.Key, value: object) -> ssl.VerifyMode:
        word = self._text(key, value)
        if word in UNCHECKED:
            self.wrong(key, f"{word} takes certificates that nobody checks; use RequireAndVerifyClientCert")
        elif self._chosen(key, word, CLIENT_AUTH):
            return CLIENT_AUTH[word]
        return ssl.CERT_NONE

    def _version(self, key: yamlfile.Key, value: object, default: ssl.TLSVersion) -> ssl.TLSVersion:
        word = self._text(key, value)
        if word in OLD_VERSIONS:
            self.wrong(key, f"{word} is broken and not supported; use TLS12 or TLS13")
        elif self._chosen(key, word, VERSIONS):
            return VERSIONS[word]
        return default

    def _ciphers(self, key: yamlfile.Key, value: object) -> tuple[tuple[str, ...], bool]:
        """OpenSSL's names of TLS 1.2 suites, and whether only suites of TLS 1.3 (all used) were named."""
        names = self._texts(key, value)
        for place, name in enumerate(names):
            if name not in CIPHERS_12 and name not in CIPHERS_13:
                self.wrong((*key, place), f"is not supported{suggestion(name, [*CIPHERS_12, *CIPHERS_13])}")
        known = tuple(CIPHERS_12[name] for name in names if name in CIPHERS_12)
        return known, bool(names) and not known

    def _curve(self, key: yamlfile.Key, value: object) -> str:
        names = self._texts(key, value)
        if len(names) > 1:
            self.wrong(key, "may name one curve only, or be left out for all of them")
        if names and self._chosen((*key, 0), names[0], CURVES):
            return CURVES[names[0]]
        return ""

    def _headers(self, value: object) -> dict[str, str]:
        at = ("http_server_config", "headers")
        headers = self._mapping(at, value, tuple(HEADERS))
        texts = {name: self._text((*at, name), text) for name, text in headers.items()}
        for name, text in texts.items():
            choices = HEADERS.get(name, ())
            if choices and text.lower() not in choices:
                self.wrong((*at, name), f"must be one of {', '.join(choices)}")
            if re.search(r"[^ -~]", text):
                self.wrong((*at, name), "must be one line of printable ASCII")
        return {name: text for name, text in texts.items() if text}

    def _users(self, value: object) -> dict[str, str]:
        at = "basic_auth_users"
        users = self._mapping((at,), value)
        hashes = {name: self._text((at, name), text) for name, text in users.items()}
        for name, text in hashes.items():
            if ":" in name:
                self.wrong((at, name), "a user's name cannot hold a colon")
            if isinstance(users[name], str | None) and not BCRYPT.fullmatch(text):
                self.wrong(
                    (at, name), "must be a bcrypt hash, as `htpasswd -nBC 10 USER` makes it, in quotes"
                )
        return hashes

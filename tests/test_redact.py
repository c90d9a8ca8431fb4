"""No secret is left in a text, what only looks like one stays, and no text takes long."""

import base64
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import regex
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.notify.redact import MARK, Redactor, SlowPatternError

DATA = Path(__file__).parent / "data/redact"
SECRETS: list[dict[str, Any]] = yaml.safe_load((DATA / "secrets.yaml").read_text(encoding="utf-8"))
HARMLESS: list[str] = yaml.safe_load((DATA / "harmless.yaml").read_text(encoding="utf-8"))
FRAGMENT = 6
"""Characters of a secret that must not be left together."""
SIZE = 1 << 18
PUMPS = (
    "a", "A1", "://", "://:", "://a:", "http://a", "password", "password=", "password: ", "password='",
    'password="', 'password=\\"', "password=a.", "password=<a", "password=${", "password=%a", "--", "--a",
    "--password ", "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----\n", "-----BEGIN A B ",
    "<password",
    "<password>", "login a password ", "login ", "mysql -p", "mysql\t", "env password ", "set aaaaaaaaaaa",
    " -u a:", "bearer ", "Basic aaaaa", "authorization: bearer ", "cookie: a=", "eyJ", "eyJa.",
    "eyJaaaaaaaaaa.eyJ", "ghp_", "sk-", "SG.aaaaaaaaaaaaaaaaaaa.", "?key=", "&a=", "123456789:AA", "a@tcp(",
    "a:b@tcp(", "aB3" + "a" * 61 + "\n", "_auth_auth", "secret-", "$6$a", '\\"', "\n", "token:str=",
)  # fmt: skip
"""Repeated, each is the worst of texts for one rule."""


@pytest.fixture(scope="module")
def hide() -> Redactor:
    return Redactor()


@pytest.mark.parametrize("case", SECRETS, ids=lambda case: case["kind"])
def test_secrets_are_gone(hide: Redactor, case: dict[str, Any]) -> None:
    secret = "".join(map(str, case["secret"]))
    shown = hide(f"before\n{case['text'].format(secret)}\nafter")
    assert MARK in shown
    assert shown.startswith("before\n")
    assert shown.endswith("\nafter")
    fragments = {secret[start : start + FRAGMENT] for start in range(max(len(secret) - FRAGMENT, 0) + 1)}
    assert not [fragment for fragment in fragments if fragment in shown], shown


@pytest.mark.parametrize("text", HARMLESS)
def test_what_only_looks_like_a_secret_stays(hide: Redactor, text: str) -> None:
    assert hide(text) == text


def test_the_corpus_is_large_enough() -> None:
    assert len({case["kind"] for case in SECRETS}) >= 25
    assert len(HARMLESS) >= 15


SECRET = 'pä ss/w+rd"7&<x>'


@pytest.mark.parametrize(
    "shown",
    [
        SECRET,
        quote(SECRET, safe=""),
        quote(SECRET, safe="").lower(),
        SECRET.encode().hex(),
        'pä ss/w+rd\\"7&<x>',
        "pä ss/w+rd&quot;7&amp;&lt;x&gt;",
        *(base64.b64encode((before + SECRET + "!").encode()).decode() for before in ("", "u", "us", "user:")),
        base64.urlsafe_b64encode(f"user:{SECRET}".encode()).decode(),
        SECRET[:7] + "\n" + SECRET[7:],
    ],
)
def test_known_secrets_are_found_in_every_form(shown: str) -> None:
    hide = Redactor([SECRET])
    text = hide(f"it said {shown} and went on")
    assert MARK in text
    assert text.endswith(" and went on")
    kept = text.removeprefix("it said ").removesuffix(" and went on").replace(MARK, "").replace("\n", "")
    # Beside the secret's own base64 a few characters of what stands around it are left.
    assert len(kept) < 12
    assert text.count("\n") == shown.count("\n")


def test_lines_of_a_secret_are_secrets_and_short_ones_are_not() -> None:
    hide = Redactor(["first line of it\nab\nlast line of it", "x", ""])
    assert hide("(last line of it)") == f"({MARK})"
    assert hide("first line of it\nab\nlast line of it!") == f"{MARK}\n\n!"
    assert hide("ab x") == "ab x"


def test_secrets_that_overlap_are_gone_whole() -> None:
    assert Redactor(["abcdefgh", "efghijkl"])("abcdefghijkl.") == f"{MARK}."
    assert Redactor(["abababab"])("x ababababab x") == f"x {MARK} x"


def test_own_patterns_are_replaced_whole_and_bounded_in_time() -> None:
    hide = Redactor(patterns=[regex.compile(r"ACME-\d+")])
    assert hide("key ACME-42 and ACME-x") == f"key {MARK} and ACME-x"
    slow = Redactor(patterns=[regex.compile(r"(x|xx)+y")])
    with pytest.raises(SlowPatternError):
        slow("y" + "x" * 80)


def key(lines: int = 6, begin: str = "-----BEGIN RSA PRIVATE KEY-----", width: int = 64) -> list[str]:
    body = [(f"{line}aB3/+" * 20)[:width] for line in range(lines)]
    return [begin, *body, "c3RvcA==", begin.replace("BEGIN", "END")]


WHOLE = key()


@pytest.mark.parametrize(
    "lines",
    [
        WHOLE,
        WHOLE[:-1],
        WHOLE[:3],
        WHOLE[1:],
        WHOLE[-3:],
        WHOLE[2:-2],
        WHOLE[1:-1],
        key(begin="-----BEGIN OPENSSH PRIVATE KEY-----", width=70),
        key(begin="-----BEGIN PGP PRIVATE KEY BLOCK-----"),
        [f"12:00:01 | {line}" for line in WHOLE],
        [f"    {line}" for line in WHOLE[:-1]],
        ["\\n".join(WHOLE)],
        ["tls.key: " + WHOLE[0], *WHOLE[1:]],
        [WHOLE[0], "Proc-Type: 4,ENCRYPTED", "DEK-Info: AES-128-CBC,0123", "", *WHOLE[1:]],
    ],
    ids=lambda lines: f"{len(lines)} {lines[0][:20]}",
)
def test_private_keys_are_gone_even_when_cut(hide: Redactor, lines: list[str]) -> None:
    shown = hide("\n".join(["+ cat key.pem", *lines, "make: *** [key] Error 1"]))
    assert MARK in shown
    assert "aB3" not in shown
    assert "c3RvcA" not in shown
    assert shown.startswith("+ cat key.pem\n")
    assert shown.endswith("\nmake: *** [key] Error 1")
    assert shown.count("\n") == len(lines) + 1


def test_certificates_and_wrapped_hashes_stay(hide: Redactor) -> None:
    certificate = "\n".join(key(begin="-----BEGIN CERTIFICATE-----"))
    hashes = "\n".join(f"{n:064x}" for n in range(9))
    for text in (certificate, hashes):
        assert hide(text) == text


@given(st.text(alphabet="ab1= :\n\"'/@-_.<>pasword", max_size=80), st.sampled_from(SECRETS))
def test_redacting_twice_changes_nothing_and_lines_stay(text: str, case: dict[str, Any]) -> None:
    hide = Redactor(["known-secret"])
    once = hide(f"{text}\n{case['text'].format(''.join(map(str, case['secret'])))} known-secret{text}")
    assert hide(once) == once
    assert once.count("\n") == 2 * text.count("\n") + 1


@pytest.mark.parametrize("pump", PUMPS)
def test_the_worst_texts_take_no_longer_than_long_ones(hide: Redactor, pump: str) -> None:
    # Quadratic time would be minutes.
    began = time.process_time()
    hide((pump * (SIZE // len(pump) + 1))[:SIZE])
    assert time.process_time() - began < 3


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([*PUMPS, " ", "\n", "=", ":", "x1"]), min_size=1, max_size=4).map("".join))
def test_no_mix_of_them_takes_longer(pump: str) -> None:
    began = time.process_time()
    Redactor()((pump * (1 << 14))[: 1 << 15])
    assert time.process_time() - began < 1.5

"""Signed tokens and the secret behind them."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous import URLSafeSerializer

from streamer.server.signing import MAX_TOKEN_CHARS, SecretError, Signer, TokenError, load_secret

SECRET = bytes(range(32))


class Clock:
    """Unix seconds, as a test says."""

    def __init__(self) -> None:
        self.now_s = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now_s


def refusal_of(signer: Signer, purpose: str, token: Any) -> str:
    with pytest.raises(TokenError) as caught:
        signer.verify(purpose, token)
    return caught.value.code


def test_claims_come_back_until_the_token_ends() -> None:
    clock = Clock()
    signer = Signer(SECRET, clock=clock)
    token = signer.sign("resume", {"session": "s-1", "n": 3}, 30)
    clock.now_s += 29.99
    assert signer.verify("resume", token) == {"session": "s-1", "n": 3}
    clock.now_s += 0.01
    assert refusal_of(signer, "resume", token) == "expired_token"


def test_a_token_survives_a_clock_that_is_set_back() -> None:
    clock = Clock()
    signer = Signer(SECRET, clock=clock)
    token = signer.sign("resume", {}, 30)
    clock.now_s -= 3600
    assert signer.verify("resume", token) == {}


def test_another_purpose_or_secret_does_not_take_it() -> None:
    token = Signer(SECRET).sign("resume", {"a": 1}, 30)
    assert refusal_of(Signer(SECRET), "client", token) == "invalid_token"
    assert refusal_of(Signer(SECRET[::-1]), "resume", token) == "invalid_token"
    assert Signer(SECRET).verify("resume", token) == {"a": 1}


@pytest.mark.parametrize("place", range(0, 60, 7))
def test_a_changed_character_is_noticed(place: int) -> None:
    signer = Signer(SECRET)
    token = signer.sign("resume", {"session": "s-1"}, 30)
    other = "A" if token[place] != "A" else "B"
    assert refusal_of(signer, "resume", token[:place] + other + token[place + 1 :]) == "invalid_token"


@given(st.one_of(st.text(), st.binary(), st.none(), st.text("ab._-", min_size=40, max_size=300)))
def test_whatever_comes_instead_of_a_token_is_refused(token: Any) -> None:
    assert refusal_of(Signer(SECRET), "resume", token) == "invalid_token"


@pytest.mark.parametrize("token", ["\udcff.\udcff", "é" * 40, "", ".", "...", "a" * 10_000, b"bytes", 7])
def test_odd_tokens_are_refused(token: Any) -> None:
    assert refusal_of(Signer(SECRET), "resume", token) == "invalid_token"


@pytest.mark.parametrize("payload", [[], {}, 1, [1], ["1", {}], [1, []], [1.5, {}], [[], {}], None])
def test_a_signed_payload_of_another_shape_is_refused(payload: Any) -> None:
    signer = Signer(SECRET)
    serializer: URLSafeSerializer = signer._serializer
    assert refusal_of(signer, "p", serializer.dumps(payload, salt=b"streamer.p")) == "invalid_token"


def test_what_can_not_be_signed_is_said() -> None:
    signer = Signer(SECRET)
    with pytest.raises(ValueError, match=f"at most {MAX_TOKEN_CHARS}"):
        signer.sign("resume", {"n": [*range(100)]}, 30)
    for ttl_s in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="ttl_s"):
            signer.sign("resume", {}, ttl_s)
    with pytest.raises(ValueError, match="at least 32"):
        Signer(b"short")


def test_without_a_file_every_process_has_its_own_secret() -> None:
    assert load_secret(None) != load_secret(None)
    assert len(load_secret(None)) >= 32


def test_a_missing_file_is_made_for_its_owner_and_shared(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(load_secret, [path] * 32))
    assert len(found) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o606, 0o620])
def test_a_file_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "secret"
    load_secret(path)
    path.chmod(mode)
    with pytest.raises(SecretError, match=rf"mode {mode:o}.*chmod 600 {path}"):
        load_secret(path)


@pytest.mark.parametrize("content", [b"", b"short\n", b"x" * 5000])
def test_a_file_that_holds_no_secret_is_refused_without_quoting_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SecretError, match="expected 32 to 4096") as caught:
        load_secret(path)
    assert "short" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "missing/secret"])
def test_a_path_that_can_be_no_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(SecretError, match=str(tmp_path)):
        load_secret(tmp_path / name)

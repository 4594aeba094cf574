"""API keys: their file, what a running server makes of its changes, and the command."""

from __future__ import annotations

import argparse
import json
import re
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from streamer.commands import CommandError, keys
from streamer.server.keys import DEFAULT_SCOPES, Identity, KeyFileError, KeyRing, add_key, read_keys, revoke_key


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.jsonl"


def command(*arguments: str | Path) -> int:
    """``streamer keys …``"""
    parser = argparse.ArgumentParser()
    keys.add_parser(parser.add_subparsers())
    parsed = parser.parse_args(["keys", *map(str, arguments)])
    return int(parsed.run(parsed))


def problem(path: Path) -> KeyFileError:
    with pytest.raises(KeyFileError) as caught:
        KeyRing.from_file(path)
    return caught.value


def test_a_key_is_known_by_its_name_and_kept_as_a_hash(path: Path) -> None:
    first, _ = add_key(path, "web")
    second, _ = add_key(path, "ops", ["metrics", "tokens"], 3)
    ring = KeyRing.from_file(path)
    assert ring.check(first) == Identity("web", "key", frozenset(DEFAULT_SCOPES), None, None)
    assert ring.check(second) == Identity("ops", "key", frozenset({"metrics", "tokens"}), 3, None)
    assert re.fullmatch(r"ds_[A-Za-z0-9_-]{43}", first)
    assert first[3:] not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_is_no_key_of_the_file_is_nobody(path: Path) -> None:
    key, _ = add_key(path, "web")
    ring = KeyRing.from_file(path)
    wrong = [key[:-1], key + "A", key.upper(), f" {key}", key[3:], "", "\udcff" * 46, "é" * 46, "ds_" + "A" * 43]
    assert [ring.check(text) for text in wrong] == [None] * len(wrong)
    assert ring.check(read_keys(path)[0].hash) is None


def test_a_revoked_key_stops_working_in_a_running_server_and_a_new_one_works(path: Path) -> None:
    key, _ = add_key(path, "web")
    kept, _ = add_key(path, "kept")
    ring = KeyRing.from_file(path)
    assert ring.check(key) is not None
    revoke_key(path, "web")
    assert ring.check(key) is None
    assert ring.check(kept) is not None
    again, _ = add_key(path, "web")
    assert ring.check(again) is not None
    assert ring.check(key) is None
    assert len(ring) == 2


def test_a_file_that_is_gone_lets_nobody_in(path: Path) -> None:
    key, _ = add_key(path, "web")
    ring = KeyRing.from_file(path)
    path.unlink()
    assert ring.check(key) is None
    assert ring.record("web") is None


def test_a_broken_file_is_reported_once_and_the_last_good_keys_go_on(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key, _ = add_key(path, "web")
    ring = KeyRing.from_file(path)
    good = path.read_bytes()
    path.write_bytes(good + b'{"name": "half')
    assert [ring.check(key) is not None for _ in range(3)] == [True] * 3
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "line 2" in caplog.text
    path.write_bytes(b"")
    assert ring.check(key) is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("not json", "malformed"),
        ("[]", "Expected `object`"),
        ('{"name": "x"}', "hash"),
        ('{"name": "x", "hash": "sha256:00", "created": "2026-01-01T00:00:00Z"}', "hash"),
        ('{"name": "x", "hash": "$H", "created": "yesterday"}', "created"),
        ('{"name": "x", "hash": "$H", "created": "2026-01-01T00:00:00Z", "scopes": ["all"]}', "scopes"),
        ('{"name": "x", "hash": "$H", "created": "2026-01-01T00:00:00Z", "max_sessions": 0}', "max_sessions"),
        ('{"name": "x", "hash": "$H", "created": "2026-01-01T00:00:00Z", "admin": true}', "admin"),
        ('{"name": "x y", "hash": "$H", "created": "2026-01-01T00:00:00Z"}', "name"),
        ('{"name": "web", "hash": "$H", "created": "2026-01-01T00:00:00Z"}', "key web already"),
        ("\udcff", "line 2"),
    ],
)
def test_a_wrong_line_is_named(path: Path, line: str, said: str) -> None:
    add_key(path, "web")
    text = line.replace("$H", "sha256:" + "0" * 64)
    path.write_bytes(path.read_bytes() + text.encode("utf-8", "surrogateescape"))
    error = problem(path)
    assert error.code == "invalid_keys_file"
    assert f"{path}, line 2" in str(error)
    assert said in str(error)


def test_a_file_that_others_can_write_or_that_is_missing_is_refused(path: Path) -> None:
    assert "streamer keys add" in str(problem(path))
    add_key(path, "web")
    path.chmod(0o666)
    assert f"chmod 600 {path}" in str(problem(path))
    path.unlink()
    path.mkdir()
    assert str(path) in str(problem(path))


def test_commands_at_once_lose_no_key(path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: add_key(path, f"key-{n}")[0], range(24)))
    ring = KeyRing.from_file(path)
    assert {identity.name for key in made if (identity := ring.check(key))} == {f"key-{n}" for n in range(24)}
    assert list(path.parent.iterdir()) == [path]


def test_a_link_and_a_mode_are_kept(path: Path) -> None:
    real = path.with_name("real.jsonl")
    add_key(real, "web")
    real.chmod(0o640)
    path.symlink_to(real)
    add_key(path, "other")
    assert path.is_symlink()
    assert [record.name for record in read_keys(real)] == ["web", "other"]
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_the_command_adds_lists_and_revokes(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command("add", "web", "--scopes", "tokens, dialogue", "--max-sessions", "7", "--file", path)
    out, err = capsys.readouterr()
    key = out.strip()
    identity = KeyRing.from_file(path).check(key)
    assert identity == Identity("web", "key", frozenset({"tokens", "dialogue"}), 7, None)
    assert key not in err
    command("add", "everything", "--scopes", "all", "--file", path)
    capsys.readouterr()
    command("list", "--json", "--file", path)
    listed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = [(entry["name"], len(entry["scopes"]), entry["max_sessions"]) for entry in listed]
    assert found == [("web", 2, 7), ("everything", 6, None)]
    command("list", "--file", path)
    table = capsys.readouterr().out
    assert "everything" in table
    assert "sha256" not in table
    command("revoke", "web", "--file", path)
    assert KeyRing.from_file(path).check(key) is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["add", "web"], "key web already"),
        (["add", "a b"], "'a b'"),
        (["add", ""], "''"),
        (["add", "x" * 65], "length <= 64"),
        (["add", "new", "--scopes", "dialogue,admin"], "no scope 'admin'"),
        (["add", "new", "--scopes", ""], "no scope ''"),
        (["add", "new", "--max-sessions", "0"], "max_sessions"),
        (["revoke", "nobody"], "no key nobody; it has web"),
    ],
)
def test_the_command_says_what_is_wrong_and_changes_nothing(path: Path, arguments: Sequence[str], said: str) -> None:
    add_key(path, "web")
    before = path.read_bytes()
    with pytest.raises(CommandError, match=re.escape(said)) as caught:
        command(*arguments, "--file", path)
    assert caught.value.exit_code == 2
    assert path.read_bytes() == before


@pytest.mark.parametrize("action", [["list"], ["revoke", "web"]])
def test_the_command_names_a_file_that_is_missing(path: Path, action: list[str]) -> None:
    with pytest.raises(CommandError, match=str(path)):
        command(*action, "--file", path)


def test_the_commands_of_the_document_work_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    document = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    lines = re.findall(r"^(?:\| `)?streamer keys ((?:add|list|revoke) [^`\n]*--file [^`\n]*)", document, re.MULTILINE)
    assert [line.split()[0] for line in lines] == ["add", "add", "list", "revoke"]
    for line in lines:
        assert command(*line.replace("LIST", "all").replace("--max-sessions N", "--max-sessions 3").split()) == 0
    assert [record.name for record in read_keys(Path("keys.jsonl"))] == ["backend"]


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="make its folder first"):
        command("add", "web", "--file", tmp_path / "no" / "keys.jsonl")

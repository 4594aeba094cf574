"""Uploaded voices on disk: what was stored is there again, whole, whatever happened in between."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from streamer.voices import UnknownVoice, Voice, VoiceError, VoiceRegistry
from streamer.voices.store import Consent, StoreError, VoiceStore

CONSENT = Consent("the-key", 1.5)


def voice(name: str = "ann", n_frames: int = 20, **texts: str) -> Voice:
    codes = torch.randint(0, 1024, (n_frames, 8), generator=torch.Generator().manual_seed(len(name)))
    return Voice(name, codes, **{"transcript": "Hi — “you”.", "origin": "Ann", "licence": "", **texts})


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "codes").iterdir())


def same(a: Voice, b: Voice) -> bool:
    return a.codes.equal(b.codes) and all(
        getattr(a, name) == getattr(b, name) for name in ("id", "transcript", "origin")
    )


def test_voices_are_there_again(tmp_path: Path) -> None:
    store = VoiceStore(tmp_path / "new" / "folder")
    made = [voice("ann", language="de", description="calm"), voice("bob_1")]
    for number, each in enumerate(made):
        store.add(each, Consent("the-key", number))
    for again in (store, VoiceStore(tmp_path / "new" / "folder")):
        loaded = again.voices()
        assert len(loaded) == 2
        assert all(same(a, b) for a, b in zip(loaded, made, strict=True))
        assert (loaded[0].language, loaded[0].description) == ("de", "calm")
        assert again.consent("ann") == Consent("the-key", 0)
        assert again.consent("nobody") is None


def test_an_index_from_before_codecs_had_fingerprints_is_brought_up_to_date(tmp_path: Path) -> None:
    store = VoiceStore(tmp_path)
    store.add(voice("ann", codec="0123456789abcdef"), CONSENT)
    assert store.voices()[0].codec == "0123456789abcdef"
    with closing(sqlite3.connect(tmp_path / "voices.sqlite3")) as index:
        index.execute("ALTER TABLE voices DROP COLUMN codec")
        index.execute("PRAGMA user_version = 1")
    store = VoiceStore(tmp_path)
    store.add(voice("bob", codec="fedcba9876543210"), CONSENT)
    for again in (store, VoiceStore(tmp_path)):
        assert [(each.id, each.codec) for each in again.voices()] == [("ann", ""), ("bob", "fedcba9876543210")]
        assert again.consent("ann") == CONSENT


def test_an_id_is_taken_once_and_free_again_after_removal(tmp_path: Path) -> None:
    store = VoiceStore(tmp_path)
    store.add(voice(), CONSENT)
    with pytest.raises(StoreError, match="already") as caught:
        store.add(voice(transcript="Other."), CONSENT)
    assert caught.value.code == "voice_exists"
    assert len(files(tmp_path)) == 1
    assert store.remove("ann")
    assert not store.remove("ann")
    assert files(tmp_path) == []
    assert not store.voices()
    store.add(voice(transcript="Other."), CONSENT)
    assert store.voices()[0].transcript == "Other."


def test_files_and_rows_that_have_lost_each_other_are_cleaned_up(tmp_path: Path) -> None:
    store = VoiceStore(tmp_path)
    for name in ("ann", "bob", "cid"):
        store.add(voice(name), CONSENT)
    bob = next(name for name in files(tmp_path) if name.startswith("bob"))
    (tmp_path / "codes" / bob).unlink()
    for name in ("dan.0123456789abcdef.npy", "eve.0123456789abcdef.npy.tmp", "notes.txt"):
        (tmp_path / "codes" / name).write_bytes(b"x")
    again = VoiceStore(tmp_path)
    assert [each.id for each in again.voices()] == ["ann", "cid"]
    assert [name.partition(".")[0] for name in files(tmp_path)] == ["ann", "cid", "notes"]
    again.add(voice("bob"), CONSENT)


def test_a_damaged_voice_is_left_out_but_not_thrown_away(tmp_path: Path) -> None:
    store = VoiceStore(tmp_path)
    for name in ("ann", "bob"):
        store.add(voice(name), CONSENT)
    path = tmp_path / "codes" / files(tmp_path)[0]
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    again = VoiceStore(tmp_path)
    assert [each.id for each in again.voices()] == ["bob"]
    assert len(files(tmp_path)) == 2
    assert again.remove("ann")
    assert len(files(tmp_path)) == 1


@pytest.mark.parametrize("wrong", ["a file", "not an index", "another version", "no permission"])
def test_a_folder_that_cannot_be_used_is_an_error_of_ours(tmp_path: Path, wrong: str) -> None:
    folder = tmp_path / "store"
    if wrong == "a file":
        folder.write_text("x")
    elif wrong == "not an index":
        folder.mkdir()
        (folder / "voices.sqlite3").write_bytes(b"not an index" * 100)
    elif wrong == "another version":
        VoiceStore(folder)
        with closing(sqlite3.connect(folder / "voices.sqlite3")) as index:
            index.execute("PRAGMA user_version = 99")
    else:
        folder = Path("/proc/voices")
    with pytest.raises(StoreError) as caught:
        VoiceStore(folder)
    assert caught.value.code == "storage_failed"


def test_threads_and_processes_share_a_store(tmp_path: Path) -> None:
    first, second = VoiceStore(tmp_path), VoiceStore(tmp_path)
    outcomes: list[str] = []

    def add(store: VoiceStore, name: str) -> None:
        try:
            store.add(voice(name), CONSENT)
            outcomes.append("added")
        except StoreError as error:
            outcomes.append(error.code)

    names = [(store, f"v{number}") for number in range(4) for store in (first, second)]
    threads = [threading.Thread(target=add, args=each) for each in names]
    for thread in threads:
        thread.start()
    # A start in the middle of it takes nobody's files away.
    VoiceStore(tmp_path)
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["added"] * 4 + ["voice_exists"] * 4
    assert len(VoiceStore(tmp_path).voices()) == len(files(tmp_path)) == 4


# Calls out of the store's own code: each is a moment at which the process may end.
KILLED = """
import json, os, signal, sys, torch
from pathlib import Path
from streamer.voices import Voice
from streamer.voices.store import Consent, VoiceStore

folder = Path(sys.argv[1])
voice = lambda name: Voice(name, torch.ones(20, 8, dtype=torch.int64), "Hi.", "Ann", "")

def dies_at(point, work):
    # Whether a process that is killed at the point-th call in ``work`` came so far.
    child = os.fork()
    if child == 0:
        calls = 0
        def count(frame, event, argument):
            nonlocal calls
            if event == "c_call" and frame.f_code.co_filename.endswith("store.py"):
                calls += 1
                if calls == point:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.setprofile(count)
        work()
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])

def outcomes(deed):
    # What the voices can be after a death in the middle of ``deed``, at each point of it.
    found, point, died = set(), 0, True
    while died:
        point += 1
        store = VoiceStore(folder)
        store.remove("bob")
        if deed == "remove":
            store.add(voice("bob"), Consent("key", 1.0))
        if deed == "start":
            (folder / "codes" / "old.0123456789abcdef.npy").write_bytes(b"x")
        work = {
            "add": lambda: store.add(voice("bob"), Consent("key", 1.0)),
            "remove": lambda: store.remove("bob"),
            "start": lambda: VoiceStore(folder),
        }[deed]
        died = dies_at(point, work)
        ids = [each.id for each in VoiceStore(folder).voices()]
        names = sorted(path.name.partition(".")[0] for path in (folder / "codes").iterdir())
        assert names == sorted(ids), (deed, point, ids, names)
        found.add(" ".join(ids))
    assert point > 5, (deed, point)
    return sorted(found)

print(json.dumps({deed: outcomes(deed) for deed in ("add", "remove", "start")}))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_killed_at_any_moment_leaves_a_whole_store(tmp_path: Path) -> None:
    VoiceStore(tmp_path).add(voice("ann"), Consent("the-key", 0.5))
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    either = ["ann", "ann bob"]
    assert json.loads(done.stdout) == {"add": either, "remove": either, "start": ["ann"]}


FULL = """
import resource, sys, torch
from pathlib import Path
from streamer.voices import Voice
from streamer.voices.store import Consent, StoreError, VoiceStore

folder = Path(sys.argv[1])
store = VoiceStore(folder)
voice = Voice("big", torch.ones(375, 16, dtype=torch.int64), "Hi.", "Ann", "")
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
try:
    store.add(voice, Consent("key", 1.0))
except StoreError as error:
    print(error.code)
"""


def test_no_room_for_the_codes_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    VoiceStore(tmp_path)
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "storage_full"), done.stderr
    assert files(tmp_path) == []
    store = VoiceStore(tmp_path)
    assert not store.voices()
    store.add(voice(), CONSENT)


def test_no_room_for_the_row_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    store = VoiceStore(tmp_path)
    with closing(sqlite3.connect(tmp_path / "voices.sqlite3")) as index:
        pages = index.execute("PRAGMA page_count").fetchone()[0]
    connect = sqlite3.connect

    def small(*arguments: Any, **options: Any) -> sqlite3.Connection:
        index = connect(*arguments, **options)
        index.execute(f"PRAGMA max_page_count = {pages}")
        return index

    with pytest.MonkeyPatch.context() as patch:
        # SQLite itself runs out of room; only its limit is set from here.
        patch.setattr(sqlite3, "connect", small)
        with pytest.raises(StoreError) as caught:
            store.add(voice(transcript="long " * 4000), CONSENT)
    assert caught.value.code == "storage_full"
    assert files(tmp_path) == []
    store.add(voice(), CONSENT)


def test_the_registry_gains_and_loses_voices() -> None:
    registry = VoiceRegistry([voice("own")])
    before = registry.list()
    registry.add(voice("ann"))
    assert [each.id for each in registry.list(added=True)] == ["own", "ann"]
    assert registry.list() == before
    assert registry.removable("ann")
    assert not registry.removable("own")
    assert not registry.removable("nobody")
    for name in ("ann", "own"):
        with pytest.raises(VoiceError, match="already") as caught:
            registry.add(voice(name))
        assert caught.value.code == "voice_exists"
    with pytest.raises(VoiceError, match="stays") as caught:
        registry.remove("own")
    assert caught.value.code == "voice_not_removable"
    registry.remove("ann")
    with pytest.raises(UnknownVoice):
        registry.remove("ann")
    assert registry.list(added=True) == before

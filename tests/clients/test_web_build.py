"""The web client's build belongs to its sources: noticed here without npm."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WEB = ROOT / "clients" / "web"
BUILT = ROOT / "streamer" / "assets" / "web"
TSC = WEB / "node_modules" / ".bin" / "tsc"


def sources() -> list[str]:
    """What the build is made from, as vite.config.js counts it."""
    files = [*(WEB / "public").rglob("*"), *(WEB / "src").rglob("*")]
    below = [path.relative_to(WEB).as_posix() for path in files if path.is_file()]
    return sorted(["index.html", "package.json", "package-lock.json", "vite.config.js", *below])


def test_the_built_page_is_made_from_these_sources() -> None:
    lines = (BUILT / "source.sha256").read_text().splitlines()
    built = {path: digest for digest, path in (line.split("  ") for line in lines)}
    found = {path: hashlib.sha256((WEB / path).read_bytes()).hexdigest() for path in sources()}
    stale = sorted(path for path in built.keys() | found.keys() if built.get(path) != found.get(path))
    assert stale == [], "run `npm ci && npm run build` in clients/web"


def test_what_the_index_names_is_there() -> None:
    index = (BUILT / "index.html").read_text()
    assert all(f"assets/{path.name}" in index for path in BUILT.glob("assets/index-*"))
    assert {path.suffix for path in (BUILT / "assets").iterdir()} >= {".js", ".css"}
    assert "libopus" in (BUILT / "licenses.txt").read_text()


def test_the_lock_file_names_no_registry() -> None:
    packages = json.loads((WEB / "package-lock.json").read_text())["packages"]
    assert [name for name, entry in packages.items() if "resolved" in entry] == []


@pytest.mark.skipif(not TSC.exists() or shutil.which("node") is None, reason="needs Node, and `npm ci` in clients/web")
def test_types_fit_and_those_that_are_published_are_current(tmp_path: Path) -> None:
    for arguments in (["-p", "tsconfig.json"], ["-p", "tsconfig.types.json", "--outDir", str(tmp_path)]):
        done = subprocess.run([TSC, *arguments], cwd=WEB, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
    made = {path.name: path.read_text() for path in tmp_path.glob("*.d.ts")}
    kept = {path.name: path.read_text() for path in (WEB / "types").glob("*.d.ts")}
    assert made == kept, "run `npm run types` in clients/web"

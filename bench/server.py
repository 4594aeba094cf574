"""``python -m bench.server``: a real server and 1 to 64 clients of ``streamer bench``, as a table, JSON and a picture.

The clients of one line start at once and each speaks its script; latencies and gaps are theirs, over a loopback socket.
Server and clients share the machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.machine import machine
from bench.serving import served
from bench.svg import Axis, line_chart, stacked

CLIENTS = (1, 2, 4, 8, 16, 32, 64)
PICTURE = Path(__file__).parents[1] / "docs" / "server-bench.svg"
_GOAL_TTFA_MS = 150.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write the picture; exit code 1 if any client met an error."""
    parser = argparse.ArgumentParser(prog="python -m bench.server", description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", nargs="+", type=int, default=list(CLIENTS), help="numbers of clients to try")
    parser.add_argument("--rounds", type=int, default=2, help="scripts each client speaks (default: 2)")
    parser.add_argument("--text", help="the script (default: that of streamer bench)")
    parser.add_argument("--svg", type=Path, default=PICTURE, metavar="FILE", help="picture to write")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("serve", nargs="*", metavar="-- ARGUMENTS", help="more arguments for streamer serve")
    options = parser.parse_args(arguments)
    print(machine())
    most = max(options.clients)
    sizes = ["--max-sessions", str(most), "--max-batch", str(most), "--kv-rows", str(max(32_768, most * 1024))]
    reports: list[dict[str, Any]] = []
    print(_HEADINGS, flush=True)
    with served([*sizes, "--log-level", "warning", *options.serve]) as server:
        # The first turn of a process pays for what is set up lazily; no later one does.
        speak(server.url, 1, 1, options.text)
        for n in options.clients:
            cpu_s = server.cpu_s()
            report = speak(server.url, n, options.rounds, options.text)
            report["server_cpu_s_per_audio_s"] = round((server.cpu_s() - cpu_s) / max(report["audio_s"], 1e-9), 4)
            reports.append(report)
            print(_row(report, reports[0]), flush=True)
    options.svg.write_text(picture(reports), encoding="utf-8")
    print(json.dumps(reports))
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": machine(), "reports": reports}, indent=1), encoding="utf-8")
    return 1 if any(report["errors"] for report in reports) else 0


def speak(url: str, clients: int, rounds: int, text: str | None) -> dict[str, Any]:
    """The report of ``streamer bench``, in a process of its own. Raises RuntimeError where it gives none."""
    command = [sys.executable, "-m", "streamer.cli", "bench", "--url", url]
    command += ["--clients", str(clients), "--rounds", str(rounds), *([] if text is None else ["--text", text])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if not done.stdout:
        raise RuntimeError(f"streamer bench with {clients} clients gave no report; its last words are above")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def picture(reports: Sequence[dict[str, Any]]) -> str:
    """Latency and throughput over the number of clients."""
    heard = [report for report in reports if report["streams"]]
    clients = [report["clients"] for report in heard]
    x = Axis("clients at once", log=True, ticks=tuple(clients))
    latencies = {p: [(r["clients"], r["ttfa_ms"][p]) for r in heard] for p in ("p50", "p95")}
    top = max(value for _, value in latencies["p95"])
    speed = {
        "all together": [(r["clients"], r["audio_s_per_s"]) for r in heard],
        "real time": [(n, float(n)) for n in clients if n <= 2 * max(r["audio_s_per_s"] for r in heard)],
    }
    fastest = max(value for curve in speed.values() for _, value in curve)
    return stacked(
        line_chart(
            latencies,
            title=f"Time to first audio in ms; dotted: the goal for one client, {_GOAL_TTFA_MS:.0f} ms",
            x=x,
            y=Axis(low=0.0, high=max(top, _GOAL_TTFA_MS), ticks=(0, top / 2, top)),
            goal=_GOAL_TTFA_MS,
        ),
        line_chart(
            speed,
            title="Seconds of speech made in a second; dashed: what as many clients play",
            x=x,
            y=Axis(low=0.0, high=fastest, ticks=(0, fastest / 2, fastest)),
            dashed=["real time"],
        ),
    )


_HEADINGS = (
    "clients  audio s/s  × one  TTFA p50/p95 ms  × one  turn TTFA p50/p95 ms  RTF p50  C50    C100   C200   errors"
    "  server CPU s per audio s"
)


def _row(report: dict[str, Any], one: dict[str, Any]) -> str:
    if not report["streams"]:
        return f"{report['clients']:>7}  no client was served: {report['errors']} errors"
    ttfa, turn_ttfa = report["ttfa_ms"], report["turn_ttfa_ms"]
    return (
        f"{report['clients']:>7} {report['audio_s_per_s']:>10.2f} {_ratio(report, one, 'audio_s_per_s'):>6} "
        f"{ttfa['p50']:>8.0f}/{ttfa['p95']:<7.0f} {_ratio(ttfa, one['ttfa_ms'], 'p50'):>6} "
        f"{turn_ttfa['p50']:>13.0f}/{turn_ttfa['p95']:<7.0f} {report['rtf']['p50']:>8.3f} "
        f"{report['c50']:>6.1%} {report['c100']:>6.1%} {report['c200']:>6.1%} {report['errors']:>7} "
        f"{report['server_cpu_s_per_audio_s']:>25.3f}"
    )


def _ratio(report: dict[str, Any], one: dict[str, Any], name: str) -> str:
    return f"{report[name] / one[name]:.2f}" if one[name] else "-"


if __name__ == "__main__":
    sys.exit(main())

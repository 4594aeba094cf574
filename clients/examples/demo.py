"""Start a server with the embedded model, stream a two-speaker dialogue into a playable file, print latencies.

make demo          or          python clients/examples/demo.py --out out/demo.opus
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from pathlib import Path

from streamer_client import Audio, AudioFileWriter, ScriptAccepted, TurnCompleted, TurnStarted, connect

SCRIPT = (
    "[S1] Good morning, how are you today? [S2] I am very well, thank you for asking. "
    "[S1] The weather is so nice, let us go for a walk. [S2] That is a good idea."
)


async def main(out: Path, seed: int) -> None:
    """Serve, speak, report, stop."""
    began = time.monotonic()
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "streamer.cli", "serve", "--port", "0", "--log-level", "warning", stdout=PIPE
    )
    try:
        url = await listening_url(server)
        print(f"server with the embedded model ready after {time.monotonic() - began:.1f} s at {url}")
        await speak(url, out, seed)
    finally:
        if server.returncode is None:
            server.send_signal(signal.SIGTERM)
        code = await server.wait()
    if code:
        raise SystemExit(f"the server ended with exit code {code}")


async def listening_url(server: Process) -> str:
    """The address that the server prints once it takes connections."""
    assert server.stdout is not None
    line = (await server.stdout.readline()).decode()
    if not line.startswith("listening on "):
        raise SystemExit("the server did not start; its message is above")
    return line.removeprefix("listening on ").strip()


async def speak(url: str, out: Path, seed: int) -> None:
    """Stream the script into ``out``, a line a turn while it is spoken."""
    out.parent.mkdir(parents=True, exist_ok=True)
    async with connect(url, voices={"S1": "heart", "S2": "joe"}, seed=seed) as dialogue:
        with AudioFileWriter(out, dialogue.ready.audio) as writer:
            sent = time.monotonic()
            first_audio_ms: float | None = None
            audio_ms = 0.0
            texts: dict[str, str] = {}
            async for event in dialogue.say(SCRIPT):
                if isinstance(event, ScriptAccepted):
                    texts = {turn.turn: turn.text for turn in event.turns}
                elif isinstance(event, TurnStarted):
                    print(f"  {event.speaker}: {texts[event.turn]}")
                elif isinstance(event, Audio):
                    first_audio_ms = first_audio_ms or (time.monotonic() - sent) * 1000
                    audio_ms += event.duration_ms
                    writer.write(event)
                elif isinstance(event, TurnCompleted) and event.ttfa_ms is not None and event.rtf:
                    print(
                        f"      first audio {event.ttfa_ms:.0f} ms after the turn could begin,"
                        f" {event.audio_ms / 1000:.1f} s spoken at {1 / event.rtf:.1f} x real time"
                    )
            wall_ms = (time.monotonic() - sent) * 1000
    print(f"first audio {first_audio_ms:.0f} ms after the script was sent")
    print(f"{audio_ms / 1000:.1f} s of speech in {wall_ms / 1000:.1f} s")
    print(f"wrote {out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/demo.opus"))
    parser.add_argument("--seed", type=int, default=0, help="another one speaks the same words another way")
    options = parser.parse_args()
    asyncio.run(main(options.out, options.seed))

"""The web client's player in headless Chromium: what the server sent is what is heard, until it is told to stop."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cutting_proxy import CuttingProxy
from serving import GREEDY, running

from streamer_protocol import Limits

pytest.importorskip("playwright")
from playwright.async_api import Page, async_playwright

BUILT = Path(__file__).parents[2] / "streamer" / "assets" / "web" / "assets"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
    pytest.mark.skipif(not list(BUILT.glob("player-*.js")), reason="the web client is not built (npm run build)"),
]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
]
SENTENCE = "The weather is so nice today, let us go for a walk."
SCRIPT = f"[S1] {SENTENCE} [S2] {SENTENCE}"
# Long enough to be stopped in the middle.
LIMITS = Limits(max_turn_audio_ms=1200)
WAIT_MS = 20_000
# A page that shows nothing: the test calls what the modules offer.
PAGE = """<!doctype html><title>player</title><script type="module">
import {{ connect }} from '/assets/{client}';
import {{ Player }} from '/assets/{player}';
Object.assign(window, {{ connect, Player, told: [] }});
window.open_ = async (url, options) => {{
  const session = await connect(url, {{ ...options, settings: {{ backoffBaseMs: 1, backoffCapMs: 20 }} }});
  const {{ format, sample_rate: sampleRate, frame_ms: frameMs }} = session.ready.audio;
  const player = await Player.create({{ format, sampleRate, frameMs }});
  player.follow(session);
  for (const type of ['turn', 'turnend', 'drained', 'underrun', 'error'])
    player.on(type, (event) => told.push([type, event.turnIndex ?? event.message ?? null]));
  window.completed = [];
  session.on('turn.completed', (event) => completed.push(event));
  window.samples = new Float32Array(player.analyser.fftSize);
  // Of the newest samples, or of all that the analyser shows.
  window.peak = (newest = samples.length) => {{
    player.analyser.getFloatTimeDomainData(samples);
    return Math.max(...samples.subarray(-newest).map(Math.abs));
  }};
  window.loudest = 0;
  player.on('progress', () => (loudest = Math.max(loudest, peak())));
  window.truncated = [];
  session.on('turn.truncated', (event) => truncated.push(event));
  window.resumed = 0;
  session.on('resumed', () => (resumed += 1));
  Object.assign(window, {{ session, player }});
}};
window.until = (fits) => new Promise((resolve, reject) => {{
  const begin = performance.now();
  const look = () => {{
    if (fits()) resolve();
    else if (performance.now() - begin > {wait_ms}) reject(new Error(`never: ${{fits}}, ${{JSON.stringify(told)}}`));
    else setTimeout(look, 5);
  }};
  look();
}});
window.isReady = true;
</script>"""


@contextlib.asynccontextmanager
async def browsing() -> AsyncIterator[Page]:
    """A page with the built modules, from a server of its own; nothing may go wrong in it unseen."""
    names = {name: next(BUILT.glob(f"{name}-*.js")).name for name in ("client", "player")}
    app = web.Application()

    async def page_(_: web.Request) -> web.Response:
        return web.Response(text=PAGE.format(**names, wait_ms=WAIT_MS), content_type="text/html")

    app.add_routes([web.get("/", page_), web.static("/assets", BUILT)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    problems: list[str] = []
    try:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            page = await browser.new_page()
            page.set_default_timeout(WAIT_MS)
            page.on("pageerror", lambda error: problems.append(str(error)))
            await page.goto(f"http://127.0.0.1:{runner.addresses[0][1]}/")
            await page.wait_for_function("window.isReady")
            yield page
            await page.evaluate("session.close().then(() => player.close())")
            await browser.close()
    finally:
        await runner.cleanup()
    assert problems == []


async def open_session(page: Page, url: str, **options: Any) -> None:
    await page.evaluate("([url, options]) => open_(url, options)", [url, {"sampling": GREEDY, "seed": 1, **options}])


@pytest.mark.parametrize("audio", ["opus", "pcm_s16le"])
async def test_what_was_sent_is_heard_turn_by_turn(audio: str) -> None:
    async with running(LIMITS, settings={"origins": ["*"]}) as server, browsing() as page:
        await open_session(page, server.url, audio={"format": audio})
        await page.evaluate("script => session.say(script)", SCRIPT)
        await page.evaluate("until(() => completed.length === 2 && told.some(([type]) => type === 'drained'))")
        frames = await page.evaluate("completed.reduce((sum, { frames }) => sum + frames, 0)")
        assert await page.evaluate("player.framesRendered") == frames
        assert await page.evaluate("player.samplesRendered") == frames * 1920
        assert await page.evaluate("player.playedMs") == frames * 80
        assert await page.evaluate("player.bufferedMs") == 0
        assert await page.evaluate("loudest") > 0.01
        told = await page.evaluate("told")
        turns = [entry for entry in told if entry[0] in ("turn", "turnend", "error")]
        assert turns == [["turn", 0], ["turnend", 0], ["turn", 1], ["turnend", 1]]
        sizes = "Promise.all([player.toWav()].concat(player.toOpus())).then((blobs) => blobs.map((blob) => blob.size))"
        if audio == "opus":
            wav_bytes, opus_bytes = await page.evaluate(sizes)
            assert wav_bytes == 44 + 2 * (frames * 1920 - 156)
            assert 1000 < opus_bytes < wav_bytes / 5
        await assert_replays_do_not_count(page)


async def assert_replays_do_not_count(page: Page) -> None:
    """Silent now, a turn can be heard again; a second wish ends the first."""
    played_ms = await page.evaluate("player.playedMs")
    await page.evaluate("until(() => peak() === 0)")
    await page.evaluate("window.replays = [player.replay(0), player.replay(1)]; until(() => peak() > 0.01)")
    await page.evaluate("Promise.all(replays)")
    assert await page.evaluate("player.playedMs") == played_ms
    assert await page.evaluate("player.replay(7).catch(({ code }) => code)") == "unknown_turn"


async def test_stop_is_silence_at_once_and_the_dialogue_goes_on_after_it() -> None:
    async with running(LIMITS, settings={"origins": ["*"]}) as server, browsing() as page:
        await open_session(page, server.url)
        await page.evaluate("script => session.say(script)", SCRIPT)
        await page.evaluate("until(() => player.playedMs > 300 && peak() > 0.01)")
        stopping = """async () => {
          const begin = performance.now();
          const playedMs = await player.stop();
          session.cancel({ playedMs });
          await until(() => peak(256) === 0);
          return { playedMs, took: performance.now() - begin, heard: player.playedMs };
        }"""
        stopped = await page.evaluate(stopping)
        assert stopped["took"] < 100
        assert 300 < stopped["playedMs"] <= stopped["heard"] < stopped["playedMs"] + 1
        await page.evaluate("until(() => truncated.length > 0)")
        assert await page.evaluate("truncated[0].heard_ms") == stopped["playedMs"]
        assert await page.evaluate("player.bufferedMs") == 0
        await page.evaluate("until(() => completed.length === 2)")
        assert await page.evaluate("Math.floor(player.playedMs)") == stopped["playedMs"]
        await page.evaluate("told.length = 0")
        await page.evaluate("text => session.createTurn({ speaker: 'S1', text })", SENTENCE)
        await page.evaluate("until(() => told.some(([type]) => type === 'drained'))")
        last = await page.evaluate("completed.at(-1)")
        assert await page.evaluate("told.filter(([type]) => type === 'turn')") == [["turn", last["index"]]]
        played_ms = await page.evaluate("player.playedMs")
        assert played_ms == pytest.approx(stopped["heard"] + last["audio_ms"], abs=0.01)


async def test_a_broken_connection_loses_no_audio() -> None:
    async with running(LIMITS, settings={"origins": ["*"]}) as server, CuttingProxy(server.port) as proxy:
        async with browsing() as page:
            await open_session(page, proxy.url)
            await page.evaluate("script => session.say(script)", f"{SCRIPT} [S1] {SENTENCE}")
            for n_cuts in range(1, 4):
                proxy.cut()
                await page.evaluate("n => until(() => resumed === n)", n_cuts)
            proxy.cut_after(down=3_000)
            await page.evaluate("until(() => completed.length === 3 && player.bufferedMs === 0)")
            await page.evaluate("until(() => told.at(-1)[0] === 'drained')")
            frames = await page.evaluate("completed.reduce((sum, { frames }) => sum + frames, 0)")
            assert await page.evaluate("player.framesRendered") == frames
            assert await page.evaluate("resumed") >= 3

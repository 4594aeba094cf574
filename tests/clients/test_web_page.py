"""The web player as people use it: heard, seen, stopped, cut off, and by keyboard alone."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import pytest_asyncio
import soundfile
from clients.web_page import CHROMIUM, browser, embedded_speech, opened, serving_pages
from cutting_proxy import CuttingProxy
from serving import recorded
from support import decode_with_ffmpeg

from streamer.server import DialogueServer
from streamer.server.keys import add_key
from streamer.speech import Speech

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytest.importorskip("playwright", reason="needs playwright")
if not CHROMIUM.exists():
    pytest.skip(f"needs {CHROMIUM}", allow_module_level=True)
pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).parents[2]
HEART_WAV = ROOT / "tests" / "data" / "voices" / "heart.wav"
TWO_TURNS = "[S1] Good morning.\n[S2] How are you?"
LONG = "[S1] The weather is so nice, let us go for a walk. I will bring the bread.\n[S2] That is a good idea."
"""Takes several seconds to say."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def speech() -> AsyncIterator[Speech]:
    loaded = await asyncio.to_thread(embedded_speech)
    yield loaded
    await asyncio.to_thread(loaded.close)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(speech: Speech, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DialogueServer]:
    async with serving_pages(speech, voices_store=tmp_path_factory.mktemp("voices")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Browser]:
    async with browser() as started:
        yield started


async def test_turns_are_heard_and_lit_in_order(server: DialogueServer, chromium: Browser) -> None:
    async with opened(chromium, server.port) as web:
        await web.speak(TWO_TURNS)
        await web.until_spoken()
        assert await web.ask("seen.lit") == ["Good morning.", "How are you?"]
        assert await web.ask("take.turns.map((turn) => turn.state)") == ["heard", "heard"]
        # All that the server made was rendered, and it was no silence.
        assert await web.ask("player.framesRendered") == await web.ask("take.turns.reduce((n, t) => n + t.frames, 0)")
        assert await web.ask("player.samplesRendered") > 24_000 * 0.5
        assert await web.ask("seen.peak") > 0.02
        lit = web.page.locator(".turn").first.locator(".word[data-heard]")
        assert await lit.all_text_contents() == ["Good", "morning."]
        assert "first audio after" in (await web.page.locator(".turn-meta").first.text_content() or "")
        assert "First sound" in (await web.page.locator("#first-sound").text_content() or "")
        # The field is free for the next turns.
        assert await web.script.input_value() == ""


async def test_what_was_made_can_be_saved_and_heard_again(server: DialogueServer, chromium: Browser) -> None:
    async with opened(chromium, server.port) as web:
        await web.speak("[S1] Yes, please.")
        await web.until_spoken()
        seconds = await web.ask("take.turns[0].audioMs") / 1000
        files = {}
        for kind in ("Opus", "WAV"):
            async with web.page.expect_download() as started:
                await web.button(f"Download {kind}").click()
            path = await (await started.value).path()
            files[kind] = await asyncio.to_thread(path.read_bytes)
        wav, rate = soundfile.read(io.BytesIO(files["WAV"]))
        opus = decode_with_ffmpeg(files["Opus"], 24_000)
        for sound in (wav, opus):
            assert abs(len(sound) / 24_000 - seconds) < 0.1
            assert np.abs(sound).max() > 0.02
        assert rate == 24_000
        await web.page.evaluate("seen.peak = 0")
        again = web.button("Hear this turn of S1 again")
        await again.click()
        assert await again.get_attribute("aria-disabled") == "true"
        await web.until("document.querySelector('.replay').ariaDisabled === 'false'")
        assert await web.ask("seen.peak") > 0.02


async def test_stop_is_silence_and_the_dialogue_forgets(server: DialogueServer, chromium: Browser) -> None:
    async with opened(chromium, server.port) as web:
        await web.speak(LONG)
        await web.until("player?.playedMs > 900")
        before_ms, after_ms = await web.page.evaluate(
            """async () => {
              const {player} = dialoguePage.take;
              const beforeMs = player.playedMs;
              document.querySelector("#stop").click();
              while (dialoguePage.take.busy || loudness(240) > 1e-4) await new Promise(requestAnimationFrame);
              return [beforeMs, player.playedMs];
            }"""
        )
        assert before_ms <= after_ms <= before_ms + 100
        cancels = [message for message in web.sent if message["type"] == "turn.cancel"]
        assert [before_ms <= cancel["played_ms"] <= after_ms for cancel in cancels] == [True]
        await web.until("take.turns.every((turn) => turn.remembered !== null)")
        kept, text = await web.ask("[take.turns[0].remembered, take.turns[0].text]")
        assert kept
        assert kept != text
        assert kept + (await web.page.locator(".turn del").first.text_content() or "") == text
        assert await web.ask("take.turns[1].remembered") == ""
        # The next turn's prompt has what was heard, and not what was forgotten.
        await web.speak("[S2] Fine.")
        await web.until_spoken()
        assert await web.ask("player.framesRendered") > 0
        rows = recorded(server).requests[-1].prompt_rows
        prompt = server.state.speech.tokenizer.decode(rows[:, 0].tolist())
        assert kept in prompt
        assert "bring the bread" not in prompt
        assert "good idea" not in prompt


async def test_a_cut_connection_costs_no_audio(server: DialogueServer, chromium: Browser) -> None:
    async with CuttingProxy(server.port) as proxy, opened(chromium, proxy.port, complaints_expected=True) as web:
        await web.page.evaluate(
            "new MutationObserver(() => (window.told ??= [])"
            ".push(document.querySelector('#notice-title').textContent))"
            ".observe(document.querySelector('#notice'), {subtree: true, childList: true})"
        )
        await web.speak(LONG)
        # Not before: the decoder comes over the same proxy.
        await web.until("take?.turns.length")
        proxy.cut_after(down=3000)
        await web.until("window.told?.some((text) => text.startsWith('Connected again'))")
        assert any(text.startswith("The connection was lost") for text in await web.ask("told"))
        await web.until_spoken()
        assert await web.ask("take.turns.map((turn) => turn.state)") == ["heard", "heard"]
        assert await web.ask("player.framesRendered") == await web.ask("take.turns.reduce((n, t) => n + t.frames, 0)")
        played_ms = await web.ask("player.playedMs")
        assert abs(played_ms - await web.ask("take.turns.reduce((ms, t) => ms + t.audioMs, 0)")) < 1


async def test_turns_can_be_added_while_it_speaks(server: DialogueServer, chromium: Browser) -> None:
    async with opened(chromium, server.port) as web:
        await web.speak("[S1] Good morning.")
        await web.until("take?.speaking")
        await web.speak("[S3] Good night.")
        await web.until("take.turns.length === 2")
        assert await web.ask("take.speaking.text") == "Good morning."
        await web.until_spoken()
        assert await web.ask("seen.lit") == ["Good morning.", "Good night."]
        voices = web.page.get_by_label("Voice of S1")
        assert await voices.is_disabled()
        await web.button("New dialogue").click()
        assert await voices.is_enabled()
        assert await web.script.input_value() == "[S1] Good morning.\n[S3] Good night."
        assert await web.page.locator(".turn").count() == 0


async def test_the_chosen_voices_speak(server: DialogueServer, chromium: Browser) -> None:
    async with opened(chromium, server.port) as web:
        await web.script.fill("[S2] Yes. [S4] No.")
        rows = web.page.locator(".cast-row")
        assert await rows.locator(".badge").all_text_contents() == ["S2", "S4"]
        await web.page.get_by_label("Voice of S4").select_option("joe")
        await web.page.locator("#speak").click()
        await web.until("take?.turns.length === 2")
        assert await web.ask("take.session.ready.voices.S4") == "joe"
        assert await web.page.locator(".turn").nth(1).locator(".turn-who").text_content() == "Speaker S4, joewaits"
        await web.button("Stop").click()


@pytest.mark.parametrize(
    ("script", "wrong", "advice"),
    [
        ("[S1] Hi. [S6] Hello.", "[S6]", "Use the tags [S1] to [S5]."),
        ("[S1] ...", "no letter or digit", "Write at least one word"),
        ("  ", "nothing to speak", "Write a line such as"),
    ],
)
async def test_errors_are_words(
    server: DialogueServer, chromium: Browser, script: str, wrong: str, advice: str
) -> None:
    async with opened(chromium, server.port) as web:
        await web.speak(script)
        alert = web.page.locator("#notice")
        await alert.wait_for()
        assert await alert.get_attribute("role") == "alert"
        text = await alert.text_content() or ""
        assert wrong in text
        assert "script.append" not in text.lower()
        assert advice in text
        # What was written stays, to be put right.
        assert await web.script.input_value() == script
        assert await web.page.get_by_label("Voice of S1").is_enabled()
        await web.button("Dismiss").click()
        assert not await alert.is_visible()


async def test_a_server_that_stops_is_reported(speech: Speech, chromium: Browser) -> None:
    async with serving_pages(speech) as server:
        async with opened(chromium, server.port, complaints_expected=True) as web:
            await web.speak("[S1] Yes.")
            await web.until_spoken()
            await server.stop()
            alert = web.page.locator("#notice")
            await alert.get_by_text("The server is being stopped.").wait_for()
            # What was heard is still there.
            assert await web.button("Download WAV").is_enabled()
            await web.speak(TWO_TURNS)
            await alert.get_by_text("Check that the server runs").wait_for()
            assert await web.script.input_value() == TWO_TURNS
            assert await web.page.locator("#speak").get_attribute("aria-disabled") == "false"


async def test_the_keyboard_is_enough(server: DialogueServer, chromium: Browser) -> None:
    async with opened(chromium, server.port) as web:
        keyboard = web.page.keyboard
        reached = []
        for _ in range(30):
            await keyboard.press("Tab")
            reached.append(await web.ask("(({id, ariaLabel}) => id || ariaLabel)(document.activeElement)"))
        for name in ("theme", "script", "Voice of S1", "Voice of S2", "add-voice", "speak"):
            assert name in reached
        await web.script.focus()
        outline = await web.ask("getComputedStyle(document.querySelector('.editor')).outlineStyle")
        assert outline == "solid"
        await keyboard.press("Control+a")
        await keyboard.type(LONG.replace("\n", " "))
        await keyboard.press("Control+Enter")
        await keyboard.press("Control+Enter")
        await web.until("take?.speaking")
        await keyboard.press("Escape")
        await web.until("!take.busy")
        assert await web.ask("take.turns.map((turn) => turn.state)") == ["stopped", "stopped"]
        assert await web.ask("document.querySelector('#announcer').textContent") != ""


async def test_a_server_with_keys_asks_for_one(speech: Speech, chromium: Browser, tmp_path: Path) -> None:
    keys = tmp_path / "keys.jsonl"
    key, _ = add_key(keys, "web", ("dialogue", "voices:read", "tokens"))
    async with serving_pages(speech, keys_file=keys) as server:
        async with opened(chromium, server.port, voices=False, complaints_expected=True) as web:
            field = web.page.get_by_label("This server asks for a key or a client token")
            await field.fill("ds_wrong")
            await field.press("Enter")
            await web.until("document.querySelector('#access-problem').textContent.includes('API key is wrong')")
            await field.fill(key)
            await field.press("Enter")
            await web.until("document.querySelector('#access').hidden")
            await web.speak("[S1] Yes.")
            await web.until_spoken()
            assert await web.ask("take.turns[0].state") == "heard"


@pytest.mark.parametrize("way", ["file", "microphone"])
async def test_a_voice_can_be_added(server: DialogueServer, chromium: Browser, way: str) -> None:
    async with opened(chromium, server.port, permissions=["microphone"]) as web:
        await web.button("Add a voice").click()
        dialog = web.page.get_by_role("dialog", name="Add a voice")
        save = dialog.get_by_role("button", name="Add the voice")
        await dialog.get_by_label("What is said").fill("Why do so many foods come packaged in plastic?")
        if way == "file":
            await dialog.get_by_label("Choose an audio file").set_input_files(HEART_WAV)
        else:
            await dialog.get_by_role("button", name="Record").click()
            await dialog.get_by_role("button", name="Stop recording, 2 s").click()
        await dialog.locator("audio").wait_for()
        await dialog.get_by_label("Short name").fill(f"anna-{way}")
        await save.click()
        assert "consent" in (await dialog.get_by_role("alert").text_content() or "")
        await dialog.get_by_label("The speaker agrees").check()
        await save.click()
        await dialog.wait_for(state="hidden")
        await web.until(f"[...document.querySelectorAll('select')].at(-1).value === 'anna-{way}'")

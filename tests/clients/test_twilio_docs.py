"""The programs of docs/phone.md answer a call, as they stand but for the server's address and voice."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import websockets
from aiohttp import web
from clients.fake_phone import Phone, audio_of
from serving import running
from websockets.asyncio.server import serve

PAGE = Path(__file__).parents[2] / "docs" / "phone.md"
PROGRAM, AGENT, AIOHTTP, SIGNATURE = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@asynccontextmanager
async def program(code: str) -> AsyncIterator[dict[str, Any]]:
    """What a program defines; it speaks to a server of the test's."""
    async with running() as server:
        names: dict[str, Any] = {"__name__": "snippet"}
        code = code.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}").replace('"heart"', '"one"')
        exec(compile(code, "docs/phone.md", "exec"), names)
        yield names


@asynccontextmanager
async def calling(answer: Any) -> AsyncIterator[Phone]:
    async with serve(answer, "127.0.0.1", 0) as server:
        async with websockets.connect(f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}") as socket:
            yield Phone(socket)


async def hear_a_turn(phone: Phone) -> None:
    """Listen to something, and hang up."""
    await phone.until("media")
    await phone.give_back((await phone.until("mark"))["mark"]["name"])
    await phone.send("stop")
    await phone.rest()
    assert phone.socket.close_code == 1000
    assert audio_of(phone.log)


async def test_the_first_program_speaks_and_gives_way(capsys: pytest.CaptureFixture[str]) -> None:
    async with program(PROGRAM) as names, calling(names["answer"]) as phone:
        await phone.begin()
        await phone.until("media")
        await phone.press("5")
        await phone.until("clear")
        await hear_a_turn(phone)
    assert "the caller has heard:" in capsys.readouterr().out


async def test_the_agent_listens_and_answers() -> None:
    async with program(AGENT) as names, calling(names["answer"]) as phone:
        await phone.begin()
        for _ in range(10):
            await phone.send("media", media={"payload": base64.b64encode(b"\xff" * 160).decode()})
        await hear_a_turn(phone)


@pytest.mark.parametrize("way", ["stop", "vanish", "refuse"])
async def test_the_bridge_works_with_aiohttp(way: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with program(AIOHTTP) as names:
        runner = web.AppRunner(names["app"])
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        async with websockets.connect(f"ws://127.0.0.1:{runner.addresses[0][1]}/stream") as socket:
            phone = Phone(socket)
            if way == "refuse":
                await phone.press("1")
                await phone.rest()
                assert socket.close_code == 1002
            else:
                await phone.begin()
                await phone.until("media")
                if way == "stop":
                    await hear_a_turn(phone)
                else:
                    socket.transport.abort()
        await runner.cleanup()
    by = "us" if way == "refuse" else "caller"
    assert f"HungUp(by='{by}'" in capsys.readouterr().out


def test_the_signature_is_valid(capsys: pytest.CaptureFixture[str]) -> None:
    exec(SIGNATURE, {})
    assert capsys.readouterr().out == "True\n"

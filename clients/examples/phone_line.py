"""Answer phone calls with a voice: Twilio on one side, a dialogue server on the other. See docs/phone.md.

python clients/examples/phone_line.py --public-host phone.example.com --url 127.0.0.1:8000
"""

from __future__ import annotations

import argparse
import asyncio
import os
from http import HTTPStatus
from xml.sax.saxutils import quoteattr

import numpy as np
from websockets.asyncio.server import Request, Response, ServerConnection, serve
from websockets.datastructures import Headers

from streamer_client.audio import Samples
from streamer_client.twilio import Dtmf, PhoneLine, bridge, valid_signature

GREETING = "Hello, and thank you for calling. Press a key, and I will tell you which one it was."
LOUD = 0.05  # RMS of 20 ms; a stand-in for a real detector of speech


async def converse(line: PhoneLine, loud: asyncio.Event) -> None:
    """Say what was pressed; the hash key ends the call. Whoever speaks up interrupts."""
    listening = asyncio.create_task(give_way(line, loud))
    try:
        async for event in line.events():
            print(event, flush=True)
            if isinstance(event, Dtmf):
                await line.interrupt()
                await line.say("Goodbye." if event.digit == "#" else f"You pressed {event.digit}.")
                if event.digit == "#":
                    await line.wait_heard()
                    await line.hang_up("the caller is done")
    finally:
        listening.cancel()


async def give_way(line: PhoneLine, loud: asyncio.Event) -> None:
    """Be quiet when the caller speaks."""
    while True:
        await loud.wait()
        loud.clear()
        await line.interrupt()


class Desk:
    """Tells Twilio where to stream a call, and answers the stream."""

    def __init__(self, given: argparse.Namespace, auth_token: str | None) -> None:
        self._given = given
        self._auth_token = auth_token

    def receive(self, connection: ServerConnection, request: Request) -> Response | None:
        """A request of Twilio's: the webhook of a call (HTTP GET), or its stream (WebSocket)."""
        is_stream = request.headers.get("Upgrade", "").lower() == "websocket"
        url = f"{'wss' if is_stream else 'https'}://{self._given.public_host}{request.path}"
        signature = request.headers.get("X-Twilio-Signature", "")
        if self._auth_token is not None and not valid_signature(self._auth_token, signature, url):
            return connection.respond(HTTPStatus.FORBIDDEN, "this is not signed by Twilio\n")
        if is_stream:
            return None
        stream = quoteattr(f"wss://{self._given.public_host}/stream")
        body = f"<Response><Connect><Stream url={stream}/></Connect></Response>".encode()
        return Response(
            HTTPStatus.OK, "OK", Headers({"Content-Type": "text/xml", "Content-Length": str(len(body))}), body
        )

    async def answer(self, websocket: ServerConnection) -> None:
        """One call, to its end."""
        loud = asyncio.Event()

        def listen(samples: Samples) -> None:
            if np.sqrt(np.mean(samples**2)) > LOUD:
                loud.set()

        url, voices = self._given.url, {"S1": self._given.voice}
        call = bridge(websocket, url=url, voices=voices, on_audio=listen, on_audio_rate=8000, greeting=GREETING)
        async with await call as line:
            await converse(line, loud)


async def main(given: argparse.Namespace) -> None:
    """Answer calls until the program is stopped."""
    desk = Desk(given, os.environ.get("TWILIO_AUTH_TOKEN"))
    async with serve(desk.answer, "127.0.0.1", given.port, process_request=desk.receive) as server:
        print(f"answering calls on port {next(iter(server.sockets)).getsockname()[1]}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--public-host", required=True, help="where Twilio reaches this program")
    parser.add_argument("--port", type=int, default=8080, help="on 127.0.0.1: a proxy in front does TLS")
    parser.add_argument("--url", default="127.0.0.1:8000", help="the dialogue server")
    parser.add_argument("--voice", default="heart")
    asyncio.run(main(parser.parse_args()))

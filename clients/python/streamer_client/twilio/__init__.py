"""Phone calls: a bridge between Twilio's media streams and a dialogue.

    async def answer(websocket):
        async with await bridge(websocket, url="127.0.0.1:8000", voices={"S1": "heart"}, greeting="Hello!") as line:
            async for event in line.events():
                ...

Twilio connects to a WebSocket of yours for each call; see docs/phone.md. Needs soxr if the caller's audio is wanted
at 16 kHz.
"""

from streamer_client.twilio.bridging import bridge
from streamer_client.twilio.events import CallEvent, Dtmf, HungUp, Started, TurnHeard, TurnRefused
from streamer_client.twilio.line import PhoneLine, PhoneTurn
from streamer_client.twilio.signature import valid_signature
from streamer_client.twilio.sockets import PhoneSocket

__all__ = [
    "CallEvent",
    "Dtmf",
    "HungUp",
    "PhoneLine",
    "PhoneSocket",
    "PhoneTurn",
    "Started",
    "TurnHeard",
    "TurnRefused",
    "bridge",
    "valid_signature",
]

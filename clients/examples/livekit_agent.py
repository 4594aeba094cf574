"""A whole LiveKit agent: listens in a room, thinks with an LLM, and speaks with a dialogue streamer server.

pip install 'dialogue-streamer[livekit]' livekit-plugins-openai
export LIVEKIT_URL=... LIVEKIT_API_KEY=... LIVEKIT_API_SECRET=... OPENAI_API_KEY=...
export STREAMER_URL=ws://127.0.0.1:8000
python clients/examples/livekit_agent.py dev
"""

from __future__ import annotations

import os
from typing import Any

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli
from livekit.plugins import openai

from streamer_client.livekit import TTS

INSTRUCTIONS = "You are a friendly guide to the city. Answer in one or two short sentences, without lists or symbols."

server = AgentServer()


def build() -> tuple[AgentSession[Any], TTS]:
    """The pipeline: speech to text, LLM, and our voice."""
    tts = TTS(
        os.environ.get("STREAMER_URL", "ws://127.0.0.1:8000"),
        api_key=os.environ.get("STREAMER_API_KEY"),
        voice=os.environ.get("STREAMER_VOICE"),
    )
    return AgentSession(stt=openai.STT(), llm=openai.LLM(), tts=tts), tts


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    """One room, one conversation."""
    session, tts = build()
    ctx.add_shutdown_callback(tts.aclose)
    await session.start(Agent(instructions=INSTRUCTIONS), room=ctx.room)
    # An interruption now tells the server what was heard, and the next answer follows from that.
    tts.follow(session)
    session.generate_reply(instructions="Greet the listener, and ask where they would like to go.")


if __name__ == "__main__":
    cli.run_app(server)

"""A whole Pipecat agent: it listens, thinks, speaks through a dialogue streamer server, and may be interrupted.

OPENAI_API_KEY=... python clients/examples/pipecat_agent.py --url 127.0.0.1:8000 --port 8765

Clients of Pipecat's WebSocket transport (protobuf frames) talk to it at ws://localhost:8765. Another transport, or
another service for hearing and thinking, takes the place of the one here and changes nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from dataclasses import dataclass

from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.frames.frames import LLMRunFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair, LLMUserAggregatorParams
from pipecat.serializers.protobuf import ProtobufFrameSerializer
from pipecat.services.openai.llm import OpenAILLMService
from pipecat.services.openai.stt import OpenAISTTService
from pipecat.transports.websocket.server import (
    SingleClientWebsocketServerParams,
    SingleClientWebsocketServerTransport,
)
from pipecat.workers.runner import WorkerRunner

from streamer_client.pipecat import DialogueTTSService

INSTRUCTIONS = "You talk with somebody on the phone. Be brief; write plain sentences, no lists, no symbols."


@dataclass(frozen=True, slots=True)
class Keys:
    """`openai` for hearing and thinking, `streamer` for speaking if the server asks for one."""

    openai: str
    streamer: str | None = None


def build_agent(url: str, keys: Keys, port: int, voice: str | None = None) -> PipelineWorker:
    """The pipeline of one call at a time; nothing is connected before it runs."""
    transport = SingleClientWebsocketServerTransport(
        SingleClientWebsocketServerParams(
            audio_in_enabled=True, audio_out_enabled=True, serializer=ProtobufFrameSerializer()
        ),
        port=port,
    )
    context = LLMContext(messages=[{"role": "system", "content": INSTRUCTIONS}])
    # The user's speech, found by voice activity, interrupts the agent.
    aggregators = LLMContextAggregatorPair(
        context, user_params=LLMUserAggregatorParams(vad_analyzer=SileroVADAnalyzer())
    )
    pipeline = Pipeline(
        [
            transport.input(),
            OpenAISTTService(api_key=keys.openai),
            aggregators.user(),
            OpenAILLMService(api_key=keys.openai),
            DialogueTTSService(url=url, api_key=keys.streamer, settings=DialogueTTSService.Settings(voice=voice)),
            transport.output(),
            # After the transport, so that only what was heard becomes part of the conversation.
            aggregators.assistant(),
        ]
    )
    worker = PipelineWorker(pipeline, params=PipelineParams(enable_metrics=True, enable_usage_metrics=True))

    async def greet(*_: object) -> None:
        context.add_message({"role": "developer", "content": "Say hello."})
        await worker.queue_frame(LLMRunFrame())

    transport.add_event_handler("on_client_connected", greet)
    return worker


async def main(url: str, keys: Keys, port: int, voice: str | None) -> None:
    """Run until interrupted."""
    runner = WorkerRunner()
    await runner.add_workers(build_agent(url, keys, port, voice))
    await runner.run()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="127.0.0.1:8000", help="the dialogue streamer server")
    parser.add_argument("--port", type=int, default=8765, help="where the agent listens")
    parser.add_argument("--voice")
    given = parser.parse_args()
    found = Keys(os.environ["OPENAI_API_KEY"], os.environ.get("STREAMER_API_KEY"))
    asyncio.run(main(given.url, found, given.port, given.voice))

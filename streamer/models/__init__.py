"""Speech models: checkpoints, the decoder, the delay pattern, and the sampling of rows."""

from streamer.models.config import DelayConfig, LanguageConfig, SamplingParams
from streamer.models.delay import DelayState, FrameAssembler
from streamer.models.delay_model import BLOCK_ROWS, PREFILL_CHUNK_ROWS, DelayModel
from streamer.models.qwen3 import KVPool
from streamer.models.row_sampler import RowSampler, SequenceView
from streamer.models.slot_decoder import SlotDecoder
from streamer.models.tokenizer import load_tokenizer

__all__ = [
    "BLOCK_ROWS",
    "PREFILL_CHUNK_ROWS",
    "DelayConfig",
    "DelayModel",
    "DelayState",
    "FrameAssembler",
    "KVPool",
    "LanguageConfig",
    "RowSampler",
    "SamplingParams",
    "SequenceView",
    "SlotDecoder",
    "load_tokenizer",
]

"""Everything a process needs to speak: the model, its tokenizer, the codec, the voices, the engine, a worker pool."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from streamer.audio import OpusEncoder, Packetizer
from streamer.bridge import LoopBridge
from streamer.checkpoint import CheckpointError
from streamer.codec import AudioCodec
from streamer.engine import Engine, EngineConfig
from streamer.frame_source import FrameSource
from streamer.models import DelayModel, load_tokenizer
from streamer.models.linear import WeightFormat
from streamer.null_engine import NullConfig, NullEngine
from streamer.voices import Voice, VoiceRegistry

ASSETS = Path(__file__).parent / "assets"
PUBLISHED_CODEC = "OpenMOSS-Team/MOSS-Audio-Tokenizer"
# Who speaks when a client names no voice: neighbours that are told apart.
EMBEDDED_ORDER = ("heart", "joe", "nell", "heart_low")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class SpeechConfig:
    """Which model to load and how. ``model`` None is the embedded one, with its codec and voices.

    ``threads`` 0 is one for the embedded model, torch's own choice for others; ``history_seconds`` None takes 60 s, for
    the embedded model 12 s, which is what it was trained on. ``null``: nothing is generated, the first voice's
    recording is played in its place.
    """

    model: str | None = None
    codec: str | None = None
    voices: tuple[Path, ...] = ()
    device: str = "auto"
    dtype: str = "auto"
    weights: WeightFormat = "native"
    threads: int = 0
    history_seconds: float | None = None
    max_turn_seconds: float = 120.0
    engine: EngineConfig = field(default_factory=EngineConfig)
    null: NullConfig | None = None


class Speech:
    """The loaded parts. ``encoders`` are the packetizers in use, one for each open dialogue."""

    def __init__(
        self,
        config: SpeechConfig,
        model: DelayModel,
        tokenizer: Any,
        codec: AudioCodec,
        voices: VoiceRegistry,
        engine: FrameSource | None = None,
    ) -> None:
        self.config = config
        self.model = model
        self.tokenizer = tokenizer
        self.codec = codec
        self.voices = voices
        self.engine = engine or Engine(model, codec, config.engine)
        self.encoders: set[Packetizer] = set()
        # Short pieces of work that must not hold up the event loop: texts and prompts, and apart from them, so that
        # neither waits for a queue of the other, the encoding of frames.
        self.workers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="speech")
        n_encoders = max(2, min(8, (os.cpu_count() or 2) // 2))
        self._encoder_threads = ThreadPoolExecutor(max_workers=n_encoders, thread_name_prefix="encoder")
        self._bridge: LoopBridge | None = None

    @classmethod
    def load(cls, config: SpeechConfig) -> Speech:
        """Load all parts; :class:`CheckpointError` says in one line what is wrong with a checkpoint or voice folder."""
        device = _pick_device(config.device)
        dtype = _pick_dtype(config.dtype, device)
        embedded = config.model is None
        # On the embedded model's small matrices a second thread costs more than it gives.
        threads = config.threads or (1 if embedded and device.type == "cpu" else 0)
        if threads:
            torch.set_num_threads(threads)
        model_path = str(ASSETS / "model") if config.model is None else config.model
        codec_path = config.codec or (str(ASSETS / "codec") if embedded else PUBLISHED_CODEC)
        model = DelayModel.from_pretrained(model_path, device=device, dtype=dtype, weights=config.weights)
        tokenizer = load_tokenizer(model_path)
        codec = AudioCodec.from_pretrained(codec_path, device=device, dtype=dtype)
        n_vq, n_books = model.config.n_vq, codec.config.n_codebooks
        if n_books < n_vq:
            raise CheckpointError(f"{codec_path}: the codec has {n_books} codebooks, the model needs {n_vq}")
        n_codes, n_entries = model.config.audio_vocab_size, codec.config.codebook_size
        if n_entries < n_codes:
            raise CheckpointError(f"{codec_path}: the codec has {n_entries} codes a codebook, the model {n_codes}")
        # Found missing now, not when the first listener comes.
        OpusEncoder().close()
        folders = (ASSETS / "voices", *config.voices) if embedded else config.voices
        voices = VoiceRegistry.from_folders(folders, codec)
        for voice in voices.list():
            voice.reference(n_vq)
        engine = None if config.null is None else _null_engine(config, codec, voices, n_vq)
        return cls(config, model, tokenizer, codec, voices, engine)

    @property
    def name(self) -> str:
        """The model's name, as clients are told."""
        return self.model.name if self.config.null is None else "null"

    @property
    def follows_words(self) -> bool:
        """Whether the model shows which word it speaks."""
        return bool(self.model.config.alignment_heads) and self.config.null is None

    @property
    def history_seconds(self) -> float:
        """How much recent audio a turn continues from."""
        if self.config.history_seconds is not None:
            return self.config.history_seconds
        return 12.0 if self.config.model is None else 60.0

    def default_voices(self) -> dict[int, Voice]:
        """A voice for each speaker who is given none: all in turn, the embedded ones in an order of their own."""
        rank = {voice_id: place for place, voice_id in enumerate(EMBEDDED_ORDER)}
        known = sorted(self.voices.list(), key=lambda voice: rank.get(voice.id, len(rank)))
        return {speaker: known[(speaker - 1) % len(known)] for speaker in range(1, 6)} if known else {}

    def bridge(self) -> LoopBridge:
        """The running event loop's way to and from the engine's and the encoders' threads; one loop at a time."""
        loop = asyncio.get_running_loop()
        if self._bridge is None or self._bridge.loop is not loop:
            self._bridge = LoopBridge(loop, self._encoder_threads)
        return self._bridge

    def close(self) -> None:
        """Stop the engine and the workers."""
        self.engine.stop()
        self.workers.shutdown()
        self._encoder_threads.shutdown()


def _null_engine(config: SpeechConfig, codec: AudioCodec, voices: VoiceRegistry, n_vq: int) -> NullEngine:
    if not voices.list():
        raise CheckpointError(
            "the null model plays a voice's recording, and there is no voice: name a folder of voices"
        )
    codes = voices.list()[0].reference(n_vq)
    audio = codec.decode(codes).float().cpu().numpy().reshape(len(codes), -1)
    return NullEngine(codes.numpy(), audio, config.engine, config.null)


def _pick_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise CheckpointError(f"device: {name!r} is not a device ({error})") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise CheckpointError("device: torch sees no CUDA device on this machine")
    return device


def _pick_dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in DTYPES:
        raise CheckpointError(f"dtype: {name!r}, expected auto, {', '.join(DTYPES)}")
    return DTYPES[name]

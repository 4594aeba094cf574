from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from streamer.models import DelayConfig, load_tokenizer
from training.samples import CodedCorpus, SampleMaker
from training.train_lm import MODEL
from training.words import SoundTable

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def config() -> DelayConfig:
    return DelayConfig.from_folder(MODEL)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return load_tokenizer(MODEL)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, config: DelayConfig) -> CodedCorpus:
    """Two voices, a handful of short utterances each, with random codes."""
    folder: Path = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(5)
    for voice in ("high", "low"):
        lengths = rng.integers(20, 30, size=6)
        codes = rng.integers(0, config.audio_vocab_size, size=(lengths.sum(), config.n_vq)).astype(np.int16)
        (folder / "codes" / voice).mkdir(parents=True)
        texts = np.array([f"Sentence {number} of {voice}." for number in range(6)])
        np.savez(folder / "codes" / voice / "00000.npz", codes=codes, lengths=lengths, texts=texts)
    return CodedCorpus(folder, config.n_vq)


@pytest.fixture(scope="session")
def table() -> SoundTable:
    """Words of the samples in an alphabet of a few letters."""
    return SoundTable({"Sentence": "sentns", "of": "ov", "high": "hi", "low": "lo", "Hello": "helo"}, list("ehilnostv"))


@pytest.fixture(scope="session")
def maker(tokenizer: Any, config: DelayConfig, corpus: CodedCorpus, table: SoundTable) -> SampleMaker:
    return SampleMaker(tokenizer, config, corpus, table)

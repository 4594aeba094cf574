"""The checkpoint's tokenizer and chat template, by transformers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from streamer.checkpoint import CheckpointError, resolve_checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def load_tokenizer(path_or_hub_id: str | Path) -> PreTrainedTokenizerFast:
    """Tokenizer of a checkpoint folder or hub id."""
    from transformers import PreTrainedTokenizerFast

    folder = resolve_checkpoint(path_or_hub_id)
    if not (folder / "tokenizer.json").is_file():
        raise CheckpointError(f"{folder / 'tokenizer.json'}: no such file")
    try:
        return PreTrainedTokenizerFast.from_pretrained(folder)
    except Exception as error:  # the tokenizers library raises bare Exception on a damaged file
        raise CheckpointError(f"{folder}: the tokenizer can't be read ({error})") from error

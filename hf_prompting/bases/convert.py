"""From a GGUF file to an ordinary transformers folder: float32 safetensors, config and fast tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging

from hf_prompting.errors import BaseModelError

# What transformers' GGUF reader does not know yet, by the file's `tokenizer.ggml.pre`. SmolLM's own tokenizer.json cuts
# numbers into digits first; without it a digit after several spaces gets other tokens than in training.
MISSING_PRE_TOKENIZERS: dict[str, pre_tokenizers.PreTokenizer] = {
    "smollm": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
}


def convert_gguf(file: Path, folder: Path) -> PreTrainedModel:
    """Write the model and tokenizer of a GGUF file into `folder`, and return the model.

    Args:
        file: a causal language model in GGUF form.
        folder: existing folder that receives config.json, model.safetensors and the tokenizer's files.

    Raises:
        BaseModelError: if the package gguf is missing, or transformers cannot read the file.
        OSError: if the folder cannot be written.

    Example:
        >>> convert_gguf(Path("model.gguf"), Path("model"))  # doctest: +SKIP
    """
    with _quiet_transformers():
        try:
            tokenizer = _read_tokenizer(file)
            model = _read_model(file)
        except (ValueError, KeyError, TypeError, RuntimeError, IndexError) as error:
            raise BaseModelError(
                f"transformers cannot read the GGUF file {file.name}: {error}. Allowed: a causal language model of an "
                "architecture that transformers supports for GGUF"
            ) from error
        tokenizer.model_max_length = model.config.max_position_embeddings
        try:
            tokenizer.save_pretrained(folder)
        except Exception as error:  # tokenizers reports a full disk as a bare Exception
            raise OSError(str(error)) from error
        model.save_pretrained(folder)
    return model


def _read_tokenizer(file: Path) -> PreTrainedTokenizerFast:
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise BaseModelError(
            f'reading {file.name} needs the Python package gguf. Install it with: pip install "hf_prompting[gguf]"'
        ) from error

    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    kind = GGUFReader(file).get_field("tokenizer.ggml.pre")
    mend = MISSING_PRE_TOKENIZERS.get(kind.contents()) if kind is not None else None
    if mend is not None:
        tokenizer.backend_tokenizer.pre_tokenizer = mend
    return tokenizer


def _read_model(file: Path) -> PreTrainedModel:
    # Without `dequantize` the weights may stay packed (package kernels), and the model refuses to be saved.
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    return model


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Hide warnings about keys that a GGUF file has for llama.cpp only; errors still raise."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)

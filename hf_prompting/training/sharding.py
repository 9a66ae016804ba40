"""Models whose weights are split over processes (FSDP2): what ``Trainer`` and ``accelerate`` leave to their caller."""

from __future__ import annotations

from typing import Any

from accelerate import PartialState
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import SGD
from transformers import PreTrainedModel, Trainer

from hf_prompting.processes import shards_weights
from hf_prompting.soft_prompts.layer import input_embedding_paths


def shard_on_cpu_too() -> None:
    """Let a configuration that asks for FSDP2 split the weights on CPUs as well, so that it can be tried anywhere.

    ``accelerate`` splits weights only where it sees accelerators, and otherwise falls back to whole copies without a
    word. Call it between ``TrainingArguments`` and ``Trainer``; it changes nothing elsewhere.

    Example:
        >>> shard_on_cpu_too()
    """
    state = PartialState._shared_state  # the only private thing; tests/training/test_sharding.py says when it can go
    if shards_weights() and state.get("distributed_type") == DistributedType.MULTI_CPU:
        state["distributed_type"] = DistributedType.MULTI_GPU


def one_embedding_module(model: PreTrainedModel) -> None:
    """Let encoder and decoder call the very same embedding module, in place, before FSDP2 splits the weights.

    T5, BART and ``seq2seq`` hold three modules with one weight; FSDP2 gathers a weight for the module that it knows it
    by, and refuses to know it by several. Nothing else changes, neither results nor the names in saved files.

    Args:
        model: with one embedding for both sides; for others there is nothing to do.
    Example:
        >>> one_embedding_module(model)  # doctest: +SKIP
    """
    embedding = model.get_input_embeddings()
    for path in input_embedding_paths(model):
        model.set_submodule(path, embedding)


def split_for_measuring(trainer: Trainer) -> None:
    """Split the weights of a model that is measured without being trained, where the launch asks for FSDP2.

    ``Trainer.predict`` alone hands ``accelerate`` no optimiser, and that refuses FSDP2 without; this one holds nothing.

    Example:
        >>> split_for_measuring(trainer)  # doctest: +SKIP
    """
    if trainer.accelerator.is_fsdp2:
        trainer.model, _ = trainer.accelerator.prepare(trainer.model, SGD(trainer.model.parameters(), lr=0.0))
        trainer.model_wrapped = trainer.model


def whole_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights that ``save_pretrained`` would write, put together from all processes; all must call.

    Only those travel: for a prompt over a frozen base, the rows of the soft tokens.

    Example:
        >>> sorted(whole_state(nn.Linear(2, 1)))
        ['bias', 'weight']
    """
    left_out: set[str] = getattr(model, "_keys_to_ignore_on_save", None) or set()
    return {name: _whole(value) for name, value in model.state_dict().items() if name not in left_out}


def _whole(value: Any) -> Tensor:
    whole: Tensor = value.full_tensor() if isinstance(value, DTensor) else value
    return whole.detach().cpu()

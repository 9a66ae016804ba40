"""What the soft-token tests share: a tuned model, the really resized model it must equal, and inputs for both."""

from __future__ import annotations

from typing import Any

import torch
from peft import get_peft_model
from tiny_models import CAUSAL, FAMILIES, SEQ2SEQ, tiny_model
from torch import Tensor

from hf_prompting import SoftPromptConfig

VOCAB_SIZE = 300
NUM_SOFT = 4
SOFT_IDS = tuple(range(VOCAB_SIZE, VOCAB_SIZE + NUM_SOFT))
ALL_FAMILIES = tuple(FAMILIES)
TASK_TYPE = {**dict.fromkeys(CAUSAL, "CAUSAL_LM"), **dict.fromkeys(SEQ2SEQ, "SEQ_2_SEQ_LM")}


def new_rows(num_rows: int = NUM_SOFT, width: int = 32, seed: int = 7) -> Tensor:
    return torch.randn(num_rows, width, generator=torch.Generator().manual_seed(seed))


def config_for(family: str, **kwargs: Any) -> SoftPromptConfig:
    settings = {"num_virtual_tokens": None if "token_ids" in kwargs else NUM_SOFT, "seed": 0, **kwargs}
    return SoftPromptConfig(task_type=TASK_TYPE.get(family), **settings)


def owner(model: Any) -> Any:
    return next(module for module in model.modules() if getattr(module, "is_owner", False))


def table(model: Any, name: str = "default") -> Any:
    return owner(model).table(name)


@torch.no_grad()
def write(model: Any, rows: Tensor, name: str = "default") -> None:
    table(model, name).rows.copy_(rows)


def soft_model(family: str, base: Any = None, rows: Tensor | None = None, **kwargs: Any) -> Any:
    """A PEFT model whose soft rows stand for trained ones."""
    model = get_peft_model(tiny_model(family) if base is None else base, config_for(family, **kwargs)).eval()
    if table(model).encoder is None:
        write(model, new_rows(len(table(model).token_ids)) if rows is None else rows)
    return model


@torch.no_grad()
def resized_model(family: str, rows: Tensor | None = None, ids: tuple[int, ...] = SOFT_IDS) -> Any:
    """The same base with real, new vocabulary rows."""
    model = tiny_model(family)
    if max(ids) >= VOCAB_SIZE:
        # Only the input rows are compared: the head may stay tied.
        model.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
    model.get_input_embeddings().weight[list(ids)] = new_rows(len(ids)) if rows is None else rows
    return model


def prompts(ids: tuple[int, ...] = SOFT_IDS) -> list[list[int]]:
    """Rows of different lengths with soft tokens in front, in the middle, at the end, and several times."""
    a, b, c, d = ids[:4]
    return [[a, b, 11, 12, 13, 14], [15, 16, a, c, 17, 18, 19, d, 20, b], [21, 22, a, a, d]]


def batch(rows: list[list[int]], pad_id: int, side: str = "right", extra: int = 0) -> dict[str, Tensor]:
    width = max(map(len, rows)) + extra
    ids, mask = torch.full((len(rows), width), pad_id), torch.zeros(len(rows), width, dtype=torch.long)
    for number, row in enumerate(rows):
        place = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[number, place], mask[number, place] = torch.tensor(row), 1
    return {"input_ids": ids, "attention_mask": mask}


def inputs_for(family: str, side: str = "right", ids: tuple[int, ...] = SOFT_IDS) -> dict[str, Tensor]:
    """A padded batch with soft ids, also in the decoder's input."""
    inputs = batch(prompts(ids), pad_id=1 if family in ("roberta", "bart") else 0, side=side)
    if family in SEQ2SEQ:
        inputs["decoder_input_ids"] = torch.tensor([[2, ids[0], 31], [2, 32, ids[1]], [2, 33, 34]])
    return inputs


@torch.no_grad()
def logits_of(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Logits of the ordinary vocabulary."""
    logits: Tensor = model(**inputs).logits[..., :VOCAB_SIZE]
    return logits

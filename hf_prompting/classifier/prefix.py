"""The beginning that all rows of a batch share, and its states, kept from one batch to the next."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import DynamicCache

from hf_prompting.soft_prompts.layer import SoftTokenEmbedding

MIN_SHARED = 4  # a shorter common beginning costs more to share than to read again
_MAX_BEHIND = (
    16  # shared tokens that kept states may lack: texts that begin alike by chance are no reason to start anew
)

States = tuple[tuple[Tensor, Tensor], ...]  # keys and values of every layer, (1, heads, P, D)


class SharedPrefix:
    """Find the tokens that rows begin with, and keep their states where no gradient is needed.

    States are kept for one beginning, and only as long as nothing they depend on has changed. Soft tokens are compared
    by value; every other weight is asked for its version and place, so ``load_state_dict``, another dtype or device end
    them; and so does every forward that takes gradients, since a fused optimiser changes weights without a trace.

    Args:
        enabled: False to share nothing.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        self.enabled = enabled
        self._ids: Tensor | None = None
        self._states: States = ()
        self._weights: tuple[Any, ...] = ()
        self._soft_rows: list[Tensor] = []

    def forget(self) -> None:
        """Drop the kept states."""
        self._ids, self._states, self._weights, self._soft_rows = None, (), (), []

    def find(self, base: Any, ids_BT: Tensor, lengths_B: Tensor, *, keep: bool) -> tuple[int, DynamicCache | None]:
        """Count the shared tokens, and give their states where they can be kept.

        Args:
            base: the model that reads them.
            ids_BT: rows with their padding on the right.
            lengths_B: tokens of each row.
            keep: use kept states, or compute them now and keep them.
        Returns:
            P (0 where sharing is not exact or not worth it), and a cache of P states or None.
        """
        if not keep:
            self.forget()
        if not self.enabled or (base.training and _has_dropout(base)):
            return 0, None
        most = int(lengths_B.min()) - 1  # every row keeps a token of its own to answer from
        if not keep or has_foreign_adapter(base):
            num_shared = num_equal(ids_BT, ids_BT[0])
            num_shared = min(num_shared, most) if ids_BT.shape[0] > 1 else 0
            return (num_shared if num_shared >= MIN_SHARED else 0), None
        weights, soft_rows = _weights_now(base), _soft_rows_now(base)
        if weights != self._weights or not all(map(torch.equal, soft_rows, self._soft_rows)):
            self.forget()
        shared = min(num_equal(ids_BT, ids_BT[0]), most)
        if self._ids is not None:
            num_kept = self._ids.shape[0]
            is_enough = ids_BT.shape[0] == 1 or num_kept >= shared - _MAX_BEHIND
            if num_kept <= most and is_enough and num_equal(ids_BT, self._ids) == num_kept:
                return num_kept, DynamicCache(self._states)
        if ids_BT.shape[0] < 2 or shared < MIN_SHARED:
            return 0, None
        self._ids, self._weights, self._soft_rows = ids_BT[0, :shared].clone(), weights, soft_rows
        cache = base(
            input_ids=self._ids[None], use_cache=True, past_key_values=DynamicCache(), logits_to_keep=1
        ).past_key_values
        self._states = tuple((layer.keys, layer.values) for layer in cache.layers)
        return shared, DynamicCache(self._states)


def has_foreign_adapter(base: nn.Module) -> bool:
    """Tell whether the model carries adapters (LoRA), which are switched without any weight changing."""
    return any(isinstance(m, BaseTunerLayer) and not isinstance(m, SoftTokenEmbedding) for m in base.modules())


def num_equal(ids_BT: Tensor, beginning: Tensor) -> int:
    """Count the leading tokens that all rows have in common with ``beginning``."""
    width = min(ids_BT.shape[1], beginning.shape[0])
    return int(torch.eq(ids_BT[:, :width], beginning[:width]).all(0).cumprod(0).sum())


def _weights_now(base: nn.Module) -> tuple[Any, ...]:
    """Describe all weights without reading them: in-place changes raise the version, anything else moves the data."""
    weights = (*base.parameters(), *base.buffers())
    return (base.training, *((w.data_ptr(), w.dtype, -1 if w.is_inference() else w._version) for w in weights))


def _soft_rows_now(base: nn.Module) -> list[Tensor]:
    layers = [module for module in base.modules() if isinstance(module, SoftTokenEmbedding)]
    return [layer.table(name).materialize().detach().clone() for layer in layers[:1] for name in layer.tables]


def _has_dropout(base: Any) -> bool:
    """Tell whether rows would draw their own dropout in training."""
    in_attention = getattr(base.config.get_text_config(), "attention_dropout", 0.0)
    return bool(in_attention) or any(isinstance(module, nn.Dropout) and module.p > 0 for module in base.modules())

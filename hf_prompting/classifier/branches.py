"""Branches of the tree of label words, each read as a row of its own, over one copy of what their row was encoded to.

An encoder-decoder answers in its decoder. Every branch is a decoder row, so a token's position is its column in any
architecture. Only cross-attention has to know which branches belong together: it is registered with transformers under
a name of its own, and lets all branches of a row ask that row's keys and values, which are so projected once.

B rows, N branches, L tokens of the longest branch, K nodes, S encoder tokens, T decoder tokens.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from hf_prompting.classifier.exchanged_attention import exchanged_attention
from hf_prompting.verbalizers import LabelTrie

_NAME = "hf_prompting_branches"
_KEEP_B11S: ContextVar[Tensor] = ContextVar("keep")


@dataclass(frozen=True)
class Branches:
    """All paths from below the root of a tree to its ends, padded on the right, and where its nodes lie in them.

    Attributes:
        ids_NL: tokens; one empty branch where no word has several.
        mask_NL: 0 for padding.
        branch_K: a branch that each node lies on; the root lies on all.
        depth_K: tokens of each node's prefix.
    """

    ids_NL: Tensor
    mask_NL: Tensor
    branch_K: Tensor
    depth_K: Tensor

    @classmethod
    def of_trie(cls, trie: LabelTrie, *, pad_id: int, device: torch.device) -> Branches:
        """Lay out a tree.

        Example:
            >>> branches = Branches.of_trie(LabelTrie.build([(5, 6, 7), (8, 9), (5, 4)]), pad_id=0, device="cpu")
            >>> branches.ids_NL.tolist(), branches.branch_K.tolist(), branches.depth_K.tolist()
            ([[8, 0], [5, 6]], [0, 1, 0, 1], [0, 1, 1, 2])
        """
        paths = trie.branches() or [([], [])]
        length = max(len(pieces) for _, pieces in paths)
        branch_of = {node: number for number, (nodes, _) in enumerate(paths) for node in nodes} | {0: 0}
        return cls(
            torch.tensor([[*pieces, *[pad_id] * (length - len(pieces))] for _, pieces in paths], device=device).long(),
            torch.tensor([[1] * len(pieces) + [0] * (length - len(pieces)) for _, pieces in paths], device=device),
            torch.tensor([branch_of[node] for node in range(trie.num_nodes)], device=device),
            torch.tensor(trie.depths, device=device),
        )

    def nodes(self, states: Tensor) -> Tensor:
        """Pick the states at the nodes, the root's first. (B * N, T, H) -> (B, K, H)"""
        num_branches, length = self.ids_NL.shape
        num_tokens, width = states.shape[1:]
        states_BNTH = states.view(-1, num_branches, num_tokens, width)
        return states_BNTH[:, self.branch_K, num_tokens - 1 - length + self.depth_K]


def shared_encoder_states(base: Any, keep_BS: Tensor) -> AbstractContextManager[None]:
    """Let the decoder read B * N rows over encoder states of B rows, N branches of a row after those of the row before.

    Args:
        base: an encoder-decoder for which ``can_share`` holds.
        keep_BS: 0 for padding of the encoder's rows; their decoder rows have padding on the right only.
    """
    return exchanged_attention(base.get_decoder().config, _NAME, _KEEP_B11S, keep_BS[:, None, None].bool())


def can_share(base: Any) -> bool:
    """Tell whether a model leaves its decoder's attention to transformers' ``sdpa``."""
    return getattr(base.get_decoder().config, "_attn_implementation", None) == "sdpa"


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of branches, by transformers' signature.

    Queries are (B * N, heads, T, D). Keys are a branch's own (B * N, heads, T, D), or its row's (B, heads, S, D).
    """
    sdpa, num_rows = ALL_ATTENTION_FUNCTIONS["sdpa"], key.shape[0]
    if query.shape[0] == num_rows:  # a branch over itself
        states, _ = sdpa(module, query, key, value, None, position_bias=position_bias, **{**kwargs, "is_causal": True})
        return states, None
    num_branches, (num_heads, num_tokens, width) = query.shape[0] // num_rows, query.shape[1:]
    query = query.reshape(num_rows, num_branches, num_heads, num_tokens, width).transpose(1, 2).flatten(2, 3)
    if position_bias is not None:
        position_bias = position_bias.repeat(1, 1, num_branches, 1)
    states, _ = sdpa(module, query, key, value, _KEEP_B11S.get(), position_bias=position_bias, **kwargs)
    return states.reshape(num_rows * num_branches, num_tokens, num_heads, -1), None


AttentionInterface.register(_NAME, _attend)

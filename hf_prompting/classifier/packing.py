"""Rows without padding: all tokens of a batch in one line, the beginning that they share only once.

Linear layers read the line as it is. Only attention has to know which token belongs to which row: it is registered with
transformers under a name of its own, lays the rows side by side for the moment of the product, and calls the model's
ordinary ``sdpa`` attention. So every architecture that lets transformers choose its attention runs unchanged.

S tokens of all rows, P shared tokens, T columns of the widest row, M nodes of the tree of label words.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from hf_prompting.classifier.cpu_attention import bias_of, grouped_attention, shared_attention
from hf_prompting.classifier.exchanged_attention import exchanged_attention
from hf_prompting.verbalizers import LabelTrie

_NAME = "hf_prompting_packed"
MIN_SHARED_APART = 128  # shared tokens from which on multiplying them apart was faster than sdpa
_LAYOUT: ContextVar[_Layout] = ContextVar("layout")


@dataclass(frozen=True)
class PackedRows:
    """A batch in one line, and where each token lies.

    Attributes:
        ids_S: own tokens of all rows, row after row: the row's prompt behind the shared beginning, then the nodes.
        positions_S: their positions.
        positions_BT: the same, laid out in columns; padding is 0.
        is_token_BT: which columns of a row hold a token.
        may_see_BTT: which own tokens of its row a token attends to.
        prefix_P: ids of the shared beginning.
        places_S: place in B * T of each token.
        answers_BK: place in the line of each row's last prompt token, then of its nodes. K = 1 + M
    """

    ids_S: Tensor
    positions_S: Tensor
    positions_BT: Tensor
    is_token_BT: Tensor
    may_see_BTT: Tensor
    prefix_P: Tensor
    places_S: Tensor
    answers_BK: Tensor

    @property
    def num_shared(self) -> int:
        """P."""
        return self.prefix_P.shape[0]

    def columns(self, states_SHD: Tensor) -> Tensor:
        """Lay the line out in columns, padding zero. (S, heads, D) -> (B, heads, T, D)"""
        num_rows, width = self.is_token_BT.shape
        columns: Tensor = _ToColumns.apply(states_SHD, self.places_S, num_rows * width)  # type: ignore[no-untyped-call]
        return columns.view(num_rows, width, *states_SHD.shape[1:]).transpose(1, 2)

    def line(self, columns_BTHD: Tensor) -> Tensor:
        """Undo ``columns``. (B, T, heads, D) -> (S, heads, D)"""
        line: Tensor = _ToLine.apply(columns_BTHD.flatten(0, 1), self.places_S)  # type: ignore[no-untyped-call]
        return line

    def mask(self, window: int | None) -> Tensor | None:
        """Tell which keys a token attends to: the shared beginning, then the row's own. -> (B, 1, T, P + T) bool

        None where that is all before it: rows of one length without padding, sharing, tree or window.
        """
        num_rows, width = self.is_token_BT.shape
        is_full = not self.num_shared and self.answers_BK.shape[1] == 1 and len(self.places_S) == num_rows * width
        return None if is_full and (window is None or width <= window) else self.full_mask(window)

    def full_mask(self, window: int | None) -> Tensor:
        """Give ``mask`` in any case."""
        num_rows, width = self.is_token_BT.shape
        see_prefix = self.is_token_BT.new_ones(num_rows, width, self.num_shared)
        may_see = torch.cat([see_prefix, self.may_see_BTT], dim=2)
        if window is not None:
            starts = torch.arange(self.num_shared, device=may_see.device).expand(num_rows, -1)
            keys = torch.cat([starts, self.positions_BT], dim=1)
            may_see = may_see & (self.positions_BT[:, :, None] - keys[:, None] < window)
        return may_see[:, None]


@dataclass(frozen=True)
class Nodes:
    """The nodes of the trees of label words that are read behind rows, as many for each row; short trees are filled.

    Attributes:
        pieces_BM: token of each node.
        is_node_BM: False for filling.
        ancestors_BMM: which nodes stand on the way to a node, itself included.
    """

    pieces_BM: Tensor
    is_node_BM: Tensor
    ancestors_BMM: Tensor

    @classmethod
    def of_trie(cls, trie: LabelTrie, device: torch.device) -> Nodes:
        """Lay out one tree, B = 1, without its root: that is the last token of the row."""
        is_ancestor = torch.eye(trie.num_nodes - 1, dtype=torch.bool)
        for node, parent in enumerate(trie.parents[1:]):
            if parent > 0:
                is_ancestor[node] |= is_ancestor[parent - 1]
        pieces = torch.tensor(trie.pieces[1:], dtype=torch.long)[None]
        return cls(
            pieces.to(device), torch.ones_like(pieces, dtype=torch.bool).to(device), is_ancestor[None].to(device)
        )

    @classmethod
    def of_rows(cls, trees: Sequence[Nodes]) -> Nodes:
        """Put one tree for each row together."""
        width = max(tree.pieces_BM.shape[1] for tree in trees)
        lacking = [width - tree.pieces_BM.shape[1] for tree in trees]
        return cls(
            torch.cat([F.pad(tree.pieces_BM, (0, n)) for tree, n in zip(trees, lacking, strict=True)]),
            torch.cat([F.pad(tree.is_node_BM, (0, n)) for tree, n in zip(trees, lacking, strict=True)]),
            torch.cat([F.pad(tree.ancestors_BMM, (0, n, 0, n)) for tree, n in zip(trees, lacking, strict=True)]),
        )

    def expand(self, num_rows: int) -> Nodes:
        """Give every row the same tree."""
        return Nodes(
            self.pieces_BM.expand(num_rows, -1),
            self.is_node_BM.expand(num_rows, -1),
            self.ancestors_BMM.expand(num_rows, -1, -1),
        )


def pack_rows(ids_BT: Tensor, is_token_BT: Tensor, *, num_shared: int, nodes: Nodes) -> PackedRows:
    """Bring a batch into one line.

    Args:
        ids_BT: rows with their padding on the right.
        is_token_BT: False for padding.
        num_shared: P, tokens that all rows begin with; every row is longer than that.
        nodes: what is read behind the rows.
    Example:
        >>> none = Nodes.of_trie(LabelTrie.build([(3,), (4,)]), torch.device("cpu")).expand(2)
        >>> rows = pack_rows(torch.tensor([[7, 8, 5], [7, 8, 0]]), torch.tensor([[1, 1, 1], [1, 1, 0]]).bool(),
        ...                  num_shared=1, nodes=none)
        >>> rows.prefix_P.tolist(), rows.ids_S.tolist(), rows.positions_S.tolist(), rows.answers_BK.tolist()
        ([7], [8, 5, 8], [1, 2, 1], [[1], [2]])
    """
    device, num_rows = ids_BT.device, ids_BT.shape[0]
    prefix_P, ids_BT, is_own_BT = ids_BT[0, :num_shared], ids_BT[:, num_shared:], is_token_BT[:, num_shared:]
    num_own_B, width, num_nodes = is_own_BT.sum(1), ids_BT.shape[1], nodes.pieces_BM.shape[1]
    is_token_BT = torch.cat([is_own_BT, nodes.is_node_BM], dim=1)
    own_positions_BT = (num_shared + torch.arange(width, device=device)).expand(num_rows, -1)
    node_positions_BM = num_shared + num_own_B[:, None] - 1 + nodes.ancestors_BMM.sum(2)
    positions_BT = torch.cat([own_positions_BT, node_positions_BM], dim=1) * is_token_BT
    may_see_BTT = is_token_BT.new_zeros(num_rows, width + num_nodes, width + num_nodes)
    may_see_BTT[:, :width, :width] = torch.ones(width, width, dtype=torch.bool, device=device).tril()
    may_see_BTT[:, width:, :width] = is_own_BT[:, None]
    may_see_BTT[:, width:, width:] = nodes.ancestors_BMM
    places_S = is_token_BT.flatten().nonzero()[:, 0]
    line_BT = (is_token_BT.flatten().cumsum(0) - 1).view_as(is_token_BT)
    last_B1 = line_BT.gather(1, num_own_B[:, None] - 1)
    return PackedRows(
        ids_S=torch.cat([ids_BT, nodes.pieces_BM], dim=1).flatten()[places_S],
        positions_S=positions_BT.flatten()[places_S],
        positions_BT=positions_BT,
        is_token_BT=is_token_BT,
        may_see_BTT=may_see_BTT,
        prefix_P=prefix_P,
        places_S=places_S,
        answers_BK=torch.cat([last_B1, line_BT[:, width:]], dim=1),
    )


class _Layout:
    """A batch and its masks, each made once for all layers that have the same window."""

    def __init__(self, rows: PackedRows) -> None:
        self.rows = rows
        self._masks: dict[int | None, Tensor | None] = {}
        self._biases: dict[int | None, Tensor] = {}
        self._sees_all: dict[int | None, bool] = {}

    def mask(self, window: int | None) -> Tensor | None:
        if window not in self._masks:
            self._masks[window] = self.rows.mask(window)
        return self._masks[window]

    def bias(self, window: int | None) -> Tensor:
        """Give the mask as a bias of scores, (B, T, P + T)."""
        if window not in self._biases:
            mask = self.rows.full_mask(window)
            self._biases[window] = bias_of(mask[:, 0])
        return self._biases[window]

    def biases(self, window: int | None) -> tuple[Tensor, Tensor | None]:
        """Give biases of own and of shared tokens, (B, T, T) and (B, T, P), or None where all shared ones are seen."""
        shared, own = self.bias(window).tensor_split([self.rows.num_shared], dim=-1)
        if window not in self._sees_all:
            self._sees_all[window] = not bool(shared.any())
        return own, None if self._sees_all[window] else shared


def packed_attention(base: Any, rows: PackedRows) -> AbstractContextManager[None]:
    """Make ``base`` read one line of ``rows``: its own tokens, behind the shared ones in the line or in a cache."""
    return exchanged_attention(base.config.get_text_config(), _NAME, _LAYOUT, _Layout(rows))


def can_pack(base: Any) -> bool:
    """Tell whether a model leaves its attention to transformers' ``sdpa``, the same in all layers but for windows."""
    config = base.config.get_text_config()
    return getattr(config, "_attn_implementation", None) == "sdpa" and not getattr(config, "attention_chunk_size", None)


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention over one line, by transformers' signature. queries (1, heads, S or P + S, D), keys (1, _, P + S, D)"""
    layout, sdpa = _LAYOUT.get(), ALL_ATTENTION_FUNCTIONS["sdpa"]
    rows = layout.rows
    num_own, num_shared = rows.ids_S.shape[0], rows.num_shared
    query_BHTD, key_BHTD, value_BHTD = (
        rows.columns(states[0, :, -num_own:].transpose(0, 1)) for states in (query, key, value)
    )
    attend_apart = num_shared >= MIN_SHARED_APART and _is_cpu_s(query, kwargs)
    if num_shared and not attend_apart:
        key_BHTD = _behind(key[:, :, :num_shared], key_BHTD)
        value_BHTD = _behind(value[:, :, :num_shared], value_BHTD)
    scaling = kwargs.get("scaling") or query.shape[-1] ** -0.5
    if attend_apart:
        shared = key[0, :, :num_shared], value[0, :, :num_shared]
        biases = layout.biases(sliding_window)
        out_BTHD = shared_attention(query_BHTD, key_BHTD, value_BHTD, *shared, *biases, scaling=scaling)
    elif _is_short(query_BHTD, key_BHTD) and _is_cpu_s(query, kwargs):
        bias = layout.bias(sliding_window)
        out_BTHD = grouped_attention(query_BHTD, key_BHTD, value_BHTD, bias, scaling=scaling)
    else:
        out_BTHD, _ = sdpa(module, query_BHTD, key_BHTD, value_BHTD, layout.mask(sliding_window), **kwargs)
    out_SHD = rows.line(out_BTHD)
    if query.shape[2] > num_own:
        mask = None
        if sliding_window is not None and num_shared > sliding_window:
            steps = torch.arange(num_shared, device=query.device)
            distance = steps[:, None] - steps[None]
            mask = ((distance >= 0) & (distance < sliding_window))[None, None]
        beginning = (states[:, :, :num_shared] for states in (query, key, value))
        out_shared, _ = sdpa(module, *beginning, mask, **{**kwargs, "is_causal": mask is None})
        out_SHD = torch.cat([out_shared[0], out_SHD])
    return out_SHD[None], None


AttentionInterface.register(_NAME, _attend)


def _is_cpu_s(query: Tensor, kwargs: dict[str, Any]) -> bool:
    """Tell whether the forms for a CPU do all that ``sdpa`` would do; autocast gives them a mixture of types."""
    is_plain = not kwargs.get("dropout") and kwargs.get("position_bias") is None
    is_float = query.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu")
    return is_plain and is_float and query.device.type == "cpu"


def _is_short(query_BHTD: Tensor, key_BHTD: Tensor) -> bool:
    """Tell whether rows are short enough for weights to be held, instead of keys repeated for the heads of a group.

    Up to three times a head's width the weights take less memory; from 256 keys on, ``sdpa`` was faster.
    """
    return query_BHTD.shape[1] > key_BHTD.shape[1] and key_BHTD.shape[2] <= min(3 * key_BHTD.shape[3], 256)


def _behind(shared: Tensor, own_BHTD: Tensor) -> Tensor:
    return torch.cat([shared.expand(own_BHTD.shape[0], -1, -1, -1), own_BHTD], dim=2)


class _ToColumns(torch.autograd.Function):
    """Copy rows of a line to places in a larger one. Its gradient is a plain read, where PyTorch would add up."""

    @staticmethod
    def forward(ctx: Any, line: Tensor, places: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(places)
        return line.new_zeros(size, *line.shape[1:]).index_copy_(0, places, line)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        return gradient.index_select(0, places), None, None


class _ToLine(torch.autograd.Function):
    """Read rows at distinct places; the gradient is a plain copy."""

    @staticmethod
    def forward(ctx: Any, columns: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.size = columns.shape[0]
        return columns.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        return gradient.new_zeros(ctx.size, *gradient.shape[1:]).index_copy_(0, places, gradient), None

"""Attention in forms that suit a CPU: short rows, and many rows behind a long beginning that they share.

torch's own way lays keys and values out for every query head, and for every row where they are shared, and multiplies
small matrices. Here the query heads of a key head are one matrix; behind a long beginning, those of all rows are.

B rows, T columns, S keys, H query heads, K key heads, G query heads of a key head, D width of a head, P shared tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hf_prompting.cpu_products import linear

_NUM_SCORES = 2**20  # held at once: they stay in the processor's cache
_HIDDEN = -1e30  # finite: a column of padding may see nothing, and must not become NaN


def grouped_attention(
    query_BHTD: Tensor, key_BKSD: Tensor, value_BKSD: Tensor, bias_BTS: Tensor, *, scaling: float
) -> Tensor:
    """``softmax(Q K^T * scaling + bias) V``, written out; keys and values are not repeated for their query heads.

    Args:
        query_BHTD: (B, H, T, D), H = K * G.
        key_BKSD: (B, K, S, D).
        value_BKSD: (B, K, S, D).
        bias_BTS: added to the scores, see ``bias_of``.
        scaling: factor of the scores.
    Returns:
        (B, T, H, D).
    Example:
        >>> one = torch.ones(1, 1, 2, 1)
        >>> grouped_attention(one[:, :, :1], one, one, torch.zeros(1, 1, 2), scaling=1.0).tolist()
        [[[[1.0]]]]
    """
    num_rows, _, width, size = query_BHTD.shape
    num_key_heads, num_keys = key_BKSD.shape[1:3]
    groups = (query_BHTD * scaling).reshape(num_rows, num_key_heads, -1, size)
    scores = (groups @ key_BKSD.transpose(2, 3)).view(num_rows, num_key_heads, -1, width, num_keys)
    weights = (scores + bias_BTS[:, None, None]).softmax(-1).view(num_rows, num_key_heads, -1, num_keys)
    return (weights @ value_BKSD).view(query_BHTD.shape).transpose(1, 2)


def shared_attention(
    query_BHTD: Tensor,
    key_BKTD: Tensor,
    value_BKTD: Tensor,
    shared_key_KPD: Tensor,
    shared_value_KPD: Tensor,
    bias_BTT: Tensor,
    shared_bias_BTP: Tensor | None,
    *,
    scaling: float,
) -> Tensor:
    """``softmax(Q K^T * scaling) V`` with keys and values of the shared tokens before each row's own.

    The softmax over both parts is joined by its normaliser, as blocks are in flash attention (Dao et al., 2022, section
    3.1, arXiv:2205.14135); the backward pass computes the weights again from it, so that none are kept.

    Args:
        query_BHTD: (B, H, T, D), H = K * G.
        key_BKTD: (B, K, T, D).
        value_BKTD: (B, K, T, D).
        shared_key_KPD: (K, P, D).
        shared_value_KPD: (K, P, D).
        bias_BTT: added to the scores of a row's own tokens, see ``bias_of``.
        shared_bias_BTP: added to the scores of the shared tokens; None where all of them are seen.
        scaling: factor of the scores.
    Returns:
        (B, T, H, D). A column that may see nothing gets an arbitrary finite value.
    Example:
        >>> one, bias = torch.ones(1, 1, 1, 2), torch.zeros(1, 1, 1)
        >>> shared_attention(one, one, one, one[0], 3 * one[0], bias, None, scaling=1.0).tolist()
        [[[[2.0, 2.0]]]]
    """
    num_rows, num_key_heads = key_BKTD.shape[:2]
    by_head = (
        (query_BHTD * scaling)
        .view(num_rows, num_key_heads, -1, *query_BHTD.shape[2:])
        .permute(1, 0, 2, 3, 4)
        .contiguous()
    )
    out_KBGTD: Tensor = _SharedAttention.apply(  # type: ignore[no-untyped-call]
        by_head,
        key_BKTD.transpose(0, 1).contiguous(),
        value_BKTD.transpose(0, 1).contiguous(),
        shared_key_KPD.contiguous(),
        shared_value_KPD.contiguous(),
        bias_BTT,
        shared_bias_BTP,
    )
    return out_KBGTD.permute(1, 3, 0, 2, 4).flatten(2, 3)


def bias_of(may_see: Tensor) -> Tensor:
    """Give what to add to scores so that a token attends only where ``may_see`` is true.

    Example:
        >>> bias_of(torch.tensor([True, False])).exp().tolist()
        [1.0, 0.0]
    """
    return torch.zeros(may_see.shape, device=may_see.device).masked_fill_(~may_see, _HIDDEN)


class _Block(NamedTuple):
    """Some rows of one key head, with views of its queries as many small matrices and as one large one."""

    head: int
    rows: slice
    queries: Tensor  # (rows, G * T, D)
    line: Tensor  # (rows * G * T, D)


class _SharedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        shared_key: Tensor,
        shared_value: Tensor,
        bias: Tensor,
        shared_bias: Tensor | None,
    ) -> Tensor:
        out, normalizer = torch.empty_like(query), query.new_empty(*query.shape[:-1], 1)
        for block in _blocks(query, shared_key):
            head, rows = block.head, block.rows
            own, shared = _scores(block, key, shared_key, bias, shared_bias)
            largest = torch.maximum(own.amax(-1, keepdim=True), shared.amax(-1, keepdim=True))
            own.sub_(largest).exp_()
            shared.sub_(largest).exp_()
            sums = own.sum(-1, keepdim=True) + shared.sum(-1, keepdim=True)
            states = linear(shared.flatten(0, 1), shared_value[head].t()).view(block.queries.shape)
            states.baddbmm_(own, value[head, rows]).div_(sums)
            out[head, rows] = states.view_as(out[head, rows])
            normalizer[head, rows] = largest.add_(sums.log_()).view_as(normalizer[head, rows])
        ctx.save_for_backward(query, key, value, shared_key, shared_value, bias, shared_bias, out, normalizer)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """With weights W = softmax(S): dV = W^T dO, dS = W (dO V^T - dO . O), dQ = dS K, dK = dS^T Q."""
        query, key, value, shared_key, shared_value, bias, shared_bias, out, normalizer = ctx.saved_tensors
        found = [torch.empty_like(part) for part in (query, key, value)]
        found += [torch.zeros_like(part) for part in (shared_key, shared_value)]
        query_gradient, key_gradient, value_gradient, shared_key_gradient, shared_value_gradient = found
        gradient = gradient.contiguous()
        along = (gradient * out).sum(-1, keepdim=True)
        for block in _blocks(query, shared_key):
            head, rows, queries = block.head, block.rows, block.queries
            upstream = gradient[head, rows].view_as(queries)
            of_rows = (len(queries), -1, 1)
            own, shared = _scores(block, key, shared_key, bias, shared_bias)
            for weights in (own, shared):
                weights.sub_(normalizer[head, rows].view(of_rows)).exp_()
            value_gradient[head, rows] = own.transpose(1, 2) @ upstream
            shared_value_gradient[head] += linear(shared.flatten(0, 1).t(), upstream.flatten(0, 1).t())
            own.mul_((upstream @ value[head, rows].transpose(1, 2)).sub_(along[head, rows].view(of_rows)))
            onto = linear(upstream.flatten(0, 1), shared_value[head]).view_as(shared)
            shared.mul_(onto.sub_(along[head, rows].view(of_rows)))
            states = linear(shared.flatten(0, 1), shared_key[head].t()).view_as(queries)
            query_gradient[head, rows] = states.baddbmm_(own, key[head, rows]).view_as(query[head, rows])
            key_gradient[head, rows] = own.transpose(1, 2) @ queries
            shared_key_gradient[head] += linear(shared.flatten(0, 1).t(), block.line.t())
        return (*found, None, None)


def _blocks(query_KBGTD: Tensor, shared_key_KPD: Tensor) -> Iterator[_Block]:
    num_heads, num_rows, groups, width, _ = query_KBGTD.shape
    num_scores = groups * width * (shared_key_KPD.shape[1] + width)
    step = max(1, _NUM_SCORES // num_scores)
    for head in range(num_heads):
        for start in range(0, num_rows, step):
            rows = slice(start, start + step)
            queries = query_KBGTD[head, rows].flatten(1, 2)
            yield _Block(head, rows, queries, queries.flatten(0, 1))


def _scores(
    block: _Block, key: Tensor, shared_key: Tensor, bias: Tensor, shared_bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Scores of own and of shared tokens. (rows, G * T, T), (rows, G * T, P)"""
    own = block.queries @ key[block.head, block.rows].transpose(1, 2)
    shared = linear(block.line, shared_key[block.head]).view(*own.shape[:2], -1)
    for scores, addend in ((own, bias), (shared, shared_bias)):
        if addend is not None:
            scores.view(len(scores), -1, *addend.shape[1:]).add_(addend[block.rows, None])
    return own, shared

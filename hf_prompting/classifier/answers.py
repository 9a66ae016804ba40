"""Scores of whole label words at the answer slot, one function for each kind of base model.

All return (B, N) log-probabilities of the N label words, up to a constant per row where that constant is the same for
every word (then the class probabilities do not depend on it and the whole vocabulary is never visited).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hf_prompting.classifier.label_head import check_post_processing, label_rows
from hf_prompting.classifier.padding import align
from hf_prompting.errors import InputTextError
from hf_prompting.verbalizers import LabelTrie

_MIN_SHARED = 4  # a shorter common beginning costs more to share than to read again


@dataclass(frozen=True)
class AnswerSlot:
    """Everything the tensor side needs to know about the slot and the label words.

    Attributes:
        words: pieces of the N label words.
        pad_id: id to fill with.
        mask_id: id of the mask tokens in the input (masked models).
        num_masks: mask tokens in every row (masked models).
        decoder_prefix: what the decoder reads before the answer (encoder-decoders).
    """

    words: tuple[tuple[int, ...], ...]
    pad_id: int
    mask_id: int | None = None
    num_masks: int = 0
    decoder_prefix: tuple[int, ...] = ()


class WordScorer:
    """Score label words with a base model of one kind.

    Args:
        base: the model with its language-model head.
        slot: see ``AnswerSlot``.
        share_prefix: let a causal model read the tokens that all rows of a batch begin with (soft tokens, instruction,
            demonstrations) once. Scores and gradients stay the same; where they would not, it switches itself off.
    """

    def __init__(self, base: Any, slot: AnswerSlot, *, share_prefix: bool = True) -> None:
        self.share_prefix = share_prefix
        self.base = base
        self.slot = slot
        self.trie = LabelTrie.build(slot.words)
        self.pieces = sorted({piece for word in slot.words for piece in word})
        self.column = {piece: column for column, piece in enumerate(self.pieces)}
        self.accepted = set(inspect.signature(base.forward).parameters)

    @property
    def max_extra_tokens(self) -> int:
        """Tokens that are read behind the prompt while words of several tokens are scored."""
        return max(self.trie.depths)

    def causal(self, input_ids: Tensor, keep: Tensor) -> Tensor:
        """Teacher forcing behind the last token of the prompt. (B, T) -> (B, N)"""
        ids, mask = align(input_ids, keep, side="left", pad_id=self.slot.pad_id)
        if self.trie.num_nodes > 1 and self.base.training and self._forbids_cache():
            return self._causal_without_cache(ids, mask)
        num_rows, next_position = ids.shape[0], mask.sum(1, keepdim=True)
        num_shared = self._num_shared(ids, mask)
        if num_shared:
            output, scores, mask = self._read_behind_prefix(ids, mask, num_shared)
        else:
            output, scores = self._run(
                _last(1),
                normalize=False,
                input_ids=ids,
                attention_mask=mask,
                position_ids=(mask.cumsum(1) - 1).clamp(min=0),
                use_cache=self.trie.num_nodes > 1,
            )
        node_scores = {0: scores[:, 0]}
        previous = [0]
        for level, nodes in enumerate(self.trie.levels()[1:]):
            # Each parent's cached states are copied to its children, then one token per node is read.
            parents = torch.tensor([previous.index(self.trie.parents[node]) for node in nodes], device=ids.device)
            rows = (torch.arange(num_rows, device=ids.device)[:, None] * len(previous) + parents).flatten()
            output.past_key_values.batch_select_indices(rows)
            mask = torch.cat([mask[rows], mask.new_ones(len(rows), 1)], dim=1)
            tokens = torch.tensor([self.trie.pieces[node] for node in nodes], device=ids.device).repeat(num_rows)
            output, scores = self._run(
                _last(1),
                normalize=True,
                input_ids=tokens[:, None],
                attention_mask=mask,
                position_ids=(next_position + level).repeat_interleave(len(nodes), dim=0),
                past_key_values=output.past_key_values,
                use_cache=True,
            )
            by_node = scores[:, 0].reshape(num_rows, len(nodes), -1)
            node_scores.update({node: by_node[:, place] for place, node in enumerate(nodes)})
            previous = nodes
        return self._words_from_nodes(node_scores)

    def _read_behind_prefix(self, ids: Tensor, mask: Tensor, num_shared: int) -> tuple[Any, Tensor, Tensor]:
        """Read the shared tokens once, then every row's own behind a copy of their states.

        Returns:
            the base's output, scores (B, 1, R) at the last token, and the mask that goes with the cached states.
        """
        num_rows, longest = ids.shape[0], int(mask.sum(1).max())
        is_own = mask.bool() & (mask.cumsum(1) > num_shared)
        own_ids, own_mask = align(ids, is_own, side="left", pad_id=self.slot.pad_id)
        own_ids, own_mask = own_ids[:, num_shared - longest :], own_mask[:, num_shared - longest :]
        prefix = ids[:1][mask[:1].bool()][None, :num_shared]
        cache = self._run(_last(1), normalize=False, input_ids=prefix, use_cache=True)[0].past_key_values
        cache.batch_repeat_interleave(num_rows)
        whole_mask = torch.cat([own_mask.new_ones(num_rows, num_shared), own_mask], dim=1)
        output, scores = self._run(
            _last(1),
            normalize=False,
            input_ids=own_ids,
            attention_mask=whole_mask,
            position_ids=num_shared + (own_mask.cumsum(1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
        )
        return output, scores, whole_mask

    def _num_shared(self, ids: Tensor, mask: Tensor) -> int:
        """Count the tokens that all rows begin with, or return 0 where sharing them is not exact or not worth it."""
        if not self.share_prefix or ids.shape[0] < 2 or not {"past_key_values", "position_ids"} <= self.accepted:
            return 0
        config = self.base.config.get_text_config()
        window = getattr(config, "sliding_window", None)
        # Padding between prefix and text would shift a sliding window; inside one window it does not matter.
        if window is not None and ids.shape[1] + self.max_extra_tokens > window:
            return 0
        if getattr(self.base, "_is_stateful", False):  # a recurrent state cannot be read behind padding
            return 0
        if self.base.training and (self._forbids_cache() or _has_dropout(self.base)):
            return 0
        from_start, _ = align(ids, mask.bool(), side="right", pad_id=self.slot.pad_id)
        num_equal = int((from_start == from_start[:1]).all(0).cumprod(0).sum())
        num_shared = min(num_equal, int(mask.sum(1).min()) - 1)  # every row keeps a token of its own to answer from
        return num_shared if num_shared >= _MIN_SHARED else 0

    def _forbids_cache(self) -> bool:
        """Tell whether gradients through cached states would be lost or fail.

        Split weights are gathered for the backward pass of a layer's output; the cache is no output of it.
        """
        return bool(self.base.is_activation_checkpointing) or _is_split(self.base)

    def _causal_without_cache(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Same scores by reading prompt and branch together, where no cache is allowed."""
        branches, branch_mask, nodes = self._branches(ids.device)
        num_rows, num_branches, length = ids.shape[0], *branches.shape
        ids = torch.cat([ids.repeat_interleave(num_branches, 0), branches.repeat(num_rows, 1)], dim=1)
        mask = torch.cat([mask.repeat_interleave(num_branches, 0), branch_mask.repeat(num_rows, 1)], dim=1)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        _, scores = self._run(
            _last(length + 1),
            normalize=True,
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            use_cache=False,
        )
        return self._words_from_branches(scores, num_rows, nodes)

    def seq2seq(self, input_ids: Tensor, keep: Tensor) -> Tensor:
        """Teacher forcing in the decoder; the encoder runs once. (B, T) -> (B, N)"""
        ids, mask = align(input_ids, keep, side="right", pad_id=self.slot.pad_id)
        encoder_outputs = self.base.get_encoder()(input_ids=ids, attention_mask=mask, return_dict=True)
        branches, branch_mask, nodes = self._branches(ids.device)
        num_rows, num_branches, length = ids.shape[0], *branches.shape
        prefix = torch.tensor(self.slot.decoder_prefix, device=ids.device).expand(num_branches, -1)
        decoder_ids = torch.cat([prefix, branches], dim=1).repeat(num_rows, 1)
        decoder_mask = torch.cat([torch.ones_like(prefix), branch_mask], dim=1).repeat(num_rows, 1)
        states = encoder_outputs.last_hidden_state.repeat_interleave(num_branches, 0)
        encoder_outputs = type(encoder_outputs)(last_hidden_state=states)
        _, scores = self._run(
            _last(length + 1),
            normalize=length > 0,
            attention_mask=mask.repeat_interleave(num_branches, 0),
            encoder_outputs=encoder_outputs,
            decoder_input_ids=decoder_ids,
            decoder_attention_mask=decoder_mask,
            use_cache=False,
        )
        return self._words_from_branches(scores, num_rows, nodes)

    def masked(self, input_ids: Tensor, keep: Tensor) -> Tensor:
        """Fill as many masks as the word has tokens, all at once. (B, T) -> (B, N)

        Raises:
            InputTextError: if a row does not hold the template's mask tokens.
        """
        mask_id = -1 if self.slot.mask_id is None else self.slot.mask_id
        is_mask = torch.eq(input_ids, mask_id) & keep
        if not bool((is_mask.sum(1) == self.slot.num_masks).all()):
            raise InputTextError(
                f"each row must hold exactly {self.slot.num_masks} mask tokens (id {self.slot.mask_id}), but rows hold "
                f"{sorted(set(is_mask.sum(1).tolist()))}; tokenise with the tokenizer saved with this classifier"
            )
        lengths = sorted({len(word) for word in self.slot.words})
        scores: list[Tensor | None] = [None] * len(self.slot.words)
        for length in lengths:
            surplus = is_mask & (is_mask.cumsum(1) > length)
            ids, mask = align(input_ids, keep & ~surplus, side="right", pad_id=self.slot.pad_id)
            places = torch.argsort(torch.ne(ids, mask_id).to(torch.int8), dim=1, stable=True)[:, :length]
            _, at_masks = self._run(
                _at(places), normalize=len(lengths) > 1, input_ids=ids, attention_mask=mask
            )  # (B, length, R)
            for number, word in enumerate(self.slot.words):
                if len(word) == length:
                    columns = torch.tensor([self.column[piece] for piece in word], device=ids.device)
                    scores[number] = at_masks.gather(2, columns.expand(ids.shape[0], -1)[..., None]).sum((1, 2))
        return torch.stack([score for score in scores if score is not None], dim=1)

    def _run(self, select: Callable[[Tensor], Tensor], *, normalize: bool, **inputs: Any) -> tuple[Any, Tensor]:
        """Run the base; return its output and the scores (B, K, R) of the pieces at the selected positions."""
        device = next(value.device for value in inputs.values() if isinstance(value, Tensor))
        inputs = {name: value for name, value in inputs.items() if name in self.accepted}
        with label_rows(self.base, torch.tensor(self.pieces, device=device), select, normalize) as tap:
            output = self.base(**inputs, return_dict=True)
        logits = output.logits.float()
        if tap.normalizer is None:
            return output, logits
        check_post_processing(self.base, tap, output.logits)
        return output, logits - tap.normalizer[..., None]

    def _branches(self, device: torch.device) -> tuple[Tensor, Tensor, list[list[int]]]:
        """Return all branches as ids (at least one row), their mask, and the trie nodes of each."""
        paths = self.trie.branches() or [([], [])]
        length = max(len(pieces) for _, pieces in paths)
        ids = torch.full((len(paths), length), self.slot.pad_id, device=device)
        mask = torch.zeros_like(ids)
        for row, (_, pieces) in enumerate(paths):
            ids[row, : len(pieces)] = torch.tensor(pieces, device=device)
            mask[row, : len(pieces)] = 1
        return ids, mask, [nodes for nodes, _ in paths]

    def _words_from_branches(self, scores: Tensor, num_rows: int, nodes_of_branch: list[list[int]]) -> Tensor:
        by_branch = scores.reshape(num_rows, len(nodes_of_branch), *scores.shape[1:])  # (B, branches, 1 + length, R)
        node_scores = {0: by_branch[:, 0, 0]}
        for branch, nodes in enumerate(nodes_of_branch):
            for place, node in enumerate(nodes, start=1):
                node_scores.setdefault(node, by_branch[:, branch, place])
        return self._words_from_nodes(node_scores)

    def _words_from_nodes(self, node_scores: dict[int, Tensor]) -> Tensor:
        """Add up each word's steps. {node: (B, R)} -> (B, N)"""
        words = [sum(node_scores[node][:, self.column[piece]] for node, piece in steps) for steps in self.trie.words]
        return torch.stack([torch.as_tensor(word) for word in words], dim=1)


SCORERS: dict[str, Callable[[WordScorer, Tensor, Tensor], Tensor]] = {
    "causal": WordScorer.causal,
    "masked": WordScorer.masked,
    "seq2seq": WordScorer.seq2seq,
}


def _is_split(model: nn.Module) -> bool:
    """Tell whether the weights are split over processes, by FSDP2 or DeepSpeed's ZeRO-3."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return False
    from torch.distributed.fsdp import FSDPModule

    return any(isinstance(module, FSDPModule) for module in model.modules()) or any(
        hasattr(parameter, "ds_id") for parameter in model.parameters()
    )


def _has_dropout(model: Any) -> bool:
    """Tell whether rows would draw their own dropout in training."""
    in_attention = getattr(model.config.get_text_config(), "attention_dropout", 0.0)
    return bool(in_attention) or any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules())


def _last(num_positions: int) -> Callable[[Tensor], Tensor]:
    return lambda states: states[:, -num_positions:]


def _at(places_BK: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda states: states.gather(1, places_BK[..., None].expand(-1, -1, states.shape[-1]))

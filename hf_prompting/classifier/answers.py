"""Scores of whole label words at the answer slot, one function for each kind of base model.

All return (B, N) log-probabilities of the N label words, up to a constant per row where that constant is the same for
every word (then the class probabilities do not depend on it and the whole vocabulary is never visited).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import logging

from hf_prompting.classifier.branches import Branches, can_share, shared_encoder_states
from hf_prompting.classifier.label_head import check_post_processing, label_rows
from hf_prompting.classifier.packing import Nodes, can_pack, pack_rows, packed_attention
from hf_prompting.classifier.padding import align
from hf_prompting.classifier.prefix import MIN_SHARED, SharedPrefix
from hf_prompting.errors import InputTextError
from hf_prompting.verbalizers import LabelTrie

logger = logging.get_logger(__name__)

Way = Callable[[Tensor, Tensor], Tensor]  # ids (B, T) and what is kept of them -> scores (B, N)


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
        pack: let a causal model read all rows in one line without padding. Scores and gradients stay the same; where
            they would not, it switches itself off.
        share_prefix: let it also read the tokens that all rows of a batch begin with (soft tokens, instruction,
            demonstrations) once, and keep their states between batches that need no gradient.
        share_encoder: let an encoder-decoder's branches of label words read the encoder's states of their row, instead
            of a copy for each; likewise exact, or off.
    """

    def __init__(
        self,
        base: Any,
        slot: AnswerSlot,
        *,
        pack: bool = True,
        share_prefix: bool = True,
        share_encoder: bool = True,
    ) -> None:
        self.pack = pack
        self.share_encoder = share_encoder
        self.prefix = SharedPrefix(enabled=share_prefix)
        self._is_exact: bool | None = None
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
        if self.base.training and self.base.is_activation_checkpointing:
            # Layers run again in the backward pass, where no layout is set and no cache is filled.
            return self._causal_without_cache(input_ids, keep)
        if self.reads_one_line(input_ids.device):
            return self._causal_packed(input_ids, keep, keep_prefix=not torch.is_grad_enabled())
        if self.base.training and self.trie.num_nodes > 1 and _is_split(self.base):
            # Split weights are gathered for the backward pass of a layer's output; the cache is no output of it.
            return self._causal_without_cache(input_ids, keep)
        return self._causal_by_levels(input_ids, keep)

    def _causal_packed(self, input_ids: Tensor, keep: Tensor, *, keep_prefix: bool) -> Tensor:
        """Read all rows and all nodes in one line: no padding, and the tokens that all rows begin with only once."""
        ids, mask = align(input_ids, keep, side="right", pad_id=self.slot.pad_id)
        lengths = mask.sum(1)
        ids, mask = ids[:, : lengths.max()], mask[:, : lengths.max()]
        num_shared, states = self.prefix.find(self.base, ids, lengths, keep=keep_prefix)
        rows = pack_rows(
            ids,
            mask.bool(),
            num_shared=num_shared,
            nodes=Nodes.of_trie(self.trie, ids.device).expand(ids.shape[0]),
        )
        line, positions, num_before = rows.ids_S, rows.positions_S, 0
        if states is None:
            num_before = num_shared
            line = torch.cat([rows.prefix_P, line])
            positions = torch.cat([torch.arange(num_shared, device=line.device), positions])
        with packed_attention(self.base, rows):
            _, scores = self.run(
                lambda hidden: hidden[0, num_before + rows.answers_BK],
                normalize=self.trie.num_nodes > 1,
                num_plain=1,
                input_ids=line[None],
                position_ids=positions[None],
                past_key_values=states,
                use_cache=states is not None,
            )
        return self._words_from_nodes(scores)

    def reads_one_line(self, device: torch.device) -> bool:
        """Tell whether a causal model reads its rows without padding."""
        return self.pack and self.packing_is_exact(device)

    def packing_is_exact(self, device: torch.device) -> bool:
        """Compare both ways on a few tokens, once: an architecture may mix neighbours outside of its attention."""
        if self._is_exact is None:
            packed = [partial(self._causal_packed, keep_prefix=kept) for kept in (False, True)]
            self._is_exact = self._can_pack() and self._agree(device, self._causal_by_levels, *packed)
        return self._is_exact

    def _can_pack(self) -> bool:
        named = {"past_key_values", "position_ids"} <= self.accepted
        return named and not getattr(self.base, "_is_stateful", False) and can_pack(self.base)

    @torch.no_grad()
    def _agree(self, device: torch.device, plain: Way, *others: Way) -> bool:
        """Tell whether other ways to read rows give the scores of the plain one."""
        length = MIN_SHARED + 4
        ids = (
            torch.arange(1, 3 * length + 1, device=device).reshape(3, length)
            % self.base.config.get_text_config().vocab_size
        )
        ids[:, :MIN_SHARED] = ids[0, :MIN_SHARED]
        keep = torch.arange(length, device=device) < torch.tensor([[length], [length - 1], [length - 3]], device=device)
        modes = {module: module.training for module in self.base.modules()}
        self.base.eval()
        try:
            expected, *found = [way(ids, keep) for way in (plain, *others)]
        except Exception as error:  # whatever an unknown architecture says to rows in another form
            logger.info(f"{type(self.base).__name__} is read in the plain way: {error}")
            return False
        finally:
            self.prefix.forget()
            for module, mode in modes.items():
                module.training = mode
        # Up to a constant per row; reduced precision is told apart from a wrong layout by the scale of the scores.
        expected = expected - expected.mean(1, keepdim=True)
        tolerance = max(1e-4, 64 * torch.finfo(self.base.dtype).eps) * max(1.0, float(expected.abs().max()))
        return all(
            bool(((scores - scores.mean(1, keepdim=True)) - expected).abs().max() <= tolerance) for scores in found
        )

    def _causal_by_levels(self, input_ids: Tensor, keep: Tensor) -> Tensor:
        """Read padded rows, then the tree level by level: each parent's states are copied to its children."""
        ids, mask = align(input_ids, keep, side="left", pad_id=self.slot.pad_id)
        num_rows, next_position = ids.shape[0], mask.sum(1, keepdim=True)
        output, scores = self.run(
            _last(1),
            normalize=False,
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            use_cache=self.trie.num_nodes > 1,
        )
        node_scores = [scores]
        previous = [0]
        for level, nodes in enumerate(self.trie.levels()[1:]):
            parents = torch.tensor([previous.index(self.trie.parents[node]) for node in nodes], device=ids.device)
            rows = (torch.arange(num_rows, device=ids.device)[:, None] * len(previous) + parents).flatten()
            output.past_key_values.batch_select_indices(rows)
            mask = torch.cat([mask[rows], mask.new_ones(len(rows), 1)], dim=1)
            tokens = torch.tensor([self.trie.pieces[node] for node in nodes], device=ids.device).repeat(num_rows)
            output, scores = self.run(
                _last(1),
                normalize=True,
                input_ids=tokens[:, None],
                attention_mask=mask,
                position_ids=(next_position + level).repeat_interleave(len(nodes), dim=0),
                past_key_values=output.past_key_values,
                use_cache=True,
            )
            node_scores.append(scores.reshape(num_rows, len(nodes), -1))
            previous = nodes
        return self._words_from_nodes(torch.cat(node_scores, dim=1))

    def _causal_without_cache(self, input_ids: Tensor, keep: Tensor) -> Tensor:
        """Read prompt and branch together, every branch with a copy of the prompt."""
        ids, mask = align(input_ids, keep, side="left", pad_id=self.slot.pad_id)
        branches = Branches.of_trie(self.trie, pad_id=self.slot.pad_id, device=ids.device)
        num_rows, num_branches = ids.shape[0], branches.ids_NL.shape[0]
        ids = torch.cat([ids.repeat_interleave(num_branches, 0), branches.ids_NL.repeat(num_rows, 1)], dim=1)
        mask = torch.cat([mask.repeat_interleave(num_branches, 0), branches.mask_NL.repeat(num_rows, 1)], dim=1)
        _, scores = self.run(
            branches.nodes,
            normalize=self.trie.num_nodes > 1,
            num_plain=1,
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            use_cache=False,
        )
        return self._words_from_nodes(scores)

    def seq2seq(self, input_ids: Tensor, keep: Tensor) -> Tensor:
        """Teacher forcing in the decoder; the encoder runs once. (B, T) -> (B, N)"""
        # Layers that run again in the backward pass would find the model's ordinary attention there.
        again = self.base.training and self.base.is_activation_checkpointing
        share = self.share_encoder and not again and len(self.trie.branches()) > 1
        share = share and self.sharing_is_exact(input_ids.device)
        return self._seq2seq(input_ids, keep, share=share)

    def _seq2seq(self, input_ids: Tensor, keep: Tensor, *, share: bool) -> Tensor:
        """Read every branch behind the decoder's prefix; ``share`` the encoder's states, or copy them."""
        ids, mask = align(input_ids, keep, side="right", pad_id=self.slot.pad_id)
        encoder_outputs = self.base.get_encoder()(input_ids=ids, attention_mask=mask, return_dict=True)
        branches = Branches.of_trie(self.trie, pad_id=self.slot.pad_id, device=ids.device)
        num_rows, num_branches = ids.shape[0], branches.ids_NL.shape[0]
        prefix = torch.tensor(self.slot.decoder_prefix, device=ids.device).expand(num_branches, -1)
        decoder_ids = torch.cat([prefix, branches.ids_NL], dim=1).repeat(num_rows, 1)
        states = encoder_outputs.last_hidden_state
        if not share:
            states, mask = states.repeat_interleave(num_branches, 0), mask.repeat_interleave(num_branches, 0)
        with shared_encoder_states(self.base, mask) if share else nullcontext():
            _, scores = self.run(
                branches.nodes,
                normalize=self.trie.num_nodes > 1,
                num_plain=1,
                attention_mask=mask,
                encoder_outputs=type(encoder_outputs)(last_hidden_state=states),
                decoder_input_ids=decoder_ids,
                use_cache=False,
            )
        return self._words_from_nodes(scores)

    def sharing_is_exact(self, device: torch.device) -> bool:
        """Compare both ways on a few tokens, once: an architecture may have a cross-attention of its own."""
        if self._is_exact is None:
            ways = [partial(self._seq2seq, share=share) for share in (False, True)]
            self._is_exact = can_share(self.base) and self._agree(device, *ways)
        return self._is_exact

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
            _, at_masks = self.run(
                _at(places), normalize=len(lengths) > 1, input_ids=ids, attention_mask=mask
            )  # (B, length, R)
            for number, word in enumerate(self.slot.words):
                if len(word) == length:
                    columns = torch.tensor([self.column[piece] for piece in word], device=ids.device)
                    scores[number] = at_masks.gather(2, columns.expand(ids.shape[0], -1)[..., None]).sum((1, 2))
        return torch.stack([score for score in scores if score is not None], dim=1)

    def run(
        self,
        select: Callable[[Tensor], Tensor],
        *,
        normalize: bool,
        num_plain: int = 0,
        pieces: Sequence[int] | None = None,
        **inputs: Any,
    ) -> tuple[Any, Tensor]:
        """Run the base; return its output and the scores (B, K, R) of the pieces at the selected positions.

        Args:
            select: (B, T, H) hidden states -> (B, K, H) of the answer positions.
            normalize: give log-probabilities instead of logits.
            num_plain: first positions that keep their logits even then.
            pieces: R token ids; by default those of this scorer's words.
            **inputs: for the base; what it does not accept is left out.
        """
        device = next(value.device for value in inputs.values() if isinstance(value, Tensor))
        inputs = {name: value for name, value in inputs.items() if name in self.accepted}
        with label_rows(
            self.base, torch.tensor(pieces or self.pieces, device=device), select, normalize, num_plain
        ) as tap:
            output = self.base(**inputs, return_dict=True)
        logits = output.logits.float()
        if tap.normalizer is None:
            return output, logits
        check_post_processing(self.base, tap, output.logits)
        return output, logits - tap.normalizer[..., None]

    def _words_from_nodes(self, scores_BKR: Tensor) -> Tensor:
        nodes_NL, pieces_NL = self.trie.steps()
        columns_NL = [[self.column.get(piece, -1) for piece in pieces] for pieces in pieces_NL]
        device = scores_BKR.device
        return add_steps(scores_BKR, torch.tensor([nodes_NL], device=device), torch.tensor([columns_NL], device=device))


def add_steps(scores_BKR: Tensor, nodes_BNL: Tensor, columns_BNL: Tensor) -> Tensor:
    """Add up the steps of each word. -> (B, N)

    Args:
        scores_BKR: scores of R pieces at K nodes.
        nodes_BNL: node of each step, for every row or (with B = 1) for all.
        columns_BNL: column of its piece; -1 where a word has no more steps.
    Example:
        >>> add_steps(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[[0, 1]]]), torch.tensor([[[1, 0]]]))
        tensor([[5.]])
    """
    rows_B11 = torch.arange(scores_BKR.shape[0], device=scores_BKR.device)[:, None, None]
    return (scores_BKR[rows_B11, nodes_BNL, columns_BNL.clamp(min=0)] * (columns_BNL >= 0)).sum(-1)


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


def _last(num_positions: int) -> Callable[[Tensor], Tensor]:
    return lambda states: states[:, -num_positions:]


def _at(places_BK: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda states: states.gather(1, places_BK[..., None].expand(-1, -1, states.shape[-1]))

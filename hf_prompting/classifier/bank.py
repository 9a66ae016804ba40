"""Thousands of tuned prompts over one base model, and batches whose rows belong to different ones."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_prompting.bases import BaseModelSource, fingerprint_base, load_base_model, load_base_tokenizer
from hf_prompting.classifier.answers import AnswerSlot, WordScorer, add_steps
from hf_prompting.classifier.configuration_prompt import PromptClassifierConfig
from hf_prompting.classifier.label_head import one_at_a_time
from hf_prompting.classifier.modeling_prompt import check_base, read_state, verify_saved
from hf_prompting.classifier.packing import Nodes, pack_rows, packed_attention
from hf_prompting.classifier.prefix import MIN_SHARED, num_equal
from hf_prompting.cpu_products import fast_products
from hf_prompting.errors import (
    ArtifactError,
    BaseModelError,
    SoftPromptError,
    TaskError,
    TemplateLengthError,
    did_you_mean,
)
from hf_prompting.soft_prompts.layer import SoftTokenEmbedding
from hf_prompting.templates import CompiledTemplate, PromptTemplate, SlotKind, compile_template
from hf_prompting.verbalizers import LabelTrie
from hf_prompting.verbalizers.scoring import AGGREGATIONS, pad_words

_UNLIMITED = 10**9  # tokenizers without a limit of their own say 10**30
_ANY_WORDS = ((0,), (1, 2))  # for the one comparison of packed and padded rows; scores of tasks use words of their own


@dataclass(frozen=True, kw_only=True)
class _Task:
    """One tuned prompt: its rows are mapped from its file; of its configuration only what scoring needs is kept."""

    labels: tuple[str, ...]
    aggregation: str
    compiled: CompiledTemplate
    first_id: int
    soft_rows: Tensor | None
    word_weights: Tensor | None
    words: tuple[int, ...]
    nodes: Nodes
    nodes_NL: Tensor
    pieces_NL: Tensor

    @property
    def num_soft(self) -> int:
        return len(self.compiled.soft_token_ids)


class PromptBank:
    """Hold many tuned prompts over one causal base, and classify rows of any of them together.

    Each prompt keeps soft-token ids of its own, so a batch may mix tasks, templates and label sets; every row gets the
    scores that it would get from its own classifier. Soft tokens stay in their files (memory-mapped) until used.

    Args:
        base: the base model with its language-model head, as it was loaded: without a soft prompt.
        tokenizer: its own tokenizer, without a template.
        share_prefix: read the tokens that all rows of a batch begin with once.
    Raises:
        BaseModelError: if the base is no causal model, or its attention cannot read several rows in one line.
    Example:
        >>> bank = PromptBank.from_base("HuggingFaceTB/SmolLM2-135M-Instruct")  # doctest: +SKIP
        >>> bank.add("movies", "outputs/movie-reviews-soft-prompt")  # doctest: +SKIP
        >>> bank.classify([("movies", {"text": "great fun"})])  # doctest: +SKIP
        [{'label': 'positive', 'scores': {'negative': 0.11, 'positive': 0.89}}]
    """

    def __init__(self, base: Any, tokenizer: Any, *, share_prefix: bool = True) -> None:
        if any(isinstance(module, SoftTokenEmbedding) for module in base.modules()):
            raise SoftPromptError("this base carries a soft prompt; give the bank a base as it was loaded")
        pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        self.base = base.eval()
        self.tokenizer = tokenizer
        self.share_prefix = share_prefix
        self.scorer = WordScorer(base, AnswerSlot(_ANY_WORDS, pad_id or 0), share_prefix=False)
        if base.config.is_encoder_decoder or not self.scorer.packing_is_exact(base.device):
            raise BaseModelError(
                f"{type(base).__name__} cannot read rows of several tasks in one line; a bank needs a causal model "
                'with the attention of transformers: load it with attn_implementation="sdpa"'
            )
        self._fingerprint = fingerprint_base(base)
        self._embedding = base.get_input_embeddings()
        self._scale: Tensor | None = cast(Any, SoftTokenEmbedding(self._embedding, nn.ModuleDict()))._get_embed_scale()
        self._compiled: dict[str, CompiledTemplate] = {}
        self._tasks: dict[str, _Task] = {}
        self._next_id = max(len(tokenizer), self._embedding.weight.shape[0])

    @classmethod
    def from_base(cls, base: str | Path | BaseModelSource, *, share_prefix: bool = True, **kwargs: Any) -> PromptBank:
        """Load a base model and its tokenizer; ``kwargs`` go to its ``from_pretrained`` (``dtype``, ``device_map``)."""
        source = str(base) if isinstance(base, Path) else base
        return cls(load_base_model(source, **kwargs), load_base_tokenizer(source), share_prefix=share_prefix)

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, name: object) -> bool:
        return name in self._tasks

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def add(self, name: str, folder: str | Path) -> None:
        """Add a tuned prompt; other threads may go on classifying rows of the others.

        Args:
            name: of the task, not taken yet.
            folder: what ``save_pretrained`` or ``hf-prompting run`` wrote.
        Raises:
            TaskError: the name is taken.
            BaseModelMismatchError: the prompt was tuned on another base.
            ArtifactError: the folder is damaged, or holds a trained base of its own.
        """
        if name in self._tasks:
            raise TaskError(f"the bank already holds a task {name!r}; drop it first, or choose another name")
        verify_saved(str(folder), {})
        config = PromptClassifierConfig.from_pretrained(str(folder))
        config.check_complete()
        check_base(config, self.base, self._fingerprint)
        if config.trainable_base:
            raise ArtifactError(f"{folder} holds a whole trained model, not only a prompt; load it on its own")
        state = read_state(str(folder), {}) if config.has_weights else {}
        compiled = self._compile(str(config.template))
        num_soft, soft_rows = len(compiled.soft_token_ids), state.get("soft_prompt.rows")
        shape = (num_soft, self._embedding.weight.shape[1])
        if list(compiled.soft_token_ids) != list((config.soft_prompt or {}).get("token_ids", ())) or (
            num_soft and (soft_rows is None or tuple(soft_rows.shape) != shape)
        ):
            raise ArtifactError(
                f"{folder} does not fit the base's tokenizer: its template {config.template!r} needs soft tokens of "
                f"shape {shape}; save the classifier again"
            )
        words = [tuple(pieces) for of_class in config.label_word_ids or () for pieces in of_class]
        trie = LabelTrie.build(words)
        nodes_NL, pieces_NL = trie.steps()
        self._tasks[name] = _Task(
            labels=tuple(config.id2label[number] for number in range(config.num_labels)),
            aggregation=config.aggregation,
            compiled=compiled,
            first_id=self._next_id,
            soft_rows=soft_rows,
            word_weights=state.get("word_weights"),
            words=tuple(len(of_class) for of_class in config.label_word_ids or ()),
            nodes=Nodes.of_trie(trie, self.base.device),
            nodes_NL=torch.tensor(nodes_NL),
            pieces_NL=torch.tensor(pieces_NL),
        )
        self._next_id += num_soft

    def drop(self, name: str) -> None:
        """Forget a tuned prompt; its file is left alone.

        Raises:
            TaskError: there is no such task.
        """
        self._task(name)
        del self._tasks[name]

    def classify(
        self, rows: Iterable[tuple[str, Mapping[str, object]]], *, batch_size: int = 64
    ) -> list[dict[str, Any]]:
        """Classify rows of any tasks.

        Args:
            rows: (name of the task, column -> value).
            batch_size: B rows at a time.
        Returns:
            ``{"label": ..., "scores": {label: probability}}`` for each row, in order.
        Raises:
            TaskError: a row names a task that is not there.
            FieldError, InputTextError, TemplateLengthError: a row does not fit its task's template.
        """
        remaining = iter(rows)
        found: list[dict[str, Any]] = []
        while batch := list(itertools.islice(remaining, batch_size)):
            tasks = [self._task(name) for name, _ in batch]
            logits = self.class_scores(tasks, self._encode(tasks, [values for _, values in batch]))
            for task, scores_C in zip(tasks, logits, strict=True):
                probabilities = scores_C.float().softmax(-1).tolist()
                scores = {label: round(p, 6) for label, p in zip(task.labels, probabilities, strict=True)}
                found.append({"label": max(scores, key=scores.__getitem__), "scores": scores})
        return found

    @torch.no_grad()
    def class_scores(self, tasks: Sequence[_Task], ids: Sequence[Sequence[int]]) -> list[Tensor]:
        """Class scores (C,) of each row, C being that of its task."""
        device = self.base.device
        ids_BT = nn.utils.rnn.pad_sequence(
            [torch.tensor(row) for row in ids], batch_first=True, padding_value=self.scorer.slot.pad_id
        ).to(device)
        lengths_B = torch.tensor([len(row) for row in ids], device=device)
        is_token_BT = torch.arange(ids_BT.shape[1], device=device) < lengths_B[:, None]
        shared = min(num_equal(ids_BT, ids_BT[0]), int(lengths_B.min()) - 1)
        num_shared = shared if self.share_prefix and len(tasks) > 1 and shared >= MIN_SHARED else 0
        nodes = Nodes.of_rows([task.nodes for task in tasks])
        packed = pack_rows(ids_BT, is_token_BT, num_shared=num_shared, nodes=nodes)
        line = torch.cat([packed.prefix_P, packed.ids_S])
        positions = torch.cat([torch.arange(num_shared, device=device), packed.positions_S])
        pieces = sorted({piece for task in tasks for piece in task.pieces_NL.flatten().tolist()} - {-1})
        with one_at_a_time, fast_products(), packed_attention(self.base, packed):
            _, scores_BKR = self.scorer.run(
                lambda hidden: hidden[0, num_shared + packed.answers_BK.clamp(min=0)],
                normalize=nodes.pieces_BM.shape[1] > 0,
                num_plain=1,
                pieces=pieces,
                inputs_embeds=self._embed(line, tasks)[None],
                position_ids=positions[None],
                use_cache=False,
            )
        return self._by_task(tasks, scores_BKR, torch.tensor(pieces))

    def _by_task(self, tasks: Sequence[_Task], scores_BKR: Tensor, pieces_R: Tensor) -> list[Tensor]:
        rows_of: dict[int, list[int]] = defaultdict(list)
        for row, task in enumerate(tasks):
            rows_of[id(task)].append(row)
        results: list[Tensor] = [scores_BKR] * len(tasks)
        for rows in rows_of.values():
            task = tasks[rows[0]]
            columns_NL = torch.searchsorted(pieces_R, task.pieces_NL).masked_fill(task.pieces_NL < 0, -1)
            device = scores_BKR.device
            words_BN = add_steps(scores_BKR[rows], task.nodes_NL[None].to(device), columns_NL[None].to(device))
            scores_BCW, is_word_CW = pad_words(words_BN, task.words)
            weights_CW = None if task.word_weights is None else task.word_weights.to(device)
            scores_BC = AGGREGATIONS[task.aggregation](scores_BCW, is_word_CW, weights_CW)
            for row, scores_C in zip(rows, scores_BC, strict=True):
                results[row] = scores_C
        return results

    def _embed(self, line: Tensor, tasks: Sequence[_Task]) -> Tensor:
        """Look ordinary ids up in the base, soft ids in the rows of the tasks at hand. (S,) -> (S, H)"""
        used = {task.first_id: task for task in tasks if task.soft_rows is not None}
        weight = self._embedding.weight
        is_soft = line >= max(len(self.tokenizer), weight.shape[0])
        embedded: Tensor = self._embedding(line.masked_fill(is_soft, 0))
        if not used:
            return embedded
        tables = [used[first].soft_rows for first in sorted(used)]
        rows = torch.cat([table.to(embedded) for table in tables if table is not None])
        ids = torch.cat(
            [torch.arange(first, first + len(used[first].compiled.soft_token_ids)) for first in sorted(used)]
        )
        soft = F.embedding(torch.searchsorted(ids.to(line.device), line[is_soft]), rows)
        embedded[is_soft] = soft if self._scale is None else soft * self._scale.to(soft)
        return embedded

    def _encode(self, tasks: Sequence[_Task], rows: Sequence[Mapping[str, object]]) -> list[list[int]]:
        """Tokenise all rows of a template at once, and put each task's own soft ids in."""
        places_of: dict[int, list[int]] = defaultdict(list)
        for place, task in enumerate(tasks):
            places_of[id(task.compiled)].append(place)
        ids: list[list[int]] = [[]] * len(tasks)
        for places in places_of.values():
            compiled = tasks[places[0]].compiled
            tokenizer = compiled.tokenizer
            limit = tokenizer.model_max_length if tokenizer.model_max_length < _UNLIMITED else None
            texts = [compiled.template.render(rows[p], tokenizer=tokenizer, max_length=limit) for p in places]
            columns = {key: [text[key] for text in texts] for key in texts[0]}
            encoded = tokenizer(**columns, truncation=limit is not None, max_length=limit)["input_ids"]
            for place, row in zip(places, encoded, strict=True):
                own = {old: tasks[place].first_id + i for i, old in enumerate(compiled.soft_token_ids)}
                ids[place] = [own.get(token, token) for token in row]
        longest = max(map(len, ids)) + max(task.nodes_NL.shape[1] for task in tasks) - 1
        most = getattr(self.base.config.get_text_config(), "max_position_embeddings", None)
        if most is not None and longest > most:
            raise TemplateLengthError(
                f"prompts of {longest} tokens are longer than the {most} that the base reads; shorten the texts"
            )
        return ids

    def _compile(self, template: str) -> CompiledTemplate:
        if template not in self._compiled:
            self._compiled[template] = compile_template(
                PromptTemplate.parse(template), self.tokenizer, slot=SlotKind.CAUSAL
            )
        return self._compiled[template]

    def _task(self, name: str) -> _Task:
        try:
            return self._tasks[name]
        except KeyError:
            raise TaskError(
                f"the bank of {len(self)} tasks holds no {name!r}; add it first.{did_you_mean(name, self._tasks)}"
            ) from None

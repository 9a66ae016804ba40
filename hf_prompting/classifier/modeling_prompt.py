"""A tuned prompt over a base model, as an ordinary sequence classifier of transformers."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from httpx2 import HTTPError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import cached_file, logging

from hf_prompting.bases import (
    BaseFingerprint,
    BaseModelSource,
    compare_bases,
    find_folder,
    fingerprint_base,
    hub_problem,
    load_base_model,
)
from hf_prompting.checksums import SealsWhatItSaves, verify_pretrained
from hf_prompting.classifier.answers import SCORERS, AnswerSlot, WordScorer
from hf_prompting.classifier.assembly import assemble
from hf_prompting.classifier.configuration_prompt import PromptClassifierConfig
from hf_prompting.classifier.label_head import one_at_a_time
from hf_prompting.classifier.remote_code import write_remote_code
from hf_prompting.cpu_products import fast_products
from hf_prompting.errors import (
    ArtifactError,
    BaseModelError,
    BaseModelMismatchError,
    HubError,
    InputTextError,
    LabelWordError,
    SoftPromptError,
    TemplateLengthError,
)
from hf_prompting.soft_prompts.layer import (
    SoftTokenEmbedding,
    SoftTokenTable,
    unwrap_input_embeddings,
    wrap_input_embeddings,
)
from hf_prompting.verbalizers.scoring import AGGREGATIONS, pad_words

logger = logging.get_logger(__name__)

TAGS = ("hf_prompting", "soft-prompt", "prompt-tuning")  # by which the Hub's visitors find prompts
_ACTIVE = "default"
_CONFIG_NAME = "config.json"
_WEIGHTS_NAME = "model.safetensors"
# Arguments that say where this folder's own files are; every other one goes to the base model.
_HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
_SHARED_HUB_ARGUMENTS = ("cache_dir", "local_files_only", "token")


class PromptForSequenceClassification(SealsWhatItSaves, PreTrainedModel):  # type: ignore[misc]
    """Template, soft prompt and verbalizer over a frozen base model.

    Make one with ``from_base``, load one with ``from_pretrained``, ``AutoModelForSequenceClassification`` or
    ``pipeline("text-classification")``. ``save_pretrained`` writes only what was trained: some kilobytes.

    Args:
        config: see ``PromptClassifierConfig``.
        base: the base model, with its language-model head. Its input embeddings are wrapped in place;
            ``release_base`` undoes that.
        soft_prompt: the table of soft tokens; None for a template without soft tokens.

    Raises:
        SoftPromptError: if the base already carries a soft prompt, or the table does not fit it.
        ArtifactError: if the configuration is incomplete.
    """

    config_class = PromptClassifierConfig
    settings_file = _CONFIG_NAME
    sealed_files = (_WEIGHTS_NAME,)
    base_model_prefix = "base"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = True

    def __init__(self, config: PromptClassifierConfig, base: Any, soft_prompt: SoftTokenTable | None = None) -> None:
        super().__init__(config)
        config.check_complete()
        if any(isinstance(module, SoftTokenEmbedding) for module in base.modules()):
            raise SoftPromptError(
                "this base model already carries a soft prompt; call release_base() on the classifier that holds it"
            )
        width = base.get_input_embeddings().weight.shape[1]
        if soft_prompt is not None and soft_prompt.rows.shape[1] != width:
            raise SoftPromptError(f"soft prompt of width {soft_prompt.rows.shape[1]} over a base of width {width}")
        self.base = base
        base.requires_grad_(config.trainable_base)
        base_keys = [f"base.{name}" for name in base.state_dict()]
        self.soft_prompt = soft_prompt
        if soft_prompt is not None:
            wrap_input_embeddings(base, nn.ModuleDict({_ACTIVE: soft_prompt}))
            base_keys = [f"base.{name}" for name in base.state_dict()]
        self.word_counts = tuple(len(words) for words in config.label_word_ids or ())
        weights_CW = torch.zeros(len(self.word_counts), max(self.word_counts))
        self.word_weights = nn.Parameter(weights_CW) if config.aggregation == "weighted" else None
        self.scorer = WordScorer(base, _answer_slot(config))
        self.max_tokens = _max_tokens(base.config)
        self._tied_weights_keys = _ties(self)  # by the names that wrapping gave; save_pretrained writes one of each
        self.post_init()
        self.add_model_tags(list(TAGS))
        if not config.trainable_base:
            self._keys_to_ignore_on_save = set(base_keys)

    def init_weights(self) -> None:
        """Do nothing: every weight has its value when the model is built."""

    def tie_weights(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the base comes tied, and its weights are only ever changed in place."""

    def get_output_embeddings(self) -> Any:
        """Return the base's output head, so that FSDP2 keeps a tied head and embedding together."""
        return self.base.get_output_embeddings()

    @property
    def reads_padding(self) -> bool:
        """Whether the padding of a batch costs time; a causal base mostly reads its rows in one line, without any."""
        return self.config.base_task != "causal" or not self.scorer.reads_one_line(self.device)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None, **kwargs: Any
    ) -> SequenceClassifierOutput:
        """Score the classes.

        ``torch.compile`` leaves this function alone; layers of the base that were compiled themselves run compiled.

        Args:
            input_ids: (B, T) ids made by this classifier's tokenizer, padded on either side.
            attention_mask: (B, T), 0 for padding.
            labels: (B,) class numbers; -100 is left out of the loss.
            **kwargs: ``num_items_in_batch`` divides the summed loss (gradient accumulation); others are ignored.
        Returns:
            ``logits`` (B, C), whose softmax is the class probabilities, and ``loss`` where labels are given.
        Raises:
            TemplateLengthError: if the prompts are longer than the base model can read.
            InputTextError: if a row lacks the soft tokens, or the answer slot of a masked model.
        """
        longest = input_ids.shape[1] + (self.scorer.max_extra_tokens if self.config.base_task == "causal" else 0)
        if longest > self.max_tokens:
            raise TemplateLengthError(
                f"prompts of {longest} tokens are longer than the {int(self.max_tokens)} that the base model reads; "
                "tokenise with truncation=True and a smaller max_length"
            )
        self._check_soft_tokens(input_ids)
        keep = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        # Layers that run again in the backward pass would not find the same products there.
        again = self.base.training and self.base.is_activation_checkpointing
        with one_at_a_time, fast_products(enabled=not again):
            word_scores_BN = SCORERS[self.config.base_task](self.scorer, input_ids, keep)
        scores_BCW, is_word_CW = pad_words(word_scores_BN, self.word_counts)
        logits = AGGREGATIONS[self.config.aggregation](scores_BCW, is_word_CW, self.word_weights)
        loss = None if labels is None else self.mean_loss(logits, labels, kwargs.get("num_items_in_batch"))
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def _check_soft_tokens(self, input_ids: Tensor) -> None:
        """Refuse prompts of another tokenizer, such as the base's own, instead of scoring them without a template."""
        if self.soft_prompt is None:
            return
        first = self.config.soft_prompt["token_ids"][0]
        if not bool(torch.eq(input_ids, first).any(1).all()):
            raise InputTextError(
                f"each row must hold the template's soft tokens, but some lack the first one (id {first}); tokenise "
                "with the tokenizer saved with this classifier"
            )

    def mean_loss(self, logits: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """Sum of the rows' weighted cross-entropies over the number of rows, so that accumulation adds up exactly.

        Args:
            logits: (B, C) class scores.
            labels: (B,) class numbers; -100 is left out.
            num_items_in_batch: rows to divide by instead of those of this batch.
        """
        weights = self.config.class_weights
        weights = None if weights is None else torch.tensor(weights, device=logits.device)
        smoothing = self.config.label_smoothing
        try:
            total = F.cross_entropy(logits, labels, weights, label_smoothing=smoothing, reduction="sum")
        except IndexError as error:  # on a GPU the device itself reports it
            raise LabelWordError(
                f"labels hold class numbers {sorted(set(labels.tolist()))}; allowed: 0 to {logits.shape[1] - 1}, the "
                f"order of {list(self.config.label2id)}, or -100 to leave a row out"
            ) from error
        num_rows = (labels != -100).sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch
        return total / (num_rows.to(total.device) if isinstance(num_rows, Tensor) else num_rows)

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """Save what was trained; after ``register_for_auto_class``, with the code that loads it elsewhere.

        Raises:
            HubError: for ``push_to_hub=True`` together with code, which would be sent before it is complete.
        """
        if self._auto_class is not None and kwargs.get("push_to_hub"):
            raise HubError("code is written behind the weights: call model.push_to_hub(repo_id) instead")
        super().save_pretrained(save_directory, *args, **kwargs)
        if self._auto_class is not None:
            write_remote_code(save_directory)

    def release_base(self) -> Any:
        """Return the base model with its embeddings unwrapped; this classifier can no longer be used."""
        unwrap_input_embeddings(self.base)
        return self.base

    def drop_reparameterization(self) -> None:
        """Keep only the plain soft-token rows, so that ``save_pretrained`` writes nothing else."""
        if self.soft_prompt is not None:
            self.soft_prompt.drop_reparameterization()
            self.config.soft_prompt = {**self.config.soft_prompt, "reparameterization": None}

    @classmethod
    def from_base(
        cls, base: str | Path | BaseModelSource | PreTrainedModel, **kwargs: Any
    ) -> tuple[PromptForSequenceClassification, Any]:
        """Lay a template, a verbalizer and a soft prompt over a base model, ready for ``Trainer``.

        Args:
            base: Hub id, folder, ``BaseModelSource``, or a loaded model with its language-model head (wrapped in
                place).
            template: ``PromptTemplate`` or its source.
            verbalizer: ``Verbalizer``, the labels and label words, or a plain mapping of them.
            soft_prompt: ``SoftPromptConfig``, how the template's soft tokens start and are trained.
            tokenizer: the base's tokenizer; needed where ``base`` is a loaded model without a name.
            task: "causal", "masked" or "seq2seq"; found from the base where None.
            class_weights: weight of each class in the loss, in the verbalizer's order.
            label_smoothing: share of the target spread over all classes.
            trainable_base: train and save the base's own weights too.
            **kwargs: for the base model's ``from_pretrained`` (``dtype``, ``device_map``, ``revision``, ...).
        Returns:
            (classifier, tokenizer with the template in it).
        Raises:
            TemplateError, LabelWordError, SoftPromptError, BaseModelError: if the parts do not fit each other.
        Example:
            >>> model, tokenizer = PromptForSequenceClassification.from_base(  # doctest: +SKIP
            ...     "HuggingFaceTB/SmolLM2-135M-Instruct",
            ...     template="{soft:20}Review: {text}\\nThe movie was{mask}",
            ...     verbalizer=Verbalizer({"negative": "terrible", "positive": "great"}),
            ... )
        """
        parts = assemble(base, **kwargs)
        return cls(parts.config, parts.base, parts.soft_prompt), parts.tokenizer

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        config: PromptClassifierConfig | None = None,
        base_model: str | Path | BaseModelSource | PreTrainedModel | None = None,
        **kwargs: Any,
    ) -> Any:
        """Load a tuned prompt and the base model it was tuned on.

        Args:
            pretrained_model_name_or_path: folder or Hub id of the tuned prompt.
            config: configuration already at hand (Auto classes pass it).
            base_model: the base to use instead of the recorded one: an id, a folder, or a loaded model (which is
                wrapped in place).
            **kwargs: ``cache_dir``, ``token``, ``local_files_only``, ``revision``, ``subfolder``, ``force_download``
                for this folder; ``output_loading_info``; anything else (``dtype``, ``device_map``,
                ``quantization_config``, ``attn_implementation``, ...) for the base model's ``from_pretrained``.
        Returns:
            The classifier in evaluation mode; with ``output_loading_info=True`` a tuple with an (empty) report.
        Raises:
            ArtifactError: if the folder is unreadable, incomplete, not as it was saved, or of a newer version.
            BaseModelMismatchError: if the base found is another model; a near copy (4-bit weights) only warns.
            BaseModelError: if no base is found.
        Example:
            >>> PromptForSequenceClassification.from_pretrained("out", dtype="bfloat16")  # doctest: +SKIP
        """
        hub = {name: kwargs.pop(name) for name in _HUB_ARGUMENTS if name in kwargs}
        wants_info = kwargs.pop("output_loading_info", False)
        for name in (
            "_from_auto",
            "_commit_hash",
            "adapter_kwargs",
            "use_safetensors",
            "weights_only",
            "code_revision",
        ):
            kwargs.pop(name, None)
        folder = str(pretrained_model_name_or_path)
        verify_saved(folder, hub)
        if config is None:
            config = cls.config_class.from_pretrained(folder, **hub)
        config.check_complete()
        state = read_state(folder, hub) if config.has_weights else {}
        if base_model is None:
            base_model = _recorded_base(config, folder)
        if not isinstance(base_model, PreTrainedModel):
            shared = {name: hub[name] for name in _SHARED_HUB_ARGUMENTS if name in hub}
            source = str(base_model) if isinstance(base_model, Path) else base_model
            base_model = load_base_model(source, task=config.base_task, **shared, **kwargs)
        check_base(config, base_model)
        model = cls(config, base_model, _empty_table(config, state, base_model))
        _load_state(model, state, folder)
        model.name_or_path = folder
        model.eval()
        info: dict[str, Any] = {
            "missing_keys": set(),
            "unexpected_keys": set(),
            "mismatched_keys": set(),
            "error_msgs": [],
        }
        return (model, info) if wants_info else model


def _answer_slot(config: PromptClassifierConfig) -> AnswerSlot:
    return AnswerSlot(
        words=tuple(tuple(pieces) for words in config.label_word_ids or () for pieces in words),
        pad_id=config.pad_token_id,
        mask_id=config.mask_token_id,
        num_masks=config.num_masks,
        decoder_prefix=tuple(config.decoder_prefix_ids or ()),
    )


def _max_tokens(base_config: Any) -> float:
    """Return how many tokens the base can read; infinity for relative positions (T5)."""
    limit = getattr(base_config.get_text_config(), "max_position_embeddings", None)
    if limit is None:
        return math.inf
    reserved = base_config.model_type in ("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl")
    return float(limit - (base_config.pad_token_id + 1 if reserved else 0))


def _recorded_base(config: PromptClassifierConfig, folder: str) -> BaseModelSource:
    """Return where the base that a configuration names is to be loaded from."""
    name = config.base_model_name_or_path or ""
    if not config.base_model_is_folder:
        return BaseModelSource(name, revision=config.base_model_revision)
    saved = config.base_model_fingerprint
    found = find_folder(name, BaseFingerprint.from_dict(saved) if saved else None, beside=Path(folder))
    if found is None:  # never asked of the Hub: a folder's name is nobody's id there
        raise BaseModelError(
            f"the prompt in {folder!r} was tuned on a base model in a folder named {name!r}, which is known neither to "
            "this machine nor beside the prompt; give its folder or Hub id with base_model=... (--base-model)"
        )
    return BaseModelSource(name, path=str(found))


def check_base(config: PromptClassifierConfig, base: Any, found: BaseFingerprint | None = None) -> None:
    """Make sure that a prompt was tuned on this base; warn where it was a near copy.

    Args:
        config: of the tuned prompt.
        base: the model at hand.
        found: its fingerprint, where that is known already.
    Raises:
        BaseModelMismatchError: it is another model.
    """
    rows, width = base.get_input_embeddings().weight.shape
    if (rows, width) != (config.vocab_size, config.hidden_size):
        raise BaseModelMismatchError(
            f"the prompt was tuned on a base with {config.vocab_size} x {config.hidden_size} embeddings "
            f"({config.base_model_name_or_path!r}), but {base.name_or_path!r} has {rows} x {width}; "
            "load the right one with base_model=..."
        )
    if config.base_model_fingerprint is None:
        return
    verdict = compare_bases(BaseFingerprint.from_dict(config.base_model_fingerprint), found or fingerprint_base(base))
    if verdict == "other":
        raise BaseModelMismatchError(
            f"{base.name_or_path!r} is not the model that this prompt was tuned on "
            f"({config.base_model_name_or_path!r}); load the right one with base_model=..."
        )
    if verdict == "variant":
        logger.warning(
            f"{base.name_or_path!r} holds other weights than the copy of {config.base_model_name_or_path!r} that this "
            "prompt was tuned on (another precision or quantisation?): expect slightly different scores"
        )


def verify_saved(folder: str, hub: dict[str, Any]) -> None:
    """Make sure that a saved classifier's files are as they were saved.

    Raises:
        ArtifactError: one is not.
        HubError: the Hub cannot be read.
    """
    try:
        verify_pretrained(folder, _CONFIG_NAME, hub)
    except (OSError, HTTPError) as error:
        if problem := hub_problem(folder, error):
            raise HubError(problem) from error
        raise


def read_state(folder: str, hub: dict[str, Any]) -> dict[str, Tensor]:
    """Read the trained tensors; they stay on disk until they are used."""
    try:
        path = cached_file(folder, _WEIGHTS_NAME, **hub)
        return dict(load_file(path))
    except (SafetensorError, ValueError, OSError, HTTPError) as error:
        if problem := hub_problem(folder, error):
            raise HubError(problem) from error
        raise ArtifactError(
            f"cannot read {_WEIGHTS_NAME} of {folder!r}: {error}. The file is missing, truncated or damaged; "
            "save or download the classifier again"
        ) from error


def _empty_table(config: PromptClassifierConfig, state: dict[str, Tensor], base: Any) -> SoftTokenTable | None:
    """Make the table that the state is read into; re-parameterised if the file holds that network."""
    settings = config.soft_prompt
    if not settings:
        return None
    weight = base.get_input_embeddings().weight
    has_network = any(name.startswith("soft_prompt.encoder.") for name in state)
    return SoftTokenTable(
        torch.zeros(len(settings["token_ids"]), weight.shape[1], device=weight.device),
        settings["token_ids"],
        reparameterization=settings.get("reparameterization") if has_network else None,
        hidden_size=settings.get("reparameterization_hidden_size"),
    )


def _load_state(model: PromptForSequenceClassification, state: dict[str, Tensor], folder: str) -> None:
    broken = [name for name, value in state.items() if not bool(value.isfinite().all())]
    if broken:
        raise ArtifactError(f"{_WEIGHTS_NAME} of {folder!r} holds values that are not finite in {broken}; train again")
    try:
        result = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ArtifactError(f"{_WEIGHTS_NAME} of {folder!r} does not fit its config.json: {error}") from error
    missing = set(result.missing_keys) - model._keys_to_ignore_on_save - _ties(model).keys()
    if missing or result.unexpected_keys:
        raise ArtifactError(
            f"{_WEIGHTS_NAME} of {folder!r} lacks {sorted(missing)} and holds the unknown "
            f"{sorted(result.unexpected_keys)}; it does not belong to this config.json: save or download it again"
        )


def _ties(model: nn.Module) -> dict[str, str]:
    """Return each further name of a parameter and its first name."""
    first: dict[int, str] = {}
    named = model.named_parameters(remove_duplicate=False)
    return {name: source for name, value in named if (source := first.setdefault(id(value), name)) != name}

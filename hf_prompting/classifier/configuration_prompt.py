"""Configuration of a prompt classifier: plain data, enough to rebuild it over its base model without a tokenizer."""

# No "from __future__ import annotations": @strict checks types only where the annotations are real.

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from hf_prompting.bases import BASE_TASKS
from hf_prompting.checksums import KEY as CHECKSUMS
from hf_prompting.errors import ArtifactError, did_you_mean
from hf_prompting.verbalizers.scoring import AGGREGATIONS

FORMAT_VERSION = 1


@strict
class PromptClassifierConfig(PreTrainedConfig):  # type: ignore[misc]
    """What ``config.json`` of a tuned prompt holds. Made by ``PromptForSequenceClassification.from_base``.

    Args:
        format_version: version of this layout; a newer one is refused.
        base_model_name_or_path: identity of the base model: a Hub id, or the name of a folder.
        base_model_is_folder: whether that is a folder's name. Its path is private and stays out
            (``bases/folders.py`` remembers it).
        base_model_revision: commit of the base on the Hub, or what was asked for where that is unknown.
        base_model_fingerprint: which exact weights the prompt was tuned on (``bases/fingerprint.py``).
        base_task: "causal", "masked" or "seq2seq".
        hidden_size: embedding width H of the base.
        vocab_size: rows V of the base's embedding.
        template: source of the template, for readers and for ``hf-prompting show``.
        label_words: label -> label words, for readers.
        label_word_ids: [class][word][piece] token ids; the order of the classes is that of ``id2label``.
        aggregation: how word scores become a class score, see ``Verbalizer``.
        soft_prompt: fields of the ``SoftPromptConfig`` that matter after training.
        pad_token_id: id that fills batches.
        bos_token_id: the tokenizer's, only so that ``Trainer`` finds nothing to align.
        eos_token_id: likewise.
        mask_token_id: id of the mask tokens in the input (masked models).
        num_masks: how many of them each row holds.
        decoder_prefix_ids: what the decoder reads before the answer (encoder-decoders).
        class_weights: weight of each class in the loss; None for 1.
        label_smoothing: share of the target spread over all classes, 0 <= x < 1.
        trainable_base: whether the base's own weights are trained and saved too.

    Example:
        >>> PromptClassifierConfig().model_type
        'prompt_classifier'
    """

    model_type = "prompt_classifier"

    format_version: int = FORMAT_VERSION
    base_model_name_or_path: str | None = None
    base_model_is_folder: bool = False
    base_model_revision: str | None = None
    base_model_fingerprint: dict[str, str] | None = None
    base_task: str = "causal"
    hidden_size: int | None = None
    vocab_size: int | None = None
    template: str | None = None
    label_words: dict[str, list[str]] | None = None
    label_word_ids: list[list[list[int]]] | None = None
    aggregation: str = "mean"
    soft_prompt: dict[str, Any] | None = None
    pad_token_id: int = 0
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    mask_token_id: int | None = None
    num_masks: int = 0
    decoder_prefix_ids: list[int] | None = None
    class_weights: list[float] | None = None
    label_smoothing: float = 0.0
    trainable_base: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        kwargs.pop(CHECKSUMS, None)  # of the file, not of what is done with its values
        super().__post_init__(**kwargs)
        words = self.label_words or {}
        if words.keys() == set(self.id2label.values()):  # config.json sorts its keys; restore the order of the classes
            self.label_words = {label: words[label] for _, label in sorted(self.id2label.items())}
        if self.format_version > FORMAT_VERSION:
            raise ArtifactError(
                f"this folder has format version {self.format_version}, but this hf_prompting reads up to "
                f"{FORMAT_VERSION}; update it: pip install --upgrade hf_prompting"
            )
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ArtifactError(f"label_smoothing={self.label_smoothing} must lie in [0, 1)")
        for name, value, allowed in (
            ("base_task", self.base_task, BASE_TASKS),
            ("aggregation", self.aggregation, AGGREGATIONS),
        ):
            if value not in allowed:
                raise ArtifactError(
                    f"{name}={value!r} is unknown; allowed: {', '.join(allowed)}.{did_you_mean(str(value), allowed)}"
                )

    @property
    def has_weights(self) -> bool:
        """Whether anything was trained; a frozen base with neither soft tokens nor word weights has no file."""
        return bool(self.soft_prompt) or self.trainable_base or self.aggregation == "weighted"

    def check_complete(self) -> None:
        """Make sure that a classifier can be built from these values.

        Raises:
            ArtifactError: if something is missing or contradicts the rest; the message names it.
        """
        words = [pieces for of_class in self.label_word_ids or () for pieces in of_class]
        vocab_size = self.vocab_size or 0
        problem = None
        if not words or not all(words) or len(self.label_word_ids or ()) != self.num_labels:
            problem = f"label_word_ids={self.label_word_ids} lacks words for some of the {self.num_labels} labels"
        elif outside := [piece for pieces in words for piece in pieces if not 0 <= piece < vocab_size]:
            problem = f"label_word_ids holds {outside[0]}, outside of the base's vocabulary of {vocab_size}"
        elif self.soft_prompt and not self.soft_prompt.get("token_ids"):
            problem = f"soft_prompt={self.soft_prompt} lacks its token_ids"
        elif self.class_weights is not None and len(self.class_weights) != self.num_labels:
            problem = f"class_weights={self.class_weights} for {self.num_labels} labels"
        if problem:
            raise ArtifactError(f"config.json is damaged: {problem}; save or download the classifier again")

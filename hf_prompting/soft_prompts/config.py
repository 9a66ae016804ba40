"""What a soft prompt is: how many tokens, which ids, how it starts, how it is re-parameterised."""

from __future__ import annotations

from dataclasses import dataclass, field

from peft.config import PeftConfig

from hf_prompting.errors import SoftPromptError, did_you_mean
from hf_prompting.soft_prompts.initialization import INITIALIZERS
from hf_prompting.soft_prompts.registration import peft_type
from hf_prompting.soft_prompts.reparameterization import REPARAMETERIZATIONS


@dataclass(kw_only=True)
class SoftPromptConfig(PeftConfig):  # type: ignore[misc]
    """Configuration of trainable soft tokens, a PEFT method (``peft_type`` ``SOFT_TOKENS``).

    A soft token is an ordinary token id whose input embedding is looked up in a small trainable table instead of the
    frozen embedding matrix. The ids may stand anywhere in ``input_ids``.

    Args:
        num_virtual_tokens: number of soft tokens P. A template counts its own; then it may be left out.
        token_ids: the P ids of the soft tokens. Ids of ordinary vocabulary are allowed: their rows are overlaid.
            Default: the first P ids behind the embedding matrix that no other adapter of the model uses.
        init: where the rows start: "vocabulary" (rows of frequent real tokens), "random" (noise with the mean and
            spread of the real rows), "text" (the tokens of ``init_text``, repeated to length P) or "label_words"
            (the rows of the label words, then vocabulary; needs a verbalizer, so only through ``from_base``).
        init_text: the text of ``init="text"``.
        init_token_ids: for each of the P tokens the ids whose embedding rows are averaged into its start; an empty
            list leaves that token to ``init``. Filled in from ``init_text`` where a tokenizer is known.
        tokenizer_name_or_path: tokenizer for ``init_text`` when no tokenizer is at hand (plain ``get_peft_model``).
        reparameterization: None (train the rows themselves), "mlp", "lstm" or "residual_mlp": train the rows through a
            small network that is saved as plain rows besides its own weights, and dropped when only the rows are
            needed.
        reparameterization_hidden_size: width of that network; default: the embedding width.
        seed: seed of the random part of the start; None takes torch's global generator.

    Raises:
        SoftPromptError: for a value out of range or an unknown name; the message names the nearest valid one.

    Source: Lester et al., 2021, arXiv:2104.08691 (prompt tuning and its initialisations).

    Example:
        >>> SoftPromptConfig(num_virtual_tokens=20, task_type="CAUSAL_LM").init
        'vocabulary'
    """

    num_virtual_tokens: int | None = field(default=None)
    token_ids: list[int] | None = field(default=None)
    init: str = field(default="vocabulary")
    init_text: str | None = field(default=None)
    init_token_ids: list[list[int]] | None = field(default=None)
    tokenizer_name_or_path: str | None = field(default=None)
    reparameterization: str | None = field(default=None)
    reparameterization_hidden_size: int | None = field(default=None)
    seed: int | None = field(default=None)
    # PEFT reads this attribute of every tuner's config. It stays None: the embeddings are found by their weight.
    target_modules: None = field(default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = peft_type()
        if self.init not in INITIALIZERS:
            raise SoftPromptError(
                f"init={self.init!r} is unknown; allowed: {sorted(INITIALIZERS)}."
                f"{did_you_mean(self.init, INITIALIZERS)}"
            )
        if self.reparameterization is not None and self.reparameterization not in REPARAMETERIZATIONS:
            raise SoftPromptError(
                f"reparameterization={self.reparameterization!r} is unknown; allowed: None or "
                f"{sorted(REPARAMETERIZATIONS)}.{did_you_mean(self.reparameterization, REPARAMETERIZATIONS)}"
            )
        if self.init == "text" and not self.init_text and self.init_token_ids is None:
            raise SoftPromptError("init='text' needs init_text; give it a text or choose another init")
        for name in ("num_virtual_tokens", "reparameterization_hidden_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SoftPromptError(f"{name}={value} must be at least 1")
        if self.token_ids is not None:
            self.token_ids = [int(token_id) for token_id in self.token_ids]
            self._check_token_ids(self.token_ids)
        if self.init_token_ids is not None and self.num_virtual_tokens not in (None, len(self.init_token_ids)):
            raise SoftPromptError(
                f"init_token_ids has {len(self.init_token_ids)} entries for {self.num_virtual_tokens} soft tokens; "
                "give one list of ids per soft token (empty to leave it to `init`)"
            )

    def _check_token_ids(self, token_ids: list[int]) -> None:
        if len(set(token_ids)) != len(token_ids) or not token_ids or min(token_ids) < 0:
            raise SoftPromptError(f"token_ids={token_ids} must be distinct ids of at least 0, and not empty")
        if self.num_virtual_tokens is None:
            self.num_virtual_tokens = len(token_ids)
        elif self.num_virtual_tokens != len(token_ids):
            raise SoftPromptError(
                f"num_virtual_tokens={self.num_virtual_tokens} but token_ids has {len(token_ids)} ids; give one of them"
            )

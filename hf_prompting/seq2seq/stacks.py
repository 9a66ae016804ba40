"""The two stacks of layers: an encoder that sees the whole text, a decoder that sees its past and the encoder."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPastAndCrossAttentions
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from hf_prompting.errors import Seq2SeqInputError
from hf_prompting.seq2seq.attention import Seq2SeqTransformerAttention, self_attention_cache
from hf_prompting.seq2seq.configuration_seq2seq import Seq2SeqTransformerConfig
from hf_prompting.seq2seq.cpu_functions import dropout
from hf_prompting.seq2seq.decoding_layout import stored_by_rows
from hf_prompting.seq2seq.layers import (
    Seq2SeqTransformerDecoderLayer,
    Seq2SeqTransformerEmbedding,
    Seq2SeqTransformerEncoderLayer,
    norm_of,
)
from hf_prompting.seq2seq.positions import (
    Seq2SeqTransformerLearnedPositions,
    Seq2SeqTransformerRelativeBias,
    Seq2SeqTransformerRotaryEmbedding,
    signed,
    sinusoidal_positions,
)
from hf_prompting.seq2seq.remote_code import write_remote_code

_TENSOR_PARALLEL = {
    "shared": "embedding_rowwise",
    "embed_tokens": "embedding_rowwise",
    "q_proj": "colwise",
    "k_proj": "colwise",
    "v_proj": "colwise",
    "o_proj": "rowwise",
    "gate_proj": "colwise",
    "up_proj": "colwise",
    "down_proj": "rowwise",
    "lm_head": "colwise_gather_output",
    "buckets": "replicated_with_grad_allreduce",  # each device reads the relative biases of its own heads
}


class Seq2SeqTransformerPreTrainedModel(PreTrainedModel):  # type: ignore[misc]
    """What all models of the family share: initialisation, ties, and what transformers may do with them."""

    config_class = Seq2SeqTransformerConfig
    config: Seq2SeqTransformerConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ("Seq2SeqTransformerEncoderLayer", "Seq2SeqTransformerDecoderLayer")
    _skip_keys_device_placement = ("past_key_values",)
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _fsdp_plan: dict[str, str]
    _tp_plan: dict[str, str]

    @property
    def _supports_flash_attn(self) -> bool:  # its kernels have no place for a bias of the scores
        return self.config.position_type != "relative"

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Save as every model does; after ``register_for_auto_class``, with all source files as remote code."""
        if self._auto_class is not None and kwargs.get("push_to_hub"):
            raise Seq2SeqInputError(
                "save_pretrained(push_to_hub=True) would upload before the source files are complete; call "
                "save_pretrained(folder), or model.push_to_hub(repo_id), which completes them first"
            )
        with stored_by_rows(self):
            super().save_pretrained(save_directory, *args, **kwargs)
        if self._auto_class is not None:
            write_remote_code(save_directory)

    def init_parallel_plans(self) -> None:
        """Add the tensor-parallel plan, which depends on the switches and so cannot stand in the class.

        The FSDP plan of every configuration names the parts of one stack; where they are not parts of this model, it
        would only warn.
        """
        super().init_parallel_plans()
        self._fsdp_plan = {
            rule: style for rule, style in self._fsdp_plan.items() if hasattr(self, rule.partition(".")[0])
        }
        for name, _ in self.named_modules():
            style = _TENSOR_PARALLEL.get(name.rpartition(".")[2])
            if style is not None:
                self._tp_plan[re.sub(r"\.\d+\.", ".*.", name)] = style

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        std = self.config.embedding_initializer_range
        std = self.config.initializer_range if std is None else std
        if isinstance(module, Seq2SeqTransformerEmbedding):
            init.normal_(module.weight, mean=0.0, std=std)
        elif isinstance(module, Seq2SeqTransformerLearnedPositions):  # as far apart as the tokens they are added to
            scale = math.sqrt(self.config.hidden_size) if self.config.scale_embedding else 1.0
            init.normal_(module.weight, mean=0.0, std=std * scale)

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """Return tied weight -> its source; ``tie_word_embeddings`` decides on the output head alone."""
        if all_submodels:
            return cast(dict[str, str], super().get_expanded_tied_weights_keys(all_submodels=True))
        ties = self._tied_weights_keys or {}
        return {key: source for key, source in ties.items() if self.config.tie_word_embeddings or "lm_head" not in key}


class _Stack(Seq2SeqTransformerPreTrainedModel):
    """Embedding, positions, layers and final norm of one side."""

    _pp_plan = {  # noqa: RUF012  (the form that transformers reads)
        "embed_tokens": (["input_ids"], ["inputs_embeds"]),
        "layers": (["hidden_states", "attention_mask"], ["hidden_states"]),
        "norm": (["hidden_states"], ["hidden_states"]),
    }

    def __init__(self, config: Seq2SeqTransformerConfig, layers: Sequence[nn.Module], *, bidirectional: bool) -> None:
        super().__init__(config)
        self.embed_tokens = Seq2SeqTransformerEmbedding(config)
        self.rotary_emb = Seq2SeqTransformerRotaryEmbedding(config) if config.position_type == "rotary" else None
        self.relative_bias = (
            Seq2SeqTransformerRelativeBias(config, bidirectional=bidirectional)
            if config.position_type == "relative"
            else None
        )
        self.learned_positions = (
            Seq2SeqTransformerLearnedPositions(config) if config.position_type == "learned" else None
        )
        self.layers = nn.ModuleList(layers)
        self.norm = norm_of(config) if config.final_norm else nn.Identity()
        self.gradient_checkpointing = False
        self.post_init()

    def _embed(self, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
        if (input_ids is None) == (inputs_embeds is None):
            raise Seq2SeqInputError(f"{type(self).__name__} needs either ids or embeddings, and not both")
        embedded: Tensor = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if not torch.compiler.is_compiling() and 0 in embedded.shape[:2]:
            raise Seq2SeqInputError(
                f"the batch is empty: shape {tuple(embedded.shape[:2])}; allowed: at least one row and one token"
            )
        return embedded

    def _place(
        self, embedded: Tensor, num_past: int | Tensor, num_keys: int
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | None, Tensor | None]:
        """Give the tokens their positions: return the states with dropout, the rotation and the bias of the scores."""
        num_tokens = embedded.shape[1]
        positions = torch.arange(num_tokens, device=embedded.device) + num_past
        rotation = bias = None
        if self.rotary_emb is not None:
            rotation = signed(*self.rotary_emb(embedded, positions[None]))
        elif self.relative_bias is not None:
            bias = self.relative_bias(positions, num_keys)
            if self.config._attn_implementation == "flex_attention":  # it reads the bias of each row by its number
                bias = bias.expand(embedded.shape[0], -1, -1, -1)
        else:
            if isinstance(num_past, int):
                check_length(num_past + num_tokens, self.config)
            if self.learned_positions is not None:
                embedded = embedded + self.learned_positions(positions)
            else:
                embedded = embedded + sinusoidal_positions(positions, embedded.shape[2]).to(embedded.dtype)
        return dropout(embedded, self.config.dropout, training=self.training), rotation, bias


def check_length(num_tokens: int, config: Seq2SeqTransformerConfig) -> None:
    """Refuse a text that sinusoidal positions do not reach.

    Raises:
        Seq2SeqInputError: if it has more tokens than ``max_position_embeddings``.
    Example:
        >>> check_length(1024, Seq2SeqTransformerConfig())
    """
    if num_tokens > config.max_position_embeddings:
        raise Seq2SeqInputError(
            f"the text has {num_tokens} tokens; allowed: up to max_position_embeddings "
            f"{config.max_position_embeddings}. Shorten it (truncation=True), or train with a larger "
            "max_position_embeddings"
        )


class Seq2SeqTransformerEncoder(_Stack):
    """The encoder: (B, T) ids -> (B, T, H) states, each of which sees the whole text.

    Example:
        >>> Seq2SeqTransformerEncoder(config)(input_ids).last_hidden_state  # doctest: +SKIP
    """

    _can_record_outputs = {  # noqa: RUF012
        "hidden_states": Seq2SeqTransformerEncoderLayer,
        "attentions": OutputRecorder(Seq2SeqTransformerAttention, index=1, layer_name="self_attn"),
    }

    def __init__(self, config: Seq2SeqTransformerConfig) -> None:
        layers = [Seq2SeqTransformerEncoderLayer(config, number) for number in range(config.num_encoder_layers)]
        super().__init__(config, layers, bidirectional=True)

    @merge_with_config_defaults  # type: ignore[untyped-decorator]
    @capture_outputs  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput:
        """Encode a batch.

        Args:
            input_ids: (B, T) token ids.
            attention_mask: (B, T), 1 for tokens and 0 for padding. Pad on the right with sinusoidal and learned
                positions; with the others either side is the same.
            inputs_embeds: (B, T, H) instead of ids, already scaled.
        Raises:
            Seq2SeqInputError: for an empty batch, an id without a row, or a text too long for its positions.
        """
        embedded = self._embed(input_ids, inputs_embeds)
        mask = create_bidirectional_mask(config=self.config, inputs_embeds=embedded, attention_mask=attention_mask)
        hidden_states, rotation, bias = self._place(embedded, 0, embedded.shape[1])
        for layer in self.layers:
            hidden_states = layer(hidden_states, mask, bias, rotation=rotation, **kwargs)
        return BaseModelOutput(last_hidden_state=self.norm(hidden_states))


class Seq2SeqTransformerDecoder(_Stack):
    """The decoder: (B, T) ids and the encoder's (B, S, H) states -> (B, T, H) states.

    Example:
        >>> Seq2SeqTransformerDecoder(config)(ids, encoder_hidden_states=states)  # doctest: +SKIP
    """

    _can_record_outputs = {  # noqa: RUF012
        "hidden_states": OutputRecorder(Seq2SeqTransformerDecoderLayer, num_hidden_layers_key="num_decoder_layers"),
        "attentions": OutputRecorder(Seq2SeqTransformerAttention, index=1, layer_name="self_attn"),
        "cross_attentions": OutputRecorder(Seq2SeqTransformerAttention, index=1, layer_name="cross_attn"),
    }

    def __init__(self, config: Seq2SeqTransformerConfig) -> None:
        layers = [Seq2SeqTransformerDecoderLayer(config, number) for number in range(config.num_decoder_layers)]
        super().__init__(config, layers, bidirectional=False)

    @merge_with_config_defaults  # type: ignore[untyped-decorator]
    @capture_outputs  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """Decode a batch, or the next step of one.

        Args:
            input_ids: (B, T) token ids; with a cache only the new ones.
            attention_mask: (B, past + T), 1 for tokens and 0 for padding.
            encoder_hidden_states: (B, S, H) states of the encoder.
            encoder_attention_mask: (B, S) padding of the encoder's text.
            past_key_values: keys and values of earlier steps, in an ``EncoderDecoderCache``.
            inputs_embeds: (B, T, H) instead of ids, already scaled.
            use_cache: whether to make a cache if none is given.
        Raises:
            Seq2SeqInputError: for an empty batch, an id without a row, or a text too long for its positions.
        """
        embedded = self._embed(input_ids, inputs_embeds)
        if use_cache and past_key_values is None:
            past_key_values = EncoderDecoderCache(DynamicCache(), DynamicCache())
        cache = self_attention_cache(past_key_values)
        mask = create_causal_mask(
            config=self.config, inputs_embeds=embedded, attention_mask=attention_mask, past_key_values=cache
        )
        encoder_mask = None
        if encoder_hidden_states is not None:
            encoder_mask = create_bidirectional_mask(
                config=self.config,
                inputs_embeds=embedded,
                attention_mask=encoder_attention_mask,
                encoder_hidden_states=encoder_hidden_states,
            )
        num_past = 0 if cache is None else cache.get_seq_length()
        num_keys = embedded.shape[1] if cache is None else cache.get_mask_sizes(embedded.shape[1], 0)[0]
        hidden_states, rotation, bias = self._place(embedded, num_past, num_keys)
        for layer in self.layers:
            hidden_states = layer(
                hidden_states,
                mask,
                encoder_hidden_states,  # by position, for activation checkpointing: it carries a gradient
                encoder_mask,
                bias,
                rotation=rotation,
                past_key_values=past_key_values,
                use_cache=use_cache,
                **kwargs,
            )
        return BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=self.norm(hidden_states), past_key_values=past_key_values
        )

"""T5, v1.1, Flan-T5 and mT5 checkpoints into this family, and back; the same numbers under other names."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    MT5Config,
    MT5ForConditionalGeneration,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from hf_prompting.errors import Seq2SeqConversionError
from hf_prompting.seq2seq.configuration_seq2seq import Seq2SeqTransformerConfig
from hf_prompting.seq2seq.modeling_seq2seq import Seq2SeqTransformerForConditionalGeneration

T5_FAMILY: dict[str, tuple[type[Any], type[Any]]] = {
    "t5": (T5Config, T5ForConditionalGeneration),
    "mt5": (MT5Config, MT5ForConditionalGeneration),
}
# What a configuration must say for T5 to be the same function.
_T5_FIELDS: dict[str, Any] = {
    "position_type": "relative",
    "norm_type": "rms_norm",
    "norm_position": "pre",
    "final_norm": True,
    "use_bias": False,
    "scale_attention": False,
    "scale_embedding": False,
}
_NUM_SHOWN = 5


def from_t5(model_or_path: PreTrainedModel | str | Path, **kwargs: Any) -> Seq2SeqTransformerForConditionalGeneration:
    """Return this family's model with the weights of a T5 or mT5 checkpoint; logits and generation stay equal.

    Training differs in one place: T5 also has dropout behind the final norm of each stack, this family has not.

    Args:
        model_or_path: a ``T5ForConditionalGeneration`` or its mT5 counterpart, or a folder or Hub id of one.
        **kwargs: for ``from_pretrained`` (revision, dtype, ...), if a path is given.
    Raises:
        Seq2SeqConversionError: if the checkpoint is of another model type, or lacks weights, or has weights too many.
    Example:
        >>> model = from_t5("google/flan-t5-small")  # doctest: +SKIP
    """
    source = model_or_path if isinstance(model_or_path, PreTrainedModel) else _load_t5(model_or_path, kwargs)
    _check_model_type(source.config.model_type)
    found = source.state_dict()
    is_tied = torch.equal(found["lm_head.weight"], found["shared.weight"]) if "lm_head.weight" in found else True
    config = _config_from_t5(source.config, is_tied=is_tied)
    config.decoder_start_token_id = _start_token_id(source)
    names = dict(_key_pairs(config))
    _check_keys(names, found)
    _check_one_embedding(found)
    weights = {ours: found[theirs] for theirs, ours in names.items()}
    model: Seq2SeqTransformerForConditionalGeneration = _build(
        Seq2SeqTransformerForConditionalGeneration, config, weights, source
    )
    return model


def to_t5(model: Seq2SeqTransformerForConditionalGeneration, model_type: str = "t5") -> PreTrainedModel:
    """Return a T5 (or "mt5") model with the weights of a model of the ``t5`` preset.

    Args:
        model: a model whose configuration is one that T5 can express.
        model_type: a key of ``T5_FAMILY``.
    Raises:
        Seq2SeqConversionError: if a field of the configuration has no counterpart in T5.
    Example:
        >>> to_t5(from_t5(t5_model)).save_pretrained("folder")  # doctest: +SKIP
    """
    _check_model_type(model_type)
    config = model.config
    wrong = {name: getattr(config, name) for name, value in _T5_FIELDS.items() if getattr(config, name) != value}
    if config.num_key_value_heads != config.num_attention_heads:
        wrong["num_key_value_heads"] = config.num_key_value_heads
    if model_type == "mt5" and config.scale_output:
        wrong["scale_output"] = True
    if wrong:
        raise Seq2SeqConversionError(
            f"{model_type} cannot express {wrong}; allowed: {_T5_FIELDS}, one key head per query head, and no "
            "scale_output for mt5. Only models of the t5 preset can be exported"
        )
    config_class, model_class = T5_FAMILY[model_type]
    found = model.state_dict()
    weights = {theirs: found[ours] for theirs, ours in _key_pairs(config)}
    exported: PreTrainedModel = _build(model_class, config_class(**_t5_fields(config)), weights, model)
    return exported


def _load_t5(path: str | Path, kwargs: dict[str, Any]) -> PreTrainedModel:
    where = {key: kwargs[key] for key in ("revision", "token", "cache_dir", "local_files_only") if key in kwargs}
    model_type = AutoConfig.from_pretrained(path, **where).model_type
    _check_model_type(model_type)
    model, found = T5_FAMILY[model_type][1].from_pretrained(path, **{**kwargs, "output_loading_info": True})
    wrong_shapes = {key for key, *_ in found["mismatched_keys"]}
    _refuse(found["missing_keys"] | wrong_shapes, found["unexpected_keys"])
    return cast(PreTrainedModel, model)


def _check_model_type(model_type: str) -> None:
    if model_type not in T5_FAMILY:
        raise Seq2SeqConversionError(
            f"model type {model_type!r} is not of the T5 family; allowed: {', '.join(sorted(T5_FAMILY))}"
        )


def _check_keys(names: Collection[str], found: Collection[str]) -> None:
    wanted = set(names)
    copies = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
    _refuse(wanted - set(found), set(found) - wanted - copies)


def _check_one_embedding(found: dict[str, Tensor]) -> None:
    for side in ("encoder", "decoder"):
        own = found.get(f"{side}.embed_tokens.weight")
        if own is not None and not torch.equal(own, found["shared.weight"]):
            raise Seq2SeqConversionError(
                f"{side}.embed_tokens.weight differs from shared.weight; allowed: one embedding for both sides. Was a "
                "soft prompt merged into this checkpoint? Convert the unmerged one"
            )


def _refuse(missing: Collection[str], extra: Collection[str]) -> None:
    """Raise one error for all keys that do not fit."""
    if not missing and not extra:
        return
    parts = [
        f"{what}: {', '.join(sorted(keys)[:_NUM_SHOWN])}" + (", ..." if len(keys) > _NUM_SHOWN else "")
        for what, keys in ((f"{len(missing)} missing or misshapen", missing), (f"{len(extra)} too many", extra))
        if keys
    ]
    raise Seq2SeqConversionError(
        f"the T5 checkpoint does not fit its configuration; {'; '.join(parts)}. Allowed: exactly the weights of a "
        "T5ForConditionalGeneration; save or download the checkpoint again"
    )


def _config_from_t5(config: Any, *, is_tied: bool) -> Seq2SeqTransformerConfig:
    return Seq2SeqTransformerConfig.t5(
        vocab_size=config.vocab_size,
        hidden_size=config.d_model,
        head_dim=config.d_kv,
        intermediate_size=config.d_ff,
        num_encoder_layers=config.num_layers,
        num_decoder_layers=config.num_decoder_layers,
        num_attention_heads=config.num_heads,
        relative_attention_num_buckets=config.relative_attention_num_buckets,
        relative_attention_max_distance=config.relative_attention_max_distance,
        norm_eps=config.layer_norm_epsilon,
        hidden_act=config.dense_act_fn,
        gated_feed_forward=config.is_gated_act,
        scale_output=getattr(config, "scale_decoder_outputs", False),  # mT5 never scales
        dropout=config.dropout_rate,
        tie_word_embeddings=is_tied,
        pad_token_id=config.pad_token_id,
        eos_token_id=config.eos_token_id,
        bos_token_id=getattr(config, "bos_token_id", None),
    )


def _start_token_id(source: Any) -> int | None:
    """Return the decoder's first id; T5 checkpoints keep it in either configuration, or mean padding."""
    for holder in (source.config, source.generation_config):
        start = getattr(holder, "decoder_start_token_id", None)
        if start is not None:
            return cast(int, start)
    return cast("int | None", source.config.pad_token_id)


def _t5_fields(config: Seq2SeqTransformerConfig) -> dict[str, Any]:
    prefix = "gated-" if config.gated_feed_forward else ""
    return {
        "vocab_size": config.vocab_size,
        "d_model": config.hidden_size,
        "d_kv": config.head_dim,
        "d_ff": config.intermediate_size,
        "num_layers": config.num_encoder_layers,
        "num_decoder_layers": config.num_decoder_layers,
        "num_heads": config.num_attention_heads,
        "relative_attention_num_buckets": config.relative_attention_num_buckets,
        "relative_attention_max_distance": config.relative_attention_max_distance,
        "layer_norm_epsilon": config.norm_eps,
        "feed_forward_proj": "gated-gelu" if prefix and config.hidden_act == "gelu_new" else prefix + config.hidden_act,
        "dense_act_fn": config.hidden_act,  # T5 would read "gated-gelu" as gelu_new
        "dropout_rate": config.dropout,
        "tie_word_embeddings": config.scale_output,  # in T5 this says whether the output is scaled
        "pad_token_id": config.pad_token_id,
        "eos_token_id": config.eos_token_id,
        "bos_token_id": config.bos_token_id,
        "decoder_start_token_id": config.decoder_start_token_id,
    }


def _key_pairs(config: Seq2SeqTransformerConfig) -> Iterator[tuple[str, str]]:
    """Yield T5's name and this family's name of every weight."""
    yield "shared.weight", "model.shared.weight"
    yield "lm_head.weight", "lm_head.weight"
    sides = (("encoder", config.num_encoder_layers), ("decoder", config.num_decoder_layers))
    for side, num_layers in sides:
        yield f"{side}.final_layer_norm.weight", f"model.{side}.norm.weight"
        bias = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        yield bias, f"model.{side}.relative_bias.buckets.weight"
        for number in range(num_layers):
            for theirs, ours in _layer_pairs(config, is_decoder=side == "decoder"):
                yield f"{side}.block.{number}.layer.{theirs}.weight", f"model.{side}.layers.{number}.{ours}.weight"


def _layer_pairs(config: Seq2SeqTransformerConfig, *, is_decoder: bool) -> Iterator[tuple[str, str]]:
    blocks = [("SelfAttention", "self_attn"), ("EncDecAttention", "cross_attn")][: 2 if is_decoder else 1]
    for place, (theirs, ours) in enumerate(blocks):
        yield f"{place}.layer_norm", f"{ours}_norm"
        for letter in "qkvo":
            yield f"{place}.{theirs}.{letter}", f"{ours}.{letter}_proj"
    place = len(blocks)
    projections = {"wi_0": "gate_proj", "wi_1": "up_proj"} if config.gated_feed_forward else {"wi": "up_proj"}
    yield f"{place}.layer_norm", "mlp_norm"
    for theirs, ours in {**projections, "wo": "down_proj"}.items():
        yield f"{place}.DenseReluDense.{theirs}", f"mlp.{ours}"


def _build(model_class: Any, config: Any, weights: dict[str, Tensor], source: Any) -> Any:
    """Make a model of the given weights, without initialising it first."""
    weights = {key: weight.detach().clone() for key, weight in weights.items()}
    model = model_class.from_pretrained(None, config=config, state_dict=weights, dtype=source.dtype)
    model.generation_config = copy.deepcopy(source.generation_config)
    return model

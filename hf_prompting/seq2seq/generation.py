"""What ``generate`` of transformers asks of a model: here, a cache with room and a step prepared once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from transformers import CompileConfig, GenerationConfig, GenerationMixin
from transformers.cache_utils import Cache
from transformers.generation import GenerationMode
from transformers.utils import ModelOutput

from hf_prompting.seq2seq.attention import self_attention_cache
from hf_prompting.seq2seq.decoding_step import DecodingStep, can_decode
from hf_prompting.seq2seq.growing_cache import with_room

_STEP_ONLY = "the prepared step"  # transformers reads it as a yes
_KNOWN_INPUTS = {"attention_mask", "encoder_outputs", "past_key_values", "use_cache", "logits_to_keep"}


class Seq2SeqTransformerGenerationMixin(GenerationMixin):  # type: ignore[misc]
    """``generate`` for the encoder-decoder. A prepared step lives among the arguments of one call, and no longer."""

    model: Any
    lm_head: nn.Linear
    output_scale: float

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        next_sequence_length: int | None = None,
        past_key_values: Cache | None = None,
        decoding_step: DecodingStep | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return what ``forward`` reads next: with a prepared step, the last token and the step."""
        if (
            decoding_step is None
            or next_sequence_length != 1
            or len(input_ids) != decoding_step.num_rows
            or past_key_values is not decoding_step.cache
        ):
            inputs: dict[str, Any] = super().prepare_inputs_for_generation(
                input_ids, next_sequence_length=next_sequence_length, past_key_values=past_key_values, **kwargs
            )
            return inputs
        return {
            "decoder_input_ids": input_ids[:, -1:],
            "past_key_values": past_key_values,
            "decoding_step": decoding_step,
        }

    def _valid_auto_compile_criteria(self, model_kwargs: dict[str, Any], generation_config: GenerationConfig) -> bool:
        """Say yes on a CPU, too, if the user gives a ``compile_config``: there may be a compiled step."""
        compiling = generation_config.compile_config
        if compiling is not None and self.device.type == "cpu" and not compiling._compile_all_devices:
            generation_config.compile_config = copy.copy(compiling)
            generation_config.compile_config._compile_all_devices = _STEP_ONLY
        return bool(super()._valid_auto_compile_criteria(model_kwargs, generation_config))

    def get_compiled_call(self, compile_config: CompileConfig | None) -> Callable[..., Any]:
        """Return what calls the compiled model, or the model where a prepared step, compiled apart, is its work."""
        compiling = compile_config or self._default_compile_config()
        ordinary = super().get_compiled_call

        def call(**inputs: Any) -> Any:
            if inputs.get("decoding_step") is None and compiling._compile_all_devices != _STEP_ONLY:
                return ordinary(compile_config)(**inputs)
            return self(**inputs)

        return call

    def _prepare_cache_for_generation(
        self,
        generation_config: GenerationConfig,
        model_kwargs: dict[str, Any],
        generation_mode: GenerationMode,
        batch_size: int,
        max_cache_length: int,
    ) -> None:
        is_given = model_kwargs.get("past_key_values") is not None
        super()._prepare_cache_for_generation(
            generation_config, model_kwargs, generation_mode, batch_size, max_cache_length
        )
        cache = model_kwargs.get("past_key_values")
        is_plain = not is_given and generation_config.cache_implementation in (None, "dynamic")
        if cache is not None and is_plain and self.device.type == "cpu":
            with_room(cache.self_attention_cache, max_cache_length)

    def _prefill(
        self,
        input_ids: Tensor,
        generation_config: GenerationConfig,
        model_kwargs: dict[str, Any],
        is_first_iteration: bool = True,
    ) -> ModelOutput:
        """Compute the first scores, and prepare a step for the others; a text's first token is already its work."""
        cache = model_kwargs.get("past_key_values")
        is_first = (
            cache is not None
            and cache.get_seq_length() == 0
            and input_ids.shape == (len(model_kwargs["encoder_outputs"][0]), 1)
        )
        outputs: ModelOutput | None = None
        step = self._decoding_step(model_kwargs) if is_first else None
        if step is None:
            outputs = super()._prefill(input_ids, generation_config, model_kwargs, is_first_iteration)
            step = self._decoding_step(model_kwargs)
        model_kwargs["decoding_step"] = step
        if step is not None and self._valid_auto_compile_criteria(model_kwargs, generation_config):
            step.compile(generation_config.compile_config or self._default_compile_config())
        if outputs is not None:
            return outputs
        inputs = self.prepare_inputs_for_generation(input_ids, next_sequence_length=1, **model_kwargs)
        return self(**inputs, return_dict=True)

    def _update_model_kwargs_for_generation(
        self,
        outputs: ModelOutput,
        model_kwargs: dict[str, Any],
        is_encoder_decoder: bool = False,
        num_new_tokens: int = 1,
    ) -> dict[str, Any]:
        updated: dict[str, Any] = super()._update_model_kwargs_for_generation(
            outputs, model_kwargs, is_encoder_decoder, num_new_tokens
        )
        if "decoding_step" not in updated:
            updated["decoding_step"] = self._decoding_step(updated)
        return updated

    def _decoding_step(self, model_kwargs: dict[str, Any]) -> DecodingStep | None:
        cache = model_kwargs.get("past_key_values")
        asked = {name for name, value in model_kwargs.items() if value is not None and value is not False}
        if asked - _KNOWN_INPUTS or not can_decode(self, cache):
            return None
        return DecodingStep(
            self.model.decoder,
            self.lm_head,
            self.output_scale,
            cache,
            model_kwargs["encoder_outputs"][0],
            model_kwargs.get("attention_mask"),
        )

    def _reorder_cache(self, past_key_values: Cache, beam_idx: Tensor) -> Cache:
        """Put each beam's keys in its place; of the encoder's text all beams have the same ones."""
        own = self_attention_cache(past_key_values)
        assert own is not None, "beam search asks only where there is a cache"
        own.reorder_cache(beam_idx)
        return past_key_values

"""The PEFT tuner that lays soft prompts over a model's input embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Set
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTuner
from torch import nn

from hf_prompting.errors import SoftPromptError
from hf_prompting.soft_prompts.config import SoftPromptConfig
from hf_prompting.soft_prompts.export import merge_rows
from hf_prompting.soft_prompts.initialization import initial_rows, repeat_to_length
from hf_prompting.soft_prompts.layer import (
    SoftTokenEmbedding,
    SoftTokenTable,
    input_embedding_paths,
    replace_everywhere,
    unwrap_input_embeddings,
)
from hf_prompting.soft_prompts.registration import METHOD_NAME


class SoftTokensModel(BaseTuner):  # type: ignore[misc]
    """Tuner of the PEFT method ``SOFT_TOKENS``; made by ``get_peft_model(model, SoftPromptConfig(...))``.

    Example:
        >>> peft_model = get_peft_model(model, SoftPromptConfig(num_virtual_tokens=20))  # doctest: +SKIP
    """

    prefix = f"{METHOD_NAME}_"
    tuner_layer_cls = SoftTokenEmbedding
    _suppressed: Set[int] = frozenset()  # ids that generate may not produce because of the soft prompts

    def _prepare_adapter_config(self, peft_config: SoftPromptConfig, model_config: dict[str, Any]) -> SoftPromptConfig:
        self._embedding_paths = input_embedding_paths(self.model)
        embedding = self.model.get_input_embeddings()
        if peft_config.num_virtual_tokens is None:
            raise SoftPromptError("num_virtual_tokens is not set; give it, or token_ids")
        if peft_config.token_ids is None:
            first = max([embedding.weight.shape[0], *(token_id + 1 for token_id in self._soft_ids())])
            peft_config.token_ids = list(range(first, first + peft_config.num_virtual_tokens))
        if peft_config.init == "label_words" and peft_config.init_token_ids is None and not peft_config.inference_mode:
            raise SoftPromptError(
                "init='label_words' needs a verbalizer: use PromptForSequenceClassification.from_base, or give "
                "init_token_ids or another init"
            )
        if peft_config.init == "text" and peft_config.init_token_ids is None and not peft_config.inference_mode:
            peft_config.init_token_ids = _ids_of_init_text(peft_config)
        return peft_config

    def _check_target_module_exists(self, peft_config: SoftPromptConfig, key: str) -> bool:
        return key in self._embedding_paths

    def _get_tied_target_modules(self, model: nn.Module) -> list[str]:
        return []  # a tied output head is not touched, so PEFT's warning about it does not apply

    def _create_and_replace(
        self,
        peft_config: SoftPromptConfig,
        adapter_name: str,
        target: Any,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        owner = next((m for m in self.model.modules() if isinstance(m, SoftTokenEmbedding) and m.is_owner), None)
        if not isinstance(target, SoftTokenEmbedding):
            layer = SoftTokenEmbedding(target, tables=None if owner is None else owner.tables)
            replace_everywhere(self.model, target, layer)
            target = layer
        if target.is_owner:
            target.tables[adapter_name] = _new_table(peft_config, target.weight)

    def inject_adapter(self, *args: Any, **kwargs: Any) -> None:
        """Lay one soft prompt over the embeddings and keep ``generate`` from producing its tokens."""
        super().inject_adapter(*args, **kwargs)
        self._suppress(self._soft_ids())

    def delete_adapter(self, adapter_name: str) -> None:
        """Remove one soft prompt."""
        super().delete_adapter(adapter_name)
        self._suppress(self._soft_ids())

    def enable_adapter_layers(self) -> None:
        """Switch the soft prompts on again."""
        super().enable_adapter_layers()
        self._suppress(self._soft_ids())

    def disable_adapter_layers(self) -> None:
        """Leave the base model as if it had no soft prompts; their ids read a safe row."""
        super().disable_adapter_layers()
        self._suppress(set())

    def _soft_ids(self) -> set[int]:
        # The model may carry adapters of other methods too.
        ids_of = [getattr(config, "token_ids", None) for config in self.peft_config.values()]
        return {token_id for token_ids in ids_of for token_id in token_ids or ()}

    def _suppress(self, token_ids: set[int]) -> None:
        """Forbid ``generate`` these ids, where the vocabulary holds them, and allow those forbidden here before."""
        generation_config = getattr(self.model, "generation_config", None)
        head = self.model.get_output_embeddings() if hasattr(self.model, "get_output_embeddings") else None
        if generation_config is None or head is None:
            return
        others = {*(generation_config.suppress_tokens or ())} - self._suppressed
        self._suppressed = {token_id for token_id in token_ids if token_id < head.weight.shape[0]} - others
        generation_config.suppress_tokens = sorted(others | self._suppressed) or None

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        if kwargs.get("adapter_names") is not None:
            raise SoftPromptError(
                "adapter_names is not needed: the ids of a row say which soft prompt it uses; activate all of them "
                f"instead: model.base_model.set_adapter({sorted(set(kwargs['adapter_names']))})"
            )
        yield

    def _unload_and_optionally_merge(
        self,
        merge: bool = True,
        progressbar: bool = False,
        safe_merge: bool = False,
        adapter_names: list[str] | None = None,
    ) -> Any:
        layers = [m for m in self.model.modules() if isinstance(m, SoftTokenEmbedding) and m.is_owner]
        names = adapter_names or self.active_adapters
        tables = [layers[0].table(name) for name in names if name in layers[0].tables] if merge and layers else []
        rows = [table.materialize().detach() for table in tables]
        if safe_merge and not all(bool(part.isfinite().all()) for part in rows):
            raise SoftPromptError("the soft prompt holds values that are not finite; nothing was merged")
        self._suppress(set())
        unwrap_input_embeddings(self.model)
        model = super()._unload_and_optionally_merge(merge=False, progressbar=progressbar)
        if tables:
            merge_rows(model, torch.cat(rows), [token_id for table in tables for token_id in table.token_ids])
        return model

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        """Strip the adapter name behind the table, however deep the parameter lies (re-parameterisations)."""
        return key.replace(f".soft_tokens_table.{adapter_name}.", ".soft_tokens_table.", 1)

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: SoftPromptConfig, adapter_name: str, state_dict: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        remapped: dict[str, torch.Tensor] = super()._remap_adapter_state_dict_for_load(
            model, config, adapter_name, state_dict
        )
        if not any(key.endswith(f".soft_tokens_table.{adapter_name}.rows") for key in remapped):
            raise SoftPromptError(
                f"the file of soft prompt {adapter_name!r} holds no soft-token rows, only {sorted(state_dict)[:3]}; "
                "save or download it again"
            )
        return remapped


def _new_table(config: SoftPromptConfig, weight: torch.Tensor) -> SoftTokenTable:
    assert config.token_ids is not None
    rows = initial_rows(
        weight,
        len(config.token_ids),
        init=config.init,
        init_token_ids=None if config.inference_mode else config.init_token_ids,
        seed=config.seed,
    )
    return SoftTokenTable(
        rows,
        config.token_ids,
        reparameterization=None if config.inference_mode else config.reparameterization,
        hidden_size=config.reparameterization_hidden_size,
    )


def _ids_of_init_text(config: SoftPromptConfig) -> list[list[int]]:
    from transformers import AutoTokenizer

    name = config.tokenizer_name_or_path or config.base_model_name_or_path
    if name is None:
        raise SoftPromptError("init='text' needs a tokenizer here; set tokenizer_name_or_path or give init_token_ids")
    tokenizer = AutoTokenizer.from_pretrained(name)
    assert config.num_virtual_tokens is not None
    return repeat_to_length(tokenizer(config.init_text, add_special_tokens=False).input_ids, config.num_virtual_tokens)

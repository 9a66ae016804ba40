"""The soft-token table and the embedding that looks into it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from hf_prompting.errors import SoftPromptError
from hf_prompting.soft_prompts.reparameterization import Reparameterization, with_whole_weights

_ORDINARY = -1  # slot of ids that are read from the frozen embedding
_SLEEPING = -2  # slot of soft ids behind that embedding whose adapter is not active

# A base row that stands in for soft ids while the frozen embedding is read; its value is never used for active ones.
_SAFE_ID = 0


class SoftTokenTable(nn.Module):
    """The trainable rows of one soft prompt, before any embedding scale.

    Args:
        rows_PH: (P, H) rows to start from.
        token_ids: the P ids that the rows belong to.
        reparameterization: None or a key of ``REPARAMETERIZATIONS``.
        hidden_size: width of the re-parameterisation.
    """

    rows: Tensor

    def __init__(
        self,
        rows_PH: Tensor,
        token_ids: Sequence[int],
        *,
        reparameterization: str | None = None,
        hidden_size: int | None = None,
    ) -> None:
        super().__init__()
        if rows_PH.shape[0] != len(token_ids):
            raise SoftPromptError(f"{rows_PH.shape[0]} rows for {len(token_ids)} soft token ids; give one row per id")
        self.token_ids = tuple(token_ids)
        self.encoder: Reparameterization | None = None
        if reparameterization is None:
            self.rows = nn.Parameter(rows_PH)
        else:
            self.register_buffer("rows", rows_PH)
            self.encoder = Reparameterization(reparameterization, rows_PH, hidden_size)

    def materialize(self) -> Tensor:
        """Return the rows (P, H) as the model sees them, with gradient."""
        return self.rows if self.encoder is None else self.encoder()

    def drop_reparameterization(self) -> None:
        """Keep only the plain rows; they stay trainable."""
        if self.encoder is not None:
            rows = self.materialize().detach().clone()
            self.encoder = None
            del self.rows
            self.rows = nn.Parameter(rows)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.encoder is not None:
            destination[prefix + "rows"] = with_whole_weights(self.encoder)().detach()

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        metadata: Any,
        strict: bool,
        missing: Any,
        unexpected: Any,
        errors: Any,
    ) -> None:
        saved = state_dict.get(prefix + "rows")
        if saved is not None and saved.shape != self.rows.shape:
            raise SoftPromptError(
                f"the saved soft prompt has shape {tuple(saved.shape)} but this base needs {tuple(self.rows.shape)} "
                "(soft tokens, embedding width); load it over the base model it was tuned on"
            )
        if saved is not None and not saved.is_meta and not bool(saved.isfinite().all()):
            raise SoftPromptError(
                f"the saved soft prompt {prefix + 'rows'!r} holds values that are not finite; "
                "load an earlier checkpoint, or train again with a lower learning rate"
            )
        encoder_keys = {key for key in state_dict if key.startswith(prefix + "encoder.")}
        expected = {} if self.encoder is None else self.encoder.state_dict(prefix=prefix + "encoder.")
        if saved is not None and encoder_keys != expected.keys():  # no network in the file, or one of another kind
            for key in encoder_keys:
                del state_dict[key]
            if self.encoder is not None:
                self.encoder.restart_from(saved.to(self.rows))
                state_dict.update(expected)  # its tensors are the live ones, so the new offset is among them
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, unexpected, errors)


class SoftTokenEmbedding(nn.Module, BaseTunerLayer):  # type: ignore[misc]
    """An embedding in which soft ids are looked up in the tables of the active soft prompts.

    Several embeddings of a model may share their weight (encoder and decoder of T5); one of them owns the tables, or a
    classifier does, and the others follow it, so that each table is stored once.

    Args:
        base_layer: the frozen embedding, scaled or not.
        tables: tables owned elsewhere; None makes this layer the owner.
    """

    adapter_layer_names: tuple[str, ...] = ("soft_tokens_table",)

    def __init__(self, base_layer: nn.Module, tables: nn.ModuleDict | None = None) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.merged_adapters: list[str] = []
        if tables is None:
            self.soft_tokens_table = nn.ModuleDict()
            self._tables = [self.soft_tokens_table]
        else:
            self.adapter_layer_names = ()
            self._tables = [tables]  # in a list: not a child, so it is not saved twice
        self._slot_cache: dict[Any, Tensor] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "weight":  # transformers' tie_weights
            self.base_layer.weight = value
        else:
            super().__setattr__(name, value)

    @property
    def is_owner(self) -> bool:
        """Whether the tables are stored in this layer."""
        return bool(self.adapter_layer_names)

    @property
    def tables(self) -> nn.ModuleDict:
        """Adapter name -> ``SoftTokenTable``."""
        return self._tables[0]

    def table(self, name: str) -> SoftTokenTable:
        """Return the table of one soft prompt."""
        return cast(SoftTokenTable, self.tables[name])

    def _all_available_adapter_names(self) -> list[str]:
        return sorted(self.tables)  # a follower owns none of them, yet must choose as the owner does

    def set_adapter(self, adapter_names: str | list[str], inference_mode: bool = False) -> None:
        """Make the named soft prompts active; several at once need disjoint ids."""
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        owner_of: dict[int, str] = {}
        for name in names:
            for token_id in self.table(name).token_ids if name in self.tables else ():
                if owner_of.setdefault(token_id, name) != name:
                    raise SoftPromptError(
                        f"soft prompts {owner_of[token_id]!r} and {name!r} both use token id {token_id}; only soft "
                        "prompts with disjoint token_ids can be active together: give one of them other token_ids"
                    )
        super().set_adapter(adapter_names, inference_mode=inference_mode)

    def forward(self, input_ids: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(B, T) ids -> (B, T, H) embeddings, scaled as the base scales them."""
        awake = [] if self.disable_adapters else cast(list[str], self.active_adapters)
        active = [name for name in awake if name in self.tables]
        slots = self._slots(active, input_ids.device)[input_ids]
        embedded: Tensor = self.base_layer(input_ids.masked_fill(slots != _ORDINARY, _SAFE_ID), *args, **kwargs)
        if not active:
            return embedded
        rows = torch.cat([self.table(name).materialize() for name in active]).to(embedded.dtype)
        soft = F.embedding(slots.clamp(min=0), rows)
        scale = cast(Any, self)._get_embed_scale()
        if scale is not None:
            soft = soft * scale.to(soft)
        return torch.where((slots >= 0)[..., None], soft, embedded)

    def _slots(self, active: list[str], device: torch.device) -> Tensor:
        """Return the row number of each id among the active tables, or -1 (ordinary) or -2 (sleeping soft id)."""
        ids_of = {name: self.table(name).token_ids for name in self.tables}
        key = (device, tuple(active), tuple(ids_of.items()))
        if key not in self._slot_cache:
            num_rows = cast(Tensor, self.weight).shape[0]
            size = max([num_rows, *(token_id + 1 for token_ids in ids_of.values() for token_id in token_ids)])
            slots = torch.full((size,), _ORDINARY)
            slots[num_rows:] = _SLEEPING
            active_ids = [token_id for name in active for token_id in ids_of[name]]
            slots[active_ids] = torch.arange(len(active_ids))
            self._slot_cache = {key: slots.to(device)}
        return self._slot_cache[key]


def input_embedding_paths(model: Any) -> list[str]:
    """Return the paths of all embeddings that share the weight of the model's input embedding.

    T5 and BART read ``encoder.embed_tokens`` and ``decoder.embed_tokens``, which share the weight of ``shared``.

    Raises:
        SoftPromptError: if the model has no token embedding, or its two stacks have different ones.
    """
    embedding = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
    if embedding is None or not hasattr(embedding, "weight"):
        raise SoftPromptError(f"{type(model).__name__} has no input token embedding; soft tokens need one")
    weight = embedding.weight
    stacks = (model.get_encoder(), model.get_decoder()) if getattr(model.config, "is_encoder_decoder", False) else ()
    if any(stack.get_input_embeddings().weight is not weight for stack in stacks):
        raise SoftPromptError(
            f"encoder and decoder of this {type(model).__name__} read embeddings of their own; soft tokens need shared "
            "ones (was a soft prompt merged into it before? then tune over the unmerged model)"
        )
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding | SoftTokenEmbedding)
        and module.weight is weight
        and not name.endswith(".base_layer")
    ]


def replace_everywhere(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put ``new`` where ``old`` stands; one module may have several names (BART after a resize)."""
    paths = [path for path, module in model.named_modules(remove_duplicate=False) if module is old]
    for path in paths:
        model.set_submodule(path, new)


def wrap_input_embeddings(model: nn.Module, tables: nn.ModuleDict) -> list[SoftTokenEmbedding]:
    """Put a following ``SoftTokenEmbedding`` over each input embedding of ``model``, in place.

    Example:
        >>> layers = wrap_input_embeddings(model, nn.ModuleDict({"default": table}))  # doctest: +SKIP
    """
    layers = []
    for path in input_embedding_paths(model):
        embedding = model.get_submodule(path)
        layer = SoftTokenEmbedding(embedding, tables)
        replace_everywhere(model, embedding, layer)
        layers.append(layer)
    return layers


def unwrap_input_embeddings(model: nn.Module) -> None:
    """Undo every ``SoftTokenEmbedding`` of ``model``, in place."""
    for module in list(model.modules()):
        if isinstance(module, SoftTokenEmbedding):
            replace_everywhere(model, module, module.base_layer)

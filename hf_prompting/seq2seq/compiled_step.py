"""One step of generation as one compiled function, for up to 64 rows: ``compiled_step.cpp``, made ready and called.

A product from a library costs a call, and what norms, activations and residual sums read and write goes through memory.
In the compiled step all threads take the whole step together. It reads the model's weights and extends the cache where
they are, so nothing is copied, and one compiled file serves all models, rows and lengths.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._inductor.codecache import CppCodeCache
from torch._inductor.exc import CppCompileError, InvalidCxxCompiler
from transformers import CompileConfig
from transformers.cache_utils import EncoderDecoderCache, StaticLayer
from transformers.utils import logging

from hf_prompting.seq2seq.attention import Seq2SeqTransformerAttention
from hf_prompting.seq2seq.configuration_seq2seq import Seq2SeqTransformerConfig
from hf_prompting.seq2seq.decoding_positions import position_table
from hf_prompting.seq2seq.layers import Seq2SeqTransformerDecoderLayer
from hf_prompting.seq2seq.stacks import Seq2SeqTransformerDecoder

_MOST_ROWS = 64  # beyond, a library's products of wide matrices are faster
_SOURCE = Path(__file__).with_suffix(".cpp")
_FLAGS = ("-ffp-contract=fast",)  # a product and its addition are one instruction
_ACTIVATIONS = {  # as numbered in the source; the names of transformers
    "relu": 0,
    "silu": 1,
    "swish": 1,
    "gelu": 2,
    "gelu_python": 2,
    "gelu_fast": 3,
    "gelu_new": 3,
    "gelu_pytorch_tanh": 3,
}


def can_compile(
    decoder: Seq2SeqTransformerDecoder,
    head: nn.Linear,
    cache: EncoderDecoderCache,
    encoder_mask: Tensor | None,
    compiling: CompileConfig,
) -> bool:
    """Tell whether there is a compiled step for a decoder and a cache, and it is worth it.

    That is: up to 64 rows, static caches, weights by rows, a common activation, and a C++ compiler.

    Example:
        >>> can_compile(model.model.decoder, model.lm_head, cache, None, CompileConfig())  # doctest: +SKIP
        True
    """
    own, cross = cache.self_attention_cache.layers, cache.cross_attention_cache.layers
    return (
        compiling.backend == "inductor"
        and decoder.config.hidden_act in _ACTIVATIONS
        and all(_is_readable(layer, own[0], decoder.config) for layer in (*own, *cross))
        and len(own[0].keys) <= _MOST_ROWS
        and (encoder_mask is None or all(encoder_mask.shape[-1] == layer.keys.shape[2] for layer in cross))
        and _is_as_configured(decoder)
        and _is_by_rows((*decoder.parameters(), *head.parameters()))
        and _library() is not None
    )


def _is_readable(layer: Any, first: Any, config: Seq2SeqTransformerConfig) -> bool:
    """Tell whether a cache has what the source reads without looking: as many rows as the first one, and the heads."""
    if type(layer) is not StaticLayer or not layer.is_initialized:
        return False
    head_dim, num_key_heads = config.head_sizes
    shape = (len(first.keys), num_key_heads, layer.keys.shape[2], head_dim)
    return all(
        kept.shape == shape and kept.dtype == torch.float32 and kept.device.type == "cpu" and kept.is_contiguous()
        for kept in (layer.keys, layer.values)
    )


def _is_as_configured(decoder: Seq2SeqTransformerDecoder) -> bool:
    """Tell whether all shapes are what the configuration says, and no layer was made smaller."""
    config = decoder.config
    head_dim, num_key_heads = config.head_sizes
    width, inner = config.hidden_size, config.intermediate_size
    queries, keys = config.num_attention_heads * head_dim, num_key_heads * head_dim
    shapes = {
        **{"q_proj": (queries, width), "k_proj": (keys, width), "v_proj": (keys, width), "o_proj": (width, queries)},
        **{"gate_proj": (inner, width), "up_proj": (inner, width), "down_proj": (width, inner)},
    }
    for name, weight in decoder.layers.named_parameters(remove_duplicate=False):
        *_, part, kind = name.split(".")
        shape = shapes.get(part, (width,))  # a norm's
        if weight.shape != (shape if kind == "weight" else shape[:1]):
            return False
    return True


def _is_by_rows(weights: Sequence[Tensor]) -> bool:
    if all(weight.is_contiguous() for weight in weights):
        return True
    logging.get_logger(__name__).warning_once(
        "compile_config changes nothing here: the decoder's weights are stored by columns. Call "
        "lay_out_for_decoding(compiled=True) instead of lay_out_for_decoding() on the model as it was loaded."
    )
    return False


@cache
def _library() -> ctypes.CDLL | None:
    """Compile and load the source; torch keeps on disk what it has compiled."""
    try:
        library: ctypes.CDLL = CppCodeCache.load(
            _SOURCE.read_text(encoding="utf-8"), extra_flags=_FLAGS, needs_vec_isa=False
        )
    except (InvalidCxxCompiler, CppCompileError, OSError) as error:
        logging.get_logger(__name__).warning("compile_config changes nothing here: %s", error)
        return None
    library.scratch_size.restype = library.take_step.restype = _SIZE
    library.take_step.argtypes = [_POINTER, _POINTER, _SIZE, _SIZE, _POINTER]
    return library


_POINTER, _SIZE, _NUMBER = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float


class _Matrix(ctypes.Structure):
    _fields_ = (("weight", _POINTER), ("bias", _POINTER), ("rows", _SIZE), ("columns", _SIZE))

    @classmethod
    def of(cls, layer: nn.Module | None) -> _Matrix:
        if layer is None:
            return cls()
        weight = cast(Tensor, layer.weight)
        return cls(_address(weight), _address(getattr(layer, "bias", None)), *weight.shape)


class _Norm(ctypes.Structure):
    _fields_ = (("weight", _POINTER), ("bias", _POINTER), ("eps", _NUMBER))

    @classmethod
    def of(cls, norm: Any) -> _Norm:
        if isinstance(norm, nn.Identity):
            return cls()
        return cls(_address(norm.weight), _address(getattr(norm, "bias", None)), norm.eps)


class _Attention(ctypes.Structure):
    _fields_ = (
        *((name, _Matrix) for name in ("query", "key", "value", "out")),
        *((name, _POINTER) for name in ("keys", "values")),
        *(("places", _SIZE), ("scaling", _NUMBER)),
    )

    @classmethod
    def of(cls, layer: Seq2SeqTransformerAttention, kept: StaticLayer) -> _Attention:
        matrices = [_Matrix.of(part) for part in (layer.q_proj, layer.k_proj, layer.v_proj, layer.o_proj)]
        return cls(*matrices, _address(kept.keys), _address(kept.values), kept.keys.shape[2], layer.scaling)


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, _Norm) for name in ("own_norm", "cross_norm", "mlp_norm")),
        *((name, _Attention) for name in ("own", "cross")),
        *((name, _Matrix) for name in ("gate", "up", "down")),
    )

    @classmethod
    def of(cls, layer: Seq2SeqTransformerDecoderLayer, own: StaticLayer, cross: StaticLayer) -> _Layer:
        return cls(
            *(_Norm.of(norm) for norm in (layer.self_attn_norm, layer.cross_attn_norm, layer.mlp_norm)),
            _Attention.of(layer.self_attn, own),
            _Attention.of(layer.cross_attn, cross),
            *(_Matrix.of(part) for part in (layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj)),
        )


class _Step(ctypes.Structure):
    _fields_ = (
        *((name, _SIZE) for name in ("texts", "hidden", "inner", "heads", "key_heads", "head_dim", "num_layers")),
        *((name, _SIZE) for name in ("activation", "norm_comes_first", "num_threads")),
        *((name, _NUMBER) for name in ("embed_scale", "output_scale")),
        *(("embedding", _Matrix), ("head", _Matrix), ("norm", _Norm)),
        *((name, _POINTER) for name in ("added", "cosines", "sines", "biases", "mask")),
        *((name, _SIZE) for name in ("bias_places", "mask_texts")),
        *((name, _POINTER) for name in ("layers", "scratch")),
    )


class CompiledStep:
    """Scores of the next token, from the last one and from a static cache that the step extends.

    It belongs to one call of ``generate``: it knows where weights and cache lie in memory.

    Args:
        decoder: the decoder; see ``decoding_step.can_decode``.
        head: (B, H) states -> (B, V) scores.
        output_scale: factor of the states before the head.
        cache: static; see ``can_compile``, which has to say yes.
        encoder_mask: (B or 1, 1, 1, S) to add to scores of the encoder's text, or None.
    Example:
        >>> step = CompiledStep(model.model.decoder, model.lm_head, 1.0, cache, None)  # doctest: +SKIP
        >>> step(torch.tensor([[5]])).shape  # doctest: +SKIP
        torch.Size([1, 1, 99])
    """

    def __init__(
        self,
        decoder: Seq2SeqTransformerDecoder,
        head: nn.Linear,
        output_scale: float,
        cache: EncoderDecoderCache,
        encoder_mask: Tensor | None,
    ) -> None:
        own, cross = cache.self_attention_cache.layers, cache.cross_attention_cache.layers
        layers = [cast(Seq2SeqTransformerDecoderLayer, layer) for layer in decoder.layers]
        config, num_places = decoder.config, min(layer.max_cache_len for layer in own)
        head_dim, num_key_heads = config.head_sizes
        table = position_table(decoder, num_places)
        tables = (table.added, *(table.rotations or (None, None)), table.biases, encoder_mask)
        read = [None if tensor is None else tensor.detach().contiguous() for tensor in tables]
        self._library = cast(ctypes.CDLL, _library())
        self._embed = decoder.embed_tokens
        self._layers = (_Layer * len(layers))(*map(_Layer.of, layers, own, cross))
        self._step = _Step(
            texts=len(own[0].keys),
            hidden=config.hidden_size,
            inner=config.intermediate_size,
            heads=config.num_attention_heads,
            key_heads=num_key_heads,
            head_dim=head_dim,
            num_layers=len(layers),
            activation=_ACTIVATIONS[config.hidden_act],
            norm_comes_first=layers[0].pre_norm,
            num_threads=torch.get_num_threads(),
            embed_scale=decoder.embed_tokens.embed_scale,
            output_scale=output_scale,
            embedding=_Matrix.of(decoder.embed_tokens),
            head=_Matrix.of(head),
            norm=_Norm.of(decoder.norm),
            **dict(zip(("added", "cosines", "sines", "biases", "mask"), map(_address, read), strict=True)),
            bias_places=table.num_places,
            mask_texts=0 if encoder_mask is None else len(encoder_mask),
            layers=ctypes.addressof(self._layers),
        )
        scratch = torch.zeros(self._library.scratch_size(ctypes.byref(self._step)))
        self._step.scratch = scratch.data_ptr()
        self._address = ctypes.addressof(self._step)
        # What the addresses point to stays, whatever happens to the model meanwhile.
        self._held = scratch, read, [weight.detach() for weight in (*decoder.parameters(), *head.parameters())]
        self._own = own
        self._kept = [(layer.keys, layer.values) for layer in (*own, *cross)]
        if table.added is not None:
            num_places = min(num_places, len(table.added), config.max_position_embeddings)
        self._num_places: int = num_places

    @property
    def has_room(self) -> bool:
        """Whether there is a place for the next token, in the cache and among the positions."""
        return int(self._own[0].cumulative_length) < self._num_places

    def follow(self) -> bool:
        """Look where the keys and values are now, since reordered beams are other tensors; tell whether they fit."""
        for number, layer in enumerate(self._own):
            keys, values = self._kept[number]
            if layer.keys is keys and layer.values is values:
                continue
            for kept, found in ((keys, layer.keys), (values, layer.values)):
                if found.shape != kept.shape or found.dtype != kept.dtype or not found.is_contiguous():
                    return False
            self._kept[number] = layer.keys, layer.values
            attention = self._layers[number].own
            attention.keys, attention.values = _address(layer.keys), _address(layer.values)
        return True

    def __call__(self, ids: Tensor) -> Tensor:
        """(B, 1) ids -> (B, 1, V) scores.

        Raises:
            Seq2SeqInputError: if an id has no row in the embedding.
        """
        scores = torch.empty(len(ids), 1, self._step.head.rows)
        place = int(self._own[0].cumulative_length)
        if not self._library.take_step(self._address, ids.data_ptr(), ids.stride(0), place, scores.data_ptr()):
            self._embed(ids)  # raises
        for layer in self._own:
            layer.cumulative_length.add_(1)
        return scores


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()

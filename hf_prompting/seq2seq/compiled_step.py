"""One step of generation as one compiled function, for up to 64 rows: ``compiled_step.cpp``, made ready and called.

A product from a library costs a call, and what norms, activations and residual sums read and write goes through memory.
In the compiled step all threads take the whole step together. It reads the model's weights and extends the cache where
they are, so nothing is copied, and one compiled file serves all models, rows and lengths.
"""

from __future__ import annotations

import ctypes
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._inductor.codecache import CppCodeCache
from torch._inductor.exc import CppCompileError, InvalidCxxCompiler
from transformers import CompileConfig
from transformers.activations import ACT2FN
from transformers.cache_utils import EncoderDecoderCache, StaticLayer
from transformers.utils import logging

from hf_prompting.seq2seq.attention import Seq2SeqTransformerAttention
from hf_prompting.seq2seq.configuration_seq2seq import Seq2SeqTransformerConfig
from hf_prompting.seq2seq.decoding_positions import position_table
from hf_prompting.seq2seq.layers import Seq2SeqTransformerDecoderLayer, Seq2SeqTransformerRMSNorm
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
_POINTER, _SIZE, _NUMBER = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float


def compiled_step(
    decoder: Seq2SeqTransformerDecoder,
    head: nn.Linear,
    output_scale: float,
    cache: EncoderDecoderCache,
    encoder_mask: Tensor | None,
    compiling: CompileConfig,
) -> CompiledStep | None:
    """Return the compiled step of a decoder and a cache, or None, mostly with a warning that says why.

    There is one for up to 64 rows, static caches, common activations, and float32 weights stored by rows, if the
    machine has a C++ compiler and the user has asked for torch's own one.

    Args:
        decoder: the decoder; see ``decoding_step.can_decode``.
        head: (B, H) states -> (B, V) scores.
        output_scale: factor of the states before the head.
        cache: what the step reads and extends.
        encoder_mask: (B or 1, 1, 1, S) to add to scores of the encoder's text, or None.
        compiling: what the user has asked for.
    Example:
        >>> compiled_step(model.model.decoder, model.lm_head, 1.0, cache, None, CompileConfig())  # doctest: +SKIP
        <hf_prompting.seq2seq.compiled_step.CompiledStep object at 0x7f...>
    """
    own, cross = cache.self_attention_cache.layers, cache.cross_attention_cache.layers
    if compiling.backend != "inductor" or any(type(layer) is not StaticLayer for layer in (*own, *cross)):
        return None
    if not all(layer.is_initialized for layer in (*own, *cross)) or len(own[0].keys) > _MOST_ROWS:
        return None
    try:
        return CompiledStep(decoder, head, output_scale, own, cross, encoder_mask)
    except _NoStepError as error:
        logging.get_logger(__name__).warning_once(f"compile_config changes nothing here: {error}")
        return None


class _NoStepError(Exception):
    """There is no compiled step, and why."""


@cache
def _library() -> ctypes.CDLL | str:
    """Compile and load the source, or return why that cannot be; torch keeps on disk what it has compiled."""
    if not _SOURCE.is_file():
        return "a model that comes as remote code has no compiled step. Install hf_prompting, and import it"
    processor = f"// compiled for {sorted(torch.cpu.get_capabilities().items())}\n"  # another one may not run it
    try:
        library: ctypes.CDLL = CppCodeCache.load(
            processor + _SOURCE.read_text(encoding="utf-8"), extra_flags=_FLAGS, needs_vec_isa=False
        )
    except (InvalidCxxCompiler, CppCompileError, OSError) as error:
        return f"the machine's C++ compiler (g++ or clang++) is missing or fails. {error}"
    library.scratch_size.restype = library.take_step.restype = _SIZE
    library.scratch_size.argtypes = [_POINTER]
    library.take_step.argtypes = [_POINTER, _POINTER, _SIZE, _SIZE, _POINTER]
    return library


class _Tensors:
    """What the source reads without looking: checked here, and held, so that an address stays good."""

    def __init__(self) -> None:
        self.held: list[Tensor] = []

    def address(self, what: str, tensor: Tensor | None, *shape: int) -> int | None:
        """Return where the numbers of a tensor are.

        Raises:
            _NoStepError: if it has another shape, type or order.
        """
        if tensor is None:
            return None
        if tuple(tensor.shape) != shape or type(tensor) not in (Tensor, nn.Parameter):
            raise _NoStepError(f"{what} is a {type(tensor).__name__} {tuple(tensor.shape)}, not a tensor {shape}")
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
            raise _NoStepError(f"{what} is of {tensor.dtype} on {tensor.device}, not of float32 on a CPU")
        if not tensor.is_contiguous():
            raise _NoStepError(
                f"{what} is not stored by rows. Call lay_out_for_decoding(compiled=True), instead of "
                "lay_out_for_decoding(), on the model as it was loaded"
            )
        self.held.append(tensor.detach())
        return tensor.data_ptr()

    def matrix(self, layer: nn.Module | None, rows: int, columns: int) -> _Matrix:
        if layer is None:
            return _Matrix()
        weight = self.address("a weight", cast(Tensor, layer.weight), rows, columns)
        return _Matrix(weight, self.address("a bias", getattr(layer, "bias", None), rows), rows, columns)

    def norm(self, norm: Any, width: int) -> _Norm:
        if type(norm) not in (Seq2SeqTransformerRMSNorm, nn.LayerNorm) or norm.weight is None:
            raise _NoStepError(f"{norm} stands where a norm with a weight is expected")
        weight = self.address("the weight of a norm", norm.weight, width)
        bias = self.address("the bias of a norm", getattr(norm, "bias", None), width)
        return _Norm(weight, bias, norm.eps, type(norm) is nn.LayerNorm)


class _Matrix(ctypes.Structure):
    _fields_ = (("weight", _POINTER), ("bias", _POINTER), ("rows", _SIZE), ("columns", _SIZE))


class _Norm(ctypes.Structure):
    _fields_ = (("weight", _POINTER), ("bias", _POINTER), ("eps", _NUMBER), ("takes_mean_off", _SIZE))


class _Attention(ctypes.Structure):
    _fields_ = (
        *((name, _Matrix) for name in ("query", "key", "value", "out")),
        *((name, _POINTER) for name in ("keys", "values")),
        *(("places", _SIZE), ("scaling", _NUMBER)),
    )

    @classmethod
    def of(
        cls, tensors: _Tensors, config: Seq2SeqTransformerConfig, layer: Seq2SeqTransformerAttention, kept: StaticLayer
    ) -> _Attention:
        head_dim, num_key_heads = config.head_sizes
        hidden, queries, keys = config.hidden_size, config.num_attention_heads * head_dim, num_key_heads * head_dim
        places = kept.keys.shape[2]
        shape = len(kept.keys), num_key_heads, places, head_dim
        return cls(
            tensors.matrix(layer.q_proj, queries, hidden),
            tensors.matrix(layer.k_proj, keys, hidden),
            tensors.matrix(layer.v_proj, keys, hidden),
            tensors.matrix(layer.o_proj, hidden, queries),
            tensors.address("a cache", kept.keys, *shape),
            tensors.address("a cache", kept.values, *shape),
            places,
            layer.scaling,
        )


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, _Norm) for name in ("own_norm", "cross_norm", "mlp_norm")),
        *((name, _Attention) for name in ("own", "cross")),
        *((name, _Matrix) for name in ("gate", "up", "down")),
        ("norm_comes_first", _SIZE),
    )

    @classmethod
    def of(
        cls,
        tensors: _Tensors,
        config: Seq2SeqTransformerConfig,
        layer: Seq2SeqTransformerDecoderLayer,
        own: StaticLayer,
        cross: StaticLayer,
    ) -> _Layer:
        hidden, inner, mlp = config.hidden_size, config.intermediate_size, layer.mlp
        if config.hidden_act not in _ACTIVATIONS or type(mlp.activation) is not type(ACT2FN[config.hidden_act]):
            raise _NoStepError(f"the activation is {mlp.activation}, not one of {', '.join(_ACTIVATIONS)}")
        return cls(
            *(tensors.norm(norm, hidden) for norm in (layer.self_attn_norm, layer.cross_attn_norm, layer.mlp_norm)),
            _Attention.of(tensors, config, layer.self_attn, own),
            _Attention.of(tensors, config, layer.cross_attn, cross),
            tensors.matrix(mlp.gate_proj, inner, hidden),
            tensors.matrix(mlp.up_proj, inner, hidden),
            tensors.matrix(mlp.down_proj, hidden, inner),
            layer.pre_norm,
        )


class _Step(ctypes.Structure):
    _fields_ = (
        *((name, _SIZE) for name in ("texts", "hidden", "inner", "heads", "key_heads", "head_dim", "num_layers")),
        *((name, _SIZE) for name in ("activation", "num_threads")),
        *((name, _NUMBER) for name in ("embed_scale", "output_scale")),
        *(("embedding", _Matrix), ("head", _Matrix), ("norm", _Norm)),
        *((name, _POINTER) for name in ("added", "cosines", "sines", "biases", "mask")),
        *((name, _SIZE) for name in ("bias_places", "mask_texts")),
        *((name, _POINTER) for name in ("layers", "scratch")),
    )


class CompiledStep:
    """Scores of the next token, from the last one and from a static cache that the step extends; see ``compiled_step``.

    It belongs to one call of ``generate``: it knows where weights and cache lie in memory, and goes on with the weights
    that it has found.
    """

    def __init__(
        self,
        decoder: Seq2SeqTransformerDecoder,
        head: nn.Linear,
        output_scale: float,
        own: list[StaticLayer],
        cross: list[StaticLayer],
        encoder_mask: Tensor | None,
    ) -> None:
        config = decoder.config
        hidden, num_heads, (head_dim, num_key_heads) = config.hidden_size, config.num_attention_heads, config.head_sizes
        num_texts, num_places = len(own[0].keys), min(layer.keys.shape[2] for layer in own)
        if any(len(layer.keys) != num_texts for layer in (*own, *cross)):
            raise _NoStepError("the layers of the cache have different numbers of rows")
        table = position_table(decoder, num_places)
        if table.added is not None:
            num_places = min(num_places, len(table.added), config.max_position_embeddings)
        added, biases, mask = (
            None if read is None else read.detach().contiguous() for read in (table.added, table.biases, encoder_mask)
        )
        cosines, sines = (tensor.contiguous() for tensor in table.rotations) if table.rotations else (None, None)
        mask_texts = 1 if mask is None or len(mask) == 1 else num_texts
        tensors = _Tensors()
        layers = [cast(Seq2SeqTransformerDecoderLayer, layer) for layer in decoder.layers]
        self._layers = (_Layer * len(layers))(*map(partial(_Layer.of, tensors, config), layers, own, cross))
        for attention in (layer.cross for layer in self._layers):
            tensors.address("the mask", mask, mask_texts, 1, 1, attention.places)
        self._step = _Step(
            texts=num_texts,
            hidden=hidden,
            inner=config.intermediate_size,
            heads=num_heads,
            key_heads=num_key_heads,
            head_dim=head_dim,
            num_layers=len(layers),
            activation=_ACTIVATIONS[config.hidden_act],
            num_threads=torch.get_num_threads(),
            embed_scale=decoder.embed_tokens.embed_scale,
            output_scale=output_scale,
            embedding=tensors.matrix(decoder.embed_tokens, len(decoder.embed_tokens.weight), hidden),
            head=tensors.matrix(head, len(head.weight), hidden),
            norm=_Norm() if type(decoder.norm) is nn.Identity else tensors.norm(decoder.norm, hidden),
            added=tensors.address("a position", added, 0 if added is None else len(added), hidden),
            cosines=tensors.address("a rotation", cosines, table.num_places, head_dim),
            sines=tensors.address("a rotation", sines, table.num_places, head_dim),
            biases=tensors.address("a bias of scores", biases, 1, num_heads, 1, table.num_places),
            mask=None if mask is None else mask.data_ptr(),
            bias_places=table.num_places,
            mask_texts=mask_texts,
            layers=ctypes.addressof(self._layers),
        )
        library = _library()
        if isinstance(library, str):
            raise _NoStepError(library)
        self._library = library
        num_numbers = library.scratch_size(ctypes.byref(self._step))
        scratch = torch.zeros(num_numbers, dtype=torch.float32, device="cpu")
        self._step.scratch = scratch.data_ptr()
        self._held = scratch, mask, tensors.held
        self._own, self._embed, self._num_places = own, decoder.embed_tokens, num_places
        self._kept = [(layer.keys, layer.values) for layer in own]

    def __call__(self, ids: Tensor) -> Tensor | None:
        """(B, 1) ids -> (B, 1, V) scores; None, and nothing done, if the cache is full or holds other tensors.

        Raises:
            Seq2SeqInputError: if an id has no row in the embedding.
        """
        place = int(self._own[0].cumulative_length)
        if not (0 <= place < self._num_places and ids.shape == (self._step.texts, 1) and self._follow()):
            return None
        ids = ids.to(torch.int64)
        scores = torch.empty(len(ids), 1, self._step.head.rows, dtype=torch.float32, device="cpu")
        at = ctypes.addressof(self._step)
        if not self._library.take_step(at, ids.data_ptr(), ids.stride(0), place, scores.data_ptr()):
            self._embed(ids)
            raise AssertionError("an id has no row, but the embedding took it")
        for layer in self._own:
            layer.cumulative_length.add_(1)
        return scores

    def _follow(self) -> bool:
        """Look where own keys and values are now, since reordered beams are other tensors; tell whether they fit."""
        for number, layer in enumerate(self._own):
            keys, values = self._kept[number]
            if layer.keys is keys and layer.values is values:
                continue
            tensors = _Tensors()
            try:
                found = [tensors.address("a cache", kept, *keys.shape) for kept in (layer.keys, layer.values)]
            except _NoStepError:
                return False
            self._kept[number] = layer.keys, layer.values
            self._layers[number].own.keys, self._layers[number].own.values = found
        return True

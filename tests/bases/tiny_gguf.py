"""A real GGUF file of a tiny Llama, written with the gguf package, and a real installed package around any file."""

from __future__ import annotations

import hashlib
import importlib
import json
from pathlib import Path

import gguf
import numpy as np
from tiny_models import tiny_model
from tiny_tokenizers import smollm_bpe
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from hf_prompting.bases import GgufFile, PackageFile

LAYER_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
CONTROL, NORMAL = 3, 1


def tiny_llama() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    tokenizer = smollm_bpe()
    return tiny_model("llama", vocab_size=len(tokenizer)), tokenizer


def write_gguf(
    path: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, *, in_8_bits: bool = False
) -> None:
    """Write the file as llama.cpp's converter does: query and key rows reordered, tied embeddings once."""
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer, tokenizer)
    _add_tensor(writer, "token_embd.weight", model.model.embed_tokens.weight.detach().numpy(), in_8_bits)
    _add_tensor(writer, "output_norm.weight", model.model.norm.weight.detach().numpy(), in_8_bits)
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for index, layer in enumerate(model.model.layers):
        for theirs, ours in LAYER_NAMES.items():
            values = layer.get_submodule(theirs).weight.detach().numpy()
            if ours in heads:
                values = values.reshape(heads[ours], 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
            _add_tensor(writer, f"blk.{index}.{ours}.weight", values, in_8_bits)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerFast) -> None:
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    special = {token["content"] for token in state["added_tokens"] if token["special"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([CONTROL if token in special else NORMAL for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in state["model"]["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(False)


def _add_tensor(writer: gguf.GGUFWriter, name: str, values: np.ndarray, in_8_bits: bool) -> None:
    values = np.ascontiguousarray(values, dtype=np.float32)
    if in_8_bits and values.ndim == 2:
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    else:
        writer.add_tensor(name, values)


def install_package(site: Path, name: str, files: dict[str, bytes]) -> None:
    """Lay out a distribution as pip does; its module must never be imported, so importing it fails."""
    module = name.replace("-", "_")
    info = f"{module}-1.0.dist-info"
    contents = {
        **files,
        f"{module}/__init__.py": b"raise RuntimeError('imported')",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
    }
    record = "".join(f"{path},,\n" for path in [*contents, f"{info}/RECORD"])
    for path, content in {**contents, f"{info}/RECORD": record.encode()}.items():
        target = site / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    importlib.invalidate_caches()


def install_gguf(site: Path, content: bytes, num_parts: int = 1) -> GgufFile:
    """Install the bytes as one file or as several packages with a part each."""
    size = -(-len(content) // num_parts)
    parts = []
    for index in range(num_parts):
        name = f"tiny-llama-part{index}"
        path = f"{name.replace('-', '_')}/data/model.gguf.{index}"
        install_package(site, name, {path: content[index * size : (index + 1) * size]})
        parts.append(PackageFile(f"{name}==1.0", path))
    return GgufFile(tuple(parts), hashlib.sha256(content).hexdigest())

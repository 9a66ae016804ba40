"""Saved soft tokens, loaded through every door that PEFT and transformers have."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, AutoPeftModelForSeq2SeqLM, PeftConfig, PeftModel
from safetensors.torch import load_file, save_file
from soft_models import (
    ALL_FAMILIES,
    inputs_for,
    logits_of,
    new_rows,
    resized_model,
    soft_model,
    table,
)
from tiny_models import CAUSAL, MASKED, SEQ2SEQ, tiny_model
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from hf_prompting import SoftPromptConfig
from hf_prompting.errors import SoftPromptError

AUTO = {
    **dict.fromkeys(CAUSAL, AutoModelForCausalLM),
    **dict.fromkeys(MASKED, AutoModelForMaskedLM),
    **dict.fromkeys(SEQ2SEQ, AutoModelForSeq2SeqLM),
}
AUTO_PEFT = {**dict.fromkeys(CAUSAL, AutoPeftModelForCausalLM), **dict.fromkeys(SEQ2SEQ, AutoPeftModelForSeq2SeqLM)}
REPARAMETERIZATIONS = (None, "mlp", "lstm", "residual_mlp")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """family -> (base folder, adapter folder, logits of the model that was saved)."""
    made: dict[tuple[str, str | None], tuple[str, str, torch.Tensor]] = {}

    def make(family: str, reparameterization: str | None = None) -> tuple[str, str, torch.Tensor]:
        key = (family, reparameterization)
        if key not in made:
            folder = tmp_path_factory.mktemp(f"{family}_{reparameterization}")
            tiny_model(family).save_pretrained(folder / "base")
            base = AUTO[family].from_pretrained(folder / "base")
            model = soft_model(family, base, reparameterization=reparameterization)
            if reparameterization:
                train_a_little(model, family)
            model.save_pretrained(folder / "adapter")
            made[key] = str(folder / "base"), str(folder / "adapter"), logits_of(model.eval(), inputs_for(family))
        return made[key]

    return make


def train_a_little(model: Any, family: str, steps: int = 2) -> None:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        model(**inputs_for(family)).logits.float().log_softmax(-1)[..., 5].mean().neg().backward()
        optimizer.step()


@pytest.mark.parametrize("family", ALL_FAMILIES)
@pytest.mark.parametrize("is_trainable", [False, True])
def test_peft_model_from_pretrained_gives_equal_logits(saved: Any, family: str, is_trainable: bool) -> None:
    base, adapter, expected = saved(family)
    model = PeftModel.from_pretrained(AUTO[family].from_pretrained(base), adapter, is_trainable=is_trainable).eval()
    assert torch.equal(logits_of(model, inputs_for(family)), expected)
    assert [p.requires_grad for n, p in model.named_parameters() if "soft_tokens" in n] == [is_trainable]
    assert not any(p.requires_grad for n, p in model.named_parameters() if "soft_tokens" not in n)


@pytest.mark.parametrize("family", ALL_FAMILIES)
@pytest.mark.parametrize("reparameterization", REPARAMETERIZATIONS)
def test_auto_models_of_transformers_load_an_adapter_folder(
    saved: Any, family: str, reparameterization: str | None
) -> None:
    _, adapter, expected = saved(family, reparameterization)
    model = AUTO[family].from_pretrained(adapter).eval()
    torch.testing.assert_close(logits_of(model, inputs_for(family)), expected, atol=1e-3, rtol=1e-3)  # LSTM kernels
    if reparameterization is None:
        assert torch.equal(logits_of(model, inputs_for(family)), expected)


@pytest.mark.parametrize("family", AUTO_PEFT)
def test_auto_peft_models_load_an_adapter_folder(saved: Any, family: str) -> None:
    _, adapter, expected = saved(family)
    model = AUTO_PEFT[family].from_pretrained(adapter).eval()
    assert torch.equal(logits_of(model, inputs_for(family)), expected)


@pytest.mark.parametrize("family", ["gemma3", "bert", "t5", "bart"])
@pytest.mark.parametrize("is_trainable", [False, True])
@pytest.mark.parametrize("reparameterization", REPARAMETERIZATIONS)
def test_low_cpu_mem_usage_changes_nothing(
    saved: Any, family: str, is_trainable: bool, reparameterization: str | None
) -> None:
    base, adapter, expected = saved(family, reparameterization)
    model = PeftModel.from_pretrained(
        AUTO[family].from_pretrained(base), adapter, low_cpu_mem_usage=True, is_trainable=is_trainable
    ).eval()
    assert not any(tensor.is_meta for tensor in model.state_dict().values())
    torch.testing.assert_close(logits_of(model, inputs_for(family)), expected, atol=1e-3, rtol=1e-3)  # LSTM kernels


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_a_base_in_bfloat16_takes_the_rows_as_its_own_rows_in_bfloat16(saved: Any, family: str) -> None:
    base, adapter, _ = saved(family)
    model = PeftModel.from_pretrained(AUTO[family].from_pretrained(base, dtype=torch.bfloat16), adapter).eval()
    assert table(model).rows.dtype == torch.float32
    got, expected = (logits_of(m, inputs_for(family)) for m in (model, resized_model(family).to(torch.bfloat16)))
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got, expected, atol=0.2, rtol=0.05)


def test_a_fresh_process_gives_the_same_logits(saved: Any, tmp_path: Path) -> None:
    _, adapter, expected = saved("gemma3")
    script = (
        "import sys, torch, hf_prompting\n"
        "from safetensors.torch import load_file, save_file\n"
        "from transformers import AutoModelForCausalLM\n"
        "folder, inputs, out = sys.argv[1:]\n"
        "model = AutoModelForCausalLM.from_pretrained(folder).eval()\n"
        "with torch.no_grad(): logits = model(**load_file(inputs)).logits[..., :300].contiguous()\n"
        "save_file({'logits': logits}, out)\n"
    )
    save_file(inputs_for("gemma3"), tmp_path / "inputs.safetensors")
    arguments = [adapter, str(tmp_path / "inputs.safetensors"), str(tmp_path / "out.safetensors")]
    subprocess.run([sys.executable, "-c", script, *arguments], check=True, capture_output=True, text=True)
    got = load_file(tmp_path / "out.safetensors")["logits"]
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)


def test_the_saved_configuration_reads_back_as_itself(saved: Any) -> None:
    _, adapter, _ = saved("llama", "mlp")
    config = PeftConfig.from_pretrained(adapter)
    assert isinstance(config, SoftPromptConfig)
    assert (config.num_virtual_tokens, config.reparameterization, config.init) == (4, "mlp", "vocabulary")
    assert config.token_ids == [300, 301, 302, 303]
    assert json.loads((Path(adapter) / "adapter_config.json").read_text())["peft_type"] == "SOFT_TOKENS"


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_a_table_of_the_wrong_width_is_refused(saved: Any, low_cpu_mem_usage: bool) -> None:
    _, adapter, _ = saved("llama")
    wider = tiny_model("llama", hidden_size=48, num_attention_heads=4, head_dim=12)
    with pytest.raises(SoftPromptError, match=r"shape \(4, 32\) but this base needs \(4, 48\)"):
        PeftModel.from_pretrained(wider, adapter, low_cpu_mem_usage=low_cpu_mem_usage)


def damaged(adapter: str, folder: Path, *, rows: torch.Tensor | None = None, **config: Any) -> str:
    folder.mkdir()
    weights, settings = "adapter_model.safetensors", "adapter_config.json"
    state = load_file(Path(adapter) / weights)
    save_file({name: value if rows is None else rows for name, value in state.items()}, folder / weights)
    values = json.loads((Path(adapter) / settings).read_text())
    (folder / settings).write_text(json.dumps({**values, **config}))
    return str(folder)


def test_a_table_with_the_wrong_number_of_tokens_is_refused(saved: Any, tmp_path: Path) -> None:
    _, adapter, _ = saved("llama")
    folder = damaged(adapter, tmp_path / "a", rows=torch.zeros(3, 32))
    with pytest.raises(SoftPromptError, match=r"shape \(3, 32\) but this base needs \(4, 32\)"):
        PeftModel.from_pretrained(tiny_model("llama"), folder)


def test_rows_that_are_not_finite_are_refused(saved: Any, tmp_path: Path) -> None:
    _, adapter, _ = saved("llama")
    folder = damaged(adapter, tmp_path / "a", rows=torch.full((4, 32), torch.nan))
    with pytest.raises(SoftPromptError, match="not finite"):
        PeftModel.from_pretrained(tiny_model("llama"), folder)


def test_a_file_without_the_rows_is_refused(saved: Any, tmp_path: Path) -> None:
    base, adapter, _ = saved("llama")
    folder = Path(damaged(adapter, tmp_path / "a"))
    save_file({"other": torch.zeros(1)}, folder / "adapter_model.safetensors")
    with pytest.raises(SoftPromptError, match=r"holds no soft-token rows, only \['other'\]"):
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)


def test_an_unknown_key_of_the_configuration_names_the_nearest(saved: Any, tmp_path: Path) -> None:
    _, adapter, _ = saved("llama")
    folder = damaged(adapter, tmp_path / "a", reparameterization="mpl")
    with pytest.raises(SoftPromptError, match="Did you mean 'mlp'"):
        PeftConfig.from_pretrained(folder)


def test_saving_again_writes_the_same_rows(saved: Any, tmp_path: Path) -> None:
    base, adapter, _ = saved("bart")
    model = PeftModel.from_pretrained(AUTO["bart"].from_pretrained(base), adapter)
    model.save_pretrained(tmp_path)
    first, second = (load_file(Path(p) / "adapter_model.safetensors") for p in (adapter, tmp_path))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(next(iter(first.values())), new_rows())


def test_inputs_with_embeddings_still_work_beside_ids() -> None:
    model = soft_model("llama")
    inputs = inputs_for("llama")
    embedded = model.get_input_embeddings()(inputs["input_ids"])
    with torch.no_grad():
        by_embedding = model(inputs_embeds=embedded, attention_mask=inputs["attention_mask"]).logits
    assert torch.equal(by_embedding, logits_of(model, inputs))

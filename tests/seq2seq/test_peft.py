"""LoRA and soft prompts work on both sides of every preset."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tiny_seq2seq import PRESETS, some_ids, tiny_model

from hf_prompting import SoftPromptConfig


@pytest.mark.parametrize("preset", PRESETS)
def test_lora_finds_the_projections_of_all_three_attentions(preset: str) -> None:
    model = get_peft_model(tiny_model(preset), LoraConfig(target_modules=["q_proj", "v_proj"], r=2))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert len(trained) == 2 * 2 * (2 + 2 + 2)  # A and B, q and v, two layers of each attention
    ids = some_ids()
    model(input_ids=ids, labels=ids).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("preset", PRESETS)
def test_soft_tokens_are_read_by_encoder_and_decoder(preset: str) -> None:
    base = tiny_model(preset)
    model = get_peft_model(base, SoftPromptConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=2, seed=0))
    soft = torch.tensor([[99, 100], [99, 100]])
    ids = torch.cat((soft, some_ids()), dim=1)
    decoder_ids = torch.cat((soft, some_ids(2, 3, seed=2)), dim=1)
    for inputs in (
        {"input_ids": ids, "decoder_input_ids": some_ids(2, 3, seed=2)},
        {"input_ids": some_ids(), "decoder_input_ids": decoder_ids},
    ):
        model.zero_grad()
        model(**inputs).logits.pow(2).sum().backward()
        (rows,) = [parameter for parameter in model.parameters() if parameter.requires_grad]
        assert rows.grad is not None and (rows.grad.abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("preset", PRESETS)
def test_soft_prompts_generate_save_and_merge(preset: str, tmp_path: Path) -> None:
    model = get_peft_model(
        tiny_model(preset), SoftPromptConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=2, seed=0)
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    ids = torch.cat((torch.tensor([[99, 100], [99, 100]]), some_ids()), dim=1)
    expected = model.generate(input_ids=ids, max_new_tokens=6).tolist()
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny_model(preset), tmp_path).eval()
    assert loaded.generate(input_ids=ids, max_new_tokens=6).tolist() == expected
    logits = model(input_ids=ids, labels=ids * 0).logits
    merged = model.merge_and_unload()
    torch.testing.assert_close(merged(ids, labels=ids * 0).logits[..., :99], logits[..., :99], atol=1e-4, rtol=1e-4)
    assert merged.generate(ids, max_new_tokens=6).tolist() == expected

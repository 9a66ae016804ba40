"""The memory plan: worked out by hand, and its activations against what autograd really keeps."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from launched import CONFIGS, run_python
from peft import get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from hf_prompting import SoftPromptConfig
from hf_prompting.training.memory_plan import BaseSize, kept_values, plan_memory

SMALL = BaseSize(
    num_parameters=1_000_000,
    num_layers=4,
    hidden_size=64,
    key_value_size=32,
    intermediate_size=160,
    vocab_size=300,
    bytes_per_value=4,
)


def test_one_process_by_hand() -> None:
    plan = plan_memory(SMALL, num_soft_tokens=10, num_rows=2, num_tokens=5)
    assert plan.weights == 4_000_000
    assert plan.trained == 10 * 64 * 4 * 4  # rows, gradients, two states of AdamW
    assert plan.activations == 2 * 5 * (4 * 64 + 2 * 32 + 3 * 160) * 4 * 4  # rows, tokens, values, bytes, layers
    assert plan.gathered == plan.sent_per_step == 0
    assert plan.memory == plan.weights + plan.trained + plan.activations


def test_several_processes_by_hand() -> None:
    rows, head = 10 * 64 * 4, 300 * 64 * 4
    ddp = plan_memory(SMALL, num_soft_tokens=10, num_rows=2, num_tokens=5, num_processes=4)
    assert ddp.weights == 4_000_000
    assert ddp.sent_per_step == 0.75 * 2 * rows  # a ring: each part is sent on R - 1 times to add, and again to share
    split = plan_memory(SMALL, num_soft_tokens=10, num_rows=2, num_tokens=5, num_processes=4, how="fsdp2")
    assert split.weights == 1_000_000
    assert split.gathered == head + 2 * ((4_000_000 - head) // 4)
    assert split.sent_per_step == 0.75 * (2 * 4_000_000 + 2 * rows)


def test_checkpointed_activations_by_hand() -> None:
    plan = plan_memory(SMALL, num_soft_tokens=10, num_rows=2, num_tokens=5, activation_checkpointing=True)
    assert plan.activations == 2 * 5 * 4 * (4 * 64 + kept_values(SMALL))  # four inputs, and one layer computed again


def test_autograd_keeps_what_the_plan_counts() -> None:
    def kept_bytes(num_layers: int) -> int:
        config = LlamaConfig(
            vocab_size=300,
            hidden_size=64,
            intermediate_size=160,
            num_hidden_layers=num_layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
        )
        model = get_peft_model(LlamaForCausalLM(config), SoftPromptConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"))
        weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        kept: dict[int, torch.Tensor] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.untyped_storage().data_ptr() not in weights:
                kept[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        ids = torch.randint(5, 304, (4, 32), generator=torch.Generator().manual_seed(0))
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model.train().base_model.model.model(input_ids=ids, use_cache=False)
        return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())

    of_two_layers = kept_bytes(4) - kept_bytes(2)
    assert of_two_layers / (2 * 4 * 32 * 4) == pytest.approx(kept_values(SMALL), rel=0.02)


def test_the_table_of_the_readme_is_what_its_python_prints(tmp_path: Path) -> None:
    text = (CONFIGS / "README.md").read_text(encoding="utf-8")
    [block] = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    printed = run_python("-c", block, cwd=tmp_path).stdout.strip()
    assert printed
    assert printed in text


def test_every_configuration_is_in_the_readme_and_says_whether_it_was_run() -> None:
    text = (CONFIGS / "README.md").read_text(encoding="utf-8")
    for file in CONFIGS.glob("*.yaml"):
        assert f"`{file.name}`" in text
        assert re.search(r"\brun\b", file.read_text(encoding="utf-8"), flags=re.IGNORECASE)

"""Where soft tokens start."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from soft_models import config_for, soft_model, table
from tiny_models import tiny_model
from tiny_tokenizers import byte_level_bpe
from torch import Tensor

from hf_prompting import SoftPromptConfig
from hf_prompting.errors import SoftPromptError
from hf_prompting.soft_prompts.initialization import INITIALIZERS, initial_rows, repeat_to_length


def weight(num_rows: int = 600, width: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    scale = torch.linspace(0.1, 3.0, width)
    return torch.randn(num_rows, width, generator=generator) * scale + torch.arange(width)


def rows_of(model: object) -> Tensor:
    rows: Tensor = table(model).rows.detach()
    return rows


@pytest.mark.parametrize("init", INITIALIZERS)
def test_a_seed_gives_the_same_rows_and_another_seed_gives_others(init: str) -> None:
    first, second, third = (initial_rows(weight(), 20, init=init, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert first.dtype == torch.float32


def test_the_seed_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    initial_rows(weight(), 20, init="random", seed=1)
    assert torch.equal(torch.rand(3), expected)


def test_random_rows_have_the_mean_and_the_spread_of_the_real_rows() -> None:
    real, rows = weight(), initial_rows(weight(), 20_000, init="random", seed=0)
    torch.testing.assert_close(rows.mean(0), real.mean(0), atol=0.1, rtol=0.02)
    torch.testing.assert_close(rows.std(0), real.std(0), atol=0.02, rtol=0.03)


def test_vocabulary_rows_are_rows_of_real_tokens_of_usual_length() -> None:
    real = weight()
    real[7] = 1000.0
    real[8] = 0.0
    rows = initial_rows(real, 500, init="vocabulary", seed=0)
    assert all(any(torch.equal(row, other) for other in real) for row in rows[:50])
    assert rows.norm(dim=1).max() < 100 and rows.norm(dim=1).min() > 0.1


def test_rows_are_copies_that_leave_the_embedding_alone() -> None:
    real = weight()
    initial_rows(real, 4, init="vocabulary", init_token_ids=[[1], [], [2], []], seed=0).zero_()
    assert torch.equal(real, weight())


def test_given_ids_are_averaged_and_empty_ones_left_to_the_initializer() -> None:
    real = weight()
    rows = initial_rows(real, 3, init="random", init_token_ids=[[4], [], [5, 6]], seed=0)
    torch.testing.assert_close(rows[0], real[4])
    torch.testing.assert_close(rows[2], (real[5] + real[6]) / 2)
    assert torch.equal(rows[1], initial_rows(real, 3, init="random", seed=0)[1])


@pytest.mark.parametrize("ids", [[600], [-1]])
def test_an_id_outside_the_embedding_is_an_error(ids: list[int]) -> None:
    with pytest.raises(SoftPromptError, match=r"init_token_ids\[0\].*600 rows"):
        initial_rows(weight(), 1, init="random", init_token_ids=[ids])


def test_a_text_is_cut_or_repeated() -> None:
    assert repeat_to_length([7, 8, 9], 2) == [[7], [8]]
    assert repeat_to_length([7, 8], 5) == [[7], [8], [7], [8], [7]]
    with pytest.raises(SoftPromptError, match="has no tokens"):
        repeat_to_length([], 3)


def test_an_embedding_of_one_row_can_be_started_from() -> None:
    assert initial_rows(torch.ones(1, 4), 2, init="vocabulary", seed=0).tolist() == [[1.0] * 4] * 2
    assert initial_rows(torch.ones(1, 4), 2, init="random", seed=0).isfinite().all()


def test_get_peft_model_starts_from_the_tokens_of_a_text(tmp_path: Path) -> None:
    tokenizer = byte_level_bpe()
    tokenizer.save_pretrained(tmp_path)
    base = tiny_model("gpt2", vocab_size=len(tokenizer))
    config = SoftPromptConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=6,
        init="text",
        init_text="It was great",
        tokenizer_name_or_path=str(tmp_path),
    )
    model = get_peft_model(base, config)
    ids = tokenizer("It was great", add_special_tokens=False).input_ids
    assert len(ids) < 6
    expected = tiny_model("gpt2", vocab_size=len(tokenizer)).get_input_embeddings().weight[(ids * 6)[:6]]
    assert torch.equal(rows_of(model), expected)
    assert config.init_token_ids == [[token] for token in (ids * 6)[:6]]


def test_a_text_without_a_tokenizer_is_an_error() -> None:
    config = SoftPromptConfig(num_virtual_tokens=4, init="text", init_text="It was great")
    with pytest.raises(SoftPromptError, match="set tokenizer_name_or_path or give init_token_ids"):
        get_peft_model(tiny_model("gpt2"), config)


@pytest.mark.parametrize("family", ["gemma3", "bart"])
def test_a_scaled_embedding_is_copied_before_its_scale(family: str) -> None:
    model = soft_model(family, init_token_ids=[[40], [41], [42], [43]], rows=None)
    fresh = get_peft_model(tiny_model(family), config_for(family, init_token_ids=[[40], [41], [42], [43]]))
    embed = fresh.get_input_embeddings()
    assert torch.equal(rows_of(fresh), tiny_model(family).get_input_embeddings().weight[40:44])
    assert torch.equal(embed(torch.tensor([[300, 301]])), embed(torch.tensor([[40, 41]])))
    assert not torch.equal(rows_of(model), rows_of(fresh))


@pytest.mark.parametrize("init", ["random", "vocabulary"])
def test_the_configured_seed_reaches_the_rows(init: str) -> None:
    first, second = (get_peft_model(tiny_model("llama"), config_for("llama", init=init, seed=11)) for _ in range(2))
    third = get_peft_model(tiny_model("llama"), config_for("llama", init=init, seed=12))
    assert torch.equal(rows_of(first), rows_of(second))
    assert not torch.equal(rows_of(first), rows_of(third))


def test_a_base_in_bfloat16_gets_rows_in_float32() -> None:
    model = get_peft_model(tiny_model("llama").to(torch.bfloat16), config_for("llama"))
    assert rows_of(model).dtype == torch.float32


def test_label_words_without_a_verbalizer_are_an_error() -> None:
    with pytest.raises(SoftPromptError, match="needs a verbalizer"):
        get_peft_model(tiny_model("gpt2"), config_for("gpt2", init="label_words"))

"""SoftPromptConfig judges itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from peft import PeftConfig, PeftType, get_peft_model
from tiny_models import tiny_model
from torch import nn

from hf_prompting import SoftPromptConfig
from hf_prompting.errors import SoftPromptError

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown init": ({"init": "txt"}, "init='txt' is unknown.*Did you mean 'text'"),
    "unknown network": ({"reparameterization": "lsmt"}, "reparameterization='lsmt'.*None or.*Did you mean 'lstm'"),
    "text without text": ({"init": "text"}, "needs init_text"),
    "no tokens": ({"num_virtual_tokens": 0}, "num_virtual_tokens=0 must be at least 1"),
    "negative width": ({"reparameterization_hidden_size": -1}, "reparameterization_hidden_size=-1 must be at least 1"),
    "ids twice": ({"token_ids": [5, 5]}, "distinct"),
    "no ids": ({"token_ids": []}, "not empty"),
    "negative id": ({"token_ids": [-1]}, "at least 0"),
    "two counts": ({"token_ids": [5, 6], "num_virtual_tokens": 3}, "num_virtual_tokens=3 but token_ids has 2"),
    "starts": ({"init_token_ids": [[1]], "num_virtual_tokens": 3}, "init_token_ids has 1 entries for 3"),
}


@pytest.mark.parametrize("kwargs, message", WRONG.values(), ids=WRONG)
def test_a_wrong_value_is_one_clear_error(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(SoftPromptError, match=message):
        SoftPromptConfig(**kwargs)


def test_token_ids_count_themselves() -> None:
    assert SoftPromptConfig(token_ids=[9, 4]).num_virtual_tokens == 2


def test_the_peft_type_is_an_enum_member_that_saves_as_its_name(tmp_path: Path) -> None:
    config = SoftPromptConfig(num_virtual_tokens=2, seed=3)
    assert config.peft_type is PeftType("SOFT_TOKENS")
    config.save_pretrained(tmp_path)
    again = PeftConfig.from_pretrained(tmp_path)
    assert again == config


def test_a_config_without_a_number_of_tokens_is_refused_by_the_model() -> None:
    with pytest.raises(SoftPromptError, match="num_virtual_tokens is not set"):
        get_peft_model(tiny_model("llama"), SoftPromptConfig())


def test_a_model_without_a_token_embedding_is_refused() -> None:
    with pytest.raises(SoftPromptError, match="no input token embedding"):
        get_peft_model(nn.Linear(2, 2), SoftPromptConfig(num_virtual_tokens=2))


def test_the_config_of_the_user_is_filled_in_with_the_ids() -> None:
    config = SoftPromptConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    get_peft_model(tiny_model("llama"), config)
    assert config.token_ids == [300, 301]

"""How SOFT_TOKENS becomes a PEFT method."""

from __future__ import annotations

import pickle

import pytest
from peft import PeftType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils import register_peft_method

from hf_prompting import SoftPromptConfig, SoftTokensModel
from hf_prompting.soft_prompts.registration import METHOD_NAME, peft_type, register


def test_peft_still_closes_its_method_list() -> None:
    """If this fails, PEFT opened its registry: delete the enum step of soft_prompts/registration.py.

    That is the whole of ``peft_type`` but its last line; ``register`` keeps calling ``register_peft_method``.
    """
    assert "NOT_YET_A_METHOD" not in PeftType.__members__
    with pytest.raises((KeyError, ValueError)):
        register_peft_method(name="not_yet_a_method", config_cls=SoftPromptConfig, model_cls=SoftTokensModel)


def test_registering_twice_is_harmless() -> None:
    before = list(PeftType)
    member = peft_type()
    register(SoftPromptConfig, SoftTokensModel)
    register(SoftPromptConfig, SoftTokensModel)
    assert list(PeftType) == before
    assert peft_type() is member


def test_peft_knows_the_configuration_the_tuner_and_the_prefix() -> None:
    member = peft_type()
    assert PEFT_TYPE_TO_CONFIG_MAPPING[member] is SoftPromptConfig
    assert PEFT_TYPE_TO_TUNER_MAPPING[member] is SoftTokensModel
    assert PEFT_TYPE_TO_PREFIX_MAPPING[member] == SoftTokensModel.prefix == f"{METHOD_NAME}_"


def test_the_new_member_behaves_like_the_others() -> None:
    member = peft_type()
    assert member in list(PeftType)
    assert PeftType["SOFT_TOKENS"] is PeftType.SOFT_TOKENS is PeftType("SOFT_TOKENS") is member
    assert member == "SOFT_TOKENS" and member.value == "SOFT_TOKENS"
    assert pickle.loads(pickle.dumps(member)) is member  # our own bytes, never a file's
    assert [other for other in PeftType if other == member] == [member]

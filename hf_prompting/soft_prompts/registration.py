"""Make ``SOFT_TOKENS`` a PEFT method; the only file that touches PEFT's closed list of methods.

PEFT's ``register_peft_method`` accepts only names that are already members of its ``PeftType`` enum, so a third party
has to add the member first. ``tests/soft_prompts/test_registration.py`` says what to delete when PEFT opens the list.
"""

from __future__ import annotations

from typing import Any

from peft.utils import PeftType, register_peft_method

METHOD_NAME = "soft_tokens"


def peft_type() -> Any:
    """Return ``PeftType.SOFT_TOKENS``, adding it to PEFT's enum on the first call."""
    member_name = METHOD_NAME.upper()
    if member_name not in PeftType.__members__:
        member = str.__new__(PeftType, member_name)
        member._name_ = member_name
        member._value_ = member_name
        PeftType._member_map_[member_name] = member
        PeftType._value2member_map_[member_name] = member
        PeftType._member_names_.append(member_name)
        type.__setattr__(PeftType, member_name, member)
    return PeftType(member_name)


def register(config_cls: type, model_cls: type) -> None:
    """Tell PEFT which configuration and tuner belong to ``SOFT_TOKENS``; a second call changes nothing."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    if peft_type() not in PEFT_TYPE_TO_CONFIG_MAPPING:
        register_peft_method(name=METHOD_NAME, config_cls=config_cls, model_cls=model_cls)

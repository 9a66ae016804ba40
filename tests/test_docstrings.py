"""The examples in docstrings run as they stand; those that need a model or files say ``# doctest: +SKIP``."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import hf_prompting

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(hf_prompting.__path__, "hf_prompting.")
    if not module.name.endswith("__main__")
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0

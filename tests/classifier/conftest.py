"""Tiny bases, saved once for all classifier tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
from classifier_parts import save_base


@pytest.fixture(scope="session")
def base_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """family -> folder of its tiny base model and tokenizer."""
    return cache(lambda family: save_base(family, tmp_path_factory.mktemp(f"base_{family}")))

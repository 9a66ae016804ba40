from __future__ import annotations

from pathlib import Path

import pytest
from saved_prompts import save_prompt

from hf_prompting.recipe.prediction import Classifier, load_classifier


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_prompt(tmp_path_factory.mktemp("demo"), name="tiny reviews", about="Tells good from bad.")


@pytest.fixture(scope="session")
def classifier(saved: Path) -> Classifier:
    return load_classifier(str(saved))

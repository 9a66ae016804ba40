"""Contenders of ``bench seq2seq`` do the same work, with as many weights, and the measures say what was compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from hf_prompting.benchmarks.contenders import encoder_decoder_parts, encoder_decoders
from hf_prompting.benchmarks.seq2seq import GENERATING, OURS, SIZES, SMOKE_SIZES, settings_of
from hf_prompting.cli import app

TINY: dict[str, Any] = {
    **SMOKE_SIZES,
    "batch_size": 2,
    "num_steps": 2,
    "num_beams": 1,
    "num_calls": 1,
    "compiled": False,
}


def test_all_contenders_have_nearly_as_many_weights() -> None:
    with torch.device("meta"):
        models = {name: build(SIZES) for name, build in encoder_decoders.MODELS.items()}
    numbers = {name: sum(weight.numel() for weight in model.parameters()) for name, model in models.items()}
    assert max(numbers.values()) < 1.02 * min(numbers.values()), numbers


@pytest.mark.parametrize("name", encoder_decoders.MODELS)
def test_every_contender_trains_on_the_same_tokens(name: str) -> None:
    facts = encoder_decoders.training({**TINY, "model": name})()
    assert facts["num_tokens"] == 2 * 2 * (8 + 8)
    assert 0 < facts["loss"] < 20 and facts["operations"] > 0


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler here (apt install g++)")
@pytest.mark.parametrize("name", ["hf_prompting", "BART"])
def test_a_compiled_contender_trains_as_the_eager_one(name: str) -> None:
    settings = {**TINY, "model": name, "dropout": 0.0}
    losses = [encoder_decoders.training({**settings, "compiled": compiled})()["loss"] for compiled in (False, True)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("name", [OURS, *GENERATING])
def test_every_contender_generates_as_many_tokens(name: str, num_beams: int) -> None:
    settings = {**TINY, "model": name, "num_beams": num_beams}
    assert encoder_decoders.generation(settings)()["num_tokens"] == 2 * 8


def test_the_operations_of_a_step_are_two_for_a_product_and_twice_that_backwards() -> None:
    facts = encoder_decoders.training({**TINY, "model": "hf_prompting, no gate", "num_steps": 1})()
    width, inner, vocabulary = 32, 64, 99
    attentions, feed_forwards = 3 * 4 * width * width, 2 * 2 * width * inner  # one layer a side
    assert facts["operations"] == 6 * 2 * 8 * (attentions + feed_forwards + width * vocabulary)


def test_every_part_is_timed_next_to_what_it_replaces() -> None:
    facts = encoder_decoder_parts.parts({**TINY, "num_turns": 2})()
    assert len(facts) == 4
    assert all(seconds["ours"] > 0 and seconds["theirs"] > 0 for seconds in facts.values())


def test_smoke_compiles_nothing_and_is_short() -> None:
    assert not any(how["compile"] for how in settings_of(smoke=True)["generations"].values())
    assert settings_of(smoke=False)["num_rounds"] >= 5


@pytest.mark.slow
def test_the_command_writes_what_it_prints(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["bench", "seq2seq", "--smoke", "--output-dir", str(tmp_path)])
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "seq2seq.json").read_text())
    assert {"training step", "greedy, batch 1, eager"} <= {measure["name"] for measure in written["measures"]}
    assert (tmp_path / "seq2seq.png").stat().st_size > 1000
    assert str(tmp_path) not in json.dumps(written)

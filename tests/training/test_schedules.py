"""Learning-rate schedules, worked out by hand."""

from __future__ import annotations

import itertools

import pytest
import torch

from hf_prompting.training.schedules import FINAL_SHARE, SCHEDULES, exponential_share, make_schedule


def rates(name: str, *, num_warmup_steps: int = 2, num_training_steps: int = 6) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=8.0)
    schedule = make_schedule(name, optimizer, num_warmup_steps=num_warmup_steps, num_training_steps=num_training_steps)
    found = []
    for _ in range(num_training_steps + 1):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("linear", [0, 4, 8, 6, 4, 2, 0]),  # three quarters, a half, a quarter of the peak
        ("cosine", [0, 4, 8, 8 * 0.8535534, 4, 8 * 0.1464466, 0]),  # (1 + cos(pi / 4)) / 2 = 0.8535534
        ("exponential", [0, 4, 8, 8 * 0.01**0.25, 0.8, 8 * 0.01**0.75, 0.08]),  # half the way: sqrt(0.01) = 0.1
        ("inverse_sqrt", [0, 4, 8, 8 * (2 / 3) ** 0.5, 8 * 0.5**0.5, 8 * 0.4**0.5, 8 * (1 / 3) ** 0.5]),
        ("constant", [0, 4, 8, 8, 8, 8, 8]),
    ],
)
def test_each_schedule_rises_and_then_follows_its_formula(name: str, expected: list[float]) -> None:
    assert rates(name) == pytest.approx(expected)


def test_the_table_names_what_a_recipe_may_say() -> None:
    import typing

    from hf_prompting.recipe.generation_schema import GenerationTrainingSection

    hint = typing.get_type_hints(GenerationTrainingSection)["schedule"]
    assert set(typing.get_args(hint)) == set(SCHEDULES)


def test_the_exponential_schedule_stays_at_its_end_and_needs_no_warmup() -> None:
    assert exponential_share(0, num_warmup_steps=0, num_training_steps=5) == 1
    assert exponential_share(99, num_warmup_steps=0, num_training_steps=5) == FINAL_SHARE
    steps = [exponential_share(step, num_warmup_steps=1, num_training_steps=9) for step in range(1, 10)]
    factors = {round(later / earlier, 9) for earlier, later in itertools.pairwise(steps)}
    assert len(factors) == 1

"""The nearest rows of an embedding: by hand, in chunks, with rows left out."""

from __future__ import annotations

import pytest
import torch

from hf_prompting.errors import ShapeError
from hf_prompting.soft_prompts.nearest import nearest_rows


def test_cosines_worked_out_by_hand() -> None:
    weight = torch.tensor([[1.0, 0.0], [0.0, 5.0], [3.0, 4.0], [0.0, 0.0], [-1.0, 0.0]])
    cosines, ids = nearest_rows(torch.tensor([[2.0, 0.0], [0.0, 0.1]]), weight, num_nearest=3)
    assert ids.tolist() == [[0, 2, 1], [1, 2, 0]]
    torch.testing.assert_close(cosines, torch.tensor([[1.0, 0.6, 0.0], [1.0, 0.8, 0.0]]))


def test_of_equal_rows_the_lower_number_comes_first() -> None:
    weight = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    assert nearest_rows(torch.tensor([[4.0, 0.0]]), weight, num_nearest=2, chunk_size=1)[1].tolist() == [[1, 2]]


@pytest.mark.parametrize("chunk_size", [1, 7, 64, 1000])
def test_chunks_change_nothing(chunk_size: int) -> None:
    torch.manual_seed(0)
    rows, weight = torch.randn(5, 16), torch.randn(300, 16)
    expected = torch.nn.functional.cosine_similarity(rows[:, None], weight[None], dim=-1).topk(4)
    cosines, ids = nearest_rows(rows, weight, num_nearest=4, chunk_size=chunk_size)
    assert ids.tolist() == expected.indices.tolist()
    torch.testing.assert_close(cosines, expected.values)


def test_rows_that_are_not_allowed_are_left_out() -> None:
    allowed = torch.tensor([False, True, False, True])
    cosines, ids = nearest_rows(torch.tensor([[1.0, 0.0]]), torch.eye(4)[:, :2], num_nearest=3, is_allowed_V=allowed)
    assert ids.tolist() == [[1, 3]]
    assert cosines.tolist() == [[0.0, 0.0]]


def test_low_precision_rows_and_their_gradient_are_left_alone() -> None:
    rows = torch.nn.Parameter(torch.tensor([[1.0, 0.1]]))
    cosines, ids = nearest_rows(rows, torch.eye(2, dtype=torch.bfloat16), num_nearest=1)
    assert ids.tolist() == [[0]]
    assert not cosines.requires_grad


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match="differ in width"):
        nearest_rows(torch.zeros(1, 3), torch.zeros(4, 2))
    with pytest.raises(ShapeError, match="num_nearest=0"):
        nearest_rows(torch.zeros(1, 2), torch.zeros(4, 2), num_nearest=0)

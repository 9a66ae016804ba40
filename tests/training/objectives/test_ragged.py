"""Rows without padding: what is put around them comes off again."""

from __future__ import annotations

from itertools import chain

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_prompting.training.objectives.ragged import Ragged

ids = st.lists(st.integers(0, 5), max_size=6)


def ragged(rows: list[list[int]]) -> Ragged:
    return Ragged(
        np.array(list(chain.from_iterable(rows)), dtype=np.int64), np.array([len(row) for row in rows], dtype=np.int64)
    )


def lists(rows: Ragged) -> list[list[int]]:
    return [row.tolist() for row in np.split(rows.values, np.cumsum(rows.lengths)[:-1])]


@settings(deadline=None)
@given(st.lists(ids, min_size=1, max_size=5), st.lists(st.integers(6, 9), max_size=2), st.lists(st.integers(6, 9)))
def test_a_frame_comes_off_again(rows: list[list[int]], before: list[int], after: list[int]) -> None:
    framed = ragged(rows).framed(before, after)
    assert lists(framed) == [[*before, *row, *after] for row in rows]
    assert lists(framed.unframed(before, after)) == rows


def test_only_a_whole_frame_comes_off() -> None:
    rows = ragged([[7, 1, 8, 9], [7], [1, 9], [8, 9], [9]])
    assert lists(rows.unframed([7], [8, 9])) == [[1], [], [1, 9], [], [9]]


def test_kept_tokens_close_up_and_empty_rows_stay() -> None:
    rows = ragged([[1, 2], [], [3]])
    assert lists(rows.kept(np.array([False, True, False]))) == [[2], [], []]
    assert rows.padded(0).tolist() == [[1, 2], [0, 0], [3, 0]]
    assert rows.position_of.tolist() == [0, 1, 0]

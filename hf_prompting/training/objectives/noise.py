"""Seeded randomness for a batch: fresh at every step of training, fixed for rows that are measured again and again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import get_worker_info

from hf_prompting.training.objectives.ragged import Bools, Ints

NOISE_KEY = "noise_key"
_FRESH, _FIXED = 0, 1


class Noise:
    """Uniform numbers for B rows from one seed, or from one seed a row.

    Every call is a stream of its own, so that a row's numbers do not depend on how many another call took.

    Example:
        >>> Noise([(0, 7)]).uniform(2).tolist() == Noise([(0, 6), (0, 7)]).uniform(9)[1:, :2].tolist()
        True
    """

    def __init__(self, seeds: Sequence[tuple[int, ...]], num_rows: int | None = None) -> None:
        self._seeds = seeds
        self._num_rows = num_rows
        self._streams = count()

    def uniform(self, width: int) -> NDArray[np.float64]:
        """Return (B, width) numbers from 0 to below 1."""
        stream = next(self._streams)
        if self._num_rows is not None:
            return np.random.default_rng((*self._seeds[0], stream)).random((self._num_rows, width))
        return np.stack([np.random.default_rng((*seed, stream)).random(width) for seed in self._seeds])

    def chosen(self, eligible_BT: Bools, num_B: Ints) -> Bools:
        """Choose ``num_B`` of each row's eligible places, every set equally likely. (B, T) -> (B, T)"""
        keys_BT = np.where(eligible_BT, self.uniform(eligible_BT.shape[1]), np.inf)
        order_BT = np.argsort(keys_BT, axis=1)
        chosen_BT = np.zeros_like(eligible_BT)
        np.put_along_axis(chosen_BT, order_BT, np.arange(eligible_BT.shape[1]) < num_B[:, None], axis=1)
        return chosen_BT


class NoiseSource:
    """Hands out the noise of one batch after the other.

    A row with a ``noise_key`` gets the noise of that key whatever batch it is in, so that a measurement repeats. All
    other batches get the noise of (seed, number of the batch): a run with the same seed repeats, and an epoch does not.
    In a worker process of ``DataLoader`` its own seed is mixed in, because every worker counts for itself.

    Args:
        seed: of everything.
        first_step: number of the first batch; a run that goes on after N batches gives N.
    """

    def __init__(self, seed: int, first_step: int = 0) -> None:
        self._seed = seed
        self._step = first_step

    def next_batch(self, features: Sequence[Mapping[str, Any]]) -> Noise:
        """Return the noise of the next batch, or of its rows' keys."""
        if all(NOISE_KEY in feature for feature in features):
            return Noise([(self._seed, _FIXED, int(feature[NOISE_KEY])) for feature in features])
        worker = get_worker_info()
        step, self._step = self._step, self._step + 1
        return Noise([(self._seed, _FRESH, step, *(() if worker is None else (worker.seed,)))], len(features))


def with_noise_keys(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Give every row its number as ``noise_key``: it is then corrupted in the same way at each measurement.

    Example:
        >>> with_noise_keys([{"input_ids": [5, 6]}])
        [{'input_ids': [5, 6], 'noise_key': 0}]
    """
    return [{**row, NOISE_KEY: row.get(NOISE_KEY, number)} for number, row in enumerate(rows)]

"""Tuning with the ordinary ``Trainer``: arguments, callbacks, checkpoints that survive, and one function."""

from hf_prompting.training.arguments import check_extra_arguments, make_arguments
from hf_prompting.training.callbacks import QuietProgress, StopOnNonFinite
from hf_prompting.training.checkpoints import (
    SealCheckpoints,
    drop_partial_checkpoints,
    is_whole,
    newest_whole_checkpoint,
    seal_folder,
)
from hf_prompting.training.interruption import SaveBeforeStop, signals_as_exceptions
from hf_prompting.training.memory import out_of_memory_says
from hf_prompting.training.tuning import Tuning, tune

__all__ = [
    "QuietProgress",
    "SaveBeforeStop",
    "SealCheckpoints",
    "StopOnNonFinite",
    "Tuning",
    "check_extra_arguments",
    "drop_partial_checkpoints",
    "is_whole",
    "make_arguments",
    "newest_whole_checkpoint",
    "out_of_memory_says",
    "seal_folder",
    "signals_as_exceptions",
    "tune",
]

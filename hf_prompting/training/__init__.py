"""Tuning with the ordinary ``Trainer``: its arguments, two callbacks and one function."""

from hf_prompting.training.arguments import check_extra_arguments, make_arguments
from hf_prompting.training.callbacks import QuietProgress, StopOnNonFinite
from hf_prompting.training.tuning import Tuning, tune

__all__ = ["QuietProgress", "StopOnNonFinite", "Tuning", "check_extra_arguments", "make_arguments", "tune"]

"""Two callbacks of the ordinary ``Trainer``: stop at a loss that is not a number, and a progress bar of one line."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import ProgressCallback, TrainerCallback

from hf_prompting.errors import TrainingError
from hf_prompting.training.checkpoints import newest_whole_checkpoint


class StopOnNonFinite(TrainerCallback):  # type: ignore[misc]
    """Stop before a gradient or loss that is not finite can damage the weights.

    ``Trainer`` would go on: by default it even hides such a loss from its log (``logging_nan_inf_filter``). Gradients
    are looked at before the optimiser uses them and losses before a checkpoint is written, so every checkpoint is good.

    Raises:
        TrainingError: says the step and where the last good checkpoint is.
    Example:
        >>> Trainer(model=model, args=arguments, callbacks=[StopOnNonFinite()])  # doctest: +SKIP
    """

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: nn.Module, **kwargs: Any) -> None:
        """Check every trained tensor's gradient."""
        for name, parameter in model.named_parameters():
            if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
                raise _stopped(f"the gradient of {name} is not finite", state.global_step + 1, args.output_dir)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Check the training loss and the dev loss."""
        for key in ("loss", "eval_loss"):
            value = (logs or {}).get(key)
            if value is not None and not math.isfinite(value):
                name = "training loss" if key == "loss" else "loss on the dev rows"
                raise _stopped(f"the {name} is {value}", state.global_step, args.output_dir)


class QuietProgress(ProgressCallback):  # type: ignore[misc]
    """Trainer's progress bar, with the last loss beside it instead of one printed line a step."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Show the latest numbers at the end of the bar."""
        if self.training_bar is not None:
            shown = {"loss": "loss", "eval_loss": "dev_loss", "eval_accuracy": "dev_accuracy"}
            latest = {shown[key]: f"{value:.3f}" for key, value in (logs or {}).items() if key in shown}
            self.latest: dict[str, str] = {**getattr(self, "latest", {}), **latest}
            self.training_bar.set_postfix(self.latest)

    def close(self) -> None:
        """End the bars that an error left open, so that its message is the last thing on the screen."""
        for bar in (self.prediction_bar, self.training_bar):
            if bar is not None:
                bar.close()


def _stopped(what: str, step: int, output_dir: str) -> TrainingError:
    checkpoint = newest_whole_checkpoint(Path(output_dir))
    kept = f"the last good checkpoint is kept in {checkpoint}" if checkpoint else "no checkpoint was saved before"
    return TrainingError(
        f"training stopped at step {step}: {what}; {kept}. Lower training.learning_rate or "
        "training.arguments.max_grad_norm"
    )

"""The dev loss of several processes is that of one."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Trainer


class CountsRowsOnce(Trainer):  # type: ignore[misc]
    """``Trainer``, whose dev loss counts every row once in several processes too.

    Where the last batch does not fill all processes, ``accelerate`` fills it with rows from the beginning. ``Trainer``
    takes them out of the predictions again, but not out of the mean loss of their batch.

    Example:
        >>> CountsRowsOnce(model=classifier, args=arguments, eval_dataset=dev).evaluate()  # doctest: +SKIP
    """

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Measure as ``Trainer`` does, and replace the loss by that of the predictions."""
        output = super().evaluation_loop(*args, **kwargs)
        name = f"{kwargs.get('metric_key_prefix', 'eval')}_loss"
        if self.args.world_size > 1 and name in output.metrics and output.predictions is not None:
            logits, labels = torch.from_numpy(output.predictions), torch.from_numpy(output.label_ids)
            output.metrics[name] = float(self.model.mean_loss(logits, labels))
        return output

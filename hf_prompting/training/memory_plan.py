"""What tuning soft tokens costs, on paper: bytes of memory and of communication for each process.

Counted for a causal model with gated feed-forward layers (Llama, Gemma, Qwen, SmolLM); ``recipes/accelerate/README.md``
derives the formulas and prints a table with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FLOAT32 = 4
ADAM_STATES = 2  # running means of the gradient and of its square


@dataclass(frozen=True, kw_only=True)
class BaseSize:
    """The numbers of a base model that memory depends on.

    Attributes:
        num_parameters: of the whole model, a tied head counted once.
        num_layers: L.
        hidden_size: H.
        key_value_size: key heads times their width.
        intermediate_size: width of the feed-forward layer.
        vocab_size: V.
        bytes_per_value: 4 for float32, 2 for bfloat16; of weights and activations alike.
    """

    num_parameters: int
    num_layers: int
    hidden_size: int
    key_value_size: int
    intermediate_size: int
    vocab_size: int
    bytes_per_value: int = 2


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """Bytes for each process.

    Attributes:
        weights: of the frozen base that stay in memory.
        gathered: of weights that are put together from all processes while a layer works; 0 for DDP.
        trained: of the soft tokens' rows, their gradients and AdamW's states.
        activations: kept from the forward pass for the backward pass.
        sent_per_step: sent by each process in one optimiser step of one batch.
    """

    weights: int
    gathered: int
    trained: int
    activations: int
    sent_per_step: int

    @property
    def memory(self) -> int:
        """All that has to fit at once."""
        return self.weights + self.gathered + self.trained + self.activations


def plan_memory(
    base: BaseSize,
    *,
    num_soft_tokens: int,
    num_rows: int,
    num_tokens: int,
    num_processes: int = 1,
    how: Literal["ddp", "fsdp2"] = "ddp",
    activation_checkpointing: bool = False,
) -> MemoryPlan:
    """Compute what each process holds and sends.

    The base is frozen, so a linear layer keeps nothing for the gradient of its weight; what is kept are the inputs of
    the functions that are not linear. Logits over the vocabulary are never held (``classifier/label_head.py``).

    Args:
        base: the model.
        num_soft_tokens: P.
        num_rows: B rows of a batch of one process.
        num_tokens: T tokens of a row.
        num_processes: R.
        how: whole copies of the weights, or split ones.
        activation_checkpointing: keep only the input of each layer, and compute the rest again.
    Returns:
        The bytes.
    Example:
        >>> size = BaseSize(num_parameters=1000, num_layers=2, hidden_size=8, key_value_size=4, intermediate_size=16,
        ...                 vocab_size=50, bytes_per_value=4)
        >>> plan_memory(size, num_soft_tokens=3, num_rows=1, num_tokens=5).trained
        384
    """
    rows = num_soft_tokens * base.hidden_size * FLOAT32
    all_weights = base.num_parameters * base.bytes_per_value
    head = base.vocab_size * base.hidden_size * base.bytes_per_value
    one_layer = max(all_weights - head, 0) // base.num_layers
    per_layer = num_rows * num_tokens * kept_values(base) * base.bytes_per_value
    layer_inputs = num_rows * num_tokens * base.hidden_size * base.bytes_per_value * base.num_layers
    other_processes = (num_processes - 1) / num_processes
    is_split = how == "fsdp2" and num_processes > 1
    return MemoryPlan(
        weights=all_weights // num_processes if is_split else all_weights,
        gathered=head + 2 * one_layer if is_split else 0,  # the layer at work and the next one
        trained=rows * (2 + ADAM_STATES) // (num_processes if is_split else 1),
        activations=layer_inputs + per_layer if activation_checkpointing else per_layer * base.num_layers,
        sent_per_step=round(other_processes * (2 * all_weights + 2 * rows if is_split else 2 * rows)),
    )


def kept_values(base: BaseSize) -> int:
    """Return how many values a layer keeps of one token for the backward pass.

    The inputs of the two norms (2 H); of attention queries, keys, values and its output (2 H and 2 key-value sizes);
    of the feed-forward layer its gate, the activated gate and the other factor (3 intermediate sizes). The few numbers
    that are one a row or one a head are left out.

    Example:
        >>> kept_values(BaseSize(num_parameters=0, num_layers=1, hidden_size=8, key_value_size=4, intermediate_size=16,
        ...                      vocab_size=0))
        88
    """
    return 4 * base.hidden_size + 2 * base.key_value_size + 3 * base.intermediate_size

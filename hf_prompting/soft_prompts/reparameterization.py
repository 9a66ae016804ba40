"""Small networks through which soft-token rows may be trained.

Each maps a trainable latent (P, H) to rows (P, H). A constant offset is added so that training starts exactly from the
given rows, whatever the network's random weights are; the same offset restarts training from saved plain rows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


class LstmEncoder(nn.Module):
    """Bidirectional LSTM and a two-layer perceptron (Liu et al., 2021, arXiv:2103.10385, P-tuning)."""

    def __init__(self, width: int, hidden_size: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, hidden_size, num_layers=2, bidirectional=True, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(2 * hidden_size, hidden_size), nn.ReLU(), nn.Linear(hidden_size, width))

    def forward(self, latent_PH: Tensor) -> Tensor:
        """(P, H) -> (P, H)."""
        states, _ = self.lstm(latent_PH[None])
        rows: Tensor = self.mlp(states[0])
        return rows


class ResidualMlp(nn.Module):
    """The latent plus a bottleneck perceptron of it (Razdaibiedina et al., 2023, arXiv:2305.03937)."""

    def __init__(self, width: int, hidden_size: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden_size), nn.ReLU(), nn.Linear(hidden_size, width), nn.LayerNorm(width)
        )

    def forward(self, latent_PH: Tensor) -> Tensor:
        """(P, H) -> (P, H)."""
        rows: Tensor = latent_PH + self.mlp(latent_PH)
        return rows


def mlp_encoder(width: int, hidden_size: int) -> nn.Module:
    """Two-layer tanh perceptron, as for prefix tuning (Li and Liang, 2021, arXiv:2101.00190, section 4.3)."""
    return nn.Sequential(nn.Linear(width, hidden_size), nn.Tanh(), nn.Linear(hidden_size, width))


REPARAMETERIZATIONS: dict[str, Callable[[int, int], nn.Module]] = {
    "mlp": mlp_encoder,
    "lstm": LstmEncoder,
    "residual_mlp": ResidualMlp,
}


class Reparameterization(nn.Module):
    """Rows as ``network(latent) + offset``; at the start this equals the given rows.

    Args:
        kind: a key of ``REPARAMETERIZATIONS``.
        rows_PH: (P, H) rows to start from.
        hidden_size: width of the network; None for H.
    """

    offset: Tensor

    def __init__(self, kind: str, rows_PH: Tensor, hidden_size: int | None = None) -> None:
        super().__init__()
        width = rows_PH.shape[1]
        self.network = REPARAMETERIZATIONS[kind](width, hidden_size or width)
        self.latent = nn.Parameter(rows_PH.clone())
        self.register_buffer("offset", torch.zeros_like(rows_PH))
        if not rows_PH.is_meta:
            self._leave_meta(rows_PH)
            self.restart_from(rows_PH)

    def forward(self) -> Tensor:
        """Return the rows (P, H)."""
        rows: Tensor = self.network(self.latent) + self.offset
        return rows

    @torch.no_grad()
    def restart_from(self, rows_PH: Tensor) -> None:
        """Choose the offset so that the next forward gives ``rows_PH``."""
        self.offset.copy_(rows_PH - self.network(self.latent))

    def _leave_meta(self, rows_PH: Tensor) -> None:
        """Hold real weights on the rows' device, also where PEFT's ``low_cpu_mem_usage`` makes new ones on meta."""
        if not self.latent.is_meta:
            self.to(rows_PH.device)
            return
        self.to_empty(device=rows_PH.device)
        for module in self.network.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
        self.latent.data.copy_(rows_PH)


def with_whole_weights(network: Reparameterization) -> Reparameterization:
    """Return the network, or a copy put together from all processes where FSDP2 has split its weights between steps.

    Example:
        >>> with_whole_weights(network)() is not None  # doctest: +SKIP
        True
    """
    if not any(isinstance(parameter, DTensor) for parameter in network.parameters()):
        return network
    whole = copy.deepcopy(network)
    for module in whole.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if isinstance(parameter, DTensor):
                setattr(module, name, nn.Parameter(parameter.full_tensor().detach()))
    return whole

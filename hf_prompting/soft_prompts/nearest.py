"""Which rows of an embedding a soft token resembles most: a look at what was learned."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_prompting.errors import ShapeError


@torch.no_grad()
def nearest_rows(
    rows_PH: Tensor,
    weight_VH: Tensor,
    *,
    num_nearest: int = 3,
    is_allowed_V: Tensor | None = None,
    chunk_size: int = 16_384,
) -> tuple[Tensor, Tensor]:
    """Find the rows of an embedding with the greatest cosine to each soft token's row.

    Lester et al. (2021, arXiv:2104.08691, section 7) read tuned prompts this way; it shows what a soft token lies near,
    not what it means. Both sides are compared before any embedding scale, which a cosine does not see anyway. The
    embedding is read in chunks, so that a large one in low precision is never copied whole to float32.

    Args:
        rows_PH: (P, H) rows of the soft tokens.
        weight_VH: (V, H) the base's input embedding.
        num_nearest: K, how many to find for each.
        is_allowed_V: (V,) bool; rows that are False are left out (unused rows, say). None for all.
        chunk_size: rows read at a time; the result does not depend on it.
    Returns:
        Cosines (P, K) in falling order, and the rows' numbers (P, K); of equal cosines the lower number comes first. A
        row of zeros has the cosine 0. K is smaller where fewer rows are allowed.
    Raises:
        ShapeError: the widths differ, or ``num_nearest`` or ``chunk_size`` is not positive.
    Example:
        >>> nearest_rows(torch.tensor([[2.0, 0.0]]), torch.eye(2), num_nearest=1)[1].tolist()
        [[0]]
    """
    if rows_PH.ndim != 2 or weight_VH.ndim != 2 or rows_PH.shape[1] != weight_VH.shape[1]:
        raise ShapeError(f"rows {tuple(rows_PH.shape)} and embedding {tuple(weight_VH.shape)} differ in width")
    if num_nearest < 1 or chunk_size < 1:
        raise ShapeError(f"num_nearest={num_nearest} and chunk_size={chunk_size} must be at least 1")
    device = weight_VH.device
    unit_PH = F.normalize(rows_PH.to(device).float(), dim=-1)
    cosines_PK = unit_PH.new_empty(len(unit_PH), 0)
    ids_PK = torch.empty(len(unit_PH), 0, dtype=torch.long, device=device)
    allowed_V = torch.ones(len(weight_VH), dtype=torch.bool, device=device) if is_allowed_V is None else is_allowed_V
    for ids in torch.split(allowed_V.to(device).nonzero().flatten(), chunk_size):
        found_PN = unit_PH @ F.normalize(weight_VH[ids].float(), dim=-1).T
        cosines_PK = torch.cat([cosines_PK, found_PN], dim=1)
        ids_PK = torch.cat([ids_PK, ids.expand(len(unit_PH), -1)], dim=1)
        cosines_PK, order = cosines_PK.sort(dim=1, descending=True, stable=True)
        cosines_PK, order = cosines_PK[:, :num_nearest], order[:, :num_nearest]
        ids_PK = ids_PK.gather(1, order)
    return cosines_PK.cpu(), ids_PK.cpu()

"""Orders of a set in which any part at an end has the classes in proportion, and the split for validation."""

from __future__ import annotations

import torch
from torch import Tensor

from adv_lightning.data.seeding import mix_seed


def in_proportion(labels: Tensor, seed: int = 0) -> Tensor:
    """Return a random order of a set whose first n indices have the classes in proportion, for every n.

    Of each class there are as many among them as its share asks for, within 1 where the classes are of one size.

    Args:
        labels: int64 [N].
        seed: Seed of the order.

    Returns:
        Indices, int64 [N].
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(mix_seed(seed)))
    # Each image's place in its class, from 0 to 1: a cut at one place takes the same share of every class.
    place = torch.empty(len(labels), dtype=torch.float64)
    for label in set(labels.tolist()):
        members = (labels[order] == label).nonzero().squeeze(1)
        place[members] = (torch.arange(len(members), dtype=torch.float64) + 0.5) / len(members)
    return order[place.argsort(stable=True)]


def split_indices(labels: Tensor, size: int, seed: int | None) -> tuple[Tensor, Tensor]:
    """Split the indices of a set into two parts, the second with `size` indices. Both keep the order of the set.

    Args:
        labels: int64 [N].
        size: Number of indices in the second part.
        seed: Seed of a second part with the classes in proportion. None: the last `size` indices.
    """
    order = torch.arange(len(labels)) if seed is None else in_proportion(labels, seed)
    first = len(labels) - size
    return order[:first].sort().values, order[first:].sort().values

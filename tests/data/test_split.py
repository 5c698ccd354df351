"""Orders in which the first n examples have the classes in proportion."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adv_lightning.data.split import in_proportion


@given(st.integers(2, 7), st.integers(1, 30), st.integers(0, 3))
def test_any_first_n_of_equal_classes(classes: int, size: int, seed: int) -> None:
    labels = torch.arange(classes).repeat_interleave(size)
    order = in_proportion(labels, seed)
    assert sorted(order.tolist()) == list(range(classes * size))
    for n in range(classes * size + 1):
        counts = Counter(labels[order[:n]].tolist())
        assert all(abs(counts[label] - n / classes) <= 1 for label in range(classes))


@given(st.lists(st.integers(1, 40), min_size=2, max_size=6))
def test_any_first_n_of_unequal_classes(sizes: list[int]) -> None:
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    order = in_proportion(labels)
    for n in range(len(labels) + 1):
        counts = Counter(labels[order[:n]].tolist())
        for label, size in enumerate(sizes):
            share = size / len(labels)
            assert abs(counts[label] - n * share) <= 1 + share * len(sizes) / 2


def test_is_fixed_and_random_within_a_class() -> None:
    labels = torch.tensor([0, 1]).repeat_interleave(50)
    order = in_proportion(labels)
    assert torch.equal(order, in_proportion(labels))
    assert not torch.equal(order, in_proportion(labels, seed=1))
    within = order[labels[order] == 0]
    assert not torch.equal(within, within.sort().values)


@pytest.mark.parametrize("labels", [[], [3], [2, 2, 2]])
def test_sets_of_one_class(labels: list[int]) -> None:
    assert sorted(in_proportion(torch.tensor(labels, dtype=torch.int64)).tolist()) == list(range(len(labels)))

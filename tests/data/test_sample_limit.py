from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from adv_lightning.data.sample_limit import within_limit


def counted(limit: int | None, rank: int, processes: int, batches: list[int]) -> int:
    """How many examples one process counts, batch by batch."""
    seen = total = 0
    for batch in batches:
        n = within_limit(limit, rank, processes, seen, batch)
        assert 0 <= n <= batch
        seen, total = seen + batch, total + n
    return total


@st.composite
def splits(draw: st.DrawFn) -> list[list[int]]:
    """Batch sizes of each process, for a set whose examples the processes take in turn."""
    number, processes = draw(st.integers(1, 60)), draw(st.integers(1, 5))
    parts = []
    for rank in range(processes):
        own = len(range(number)[rank::processes])
        cuts = [0, *sorted(draw(st.lists(st.integers(0, own), max_size=4))), own]
        parts.append([end - start for start, end in pairwise(cuts)])
    return parts


@settings(derandomize=True, deadline=None)
@given(splits(), st.one_of(st.none(), st.integers(1, 80)))
def test_counts_the_first_examples_of_the_set(parts: list[list[int]], limit: int | None) -> None:
    number, processes = sum(map(sum, parts)), len(parts)
    first = range(number if limit is None else min(limit, number))
    counts = [counted(limit, rank, processes, batches) for rank, batches in enumerate(parts)]
    assert sum(counts) == len(first)
    assert counts == [len(first[rank::processes]) for rank in range(processes)]


def test_beyond_the_limit() -> None:
    assert [within_limit(5, 0, 1, seen, 3) for seen in (0, 3, 6, 9)] == [3, 2, 0, 0]
    assert [within_limit(5, rank, 4, 0, 9) for rank in range(4)] == [2, 1, 1, 1]
    assert [within_limit(1, rank, 3, 0, 9) for rank in range(3)] == [1, 0, 0]

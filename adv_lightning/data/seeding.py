"""One seed from several whole numbers."""

import numpy as np

__all__ = ["mix_seed"]


def mix_seed(*parts: int) -> int:
    """Mix non-negative integers, such as (seed, epoch, rank, batch), into one 64-bit seed.

    A plain sum would give seed 0, epoch 1 and seed 1, epoch 0 the same draws.
    """
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])

"""Seeds: that of the process, and one made of several whole numbers."""

import os

import numpy as np

__all__ = ["mix_seed", "process_seed"]


def process_seed() -> int | None:
    """Return what Lightning's `seed_everything` was given in this process; None where it was not called."""
    return int(os.environ["PL_GLOBAL_SEED"]) if "PL_GLOBAL_SEED" in os.environ else None


def mix_seed(*parts: int) -> int:
    """Mix non-negative integers, such as (seed, epoch, rank, batch), into one 64-bit seed.

    A plain sum would give seed 0, epoch 1 and seed 1, epoch 0 the same draws.
    """
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])

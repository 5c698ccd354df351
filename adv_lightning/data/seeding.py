"""Seeds: that of the process, and one made of several whole numbers."""

import os

import numpy as np
import torch

__all__ = ["BatchSeeding", "mix_seed", "process_seed"]


def process_seed() -> int | None:
    """Return what Lightning's `seed_everything` was given in this process; None where it was not called."""
    return int(os.environ["PL_GLOBAL_SEED"]) if "PL_GLOBAL_SEED" in os.environ else None


def mix_seed(*parts: int) -> int:
    """Mix non-negative integers, such as (seed, epoch, rank, batch), into one 64-bit seed.

    A plain sum would give seed 0, epoch 1 and seed 1, epoch 0 the same draws.
    """
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])


class BatchSeeding:
    """Gives every process and training batch random numbers of its own, which do not depend on those drawn before.

    So a resumed run draws what an uninterrupted one does, and processes, which Lightning seeds alike, differ. Without
    a seed of Lightning's, only the processes are told apart, once.
    """

    def __init__(self) -> None:
        self.started = False

    def seed(self, epoch: int, batch_idx: int, rank: int, processes: int, device: torch.device) -> None:
        """Seed the generators of the CPU and of `device` for one batch."""
        seed, first = process_seed(), not self.started
        self.started = True
        if seed is not None:
            # The last number tells these draws from the data set's and the callbacks', seeded in the same way.
            own = mix_seed(seed, epoch, rank, batch_idx, 3)
            # Not torch.manual_seed, which costs a small net's step a tenth where CUDA is there but not in use.
            torch.default_generator.manual_seed(own)
            if device.type != "cpu":
                torch.get_device_module(device).manual_seed(own)
        elif first and processes > 1:
            # A long stride, so that one seed's second process is not another seed's first.
            torch.manual_seed(torch.initial_seed() + 1_000_003 * rank)

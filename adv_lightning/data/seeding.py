"""Seeds: the seed of the process, mixing of integers into a seed, and a seed for each training batch."""

import os

import numpy as np
import torch
from lightning_utilities.core.rank_zero import rank_zero_info


def process_seed() -> int | None:
    """Return the seed that Lightning's `seed_everything` got in this process, or None if it was not called."""
    return int(os.environ["PL_GLOBAL_SEED"]) if "PL_GLOBAL_SEED" in os.environ else None


def mix_seed(*parts: int) -> int:
    """Mix non-negative integers, such as (seed, epoch, rank, batch), into one 64-bit seed.

    With a plain sum, seed 0 in epoch 1 and seed 1 in epoch 0 would give the same draws. Zeros at the end do not count:
    (1, 2) and (1, 2, 0) give the same seed.
    """
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])


class BatchSeeding:
    """Gives each process and training batch its own random numbers, independent of earlier draws.

    A resumed run then draws what an uninterrupted run draws, and processes, which Lightning seeds equally, differ.
    Without a global seed, it only gives the processes different seeds, once.
    """

    _last: int | None = None  # the last seed of any training in this process

    def __init__(self) -> None:
        self.started = False
        self.streams: dict[int, torch.Generator] = {}
        """Generators of callbacks, which they seed for each batch themselves, by the last number of their seeds."""
        self._batch: tuple[int, int] | None = None

    def restart(self) -> None:
        """Begin a new training, and say if its draws do not follow the last call of `torch.manual_seed`."""
        self._batch = None
        seed, here = process_seed(), torch.initial_seed()
        if seed is not None and here not in (seed, BatchSeeding._last):
            rank_zero_info(
                f"Dropout and noise of the training follow seed_everything({seed}), and not the later "
                f"torch.manual_seed({here}). To repeat a training with other draws, call seed_everything again."
            )

    def seed(self, epoch: int, batch_idx: int, rank: int, processes: int, device: torch.device) -> bool:
        """Seed the generators of the CPU and of `device` for one batch.

        Returns:
            Whether the batch is a new one. An optimizer such as LBFGS evaluates a batch several times, and must see the
            same function each time: then the generators of callbacks are seeded again too.
        """
        seed, first = process_seed(), not self.started
        new, self._batch = self._batch != (epoch, batch_idx), (epoch, batch_idx)
        self.started = True
        for last, generator in () if new else self.streams.items():
            generator.manual_seed(mix_seed(seed or 0, epoch, rank, batch_idx, last))
        if seed is not None:
            # The last number separates these draws from those of the data set and the callbacks.
            own = mix_seed(seed, epoch, rank, batch_idx, 3)
            # Not torch.manual_seed, which makes a small net's step a tenth slower where CUDA exists but is not used.
            torch.default_generator.manual_seed(own)
            BatchSeeding._last = own
            if device.type != "cpu":
                torch.get_device_module(device).manual_seed(own)
        elif first and processes > 1:
            # A long stride: the second process of one seed must not equal the first process of another.
            torch.manual_seed(torch.initial_seed() + 1_000_003 * rank)
        return new

"""A data loader that reads whole batches and can resume in the middle of an epoch."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from adv_lightning.data.seeding import mix_seed


def _identity(batch: Any) -> Any:
    return batch


class BatchLoader(DataLoader[Any]):
    """A `DataLoader` for data sets in memory: each batch is one call of `dataset.__getitems__`.

    Takes the arguments of `DataLoader` as keywords, because Lightning rebuilds loaders from them. Batches are made
    in the main process: a worker would cost more than the gather that it saves.

    Before each batch, `generator`, if given, is seeded from (seed, epoch, rank, batch index). The first three are
    attributes of the sampler, or 0 if it has none. So the draws that a data set makes from this generator do not depend
    on earlier draws, and a resumed run makes the same draws as an uninterrupted one. The global random state is never
    touched.

    `state_dict()` says where the epoch is: how many of its images all processes have read. After `load_state_dict`, the
    next iteration goes on with the others, if it is of the same epoch, also with another batch size or number of
    processes. If the sampler has no epoch (as under overfit_batches), no position is kept and nothing is skipped.

    Raises:
        TypeError: the data set has no `__getitems__`.
        ValueError: workers, pinned memory or loading without batches is requested.
    """

    def __init__(self, dataset: Any, *, collate_fn: Callable[[Any], Any] | None = None, **kwargs: Any) -> None:
        if isinstance(kwargs.get("batch_size"), np.integer):
            kwargs["batch_size"] = int(kwargs["batch_size"])
        # Keywords only: Lightning's call for prediction fails if the batch size is positional.
        super().__init__(dataset, collate_fn=collate_fn or _identity, **kwargs)
        if not hasattr(dataset, "__getitems__"):
            raise TypeError(
                f"BatchLoader needs a data set with __getitems__(indices) -> batch, but {type(dataset).__name__} has "
                "none: add it, or use torch.utils.data.DataLoader"
            )
        if self.num_workers > 0 or self.pin_memory or self.batch_sampler is None:
            raise ValueError(
                f"BatchLoader makes whole batches in the main process, got num_workers={self.num_workers}, "
                f"pin_memory={self.pin_memory}, batch_size={self.batch_size}: remove the first two and give a batch "
                "size, or use torch.utils.data.DataLoader"
            )
        self.trainer: Trainer | None = None
        """Counts batches, and is told when a resumed epoch's count changes; see `align`."""
        self._position = self._at(0, 0)
        self._resume: dict[str, int] | None = None
        self._first: int | None = None

    @property
    def _epoch(self) -> int:
        return int(getattr(self.sampler, "epoch", 0))

    @property
    def _processes(self) -> int:
        return int(getattr(self.sampler, "num_replicas", 1))

    def _at(self, batches: int, images: int) -> dict[str, int]:
        return {
            "epoch": self._epoch,
            "batches": batches,
            "images": min(images, len(self.dataset)),  # type: ignore[arg-type]
            "batch_size": (self.batch_size or 1) * self._processes,
            "length": len(self.dataset),  # type: ignore[arg-type]
            "seed": int(getattr(self.sampler, "seed", 0)),
        }

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # This runs at the first next(): Lightning sets the epoch between iter() and that.
        epoch = self._epoch
        resume, self._resume = self._resume, None
        if resume is not None and resume["epoch"] != epoch:
            resume = None
        first, done, batches = self._rest(resume)
        for batch, indices in enumerate(batches, first):
            if self.generator is not None:
                seed, rank = getattr(self.sampler, "seed", 0), getattr(self.sampler, "rank", 0)
                self.generator.manual_seed(mix_seed(seed, epoch, rank, batch))
            data = self.collate_fn(self.dataset.__getitems__(indices))  # type: ignore[attr-defined]
            if hasattr(self.sampler, "epoch"):
                done += len(indices) * self._processes
                self._position = self._at(batch + 1, done)
            yield data

    def _rest(self, resume: dict[str, int] | None) -> tuple[int, int, Iterable[list[int]]]:
        """Return the number of the next batch, how many images are done, and the indices of the batches to come."""
        if resume is None:
            return 0, 0, self.batch_sampler  # type: ignore[return-value]
        size = self._at(0, 0)["batch_size"]
        if not self._is_resized(resume):
            first = resume["batches"]
            return first, first * size, islice(self.batch_sampler, first, None)  # type: ignore[arg-type]
        done = resume["images"]
        first = self.first_batch(resume) if self._first is None else self._first
        sampler: Any = self.sampler
        after = sampler.after(done) if hasattr(sampler, "after") else islice(sampler, done // self._processes, None)
        return first, done, in_batches(list(after), self.batch_size or 1, len(self) - first, drop_last=self.drop_last)

    def state_dict(self) -> dict[str, int]:
        """Return where the epoch is: its number, and how many of its batches and images were returned."""
        return dict(self._position)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from `state` at the next iteration.

        Raises:
            ValueError: the epoch is not over, and its order is unknown: the data set has another length, or the seed
                is another.
        """
        self._position = {name: int(value) for name, value in state.items()}
        self._resume, self._first = dict(self._position), None
        if self.trainer is not None:
            self.align(self.trainer)

    def align(self, trainer: Trainer) -> None:
        """Let a trainer that resumes count the batches that are done as batches of today's size."""
        state, progress = self._resume, trainer.fit_loop.epoch_loop.batch_progress
        if state is None or "images" not in state:
            return
        length = len(self)
        limit = trainer.limit_train_batches
        limit = min(length, limit) if isinstance(limit, int) else int(length * (1.0 if limit is None else limit))
        if progress.is_last_batch:  # the epoch is over
            first = limit
        else:
            self._check_order(state)
            first = min(self.first_batch(state, trainer.accumulate_grad_batches), max(0, limit - 1))
        if self._is_resized(state) or progress.is_last_batch:
            self._first = first
            shift = first - progress.current.ready
            for name in ("ready", "started", "processed", "completed"):
                setattr(progress.current, name, getattr(progress.current, name) + shift)

    def first_batch(self, state: dict[str, int], accumulated: int = 1) -> int:
        """Return the number of the batch that a resumed epoch begins with: a whole number of steps is done."""
        done = state["images"] // self._at(0, 0)["batch_size"] // accumulated * accumulated
        return min(done, len(self))

    def _is_resized(self, state: dict[str, int]) -> bool:
        """Whether the batches that are done had another size than today's, over all processes."""
        size, length = self._at(0, 0)["batch_size"], state.get("length", 0)
        return "images" in state and state["images"] != min(state["batches"] * size, length)

    def _check_order(self, state: dict[str, int]) -> None:
        now = self._at(0, 0)
        if not 0 < state["images"] < state["length"]:
            return
        for name, text in (("length", "a training set of {} images"), ("seed", "the seed {}")):
            if state[name] != now[name]:
                raise ValueError(
                    f"the checkpoint is from the middle of an epoch with {text.format(state[name])}, and here it is "
                    f"{text.format(now[name])}, so it is unknown which images were not read yet: continue with the "
                    "former, or from a checkpoint at the end of an epoch"
                )


def in_batches(indices: list[int], size: int, number: int, *, drop_last: bool) -> Iterator[list[int]]:
    """Divide indices into `number` batches: of `size` if that makes as many, and otherwise of nearly equal sizes."""
    whole = len(indices) // size if drop_last else -(-len(indices) // size)
    number = min(number, len(indices))
    for i in range(number):
        if whole == number:
            yield indices[i * size : (i + 1) * size]
        else:
            yield indices[i * len(indices) // number : (i + 1) * len(indices) // number]

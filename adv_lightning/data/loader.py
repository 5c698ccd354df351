"""A loader that hands over whole batches and can resume in the middle of an epoch."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader

from adv_lightning.data.seeding import mix_seed

__all__ = ["BatchLoader"]


def _identity(batch: Any) -> Any:
    return batch


class BatchLoader(DataLoader[Any]):
    """A ``DataLoader`` for sets in memory: each batch is one call of ``dataset.__getitems__``.

    Takes the arguments of ``DataLoader``, by name, since Lightning builds loaders anew from them. Batches are
    made in the process itself: a worker would cost more than the gather it saves.

    Before each batch ``generator``, if given, is seeded from (seed, epoch, rank, batch index), the first
    three being attributes of the sampler (0 where it lacks one). So what a data set draws from the same
    generator does not depend on what was drawn before, and a resumed run draws what an uninterrupted one
    does. The global random state is never touched.

    ``state_dict()`` is ``{"epoch", "batches"}``: the number of batches handed over in that epoch. After
    ``load_state_dict`` the next iteration, if it is of the same epoch, leaves these out without reading them.
    Where the sampler knows no epoch (as under overfit_batches), no position is kept and nothing left out.

    Raises:
        TypeError: The data set has no ``__getitems__``.
        ValueError: Workers, pinned memory or no batching is asked for.
    """

    def __init__(self, dataset: Any, *, collate_fn: Callable[[Any], Any] | None = None, **kwargs: Any) -> None:
        # By name only: Lightning's own call for prediction fails on a batch size given by place.
        super().__init__(dataset, collate_fn=collate_fn or _identity, **kwargs)
        if not hasattr(dataset, "__getitems__"):
            raise TypeError(
                f"BatchLoader needs a data set with __getitems__(indices) -> batch; {type(dataset).__name__} "
                "has none: add it, or use torch.utils.data.DataLoader"
            )
        if self.num_workers > 0 or self.pin_memory or self.batch_sampler is None:
            raise ValueError(
                f"BatchLoader makes whole batches in the process itself, got num_workers={self.num_workers}, "
                f"pin_memory={self.pin_memory}, batch_size={self.batch_size}: leave the first two out and "
                "give a batch size, or use torch.utils.data.DataLoader"
            )
        self._position: dict[str, int] = {"epoch": self._epoch, "batches": 0}
        self._resume: dict[str, int] | None = None

    @property
    def _epoch(self) -> int:
        return int(getattr(self.sampler, "epoch", 0))

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # This runs at the first next(): Lightning sets the epoch after iter() and before that.
        epoch = self._epoch
        resume, self._resume = self._resume, None
        done = resume["batches"] if resume is not None and resume["epoch"] == epoch else 0
        for batch, indices in islice(enumerate(self.batch_sampler), done, None):  # type: ignore[arg-type]
            if self.generator is not None:
                seed, rank = getattr(self.sampler, "seed", 0), getattr(self.sampler, "rank", 0)
                self.generator.manual_seed(mix_seed(seed, epoch, rank, batch))
            data = self.collate_fn(self.dataset.__getitems__(indices))  # type: ignore[attr-defined]
            if hasattr(self.sampler, "epoch"):
                self._position = {"epoch": epoch, "batches": batch + 1}
            yield data

    def state_dict(self) -> dict[str, int]:
        """Return the epoch, and how many of its batches were handed over."""
        return dict(self._position)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from ``state`` at the next iteration."""
        self._position = {"epoch": int(state["epoch"]), "batches": int(state["batches"])}
        self._resume = dict(self._position)

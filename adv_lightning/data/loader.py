"""A data loader that reads whole batches and can resume in the middle of an epoch."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

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

    `state_dict()` is `{"epoch", "batches"}`: the number of batches returned in that epoch. After `load_state_dict`, the
    next iteration skips these batches without reading them, if it is of the same epoch. If the sampler has no epoch (as
    under overfit_batches), no position is kept and nothing is skipped.

    Raises:
        TypeError: the data set has no `__getitems__`.
        ValueError: workers, pinned memory or loading without batches is requested.
    """

    def __init__(self, dataset: Any, *, collate_fn: Callable[[Any], Any] | None = None, **kwargs: Any) -> None:
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
        self._position: dict[str, int] = {"epoch": self._epoch, "batches": 0}
        self._resume: dict[str, int] | None = None

    @property
    def _epoch(self) -> int:
        return int(getattr(self.sampler, "epoch", 0))

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # This runs at the first next(): Lightning sets the epoch between iter() and that.
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
        """Return the epoch, and how many of its batches were returned."""
        return dict(self._position)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from `state` at the next iteration."""
        self._position = {"epoch": int(state["epoch"]), "batches": int(state["batches"])}
        self._resume = dict(self._position)

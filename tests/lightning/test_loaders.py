"""Loaders that are made anew, and several of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from adv_lightning.data import DigitsDataModule
from tests.support.digits import Watch, fit, module, trainer


@pytest.mark.switch("works", "reload_dataloaders_every_n_epochs=1")
def test_reload_dataloaders() -> None:
    def labels(every: int) -> tuple[list[list[int]], int]:
        watch, data, calls = Watch(), DigitsDataModule(), []
        make = data.train_dataloader
        data.train_dataloader = lambda: calls.append(1) or make()  # type: ignore[method-assign,func-returns-value]
        fit(module(), data, reload_dataloaders_every_n_epochs=every, max_epochs=2, callbacks=[watch])
        return watch.labels, len(calls)

    (kept, once), (reloaded, twice) = labels(0), labels(1)
    assert (once, twice) == (1, 2)
    assert kept == reloaded
    assert kept[:4] != kept[4:]


@pytest.mark.switch("refused", "several validation loaders", "several test loaders")
def test_several_loaders() -> None:
    class Two(DigitsDataModule):
        def val_dataloader(self) -> Any:
            return [super().val_dataloader(), super().val_dataloader()]

        def test_dataloader(self) -> Any:
            return [super().test_dataloader(), super().test_dataloader()]

    for stage, start in (
        ("validation", lambda: fit(module(), Two())),
        ("validation", lambda: trainer().validate(module(), datamodule=Two(), verbose=False)),
        ("test", lambda: trainer().test(module(), datamodule=Two(), verbose=False)),
    ):
        with pytest.raises(ValueError, match=f"several {stage}.*ConcatDataset"):
            start()


@pytest.mark.switch("works", "several prediction loaders")
def test_several_prediction_loaders() -> None:
    class Two(DigitsDataModule):
        def predict_dataloader(self) -> Any:
            return [self.test_dataloader(), self.test_dataloader()]

    first, second = trainer(limit_predict_batches=2).predict(module(), datamodule=Two())
    assert [len(part) for part in first] == [100, 100]
    assert torch.equal(torch.cat(first), torch.cat(second))

"""Pictures and final metrics in TensorBoard."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch import nn

from adv_lightning import FGSM, AdversarialModule, AdversarialPictures, Attack, FinalMetrics
from tests.support.helpers import Batches, Snapshot, batches, fit

TAG = "adversarial examples"


def images(channels: int = 1, size: int = 8) -> Batches:
    features = channels * 16
    loader = batches(1, size=size, features=features, dtype=torch.float32)
    return Batches(*((x.sigmoid().view(size, channels, 4, 4), y) for x, y in loader))


def net(channels: int = 1) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(channels * 16), nn.Linear(channels * 16, 3))


def events(logger: TensorBoardLogger) -> EventAccumulator:
    logger.finalize("success")
    accumulator = EventAccumulator(logger.log_dir, size_guidance={"images": 0})
    return accumulator.Reload()


def tensorboard(tmp_path: Path) -> TensorBoardLogger:
    return TensorBoardLogger(tmp_path, default_hp_metric=False)


@pytest.mark.parametrize("channels", [1, 3])
def test_draws_in_the_first_epoch_and_every_n(channels: int, tmp_path: Path) -> None:
    logger = tensorboard(tmp_path)
    module = AdversarialModule(net(channels), FGSM(0.1))
    pictures = AdversarialPictures(every_n_epochs=2, samples=2)
    fit(module, images(channels), images(channels), max_epochs=4, logger=logger, callbacks=[pictures])
    shown = events(logger).Images(TAG)
    assert [image.step for image in shown] == [1, 2, 4]
    assert all(image.encoded_image_string[:8] == b"\x89PNG\r\n\x1a\n" for image in shown)
    assert shown[0].encoded_image_string != shown[-1].encoded_image_string


def test_short_run_ends_with_a_picture(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], list[int]]] = [
        ({"max_epochs": 3}, [1, 3]),
        ({"max_epochs": -1, "max_steps": 2}, [1, 2]),
    ]
    for limit, steps in cases:
        logger = TensorBoardLogger(tmp_path, version=str(limit), default_hp_metric=False)
        module = AdversarialModule(net(), FGSM(0.1))
        fit(module, images(), images(), **limit, logger=logger, callbacks=[AdversarialPictures(every_n_epochs=9)])
        assert [image.step for image in events(logger).Images(TAG)] == steps


def test_one_chart_has_the_clean_curve_and_that_under_attack(tmp_path: Path) -> None:
    logger = tensorboard(tmp_path)
    fit(AdversarialModule(net(), FGSM(0.1)), images(), images(), logger=logger, log_every_n_steps=1)
    found = events(logger)
    layout = layout_pb2.Layout()
    held = found.Tensors("custom_scalars__config__")[0].tensor_proto
    layout.ParseFromString(held.string_val[0])
    charts = {chart.title: list(chart.multiline.tag) for chart in layout.category[0].chart}
    curves = found.Tags()["scalars"]
    matched = {title: [c for tag in tags for c in curves if re.search(tag, c)] for title, tags in charts.items()}
    assert matched == {
        "validation error": ["val/error", "val/adv_error"],
        "training loss": ["train/clean_loss", "train/adv_loss"],
    }


@pytest.mark.parametrize("kind", ["none", "csv"])
def test_does_nothing_without_tensorboard(kind: str, tmp_path: Path) -> None:
    logger: Logger | bool = CSVLogger(tmp_path) if kind == "csv" else False
    calls = []

    class Watched(FGSM):
        def forward(self, *args: object, **kwargs: object) -> torch.Tensor:
            calls.append(1)
            return super().forward(*args, **kwargs)

    module = AdversarialModule(net(), Watched(0.1))
    fit(module, images(), images(), logger=logger, callbacks=[AdversarialPictures(), FinalMetrics()])
    assert calls == []  # the module itself uses only the rule


@pytest.mark.parametrize("attack", [None, FGSM(0.1)])
def test_draws_nothing_without_images_or_attack(attack: Attack | None, tmp_path: Path) -> None:
    logger = tensorboard(tmp_path)
    loader = images() if attack is None else Batches(*((x.flatten(1), y) for x, y in images()))
    fit(AdversarialModule(net(), attack), loader, loader, logger=logger, callbacks=[AdversarialPictures()])
    assert events(logger).Tags()["images"] == []


def test_drawing_does_not_change_the_network(tmp_path: Path) -> None:
    states = []
    for callbacks in ([], [AdversarialPictures(every_n_epochs=1, samples=1)]):
        module = AdversarialModule(net(), FGSM(0.1))
        fit(module, images(), images(), max_epochs=2, logger=tensorboard(tmp_path), callbacks=callbacks)
        states.append(Snapshot(module.backbone))
    assert states[0].modes == states[1].modes
    assert all(torch.equal(value, states[1].state[name]) for name, value in states[0].state.items())


@pytest.mark.parametrize("name", ["every_n_epochs", "samples"])
def test_refuses_numbers_below_1(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=0"):
        AdversarialPictures(**{name: 0})


def test_final_metrics_and_hyper_parameters(tmp_path: Path) -> None:
    logger = tensorboard(tmp_path)
    module = AdversarialModule(net(), FGSM(0.125), alpha=0.25)
    trainer = fit(module, images(), images(), max_epochs=2, logger=logger, callbacks=[FinalMetrics()])
    found = events(logger)
    metadata = dict(found.PluginTagToContent("hparams"))
    data = HParamsPluginData.FromString(metadata["_hparams_/session_start_info"])
    hparams = data.session_start_info.hparams
    assert hparams["module"].string_value == "AdversarialModule"
    assert hparams["attack"].string_value == "FGSM"
    assert hparams["attack/eps"].number_value == 0.125
    assert hparams["alpha"].number_value == 0.25
    assert hparams["predict_attacked"].string_value == "False"
    assert not any(name.startswith("_") or "class_path" in name or "init_args" in name for name in hparams)
    assert not {"attack/bounds", "val_attack"} & set(hparams)  # not set
    experiment = HParamsPluginData.FromString(metadata["_hparams_/experiment"]).experiment
    assert {info.name for info in experiment.hparam_infos} == set(hparams)
    names = [info.name.tag for info in experiment.metric_infos]
    assert names[0] == "val/adv_error"
    assert set(names) >= {"val/error", "val/loss"}
    assert not any(name.startswith("train/") for name in names)
    for name in ("val/error", "val/adv_error"):
        assert found.Scalars(name)[-1].value == pytest.approx(trainer.callback_metrics[name].item())


def test_final_metrics_add_no_point_to_curves(tmp_path: Path) -> None:
    logger = tensorboard(tmp_path)
    module = AdversarialModule(net(), FGSM(0.125))
    fit(module, images(), images(), max_epochs=3, logger=logger, callbacks=[FinalMetrics()])
    found = events(logger)
    for name in ("val/loss", "val/error", "val/adv_error"):
        assert [point.step for point in found.Scalars(name)] == [0, 1, 2]

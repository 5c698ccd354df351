from __future__ import annotations

import re
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from adv_lightning.models import TorchvisionModel

# One of each way that a family is built: stem and head by another name, auxiliary outputs, a fixed size.
FAMILIES = [
    ("resnet18", 3, 32),
    ("resnet18", 1, 32),
    ("mobilenet_v3_small", 1, 32),
    ("shufflenet_v2_x0_5", 1, 32),
    ("squeezenet1_1", 1, 32),
    ("efficientnet_b0", 1, 32),
    ("regnet_y_400mf", 1, 32),
    ("densenet121", 1, 32),
    ("googlenet", 1, 32),
    ("inception_v3", 1, 75),
]


@pytest.mark.parametrize(("name", "channels", "size"), FAMILIES)
def test_logits_in_train_and_eval(name: str, channels: int, size: int) -> None:
    torch.manual_seed(0)
    model = TorchvisionModel(name, 7, (channels, size, size))
    x = torch.rand(2, channels, size, size, requires_grad=True)
    for training in (True, False):
        logits = model.train(training)(x)
        assert isinstance(logits, Tensor)
        assert logits.shape == (2, 7)
        assert logits.isfinite().all()
    logits.sum().backward()
    assert x.grad is not None
    assert x.grad.any()


def test_stems_differ_only_in_their_input_channels() -> None:
    for name in ("resnet18", "vgg11_bn", "vgg11", "convnext_tiny", "vit_b_16"):
        with torch.device("meta"):
            models = [TorchvisionModel(name, 7, (channels, 96, 96)) for channels in (1, 3)]
        one, three = (next(m for m in model.modules() if isinstance(m, nn.Conv2d)) for model in models)
        assert repr(one) == repr(three).replace("Conv2d(3,", "Conv2d(1,")


def test_stem_and_head_of_every_family() -> None:
    # They are found by their order. The smallest classifier of a family stands for it; meta tensors cost no memory.
    smallest = {}
    weights = {name: models.get_model_weights(name).DEFAULT.meta for name in models.list_models(models)}
    for name in sorted(weights, key=lambda name: weights[name]["num_params"], reverse=True):
        smallest[re.match(r"[a-z]+(_v\d)?", name)[0]] = name  # type: ignore[index]
    assert len(smallest) > 15
    del smallest["regnet"]  # its constructor reads values; one is built above
    for name in smallest.values():
        with torch.device("meta"):
            model = TorchvisionModel(name, 7, (1, 224, 224)).model
        layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        assert layers[0].in_channels == 1, name
        assert 7 in (getattr(layers[-1], "out_features", 0), getattr(layers[-1], "out_channels", 0)), name


def test_vision_transformer_of_any_size() -> None:
    with torch.device("meta"):
        model = TorchvisionModel("vit_b_16", 7, (1, 32, 32))
        assert model(torch.empty(2, 1, 32, 32)).shape == (2, 7)


def test_equals_torchvisions_own_network() -> None:
    torch.manual_seed(0)
    model = TorchvisionModel("resnet18", 7, (3, 96, 96)).eval()
    torch.manual_seed(0)
    reference = models.resnet18(num_classes=7).eval()
    x = torch.rand(2, 3, 96, 96)
    assert torch.equal(model(x), reference(x))


def test_small_input_stem_of_resnets() -> None:
    # Sides of layer1's output: a 7x7 stem and its max-pool divide by 4, the small stem by 1.
    for size, small_input, side in ((32, None, 32), (64, None, 64), (96, None, 24), (32, False, 8), (96, True, 96)):
        with torch.device("meta"):
            model = TorchvisionModel("resnet18", 7, (3, size, size), small_input=small_input)
            seen = {}
            model.model.layer1.register_forward_hook(lambda module, args, out, seen=seen: seen.update(shape=out.shape))
            model(torch.empty(2, 3, size, size))
        assert seen["shape"] == (2, 64, side, side)


def test_small_resnet18_has_the_known_parameter_count() -> None:
    with torch.device("meta"):
        model = TorchvisionModel("resnet18", 10, (3, 32, 32))
    assert sum(p.numel() for p in model.parameters()) == 11_173_962


def test_normalises_first() -> None:
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    model = TorchvisionModel("mobilenet_v3_small", 7, mean=mean, std=std).eval()
    x = torch.rand(2, 3, 32, 32)
    z = (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert torch.equal(model(x), model.model(z))


def test_state_dict() -> None:
    arguments: dict[str, Any] = {"name": "shufflenet_v2_x0_5", "num_classes": 7, "mean": [0.5] * 3, "std": [0.5] * 3}
    model, other = TorchvisionModel(**arguments).eval(), TorchvisionModel(**arguments).eval()
    x = torch.rand(2, 3, 32, 32)
    assert not torch.equal(other(x), model(x))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), model(x))


@pytest.fixture
def fake_weights(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, torch.Tensor]]:
    """Weights of random networks instead of a download, by the name of the network."""
    states: dict[str, dict[str, torch.Tensor]] = {}

    def get_state_dict(entry: Any, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        names = models.list_models(models)
        name = next(n for n in names if models.get_model_weights(n) is type(entry))
        options = {"init_weights": False} if name == "inception_v3" else {}
        states[name] = models.get_model(name, **options).state_dict()
        return states[name]

    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", get_state_dict)
    return states


@pytest.mark.parametrize(
    ("name", "head", "size"),
    [
        ("resnet18", "fc", 32),
        ("mobilenet_v3_small", "classifier.3", 32),
        ("squeezenet1_1", "classifier.1", 32),
        ("inception_v3", "fc", 75),
    ],
)
def test_weights_with_a_new_head(fake_weights: dict[str, Any], name: str, head: str, size: int) -> None:
    model = TorchvisionModel(name, 7, (3, size, size), weights="IMAGENET1K_V1")
    loaded = model.model.state_dict()
    body = {key for key in loaded if not key.startswith(f"{head}.")}
    assert body == {k for k in fake_weights[name] if not k.startswith((f"{head}.", "AuxLogits."))}
    assert all(torch.equal(loaded[key], fake_weights[name][key]) for key in body)
    for training in (True, False):
        assert model.train(training)(torch.rand(2, 3, size, size)).shape == (2, 7)
    torch.testing.assert_close(model.normalize.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))
    torch.testing.assert_close(model.normalize.std.flatten(), torch.tensor([0.229, 0.224, 0.225]))


def test_weights_keep_their_head_with_their_own_classes(fake_weights: dict[str, Any]) -> None:
    model = TorchvisionModel("resnet18", 1000, (3, 32, 32), weights="DEFAULT", mean=[0.5] * 3, std=[1.0] * 3)
    assert torch.equal(model.model.fc.weight, fake_weights["resnet18"]["fc.weight"])
    assert model.model.conv1.kernel_size == (7, 7)
    assert model.normalize.mean.flatten().tolist() == [0.5] * 3


def test_failed_download_of_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(entry: Any, *args: Any, **kwargs: Any) -> Any:
        raise URLError("no route to host")

    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", offline)
    with pytest.raises(OSError, match=r"(?s)resnet18-\w+\.pth.*no route to host.*remove weights"):
        TorchvisionModel("resnet18", 7, weights="DEFAULT")


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        ({"name": "resnet-18"}, "'resnet-18'.*: .*resnet18"),
        ({"name": "ResNet18"}, "'ResNet18'.*: resnet18"),
        ({"name": "fasterrcnn_resnet50_fpn"}, "no classifier 'fasterrcnn_resnet50_fpn'"),
        ({"name": "resnet18", "weights": "V1"}, "'V1'.*IMAGENET1K_V1, DEFAULT"),
        ({"name": "resnet18", "weights": "DEFAULT", "small_input": True}, "small_input=True"),
        ({"name": "resnet18", "weights": "DEFAULT", "input_shape": (1, 32, 32)}, "3 channels"),
        ({"name": "mobilenet_v3_small", "small_input": True}, "small_input.*'mobilenet_v3_small'"),
        ({"name": "resnet18", "mean": [0.5] * 3}, "both mean and std"),
        ({"name": "resnet18", "mean": [0.5], "std": [0.5]}, r"one mean per channel.*\[0\.5\]"),
        ({"name": "resnet18", "num_classes": 0}, "num_classes.*1.*0"),
    ],
)
def test_refuses_bad_arguments(arguments: dict[str, Any], facts: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=facts):
        TorchvisionModel(**arguments)

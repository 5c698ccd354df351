import subprocess
import sys
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import nn

from adv_lightning.models import TorchvisionModel

# One of each way that a family is built: stem and head by another name, auxiliary outputs, a fixed size.
FAMILIES = [
    ("resnet18", 32),
    ("mobilenet_v3_small", 32),
    ("shufflenet_v2_x0_5", 32),
    ("squeezenet1_1", 32),
    ("efficientnet_b0", 32),
    ("regnet_y_400mf", 32),
    ("densenet121", 32),
    ("googlenet", 32),
    ("inception_v3", 75),
]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("name", "size"), FAMILIES)
def test_logits_in_train_and_eval(name: str, size: int, channels: int) -> None:
    torch.manual_seed(0)
    model = TorchvisionModel(name, 7, (channels, size, size))
    x = torch.rand(2, channels, size, size, requires_grad=True)
    for training in (True, False):
        logits = model.train(training)(x)
        assert isinstance(logits, torch.Tensor)
        assert logits.shape == (2, 7)
        assert logits.isfinite().all()
    logits.sum().backward()
    assert x.grad.any()


@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn", "vgg11", "convnext_tiny", "vit_b_16"])
def test_stem_differs_in_its_input_channels_alone(name: str) -> None:
    with torch.device("meta"):
        stems = [
            next(m for m in TorchvisionModel(name, 7, (c, 96, 96)).modules() if isinstance(m, nn.Conv2d))
            for c in (1, 3)
        ]
    assert repr(stems[0]) == repr(stems[1]).replace("Conv2d(3,", "Conv2d(1,")


def test_vision_transformer_is_built_for_the_input() -> None:
    with torch.device("meta"):
        model = TorchvisionModel("vit_b_16", 7, (1, 32, 32))
        assert model(torch.empty(2, 1, 32, 32)).shape == (2, 7)


def test_without_changes_is_torchvisions_own_network() -> None:
    """The same seed gives the same weights and the same logits."""
    torch.manual_seed(0)
    model = TorchvisionModel("resnet18", 7, (3, 96, 96)).eval()
    torch.manual_seed(0)
    reference = torchvision.models.resnet18(num_classes=7).eval()
    x = torch.rand(2, 3, 96, 96)
    assert torch.equal(model(x), reference(x))


@pytest.mark.parametrize(
    ("size", "small_input", "side"),
    # Sides of layer1's output: a 7x7 stem and its max-pool divide by 4, the small stem by 1.
    [(32, None, 32), (64, None, 64), (96, None, 24), (32, False, 8), (96, True, 96)],
)
def test_small_input_stem_of_resnets(size: int, small_input: bool | None, side: int) -> None:
    with torch.device("meta"):
        model = TorchvisionModel("resnet18", 7, (3, size, size), small_input=small_input)
        seen = {}
        model.model.layer1.register_forward_hook(lambda module, args, out: seen.update(shape=out.shape))
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


def test_survives_state_dict() -> None:
    arguments: dict[str, Any] = {
        "name": "mobilenet_v3_small",
        "num_classes": 7,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
    }
    model, other = TorchvisionModel(**arguments).eval(), TorchvisionModel(**arguments).eval()
    x = torch.rand(2, 3, 32, 32)
    assert not torch.equal(other(x), model(x))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), model(x))


@pytest.fixture
def fake_weights(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, torch.Tensor]]:
    """Weights from a random network in place of the download; returned by the name of the network."""
    states: dict[str, dict[str, torch.Tensor]] = {}

    def get_state_dict(entry: Any, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        names = torchvision.models.list_models(torchvision.models)
        name = next(n for n in names if torchvision.models.get_model_weights(n) is type(entry))
        options = {"init_weights": False} if name == "inception_v3" else {}
        states[name] = torchvision.models.get_model(name, **options).state_dict()
        return states[name]

    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", get_state_dict)
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
    for training in (True, False):
        assert model.train(training)(torch.rand(2, 3, size, size)).shape == (2, 7)
    fresh = TorchvisionModel(name, 7, (3, size, size), weights="IMAGENET1K_V1").model.state_dict()
    body = {key for key in fresh if not key.startswith(f"{head}.")}
    assert body == {k for k in fake_weights[name] if not k.startswith((f"{head}.", "AuxLogits."))}
    assert all(torch.equal(fresh[key], fake_weights[name][key]) for key in body)
    torch.testing.assert_close(model.normalize.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))
    torch.testing.assert_close(model.normalize.std.flatten(), torch.tensor([0.229, 0.224, 0.225]))


def test_weights_keep_their_head_at_their_own_number(fake_weights: dict[str, Any]) -> None:
    model = TorchvisionModel("resnet18", 1000, (3, 32, 32), weights="DEFAULT", mean=[0.5] * 3, std=[1.0] * 3)
    assert torch.equal(model.model.fc.weight, fake_weights["resnet18"]["fc.weight"])
    assert model.model.conv1.kernel_size == (7, 7)
    assert model.normalize.mean.flatten().tolist() == [0.5] * 3


def test_weights_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(entry: Any, *args: Any, **kwargs: Any) -> Any:
        raise URLError("no route to host")

    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", offline)
    with pytest.raises(OSError, match=r"(?s)resnet18-\w+\.pth.*no route to host.*leave weights out"):
        TorchvisionModel("resnet18", 7, weights="DEFAULT")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet-18"}, "'resnet-18'.*near: .*resnet18"),
        ({"name": "ResNet18"}, "'ResNet18'.*near: resnet18"),
        ({"name": "fasterrcnn_resnet50_fpn"}, "no classifier 'fasterrcnn_resnet50_fpn'"),
        ({"name": "resnet18", "weights": "V1"}, "'V1'; it has IMAGENET1K_V1, DEFAULT"),
        ({"name": "resnet18", "weights": "DEFAULT", "small_input": True}, "small_input=True"),
        ({"name": "resnet18", "weights": "DEFAULT", "input_shape": (1, 32, 32)}, "3 channels"),
        ({"name": "mobilenet_v3_small", "small_input": True}, "ResNets only, got name='mobilenet_v3_small'"),
        ({"name": "resnet18", "mean": [0.5] * 3}, "both mean and std or neither"),
        ({"name": "resnet18", "mean": [0.5], "std": [0.5]}, "one mean per channel"),
        ({"name": "resnet18", "num_classes": 0}, "num_classes must be at least 1, got 0"),
    ],
)
def test_refuses_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        TorchvisionModel(**arguments)


def test_the_package_needs_no_torchvision_until_asked() -> None:
    code = "import sys, adv_lightning.models; sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_first_and_last_layer_of_every_classifier() -> None:
    """Stem and head are found by their order; on the meta device this costs no memory."""
    for name in torchvision.models.list_models(torchvision.models):
        if name.startswith("regnet"):  # its constructor reads values; one is built above
            continue
        with torch.device("meta"):
            model = TorchvisionModel(name, 7, (1, 224, 224)).model
        layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        assert layers[0].in_channels == 1, name
        assert 7 in (getattr(layers[-1], "out_features", 0), getattr(layers[-1], "out_channels", 0)), name

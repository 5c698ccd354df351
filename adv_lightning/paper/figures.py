"""Figures 2 to 5 of the paper, drawn from trained networks."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from adv_lightning.attacks import FGSM
from adv_lightning.data.atomic_write import write_atomically
from adv_lightning.evaluation import plots
from adv_lightning.evaluation.first_layer import by_unit, first_layer
from adv_lightning.evaluation.fooling_images import class_probability, draws, fooling_step
from adv_lightning.evaluation.from_checkpoint import load_module
from adv_lightning.evaluation.logit_sweep import logit_sweep
from adv_lightning.evaluation.report_section import png_of
from adv_lightning.metrics import locality
from adv_lightning.module import AdversarialModule
from adv_lightning.paper.images import test_images
from adv_lightning.paper.run import checkpoint_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NETWORKS = {"logistic": "logistic.fgsm", "maxout_plain": "maxout.fgsm", "maxout_adv": "maxout.adv.fgsm"}
"""The runs of the networks that are drawn, and a claim that needs each."""

_EPS = 0.25
_SHOWN = 20
_DRAWS = 200


class Networks:
    """Networks by the names of their runs.

    Args:
        runs: Folder of the runs of `run`; seed 0 is used.
        given: Other checkpoints, each as NAME=PATH.

    Raises:
        ValueError: a word is not NAME=PATH, or no network has this name.
    """

    def __init__(self, runs: Path, given: Sequence[str] = ()) -> None:
        self.runs = runs
        self.given: dict[str, Path] = {}
        for word in given:
            name, equals, path = word.partition("=")
            if name not in NETWORKS or not equals:
                raise ValueError(f"--checkpoints {word}: give NAME=PATH, NAME one of {', '.join(NETWORKS)}")
            self.given[name] = Path(path)

    def path(self, name: str) -> Path:
        """Return the checkpoint of a network.

        Raises:
            ValueError: the checkpoint does not exist.
        """
        if name in self.given:
            return self.given[name]
        try:
            return checkpoint_of(self.runs / name / "seed0")
        except ValueError as error:
            raise ValueError(
                f"{error}. Make it with `python -m adv_lightning.paper run {NETWORKS[name]} --seed 0`, or give another "
                f"with --checkpoints {name}=PATH"
            ) from None

    def load(self, name: str) -> AdversarialModule:
        """Load a network, in eval mode."""
        return load_module(self.path(name))

    def test_images(self, name: str, root: Path) -> tuple[Tensor, Tensor]:
        """Return the test images and labels for a network."""
        return test_images(self.path(name), root)


def draw_all(out: Path, runs: Path, given: Sequence[str], root: Path) -> None:
    """Draw all figures into a folder, and print their paths.

    Args:
        out: The folder.
        runs: See `Networks`.
        given: See `Networks`.
        root: Folder of MNIST.

    Raises:
        ValueError: a network is missing.
        FileNotFoundError: the data or a given file are missing.
    """
    networks = Networks(runs, given)
    for name in NETWORKS:
        networks.path(name)  # before the first figure is drawn
    drawn: dict[str, Callable[[Networks, Path], bytes]] = {"fig2": fig2, "fig3": fig3, "fig4": fig4, "fig5": fig5}
    for figure, draw in drawn.items():
        write_atomically(out / f"{figure}.png", draw(networks, root))
        print(f"{out / figure}.png", flush=True)


def fig2(networks: Networks, root: Path) -> bytes:
    """Draw the weights of logistic regression and their sign, and threes and sevens, clean and under FGSM."""
    module = networks.load("logistic")
    x, y = networks.test_images("logistic", root)
    found = first_layer(module.backbone, x.shape[1:])
    assert found is not None
    x_adv = FGSM(_EPS)(module, x, y, loss_fn=module.loss)
    parts = [_headed(plots.weights_and_sign(found[2]), "a, b) Weights of logistic regression and their sign")]
    for letter, name, images in (("c", "clean", x), ("d", f"FGSM, eps {_EPS:g}, not clipped", x_adv)):
        with torch.no_grad():
            wrong = module.loss_fn.predict(module(images)) != y
        grid = plots.image_grid(
            images[:_SHOWN],
            wrong[:_SHOWN].tolist(),
            columns=10,
            scale=(-_EPS, 1 + _EPS),
            caption="Framed: misclassified.",
        )
        parts.append(_headed(grid, f"{letter}) Threes and sevens, {name}: {_percent(wrong)} of {len(y)} misclassified"))
    return stacked(parts)


def fig3(networks: Networks, root: Path) -> bytes:
    """Draw the filters of the plain and the adversarially trained maxout nets, one unit a row, with their spread."""
    parts = []
    for name, words in (("maxout_plain", "Trained plainly"), ("maxout_adv", "Trained on the mixed loss")):
        module = networks.load(name)
        found = first_layer(module.backbone, torch.Size((1, 28, 28)))
        assert found is not None
        _, layer, weights = found
        spread = locality(weights).nanmedian().item()
        pieces = int(getattr(layer, "pieces", 5))
        figure = plots.filters(by_unit(layer, weights)[: 10 * pieces], columns=pieces)
        parts.append(_headed(figure, f"{words}: median spread {spread:.1f} px"))
    return stacked(parts, beside=True)


def fig4(networks: Networks, root: Path) -> bytes:
    """Draw the plain maxout net's logits against eps from -10 to 10, for the first test image of a 4."""
    module = networks.load("maxout_plain")
    x, y = networks.test_images("maxout_plain", root)
    four = int((y == 4).nonzero()[0])
    eps = torch.linspace(-10, 10, 201)
    inputs, logits = logit_sweep(module, x[four : four + 1], y[four : four + 1], eps)
    correct = module.loss_fn.predict(logits) == 4
    few = torch.linspace(0, len(eps) - 1, 49).round().long()
    figure = plots.logit_sweep(eps, logits, inputs[few], eps[few], correct[few], 4)
    return _headed(figure, f"Maxout trained plainly, an image of class 4: correct at {_percent(correct)} of the eps")


def fig5(networks: Networks, root: Path) -> bytes:
    """Draw fooling images of the class that one step from Gaussian noise reaches least often."""
    module = networks.load("maxout_plain")
    shape = torch.Size((1, 28, 28))

    def step(target: int, number: int) -> tuple[Tensor, Tensor]:
        x = fooling_step(module, draws(number, shape, target, 0), target, _EPS)
        return x, class_probability(module, x, target) >= 0.5

    success = [step(k, _DRAWS)[1] for k in range(10)]
    hardest = min(range(10), key=lambda k: int(success[k].sum()))
    images, hits = step(hardest, 2 * _SHOWN)
    grid = plots.image_grid(
        images, hits.tolist(), columns=10, caption=f"Framed: a probability of {hardest} of at least 1/2."
    )
    share = f"{_percent(success[hardest])} of {_DRAWS} draws succeed"
    return _headed(
        grid, f"Maxout trained plainly, MNIST. A step of {_EPS:g} towards {hardest}, the hardest class: {share}"
    )


def stacked(pngs: Sequence[bytes], beside: bool = False) -> bytes:
    """Join PNG files into one on white, below or beside each other."""
    images = [Image.open(io.BytesIO(png)).convert("RGB") for png in pngs]
    widths, heights = [image.width for image in images], [image.height for image in images]
    size = (sum(widths), max(heights)) if beside else (max(widths), sum(heights))
    whole, at = Image.new("RGB", size, "white"), 0
    for image in images:
        whole.paste(image, (at, 0) if beside else ((whole.width - image.width) // 2, at))
        at += image.width if beside else image.height
    buffer = io.BytesIO()
    whole.save(buffer, format="png")
    return buffer.getvalue()


def _headed(figure: Figure, text: str) -> bytes:
    """Return a figure with a headline, as a PNG file."""
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + 0.35)
    figure.suptitle(text, fontsize=10, wrap=True)
    return png_of(figure)


def _percent(share: Tensor) -> str:
    return f"{share.double().mean().item():.1%}"

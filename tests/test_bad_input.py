"""Bad input: one case for each row of the table in docs/reliability.md, whose messages must be the real ones."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import re
import resource
import subprocess
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset

from adv_lightning import FGSM, PGD, AdversarialModule, AttackSuite, FiniteLoss, SigmoidLoss
from adv_lightning.attacks import Attack
from adv_lightning.cli import main
from adv_lightning.cli.error_messages import is_ours
from adv_lightning.data import ImageDataModule
from adv_lightning.data.class_names import check_class_names
from adv_lightning.models import Normalized
from tests.conftest import ROOT
from tests.support.helpers import Batches, batches, fit, mlp, quiet_trainer
from tests.support.small_data import write_idx

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--test_after_fit=false"]
DIGITS = ["fit", f"--config={ROOT / 'configs' / 'digits.yaml'}", *QUIET]
MNIST = ["fit", f"--config={ROOT / 'configs' / 'mnist_softmax.yaml'}", *QUIET]
FOLDER = ["fit", f"--config={ROOT / 'configs' / 'image_folder_resnet18.yaml'}", *QUIET]

Change = Callable[[Tensor, Tensor], Any]


def refused(act: Callable[[], Any]) -> str:
    """The message of the error that the package raises on purpose."""
    with pytest.raises((ValueError, TypeError, ArithmeticError)) as caught:
        act()
    assert is_ours(caught.value)
    return str(caught.value)


def warned(act: Callable[[], Any]) -> str:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        act()
    said = [str(warning.message) for warning in seen if issubclass(warning.category, UserWarning)]
    assert len(said) == 1, said
    return said[0]


def command(words: list[str]) -> str:
    """The one line that a command prints before it ends with status 2."""
    err = io.StringIO()
    with contextlib.redirect_stderr(err), pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert "Traceback" not in err.getvalue()
    (line,) = [line for line in err.getvalue().splitlines() if line.startswith("error: ")]
    return line


def changed(change: Change, at: int = 0) -> Batches:
    """Three batches, one of them changed."""
    loader = batches(3)
    return Batches(*[change(x, y) if i == at else (x, y) for i, (x, y) in enumerate(loader.batches)])


def both(change: Change, at: int = 0, attack: Attack | None = None, **kwargs: Any) -> str:
    """The error in training, which is the same in an evaluation."""
    loader = changed(change, at)

    def module() -> AdversarialModule:
        return AdversarialModule(mlp(), attack or FGSM(0.1), **kwargs)

    said = refused(lambda: fit(module(), loader))
    assert refused(lambda: quiet_trainer().test(module(), loader, verbose=False)) == said
    return said


def with_nan(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone()
    x[1, 2] = torch.nan
    return x, y


class Wrapped(nn.Module):
    """A network whose forward pass is changed."""

    def __init__(self, change: Callable[[nn.Module, Tensor], Any]) -> None:
        super().__init__()
        self.net = mlp()
        self.change = change

    def forward(self, x: Tensor) -> Any:
        return self.change(self.net, x)


def backbone(change: Callable[[nn.Module, Tensor], Any]) -> str:
    """The error of such a backbone in training, which is the same in an evaluation."""
    said = refused(lambda: fit(AdversarialModule(Wrapped(change), FGSM(0.1)), batches(1)))
    judge = AdversarialModule(Wrapped(change), FGSM(0.1))
    assert refused(lambda: quiet_trainer().test(judge, batches(1), verbose=False)) == said
    return said


class Given(ImageDataModule):
    """Six images of two classes, or the given ones."""

    input_shape = (1, 1, 1)
    all_class_names = ("a", "b")
    scale = 1.0

    def __init__(self, images: Tensor | None = None, labels: Tensor | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.given = (
            torch.rand(6, 1, 1, 1) if images is None else images,
            torch.arange(6) % 2 if labels is None else labels,
        )

    def load(self, part: Literal["train", "test"]) -> tuple[Tensor, Tensor]:
        return self.given


def given(*args: Any, stage: str = "fit", **kwargs: Any) -> str:
    return refused(lambda: Given(*args, **kwargs).setup(stage))


def nan_in_a_later_batch(tmp_path: Path) -> str:
    trainer, module = quiet_trainer(), AdversarialModule(mlp())
    module.val_attack = None
    with pytest.warns(UserWarning, match="not finite") as said:
        trainer.validate(module, changed(with_nan, at=1), verbose=False)
    assert trainer.callback_metrics["val/loss"].isnan()
    assert trainer.callback_metrics["val/error"].isfinite()
    return next(str(warning.message) for warning in said if "logits" in str(warning.message))


def soft_labels(tmp_path: Path) -> str:
    loader = changed(lambda x, y: (x, F.one_hot(y, 3).double() * 0.9 + 1 / 30))
    fit(AdversarialModule(mlp(), FGSM(0.1), loss_fn=nn.CrossEntropyLoss()), Batches(loader.batches[0]))
    module = AdversarialModule(mlp(), FGSM(0.1), loss_fn=nn.CrossEntropyLoss())
    return refused(lambda: quiet_trainer().test(module, loader, verbose=False)).replace("float64", "float32")


def bounds_of_a_suite(tmp_path: Path) -> str:
    module = AdversarialModule(mlp(), FGSM(0.1))
    suite = AttackSuite({"PGD": PGD(0.1, bounds=(0, 1))})
    loader = changed(lambda x, y: (x.abs().clamp(max=1) * 255, y))
    return refused(lambda: quiet_trainer(callbacks=[suite]).test(module, loader, verbose=False))


def bytes_without_an_attack(tmp_path: Path) -> None:
    loader = changed(lambda x, y: ((x * 9).clamp(0, 255).byte(), y))
    fit(AdversarialModule(Wrapped(lambda net, x: net(x.double() / 255)), None), loader)
    with pytest.raises(RuntimeError, match="same dtype"):
        fit(AdversarialModule(mlp(), None), loader)


class Trains(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()

    def forward(self, x: Tensor) -> Any:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self(batch[0]).sum()


def eps_of_normalised_inputs(tmp_path: Path) -> str:
    x, y, std = torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 2, 0]), 0.25
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    outside = FGSM(0.1)(net, (x - 0.5) / std, y, loss_fn=F.cross_entropy) * std + 0.5
    inside = FGSM(0.1)(Normalized(net, [0.5], [std]), x, y, loss_fn=F.cross_entropy)
    torch.testing.assert_close((outside - x).abs(), torch.full_like(x, 0.1 * std))
    torch.testing.assert_close((inside - x).abs(), torch.full_like(x, 0.1))
    return warned(lambda: fit(AdversarialModule(mlp(), FGSM("8/255")), batches(1)))


def no_eps(tmp_path: Path) -> str:
    said = [refused(lambda bad=bad: FGSM(bad)) for bad in (-1, torch.nan, torch.inf, "abc", None)]
    assert len({line.partition(":")[2] for line in said}) == 1
    return said[0]


def no_alpha(tmp_path: Path) -> str:
    bad = (-0.1, 1.1, torch.nan, "0.5", None)
    said = [refused(lambda alpha=alpha: AdversarialModule(mlp(), None, alpha=alpha)) for alpha in bad]
    assert len({line.partition(":")[2] for line in said}) == 1
    return said[0]


def empty_loader(tmp_path: Path) -> str:
    loader = DataLoader(TensorDataset(torch.zeros(0, 6).double(), torch.zeros(0).long()))
    trainer = quiet_trainer()
    said = warned(lambda: trainer.test(AdversarialModule(mlp(), FGSM(0.1)), loader, verbose=False))
    assert not trainer.callback_metrics
    return said


def single_example_and_batchnorm(tmp_path: Path) -> str:
    net = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).double()
    loader = changed(lambda x, y: (x[:1], y[:1]), at=2)
    quiet_trainer().test(AdversarialModule(net, FGSM(0.1)), loader, verbose=False)
    return refused(lambda: fit(AdversarialModule(net, FGSM(0.1)), loader))


def zero_gradient(tmp_path: Path) -> str:
    net = Wrapped(lambda net, x: net((x * 10).round()))
    loader = batches(2)
    quiet_trainer().test(AdversarialModule(net, FGSM(0.0)), loader, verbose=False)  # moves nothing on purpose
    module = AdversarialModule(net, FGSM(0.1))
    said = warned(lambda: quiet_trainer().test(module, loader, verbose=False))
    assert warned(lambda: fit(module, loader, loader, num_sanity_val_steps=1)) == said
    return said


def no_parameters(tmp_path: Path) -> str:
    quiet_trainer().test(AdversarialModule(nn.Flatten(), FGSM(0.1)), batches(1, features=3), verbose=False)
    return refused(lambda: fit(AdversarialModule(nn.Flatten(), FGSM(0.1)), batches(1, features=3)))


def idx(name: str, content: Callable[[bytes], bytes]) -> Callable[[Path], str]:
    """The error when one of MNIST's files has another content."""

    def act(tmp_path: Path) -> str:
        raw = tmp_path / "MNIST" / "raw"
        write_idx(raw, zipped=name.endswith(".gz"))
        (raw / name).write_bytes(content((raw / name).read_bytes()))
        return command(
            [*MNIST, f"--data.root={tmp_path}", "--data.val_size=20", f"--trainer.default_root_dir={tmp_path}"]
        )

    return act


def pictures(tmp_path: Path, make: str) -> str:
    (tmp_path / make).mkdir(parents=True, exist_ok=True)
    return command([*FOLDER, f"--data.root={tmp_path}"])


def file_as_root(tmp_path: Path) -> str:
    (tmp_path / "file").write_text("")
    return command([*DIGITS, f"--trainer.default_root_dir={tmp_path / 'file'}"])


def root_not_writable(tmp_path: Path) -> str:
    (tmp_path / "locked").mkdir(mode=0o500)
    # Root may write to any folder, but cannot make one in /proc.
    root = Path("/proc/none") if os.access(tmp_path / "locked", os.W_OK) else tmp_path / "locked"
    return command([*DIGITS, f"--trainer.default_root_dir={root}"])


LOGGING = [*DIGITS, "--trainer.max_epochs=6", "--trainer.limit_train_batches=4", "--trainer.log_every_n_steps=1"]
LOGGING += ["--callbacks.pictures=null"]


def disk_full(tmp_path: Path) -> str:
    """A disk of four pages: two small files, and one page for the events, which need more."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(tmp_path)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        return command([*LOGGING, "--trainer.enable_checkpointing=false", f"--trainer.default_root_dir={tmp_path}"])
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def fewer_epochs(tmp_path: Path) -> str:
    short = [*DIGITS, f"--trainer.default_root_dir={tmp_path}", "--trainer.limit_train_batches=5"]
    main([*short, "--trainer.max_epochs=3"])
    return command([*short, "--ckpt_path=last", "--trainer.max_epochs=1"])


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def file_too_large(tmp_path: Path) -> str:
    with largest_file(4000):  # config.yaml has less, and the events have more
        return command([*LOGGING, "--trainer.enable_checkpointing=false", f"--trainer.default_root_dir={tmp_path}"])


def diverges(tmp_path: Path) -> str:
    net = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3)).double()
    module = AdversarialModule(net, FGSM(0.1), optimizer=lambda p: torch.optim.SGD(p, lr=1e200))
    return refused(lambda: fit(module, batches(3), callbacks=[FiniteLoss()], max_epochs=3))


def labels_of_every_loss(shift: int) -> Callable[[Path], str]:
    def act(tmp_path: Path) -> str:
        said = [both(lambda x, y: (x, y + shift), loss_fn=loss) for loss in (None, SigmoidLoss())]
        assert said[0] == said[1]
        return said[0]

    return act


def no_scalar(tmp_path: Path) -> str:
    """In training with an attack and without, in evaluation, and from a method of the module's own."""

    def each(logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits, y, reduction="none")

    class Mine(AdversarialModule):
        def loss(self, logits: Tensor, y: Tensor) -> Tensor:
            return each(logits, y)

    said = set()
    runs = [lambda m: quiet_trainer().validate(m, batches(1), verbose=False), lambda m: fit(m, batches(1))]
    for make in (partial(AdversarialModule, loss_fn=each), Mine):
        for run in runs:
            said |= {refused(partial(run, make(mlp(), attack))) for attack in (FGSM(0.1), None)}
    assert len(said) == 1
    return said.pop()


CASES: dict[str, Callable[[Path], str | None]] = {
    "NaN or infinity in a first batch": lambda _: both(with_nan),
    "NaN in a later batch of training": lambda _: refused(
        lambda: fit(AdversarialModule(mlp(), FGSM(0.1)), changed(with_nan, at=1), callbacks=[FiniteLoss()])
    ),
    "NaN in a later batch of an evaluation": nan_in_a_later_batch,
    "a training that diverges": diverges,
    "NaN in the images of a data module": lambda _: given(torch.full((6, 1, 1, 1), torch.nan)),
    "labels below 0": labels_of_every_loss(-3),
    "labels of K and more": labels_of_every_loss(3),
    "labels of K and more in a later batch": lambda _: both(lambda x, y: (x, y + 3), at=2),
    "labels below 0 in a later batch, such as -100": lambda _: both(
        lambda x, y: (x, torch.where(y == 2, -100, y)), at=2
    ),
    "labels out of range in a data module": lambda _: given(labels=torch.arange(6) % 3),
    "float labels": lambda _: both(lambda x, y: (x, y.float())),
    "one-hot labels": lambda _: both(lambda x, y: (x, F.one_hot(y, 3).float())),
    "soft labels with a `loss_fn` of the user's own": soft_labels,
    "a loss that is no scalar": no_scalar,
    "float labels in a data module": lambda _: given(labels=torch.zeros(6)),
    "fewer labels than inputs": lambda _: both(lambda x, y: (x, y[:-1])),
    "fewer labels than images in a data module": lambda _: given(labels=torch.arange(5) % 2),
    "a batch that is not a pair": lambda _: both(lambda x, y: {"image": x, "label": y}),
    "inputs outside the attack's bounds": lambda _: both(
        lambda x, y: (x.abs().clamp(max=1) * 255, y), attack=FGSM(0.1, bounds=(0, 1))
    ),
    "inputs outside the bounds of an attack of `AttackSuite`": bounds_of_a_suite,
    "uint8 inputs": lambda _: both(lambda x, y: ((x * 255).byte(), y)),
    "uint8 inputs, without an attack": bytes_without_an_attack,
    "normalised inputs, and eps meant for pixels": eps_of_normalised_inputs,
    "eps 8 on pixels in [0, 1]": lambda _: warned(
        lambda: fit(AdversarialModule(mlp(), FGSM(8)), changed(lambda x, y: (x.sigmoid(), y)))
    ),
    "Lightning's EarlyStopping, ModelCheckpoint or ReduceLROnPlateau on `val/adv_error`, not measured every epoch": (
        lambda _: refused(
            lambda: fit(
                AdversarialModule(mlp(), FGSM(0.1), val_attack_every_n_epochs=5),
                batches(1),
                batches(1),
                callbacks=[EarlyStopping("val/adv_error")],
            )
        )
    ),
    "steps too few or too short for eps, in PGD or an attack of another library": lambda _: warned(
        lambda: PGD(0.3, step_size=0.01, steps=10)
    ),
    "a LightningModule as the backbone": lambda _: warned(lambda: AdversarialModule(Trains(), FGSM(0.1))),
    "eps that is negative, NaN, infinite or not a number": no_eps,
    "alpha outside [0, 1], NaN or not a number": no_alpha,
    "a word for alpha on the command line": lambda _: command([*DIGITS, "--model.alpha=much"]),
    "a learning rate below 0": lambda tmp_path: command(
        [*DIGITS, f"--trainer.default_root_dir={tmp_path}", "--model.optimizer=SGD", "--model.optimizer.lr=-1"]
    ),
    "a seed below 0": lambda _: command([*DIGITS, "--seed_everything=-5"]),
    "fewer epochs than a continued run has had": fewer_epochs,
    "bounds that do not increase": lambda _: refused(lambda: FGSM(0.1, bounds=(1, 0))),
    "an empty data module": lambda _: given(torch.zeros(0, 1, 1, 1), torch.zeros(0).long(), stage="test"),
    "a validation set of all images": lambda _: given(val_size=6),
    "an empty loader of the user's own": empty_loader,
    "a class without a training image": lambda _: warned(lambda: Given(labels=torch.zeros(6).long()).setup("fit")),
    "classes that the data set does not have": lambda _: given(classes=[0, 7]),
    "classes with other labels than in training": lambda _: refused(
        lambda: check_class_names(["a", "b"], ["b", "c"], "AdversarialModule")
    ),
    "a last batch of one example, with BatchNorm": single_example_and_batchnorm,
    "a backbone with fewer logits than classes": lambda _: backbone(lambda net, x: net(x)[:, :2]),
    "logits that are not [B, K]": lambda _: backbone(lambda net, x: net(x)[:, :, None, None]),
    "a single logit, [B]": lambda _: backbone(lambda net, x: net(x)[:, 0]),
    "logits of another number of examples": lambda _: backbone(lambda net, x: net(x).mean(0, keepdim=True).float()),
    "a backbone that gives a tuple": lambda _: backbone(lambda net, x: (net(x), x)),
    "a backbone that gives a dict": lambda _: backbone(lambda net, x: {"logits": net(x)}),
    "a backbone without a gradient to its input": lambda _: backbone(lambda net, x: net(x.detach())),
    "a backbone whose gradient is zero": zero_gradient,
    "a backbone without parameters": no_parameters,
    "an IDX file cut short": idx("train-images-idx3-ubyte", lambda whole: whole[:-1]),
    "a file of another format for an IDX file": idx("train-images-idx3-ubyte", lambda whole: b"<html>"),
    "a broken .gz file": idx("train-images-idx3-ubyte.gz", gzip.decompress),
    "a missing folder of MNIST": lambda tmp_path: command([*MNIST, f"--data.root={tmp_path}"]),
    "a missing folder of pictures": lambda tmp_path: pictures(tmp_path, "."),
    "a folder of pictures without folders of classes": lambda tmp_path: pictures(tmp_path, "train"),
    "a file as `default_root_dir`": file_as_root,
    "a `default_root_dir` that cannot be written to": root_not_writable,
    "a disk that is full while logging": disk_full,
    "a quota or largest file size reached while logging": file_too_large,
}


def table() -> dict[str, tuple[str | None, str]]:
    """The message of each row, if it has one, and the file with more tests."""
    section = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8").partition("\n## Bad input\n")[2]
    lines = section.partition("\n## ")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")][2:]
    found = {}
    for passed, seen, more in rows:
        quoted = re.search(r"``(.+?)``|`(.+?)`", seen)
        silent = "nothing is said" in seen or seen.startswith("what the backbone makes")
        found[passed] = (None if silent else quoted[1] or quoted[2], more.strip("`"))  # type: ignore[index]
    return found


TABLE = table()


def test_rows_and_cases_match() -> None:
    assert list(TABLE) == list(CASES)


@pytest.mark.parametrize("passed", CASES)
def test_message(passed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = CASES[passed](tmp_path)
    message, more = TABLE[passed]
    assert not more or (ROOT / more).is_file()
    if message is None:
        assert said is None
    else:
        assert re.match(".*".join(map(re.escape, message.split("..."))), said or ""), said


# What is accepted, and what checks cost


class Asked(TorchDispatchMode):
    """Counts the operations that read values, for which a GPU must be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.times = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.times += func.overloadpacket.__name__ in ("_local_scalar_dense", "aminmax", "equal", "isfinite")
        return func(*args, **(kwargs or {}))


def test_values_are_checked_in_the_first_batch_only() -> None:
    asked = []

    class Counting(AdversarialModule):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            with Asked() as mode:
                loss = super().training_step(batch, batch_idx)
            asked.append(mode.times)
            return loss

    fit(Counting(mlp(), FGSM(0.1, bounds=(-9, 9))), batches(3), max_epochs=2, log_every_n_steps=100)
    first = asked[0]
    assert first > 0
    assert asked == [first, 0, 0] * 2


def test_checks_leave_no_hook_and_change_no_bit() -> None:
    class Unseen(AdversarialModule):
        """Skips the checks of the first batch."""

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return super().training_step(batch, batch_idx + 1)

    trained = []
    for kind in (AdversarialModule, Unseen):
        net = nn.Sequential(nn.Dropout(0.3), mlp())
        torch.manual_seed(1)
        module = kind(net, FGSM(0.1))
        fit(module, batches(3), log_every_n_steps=100)
        assert not module._forward_hooks
        trained.append(nn.utils.parameters_to_vector(net.parameters()))
    assert torch.equal(*trained)
    module = AdversarialModule(Wrapped(lambda net, x: (net(x), x)), FGSM(0.1))
    refused(lambda: fit(module, batches(1)))
    assert not module._forward_hooks


def test_own_loss_accepts_other_targets() -> None:
    class Half(AdversarialModule):
        def unpack(self, batch: Any) -> tuple[Tensor, Any]:
            x, y = batch
            return x, {"y": torch.where(y == 2, -1, y)}

        def loss(self, logits: Tensor, y: Any) -> Tensor:
            return F.cross_entropy(logits, y["y"], ignore_index=-1)

    module = Half(mlp(), FGSM(0.1))
    fit(module, batches(2))
    assert module.newest[0].isfinite()


@pytest.mark.parametrize("labels", [torch.int64, torch.uint8])
@pytest.mark.parametrize("loss", [None, SigmoidLoss()], ids=str)
def test_labels_may_be_bytes(labels: torch.dtype, loss: Any) -> None:
    module = AdversarialModule(mlp(), FGSM(0.1), loss_fn=loss)
    fit(module, Batches(*[(x, y.to(labels)) for x, y in batches(2)]))
    assert module.newest[0].isfinite()


def test_bounds_may_be_rounded() -> None:
    x, y = next(iter(batches(1)))
    for beyond, passes in ((1e-4, True), (1e-2, False)):
        module = AdversarialModule(mlp(), FGSM(0.1, bounds=(0, 1)))
        loader = Batches((x.clamp(-beyond, 1 + beyond), y))
        if passes:
            fit(module, loader)
        else:
            assert "bounds" in refused(lambda m=module, at=loader: fit(m, at))

"""Networks get facts from the data if they accept them, and checkpoints hold no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from adv_lightning.cli import main
from adv_lightning.module import AdversarialModule
from tests.conftest import ROOT

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
SHORT = [*QUIET, "--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.log_every_n_steps=1"]
ATTACK = ["--model.attack=FGSM", "--model.attack.eps=0.1"]
NORMALIZED = ["Normalized", "--model.backbone.mean=[0.5]", "--model.backbone.std=[0.5]"]

# Network, classes of the data, and which of the two facts its checkpoint holds.
CASES = {
    "nothing": (["mypackage.TakesNothing"], None, set()),
    "classes": (["mypackage.TakesClasses"], "[3,7]", {"num_classes"}),
    "both": (["mypackage.TakesBoth"], "[3,7]", {"num_classes", "input_shape"}),
    "wrapped": ([*NORMALIZED, "--model.backbone.backbone=SmallConvNet"], "[3,7]", {"num_classes", "input_shape"}),
    "wrapped, nothing": ([*NORMALIZED, "--model.backbone.backbone=mypackage.TakesNothing"], None, set()),
}


@pytest.mark.parametrize("case", CASES)
def test_trains_reloads_and_is_judged(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tests" / "support" / "user_project")
    (net, *more), classes, held = CASES[case]
    chosen = [] if classes is None else [f"--data.classes={classes}"]
    words = [f"--model.backbone={net}", *more, *ATTACK, "--data=DigitsDataModule", *chosen]
    cli = main(["fit", *words, *SHORT, f"--trainer.default_root_dir={tmp_path}"])
    path = Path(cli.trainer.log_dir) / "checkpoints" / "last.ckpt"

    module = AdversarialModule.load_from_checkpoint(path)
    described = dict(module.hparams)["backbone"]
    described = described["init_args"]["backbone"] if "wrapped" in case else described
    facts = {"num_classes": 2, "input_shape": [1, 8, 8]}
    found = {name: value for name, value in described.get("init_args", {}).items() if name in facts}
    assert found == {name: facts[name] for name in held}
    assert list(module.parameters())[-1].shape == (10 if classes is None else 2,)

    main(["validate", f"--ckpt_path={path}", *QUIET, "--trainer.logger=false"])

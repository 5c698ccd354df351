"""Examples crafted on the network in a checkpoint; another network is judged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch.nn import functional as F

from adv_lightning import FGSM, PGD, AdversarialModule, Attack, AttackSuite, SigmoidLoss
from adv_lightning.attacks.description import build
from adv_lightning.cli import main
from adv_lightning.evaluation.transferred_attack import Transferred
from tests.conftest import ROOT
from tests.support.helpers import Batch, Batches, quiet_trainer

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
SHORT = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=8", "--test_after_fit=false"]
SHORT += ["--callbacks.pictures=null"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A network with dropout and independent sigmoids, trained a little on digits."""
    root = tmp_path_factory.mktemp("source")
    words = ["fit", f"--config={ROOT / 'configs' / 'digits.yaml'}", "--model.loss_fn=SigmoidLoss", *SHORT, *QUIET]
    return main([*words, f"--trainer.default_root_dir={root}"]).trainer.checkpoint_callback.last_model_path


@pytest.fixture
def digits() -> Batch:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(12, 1, 8, 8, generator=generator), torch.arange(12) % 10


def judged() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()


@pytest.mark.parametrize("attack", [FGSM(0.1), PGD(0.1, steps=3)])
def test_crafts_on_the_source_in_its_own_loss(checkpoint: str, digits: Batch, attack: nn.Module) -> None:
    x, y = digits
    source = AdversarialModule.load_from_checkpoint(checkpoint).eval()
    assert isinstance(source.loss_fn, SigmoidLoss)
    expected = attack(source, x, y, loss_fn=source.loss)
    assert not torch.equal(expected, attack(source, x, y, loss_fn=F.cross_entropy))
    crafted = Transferred(checkpoint, attack)(judged(), x, y, loss_fn=F.cross_entropy)
    assert torch.equal(crafted, expected)
    assert not crafted.requires_grad


def test_does_not_run_the_judged_model(checkpoint: str, digits: Batch) -> None:
    x, y = digits
    attack = Transferred(checkpoint, FGSM(0.1))
    assert torch.equal(attack(None, x, y, loss_fn=None), attack(judged().train(), x, y, loss_fn=F.cross_entropy))


def test_works_in_inference_mode_from_the_first_call(checkpoint: str, digits: Batch) -> None:
    x, y = digits
    with torch.inference_mode():
        crafted = Transferred(checkpoint, FGSM(0.1))(judged(), x.clone(), y, loss_fn=F.cross_entropy)
    assert torch.equal(crafted, Transferred(checkpoint, FGSM(0.1))(judged(), x, y, loss_fn=F.cross_entropy))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_crafts_in_the_sources_precision(checkpoint: str, digits: Batch, dtype: torch.dtype) -> None:
    x, y = digits[0].to(dtype), digits[1]
    attack = Transferred(checkpoint, FGSM(0.1))
    crafted = attack(judged(), x, y, loss_fn=F.cross_entropy)
    assert crafted.dtype == dtype
    assert torch.equal(crafted, attack(judged(), x.float(), y, loss_fn=F.cross_entropy).to(dtype))


def test_source_is_not_a_submodule(checkpoint: str, digits: Batch) -> None:
    x, y = digits
    module = AdversarialModule(judged(), FGSM(0.1), val_attack=Transferred(checkpoint, FGSM(0.1)))
    keys, modules = list(module.state_dict()), len(list(module.modules()))
    module.val_attack(module, x, y, loss_fn=module.loss)
    assert list(module.state_dict()) == keys == ["backbone.1.weight", "backbone.1.bias"]
    assert len(list(module.modules())) == modules
    assert all(p.grad is None for p in module.parameters())


def test_touches_no_global_generator(checkpoint: str, digits: Batch) -> None:
    x, y = digits
    before = torch.get_rng_state()
    Transferred(checkpoint, FGSM(0.1))(None, x, y, loss_fn=None)
    assert torch.equal(torch.get_rng_state(), before)


def test_description_rebuilds_it(checkpoint: str, digits: Batch) -> None:
    x, y = digits
    attack = Transferred(checkpoint, FGSM(0.1, (0, 1)))
    again = build(yaml.safe_load(json.dumps(attack.config())), Attack)  # which is YAML, too
    assert isinstance(again, Transferred)
    assert again.config() == attack.config()
    assert torch.equal(again(None, x, y, loss_fn=None), attack(None, x, y, loss_fn=None))


def test_works_in_the_attack_suite_from_yaml(checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    attacks = {"transfer": Transferred(checkpoint, FGSM(0.1)).config()}
    Path("suite.yaml").write_text(yaml.safe_dump({"callbacks": {"attack_suite": {"init_args": {"attacks": attacks}}}}))
    words = ["fit", f"--config={ROOT / 'configs' / 'digits.yaml'}", "--seed_everything=1", *SHORT, *QUIET]
    other = main(words).trainer.checkpoint_callback.last_model_path
    cli = main(["test", f"--ckpt_path={other}", "--config=suite.yaml", *QUIET, "--trainer.logger=false"])
    found = cli.trainer.callback_metrics
    x, y = cli.datamodule.test_set.images.float() / 16, cli.datamodule.test_set.labels
    net = AdversarialModule.load_from_checkpoint(other).eval()
    crafted = Transferred(checkpoint, FGSM(0.1))(net, x, y, loss_fn=None)
    error = (net(crafted).argmax(dim=1) != y).float().mean()
    assert found["test/transfer_error"] == pytest.approx(error.item(), abs=1e-7)
    assert found["test/error"] < found["test/transfer_error"]


def test_names_a_missing_file_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FileNotFoundError, match=r"checkpoint='nothing\.ckpt'"):
        Transferred("nothing.ckpt", FGSM(0.1))
    words = [
        "--model.val_attack.class_path=adv_lightning.evaluation.transferred_attack.Transferred",
        "--model.val_attack.attack=FGSM",
    ]
    words += ["--model.val_attack.checkpoint=nothing.ckpt", "--model.val_attack.attack.eps=0.1"]
    with pytest.raises(SystemExit) as stop:
        main(["fit", f"--config={ROOT / 'configs' / 'digits.yaml'}", *words, *QUIET])
    assert stop.value.code == 2
    assert "checkpoint='nothing.ckpt'" in capsys.readouterr().err


def test_reads_the_file_at_the_first_call(tmp_path: Path, digits: Batch) -> None:
    x, y = digits
    (tmp_path / "cut.ckpt").write_bytes(b"PK\x03\x04 cut short")
    attack = Transferred(str(tmp_path / "cut.ckpt"), FGSM(0.1))
    with pytest.raises(ValueError, match=r"cut\.ckpt.*cut short"):
        attack(judged(), x, y, loss_fn=F.cross_entropy)


def test_refuses_a_module_built_in_python(tmp_path: Path, digits: Batch) -> None:
    module = AdversarialModule(judged(), FGSM(0.1))
    path = tmp_path / "python.ckpt"
    torch.save({"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}, path)
    with pytest.raises(ValueError, match=r"python\.ckpt.*built in Python"):
        Transferred(str(path), FGSM(0.1))(judged(), *digits, loss_fn=F.cross_entropy)


@pytest.mark.filterwarnings("ignore:precision bf16-true")
@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed", "64-true"])
def test_source_keeps_its_precision(checkpoint: str, digits: Batch, precision: str) -> None:
    x, y = digits
    attack = Transferred(checkpoint, FGSM(0.1))
    seen: list[torch.Tensor] = []
    suite = AttackSuite({"transferred": attack})
    trainer = quiet_trainer(callbacks=[suite], precision=precision)
    trainer.test(AdversarialModule(judged(), FGSM(0.1)), Batches((x, y)), verbose=False)
    source = attack._sources[0]
    assert {p.dtype for p in source.parameters()} == {torch.float32}
    source.register_forward_hook(lambda module, args, output: seen.append(output))
    with trainer.precision_plugin.forward_context():
        attack(None, x, y, loss_fn=None)
    assert [logits.dtype for logits in seen] == [torch.float32]
    assert torch.get_default_dtype() == torch.float32


def test_draws_anew_in_each_step_of_training(checkpoint: str, digits: Batch) -> None:
    x, y = digits
    attack = Transferred(checkpoint, PGD(0.1, steps=1, random_start=True))
    model = judged()
    for training in (True, False):
        model.train(training)
        crafted = [attack(model, x, y, loss_fn=F.cross_entropy) for _ in range(2)]
        assert torch.equal(*crafted) is not training
    assert not any(module.training for module in attack._sources[0].modules())

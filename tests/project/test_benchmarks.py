"""The benchmarks compare like with like, and their report says what was measured."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.testing import assert_close

from adv_lightning.models import SoftmaxRegression
from benchmarks import __main__ as command
from benchmarks import steps
from benchmarks.epochs import RandomImages, Stopwatch, hand_epoch
from benchmarks.memory import peak_bytes
from benchmarks.overhead import Plain
from benchmarks.report import BEGIN, END, Bar, Section, write_between_markers
from benchmarks.timing import Run, Spread, figure, interleaved
from tests.support.helpers import Counter, batches, mlp, quiet_trainer

PEERS = {"torchattacks": "torchattacks", "foolbox": "foolbox", "ART": "art"}


def test_quartiles() -> None:
    assert Spread.of([5.0, 1.0, 2.0, 4.0, 3.0]) == Spread(3.0, 2.0, 4.0, 5)
    assert Spread.of([1.0, 2.0, 3.0, 4.0]) == Spread(2.5, 1.75, 3.25, 4)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0, 1)
    assert Spread.of([6.0, 6.0]).over(Spread.of([1.0, 4.0, 90.0])) == 1.5


@pytest.mark.parametrize(
    ("value", "text"), [(0.05678, "0.06"), (0.9, "0.90"), (1.234, "1.23"), (12.34, "12.3"), (1234.5, "1234")]
)
def test_figures_have_three_digits(value: float, text: str) -> None:
    assert figure(value) == text


def test_takes_turns_and_drops_the_warm_up() -> None:
    order: list[str] = []

    def contestant(name: str) -> float:
        order.append(name)
        return float(len(order))

    found = interleaved({"a": lambda: contestant("a"), "b": lambda: contestant("b")}, rounds=3, warmup=2)
    assert order == ["a", "b"] * 5
    assert found == {"a": Spread.of([5.0, 7.0, 9.0]), "b": Spread.of([6.0, 8.0, 10.0])}


def test_contestants_do_the_same_work() -> None:
    (x, y) = next(iter(batches(1)))
    weights, passes = {}, {}
    for step in (steps.hand, steps.naive, steps.ours):
        net = mlp()
        counter = Counter(net)
        optimizer = steps.sgd(net)
        for _ in range(2):  # the second with momentum
            step(net, optimizer, x, y)
        weights[step], passes[step] = list(net.parameters()), (counter.forward, counter.backward)
    assert_close(weights[steps.ours], weights[steps.hand], rtol=1e-13, atol=1e-15)
    assert_close(weights[steps.naive], weights[steps.hand], rtol=1e-13, atol=1e-15)
    assert not torch.allclose(weights[steps.hand][0], next(mlp().parameters()), rtol=1e-3)
    assert passes == {steps.hand: (4, 4), steps.naive: (6, 6), steps.ours: (4, 4)}


@pytest.mark.filterwarnings("ignore")  # what other libraries warn of is not ours
def test_contestants_train_copies() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 10))
    before = copy.deepcopy(net.state_dict())
    actions = steps.bound(net, torch.rand(4, 1, 4, 4), torch.arange(4))
    assert set(actions) >= {"clean, by hand", "mixed, by hand", steps.OURS, "naive, by hand"}
    for action in actions.values():
        action()
    assert_close(net.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.filterwarnings("ignore")
def test_other_libraries_train(peer: str) -> None:
    pytest.importorskip(PEERS[peer])
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 10))
    before = copy.deepcopy(net.state_dict())
    action = steps.CONTESTANTS[peer](net, steps.sgd(net), torch.rand(4, 1, 4, 4), torch.arange(4))
    action()
    assert not torch.equal(net[1].weight, before["1.weight"])
    assert net.training


def test_names_missing_libraries(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for module in PEERS.values():
        for name in [name for name in sys.modules if name.split(".")[0] == module]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, module, None)
    assert command.main(["--quick", "--rows", "step"]) == 0
    printed = capsys.readouterr().out
    for peer in PEERS:
        assert f"| {peer} | not installed |" in printed
    assert "| adv_lightning | " in printed


@pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader` but have no")
def test_trainer_and_loop_take_turns() -> None:
    order: list[str] = []

    class Told(Plain):
        def on_train_batch_start(self, batch: object, batch_idx: int) -> None:
            order.append("Trainer")

    turn = Stopwatch.TURN
    data = RandomImages(steps=2 * turn + 1, size=8)
    by_hand = hand_epoch(lambda *args: order.append("hand"), nn.Linear(1, 1), data, torch.device("cpu"))
    module: LightningModule = Told(SoftmaxRegression(input_shape=data.input_shape), logged=0)
    watch = Stopwatch(Run(), by_hand)
    watch.fit(quiet_trainer(max_epochs=3, limit_val_batches=0), module, data)
    full, rest = ["hand"] * turn + ["Trainer"] * turn, ["hand", "Trainer"]
    assert order == (full + full + rest) * 3
    assert [len(values) for values in (watch.hand, watch.steps, watch.epochs)] == [2, 2, 2]
    assert all(step < epoch for step, epoch in zip(watch.steps, watch.epochs, strict=True))


def test_peak_memory() -> None:
    def action() -> None:
        one = torch.empty(1024)
        two = one + one
        del one
        _ = two + two

    assert peak_bytes(action, torch.device("cpu")) == 2 * 4096


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    bars = [Bar("fast thing", 1.04, 1.10), Bar("slow thing", 1.11, 1.10), Bar("broken thing", float("nan"), 9.0)]
    section = Section("Made up", bars=bars, raw={"slow": Spread.of([1.0, 2.0, 3.0])})
    monkeypatch.setattr(command, "GROUPS", {"made-up": lambda run: section})


@pytest.mark.usefixtures("made_up")
def test_check_fails_and_names_the_bar(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 0
    assert "| slow thing | 1.11 | 1.10 | **no** |" in capsys.readouterr().out
    assert command.main(["--check"]) == 1
    said = capsys.readouterr().err
    assert "exceeded: slow thing: 1.110, and the limit is 1.10" in said
    assert "exceeded: broken thing: nan" in said
    assert "fast thing" not in said


@pytest.mark.usefixtures("made_up")
def test_json(tmp_path: Path) -> None:
    command.main(["--json", str(tmp_path / "raw.json")])
    expected = '{"made-up":{"slow":{"median":2.0,"low":1.5,"high":2.5,"count":3}}}'
    assert "".join((tmp_path / "raw.json").read_text().split()) == expected


@pytest.mark.usefixtures("made_up")
def test_writes_between_markers(tmp_path: Path) -> None:
    path = tmp_path / "performance.md"
    path.write_text(f"before\n\n{BEGIN}\nold\n{END}\nafter, \u00e9\n", encoding="utf-8")
    write_between_markers(path, "new")
    assert path.read_text(encoding="utf-8") == f"before\n\n{BEGIN}\nnew\n{END}\nafter, \u00e9\n"
    command.main(["--write", str(path)])
    written = path.read_text(encoding="utf-8")
    assert written.startswith(f"before\n\n{BEGIN}\n| what |")
    assert written.endswith(f"\n{END}\nafter, \u00e9\n")
    assert "new" not in written


@pytest.mark.parametrize("text", ["", f"{BEGIN}\n", f"{END}\n{BEGIN}\n", f"{BEGIN}\n{END}\n{BEGIN}\n{END}\n"])
@pytest.mark.usefixtures("made_up")
def test_refuses_missing_markers_first(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "performance.md"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        command.main(["--write", str(path)])
    printed = capsys.readouterr()
    assert BEGIN in printed.err
    assert END in printed.err
    assert "measuring" not in printed.err
    assert path.read_text(encoding="utf-8") == text

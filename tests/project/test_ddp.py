"""Two processes train and judge as one does. They start once and run tests/support/ddp_cases.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from adv_lightning.data.seeding import mix_seed
from tests.support import ddp_cases
from tests.support.helpers import two_processes

Results = Callable[[str], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The results of a case, one for each of two processes."""
    folder = tmp_path_factory.mktemp("ddp")
    two_processes("tests.support.ddp_cases", folder)
    return lambda case: [torch.load(folder / f"{case}-{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("case", ["plain", "pgd", "unused_and_accumulated", "hidden_fgsm", "hidden_rotation"])
def test_ten_steps_equal_one_process(case: str, results: Results) -> None:
    alone = getattr(ddp_cases, case)()
    first, second = results(case)
    assert torch.equal(first["weights"], second["weights"])
    torch.testing.assert_close(first["weights"], alone["weights"], rtol=0, atol=1e-12)
    for result in (first, second):
        assert result["loss"] == pytest.approx(alone["loss"], abs=1e-6)


def test_batch_norm(results: Results) -> None:
    first, second = results("batch_norm")
    assert torch.equal(first["weights"], second["weights"])
    # Each process normalises by its own batch, so the result differs from one process on the union.
    assert not torch.allclose(first["weights"], ddp_cases.batch_norm()["weights"], rtol=0, atol=1e-6)
    tracked = [v for name, v in first["buffers"].items() if name.endswith("num_batches_tracked")]
    assert [int(v) for v in tracked] == [20]


def test_own_dropout_masks(results: Results) -> None:
    first, second = results("dropout")
    assert first["masks"].shape == second["masks"].shape == (6, 8, 6)
    for mine, other in zip(first["masks"], second["masks"], strict=True):
        assert 0.25 < (mine != other).double().mean() < 0.75
    assert torch.equal(first["weights"], second["weights"])


@pytest.mark.parametrize("case", ["judged", "judged_on_51", "judged_on_1"])
def test_figures_of_an_odd_set(case: str, results: Results) -> None:
    alone = getattr(ddp_cases, case)()
    assert alone["val"]["val/adv_error"] > 0
    for result in results(case):
        for stage in ("val", "test"):
            assert result[stage].keys() == alone[stage].keys()
            for name, value in alone[stage].items():
                exact = name.endswith("error")
                assert result[stage][name] == (value if exact else pytest.approx(value, abs=1e-6)), name
        for row, expected in zip(result["rows"], alone["rows"], strict=True):
            assert (row["name"], row["n"], row["error"]) == (expected["name"], expected["n"], expected["error"])
    n = {row["name"]: row["n"] for row in alone["rows"]}
    assert n == {"clean": 360, "FGSM": 360, "PGD": 101, "worst case": 101}


def test_whole_evaluation(results: Results) -> None:
    alone = ddp_cases.evaluated()
    assert {row["name"]: row["n"] for row in alone["rows"]}["clean"] % 2 == 1
    first, second = results("evaluated")
    assert first == second
    # Counts are exact, and so is every error and its interval. A probability depends on its batch by rounding.
    for row, expected in zip(first["rows"], alone["rows"], strict=True):
        for name, value in expected.items():
            mean = name in ("confidence_on_mistakes", "wrong_class_probability")
            assert row[name] == (pytest.approx(value, abs=1e-6) if mean else value), (expected["name"], name)
    assert first["record"] == alone["record"]
    assert first["tables"][1] == alone["tables"][1]


def test_loss_not_finite_ends_every_process(results: Results) -> None:
    first, second = results("broken")
    assert first["said"].startswith("the loss is not finite in another process")
    assert "in batch 2 of epoch 0" in second["said"]


def test_metrics(results: Results) -> None:
    alone = ddp_cases.metrics()
    assert alone["none"].isnan()
    for result in results("metrics"):
        assert result["error"] == alone["error"]
        assert result["confidence"] == alone["confidence"]
        assert result["none"].isnan()


def test_counts_of_uneven_parts(results: Results) -> None:
    alone = ddp_cases.counts()
    assert alone["totals"][0] == alone["histogram"].sum() == 101
    for result in results("counts"):
        assert result.keys() == alone.keys()
        for name, value in alone.items():
            assert torch.equal(result[name], value), name


def test_activations(results: Results) -> None:
    alone = ddp_cases.hidden_fgsm()
    for result in results("hidden_fgsm"):
        for stage in ("val", "test"):
            assert result[stage].keys() == alone[stage].keys()
            name = f"{stage}/activation/2"
            assert result[stage][name] == pytest.approx(alone[stage][name], rel=1e-6)


@pytest.mark.parametrize(("case", "tag"), [("noise", 1), ("rubbish", 2)])
def test_own_draws(case: str, tag: int, results: Results) -> None:
    both = results(case)
    assert torch.equal(both[0]["weights"], both[1]["weights"])
    for rank, result in enumerate(both):
        draws = [draw for draw in result["draws"] if draw.abs().max() > 0]  # the clean inputs are zero
        assert len(draws) == 6
        for epoch in range(2):
            for batch in range(3):
                generator = torch.Generator().manual_seed(mix_seed(1, epoch, rank, batch, tag))
                found = draws[3 * epoch + batch]
                if case == "noise":
                    expected = torch.empty(found.shape).random_(0, 2, generator=generator).double() - 0.5
                else:
                    expected = torch.empty_like(found).normal_(generator=generator)
                assert torch.equal(found, expected)


def test_noise_figures_are_means(results: Results) -> None:
    both = results("noise_compared")
    assert both[0]["figures"] == both[1]["figures"]
    assert sorted(both[0]["figures"]) == [f"noise/{n}" for n in ("clean_loss", "dot", "fgsm_dot", "fgsm_loss", "loss")]
    assert torch.equal(both[0]["weights"], results("noise")[0]["weights"])


def test_centres(results: Results) -> None:
    alone, both = ddp_cases.centres(), results("centres")
    assert alone["centres"].abs().max() > 0.5
    for result in both:
        assert torch.equal(result["centres"], alone["centres"])
    assert torch.equal(both[0]["weights"], both[1]["weights"])


def test_one_process_reads_the_data(results: Results) -> None:
    alone, (first, second) = ddp_cases.decoded(), results("decoded")
    assert (alone["reads"], alone["files"]) == (2, [[], [], []])
    assert (first["reads"], second["reads"]) == (2, 0)
    # Both map the same unlinked files, so nothing is left behind.
    assert first["files"] == second["files"]
    assert all(name.endswith(" (deleted)") for _, name in first["files"])
    for result in (first, second):
        for found, expected in zip(result["sets"], alone["sets"], strict=True):
            assert all(map(torch.equal, found, expected))


def test_each_process_reads_without_room(results: Results) -> None:
    shared, (first, second) = results("decoded"), results("decoded_without_room")
    # The test set is small enough.
    assert (first["reads"], second["reads"]) == (2, 1)
    assert "cannot write to the temporary folder" in "".join(first["said"])
    assert second["said"] == []
    for result in (first, second):
        assert result["figures"] == shared[0]["figures"] == shared[1]["figures"]


def test_another_batch_size_in_mid_epoch(results: Results) -> None:
    both = results("continued")
    images, every = torch.cat([result["images"] for result in both]), both[0]["every"]
    assert len(images) == len(every) + len(every) % 2  # an odd set is padded by one image
    assert torch.equal(images.unique(dim=0), every.unique(dim=0))
    assert all(result["over"] for result in both)

"""What an evaluation prints: tables in a wide terminal, lines elsewhere."""

from __future__ import annotations

import pytest

from adv_lightning.evaluation.report_section import Section, Table

FIGURES = Table("Test", ["attack", "n", "error, % [95 % interval]", "confidence of mistakes, %"], [
    ["clean", "360", "1.11 [0.43, 2.83]", "61.2"], ["FGSM(eps=8/255, bounds=None)", "360", "0.00 [0.00, 1.06]", ""],
])  # fmt: skip
WORDS = Table("Checks", ["check", "outcome", "what was found"], [["dead pixels", "passed", "No " * 60]], True)


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    Section("Under attack", tables=[FIGURES, WORDS], notes=["A note."]).show()
    return capsys.readouterr().out.splitlines()


def test_without_a_terminal_each_row_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys) == [
        "Test",
        "  clean: n 360, error 1.11 [0.43, 2.83], confidence of mistakes 61.2",
        "  FGSM(eps=8/255, bounds=None): n 360, error 0.00 [0.00, 1.06]",
        "Checks",
        f"  dead pixels: passed, {'No ' * 60}",
        "A note.",
    ]


@pytest.mark.parametrize(("columns", "boxed"), [(160, [True, True]), (80, [False, True]), (60, [False, False])])
def test_a_terminal_that_is_wide_enough_gets_tables(
    columns: int, boxed: list[bool], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes the output for a terminal
    monkeypatch.setenv("COLUMNS", str(columns))
    said = "\n".join(printed(capsys))
    first, _, second = said.partition("Checks")
    assert ["│" in first, "│" in second] == boxed

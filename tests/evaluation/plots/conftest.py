"""Fixtures that check that pictures are readable."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations, pairwise
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Callable[[Figure], list[Text]]:
    """Draws a figure and returns the texts in it."""

    def draw(figure: Figure) -> list[Text]:
        texts: list[Text] = []
        original = Text.draw

        def record(self: Text, *args: Any, **kwargs: Any) -> None:
            if self.get_visible() and self.get_text().strip():
                texts.append(self)
            original(self, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(Text, "draw", record)
            FigureCanvasAgg(figure).draw()
        return texts

    return draw


@pytest.fixture
def legible(drawn: Callable[[Figure], list[Text]]) -> Callable[[Figure], list[str]]:
    """Asserts that at 800 pixels all texts have at least 9 points, lie inside the figure and do not overlap."""

    def check(figure: Figure) -> list[str]:
        texts = drawn(figure)
        assert figure.get_dpi() == 100
        assert figure.bbox.width <= 800
        level = [text for text in texts if text.get_rotation() in (0, 90)]
        slanted = [text for text in texts if text not in level]
        boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
        for text in texts:
            assert text.get_fontsize() >= 9, text
        for words, box in boxes:
            assert -1 <= box.x0 <= box.x1 <= figure.bbox.width + 1, words
            assert -1 <= box.y0 <= box.y1 <= figure.bbox.height + 1, words
        for (words, box), (other_words, other) in combinations(
            [(text.get_text(), text.get_window_extent()) for text in level], 2
        ):
            width = min(box.x1, other.x1) - max(box.x0, other.x0)
            height = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert width < 1 or height < 1, (words, other_words)
        places = sorted(text.get_transform().transform(text.get_position())[0] for text in slanted)
        for left, right in pairwise(places):
            assert (right - left) * math.sin(math.pi / 4) >= slanted[0].get_fontsize() * 100 / 72
        return [words for words, _ in boxes]

    return check

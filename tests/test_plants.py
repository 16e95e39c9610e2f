"""The list of planted bugs must fit the code, or it proves nothing. `make plants` plants them."""

from __future__ import annotations

import pytest

from .planted.plant import Plant
from .plants import PLANTS, ROOT, file_of


@pytest.mark.parametrize("plant", PLANTS, ids=[plant.name for plant in PLANTS])
def test_a_planted_bug_still_fits_the_code(plant: Plant) -> None:
    text = (ROOT / plant.file).read_text("utf-8")
    assert plant.right in text
    assert text.replace(plant.right, plant.wrong) != text
    for test in plant.tests:
        file, _, name = file_of(test).partition("::")
        assert f"def {name}" in (ROOT / "tests" / file).read_text("utf-8")

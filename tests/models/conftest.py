"""Checkpoints that the tests of a module share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from paged_runner import MakeModel
from tiny_models import make_checkpoint


@pytest.fixture(scope="module")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> MakeModel:
    made: dict[str, Path] = {}

    def make(family: str, **overrides: Any) -> Path:
        key = f"{family} {sorted(overrides.items())}"
        if key not in made:
            made[key] = make_checkpoint(family, tmp_path_factory.mktemp(family), **overrides)
        return made[key]

    return make

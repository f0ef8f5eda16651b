"""The tokenizer of the output tests."""

from __future__ import annotations

import pytest
from tiny_models import make_tokenizer

from rillm.text.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """One token for each byte, and the end token."""
    return Tokenizer.from_directory(make_tokenizer(tmp_path_factory.mktemp("tokenizer")))

"""Makers of splits as fixtures."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from split_cases import draw_split, make_split
from trademl.etl.dataset import Split


@pytest.fixture
def split_of() -> Callable[..., Split]:
    return make_split


@pytest.fixture
def draw() -> Callable[..., Split]:
    return draw_split

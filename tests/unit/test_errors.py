"""Errors that name what is missing."""

from __future__ import annotations

import pytest

from trademl import errors


def test_a_missing_extra_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(errors.EXTRAS, "serve", ("json", "no_such_library", "nor_this"))
    with pytest.raises(errors.MissingExtraError) as caught:
        errors.require_extra("train", "serve")
    assert str(caught.value) == (
        "no_such_library, nor_this is not installed: pip install 'trademl[serve]'"
    )


def test_the_tree_of_the_docstring_is_the_tree_of_the_classes():
    drawn = errors.__doc__ or ""
    classes = [c for c in vars(errors).values() if isinstance(c, type)]
    assert all(c.__name__ in drawn for c in classes)
    assert all(issubclass(c, errors.TrademlError) for c in classes)

"""Answers given before, by model and features; each question has one answer until it is too old.

Shape letters: N rows, D feature columns.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trademl.serve.served import Scores, ServedModel

MOST_ROWS = 16  # longer requests are files being scored, not the same question again


class Kept(NamedTuple):
    """An answer, the model that gave it, and when."""

    scores: Scores
    model: ServedModel
    made_at_s: float


class AnswerCache:
    """The least recently given answers make room for new ones.

    Parameters
    ----------
    max_age_s : float
        Older answers are as good as none; 0 keeps none.
    step : float
        Features are rounded to multiples of it; 0 compares them bit by bit.
    entries : int
        Most answers kept.
    """

    def __init__(self, max_age_s: float, step: float, entries: int) -> None:
        self._max_age_s, self._entries = max_age_s, entries
        self._step = np.float32(step)
        self._kept: OrderedDict[tuple[str, bytes], Kept] = OrderedDict()

    def question(self, features_ND: NDArray[np.float32]) -> bytes | None:
        """Return what equal questions share, None for one that is not kept."""
        if len(features_ND) > MOST_ROWS or not self._max_age_s:
            return None
        if self._step:
            features_ND = np.rint(features_ND / self._step) + np.float32(0)  # no -0
        return features_ND.tobytes()

    def find(self, model: ServedModel, question: bytes | None, now_s: float) -> Kept | None:
        """Return the model's answer to a question where it is not too old."""
        if question is None or (kept := self._kept.get((model.id, question))) is None:
            return None
        is_same = kept.model is model  # and not the one of its name that it took over from
        return kept if is_same and now_s - kept.made_at_s <= self._max_age_s else None

    def forget(self, model: ServedModel) -> None:
        """Let go of a model's answers, and so of the model."""
        for key in [key for key, kept in self._kept.items() if kept.model is model]:
            del self._kept[key]

    def keep(
        self, model: ServedModel, question: bytes | None, scores: Scores, now_s: float
    ) -> None:
        """Keep an answer that was just made."""
        if question is None:
            return
        key = (model.id, question)
        self._kept[key] = Kept(scores, model, now_s)
        self._kept.move_to_end(key)
        if len(self._kept) > self._entries:
            self._kept.popitem(last=False)

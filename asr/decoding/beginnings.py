"""What the beginning of a word says about it, before it is whole: a value in nats, and what each character changes."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from asr.tokenizer import Tokenizer

MAX_PREFIXES = 50_000  # remembered beginnings of words; some 20 MB


class Beginnings(ABC):
    """A value for every beginning of a word, which a row has been charged and its whole word takes back.

    So hypotheses in the middle of a word can be compared with those that have ended theirs.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Values are for the characters of `tokenizer`."""
        self._characters = [
            (id_, tokenizer.decode([id_])) for id_ in tokenizer.encode(tokenizer.alphabet)
        ]
        self._size = tokenizer.size
        self._known: dict[str, tuple[float, Any]] = {}

    @property
    @abstractmethod
    def most(self) -> float:
        """The most that a row can have been charged in advance, in nats."""

    @abstractmethod
    def _value(self, spelled: str) -> float:
        """The value of a beginning, 0 or less; 0 of an empty one."""

    def __call__(self, spelled: str) -> tuple[float, Any]:
        """Return the value and what each token (V,) changes it by; 0 for tokens that are no characters."""
        found = self._known.get(spelled)
        if found is None:
            value = self._value(spelled)
            changes = np.zeros(self._size, np.float32)
            for token, character in self._characters:
                changes[token] = self._value(spelled + character) - value
            found = value, changes
            if len(self._known) >= MAX_PREFIXES:  # by whichever thread comes first
                self._known.clear()
            self._known[spelled] = found
        return found

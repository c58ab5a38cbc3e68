"""Characters, or words, to token ids: the same ids in every process, and four different special ids before them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from asr.errors import AsrError
from asr.text import ALPHABET


class Tokenizer:
    """A character tokenizer: blank 0 (CTC), pad 1, sos 2, eos 3, then the alphabet in its given order from 4."""

    blank, pad, sos, eos = range(4)
    first_character = 4

    def __init__(self, alphabet: str = ALPHABET) -> None:
        if not alphabet or len(set(alphabet)) != len(alphabet):
            raise AsrError(f"alphabet {alphabet!r}: needs at least one character and none twice")
        self.alphabet = alphabet
        self._ids = {character: i for i, character in enumerate(alphabet, self.first_character)}

    @property
    def size(self) -> int:
        """Vocabulary size V, the special ids included."""
        return self.first_character + len(self.alphabet)

    def encode(self, text: str) -> list[int]:
        """Normalised text to ids, without sos and eos. Raises AsrError naming a character outside the alphabet."""
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            reason = f"is not in the alphabet {self.alphabet!r}"
            raise AsrError(f"character {error} of {text!r} {reason}") from error

    def decode(self, ids: Iterable[int]) -> str:
        """Ids to text; special ids are skipped."""
        first = self.first_character
        return "".join(self.alphabet[i - first] for i in ids if i >= first)

    def to_dict(self) -> dict[str, Any]:
        """A plain dict that `from_dict` rebuilds the tokenizer from."""
        return {"kind": "characters", "alphabet": self.alphabet}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Tokenizer":
        """The tokenizer that `to_dict` described. Raises AsrError for a kind that this version does not know."""
        if values["kind"] != "characters":
            raise AsrError(f"tokenizer {values['kind']!r}: this version knows characters")
        return cls(values["alphabet"])


class WordTokenizer:
    """Whole words for a language model: the special ids of `Tokenizer`, unknown 4, then the words from 5."""

    unknown = 4
    first_word = 5

    def __init__(self, words: Sequence[str]) -> None:
        if not words or len(set(words)) != len(words):
            raise AsrError("words: needs at least one word and none twice")
        self.words = tuple(words)
        self.ids = {word: i for i, word in enumerate(words, self.first_word)}

    @classmethod
    def of(cls, texts: Iterable[str], count: int) -> "WordTokenizer":
        """The `count` most frequent words of normalised texts, those of equal frequency by the alphabet."""
        counts = Counter(word for text in texts for word in text.split())
        return cls(sorted(counts, key=lambda word: (-counts[word], word))[:count])

    @property
    def size(self) -> int:
        """Vocabulary size V, the special ids included."""
        return self.first_word + len(self.words)

    def encode(self, text: str) -> list[int]:
        """Normalised text to ids, without sos and eos."""
        return [self.ids.get(word, self.unknown) for word in text.split()]

    def to_dict(self) -> dict[str, Any]:
        """A plain dict that `from_dict` rebuilds the tokenizer from."""
        return {"kind": "words", "words": list(self.words)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "WordTokenizer":
        """The tokenizer that `to_dict` described."""
        return cls(values["words"])

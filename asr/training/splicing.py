"""Speech and texts in, training data out: the recordings, and the texts as if spoken, put together from recorded words.

A text's features are those of recordings of its words, cut and joined: of as many words in a row as one recording has.
A word of which there are too few is put together from phonemes, cut where the same one stood between the same
neighbours; a piece goes on for as long as its recording says what is wanted. Where the cuts are, the phoneme layers'
forced alignment says. Source: aligned data augmentation (Lam et al. 2021), here for texts that nobody has spoken.
"""

import hashlib
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from asr import phonemes
from asr.alignment import forced_alignment
from asr.batching import PAD_FRAMES, Batch, Example, TrainingSet, padded
from asr.errors import TrainingError
from asr.tokenizer import Tokenizer
from asr.training.hearing import Heard, Hearing, heard
from asr.training.spelling import Place, SpellingOptions, Spoken, Text, places, read_texts, wider

LONGEST_PHRASE = 4  # words that are looked for in one recording
FEWEST = 3  # recordings of a word, or of a phoneme at its place, among which one is drawn
FROM_PHONEMES = (
    0.08  # share of the words that are put together from phonemes though recordings have them
)
EDGE = 1.5  # alignment frames that a recording's first and last phoneme reach beyond their own
SECONDS_A_PHONEME = 0.09  # about, with what is around a text
SECONDS_AROUND = 0.6

Piece = tuple[int, float, float]  # an example, and from and to which share of its length
ANY = -1  # whatever manifest


class Recorded:
    """Where in some recordings their words and phonemes are."""

    def __init__(self) -> None:
        self._phrases: dict[tuple[int, tuple[str, ...]], list[Piece]] = defaultdict(list)
        self._phonemes: dict[Place, list[tuple[int, int]]] = defaultdict(list)
        self._places: dict[int, list[Place]] = {}  # of an example
        self._bounds: dict[int, list[float]] = {}  # shares of its length, around each of its places
        self._around: dict[int, list[tuple[Piece, Piece]]] = defaultdict(list)

    def __len__(self) -> int:
        return len(self._places)

    @property
    def stores(self) -> dict[int, int]:
        """How many recordings there are of each manifest."""
        return {store: len(around) for store, around in self._around.items()}

    def add(self, index: int, store: int, heard: Heard, said: Sequence[tuple[str, Spoken]]) -> bool:
        """Cut an example half-way between its phonemes; False where what was heard is too short for its words."""
        words, spoken = [word for word, _ in said], [phonemes for _, phonemes in said]
        labels = [phoneme for word in spoken for phoneme in word]
        path = forced_alignment(torch.from_numpy(heard).float(), labels, phonemes.BLANK)
        if path is None or not labels:
            return False
        first, last = max(path.starts[0] - EDGE, 0), min(path.ends[-1] + EDGE, len(heard))
        middles = (path.ends[:-1] + path.starts[1:]) / 2
        bounds = [float(bound) / len(heard) for bound in (first, *middles, last)]
        self._places[index], self._bounds[index] = places(spoken), bounds
        for number, place in enumerate(self._places[index]):
            for kind in wider(place):
                self._phonemes[kind].append((index, number))
        ends = np.cumsum([0, *map(len, spoken)]).tolist()
        for size in range(1, LONGEST_PHRASE + 1):
            for at in range(len(words) - size + 1):
                piece = (index, bounds[ends[at]], bounds[ends[at + size]])
                for kept in (store, ANY):
                    self._phrases[kept, tuple(words[at : at + size])].append(piece)
        self._around[store].append(((index, 0.0, bounds[0]), (index, bounds[-1], 1.0)))
        return True

    def put_together(
        self, said: Sequence[tuple[str, Spoken]], store: int, rng: random.Random
    ) -> list[Piece]:
        """Pieces that say some words, of a manifest's recordings where these have them, in what is around speech."""
        before, after = rng.choice(self._around[store])
        pieces, words, at = [before], tuple(word for word, _ in said), 0
        while at < len(said):
            size, piece = self._phrase(words[at : at + LONGEST_PHRASE], store, rng)
            if piece is None or rng.random() < FROM_PHONEMES:
                pieces += self._of_phonemes(said[at][1], rng)
                at += 1
            else:
                pieces.append(piece)
                at += size
        return [*pieces, after]

    def _phrase(
        self, words: tuple[str, ...], store: int, rng: random.Random
    ) -> tuple[int, Piece | None]:
        """The longest beginning of some words that a recording has, and where."""
        for size in range(len(words), 0, -1):
            everywhere = self._phrases.get((ANY, words[:size]), [])
            if len(everywhere) >= (FEWEST if size == 1 else 1):
                return size, rng.choice(self._phrases.get((store, words[:size])) or everywhere)
        return 1, None

    def _of_phonemes(self, word: Spoken, rng: random.Random) -> list[Piece]:
        """Pieces that say a word; a phoneme that was never heard is left out."""
        pieces: list[Piece] = []
        index, number = -1, 0  # the phoneme that was taken last
        for place in places([word]):
            if self._places.get(index, ())[number + 1 : number + 2] == [place]:
                number += 1
                pieces[-1] = (index, pieces[-1][1], self._bounds[index][number + 1])
                continue
            found = self._near(place)
            index, number = rng.choice(found) if found else (-1, 0)
            if found:
                pieces.append((index, *self._bounds[index][number : number + 2]))  # type: ignore[arg-type]
        return pieces

    def _near(self, place: Place) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        for kind in wider(place):
            found = self._phonemes.get(kind, [])
            if len(found) >= FEWEST:
                break
        return found


class SplicedSet(TrainingSet):
    """The examples of a set, several times, and texts that are put together from them, anew every time."""

    def __init__(
        self,
        data: TrainingSet,
        texts: Sequence[Text],
        recorded: Recorded,
        *,
        share: float,
        tokenizer: Tokenizer,
    ) -> None:
        """`share` of all examples are the set's own, about."""
        self.data, self.texts, self.recorded, self.tokenizer = data, texts, recorded, tokenizer
        wanted = share / (1 - share) * len(texts) / len(data)
        examples = data.examples * max(1, round(wanted))
        self._spoken = len(examples)
        variants = len(data.examples[0].frames)
        for number, (tokens, words) in enumerate(texts):
            frames = round(_seconds(words) / data.hop_seconds)
            said = tuple(phoneme for word in words for phoneme in word)
            examples.append(Example(f"text-{number}", tokens, 0, (), (frames,) * variants, said))
        super().__init__(examples, data.stores, data.skipped, data.hop_seconds)

    @property
    def hours(self) -> float:
        """Hours of the recordings; text has none."""
        return self.data.hours

    @property
    def digest(self) -> str:
        """What tells it from a set of other speech or texts."""
        return hashlib.sha256(repr((self.data.digest, self.texts)).encode()).hexdigest()[:16]

    def batch(self, picks: Sequence[tuple[int, int]]) -> Batch:
        """The batch of (example index, variant) pairs; what is drawn for texts follows from them."""
        rng = random.Random(repr(picks))
        found = [self._features(index, variant, rng) for index, variant in picks]
        chosen = [self.examples[index] for index, _ in picks]
        lengths = [len(one) for one in found]
        frames = -(-max(lengths) // PAD_FRAMES) * PAD_FRAMES
        features = torch.zeros(len(found), frames, found[0].shape[1])
        for row, one in zip(features, found, strict=True):
            row[: len(one)] = torch.from_numpy(one)
        return Batch(
            features,
            torch.tensor(lengths),
            *padded([e.tokens for e in chosen], Tokenizer.pad),
            *padded([e.phonemes for e in chosen], phonemes.BLANK),
            tuple(e.id for e in chosen),
            sum(lengths) * self.hop_seconds,
        )

    def _features(self, index: int, variant: int, rng: random.Random) -> NDArray[np.float32]:
        if index < self._spoken:
            return self._cut((index % len(self.data), 0.0, 1.0), variant)
        tokens, spoken = self.texts[index - self._spoken]
        said = list(zip(self.tokenizer.decode(tokens).split(), spoken, strict=True))
        stores = self.recorded.stores
        store = rng.choices(list(stores), list(stores.values()))[0]
        pieces = self.recorded.put_together(said, store, rng)
        return np.concatenate([self._cut(piece, variant) for piece in pieces])

    def _cut(self, piece: Piece, variant: int) -> NDArray[np.float32]:
        index, start, end = piece
        example = self.data.examples[index]
        offset, frames = example.offsets[variant], example.frames[variant]
        stored = self.stores[example.store]
        return np.array(
            stored[offset + round(start * frames) : offset + round(end * frames)], np.float32
        )


def _seconds(words: Sequence[Spoken]) -> float:
    return SECONDS_AROUND + SECONDS_A_PHONEME * sum(map(len, words))


def spliced_set(
    data: TrainingSet,
    hearing: Hearing,
    options: SpellingOptions,
    *,
    held_out: Sequence[str],
    max_seconds: float,
    on_progress: Callable[[int], None] = lambda done: None,
) -> SplicedSet:
    """Hear where the phonemes of `data` are, and read the texts; those longer than `max_seconds` are left out.

    Raises what `read_texts` does, and TrainingError where no recording is as long as its text, or all texts too long.
    """
    tokenizer = hearing.trained.tokenizer
    texts, _ = read_texts(options, held_out, tokenizer)
    texts = [text for text in texts if _seconds(text[1]) <= max_seconds]
    if not texts:
        raise TrainingError(
            f"spelling.texts: all are longer than data.max_seconds = {max_seconds:g}"
        )
    known, unknown = phonemes.dictionary(), (phonemes.UNKNOWN,)
    recorded = Recorded()
    for index, values in heard(data, replace(hearing, augmentation=None), 0, on_progress):
        example = data.examples[index]
        words = tokenizer.decode(example.tokens).split()
        said = [(word, known.get(word, unknown)) for word in words]
        recorded.add(index, example.store, values, said)
    if not len(recorded):
        raise TrainingError("spelling.texts: no recording is long enough for its own text")
    return SplicedSet(data, texts, recorded, share=options.speech, tokenizer=tokenizer)

"""Speech and text in, a speller's training data out: what the phoneme layers hear of them, with what is to be written.

Of a recording that is what they hear, of it augmented. What they would hear of a text that nobody has spoken is put
together from pieces of that, one for each of its phonemes, cut where the same one stood between the same neighbours:
with the mistakes that they make. Source: text injection (JOIST, Sainath et al. 2022), with real posteriors in the place
of phonemes.
"""

import hashlib
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from asr import leaks, phonemes, sentences
from asr.alignment import forced_alignment
from asr.batching import Batch, Example, TrainingSet, padded, tokens_of
from asr.errors import ConfigError, TrainingError
from asr.model.sounds import sounds
from asr.options import check_range
from asr.tokenizer import Tokenizer
from asr.training.hearing import Heard, Hearing, heard

Spoken = tuple[int, ...]  # a word's phonemes
Text = tuple[tuple[int, ...], tuple[Spoken, ...]]  # a sentence's tokens, and its words' phonemes
Place = tuple[int, int, int]  # a phoneme between its neighbours in the word

EDGE = 0  # of a word, as a neighbour
ANY = -1  # whatever neighbour
FEWEST = 3  # pieces among which one is drawn; with fewer, neighbours count for less
SOUNDS_A_PHONEME = 1.1  # about; what is made of a text is as long as it is drawn


@dataclass(frozen=True)
class SpellingOptions:
    """What a speller learns from besides speech."""

    texts: tuple[str, ...] = ()  # .gz or not, or manifests
    skip: tuple[str, ...] = ()  # lines of them that are left out: "books.txt.gz:1200-5600"
    exclude: tuple[str, ...] = ()  # besides data.dev and data.exclude: no text of theirs is allowed
    pronunciations: str = ""  # of their words; CMUdict's if empty
    speech: float = 0.3  # share of speech in the examples of an epoch, about; at 1 there is no text
    passes: int = 2  # times that each recording is heard, every time augmented anew

    def __post_init__(self) -> None:
        """Refuse values out of range; raises ConfigError naming the option and what is allowed."""
        check_range(self, "spelling", ("speech",), 0.01, 1)
        check_range(self, "spelling", ("passes",), 1)
        if self.skip and not self.texts:
            raise ConfigError("spelling.skip: lines of spelling.texts, of which there are none")


class Pieces:
    """What was heard of every phoneme of some speech, to put together what would be heard of any text."""

    def __init__(self) -> None:
        self._found: dict[Place, list[Heard]] = defaultdict(list)

    def add(self, heard: Heard, words: Sequence[Spoken]) -> bool:
        """Cut what was heard of some words into their phonemes; False where it is too short for them."""
        spoken = [phoneme for word in words for phoneme in word]
        path = forced_alignment(torch.from_numpy(heard).float(), spoken, phonemes.BLANK)
        if path is None or not spoken:
            return False
        ends = [*path.starts[1:].tolist(), len(heard)]
        for place, start, end in zip(places(words), path.starts, ends, strict=True):
            for kind in _wider(place):
                self._found[kind].append(heard[start:end])
        return True

    def put_together(self, words: Sequence[Spoken], rng: random.Random) -> Heard:
        """What might be heard of some words. A phoneme that was never heard is left out."""
        found = [self._near(place) for place in places(words)]
        pieces = [rng.choice(pieces) for pieces in found if pieces]
        nothing = np.zeros((0, phonemes.SIZE), np.float16)
        return np.concatenate([nothing, *pieces])

    def _near(self, place: Place) -> list[Heard]:
        pieces: list[Heard] = []
        for kind in _wider(place):
            pieces = self._found.get(kind, [])
            if len(pieces) >= FEWEST:
                break
        return pieces


def _wider(place: Place) -> tuple[Place, Place, Place]:
    """A place, and those among which it counts where neighbours matter less: the one after, then none."""
    _, phoneme, right = place
    return place, (ANY, phoneme, right), (ANY, phoneme, ANY)


def places(words: Iterable[Spoken]) -> list[Place]:
    """Each phoneme of some words between its neighbours."""
    return [
        (before, phoneme, after)
        for word in words
        for before, phoneme, after in zip((EDGE, *word), word, (*word[1:], EDGE), strict=False)
    ]


class SpellingSet(TrainingSet):
    """Speech as it was heard, and text as it might be heard; batches are of sounds (asr.model.sounds)."""

    def __init__(
        self,
        speech: Sequence[tuple[Example, tuple[Heard, ...]]],
        texts: Sequence[Text],
        pieces: Pieces,
        *,
        share: float,
        hop_seconds: float,
        skipped: list[str],
        of: str = "",
    ) -> None:
        """`speech` has what was heard of every example, `texts` the tokens and the phonemes of sentences.

        `of` is the digest of the set that was heard.
        """
        wanted = share / (1 - share) * len(texts) / len(speech) if share < 1 else 1
        repeated = max(1, round(wanted))
        self.heard = [heard for _, heard in speech] * repeated
        self.texts = texts
        self.pieces = pieces
        self.of = of
        self._spoken = len(speech)
        examples = [
            Example(e.id, e.tokens, 0, (), tuple(len(sounds(torch.from_numpy(h))) for h in heard))
            for e, heard in speech
        ] * repeated
        for number, (tokens, words) in enumerate(texts):
            length = round(SOUNDS_A_PHONEME * sum(map(len, words)))
            examples.append(Example(f"text-{number}", tokens, 0, (), (max(1, length),)))
        super().__init__(examples, [], skipped, hop_seconds)

    @property
    def hours(self) -> float:
        """Hours of the speech, heard once; text has none."""
        speech = self.examples[: self._spoken]
        return sum(example.frames[0] for example in speech) * self.hop_seconds / 3600

    @property
    def digest(self) -> str:
        """What tells it from a set of other speech or texts; not what was heard of them, which a machine may round."""
        return hashlib.sha256(repr((self.of, self.texts)).encode()).hexdigest()[:16]

    def batch(self, picks: Sequence[tuple[int, int]]) -> Batch:
        """The batch of (example index, variant) pairs; what is drawn for texts follows from them."""
        rng = random.Random(repr(picks))
        found = [
            sounds(torch.from_numpy(self._heard(index, variant, rng))) for index, variant in picks
        ]
        chosen = [self.examples[index] for index, _ in picks]
        lengths = [len(item) for item in found]
        return Batch(
            pad_sequence(found, batch_first=True),
            torch.tensor(lengths),
            *padded([e.tokens for e in chosen], Tokenizer.pad),
            *padded([() for _ in chosen], phonemes.BLANK),
            tuple(e.id for e in chosen),
            sum(lengths) * self.hop_seconds,
        )

    def _heard(self, index: int, variant: int, rng: random.Random) -> Heard:
        if index < len(self.heard):
            return self.heard[index][variant]
        words = self.texts[index - len(self.heard)][1]
        made = self.pieces.put_together(words, rng)
        return made if len(made) else np.zeros((1, phonemes.SIZE), np.float16)


def read_texts(
    options: SpellingOptions, held_out: Sequence[str], tokenizer: Tokenizer
) -> tuple[list[Text], list[str]]:
    """The texts' sentences, and a line for each that has a word without a pronunciation and is left out.

    Raises CorpusError where a text cannot be read or holds a sentence of the files `held_out` or options.exclude,
    ConfigError where pronunciations cannot be read or options.skip fits no text, TrainingError where nothing is left.
    """
    if not options.texts or options.speech == 1:
        return [], []
    path = options.pronunciations
    known = phonemes.load(path) if path else phonemes.dictionary()
    found = sentences.read(options.texts, options.skip)
    leaks.refuse(found, sentences.read(dict.fromkeys((*held_out, *options.exclude))))
    usable, left_out = [], []
    for sentence in found:
        words = sentence.text.split()
        if unknown := [word for word in words if word not in known]:
            place = f"{sentence.path}:{sentence.line}"
            left_out.append(f"{place}: no pronunciation of {unknown[0]!r}")
        else:
            tokens = tokens_of(sentence.text, tokenizer)
            usable.append((tokens, tuple(known[word] for word in words)))
    if not usable:
        raise TrainingError(f"spelling.texts: no sentence can be used; the first: {left_out[0]}")
    return usable, left_out


def spelling_set(
    data: TrainingSet,
    hearing: Hearing,
    options: SpellingOptions,
    *,
    held_out: Sequence[str],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> SpellingSet:
    """Hear all speech of `data`, and read the texts.

    Raises what `read_texts` does, and TrainingError where no recording is as long as its text.
    """
    tokenizer = hearing.trained.tokenizer
    texts, left_out = read_texts(options, held_out, tokenizer)
    known, unknown = phonemes.dictionary(), (phonemes.UNKNOWN,)
    pieces, found = Pieces(), defaultdict[int, list[Heard]](list)
    for number in range(options.passes):

        def progress(done: int, before: int = number * len(data)) -> None:
            on_progress(before + done, options.passes * len(data))

        for index, values in heard(data, hearing, number, progress):
            text = tokenizer.decode(data.examples[index].tokens)
            if pieces.add(values, [known.get(word, unknown) for word in text.split()]):
                found[index].append(values)
    if not found:
        raise TrainingError("training.speller_alone: no recording is long enough for its text")
    left_out += [
        f"{example.id}: too short for its text's phonemes"
        for index, example in enumerate(data.examples)
        if index not in found
    ]
    speech = [(data.examples[index], tuple(values)) for index, values in sorted(found.items())]
    frames = sum(data.examples[index].frames[0] for index in found)
    count = sum(len(sounds(torch.from_numpy(values[0]))) for values in found.values())
    hop_seconds = frames * data.hop_seconds / count
    return SpellingSet(
        speech,
        texts,
        pieces,
        share=options.speech,
        hop_seconds=hop_seconds,
        skipped=left_out,
        of=data.digest,
    )

"""What a hypothesis sounds like: its words' phonemes against a CTC head that hears phonemes, word by word.

English spelling hides how words sound: to CTC over characters "night" and "knight" are two things, to CTC over phonemes
one, and what it has learnt of the one serves for the other. A word that the dictionary does not have sounds like the
symbol that such words had in training; a hot word that it does not have may sound as it likes.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr import phonemes
from asr.decoding.beginnings import Beginnings
from asr.decoding.scorers import kept_utterances
from asr.model import Memory, Seq2Seq
from asr.tokenizer import Tokenizer

Floats = NDArray[np.float64]
NOTHING = -1e4  # a log probability whose exponential is 0, and whose sums stay finite
MARGIN = 200.0  # nats below a sound's likeliest frame at which it is not looked at; see Sound
ANYTHING = phonemes.SIZE  # a phoneme more: whatever is likeliest in each frame
WIDER = 64  # frames in which a word is sought beyond those before it, at first
CHARGE = 0.5  # nats that a character is charged before its word is whole: what one costs where the word is right
LONGEST = 40  # characters of a word that are charged
STRANGE = 12.0  # nats that a word is charged once it begins as none that can be pronounced


class Sound:
    """Some words from the beginning, as CTC hears their phonemes in the frames of one utterance.

    Column k of `blank` and `either` is the state after `first` + k frames. Frames at which these words are less likely
    to end by exp(-MARGIN) than at their best one are in no column, so that the cost of a word does not grow with the
    length of a recording. Likely is meant beside the likeliest phonemes so far: unread noise costs all alike.
    """

    __slots__ = ("blank", "either", "first", "last", "prefix", "whole")

    def __init__(self, first: int, blank: Floats, either: Floats, last: int, prefix: float) -> None:
        self.first = first
        self.blank = blank.copy()  # log probability of these phonemes, the last frame a blank
        self.either = either.copy()  # the same, whatever the last frame is
        self.last = last  # phoneme, or BLANK where there is none yet
        self.prefix = prefix  # log probability of all phonemes that begin with these
        self.whole = NOTHING  # of these alone, set where the last frame is in a column

    @property
    def end(self) -> int:
        """The column after the last."""
        return self.first + len(self.either)


@dataclass(frozen=True)
class Frames:
    """Phoneme log probabilities of one utterance: (P + 1, T), each phoneme's row in one piece, the last of ANYTHING."""

    values: Floats
    best: Floats  # (T + 1,) log probability of the likeliest phonemes of the frames before each

    @classmethod
    def of(cls, log_probs: Tensor) -> "Frames":
        """Those of a head's log_probs (T, P)."""
        values = log_probs.detach().cpu().double().numpy().T
        likeliest = values.max(0)
        best = np.concatenate([[0.0], likeliest.cumsum()])
        return cls(np.concatenate([values, likeliest[None]]), best)

    @property
    def count(self) -> int:
        """Columns of a sound that could end anywhere: T + 1."""
        return self.values.shape[1] + 1

    def begin(self) -> Sound:
        """No word yet."""
        blank = np.concatenate([[0.0], self.values[phonemes.BLANK].cumsum()])
        return self._sound(0, blank, blank, phonemes.BLANK, 0.0)

    def extend(self, sounds: Sequence[Sound], words: Sequence[tuple[int, ...]]) -> list[Sound]:
        """Each of the sounds with a word more, given by its phonemes."""
        first, wider = min(sound.first for sound in sounds), WIDER
        while True:
            stop = min(max(sound.end for sound in sounds) + wider, self.count)
            blank, either, last, prefix = self._extended(sounds, words, first, stop)
            likely = either - self.best[first:stop]
            if stop == self.count or (likely[:, -1] < likely.max(1) - MARGIN).all():
                break
            wider *= 2  # a pause follows: the word may begin anywhere in it
        return [
            self._sound(first, *row)
            for row in zip(blank, either, last.tolist(), prefix.tolist(), strict=True)
        ]

    def _extended(
        self, sounds: Sequence[Sound], words: Sequence[tuple[int, ...]], first: int, stop: int
    ) -> tuple[Floats, Floats, NDArray[np.int64], Floats]:
        """Blank and either (N, stop - first), last and prefix (N,): CTC's forward recursion, a phoneme at a time."""
        heard = self.values[:, first : stop - 1]
        blank = np.full((len(sounds), stop - first), NOTHING)
        either = blank.copy()
        for row, sound in enumerate(sounds):
            columns = slice(sound.first - first, sound.end - first)
            blank[row, columns], either[row, columns] = sound.blank, sound.either
        last = np.array([sound.last for sound in sounds])
        prefix = np.array([sound.prefix for sound in sounds])
        sizes = np.array([len(word) for word in words])
        for place in range(int(sizes.max())):
            rows = np.flatnonzero(sizes > place)
            new = np.array([words[row][place] for row in rows.tolist()])
            repeated = (new == last[rows])[:, None]  # a blank must come between
            before = np.where(repeated, blank[rows], either[rows])[:, :-1]
            begun = np.logaddexp.reduce(before + heard[new], 1, initial=NOTHING)
            prefix[rows] = np.clip(begun, NOTHING, prefix[rows])  # ANYTHING sums to more than 1
            label = _accumulated(before, heard[new])
            quiet = _accumulated(label[:, :-1], heard[phonemes.BLANK][None])
            blank[rows], either[rows], last[rows] = quiet, np.logaddexp(label, quiet), new
        return blank, either, last, prefix

    def _sound(self, first: int, blank: Floats, either: Floats, last: int, prefix: float) -> Sound:
        likely = either - self.best[first : first + len(either)]
        kept = np.flatnonzero(likely >= likely.max() - MARGIN)
        start, stop = int(kept[0]), int(kept[-1]) + 1
        found = Sound(first + start, blank[start:stop], either[start:stop], last, prefix)
        if found.end == self.count:
            found.whole = min(float(found.either[-1]), prefix)
        return found


def _accumulated(entering: Floats, heard: Floats) -> Floats:
    """(N, T), (N, T) to a (N, T + 1): a[t + 1] = log(exp(a[t]) + exp(entering[t])) + heard[t], a[0] nothing."""
    sums = heard.cumsum(1)
    found = np.logaddexp.accumulate(entering - (sums - heard), 1) + sums
    return np.concatenate([np.full((len(entering), 1), NOTHING), np.maximum(found, NOTHING)], 1)


class Lexicon(Beginnings):
    """How words sound, and what the beginning of one is charged before it is whole: CHARGE a character, and STRANGE.

    Without the charge a row would gain by ending no word.
    """

    def __init__(
        self,
        pronunciations: Mapping[str, tuple[int, ...]],
        tokenizer: Tokenizer,
        hot: Iterable[str] = (),
    ) -> None:
        """Words without a pronunciation are UNKNOWN; those that are `hot` may sound as they like."""
        super().__init__(tokenizer)
        self._spoken = {**dict.fromkeys(hot, (ANYTHING,)), **pronunciations}
        self._words = sorted(self._spoken)

    def spoken(self, word: str) -> tuple[int, ...]:
        """The phonemes of a word."""
        return self._spoken.get(word, (phonemes.UNKNOWN,))

    @property
    def most(self) -> float:
        """See Beginnings."""
        return CHARGE * LONGEST + STRANGE

    def _value(self, spelled: str) -> float:
        at = bisect_left(self._words, spelled)
        begun = at < len(self._words) and self._words[at].startswith(spelled)
        strange = STRANGE if spelled and not begun else 0.0
        return -CHARGE * min(len(spelled), LONGEST) - strange


Row = tuple[Sound, str]
"""A hypothesis: the sound of its whole words, and the word that is being spelled."""


@dataclass(frozen=True)
class PhonemeScorer:
    """Scores words by their pronunciations."""

    model: Seq2Seq
    lexicon: Lexicon
    tokenizer: Tokenizer
    space: int  # the id of the character between words

    def start(self, memory: Memory, rows: int) -> "PhonemeState":
        """See Scorer."""
        found = self.model.phoneme_log_probs(memory)
        assert found is not None
        lengths = found[1].tolist()
        frames = [Frames.of(row[:length]) for row, length in zip(found[0], lengths, strict=True)]
        first = [(sound, "") for sound in [each.begin() for each in frames] for _ in range(rows)]
        return PhonemeState(self, frames, first, memory.mask.device)


@dataclass(frozen=True)
class PhonemeState:
    """The words of N hypotheses, R for each of the B utterances of `frames`."""

    scorer: PhonemeScorer
    frames: list[Frames]
    rows: list[Row]
    device: torch.device
    following: list[Sound] = field(init=False)  # each row's, should its word end here

    def __post_init__(self) -> None:
        each = len(self.rows) // len(self.frames)
        found: dict[tuple[int, str], Sound] = {}
        for index, frames in enumerate(self.frames):
            new = {
                (id(sound), word): (sound, word)
                for sound, word in self.rows[index * each : (index + 1) * each]
                if word
            }
            if new:
                sounds, words = zip(*new.values(), strict=True)
                spoken = [self.scorer.lexicon.spoken(word) for word in words]
                found |= zip(new, frames.extend(sounds, spoken), strict=True)
        following = [found[id(sound), word] if word else sound for sound, word in self.rows]
        object.__setattr__(self, "following", following)

    @property
    def scores(self) -> Tensor:
        """Log probabilities (N, V), summing over a text to that of its phonemes."""
        scores = np.empty((len(self.rows), self.scorer.tokenizer.size), np.float32)
        for row, ((sound, word), after) in enumerate(zip(self.rows, self.following, strict=True)):
            charged, scores[row] = self.scorer.lexicon(word)
            scores[row, self.scorer.space] = after.prefix - sound.prefix - charged
            scores[row, Tokenizer.eos] = after.whole - sound.prefix - charged
        return torch.from_numpy(scores).to(self.device)

    def advance(self, parents: Tensor, tokens: Tensor) -> "PhonemeState":
        """See ScorerState."""
        space, spell = self.scorer.space, self.scorer.tokenizer.decode
        kept = kept_utterances(parents, len(self.rows), len(self.frames)).tolist()
        frames, rows = [self.frames[utterance] for utterance in kept], []
        for parent, token in zip(parents.tolist(), tokens.tolist(), strict=True):
            sound, spelled = self.rows[parent]
            ended = token == space
            rows.append(
                (self.following[parent], "") if ended else (sound, spelled + spell([token]))
            )
        return PhonemeState(self.scorer, frames, rows, self.device)

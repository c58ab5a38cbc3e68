"""asr.decoding.pronunciation: the search's scores of how words sound, against torch's CTC loss."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import ctc_loss

from asr.decoding.pronunciation import (
    ANYTHING,
    CHARGE,
    NOTHING,
    STRANGE,
    Frames,
    Lexicon,
    PhonemeScorer,
)
from asr.model.memory import Memory, length_mask
from asr.phonemes import BLANK, SIZE, UNKNOWN
from asr.tokenizer import Tokenizer

TOKENIZER = Tokenizer(" abc")
SPACE = TOKENIZER.encode(" ")[0]
WORDS = {"a": (5,), "ab": (5, 6), "ba": (6, 5), "cab": (7, 7, 6), "c": (6,)}


class Hearing:
    """A model that hears given phonemes."""

    phonemes = "a head"

    def __init__(self, log_probs: Tensor, lengths: Tensor) -> None:
        self.found = log_probs, lengths

    def phoneme_log_probs(self, memory: Memory) -> tuple[Tensor, Tensor]:
        chosen = memory.values[:, 0, 0].long()
        return self.found[0][chosen], self.found[1][chosen]


def noise(*shape: int, seed: int = 0, sharpness: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (sharpness * torch.randn(*shape, SIZE, generator=generator)).log_softmax(-1)


def scorer(log_probs: Tensor, lengths: Tensor) -> tuple[PhonemeScorer, Memory]:
    model: Any = Hearing(log_probs, lengths)
    values = torch.arange(len(lengths), dtype=torch.float32)[:, None, None].expand(-1, 3, 1)
    sizes = torch.full((len(lengths),), 3)
    memory = Memory(values, sizes, values, length_mask(sizes, 3))
    return PhonemeScorer(model, Lexicon(WORDS, TOKENIZER), TOKENIZER, SPACE), memory


def spoken(text: str) -> list[int]:
    return [p for word in text.split() for p in WORDS.get(word, (UNKNOWN,))]


def exact(log_probs: Tensor, text: str) -> float:
    """log P of the phonemes of a text, given those of the utterance's frames (T, P)."""
    labels = torch.tensor([spoken(text)])
    sizes = torch.tensor([len(log_probs)]), torch.tensor([labels.shape[1]])
    frames = log_probs.double()[:, None]
    return -float(ctc_loss(frames, labels, *sizes, blank=BLANK, reduction="sum"))


TEXTS = ["a", "ab ba", "ba ab", "cab c", "c c", "ab  a ", "bb ba", "bb bb c", "a a a", " a"]


def test_the_scores_of_a_text_sum_to_ctcs_of_its_phonemes() -> None:
    """Words that begin as the one before ended, unknown words, double spaces: whatever is charged is taken back."""
    log_probs = noise(1, 14)
    for text in TEXTS:
        found, memory = scorer(log_probs, torch.tensor([14]))
        state, total = found.start(memory, 1), 0.0
        for token in TOKENIZER.encode(text):
            total += float(state.scores[0, token])
            state = state.advance(torch.tensor([0]), torch.tensor([token]))
        total += float(state.scores[0, Tokenizer.eos])
        assert total == pytest.approx(exact(log_probs[0], text), abs=1e-4), text


def test_rows_and_utterances_are_scored_as_if_alone() -> None:
    log_probs, lengths = noise(3, 16, seed=1), torch.tensor([16, 11, 14])
    found, memory = scorer(log_probs, lengths)
    texts = ["ab c", "ba a", "c ab", "bb a"]  # of one length
    columns = torch.tensor([TOKENIZER.encode(text) for text in texts]).T
    state, totals = found.start(memory, 4), torch.zeros(12)
    for column in columns:
        tokens = column.repeat(3)
        totals += state.scores[torch.arange(12), tokens]
        state = state.advance(torch.arange(12), tokens)
    # The second utterance leaves, and the rows of the last are turned round.
    rows = torch.tensor([0, 1, 2, 3, 11, 10, 9, 8])
    state = state.advance(rows, torch.full((8,), SPACE))
    ended = totals[rows] + state.scores[:, Tokenizer.eos]
    before = [(0, t) for t in texts] + [(2, t) for t in reversed(texts)]
    for (utterance, text), row in zip(before, range(8), strict=True):
        spaced = found.start(memory.select(torch.tensor([utterance])), 1)
        alone = 0.0
        for token in TOKENIZER.encode(text + " "):
            last = float(spaced.scores[0, token])
            alone += last
            spaced = spaced.advance(torch.tensor([0]), torch.tensor([token]))
        alone += float(spaced.scores[0, Tokenizer.eos])
        assert float(ended[row]) + last == pytest.approx(alone, abs=1e-4)
        frames = log_probs[utterance, : lengths[utterance]]
        assert alone == pytest.approx(exact(frames, text), abs=1e-4)


def test_a_character_is_charged_what_a_right_word_costs() -> None:
    found, memory = scorer(noise(1, 14), torch.tensor([14]))
    state = found.start(memory, 1)
    a, b = TOKENIZER.encode("ab")
    assert state.scores[0, [a, b]].tolist() == [-CHARGE, -CHARGE]
    assert state.scores[0, SPACE] == 0  # no word, no phonemes
    state = state.advance(torch.tensor([0]), torch.tensor([a]))
    nothing = Frames.of(noise(14)).begin()
    assert nothing.prefix == 0
    assert state.scores[0, SPACE] < CHARGE  # a probability, and the charge back
    c = TOKENIZER.encode("c")[0]
    assert state.scores[0, [b, c]].tolist() == [-CHARGE, -CHARGE - STRANGE]  # ab is a word
    state = state.advance(torch.tensor([0]), torch.tensor([c]))
    assert state.scores[0, [a, b]].tolist() == [-CHARGE, -CHARGE]  # once is enough


@pytest.mark.parametrize("pause", [0, 300])
def test_long_recordings_are_scored_exactly_though_few_frames_are_looked_at(pause: int) -> None:
    """A head that is sure of 120 words, with a pause in the middle: each sound has columns near its end only."""
    rng = np.random.default_rng(0)
    names = list(WORDS)
    words = [names[i] for i in rng.integers(len(names), size=120)]
    frames: list[int] = []
    for place, word in enumerate(words):
        for phoneme in WORDS[word]:
            frames += [phoneme, BLANK, BLANK]
        frames += [BLANK] * (pause if place == 60 else 3)
    logits = noise(len(frames), seed=4) + 12 * torch.nn.functional.one_hot(
        torch.tensor(frames), SIZE
    )
    log_probs = logits.log_softmax(-1)
    utterance = Frames.of(log_probs)
    sound, widest = utterance.begin(), 0
    for place, word in enumerate(words):
        (sound,) = utterance.extend([sound], [WORDS[word]])
        widest = max(widest, len(sound.either))
        assert (sound.whole > NOTHING) == (sound.end == utterance.count), place
    assert sound.whole == pytest.approx(exact(log_probs, " ".join(words)), abs=1e-3)
    assert widest < 250 + pause


def test_noise_that_is_left_unread_does_not_hide_what_follows() -> None:
    """14 s in which a blank is likeliest, but not by much: all hypotheses pay for it, more than MARGIN."""
    noise = torch.full((350, SIZE), 0.6 / (SIZE - 1))
    noise[:, BLANK] = 0.4
    said = torch.full((6, SIZE), 0.001)
    said[torch.arange(6), torch.tensor([5, BLANK, 6, BLANK, 7, BLANK])] = 1 - 0.001 * (SIZE - 1)
    log_probs = torch.cat([noise, said]).log()
    utterance = Frames.of(log_probs)
    (sound,) = utterance.extend([utterance.begin()], [(5, 6, 7)])
    sizes = torch.tensor([len(log_probs)]), torch.tensor([3])
    labels = torch.tensor([[5, 6, 7]])
    loss = ctc_loss(log_probs.double()[:, None], labels, *sizes, blank=BLANK, reduction="sum")
    assert -float(loss) < -300
    assert sound.whole == pytest.approx(-float(loss), abs=1e-6)


def test_what_begins_with_more_words_is_never_likelier() -> None:
    """Though a word that may sound as it likes may stand at many frames, each of which is likely."""
    frames = torch.tensor([5, BLANK] * 10)
    log_probs = (12.0 * torch.nn.functional.one_hot(frames, SIZE)).log_softmax(-1)
    utterance = Frames.of(log_probs)
    sound = utterance.begin()
    for word in ((ANYTHING,), (5,), (5,), (ANYTHING,), (5,)):
        before = sound
        (sound,) = utterance.extend([sound], [word])
        assert sound.whole <= sound.prefix <= before.prefix


def test_a_hot_word_that_the_dictionary_lacks_may_sound_as_it_likes() -> None:
    log_probs = noise(1, 14)
    plain, memory = scorer(log_probs, torch.tensor([14]))
    lexicon = Lexicon(WORDS, TOKENIZER, {"bb", "ab"})
    hot = PhonemeScorer(plain.model, lexicon, TOKENIZER, SPACE)
    assert lexicon.spoken("ab") == WORDS["ab"]  # it is known
    assert lexicon.spoken("bb") == (ANYTHING,)
    assert plain.lexicon.spoken("bb") == (UNKNOWN,)
    totals = {}
    for name, found in (("hot", hot), ("plain", plain)):
        state, total = found.start(memory, 1), 0.0
        for token in TOKENIZER.encode("a bb c"):
            total += float(state.scores[0, token])
            state = state.advance(torch.tensor([0]), torch.tensor([token]))
        totals[name] = total + float(state.scores[0, Tokenizer.eos])
    best = torch.cat([log_probs[0], log_probs[0].amax(-1, keepdim=True)], -1)
    labels = torch.tensor([[5, ANYTHING, 6]])
    sizes = torch.tensor([14]), torch.tensor([3])
    expected = -ctc_loss(best.double()[:, None], labels, *sizes, blank=BLANK, reduction="sum")
    assert totals["hot"] == pytest.approx(float(expected), abs=1e-4)
    assert totals["hot"] > totals["plain"]


def test_a_word_after_the_last_frame_is_unlikely_however_it_may_sound() -> None:
    frames = Frames.of(noise(1))
    (sound,) = frames.extend([frames.begin()], [(5,)])
    for word in ((ANYTHING,), (6,)):
        (after,) = frames.extend([sound], [word])
        assert after.whole <= after.prefix == NOTHING


def test_a_word_that_may_sound_as_it_likes_is_at_most_certain_in_a_pause() -> None:
    """Each of its 200 places there is likely; together they would be 5 nats above certainty."""
    log_probs = (12.0 * torch.nn.functional.one_hot(torch.tensor([BLANK] * 200), SIZE)).log_softmax(
        -1
    )
    empty = Frames.of(log_probs).begin()
    (word,) = Frames.of(log_probs).extend([empty], [(ANYTHING,)])
    assert word.whole <= word.prefix <= empty.prefix == 0


def test_more_phonemes_than_frames_are_unlikely_and_never_nan() -> None:
    frames = Frames.of(noise(4))
    sound = frames.begin()
    for word in ((5, 6, 7, 8), (5,), (6, 7)):
        before = sound
        (sound,) = frames.extend([sound], [word])
        assert np.isfinite([sound.prefix - before.prefix, sound.whole - before.prefix]).all()
    assert sound.prefix <= NOTHING

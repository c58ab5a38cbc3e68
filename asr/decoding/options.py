"""What a search can be told: its width, what it ranks by, and when it must end."""

import math
from dataclasses import dataclass, replace

from asr.errors import ConfigError

EXTRA_TOKENS = 5  # so that a very short recording may still hold a word

NOT_NEGATIVE = (
    "length_penalty",
    "length_bonus",
    "coverage_bonus",
    "lm_weight",
    "ngram_weight",
    "unknown_penalty",
    "phoneme_weight",
    "hotword_boost",
    "max_tokens_per_second",
)


@dataclass(frozen=True)
class DecodingOptions:
    """Options of greedy and beam search.

    A finished hypothesis y of L tokens is ranked by (unless a Ranking says otherwise)

        score(y) = S(y) / ((5 + L) / 6)^length_penalty + length_bonus * L + coverage_bonus * C(y)
        S(y) = (1 - ctc_weight) * log P_attention(y, eos) + ctc_weight * log P_ctc(y)
             + lm_weight * log P_lm(y, eos)
             + ngram_weight * (log P_words(words of y, end) - unknown_penalty * (words of y that n-grams do not know))
             + phoneme_weight * log P_ctc(phonemes of y)
             + word_bonus * (words of y) + hotword_boost * (characters of hot words in y)
        P_words(w) = (1 - word_lm_share) * P_ngram(w) + word_lm_share * P_word_lm(w), for each word

    The division is GNMT's length normalisation (Wu et al. 2016, section 7, equation 14; length_penalty 1 is close
    to Listen, Attend and Spell's log P / L). C(y) counts the memory steps whose attention, summed over the tokens,
    exceeds 0.5 (Chorowski & Jaitly 2016, section 3): it rewards having read all audio and does not pay for reading
    it twice. All three are 0 by default. Joint decoding with CTC is Watanabe et al. 2017, section II-C. ConfigError
    names a value out of range.
    """

    beam_size: int = (
        1  # hypotheses kept per utterance, or proposed by a first pass; 1 is greedy search
    )
    nbest: int = 1  # hypotheses returned per utterance, at most beam_size
    length_penalty: float = 0.0  # exponent of the length normalisation; 0 is none
    length_bonus: float = 0.0  # added per token, in nats; counters the preference for short texts
    coverage_bonus: float = 0.0  # added per memory step that was attended to, in nats
    ctc_weight: float = 0.0  # share of CTC in log P, 0 to 1; the rest is the decoder's
    lm_weight: float = 0.3  # of a character language model, where a search has one
    ngram_weight: float = 0.3  # of a word n-gram model, where a search has one
    word_lm_share: float = (
        0.5  # of a word LSTM beside the n-grams, where a search has one; 0 to 1, 1 excluded
    )
    unknown_penalty: float = 0.0  # in nats; words that are hot count as known
    word_bonus: float = 0.0  # added per word, in nats; may be negative
    phoneme_weight: float = 0.0  # of how the words sound, where a search has pronunciations
    hotword_boost: float = 0.5  # added per character of a hot word, in nats
    max_tokens_per_second: float = 25.0  # of audio; a hypothesis that gets longer is cut
    speller: bool = True  # whether a model's speller has its share in log P_attention

    def __post_init__(self) -> None:
        if self.beam_size < 1:
            raise ConfigError(f"beam_size is {self.beam_size}; it must be 1 or more")
        if not 1 <= self.nbest <= self.beam_size:
            raise ConfigError(
                f"nbest is {self.nbest}; it must be from 1 to beam_size ({self.beam_size})"
            )
        for name in NOT_NEGATIVE:
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} is {value}; it must be 0 or more")
        if not math.isfinite(self.word_bonus):
            raise ConfigError(f"word_bonus is {self.word_bonus}; it must be a finite number")
        if not 0 <= self.ctc_weight <= 1:
            raise ConfigError(f"ctc_weight is {self.ctc_weight}; it must be from 0 to 1")
        if not 0 <= self.word_lm_share < 1:
            raise ConfigError(
                f"word_lm_share is {self.word_lm_share}; it must be from 0 to less than 1"
            )

    def weights(self) -> dict[str, float]:
        """What the sum of each scorer counts in S(y), by the scorers' names in Hypothesis.parts."""
        return {
            "attention": 1 - self.ctc_weight,
            "ctc": self.ctc_weight,
            "lm": self.lm_weight,
            "ngram": self.ngram_weight,
            "phonemes": self.phoneme_weight,
            "words": self.word_bonus,
            "hotwords": self.hotword_boost,
        }

    def token_limit(self, seconds: float) -> int:
        """Return the number of tokens that a recording of `seconds` may have; none where there is no audio."""
        return math.ceil(seconds * self.max_tokens_per_second) + EXTRA_TOKENS if seconds > 0 else 0


@dataclass(frozen=True)
class Ranking:
    """Weights by which a beam's best finished hypotheses are put in order, where they differ from the beam's.

    A beam compares texts of the same length, some of which have read less of the audio than others: weights that let
    language say more than the decoder need a large length bonus, and with it those get ahead that write much and read
    little. Finished texts have all read to the end: such weights may order them, and what only helps in the beam, as a
    coverage bonus, may be left out. None is as in the search; scorers that it does not have do not count.
    """

    candidates: int = 8  # so many of the beam's finished hypotheses, its best, are ranked
    ctc_weight: float | None = None
    lm_weight: float | None = None
    ngram_weight: float | None = None
    phoneme_weight: float | None = None
    word_bonus: float | None = None
    length_bonus: float | None = None
    coverage_bonus: float | None = None
    hotword_boost: float | None = None

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise ConfigError(f"ranking.candidates is {self.candidates}; it must be 1 or more")
        try:
            self.of(DecodingOptions())
        except ConfigError as error:
            raise ConfigError(f"ranking.{error}") from error

    def of(self, searched: DecodingOptions) -> DecodingOptions:
        """The options whose score orders what a search with the options `searched` has found."""
        given = {name: weight for name, weight in vars(self).items() if weight is not None}
        del given["candidates"]
        return replace(searched, **given)

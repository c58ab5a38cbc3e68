"""All that a search needs besides the model: options and loaded scorers in one value, checked against the model."""

from dataclasses import dataclass, field

from asr.decoding.ctc_prefix import CtcScorer
from asr.decoding.options import DecodingOptions
from asr.decoding.scorers import AttentionScorer, Scorer
from asr.errors import ConfigError
from asr.model import Seq2Seq
from asr.tokenizer import Tokenizer


@dataclass(frozen=True)
class Search:
    """How to decode: built once, used for every batch."""

    options: DecodingOptions = field(default_factory=DecodingOptions)

    @property
    def gain(self) -> float:
        """The most that one token can add to S(y), in nats."""
        return 0.0

    def scorers(self, model: Seq2Seq, tokenizer: Tokenizer) -> dict[str, tuple[float, Scorer]]:
        """The scorers by name with their weights, those with weight 0 left out; attention is always the first.

        Raises ConfigError if the model or its alphabet does not fit.
        """
        weight = self.options.ctc_weight
        found: dict[str, tuple[float, Scorer]] = {"attention": (1 - weight, AttentionScorer(model))}
        if weight > 0:
            if model.ctc is None:
                raise ConfigError(f"ctc_weight is {weight}, but this model has no CTC head; use 0")
            found["ctc"] = (weight, CtcScorer(model))
        return found

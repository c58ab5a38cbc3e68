"""Language models to files and back: tensors and plain dicts only, so that loading never runs code from a file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from asr import checkpoint, options
from asr.errors import AsrError, CheckpointError
from asr.files import atomic_write
from asr.model.lm import CharacterLm, LanguageModel, LmOptions, WordLm
from asr.tokenizer import Tokenizer, WordTokenizer
from asr.weights import pack, unpack

FORMAT = 1


@dataclass(frozen=True)
class TrainedLm:
    """A language model, its characters or words, and what is known about it.

    A recognizer can use one of characters only if `tokenizer.alphabet` is its own.
    """

    model: LanguageModel
    tokenizer: Tokenizer | WordTokenizer
    info: dict[str, Any]  # plain values: steps, hours, texts, perplexity

    @property
    def kind(self) -> str:
        """What its tokens are: characters or words."""
        return "words" if isinstance(self.tokenizer, WordTokenizer) else "characters"


def save_lm(path: str | Path, trained: TrainedLm, *, bits: int = 32) -> None:
    """Write a language model, whole or not at all, its weights in 32, 16 or 8 bits (asr.weights)."""
    content = {
        "lm_format": FORMAT,
        "lm": options.to_dict(trained.model.options),
        "tokenizer": trained.tokenizer.to_dict(),
        "info": trained.info,
        "weights": pack(trained.model.state_dict(), bits),
    }
    with atomic_write(path, "wb") as file:
        torch.save(content, file)


def load_lm(
    path: str | Path, kind: str | None = None, *, device: str | torch.device = "cpu"
) -> TrainedLm:
    """Rebuild a language model from its own stored sizes, in float32 and evaluation mode.

    Raises CheckpointError naming the file and what is wrong with it, also where it is not of the wanted kind.
    """
    content = checkpoint.read(path)
    if "progress" in content:
        raise CheckpointError(
            f"{path}: the state of a training, not a model; model.pt beside it is the model"
        )
    if "lm_format" not in content:
        raise CheckpointError(f"{path}: not a language model")
    if content["lm_format"] != FORMAT:
        version = content["lm_format"]
        raise CheckpointError(
            f"{path}: language model format {version!r}; this version reads {FORMAT}"
        )
    try:
        tokenizer, model = _empty(content)
        model.load_state_dict(unpack(content["weights"]))
    except (KeyError, RuntimeError, AttributeError, TypeError, ValueError, AsrError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: not a language model of this version: {reason}") from error
    trained = TrainedLm(model.to(device).eval(), tokenizer, content.get("info", {}))
    if kind not in (None, trained.kind):
        raise CheckpointError(
            f"{path}: a language model of {trained.kind}; one of {kind} is wanted"
        )
    return trained


def _empty(content: dict[str, Any]) -> tuple[Tokenizer | WordTokenizer, LanguageModel]:
    sizes = options.from_dict(LmOptions, content["lm"])
    if content["tokenizer"]["kind"] == "words":
        words = WordTokenizer.from_dict(content["tokenizer"])
        return words, WordLm(words.size, sizes)
    characters = Tokenizer.from_dict(content["tokenizer"])
    return characters, CharacterLm(characters.size, sizes)

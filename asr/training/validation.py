"""A model in, its dev WER out, measured by the same function and search as `asr evaluate`."""

from collections.abc import Sequence
from pathlib import Path

import torch

from asr import audio, manifest
from asr.checkpoint import Trained
from asr.evaluate import evaluate
from asr.manifest import Utterance
from asr.recognizer import Recognizer
from asr.report import attention_plot


class Validation:
    """Dev utterances, at most `limit` (0 is all) spread evenly over the manifests."""

    def __init__(self, manifests: Sequence[str], limit: int) -> None:
        """Read the manifests; raises ManifestError where one cannot be read."""
        everything = [utterance for path in manifests for utterance in manifest.read(path)]
        self.utterances: list[Utterance] = spread(everything, limit)

    def measure(self, trained: Trained) -> dict[str, float]:
        """Greedy WER, CER and how diagonal the attention is; empty without dev utterances."""
        if not self.utterances:
            return {}
        result = evaluate(Recognizer(trained, device=_device(trained)), self.utterances)
        return {"wer": result.wer, "cer": result.cer, "diagonality": result.diagonality}

    def picture(self, trained: Trained, path: Path) -> None:
        """Draw the attention on the first dev utterance that has any, as a PNG."""
        recognizer = Recognizer(trained, device=_device(trained))
        for utterance in self.utterances[:10]:
            transcript = recognizer.transcribe(utterance.audio)
            if transcript.attention is not None and len(transcript.attention.tokens) > 1:
                waveform = audio.read(utterance.audio, sample_rate=trained.features.sample_rate)
                attention_plot(
                    torch.from_numpy(waveform),
                    transcript.attention,
                    path,
                    features=trained.features,
                    title=transcript.text,
                )
                return


def spread(utterances: Sequence[Utterance], limit: int) -> list[Utterance]:
    """`limit` utterances at equal distances, all of them if 0 or if there are no more."""
    if limit <= 0 or limit >= len(utterances):
        return list(utterances)
    return [utterances[i * len(utterances) // limit] for i in range(limit)]


def _device(trained: Trained) -> str:
    return str(next(trained.model.parameters()).device)

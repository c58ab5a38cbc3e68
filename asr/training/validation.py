"""A model in, its dev WER out, measured by the same function and search as `asr evaluate`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from asr import audio, manifest
from asr.checkpoint import Trained
from asr.errors import AsrError, TrainingError
from asr.evaluate import evaluate
from asr.manifest import Utterance
from asr.recognizer import Recognizer
from asr.report import attention_plot


class Validation:
    """Dev utterances, at most `limit` (0 is all) spread evenly over the manifests."""

    def __init__(
        self, manifests: Sequence[str], limit: int, device: torch.device | str = "cpu"
    ) -> None:
        """Read the manifests; raises AsrError where one cannot be read, or none of the recordings."""
        self.device = str(device)
        everything = [utterance for path in manifests for utterance in manifest.read(path)]
        self.utterances: list[Utterance] = spread(everything, limit)
        if manifests and not everything:
            raise TrainingError(f"data.dev: no utterance in {', '.join(manifests)}")
        _check_readable(self.utterances)

    def measure(self, trained: Trained) -> dict[str, float]:
        """Greedy WER, CER and how diagonal the attention is; empty without dev utterances."""
        if not self.utterances:
            return {}
        with _mode_kept(trained.model):
            result = evaluate(Recognizer(trained, device=self.device), self.utterances)
        return {"wer": result.wer, "cer": result.cer, "diagonality": result.diagonality}

    def picture(self, trained: Trained, path: Path) -> None:
        """Draw the attention on the first dev utterance that has any, as a PNG."""
        for utterance in self.utterances[:10]:
            with _mode_kept(trained.model):
                recognizer = Recognizer(trained, device=self.device)
                transcript = recognizer.transcribe_batch([utterance.audio], whole=True)[0]
            if isinstance(transcript, AsrError) or transcript.attention is None:
                continue
            if len(transcript.attention.tokens) > 1:
                waveform = audio.read(utterance.audio, sample_rate=trained.features.sample_rate)
                attention_plot(
                    torch.from_numpy(waveform),
                    transcript.attention,
                    path,
                    features=trained.features,
                    title=transcript.text,
                )
                return


@contextmanager
def _mode_kept(model: nn.Module) -> Iterator[None]:
    """A recognizer puts its model into evaluation mode; after the block it is in the mode it was in."""
    mode = model.training
    try:
        yield
    finally:
        model.train(mode)


def _check_readable(utterances: Sequence[Utterance]) -> None:
    """Find out before the training, not at its first validation, that no recording is there."""
    problem: AsrError | None = None
    for utterance in utterances:
        try:
            audio.info(utterance.audio)
            return
        except AsrError as error:
            problem = problem or error
    if problem is not None:
        raise TrainingError(
            f"data.dev: no recording can be read; the first: {problem}"
        ) from problem


def spread(utterances: Sequence[Utterance], limit: int) -> list[Utterance]:
    """`limit` utterances at equal distances, all of them if 0 or if there are no more."""
    if limit <= 0 or limit >= len(utterances):
        return list(utterances)
    return [utterances[i * len(utterances) // limit] for i in range(limit)]

"""A model in, its dev WER out, measured by the same function as `asr evaluate`, or its phoneme error rate."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from asr import audio, manifest, metrics, phonemes
from asr.checkpoint import Trained
from asr.errors import AsrError, TrainingError
from asr.evaluate import evaluate
from asr.features import LogMel
from asr.manifest import Utterance
from asr.model.crf import Trigram
from asr.model.seq2seq import ctc_loss, fits
from asr.recognizer import Recognizer
from asr.report import attention_plot
from asr.text import normalise

SHORTEST = 8  # frames, of a recording whose phonemes are measured


class Validation:
    """Dev utterances, at most `limit` (0 is all) spread evenly over the manifests."""

    def __init__(
        self,
        manifests: Sequence[str],
        limit: int,
        device: torch.device | str = "cpu",
        *,
        phonemes: bool = False,
    ) -> None:
        """Read the manifests; raises AsrError where one cannot be read, or none of the recordings.

        With `phonemes` it is their error rate that is measured, not that of words.
        """
        self.device = str(device)
        self.phonemes = phonemes
        self.trigram: Trigram | None = None  # set where phonemes learn by CTC-CRF
        everything = [utterance for path in manifests for utterance in manifest.read(path)]
        self.utterances: list[Utterance] = spread(everything, limit)
        if manifests and not everything:
            raise TrainingError(f"data.dev: no utterance in {', '.join(manifests)}")
        _check_readable(self.utterances)

    def measure(self, trained: Trained) -> dict[str, float]:
        """Greedy WER, CER and how diagonal the attention is; empty without dev utterances.

        Or of phonemes: their error rate, and before it, where they learn by CTC-CRF, the nats a phoneme of its loss.
        """
        if not self.utterances:
            return {}
        with _mode_kept(trained.model):
            if self.phonemes:
                return phoneme_rates(trained, self.utterances, self.trigram)
            result = evaluate(Recognizer(trained, device=self.device), self.utterances)
        figures = {"wer": result.wer, "cer": result.cer, "diagonality": result.diagonality}
        return {name: value for name, value in figures.items() if value is not None}

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


@torch.inference_mode()
def phoneme_rates(
    trained: Trained, utterances: Sequence[Utterance], trigram: Trigram | None = None
) -> dict[str, float]:
    """What is heard of phonemes, as the dictionary pronounces: with a trigram "crf", and "per".

    The one is CTC-CRF's loss in nats a phoneme, the other errors a phoneme, CTC's best path read as it is. Recordings
    that cannot be used are left out. Raises TrainingError where that is all.
    """
    expected, found, loss = [], [], 0.0
    for log_probs, said in _heard(trained, utterances):
        best = log_probs[0].argmax(-1).unique_consecutive().tolist()
        found.append(" ".join(str(p) for p in best if p != phonemes.BLANK))
        expected.append(" ".join(map(str, said)))
        if trigram is not None:
            loss += _crf_loss(log_probs, said, trigram)
    if not expected:
        raise TrainingError("data.dev: no recording can be used")
    counts = metrics.total(metrics.word_counts(expected, found))
    rates = {} if trigram is None else {"crf": loss / max(counts.reference_length, 1)}
    return rates | {"per": counts.rate}


@torch.inference_mode()
def _heard(
    trained: Trained, utterances: Sequence[Utterance]
) -> Iterator[tuple[Tensor, tuple[int, ...]]]:
    """The phonemes' log_probs (1, F, P) of each recording that can be used, and those of its text."""
    model, features = trained.model.eval(), LogMel(trained.features).to(_device(trained.model))
    for utterance in utterances:
        try:
            waveform = audio.read(utterance.audio, sample_rate=trained.features.sample_rate)
        except AsrError:
            continue
        frames = features.extract(torch.from_numpy(waveform).to(_device(model)))
        if len(frames) < SHORTEST:
            continue
        lengths = torch.tensor([len(frames)], device=frames.device)
        log_probs, _ = model.hear(frames[None], lengths)
        yield log_probs, phonemes.encode(normalise(utterance.text))


def _crf_loss(log_probs: Tensor, said: tuple[int, ...], trigram: Trigram) -> float:
    frames = torch.tensor([log_probs.shape[1]], device=log_probs.device)
    labels = torch.tensor([said], dtype=torch.int64, device=log_probs.device)
    count = torch.tensor([len(said)], device=log_probs.device)
    if not fits(frames, labels, count):
        return 0.0
    loss = ctc_loss(log_probs, frames, labels, count, phonemes.BLANK)
    return float(loss - trigram.log_prob(said) + trigram.log_partition(log_probs, frames)[0])


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


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

"""What the benchmarks of this folder share: recordings in, each one's hypothesis and CTC log probabilities out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from asr import audio
from asr.decoding import Hypothesis, decode
from asr.encoding import encode, extract
from asr.manifest import Utterance
from asr.recognizer import Recognizer

BATCH_SECONDS = 120.0
RATE = 16_000


@dataclass(frozen=True)
class Heard:
    """What a model made of one recording; `ctc` is (F, V)."""

    hypothesis: Hypothesis
    ctc: Tensor
    frame_seconds: float  # of a memory's step


def load_waveforms(utterances: Sequence[Utterance]) -> list[Tensor]:
    """Waveforms (S,) at 16 kHz."""
    return [torch.from_numpy(audio.read(u.audio, sample_rate=RATE)) for u in utterances]


@torch.inference_mode()
def hear(recognizer: Recognizer, waveforms: Sequence[Tensor]) -> list[Heard]:
    """The best hypotheses of the recognizer's own search, each recording in one piece, in the order of `waveforms`."""
    model, found = recognizer.model, {}
    for batch in batches([len(waveform) for waveform in waveforms]):
        fed = extract(model, recognizer.features, [waveforms[i] for i in batch])
        warp, options = recognizer.search.warp, recognizer.trained.features
        memory = encode(model, fed.features, fed.lengths, warp, options)
        hypotheses = decode(model, memory, recognizer.tokenizer, recognizer.search)
        log_probs = model.ctc_log_probs(memory)
        assert log_probs is not None, "the benchmark needs a model with a CTC head"
        for row, index in enumerate(batch):
            frames = int(memory.lengths[row]) * model.ctc_factor
            found[index] = Heard(
                hypotheses[row][0], log_probs[row, :frames].clone(), fed.frame_seconds[row]
            )
    return [found[index] for index in range(len(waveforms))]


def batches(samples: Sequence[int]) -> Iterator[list[int]]:
    """Indices in groups of like length, longest first, of at most BATCH_SECONDS padded seconds."""
    batch: list[int] = []
    for index in sorted(range(len(samples)), key=lambda i: -samples[i]):
        if batch and samples[batch[0]] * (len(batch) + 1) > BATCH_SECONDS * RATE:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch

"""Speech in, what a model's phoneme layers hear of it out: each process hears its share, once, and files keep it."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from asr.augment import AugmentOptions, spec_augment, warp_frequencies
from asr.batching import TrainingSet, epoch_batches
from asr.checkpoint import Trained
from asr.files import atomic_write
from asr.training import distributed
from asr.training.distributed import Place

Heard = NDArray[np.float16]  # (F, P) log probabilities of phonemes

SECONDS = 400.0  # of speech that is heard together
LOWEST = -10.0  # log probabilities below it are kept as it
HEARS = ("encoder.subsample.", "encoder.layers.0.", "phoneme_layers.", "phonemes.")  # weights


@dataclass(frozen=True)
class Hearing:
    """Who hears speech, and how; the same for every pass over it."""

    trained: Trained
    augmentation: AugmentOptions
    seed: int
    bf16: bool
    cache: Path  # a folder that all processes share; may be deleted at any time
    place: Place


def heard(
    data: TrainingSet,
    hearing: Hearing,
    number: int,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Iterator[tuple[int, Heard]]:
    """Each example's index with what the phoneme layers hear of it in pass `number`, the same for all processes.

    What this model heard of this speech before is read from the cache. `on_progress` is told how many examples are
    done.
    """
    key, place = _key(data, hearing, number), hearing.place
    parts = [hearing.cache / f"{key}-{n}-of-{place.world}.npz" for n in range(1, place.world + 1)]
    if not parts[place.rank].exists():
        found = []
        for one in hear(data, hearing, number):
            found.append(one)
            on_progress(min(len(found) * place.world, len(data)))
        _keep(parts[place.rank], found)
    distributed.wait()
    for part in parts:
        yield from _kept(part)


@torch.inference_mode()
def hear(data: TrainingSet, hearing: Hearing, number: int) -> Iterator[tuple[int, Heard]]:
    """A process's share of the examples, each augmented, the dropout of the phoneme layers on."""
    model, augmentation, place = hearing.trained.model, hearing.augmentation, hearing.place
    device = next(model.parameters()).device
    seed = (hearing.seed * 1009 + number) * place.world + place.rank
    torch.manual_seed(seed)  # of dropout
    generator = torch.Generator().manual_seed(seed)
    model.eval()
    model.phoneme_layers.train()
    batches = epoch_batches(
        [example.frames for example in data.examples],
        batch_frames=round(SECONDS / data.hop_seconds),
        seed=hearing.seed,
        epoch=number,
    )
    for picks in place.share(batches):
        batch = data.batch(picks)
        features = warp_frequencies(
            batch.features, augmentation.freq_warp, hearing.trained.features, generator
        )
        features = spec_augment(features, batch.feature_lengths, augmentation, generator)
        with torch.autocast(device.type, torch.bfloat16, enabled=hearing.bf16):
            log_probs, lengths = model.hear(features.to(device), batch.feature_lengths.to(device))
        values = log_probs.float().clamp(min=LOWEST).half().cpu().numpy()
        for (index, _), row, length in zip(picks, values, lengths.tolist(), strict=True):
            yield index, row[:length].copy()
    model.eval()


def _key(data: TrainingSet, hearing: Hearing, number: int) -> str:
    """A name that nothing else has which would be heard otherwise."""
    files = [Path(name) for store in data.stores if (name := getattr(store, "filename", None))]
    speech: Any = (data.digest, [(file.name, file.stat().st_mtime_ns) for file in files])
    network = replace(hearing.trained.model.options, speller=None)
    how = (asdict(hearing.augmentation), asdict(network), hearing.seed, hearing.bf16, number)
    digest = hashlib.sha256(repr((speech, how)).encode())
    for name, weight in sorted(hearing.trained.model.state_dict().items()):
        if name.startswith(HEARS):
            digest.update(weight.cpu().numpy().tobytes())
    return f"heard-{digest.hexdigest()[:16]}"


def _keep(path: Path, found: Sequence[tuple[int, Heard]]) -> None:
    values = [values for _, values in found]
    with atomic_write(path, "wb") as file:
        np.savez(
            file,
            index=np.array([index for index, _ in found], np.int64),
            frames=np.array([len(one) for one in values], np.int64),
            values=np.concatenate(values) if values else np.zeros((0, 0), np.float16),
        )


def _kept(path: Path) -> Iterator[tuple[int, Heard]]:
    with np.load(path) as file:
        index, frames, values = file["index"], file["frames"], file["values"]
    if len(index):
        ends = frames.cumsum()
        yield from zip(index.tolist(), np.split(values, ends[:-1]), strict=True)

"""A training's recordings in, the same with texts beside them out: heard for a speller, or put together from speech."""

from collections.abc import Sequence
from pathlib import Path

from asr.augment import AugmentOptions
from asr.batching import DataOptions
from asr.errors import TrainingError
from asr.training.hearing import HEARS, Hearing
from asr.training.run import Run
from asr.training.schedule import TrainingOptions
from asr.training.spelling import SpellingOptions, spelling_set
from asr.training.splicing import spliced_set


def hear_all(
    run: Run,
    training: TrainingOptions,
    data: DataOptions,
    augmentation: AugmentOptions,
    options: SpellingOptions,
) -> None:
    """Put in the place of the features what the phoneme layers hear, and text."""
    with run.monitor.bar("phonemes") as on_progress:
        cache = Path(data.cache)
        hearing = Hearing(run.trained, augmentation, training.seed, run.bf16, cache, run.place)
        run.data = found = spelling_set(
            run.data,
            hearing,
            options,
            held_out=(*data.dev, *data.exclude),
            on_progress=on_progress,
        )
    words = sum(len(words) for _, words in found.texts)
    missing = f"; left out: {len(found.skipped)}, as {found.skipped[0]}" if found.skipped else ""
    run.monitor.say(f"{len(found.texts)} sentences of text, {words} words, beside speech{missing}")


def splice(
    run: Run,
    training: TrainingOptions,
    data: DataOptions,
    options: SpellingOptions,
    new: Sequence[str],
) -> None:
    """Put beside the recordings texts that are put together from them; weights `new` are random and hear nothing."""
    if run.model.phonemes is None:
        raise TrainingError("spelling.texts: needs model.phonemes = true, to cut recordings by")
    if random := sorted({name.partition(".")[0] for name in new if name.startswith(HEARS)}):
        raise TrainingError(
            f"spelling.texts: must begin with a trained model of these sizes, which has {', '.join(random)}; "
            "name it with --init"
        )
    with run.monitor.bar("phonemes") as on_progress:
        hearing = Hearing(run.trained, None, training.seed, run.bf16, Path(data.cache), run.place)
        total = len(run.data)
        run.data = found = spliced_set(
            run.data,
            hearing,
            options,
            held_out=(*data.dev, *data.exclude),
            max_seconds=data.max_seconds,
            on_progress=lambda done: on_progress(done, total),
        )
    words = sum(len(words) for _, words in found.texts)
    run.monitor.say(f"{len(found.texts)} sentences of text, {words} words, beside speech")

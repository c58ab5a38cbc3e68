"""Options in, a training that is ready to go on out: network, optimizer, data, and the progress made before."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from asr import checkpoint, leaks, manifest, sentences
from asr.augment import AugmentOptions
from asr.batching import DataOptions, TrainingSet, epoch_batches, load_training_set
from asr.checkpoint import Trained
from asr.devices import trains_in_bf16
from asr.errors import TrainingError
from asr.features import FeatureOptions
from asr.files import atomic_write
from asr.manifest import Utterance
from asr.model import ModelOptions, Seq2Seq
from asr.model.crf import Trigram
from asr.text import normalise
from asr.tokenizer import Tokenizer
from asr.training import distributed, state
from asr.training.hearing import Hearing
from asr.training.monitor import Monitor
from asr.training.optimizer import Optimizer
from asr.training.optimizer import build as build_optimizer
from asr.training.schedule import Progress, TrainingOptions, check_end, goes_back
from asr.training.spelling import SpellingOptions, spelling_set
from asr.training.validation import Validation

MAX_NAMED = (
    20  # weights that are new, or utterances left out, that are shown; these are all in the file
)
LEFT_OUT = "left-out.txt"


@dataclass
class Run:
    """One process's training: what it learns from, what it changes, and where it writes."""

    trained: Trained
    optimizer: Optimizer
    progress: Progress
    data: TrainingSet
    validation: Validation
    monitor: Monitor
    output: Path
    place: distributed.Place
    bf16: bool  # whether the losses are computed in it, the weights staying float32

    @property
    def model(self) -> Seq2Seq:
        """The network that learns."""
        return self.trained.model

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes files and lines."""
        return self.place.rank == 0

    def save(self, name: str) -> None:
        """Write the whole state to a file of the output folder, from one process only."""
        if self.writes:
            state.save(self.output / name, self.model, self.optimizer, self.progress)

    def batches(
        self, training: TrainingOptions, data: DataOptions, epoch: int
    ) -> list[list[tuple[int, int]]]:
        """The batches of an epoch, over all processes."""
        return epoch_batches(
            [example.frames for example in self.data.examples],
            batch_frames=round(data.batch_seconds / self.data.hop_seconds),
            seed=training.seed,
            epoch=epoch,
            short_first=epoch < training.short_first_epochs,
        )

    def steps_per_epoch(self, training: TrainingOptions, data: DataOptions, epoch: int) -> int:
        """Steps that an epoch takes, `accumulate` batches each."""
        return -(-len(self.batches(training, data, epoch)) // training.accumulate)


def prepare(
    trained: Trained,
    output: Path,
    place: distributed.Place,
    monitor: Monitor,
    *,
    data: DataOptions,
    training: TrainingOptions,
    augmentation: AugmentOptions,
) -> Run:
    """Read everything that training needs, with no progress yet."""
    check_end(training, validates=bool(data.dev))
    validation = Validation(
        data.dev, training.validate_utterances, place.device, phonemes=training.phonemes_alone
    )
    examples = _load_in_turn(data, trained, augmentation, monitor, place)
    if training.phonemes_alone:
        if trained.model.phonemes is None:
            raise TrainingError("training.phonemes_alone: needs model.phonemes = true")
        trained.model.learn_phonemes_alone()
    if training.speller_alone:
        if trained.model.speller is None:
            raise TrainingError("training.speller_alone: needs a table model.speller")
        trained.model.learn_speller_alone()
    if training.crf:
        if trained.model.phonemes is None:
            raise TrainingError("training.crf: needs model.phonemes = true")
        trigram = Trigram(example.phonemes for example in examples.examples)
        trained.model.trigram = validation.trigram = trigram
    _freeze(trained.model, training.frozen)
    optimizer = build_optimizer(trained.model, training.optimizer)
    bf16 = uses_bf16(training.precision, trained.model, place.device)
    return Run(trained, optimizer, Progress(), examples, validation, monitor, output, place, bf16)


def _freeze(model: Seq2Seq, parts: Sequence[str]) -> None:
    """Keep the weights of the modules with these names as they are."""
    modules = dict(model.named_modules())
    for part in parts:
        if not part or part not in modules:
            names = ", ".join(name for name, _ in model.named_children())
            raise TrainingError(
                f"training.frozen {part!r}: no part of this model; allowed are {names}, and parts of these"
            )
        modules[part].requires_grad_(False)
    if not any(weight.requires_grad for weight in model.parameters()):
        raise TrainingError("training.frozen: nothing is left that learns")


def uses_bf16(precision: str, model: Seq2Seq, device: torch.device) -> bool:
    """bf16 where asked for, or where the chip is faster in it and has what the model needs for it."""
    if precision != "auto":
        return precision == "bf16"
    return trains_in_bf16(model, device)


def new_model(
    model: ModelOptions, features: FeatureOptions, seed: int, device: torch.device
) -> Trained:
    """A network with the random weights of `seed`."""
    tokenizer = Tokenizer()
    torch.manual_seed(seed)
    network = checkpoint.build(model, tokenizer, features).to(device)
    return Trained(network, tokenizer, features, {})


def restore(
    run: Run,
    training: TrainingOptions,
    data: DataOptions,
    *,
    resume: bool,
    initial: str | Path | None,
) -> None:
    """Go on from the saved state, or begin with the random or the given weights."""

    def back(progress: Progress) -> bool:
        return goes_back(progress, training, run.steps_per_epoch(training, data, progress.epoch))

    progress = state.resume(run.output, run.model, run.optimizer, back) if resume else None
    missing: list[str] = [] if progress is not None else list(run.model.state_dict())
    if progress is not None:
        run.progress = progress
        unused = f"; {initial} is not used" if initial is not None else ""
        run.monitor.say(
            f"going on from step {progress.step}, {progress.elapsed / 3600:.2f} h{unused}"
        )
    elif initial is not None:
        missing, run.progress.begun_with = state.initialise(run.model, initial)
        new = f"; new: {', '.join(missing[:MAX_NAMED])}" if missing else ""
        if len(missing) > MAX_NAMED:
            new += f" and {len(missing) - MAX_NAMED} more"
        run.monitor.say(f"weights from {initial}{new}")
    _check_begun(training, missing)
    for parameters in run.optimizer.param_groups:
        parameters["weight_decay"] = training.weight_decay
    if run.writes:
        state.forget_after(run.output, run.progress.step)


def compare_data(run: Run) -> None:
    """Say so where a training that goes on learns from something else than what it began with."""
    digest = run.data.digest
    run.progress.data = run.progress.data or digest
    if run.progress.data != digest:
        run.monitor.say("its speech or texts are not what it began with; --no-resume begins anew")


def _check_begun(training: TrainingOptions, new: Sequence[str]) -> None:
    """Refuse a training in which a part that it does not change has the random weights `new`."""
    parts = {name.partition(".")[0] for name in new}
    for part in training.frozen:
        if any(name.startswith(f"{part}.") for name in new):
            raise TrainingError(
                f"training.frozen {part!r}: must begin with a trained model that has it; name it with --init"
            )
    alone = {
        "phonemes_alone": {"phonemes", "phoneme_layers", "speller"},
        "speller_alone": {"speller"},
    }
    for option, learning in alone.items():
        if getattr(training, option) and (missing := sorted(parts - learning)):
            raise TrainingError(
                f"training.{option}: must begin with a trained model of these sizes, which has "
                f"{', '.join(missing)}; name it with --init"
            )
    if "speller" in parts and not training.speller_alone:
        raise TrainingError(
            "model.speller: a new one learns with training.speller_alone, not beside the rest"
        )


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


def _load_in_turn(
    data: DataOptions,
    trained: Trained,
    augmentation: AugmentOptions,
    monitor: Monitor,
    place: distributed.Place,
) -> TrainingSet:
    """The first process computes the features, the others then find them, or fail as it did."""
    if place.rank > 0:
        distributed.wait()
    try:
        return load_data(data, trained, augmentation, monitor)
    finally:
        if place.rank == 0:
            distributed.wait()


def _chosen(
    manifests: Sequence[tuple[str, list[Utterance]]], files: Sequence[str], monitor: Monitor
) -> list[tuple[str, list[Utterance]]]:
    """The manifests' utterances whose ids are in the files; says how many of those there are nowhere."""
    there = {utterance.id for _, utterances in manifests for utterance in utterances}
    lists = {path: _read_ids(path) for path in files}
    ids = set().union(*lists.values())
    if not ids & there:
        listed = ", ".join(files)
        raise TrainingError(f"data.only {listed}: none of the {len(ids)} ids is in a manifest")
    for path, named in lists.items():
        if missing := named - there:
            example = min(missing)
            monitor.say(
                f"{path}: {len(missing)} of {len(named)} ids are in no manifest, as {example}"
            )
    found = [(name, [u for u in utterances if u.id in ids]) for name, utterances in manifests]
    return [(name, utterances) for name, utterances in found if utterances]


def _read_ids(path: str) -> set[str]:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"data.only {path}: {error}") from error
    return {line.strip() for line in lines if not line.startswith("#")} - {""}


def _sentences(
    manifests: Sequence[str], chosen: Sequence[tuple[str, list[Utterance]]]
) -> list[sentences.Sentence]:
    """The transcripts of those chosen of the manifests' utterances, with their manifests and lines."""
    ids = {utterance.id for _, utterances in chosen for utterance in utterances}
    return [
        sentences.Sentence(text, name, line)
        for name in manifests
        for line, utterance in manifest.numbered(name)
        if utterance.id in ids and (text := normalise(utterance.text))
    ]


def load_data(
    data: DataOptions, trained: Trained, augmentation: AugmentOptions, monitor: Monitor
) -> TrainingSet:
    """The utterances that `data` names, with their features; says what was left out.

    Raises AsrError where manifests cannot be read, or hold none that can be used, or sentences of data.exclude.
    """
    if not data.train:
        raise TrainingError("data.train: name at least one manifest to train on")
    manifests = [(path, manifest.read(path)) for path in data.train]
    for path, utterances in manifests:
        if not utterances:
            raise TrainingError(f"{path}: the manifest has no utterances")
    chosen = _chosen(manifests, data.only, monitor) if data.only else manifests
    if data.exclude:
        leaks.refuse(_sentences(data.train, chosen), sentences.read(data.exclude))
    with monitor.bar("features") as on_progress:
        examples = load_training_set(
            chosen,
            trained.tokenizer,
            features=trained.features,
            augmentation=augmentation,
            options=data,
            with_phonemes=trained.model.options.phonemes,
            on_progress=on_progress,
        )
    for line in examples.skipped[:MAX_NAMED]:
        monitor.say(f"left out: {line}")
    if monitor.output is not None and examples.skipped:
        with atomic_write(monitor.output / LEFT_OUT) as file:
            file.writelines(f"{line}\n" for line in examples.skipped)
    left_out = len(examples.skipped)
    where = f", all named in {monitor.output / LEFT_OUT}" if monitor.output and left_out else ""
    monitor.say(f"{len(examples)} utterances, {examples.hours:.2f} h, {left_out} left out{where}")
    return examples

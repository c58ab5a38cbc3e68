"""The training loop, to be read from top to bottom: epochs, steps, validations, checkpoints, the final average."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from asr import checkpoint, manifest
from asr.augment import AugmentOptions, spec_augment
from asr.batching import Batch, DataOptions, TrainingSet, epoch_batches, load_training_set
from asr.checkpoint import Trained
from asr.errors import TrainingError
from asr.features import FeatureOptions
from asr.model import Losses, LossWeights, ModelOptions, Seq2Seq
from asr.tokenizer import Tokenizer
from asr.training import distributed, state
from asr.training.monitor import Monitor
from asr.training.schedule import (
    Progress,
    TrainingOptions,
    is_finished,
    learning_rate,
    loss_weights,
    plan_end,
)
from asr.training.validation import Validation

MAX_SKIPPED_IN_A_ROW = 20


@dataclass
class Run:
    """One process's training: what it learns from, what it changes, and where it writes."""

    trained: Trained
    optimizer: torch.optim.Optimizer
    progress: Progress
    data: TrainingSet
    validation: Validation
    monitor: Monitor
    output: Path
    place: distributed.Place

    @property
    def model(self) -> Seq2Seq:
        return self.trained.model


def train(
    output: str | Path,
    *,
    model: ModelOptions,
    data: DataOptions,
    training: TrainingOptions,
    features: FeatureOptions,
    augmentation: AugmentOptions,
    resume: bool = True,
    initial: str | Path | None = None,
    device: str = "cpu",
) -> Path:
    """Train until the planned end and return the path of the final model, `output`/model.pt.

    Goes on from `output`/last.pt if that is there and `resume`; otherwise starts from random weights (training.seed),
    or from the fitting weights of the model `initial`. Under torchrun each process trains on its share of every
    batch. Raises AsrError with one clear line where options, manifests or checkpoints cannot be used.
    """
    output = Path(output)
    place = distributed.start(device)
    monitor = Monitor(output if place.rank == 0 else None)
    try:
        tokenizer = Tokenizer()
        torch.manual_seed(training.seed)
        network = checkpoint.build(model, tokenizer, features).to(place.device)
        trained = Trained(network, tokenizer, features, {})
        examples = _load_data(data, tokenizer, features, augmentation, monitor)
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=0.0, weight_decay=training.weight_decay
        )
        progress = _restore(output, trained, optimizer, training, resume, initial, monitor)
        validation = Validation(data.dev, training.validate_utterances)
        run = Run(trained, optimizer, progress, examples, validation, monitor, output, place)
        _loop(run, training, data, augmentation)
        if place.rank == 0:
            _finish(run, training, data)
    finally:
        monitor.close()
        distributed.stop()
    return output / state.FINAL


def _load_data(
    data: DataOptions,
    tokenizer: Tokenizer,
    features: FeatureOptions,
    augmentation: AugmentOptions,
    monitor: Monitor,
) -> TrainingSet:
    if not data.train:
        raise TrainingError("data.train: name at least one manifest to train on")
    manifests = [(path, manifest.read(path)) for path in data.train]
    with monitor.bar("features") as on_progress:
        examples = load_training_set(
            manifests,
            tokenizer,
            features=features,
            augmentation=augmentation,
            options=data,
            on_progress=on_progress,
        )
    for line in examples.skipped:
        monitor.say(f"left out: {line}")
    monitor.say(
        f"{len(examples)} utterances, {examples.hours:.2f} h, {len(examples.skipped)} left out"
    )
    return examples


def _restore(
    output: Path,
    trained: Trained,
    optimizer: torch.optim.Optimizer,
    training: TrainingOptions,
    resume: bool,
    initial: str | Path | None,
    monitor: Monitor,
) -> Progress:
    """The progress to go on from: a saved one, or a new one from random or given weights."""
    last, plateau = output / state.LAST, output / state.PLATEAU
    if resume and last.exists():
        progress = state.load(last, trained.model, optimizer)
        if (
            is_finished(progress, training)
            and plateau.exists()
            and training.hours * 3600 > 1.1 * progress.elapsed
        ):
            progress = state.load(plateau, trained.model, optimizer)
        monitor.say(f"going on from step {progress.step}, {progress.elapsed / 3600:.2f} h")
        return progress
    if initial is not None:
        missing = state.initialise(trained.model, initial)
        monitor.say(f"weights from {initial}" + (f"; new: {', '.join(missing)}" if missing else ""))
    return Progress()


def _loop(
    run: Run, training: TrainingOptions, data: DataOptions, augmentation: AugmentOptions
) -> None:
    progress, monitor = run.progress, run.monitor
    saved = clock = time.monotonic()
    skipped_in_a_row = 0
    for group, steps_per_epoch in _groups(run, training, data):
        before = progress.cooldown_step
        plan_end(progress, training, steps_per_epoch)
        if before < 0 <= progress.cooldown_step and run.place.rank == 0:
            state.save(run.output / state.PLATEAU, run.model, run.optimizer, progress)
        if is_finished(progress, training):
            break
        rate = learning_rate(progress, training)
        for parameters in run.optimizer.param_groups:
            parameters["lr"] = rate
        finite = _step(run, group, training, augmentation)
        skipped_in_a_row = 0 if finite else skipped_in_a_row + 1
        if skipped_in_a_row > MAX_SKIPPED_IN_A_ROW:
            raise TrainingError(
                f"{skipped_in_a_row} steps in a row without a finite gradient: lower the learning rate"
            )
        progress.step += 1
        if progress.step % training.log_every == 0:
            monitor.log(progress, rate)
        if progress.step % training.validate_every == 0:
            _validate(run, training)
        progress.elapsed += time.monotonic() - clock
        clock = time.monotonic()
        progress.elapsed, progress.best_wer, progress.worse = run.place.agree(
            progress.elapsed, progress.best_wer, progress.worse
        )
        if run.place.rank == 0 and clock - saved >= training.save_minutes * 60:
            state.save(run.output / state.LAST, run.model, run.optimizer, progress)
            saved = clock


def _groups(
    run: Run, training: TrainingOptions, data: DataOptions
) -> Iterator[tuple[list[Batch], int]]:
    """The batches of every coming step, and the number of steps in an epoch, from where progress stands."""
    frames = [example.frames for example in run.data.examples]
    batch_frames = round(data.batch_seconds / run.data.hop_seconds)
    progress = run.progress
    while True:
        short_first = progress.epoch < training.short_first_epochs
        batches = epoch_batches(
            frames,
            batch_frames=batch_frames,
            seed=training.seed,
            epoch=progress.epoch,
            short_first=short_first,
        )
        steps_per_epoch = -(-len(batches) // training.accumulate)
        while progress.batch < len(batches):
            started = time.perf_counter()
            picks = batches[progress.batch : progress.batch + training.accumulate]
            group = [run.data.batch(run.place.share(batch)) for batch in picks]
            run.monitor.add(waited=time.perf_counter() - started)
            progress.batch += len(picks)
            yield group, steps_per_epoch
        progress.epoch += 1
        progress.batch = 0


def _step(
    run: Run, group: list[Batch], training: TrainingOptions, augmentation: AugmentOptions
) -> bool:
    """One update from a group of batches; False if the gradient was not finite and the step was skipped."""
    progress, place, monitor = run.progress, run.place, run.monitor
    seed = (training.seed * 1_000_003 + progress.step) * 1009 + place.rank
    torch.manual_seed(
        seed
    )  # dropout and masks are a function of the step, so that a resumed run repeats them
    generator = torch.Generator().manual_seed(seed)
    weights = loss_weights(progress.step, training)
    targets = distributed.total(sum((batch.token_lengths + 1).sum() for batch in group)).item()  # type: ignore[union-attr]
    run.model.train()
    run.optimizer.zero_grad()
    for batch in group:
        features = spec_augment(batch.features, batch.feature_lengths, augmentation, generator)
        losses = _losses(run, batch, features, weights, training)
        (losses.total / targets).backward()
        monitor.add(
            **{
                k: float(getattr(losses, k).detach())
                for k in ("attention", "ctc", "guide", "targets")
            }
        )
        monitor.add(audio_seconds=batch.seconds)
    distributed.add_gradients(run.model)
    norm = float(nn.utils.clip_grad_norm_(run.model.parameters(), training.clip))
    finite = norm == norm and norm != float("inf")
    if finite:
        run.optimizer.step()
        monitor.add(gradient_norm=norm, steps=1)
    else:
        progress.skipped_steps += 1
        names = ", ".join(name for batch in group for name in batch.ids[:3])
        monitor.say(f"step {progress.step}: gradient not finite, skipped ({names}, ...)")
    return finite


def _losses(
    run: Run, batch: Batch, features: torch.Tensor, weights: LossWeights, training: TrainingOptions
) -> Losses:
    device = run.place.device
    with torch.autocast(
        device.type, torch.bfloat16, enabled=_uses_bf16(training.precision, device)
    ):
        losses: Losses = run.model(
            features.to(device),
            batch.feature_lengths.to(device),
            batch.tokens.to(device),
            batch.token_lengths.to(device),
            weights,
        )
    return losses


def _uses_bf16(precision: str, device: torch.device) -> bool:
    """bf16 where asked for, or where the chip has matrix units for it: a CPU without them is slower in bf16."""
    if precision == "auto":
        return (
            torch.cuda.is_bf16_supported()
            if device.type == "cuda"
            else torch.cpu._is_amx_tile_supported()
        )
    return precision == "bf16"


def _validate(run: Run, training: TrainingOptions) -> None:
    """Measure on dev as `asr evaluate` does, keep a checkpoint, remember the best."""
    if run.place.rank != 0:
        return
    progress = run.progress
    row = run.validation.measure(run.trained)
    if row:
        run.monitor.write("dev", progress, row)
        run.monitor.say(
            f"step {progress.step}  dev  " + "  ".join(f"{k} {v:.3f}" for k, v in row.items())
        )
        picture = run.output / "attention" / f"step-{progress.step:07d}.png"
        run.validation.picture(run.trained, picture)
        run.monitor.picture("attention", picture, progress)
        progress.history.append({"step": progress.step} | row)
        better = row["wer"] < progress.best_wer
        progress.worse = 0 if better else progress.worse + 1
        progress.best_wer = min(progress.best_wer, row["wer"])
        if better:
            checkpoint.save(run.output / state.BEST, run.trained)
    state.keep_checkpoint(run.output, run.trained, progress.step, training.average)


def _finish(run: Run, training: TrainingOptions, data: DataOptions) -> None:
    """Save the state, and as the final model the best on dev of: the last, the best, the mean of the last ones."""
    progress, output = run.progress, run.output
    state.save(output / state.LAST, run.model, run.optimizer, progress)
    state.keep_checkpoint(output, run.trained, progress.step, training.average)
    candidates = {"last": run.trained, "average": checkpoint.average(state.checkpoints(output))}
    if (output / state.BEST).exists():
        candidates["best"] = checkpoint.load(output / state.BEST)
    rows = {name: run.validation.measure(trained) for name, trained in candidates.items()}
    chosen = min(rows, key=lambda name: rows[name].get("wer", 0.0))
    for name, row in rows.items():
        run.monitor.say(f"{name}  dev  " + "  ".join(f"{k} {v:.3f}" for k, v in row.items()))
    info = state.describe(progress, run.data.hours, data.train) | {
        "chosen": chosen,
        "dev": rows[chosen],
    }
    final = candidates[chosen]
    checkpoint.save(
        output / state.FINAL, Trained(final.model, final.tokenizer, final.features, info)
    )
    run.monitor.say(f"model: {output / state.FINAL} ({chosen})")

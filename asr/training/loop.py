"""The training loop, to be read from top to bottom: epochs, steps, validations, checkpoints, the final average."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from asr import checkpoint
from asr.augment import AugmentOptions, spec_augment, warp_frequencies
from asr.batching import Batch, DataOptions
from asr.errors import TrainingError
from asr.features import FeatureOptions
from asr.model import Losses, ModelOptions
from asr.training import distributed, state
from asr.training.interrupt import alone_in, on_interrupt, terminable
from asr.training.monitor import Monitor
from asr.training.run import Run, compare_data, hear_all, new_model, prepare, restore
from asr.training.schedule import (
    TrainingOptions,
    end,
    fraction_done,
    is_finished,
    learning_rate,
    loss_weights,
    plan_end,
)
from asr.training.spelling import SpellingOptions

MAX_SKIPPED_IN_A_ROW = 20
SUMS = ("attention", "ctc", "guide", "phonemes", "targets", "total")  # of Losses, for the log


def train(  # noqa: PLR0913 - one parameter a table of a recipe, and one an option of the command
    output: str | Path,
    *,
    model: ModelOptions,
    data: DataOptions,
    training: TrainingOptions,
    features: FeatureOptions,
    augmentation: AugmentOptions,
    spelling: SpellingOptions | None = None,
    resume: bool = True,
    initial: str | Path | None = None,
    device: str = "cpu",
) -> Path:
    """Train until the planned end and return the path of the final model, `output`/model.pt.

    Goes on from `output`/last.pt if that is there and `resume`; otherwise starts from random weights (training.seed),
    or from the fitting weights of the model `initial`. Under torchrun each process trains on its share of every
    batch. Ctrl-C or SIGTERM ends it after the step that runs, with the state saved, and raises KeyboardInterrupt.
    Raises AsrError with one clear line where options, manifests or checkpoints cannot be used, and where another
    training writes to `output`.
    """
    output, spelling = Path(output), spelling or SpellingOptions()
    if spelling.texts and not training.speller_alone:
        raise TrainingError("spelling.texts: only training.speller_alone reads them")
    place = distributed.start(device)
    with ExitStack() as stack:
        stack.callback(distributed.stop)
        if place.rank == 0:
            stack.enter_context(alone_in(output))
        monitor = Monitor(output if place.rank == 0 else None)
        stack.callback(monitor.close)
        trained = new_model(model, features, training.seed, place.device)
        with terminable():
            run = prepare(
                trained,
                output,
                place,
                monitor,
                data=data,
                training=training,
                augmentation=augmentation,
            )
        restore(run, training, data, resume=resume, initial=initial)
        if training.speller_alone:
            with terminable():
                hear_all(run, training, data, augmentation, spelling)
        compare_data(run)
        monitor.begin(run.progress.step)
        with on_interrupt() as interrupted:
            _loop(run, training, data, augmentation, interrupted)
        if run.writes:
            _finish(run, training, data)
    return output / state.FINAL


def _loop(
    run: Run,
    training: TrainingOptions,
    data: DataOptions,
    augmentation: AugmentOptions,
    interrupted: Callable[[], bool],
) -> None:
    progress = run.progress
    saved = clock = time.monotonic()
    skipped_in_a_row = 0
    for group, steps_per_epoch in _groups(run, training, data):
        if plan_end(progress, training, steps_per_epoch):
            run.save(state.PLATEAU)
        if is_finished(progress, training):
            break
        rate = learning_rate(progress, training)
        for parameters in run.optimizer.param_groups:
            parameters["lr"] = rate
        heard = progress.audio_seconds
        finite = _step(run, group, training, augmentation)
        skipped_in_a_row = 0 if finite else skipped_in_a_row + 1
        if skipped_in_a_row > MAX_SKIPPED_IN_A_ROW:
            raise TrainingError(
                f"{skipped_in_a_row} steps in a row without a finite gradient: lower the learning rate"
            )
        progress.step += 1
        progress.batch += training.accumulate
        done = fraction_done(progress, training, steps_per_epoch)
        run.monitor.show(progress, done, progress.audio_seconds - heard)
        if progress.step % training.log_every == 0:
            run.monitor.log(progress, rate)
        if progress.step % training.validate_every == 0:
            _validate(run, training)
        progress.elapsed += time.monotonic() - clock
        clock = time.monotonic()
        progress.elapsed, progress.best_wer, worse, stop = run.place.agree(
            progress.elapsed, progress.best_wer, progress.worse, interrupted()
        )
        progress.worse = int(worse)
        if stop or clock - saved >= training.save_minutes * 60:
            run.save(state.LAST)
            saved = clock
        if stop:
            run.monitor.say(f"stopped after step {progress.step}; run it again to go on from there")
            raise KeyboardInterrupt


def _groups(
    run: Run, training: TrainingOptions, data: DataOptions
) -> Iterator[tuple[list[Batch], int]]:
    """The batches of every coming step, this process's share of each, and the number of steps in an epoch.

    Begins where progress stands. A group may be empty: a batch may have fewer utterances than there are processes.
    """
    progress = run.progress
    while True:
        batches = run.batches(training, data, progress.epoch)
        steps_per_epoch = run.steps_per_epoch(training, data, progress.epoch)
        while progress.batch < len(batches):
            started = time.perf_counter()
            picks = batches[progress.batch : progress.batch + training.accumulate]
            shares = [run.place.share(batch) for batch in picks]
            group = [run.data.batch(share) for share in shares if share]
            run.monitor.add(waited=time.perf_counter() - started)
            yield group, steps_per_epoch
        progress.epoch += 1
        progress.batch = 0


def _step(
    run: Run, group: list[Batch], training: TrainingOptions, augmentation: AugmentOptions
) -> bool:
    """One update from a group of batches; False if the gradient was not finite and the step was skipped."""
    progress = run.progress
    seed = (training.seed * 1_000_003 + progress.step) * 1009 + run.place.rank
    torch.manual_seed(seed)  # dropout and masks follow from the step: a resumed run repeats them
    generator = torch.Generator().manual_seed(seed)
    targets, seconds = distributed.total(
        sum(int((batch.token_lengths + 1).sum()) for batch in group),
        sum(batch.seconds for batch in group),
    )
    progress.audio_seconds += seconds
    run.model.train()
    run.optimizer.zero_grad()
    sums = dict.fromkeys(SUMS, 0.0)
    suspects = []
    for batch in group:
        features = batch.features
        if progress.step >= training.masks_from and not training.speller_alone:
            width, options = augmentation.freq_warp, run.trained.features
            features = warp_frequencies(features, width, options, generator)
            features = spec_augment(features, batch.feature_lengths, augmentation, generator)
        losses = _losses(run, batch, features, training)
        if not losses.total.requires_grad:
            raise TrainingError(
                f"training.frozen: nothing that learns is in the loss of step {progress.step}"
            )
        (losses.total / targets).backward()
        values = torch.stack([getattr(losses, name).detach().float() for name in SUMS]).tolist()
        sums = {name: sums[name] + value for name, value in zip(SUMS, values, strict=True)}
        if not math.isfinite(sum(values)):
            suspects.append(batch)
    distributed.add_gradients(run.model)
    norm = float(nn.utils.clip_grad_norm_(run.model.parameters(), training.clip))
    run.monitor.add(audio_seconds=sum(batch.seconds for batch in group))
    if not math.isfinite(norm):
        _skip(run, suspects, group)
        return False
    run.optimizer.step()
    run.monitor.add(**sums, gradient_norm=norm, steps=1)
    return True


def _skip(run: Run, suspects: list[Batch], group: list[Batch]) -> None:
    """Count a step that changes nothing, and name the utterances whose loss, or else only gradient, is not finite."""
    run.progress.skipped_steps += 1
    if suspects or run.writes:
        names = ", ".join(name for batch in suspects or group for name in batch.ids)
        step = run.progress.step
        print(f"step {step}: gradient not finite, step skipped: {names}", file=sys.stderr)


def _losses(run: Run, batch: Batch, features: torch.Tensor, training: TrainingOptions) -> Losses:
    device = run.place.device
    with torch.autocast(device.type, torch.bfloat16, enabled=run.bf16):
        losses: Losses = run.model(
            features.to(device),
            batch.feature_lengths.to(device),
            batch.tokens.to(device),
            batch.token_lengths.to(device),
            loss_weights(run.progress.step, training),
            batch.phonemes.to(device),
            batch.phoneme_lengths.to(device),
        )
    return losses


def _validate(run: Run, training: TrainingOptions) -> None:
    """Measure on dev as `asr evaluate` does, or phonemes, keep a checkpoint, remember the best.

    While CTC learns alone there is nothing to measure: a decoder that has not begun writes letters without end.
    """
    if not run.writes:
        return
    progress = run.progress
    alone = training.phonemes_alone or training.speller_alone
    begun = alone or progress.step > training.ctc_alone_steps
    row = run.validation.measure(run.trained) if begun else {}
    if row:
        run.monitor.write("dev", progress, row)
        run.monitor.say(f"step {progress.step}  dev  {_in_words(row)}")
        if not training.phonemes_alone:
            picture = run.output / "attention" / f"step-{progress.step:07d}.png"
            run.validation.picture(run.trained, picture)
            run.monitor.picture("attention", picture, progress)
        progress.history.append({"step": progress.step} | row)
        rate = _error_rate(row)
        better = rate < progress.best_wer
        progress.worse = 0 if better else progress.worse + 1
        progress.best_wer = min(progress.best_wer, rate)
        if better:
            checkpoint.save(run.output / state.BEST, run.trained)
    state.keep_checkpoint(run.output, run.trained, progress.step, training.average)


def _finish(run: Run, training: TrainingOptions, data: DataOptions) -> None:
    """Save the state, and as the final model the best on dev of: the last, the best, the mean of the last ones."""
    progress, output = run.progress, run.output
    end(progress)
    run.save(state.LAST)
    state.keep_checkpoint(output, run.trained, progress.step, training.average)
    candidates = {"last": run.trained, "average": checkpoint.average(state.checkpoints(output))}
    if (output / state.BEST).exists():
        candidates["best"] = checkpoint.load(output / state.BEST)
    rows = {name: run.validation.measure(trained) for name, trained in candidates.items()}
    chosen = min(rows, key=lambda name: _error_rate(rows[name]))
    for name, row in rows.items() if data.dev else ():
        run.monitor.say(f"{name}  dev  {_in_words(row)}")
    info = state.describe(progress, run.data.hours, data.train)
    info |= {"seed": training.seed, "chosen": chosen, "dev": rows[chosen]}
    checkpoint.save(output / state.FINAL, replace(candidates[chosen], info=info))
    run.monitor.say(f"model: {output / state.FINAL} ({chosen})")


def _error_rate(row: dict[str, float]) -> float:
    """What a model is chosen by: the first of what was measured, of words or phonemes; 0 where nothing was."""
    return next(iter(row.values()), 0.0)


def _in_words(row: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in row.items())

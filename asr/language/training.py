"""Texts and options in, a trained and measured language model out: the visible loop, read from the top."""

import hashlib
import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from asr import leaks, sentences
from asr.batching import epoch_batches
from asr.devices import checked_device, trains_in_bf16
from asr.errors import TrainingError
from asr.language.beginning import begin, begin_with
from asr.language.perplexity import of_lstm, padded, perplexity_of
from asr.lm_checkpoint import TrainedLm, load_lm, save_lm
from asr.model.lm import LanguageModel, LmOptions
from asr.options import check_range
from asr.tokenizer import Tokenizer
from asr.training import state
from asr.training.interrupt import alone_in, on_interrupt
from asr.training.monitor import Monitor
from asr.training.optimizer import Optimizer
from asr.training.optimizer import build as build_optimizer
from asr.training.schedule import (
    Progress,
    ScheduleOptions,
    check_end,
    end,
    fraction_done,
    goes_back,
    is_finished,
    learning_rate,
    plan_end,
)


@dataclass(frozen=True)
class TextOptions:
    """What a language model learns from and is measured on: texts (.gz or not) or manifests."""

    train: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()  # lines of them that are left out: "books.txt.gz:1200-5600"
    dev: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()  # training text that holds text of these, or of dev, is refused
    batch_tokens: int = 4000  # characters or words of a step; a sentence counts as a multiple of 32

    def __post_init__(self) -> None:
        check_range(self, "text", ("batch_tokens",), 1)


@dataclass(frozen=True)
class LmTrainingOptions(ScheduleOptions):
    """How a language model is trained."""

    learning_rate: float = 3e-3  # at its highest
    warmup_steps: int = 100
    cooldown: float = 0.4  # share of the training, its end, in which the rate falls linearly to 0
    save_minutes: float = 5.0  # at most this much work is lost when the process is killed


@dataclass
class _Run:
    trained: TrainedLm
    optimizer: Optimizer
    progress: Progress
    rows: list[list[int]]  # encoded training sentences
    dev: list[str]
    monitor: Monitor
    output: Path
    device: torch.device
    bf16: bool
    begun: str  # where its weights are from, if not random
    sums: dict[str, float]  # since the last log line: nats, targets, gradient_norm, steps

    @property
    def model(self) -> LanguageModel:
        return self.trained.model

    def save(self, name: str) -> None:
        tokens = self.trained.tokenizer.to_dict()
        state.save(self.output / name, self.model, self.optimizer, self.progress, tokens)


def train(
    output: str | Path,
    *,
    lm: LmOptions,
    text: TextOptions,
    training: LmTrainingOptions,
    resume: bool = True,
    initial: str | Path | None = None,
    device: str = "cpu",
) -> Path:
    """Train until the planned end and return the path of the final model, `output`/model.pt.

    Goes on from `output`/last.pt if that is there and `resume`; else it begins with random weights, or with the
    fitting weights and the words of the language model `initial`. Ctrl-C or SIGTERM ends it after the step that runs,
    with the state saved, and raises KeyboardInterrupt. Raises AsrError with one clear line where options, texts or
    checkpoints cannot be used, where the training text holds text of text.dev or text.exclude, and where another
    training writes to `output`.
    """
    output = Path(output)
    check_end(training, validates=bool(text.dev))
    with alone_in(output), closing(Monitor(output)) as monitor:
        run = _prepare(output, monitor, lm, text, training, initial, checked_device(device))
        _restore(run, text, training, resume)
        with on_interrupt() as interrupted:
            _loop(run, text, training, interrupted)
        _finish(run, text, training)
    return output / state.FINAL


def _prepare(
    output: Path,
    monitor: Monitor,
    lm: LmOptions,
    text: TextOptions,
    training: LmTrainingOptions,
    initial: str | Path | None,
    device: torch.device,
) -> _Run:
    if not text.train:
        raise TrainingError("text.train: name at least one text or manifest")
    found = sentences.read(text.train, text.skip)
    held_out = sentences.read(dict.fromkeys((*text.dev, *text.exclude)))
    leaks.refuse(found, held_out)
    dev = [sentence.text for sentence in sentences.read(text.dev)]
    words = sum(len(sentence.text.split()) for sentence in found)
    monitor.say(f"{len(found)} sentences, {words} words; {len(dev)} sentences of dev")
    texts = [sentence.text for sentence in found]
    torch.manual_seed(training.seed)
    begun = ""
    if initial is None:
        trained, rows = begin(lm, texts)
    else:
        trained, rows, new = begin_with(load_lm(initial), lm, texts)
        begun = f"weights from {initial}" + (f"; new: {', '.join(new)}" if new else "")
    model = trained.model.to(device)
    return _Run(
        trained,
        build_optimizer(model, training.optimizer),
        Progress(),
        rows,
        dev,
        monitor,
        output,
        device,
        trains_in_bf16(model, device),
        begun,
        {},
    )


def _restore(
    run: _Run,
    text: TextOptions,
    training: LmTrainingOptions,
    resume: bool,
) -> None:
    """Go on from the saved state, or begin with the random or the given weights."""

    def back(progress: Progress) -> bool:
        return goes_back(
            progress, training, len(_batches(run, text, training.seed, progress.epoch))
        )

    tokens = run.trained.tokenizer.to_dict()
    progress = state.resume(run.output, run.model, run.optimizer, back, tokens) if resume else None
    if progress is not None:
        run.progress = progress
        hours = progress.elapsed / 3600
        run.monitor.say(f"going on from step {run.progress.step}, {hours:.2f} h")
    else:
        for name in (state.LAST, state.PLATEAU, state.BEST):
            (run.output / name).unlink(missing_ok=True)
        if run.begun:
            run.monitor.say(run.begun)
    digest = hashlib.sha256(repr(run.rows).encode()).hexdigest()[:16]
    run.progress.data = run.progress.data or digest
    if run.progress.data != digest:
        run.monitor.say("its texts are not what it began with; --no-resume begins anew")
    for parameters in run.optimizer.param_groups:
        parameters["weight_decay"] = training.weight_decay
    run.monitor.begin(run.progress.step)


def _batches(run: _Run, text: TextOptions, seed: int, epoch: int) -> list[list[int]]:
    """The rows of each batch of an epoch."""
    batches = epoch_batches(
        [[len(row)] for row in run.rows],
        batch_frames=text.batch_tokens,
        seed=seed,
        epoch=epoch,
    )
    return [[index for index, _ in batch] for batch in batches]


def _loop(
    run: _Run, text: TextOptions, training: LmTrainingOptions, interrupted: Callable[[], bool]
) -> None:
    progress = run.progress
    saved = clock = time.monotonic()
    batches = _batches(run, text, training.seed, progress.epoch)
    while True:
        if plan_end(progress, training, len(batches)):
            run.save(state.PLATEAU)
        if is_finished(progress, training):
            break
        if progress.batch >= len(batches):
            progress.epoch, progress.batch = progress.epoch + 1, 0
            batches = _batches(run, text, training.seed, progress.epoch)
        rate = learning_rate(progress, training)
        for parameters in run.optimizer.param_groups:
            parameters["lr"] = rate
        rows = [run.rows[index] for index in batches[progress.batch]]
        _step(run, padded(rows).to(run.device), training)
        progress.step += 1
        progress.batch += 1
        _show(run, fraction_done(progress, training, len(batches)))
        if progress.step % training.log_every == 0:
            _log(run, rate)
        if progress.step % training.validate_every == 0:
            _validate(run)
        now = time.monotonic()
        progress.elapsed, clock = progress.elapsed + now - clock, now
        stop = interrupted()
        if stop or now - saved >= training.save_minutes * 60:
            run.save(state.LAST)
            saved = now
        if stop:
            run.monitor.say(f"stopped after step {progress.step}; run it again to go on from there")
            raise KeyboardInterrupt


def _step(run: _Run, tokens: Tensor, training: LmTrainingOptions) -> None:
    """One update from a batch of padded sentences (N, L)."""
    torch.manual_seed(training.seed * 1_000_003 + run.progress.step)  # a resumed run repeats it
    run.model.train()
    run.optimizer.zero_grad()
    targets = int((tokens[:, 1:] != Tokenizer.pad).sum())
    with torch.autocast(run.device.type, torch.bfloat16, enabled=run.bf16):
        nats = run.model.nats(tokens)
    (nats / targets).backward()
    norm = float(nn.utils.clip_grad_norm_(run.model.parameters(), training.clip))
    if not math.isfinite(norm):
        raise TrainingError(
            f"step {run.progress.step}: gradient not finite: lower training.learning_rate"
        )
    run.optimizer.step()
    values = {"nats": nats.item(), "targets": targets, "gradient_norm": norm, "steps": 1}
    run.sums = {name: run.sums.get(name, 0.0) + value for name, value in values.items()}


def _show(run: _Run, fraction: float) -> None:
    """Move the progress bar, where there is one."""
    if run.monitor.live is not None:
        perplexity = perplexity_of(run.sums["nats"], run.sums["targets"])
        progress = run.progress
        text = f"step {progress.step}  epoch {progress.epoch}  perplexity {perplexity:.3f}"
        run.monitor.live.update(run.monitor.live.task_ids[0], completed=fraction, description=text)


def _log(run: _Run, rate: float) -> None:
    """Show and keep the means since the last call, and the speed."""
    seconds = time.perf_counter() - run.monitor.started
    row = {
        "perplexity": perplexity_of(run.sums["nats"], run.sums["targets"]),
        "gradient_norm": run.sums["gradient_norm"] / run.sums["steps"],
        "learning_rate": rate,
        "tokens_per_second": run.sums["targets"] / seconds,
    }
    progress = run.progress
    run.monitor.write("train", progress, row)
    run.monitor.say(
        f"step {progress.step}  epoch {progress.epoch}  {progress.elapsed / 3600:.2f} h  "
        f"perplexity {row['perplexity']:.3f}  norm {row['gradient_norm']:.2f}  lr {rate:.2e}  "
        f"{row['tokens_per_second']:.0f} tokens/s"
    )
    run.sums.clear()
    run.monitor.started = time.perf_counter()


def _validate(run: _Run) -> None:
    """Measure on dev and remember the best."""
    if not run.dev:
        return
    row = _measure(run, run.trained)
    run.monitor.write("dev", run.progress, row)
    run.monitor.say(f"step {run.progress.step}  dev  {_in_words(row)}")
    progress = run.progress
    progress.history.append({"step": progress.step} | row)
    better = row["character"] < progress.best_wer
    progress.worse = 0 if better else progress.worse + 1
    if better:
        progress.best_wer = row["character"]
        save_lm(run.output / state.BEST, run.trained)


def _measure(run: _Run, trained: TrainedLm) -> dict[str, float]:
    mode = trained.model.training
    found = of_lstm(trained.model.eval(), trained.tokenizer, run.dev)
    trained.model.train(mode)
    return {"character": found.per_character, "word": found.per_word}


def _finish(run: _Run, text: TextOptions, training: LmTrainingOptions) -> None:
    """Save the state, and as the final model the better on dev of: the last and the best."""
    end(run.progress)
    run.save(state.LAST)
    batches = len(_batches(run, text, training.seed, run.progress.epoch))
    candidates = {"last": run.trained}
    if (run.output / state.BEST).exists():
        candidates["best"] = load_lm(run.output / state.BEST, device=run.device)
    rows = {name: _measure(run, trained) if run.dev else {} for name, trained in candidates.items()}
    chosen = min(rows, key=lambda name: rows[name].get("character", 0.0))
    for name, row in rows.items():
        if row:
            run.monitor.say(f"{name}  dev  {_in_words(row)}")
    info: dict[str, Any] = {
        "steps": run.progress.step,
        "epochs": round(run.progress.epoch + run.progress.batch / batches, 2),
        "training_hours": round(run.progress.elapsed / 3600, 3),
        "sentences": len(run.rows),
        "tokens": sum(len(row) - 1 for row in run.rows),
        "texts": [Path(path).name for path in text.train],
        "skip": list(text.skip),
        "seed": training.seed,
        "chosen": chosen,
        "dev": rows[chosen],
        "validations": run.progress.history,
    }
    model = candidates[chosen].model.eval()
    save_lm(run.output / state.FINAL, TrainedLm(model, run.trained.tokenizer, info), bits=16)
    run.monitor.say(f"model: {run.output / state.FINAL} ({chosen})")


def _in_words(row: dict[str, float]) -> str:
    return "  ".join(f"perplexity per {name} {value:.3f}" for name, value in row.items())

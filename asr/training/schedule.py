"""What changes while a model trains, as functions of the step: learning rate, loss weights, and when to stop."""

from dataclasses import dataclass, field
from typing import Any

from asr.errors import ConfigError, TrainingError
from asr.model import LossWeights
from asr.options import check_range

OPTIMIZERS = ("adamw", "muon")
PRECISIONS = ("auto", "bf16", "float32")
ENDS = ("hours", "epochs", "max_steps", "patience")
NEVER = 10**15  # a step


@dataclass(frozen=True)
class ScheduleOptions:
    """How any network is trained. The end is the first of max_steps, epochs and hours that is set (not 0)."""

    seed: int = 1
    max_steps: int = 0
    epochs: float = 0.0
    hours: float = 0.0  # of training time, validation included, the learning rate's decay included
    optimizer: str = "adamw"  # adamw | muon (asr.training.optimizer)
    learning_rate: float = 1e-3  # at its highest
    warmup_steps: int = 300  # linear from 0
    cooldown: float = 0.3  # share of the training, its end, in which the rate falls linearly to 0
    weight_decay: float = 0.01
    clip: float = 1.0  # largest norm of the gradient
    validate_every: int = 500  # steps
    patience: int = 0  # validations without a better result until it stops; 0 is never
    save_minutes: float = 10.0  # at most this much work is lost when the process is killed
    log_every: int = 50  # steps

    def __post_init__(self) -> None:
        """Refuse values out of range; raises ConfigError naming the option and what is allowed."""
        if self.optimizer not in OPTIMIZERS:
            raise ConfigError(
                f"training.optimizer {self.optimizer!r}: allowed are {', '.join(OPTIMIZERS)}"
            )
        for name, value in vars(self).items():
            if isinstance(value, int | float) and not 0 <= value < float("inf"):
                raise ConfigError(f"training.{name} {value}: must be 0 or more")
        check_range(self, "training", ("cooldown",), 0, 1)
        check_range(self, "training", ("validate_every", "log_every"), 1)
        if self.clip == 0:
            raise ConfigError(f"training.clip {self.clip}: must be above 0")


@dataclass(frozen=True)
class TrainingOptions(ScheduleOptions):
    """How a recognizer is trained."""

    accumulate: int = 1  # batches a step
    precision: str = "auto"  # auto (bf16 where the chip is faster in it) | bf16 | float32
    short_first_epochs: int = 1  # epochs in which the batches come in order of length
    masks_from: int = 1500  # step; before it SpecAugment is off, or CTC takes far longer to start
    ctc: float = 0.3  # share of CTC in the loss
    phonemes: float = (
        0.3  # weight of the phonemes' loss, where the model has such a head (model.phonemes)
    )
    crf: bool = False  # phonemes learn by CTC-CRF: against all texts, by a trigram of phonemes
    phonemes_alone: bool = False  # only what hears phonemes learns; dev measures their error rate
    speller_alone: bool = False  # only the speller learns (model.speller), from speech and text
    frozen: tuple[str, ...] = ()  # parts whose weights stay as they are, as "encoder.layers.0"
    ctc_alone_steps: int = 0  # at first only the encoder learns, by CTC: the decoder costs time
    label_smoothing: float = 0.1
    label_smoothing_from: int = 2000  # step; before it the alignment forms on hard targets
    guide: float = 1.0  # guided-attention penalty at the start
    guide_steps: int = 4000  # it falls linearly to 0 until this step
    guide_width: float = 0.1
    sampling: float = 0.0  # scheduled sampling: share of decoder inputs that are its own guesses
    sampling_from: int = 4000  # step
    validate_utterances: int = 200  # of the dev manifests, spread evenly; 0 is all
    average: int = 5  # last checkpoints whose mean is tried as the final model

    def __post_init__(self) -> None:
        """Refuse values out of range; raises ConfigError naming the option and what is allowed."""
        super().__post_init__()
        if self.precision not in PRECISIONS:
            raise ConfigError(
                f"training.precision {self.precision!r}: allowed are {', '.join(PRECISIONS)}"
            )
        check_range(self, "training", ("ctc", "label_smoothing", "sampling"), 0, 1)
        if self.phonemes_alone and not self.phonemes:
            raise ConfigError("training.phonemes 0: with phonemes_alone it must be above 0")
        if self.crf and (self.speller_alone or not self.phonemes):
            raise ConfigError(
                "training.crf: needs training.phonemes above 0, and no training.speller_alone"
            )
        if self.speller_alone and self.phonemes_alone:
            raise ConfigError(
                "training.phonemes_alone, speller_alone: only one of them learns alone"
            )
        if self.speller_alone and self.epochs:
            raise ConfigError("training.epochs: not with speller_alone; set hours or max_steps")
        check_range(self, "training", ("accumulate", "average"), 1)
        if self.guide_width == 0:
            raise ConfigError(f"training.guide_width {self.guide_width}: must be above 0")


@dataclass
class Progress:
    """How far a training is; all of it is in every checkpoint, so that it can go on exactly."""

    step: int = 0
    epoch: int = 0
    batch: int = 0  # next batch of the epoch
    elapsed: float = 0.0  # seconds of training so far
    audio_seconds: float = 0.0  # seen so far
    skipped_steps: int = 0  # with a gradient that was not finite
    cooldown_step: int = -1  # where the learning rate began to fall; -1 is not yet
    end_step: int = -1  # where it reaches 0; -1 if that is not yet or the hours decide
    best_wer: float = float("inf")  # on dev; of phonemes where they learn alone; a LM's perplexity
    worse: int = 0  # validations since the best
    history: list[dict[str, float]] = field(default_factory=list)  # of validations
    begun_with: dict[str, Any] = field(default_factory=dict)  # training of the model begun with
    data: str = ""  # digest of the speech or texts that it began with


def check_end(options: ScheduleOptions, *, validates: bool) -> None:
    """Raise TrainingError if nothing is set that ends the training; patience does only where something is validated."""
    ends = [name for name in ENDS if name != "patience" or validates]
    if options.patience and not validates and not any(getattr(options, name) for name in ends):
        raise TrainingError(
            "training.patience: without dev nothing is validated, so this training would never end"
        )
    if not any(getattr(options, name) for name in ends):
        names = ", ".join(f"training.{name}" for name in ENDS)
        raise TrainingError(f"this training would never end: set one of {names}")


def plan_end(progress: Progress, options: ScheduleOptions, steps_per_epoch: int) -> bool:
    """Fix, once it is due, where the learning rate begins to fall and where training ends; True if that is now."""
    last = _last_step(options, steps_per_epoch)
    by_steps = progress.step >= last - round(options.cooldown * last)
    by_clock = (
        options.hours > 0 and progress.elapsed >= (1 - options.cooldown) * options.hours * 3600
    )
    falling_throughout = progress.cooldown_step == 0  # it can be told another end at any time
    if falling_throughout or (by_steps and progress.end_step < 0):
        progress.end_step = last
    if progress.cooldown_step >= 0 or not (by_steps or by_clock):
        return False
    progress.cooldown_step = progress.step
    return True


def fraction_done(progress: Progress, options: ScheduleOptions, steps_per_epoch: int) -> float:
    """How much of the training is over, from 0 to 1; 0 where only patience will end it."""
    by_time = progress.elapsed / (options.hours * 3600) if options.hours else 0.0
    return min(1.0, max(by_time, progress.step / _last_step(options, steps_per_epoch)))


def is_longer(progress: Progress, options: ScheduleOptions, steps_per_epoch: int) -> bool:
    """Whether the options now ask for more, by at least a tenth, than a finished training has had."""
    last = _last_step(options, steps_per_epoch)
    longer = options.hours == 0 or options.hours * 3600 > 1.1 * progress.elapsed
    return longer and last > 1.1 * progress.end_step


def end(progress: Progress) -> None:
    """Note where a training has ended whose end the hours decided, so that more of them find it finished.

    One whose learning rate fell from its first step has no plateau to go back to: more hours train it on as it is.
    """
    if progress.end_step < 0 < progress.cooldown_step:
        progress.end_step = progress.step


def goes_back(progress: Progress, options: ScheduleOptions, steps_per_epoch: int) -> bool:
    """Whether a training that is resumed should go on from its plateau, since more of it is asked for than before.

    That is so where it is finished, or its learning rate falls towards an end by steps that is now too near, or has
    begun to fall though by the hours it is not yet time to; never where patience has ended it, which more of it would
    not change, nor where the rate has fallen from the first step.
    """
    if 0 < options.patience <= progress.worse or progress.cooldown_step == 0:
        return False
    before = progress.elapsed < (1 - options.cooldown) * options.hours * 3600
    too_early = progress.cooldown_step >= 0 > progress.end_step and before
    too_near = (
        progress.cooldown_step > 0 and progress.end_step >= 0 and (before or not options.hours)
    )
    over = is_finished(progress, options) or too_early or too_near
    return over and is_longer(progress, options, steps_per_epoch)


def _last_step(options: ScheduleOptions, steps_per_epoch: int) -> int:
    """The end that max_steps and epochs set; without either, a step that is never reached."""
    limits = [options.max_steps] if options.max_steps else []
    if options.epochs:
        limits.append(max(1, round(options.epochs * steps_per_epoch)))
    return min(limits, default=NEVER)


def learning_rate(progress: Progress, options: ScheduleOptions) -> float:
    """Warm-up, a plateau, and a linear fall to 0 (warmup-stable-decay), for the step about to be made.

    Where both steps and hours set an end, the one that has less left decides.
    """
    step = progress.step + 1
    rate = options.learning_rate * min(1.0, step / max(1, options.warmup_steps))
    if progress.cooldown_step < 0:
        return rate
    left = [1.0]
    if progress.end_step >= 0:
        length = progress.end_step - progress.cooldown_step
        left.append((progress.end_step - progress.step) / max(1, length))
    if options.hours > 0 and options.cooldown > 0:
        left.append((1 - progress.elapsed / (options.hours * 3600)) / options.cooldown)
    return rate * max(0.0, min(left))


def loss_weights(step: int, options: TrainingOptions) -> LossWeights:
    """The weights of the loss at a step."""
    guide = options.guide * max(0.0, 1 - step / options.guide_steps) if options.guide_steps else 0.0
    return LossWeights(
        ctc=1.0 if step < options.ctc_alone_steps else options.ctc,
        label_smoothing=options.label_smoothing if step >= options.label_smoothing_from else 0.0,
        guide=guide,
        guide_width=options.guide_width,
        sampling=options.sampling if step >= options.sampling_from else 0.0,
        phonemes=options.phonemes,
        phonemes_alone=options.phonemes_alone,
        speller_alone=options.speller_alone,
    )


def is_finished(progress: Progress, options: ScheduleOptions) -> bool:
    """Whether the planned end is reached, or the patience, or the time is over."""
    over_time = options.hours > 0 and progress.elapsed >= options.hours * 3600
    impatient = options.patience > 0 and progress.worse >= options.patience
    return over_time or impatient or 0 <= progress.end_step <= progress.step

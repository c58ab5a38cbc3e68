"""The whole state of a training as one file that can go on exactly, and the checkpoints it leaves behind."""

import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from asr import checkpoint, weights
from asr.checkpoint import Trained
from asr.errors import CheckpointError
from asr.files import atomic_write
from asr.model import Seq2Seq
from asr.model.encoder import EncoderLayer
from asr.training.optimizer import Optimizer
from asr.training.schedule import Progress

LAST = "last.pt"  # the whole state, for resuming
PLATEAU = (
    "plateau.pt"  # the whole state before the learning rate began to fall, for training longer
)
BEST = "best.pt"  # the model that dev has liked best so far
FINAL = "model.pt"
_STEP = re.compile(r"step-[0-9]+\.pt")


def save(
    path: Path,
    model: nn.Module,
    optimizer: Optimizer,
    progress: Progress,
    tokens: dict[str, Any] | None = None,
) -> None:
    """Write the whole state, complete or not at all; `tokens` says what the rows of the embedding stand for."""
    content = {
        "tokens": tokens,
        "weights": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "learning": _learning(model),
        "progress": asdict(progress),
    }
    with atomic_write(path, "wb") as file:
        torch.save(content, file)


def load(
    path: Path, model: nn.Module, optimizer: Optimizer, tokens: dict[str, Any] | None = None
) -> Progress:
    """Put the state in `path` into model and optimizer.

    Raises CheckpointError if it is of another network, of other tokens, or of a training in which other weights
    learn, or by another optimizer: an optimizer knows its weights by their order only.
    """
    content = checkpoint.read(path)
    try:
        if content.get("tokens") != tokens:
            raise ValueError("its tokens are others, as of other texts")
        model.load_state_dict(content["weights"])
        if "learning" not in content:
            raise ValueError("saved by an earlier version")
        if content["learning"] != _learning(model):
            raise ValueError("others of its weights learnt: see training.frozen, *_alone")
        if content["optimizer"].keys() != optimizer.state_dict().keys():
            raise ValueError("training.optimizer was another")
        optimizer.load_state_dict(content["optimizer"])
        return Progress(**content["progress"])
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        lines = str(error).splitlines()
        reason = lines[1].strip() if len(lines) > 1 else lines[0]  # the first says only "error(s)"
        raise CheckpointError(
            f"{path}: not the state of this training ({reason}); use another output folder or --no-resume"
        ) from error


def _learning(model: nn.Module) -> list[str]:
    """The names of the weights that learn."""
    return [name for name, weight in model.named_parameters() if weight.requires_grad]


def resume(
    output: Path,
    model: nn.Module,
    optimizer: Optimizer,
    goes_back: Callable[[Progress], bool],
    tokens: dict[str, Any] | None = None,
) -> Progress | None:
    """Put the last state in `output` into model and optimizer; None if there is none.

    Where `goes_back` says so of its progress, it is the state before the learning rate began to fall instead.
    """
    last, plateau = output / LAST, output / PLATEAU
    if not last.exists():
        return None
    progress = load(last, model, optimizer, tokens)
    if plateau.exists() and goes_back(progress):
        planned = load(plateau, model, optimizer, tokens)
        if progress.best_wer < planned.best_wer:  # the best is of the end that is given up
            (output / BEST).unlink(missing_ok=True)
            planned = replace(planned, best_wer=float("inf"), worse=0)
        return replace(planned, cooldown_step=-1, end_step=-1, data=planned.data or progress.data)
    return progress


def forget_after(output: Path, step: int) -> None:
    """Remove what an earlier run left in `output` that is not in the past of one at `step`; all, if that is 0."""
    for path in checkpoints(output):
        if int(path.stem.removeprefix("step-")) > step:
            path.unlink()
    if step == 0:
        for name in (LAST, PLATEAU, BEST):
            (output / name).unlink(missing_ok=True)


def initialise(model: Seq2Seq, path: str | Path) -> tuple[list[str], dict[str, Any]]:
    """Copy from a trained model all weights that fit; the names of the others, and what it says of its training.

    A residual layer of the encoder with a norm that it has not got begins as the identity, so that a deeper network
    begins as good. A head for phonemes that stood on layers which this network lacks is left out. The decoder of a
    speller that it has not got begins as its decoder.
    """
    trained = checkpoint.load(path)
    given = trained.model.state_dict()
    own = model.state_dict()
    fitting = weights.fitting(given, own)
    if len(trained.model.phoneme_layers) > len(model.phoneme_layers):
        fitting = {n: w for n, w in fitting.items() if not n.startswith("phonemes.")}
    fitting |= _begun_speller(own, given)
    if not fitting:
        raise CheckpointError(f"{path}: no weight of it fits this network")
    model.load_state_dict({**own, **fitting})
    for number, layer in enumerate(model.encoder.layers):
        given_layer = any(name.startswith(f"encoder.layers.{number}.") for name in fitting)
        if isinstance(layer, EncoderLayer) and layer.residual and not given_layer:
            layer.pass_through()
    info = {key: value for key, value in trained.info.items() if key != "validations"}
    return sorted(set(own) - set(fitting)), info


def _begun_speller(own: dict[str, Tensor], given: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a new speller takes of a model that has none: its decoder can spell already, but attends to other things."""
    prefix = "speller."
    if any(name.startswith(prefix) for name in given):
        return {}
    return {
        name: given[same]
        for name, weight in own.items()
        if name.startswith(f"{prefix}decoder.")
        and ".attention." not in name
        and (same := name.removeprefix(prefix)) in given
        and given[same].shape == weight.shape
    }


def keep_checkpoint(output: Path, trained: Trained, step: int, keep: int) -> None:
    """Save the model of this step and remove all but the last `keep` of them."""
    checkpoint.save(output / f"step-{step:07d}.pt", trained)
    for old in checkpoints(output)[:-keep]:
        old.unlink()


def checkpoints(output: Path) -> list[Path]:
    """The kept models of an output folder, oldest first."""
    return sorted(path for path in output.glob("step-*.pt") if _STEP.fullmatch(path.name))


def describe(progress: Progress, hours: float, manifests: tuple[str, ...]) -> dict[str, Any]:
    """What a model file says of its own training."""
    begun_with = {"begun_with": progress.begun_with} if progress.begun_with else {}
    return begun_with | {
        "steps": progress.step,
        "skipped_steps": progress.skipped_steps,
        "audio_hours": round(progress.audio_seconds / 3600, 1),
        "training_hours": round(progress.elapsed / 3600, 3),
        "data_hours": round(hours, 2),
        "manifests": [Path(m).name for m in manifests],
        "validations": progress.history,
    }

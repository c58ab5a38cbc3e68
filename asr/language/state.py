"""The whole state of a language model's training as one file that it can go on from exactly."""

from dataclasses import asdict
from pathlib import Path

import torch

from asr import checkpoint
from asr.errors import CheckpointError
from asr.files import atomic_write
from asr.model.lm import LanguageModel
from asr.training.schedule import Progress
from asr.training.state import BEST, FINAL, LAST, PLATEAU

__all__ = ["BEST", "FINAL", "LAST", "PLATEAU", "load_state", "save_state"]


def save_state(
    path: Path, model: LanguageModel, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    """Write the whole state, complete or not at all."""
    content = {
        "weights": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "progress": asdict(progress),
    }
    with atomic_write(path, "wb") as file:
        torch.save(content, file)


def load_state(path: Path, model: LanguageModel, optimizer: torch.optim.Optimizer) -> Progress:
    """Put the state in `path` into model and optimizer. Raises CheckpointError if it is of another network."""
    content = checkpoint.read(path)
    try:
        model.load_state_dict(content["weights"])
        optimizer.load_state_dict(content["optimizer"])
        return Progress(**content["progress"])
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: not the state of this network ({reason}); use another output folder or --no-resume"
        ) from error

"""Manifests and options in, a trained and measured model out: the visible loop and what it stands on."""

from asr.training.loop import train
from asr.training.schedule import TrainingOptions

__all__ = ["TrainingOptions", "train"]

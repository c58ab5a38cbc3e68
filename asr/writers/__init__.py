"""Transcripts as files: a `Transcript` in, the text of each format out, under names that cannot collide."""

from asr.writers.cues import PLAIN, Layout
from asr.writers.formats import WRITERS, Writer, chosen
from asr.writers.outputs import in_order, save_each

__all__ = ["PLAIN", "WRITERS", "Layout", "Writer", "chosen", "in_order", "save_each"]

"""The commands: arguments in, one call each, results on stdout, progress and errors on stderr.

One file a command; `base` has what they share. Nothing heavy is imported until a command needs it.
Exit status: 0 all done; 1 some of the files could not be used, the rest is done; 2 wrong arguments or input that
the whole job needs; 130 interrupted.
"""

from asr.cli import average, evaluate, export, info, listen, lm, prepare, train, transcribe
from asr.cli.base import app, main

__all__ = [
    "app",
    "average",
    "evaluate",
    "export",
    "info",
    "listen",
    "lm",
    "main",
    "prepare",
    "train",
    "transcribe",
]

"""A recognizer as the options of a command describe it: model, engine, and the search with what is added to it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from asr.errors import ConfigError

if TYPE_CHECKING:
    from asr.recognizer import Recognizer

GREEDY = typer.Option(
    False, "--greedy", help="Fastest: do not search, and leave the model's language models aside."
)
HOTWORDS = typer.Option(
    None,
    metavar="FILE",
    help="Text file of words or phrases, one a line, that are more likely than usual.",
)
ENGINE = typer.Option(
    None,
    help="What runs the network: torch, or onnx (an extra of the package); default: as the model.",
)
INT8 = typer.Option(
    False,
    "--int8",
    help="Run LSTM and linear layers in 8 bits, a little less exact; CPU only.",
)


@dataclass(frozen=True)
class Loading:
    """How to open a model; `model` None is the one in the package, `beam_size` None the default search's."""

    model: Path | None = None
    engine: str | None = None
    int8: bool = False
    greedy: bool = False
    beam_size: int | None = None
    hotwords: Path | None = None
    threads: int | None = None
    device: str = "cpu"


def open_recognizer(loading: Loading) -> "Recognizer":
    """Open the recognizer. Raises ConfigError or CheckpointError naming the option or file that is wrong."""
    if loading.greedy and loading.beam_size not in (None, 1):
        raise ConfigError(
            f"--greedy is beam size 1; --beam-size {loading.beam_size} is something else"
        )
    from asr.recognizer import load

    return load(
        loading.model,
        device=loading.device,
        beam_size=loading.beam_size,
        threads=loading.threads,
        search="greedy" if loading.greedy else None,
        engine=loading.engine,
        int8=loading.int8,
        hotwords=loading.hotwords,
    )

"""A recognizer as the options of a command describe it: model, engine, and the search with what is added to it."""

import hashlib
from dataclasses import dataclass, replace
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
    None, help="What runs the network: torch, or onnx (needs 'asr[onnx]'); default: as the model."
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
    if loading.threads is not None and loading.threads < 1:
        raise ConfigError(f"threads is {loading.threads}; it must be 1 or more")
    import torch

    from asr import checkpoint
    from asr.decoding import HotWords, Search
    from asr.export import open_engine
    from asr.recognizer import Recognizer, checked_device
    from asr.search_file import default_search

    if loading.threads is not None:
        torch.set_num_threads(loading.threads)
    device = checked_device(loading.device)
    path = loading.model or checkpoint.bundled()
    search, calibration = default_search(path)
    if loading.greedy:
        search = Search()
    if loading.beam_size is not None:
        search = replace(search, options=replace(search.options, beam_size=loading.beam_size))
    trained = open_engine(
        path, loading.engine, int8=loading.int8, threads=loading.threads, device=device
    )
    if loading.hotwords is not None:
        search = replace(search, hotwords=HotWords.load(loading.hotwords, trained.tokenizer))
    return Recognizer(
        trained, search=search, calibration=calibration, device=device, name=_name(path)
    )


def _name(path: Path) -> str:
    """What a transcript calls the model: its file's name and the begin of its SHA-256."""
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        digest.update(file.read_bytes())
    return f"{path.stem}-{digest.hexdigest()[:8]}"

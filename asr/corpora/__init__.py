"""A corpus on disk in, manifests (one a split), a summary and a list of unusable utterances out."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from asr import manifest
from asr.corpora import common_voice, csv_file, folder, kaldi_dir, librispeech, ljspeech, vctk
from asr.corpora.common import ALL, Prepared, Problem, hold_out
from asr.errors import CorpusError
from asr.files import atomic_write
from asr.manifest import Utterance

CORPORA: Mapping[str, Callable[[Path], Prepared]] = {
    "librispeech": librispeech.prepare,
    "ljspeech": ljspeech.prepare,
    "common_voice": common_voice.prepare,
    "vctk": vctk.prepare,
    "kaldi_dir": kaldi_dir.prepare,
    "folder": folder.prepare,
    "csv_file": csv_file.prepare,
}


@dataclass(frozen=True)
class SplitSummary:
    """What one written manifest holds; `speakers` 0 where they are unknown."""

    name: str
    manifest: Path
    utterances: int
    hours: float
    speakers: int


@dataclass(frozen=True)
class Summary:
    """The manifests that a preparation wrote, and what it had to leave out (also in `problems_file`)."""

    splits: list[SplitSummary]
    problems: list[Problem]
    problems_file: Path | None


def prepare(
    corpus: str,
    root: str | Path,
    output: str | Path,
    *,
    name: str | None = None,
    holdout: float | None = None,
    seed: int = 0,
) -> Summary:
    """Write the manifests of the corpus at `root` into the folder `output`, each whole or not at all.

    `corpus` is a key of CORPORA. Files are called <name>-<split>.jsonl, or <name>.jsonl where the corpus has no
    splits and nothing is held out; LibriSpeech's are called as its subsets. `name` is the corpus's or, for your own
    data, the folder's or file's. `holdout` (a fraction below 1, or a number of utterances) divides a corpus without
    splits into train and dev: see hold_out. Raises CorpusError.
    """
    root, output = Path(root), Path(output)
    if corpus not in CORPORA:
        raise CorpusError(f"corpus {corpus!r} is unknown; allowed are {', '.join(CORPORA)}")
    prepared = CORPORA[corpus](root)
    if not any(prepared.splits.values()):
        first = f"; the first problem: {prepared.problems[0]}" if prepared.problems else ""
        raise CorpusError(f"{root}: no usable utterance in this {corpus} corpus{first}")
    splits = prepared.splits if holdout is None else _divide(prepared.splits, holdout, seed)
    prefix = name or (_own_name(root) if corpus in ("kaldi_dir", "folder", "csv_file") else corpus)
    summaries = []
    for split, utterances in splits.items():
        file = (
            f"{split}.jsonl"
            if corpus == "librispeech" and name is None
            else _file_name(prefix, split)
        )
        manifest.write(output / file, utterances)
        summaries.append(_summarise(split, output / file, utterances))
    problems_file = output / f"{prefix}-problems.txt"
    return Summary(summaries, prepared.problems, _write_problems(problems_file, prepared.problems))


def print_summary(summary: Summary, file: TextIO | None = None, *, max_problems: int = 10) -> None:
    """Print a table of the manifests and the first problems to `file` (standard output)."""
    from rich import box
    from rich.console import Console
    from rich.table import Column, Table

    console = Console(file=file or sys.stdout, highlight=False, markup=False)
    columns = (Column("manifest", overflow="fold"), "utterances", "hours", "speakers")
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for split in summary.splits:
        speakers = str(split.speakers) if split.speakers else "unknown"
        table.add_row(str(split.manifest), f"{split.utterances:,}", f"{split.hours:.2f}", speakers)
    console.print(table)
    count = len(summary.problems)
    if count:
        message = f"{count:,} utterances cannot be used; all are named in {summary.problems_file}"
        console.print(message, soft_wrap=True)
    for problem in summary.problems[:max_problems]:
        console.print(f"  {problem}", soft_wrap=True)
    if count > max_problems:
        console.print(f"  and {count - max_problems:,} more")


def _divide(
    splits: dict[str, list[Utterance]], holdout: float, seed: int
) -> dict[str, list[Utterance]]:
    if list(splits) != [ALL]:
        raise CorpusError(
            f"holdout: this corpus has its own splits ({', '.join(splits)}); leave the option out"
        )
    train, dev = hold_out(splits[ALL], holdout, seed)
    return {"train": train, "dev": dev}


def _own_name(root: Path) -> str:
    """A folder's name, or a file's without its ending; `.` and `..` have the names of what they stand for."""
    path = Path(os.path.abspath(root))
    return path.name if path.is_dir() else path.stem


def _file_name(prefix: str, split: str) -> str:
    return f"{prefix}.jsonl" if split == ALL else f"{prefix}-{split}.jsonl"


def _summarise(name: str, path: Path, utterances: list[Utterance]) -> SplitSummary:
    hours = sum(utterance.duration for utterance in utterances) / 3600
    speakers = {utterance.speaker for utterance in utterances} - {None}
    return SplitSummary(name, path, len(utterances), hours, len(speakers))


def _write_problems(path: Path, problems: list[Problem]) -> Path | None:
    if not problems:
        path.unlink(missing_ok=True)  # of an earlier preparation, whose faults are mended
        return None
    with atomic_write(path) as file:
        file.writelines(f"{problem}\n" for problem in problems)
    return path

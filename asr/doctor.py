"""Manifests in; what is wrong or odd with their recordings and texts out, utterance by utterance, before training.

Nothing is changed or dropped: every finding is a Finding with the name of its check, its manifest and its utterance.
"""

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import combinations, pairwise
from pathlib import Path
from statistics import median
from typing import Any, TextIO

from asr import audio, manifest
from asr.corpora.common import with_progress
from asr.errors import AudioError
from asr.files import atomic_write
from asr.manifest import Utterance
from asr.text import ALPHABET, normalise

# Every check: whether it must be mended before training or scoring, and what it finds.
ERROR, WARNING = "error", "warning"
CHECKS: Mapping[str, tuple[str, str]] = {
    "unreadable": (
        ERROR,
        "audio that is missing, damaged, cut short, with NaN in it, or not audio",
    ),
    "wrong duration": (ERROR, "the manifest's duration is not that of the file"),
    "empty text": (ERROR, "nothing is left of the text once it is normalised"),
    "outside alphabet": (ERROR, "characters that the model cannot write, after normalising"),
    "duplicate id": (ERROR, "an id that stands twice in one manifest"),
    "too few frames": (ERROR, "more letters than encoder frames: CTC has no path"),
    "lost letters": (WARNING, "letters or digits that normalising drops"),
    "speaking rate": (
        WARNING,
        "characters per second that no reader reaches: a wrong or cut text or recording",
    ),
    "too long": (WARNING, "longer than training is meant to take in one piece"),
    "duplicate audio": (WARNING, "a recording that is used twice"),
    "duplicate utterance": (WARNING, "the same text and duration as another recording"),
    "speaker overlap": (WARNING, "a speaker of the same name in training and in held-out data"),
    "text overlap": (WARNING, "a sentence in training and in held-out data"),
}


@dataclass(frozen=True)
class DoctorOptions:
    """What counts as odd.

    The rates' range is fixed, not relative to the corpus: of 13,000 utterances read in six English corpora 99.9 %
    have 2.3 to 24.2 characters a second, pauses included, while what a robust deviation singles out in LibriSpeech
    are slow but right readings. 40 ms a frame is reduction 4 at 10 ms; LibriSpeech's longest utterance lasts 35 s.
    """

    min_characters_per_second: float = 2.0
    max_characters_per_second: float = 25.0
    max_seconds: float = 35.5
    frame_seconds: float = 0.04  # of the encoder level that CTC trains
    duration_tolerance_seconds: float = 0.1
    alphabet: str = ALPHABET
    open_audio: bool = True  # False: trust the manifests' durations, open no file


@dataclass(frozen=True)
class Finding:
    """One offender: `check` is a key of CHECKS, `id` the utterance, speaker or sentence that it is about."""

    check: str
    manifest: str
    id: str
    detail: str
    audio: str | None = None


@dataclass(frozen=True)
class ManifestReport:
    """One manifest in figures; seconds and hertz; `raw_characters` counts those outside the alphabet as written."""

    name: str
    utterances: int
    hours: float
    min_seconds: float
    median_seconds: float
    max_seconds: float
    median_characters_per_second: float
    speakers: int
    sample_rates: dict[int, int]
    raw_characters: dict[str, int]


@dataclass(frozen=True)
class Report:
    """The figures of each manifest and every finding, in the order of the manifests and utterances."""

    manifests: list[ManifestReport]
    findings: list[Finding]

    @property
    def ok(self) -> bool:
        """Whether nothing was found that must be mended; warnings are allowed."""
        return not any(CHECKS[finding.check][0] == ERROR for finding in self.findings)

    def count(self, check: str) -> int:
        """Return the number of findings of one check."""
        return sum(finding.check == check for finding in self.findings)


_Header = audio.AudioInfo | AudioError | None


def check_manifests(
    paths: Iterable[str | Path], *, options: DoctorOptions = DoctorOptions()
) -> Report:
    """Check manifest files together, by name without ending; raises ManifestError for one that cannot be read."""
    files = [Path(path) for path in paths]
    stems = Counter(file.stem for file in files)
    names = [file.stem if stems[file.stem] == 1 else str(file) for file in files]
    return check(
        {name: manifest.read(file) for name, file in zip(names, files, strict=True)},
        options=options,
    )


def check(
    manifests: Mapping[str, Sequence[Utterance]], *, options: DoctorOptions = DoctorOptions()
) -> Report:
    """Check manifests, by name, each for itself and all for what they share.

    Two manifests are compared for shared speakers and sentences unless both have "train" in their names.
    """
    figures, findings = [], []
    for name, utterances in manifests.items():
        texts = [normalise(utterance.text) for utterance in utterances]
        headers = _headers(utterances) if options.open_audio else [None] * len(utterances)
        figures.append(_figures(name, utterances, texts, headers, options.alphabet))
        for utterance, text, header in zip(utterances, texts, headers, strict=True):
            found = (
                *_check_audio(utterance, header, options),
                *_check_text(utterance, text, options),
            )
            findings += [
                Finding(kind, name, utterance.id, detail, str(utterance.audio))
                for kind, detail in found
            ]
    return Report(figures, [*findings, *_duplicates(manifests), *_overlaps(manifests)])


def print_report(report: Report, file: TextIO | None = None, *, max_findings: int = 5) -> None:
    """Print the figures, the checks' counts and the first findings of each check to `file` (standard output)."""
    from rich.console import Console

    console = Console(file=file or sys.stdout, highlight=False, markup=False)
    console.print(_table(report))
    raw = sum((Counter(entry.raw_characters) for entry in report.manifests), Counter())
    if raw:
        shown = "  ".join(f"{char!r} {count:,}" for char, count in raw.most_common(12))
        console.print(f"{len(raw)} characters outside the alphabet before normalising: {shown}")
    if not report.findings:
        console.print(f"all {len(CHECKS)} checks passed")
    for check_name, (level, meaning) in CHECKS.items():
        found = [finding for finding in report.findings if finding.check == check_name]
        if found:
            console.print(f"{level}: {check_name}: {len(found):,} ({meaning})", soft_wrap=True)
        for finding in found[:max_findings]:
            console.print(f"    {finding.manifest}: {finding.id}: {finding.detail}", soft_wrap=True)
        if len(found) > max_findings:
            console.print(f"    and {len(found) - max_findings:,} more")


def write_json(report: Report, path: str | Path) -> None:
    """Write the whole report, with every finding, as one JSON object."""
    with atomic_write(path) as file:
        json.dump({"ok": report.ok, **asdict(report)}, file, ensure_ascii=False, indent=1)
        file.write("\n")


def _table(report: Report) -> Any:
    from rich import box
    from rich.table import Column, Table

    columns = ["count", "hours", "seconds*", "chars/s", "speakers", "Hz"]
    named = (Column("manifest", overflow="fold"), *(Column(name, no_wrap=True) for name in columns))
    table = Table(*named, box=box.SIMPLE_HEAD, pad_edge=False, caption="* shortest/median/longest")
    for entry in report.manifests:
        table.add_row(
            entry.name,
            f"{entry.utterances:,}",
            f"{entry.hours:.2f}",
            f"{entry.min_seconds:.1f}/{entry.median_seconds:.1f}/{entry.max_seconds:.1f}",
            f"{entry.median_characters_per_second:.1f}",
            str(entry.speakers or "?"),
            ", ".join(str(rate) for rate in sorted(entry.sample_rates)) or "?",
        )
    return table


def _headers(utterances: Sequence[Utterance]) -> list[_Header]:
    with ThreadPoolExecutor(8) as pool:
        return list(with_progress(pool.map(_header, utterances), len(utterances)))


def _header(utterance: Utterance) -> _Header:
    """What the file says of itself, once all of it has been decoded: NaN and a cut end show only there."""
    try:
        header = audio.info(utterance.audio)
        for _ in audio.blocks(utterance.audio, seconds=60, sample_rate=header.sample_rate):
            pass
    except AudioError as error:
        return error
    return header


def _figures(
    name: str,
    utterances: Sequence[Utterance],
    texts: Sequence[str],
    headers: Sequence[_Header],
    alphabet: str,
) -> ManifestReport:
    seconds = sorted(utterance.duration for utterance in utterances) or [0.0]
    rates = [
        len(text) / u.duration for u, text in zip(utterances, texts, strict=True) if u.duration > 0
    ]
    characters = Counter(
        char for u in utterances for char in u.text.lower() if char not in alphabet
    )
    return ManifestReport(
        name=name,
        utterances=len(utterances),
        hours=sum(seconds) / 3600,
        min_seconds=seconds[0],
        median_seconds=median(seconds),
        max_seconds=seconds[-1],
        median_characters_per_second=median(rates or [0.0]),
        speakers=len({utterance.speaker for utterance in utterances} - {None}),
        sample_rates=dict(
            Counter(h.sample_rate for h in headers if isinstance(h, audio.AudioInfo))
        ),
        raw_characters=dict(characters.most_common()),
    )


def _check_audio(
    utterance: Utterance, header: _Header, options: DoctorOptions
) -> Iterator[tuple[str, str]]:
    if isinstance(header, AudioError):
        yield "unreadable", str(header).removeprefix(f"{utterance.audio}: ")
    stated = utterance.duration
    if not stated > 0:
        yield "wrong duration", f"{stated:g} s"
    elif (
        isinstance(header, audio.AudioInfo)
        and abs(header.duration - stated) > options.duration_tolerance_seconds
    ):
        yield (
            "wrong duration",
            f"{stated:.2f} s in the manifest, {header.duration:.2f} s in the file",
        )
    if stated > options.max_seconds:
        yield "too long", f"{stated:.1f} s, more than {options.max_seconds:g}"


def _check_text(
    utterance: Utterance, text: str, options: DoctorOptions
) -> Iterator[tuple[str, str]]:
    lost = {char for char in set(utterance.text) if char.isalnum() and not normalise(char)}
    if lost:
        yield "lost letters", f"{' '.join(sorted(lost))} in {utterance.text!r}"
    if not text:
        yield "empty text", f"text {utterance.text!r}"
        return
    if outside := set(text) - set(options.alphabet):
        yield "outside alphabet", f"{' '.join(sorted(outside))} in {text!r}"
    if not utterance.duration > 0:
        return
    rate = len(text) / utterance.duration
    if not options.min_characters_per_second <= rate <= options.max_characters_per_second:
        yield "speaking rate", f"{rate:.1f} characters/s: {text!r} in {utterance.duration:.2f} s"
    # Between two equal letters CTC needs a blank.
    needed = len(text) + sum(a == b for a, b in pairwise(text))
    frames = int(utterance.duration / options.frame_seconds)
    if needed > frames:
        yield "too few frames", f"{needed} needed, {frames} there: {text!r}"


def _duplicates(manifests: Mapping[str, Sequence[Utterance]]) -> Iterator[Finding]:
    by_audio: dict[str, str] = {}
    by_content: dict[tuple[str, float], str] = {}
    for name, utterances in manifests.items():
        ids: set[str] = set()
        for utterance in utterances:
            path, place = str(utterance.audio), f"{name}: {utterance.id}"
            content = (utterance.text, utterance.duration)
            if utterance.id in ids:
                yield Finding(
                    "duplicate id", name, utterance.id, "stands twice in this manifest", path
                )
            ids.add(utterance.id)
            if path in by_audio:
                yield Finding("duplicate audio", name, utterance.id, f"as {by_audio[path]}", path)
            elif content in by_content:
                yield Finding(
                    "duplicate utterance", name, utterance.id, f"as {by_content[content]}", path
                )
            by_audio.setdefault(path, place)
            by_content.setdefault(content, place)


def _overlaps(manifests: Mapping[str, Sequence[Utterance]]) -> Iterator[Finding]:
    speakers: dict[str, Counter[str]] = {}
    texts: dict[str, dict[str, list[str]]] = {}
    for name, utterances in manifests.items():
        speakers[name] = Counter(u.speaker for u in utterances if u.speaker is not None)
        texts[name] = defaultdict(list)
        for utterance in utterances:
            texts[name][normalise(utterance.text)].append(utterance.id)
    for first, second in combinations(manifests, 2):
        if "train" in first and "train" in second:
            continue
        if "train" in second:  # findings are about the held-out utterances
            first, second = second, first
        for speaker in sorted(speakers[first].keys() & speakers[second].keys()):
            detail = (
                f"{speakers[second][speaker]} utterances, {speakers[first][speaker]} in {first}"
            )
            yield Finding("speaker overlap", second, speaker, detail)
        for text in sorted(texts[first].keys() & texts[second].keys() - {""}):
            for id in texts[second][text]:
                yield Finding(
                    "text overlap", second, id, f"as {first}: {texts[first][text][0]}: {text!r}"
                )

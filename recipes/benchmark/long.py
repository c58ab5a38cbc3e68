"""How recordings of hours are transcribed: a manifest in, a table on stderr and one JSON line on stdout out.

Recordings of several lengths are made of the manifest's utterances, in its order and from its beginning again where it
ends, and written to a temporary folder. Each is transcribed in a process of its own, so that its peak memory is its
own; the clock starts when the model is loaded and has seen one short recording. The errors of the shortest recording
are compared with those of the same utterances one by one, and sounds that are no speech must give no text.

    python -m recipes.benchmark.long data/manifests/dev-clean.jsonl
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

RATE = 16_000
SHORT_SECONDS = 10.0
LEVELS = (1.0, 0.1, 0.01)

Waveform = np.ndarray


@dataclass(frozen=True)
class Settings:
    """What all measurements share."""

    model: str | None
    greedy: bool
    batch_seconds: float
    threads: int


@dataclass(frozen=True)
class Result:
    """One recording: its transcript and what it cost; for a short one the fastest of several runs."""

    seconds: float
    wall_seconds: float
    cpu_seconds: float
    real_time_factor: float  # wall
    cpu_factor: float  # CPU seconds a second of audio: what the wall clock says on an idle machine with one thread
    loaded_rss_mib: int  # before the recording
    peak_rss_mib: int
    segments: int
    words: int
    text: str


def measure(path: str, settings: Settings, repeats: int) -> Result:
    """Transcribe a recording; for a process of its own."""
    from asr.recognizer import load
    from recipes.benchmark.train_speed import peak_rss_mib

    search: Any = "greedy" if settings.greedy else None
    recognizer = load(settings.model, threads=settings.threads, search=search)
    list(recognizer.transcribe_each([speechlike()], batch_seconds=settings.batch_seconds))
    before, runs = peak_rss_mib(), []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        ((_, result),) = recognizer.transcribe_each([path], batch_seconds=settings.batch_seconds)
        runs.append((time.perf_counter() - wall, time.process_time() - cpu))
        if isinstance(result, Exception):
            raise result
    wall, cpu = (min(times) for times in zip(*runs, strict=True))
    return Result(
        round(result.duration, 2),
        round(wall, 3),
        round(cpu, 3),
        round(wall / result.duration, 5),
        round(cpu / result.duration, 5),
        before,
        peak_rss_mib(),
        len(result.segments),
        len(result.text.split()),
        result.text,
    )


def in_new_process(path: Path, settings: Settings, repeats: int = 1) -> Result:
    """The measurement by a process that has done nothing else."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure, str(path), settings, repeats).result()


def build(utterances: Sequence[Any], path: Path, seconds: float) -> list[str]:
    """Write utterances one after the other until there are `seconds`; their texts."""
    import soundfile

    from asr import audio

    texts, samples, number = [], 0, 0
    with soundfile.SoundFile(path, "w", RATE, 1, subtype="PCM_16") as file:
        while samples < seconds * RATE:
            utterance = utterances[number % len(utterances)]
            waveform = audio.read(utterance.audio, sample_rate=RATE)
            file.write(waveform)
            texts.append(utterance.text)
            samples += len(waveform)
            number += 1
    return texts


def errors(utterances: Sequence[Any], text: str, settings: Settings) -> dict[str, float]:
    """WER in percent of a recording made of `utterances`, and of the same one by one, whole and by their speech."""
    from asr import metrics
    from asr.errors import AsrError
    from asr.recognizer import load
    from asr.text import normalise

    search: Any = "greedy" if settings.greedy else None
    recognizer = load(settings.model, threads=settings.threads, search=search)
    references = [normalise(utterance.text) for utterance in utterances]
    found = {"joined": ([" ".join(references)], [normalise(text)])}
    for name, whole in (("one_by_one", True), ("one_by_one_by_speech", False)):
        results = recognizer.transcribe_batch([u.audio for u in utterances], whole=whole)
        texts = ["" if isinstance(r, AsrError) else normalise(r.text) for r in results]
        found[name] = (references, texts)
    return {
        f"wer_{name}": round(100 * metrics.total(metrics.word_counts(*pair)).rate, 2)
        for name, pair in found.items()
    }


def inventions(settings: Settings, seconds: float = 30.0) -> dict[str, list[str]]:
    """The texts of sounds that are no speech, at full level and 20 and 40 dB below."""
    from asr.recognizer import load

    search: Any = "greedy" if settings.greedy else None
    recognizer = load(settings.model, threads=settings.threads, search=search)
    return {
        name: [recognizer.transcribe((level * sound).astype(np.float32)).text for level in LEVELS]
        for name, sound in no_speech(seconds).items()
    }


def no_speech(seconds: float, seed: int = 1) -> dict[str, Waveform]:
    """Silence, noise, music and tones (S,), none louder than full scale."""
    rng, samples = np.random.default_rng(seed), round(seconds * RATE)
    time_ = np.arange(samples) / RATE
    white = rng.standard_normal(samples)
    slope = np.sqrt(np.maximum(np.arange(samples // 2 + 1), 1))
    sounds = {
        "silence": np.zeros(samples),
        "white noise": white,
        "pink noise": np.fft.irfft(np.fft.rfft(white) / slope, samples),
        "brown noise": np.fft.irfft(np.fft.rfft(white) / slope**2, samples),
        "noise in bursts": white * (1 - np.cos(2 * np.pi * 4 * time_)),
        "tone": np.sin(2 * np.pi * 440 * time_),
        "two tones": np.sin(2 * np.pi * 697 * time_) + np.sin(2 * np.pi * 1209 * time_),
        "sweep": np.sin(2 * np.pi * (100 + 60 * time_) * time_),
        "hum": np.sum([np.sin(2 * np.pi * 50 * n * time_) / n for n in range(1, 12)], axis=0),
        "chords": chords(time_),
        "drums": drums(time_, rng),
        "melody": melody(time_, rng),
    }
    sounds["band"] = sum(sounds[part] / np.abs(sounds[part]).max() for part in ("chords", "drums"))
    sounds["band"] = sounds["band"] + sounds["melody"] / np.abs(sounds["melody"]).max()
    return {n: 0.7 * s / max(float(np.abs(s).max()), 1e-9) for n, s in sounds.items()}


def chords(time_: Waveform) -> Waveform:
    """A chord a second, as of a piano, four in turn."""
    roots = np.array([[220, 277.2, 329.6], [294, 370, 440], [330, 415, 494], [247, 311, 370]])
    notes = roots[time_.astype(int) % len(roots)].T
    overtones = [np.sin(2 * np.pi * n * notes * time_).sum(0) / n**1.5 for n in range(1, 6)]
    return np.sum(overtones, axis=0) * np.exp(-1.5 * (time_ % 1))


def drums(time_: Waveform, rng: np.random.Generator) -> Waveform:
    """A bass drum twice a second and noise between."""
    bass = np.sin(2 * np.pi * 60 * (time_ % 0.5)) * np.exp(-12 * (time_ % 0.5))
    hat = rng.standard_normal(len(time_)) * np.exp(-40 * ((time_ + 0.25) % 0.5))
    return bass + 0.5 * hat


def melody(time_: Waveform, rng: np.random.Generator) -> Waveform:
    """Two notes a second with vibrato, in the range of a voice."""
    notes = 330 * 2 ** (rng.integers(-5, 8, int(2 * time_[-1]) + 1) / 12)
    pitch = notes[(2 * time_).astype(int)] * (1 + 0.01 * np.sin(2 * np.pi * 5.5 * time_))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    swell = np.sin(np.pi * (2 * time_ % 1))
    return swell * np.sum([np.sin(n * phase) / n for n in range(1, 8)], axis=0)


def speechlike() -> Waveform:
    """A second of something to warm up with."""
    return np.random.default_rng(0).standard_normal(RATE).astype(np.float32) / 10


def table(results: Sequence[Result]) -> str:
    """The results for people."""
    head = "    audio s   wall s    CPU s      RTF  CPU RTF  loaded MiB  peak MiB  segments   words"
    lines = [
        f"{r.seconds:11.1f}  {r.wall_seconds:7.1f}  {r.cpu_seconds:7.1f}  {r.real_time_factor:7.4f}"
        f"  {r.cpu_factor:7.4f}  {r.loaded_rss_mib:10d}  {r.peak_rss_mib:8d}  {r.segments:8d}  {r.words:6d}"
        for r in results
    ]
    return "\n".join([head, *lines])


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="How recordings of hours are transcribed.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("manifest", help="utterances to make recordings of")
    add("--model", help="model file; default: the one in the package")
    add("--greedy", action="store_true", help="greedy search, whatever the model's default")
    add("--minutes", type=float, nargs="+", default=[10, 60, 180], help="of the recordings")
    add("--batch-seconds", type=float, default=120.0, help="of audio decoded together")
    add("--threads", type=int, default=1, help="of torch")
    options = parser.parse_args(arguments)
    if min(*options.minutes, options.batch_seconds) <= 0 or options.threads < 1:
        parser.error("minutes and batch-seconds must be above 0, threads 1 or more")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table and the JSON line; the exit status."""
    options = parse(arguments)
    from asr import manifest
    from asr.errors import AsrError
    from recipes.benchmark.train_speed import machine

    settings = Settings(options.model, options.greedy, options.batch_seconds, options.threads)
    results = []
    try:
        utterances = manifest.read(options.manifest)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "recording.wav"
            short = min(utterances, key=lambda u: abs(u.duration - SHORT_SECONDS))
            build([short], path, short.duration / 2)
            results.append(in_new_process(path, settings, repeats=5))
            for number, minutes in enumerate(options.minutes):
                texts = build(utterances, path, 60 * minutes)
                results.append(in_new_process(path, settings))
                if number == 0:
                    said = [utterances[n % len(utterances)] for n in range(len(texts))]
                    rates = errors(said, results[-1].text, settings)
        invented = inventions(settings)
    except AsrError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(results), file=sys.stderr)
    print(f"WER in percent: {rates}", file=sys.stderr)
    heard = {name: texts for name, texts in invented.items() if any(texts)}
    print(f"no speech: {len(invented)} sounds, text from {heard or 'none'}", file=sys.stderr)
    values = {
        "benchmark": "long",
        **machine(),
        "manifest": options.manifest,
        **asdict(settings),
        "results": [{k: v for k, v in asdict(r).items() if k != "text"} for r in results],
        **rates,
        "invented": heard,
    }
    print(json.dumps(values))
    return 0


if __name__ == "__main__":
    sys.exit(main())

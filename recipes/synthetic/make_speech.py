"""Sentences of text files in, a synthetic speech corpus out: FLAC files at 16 kHz and a manifest to train on.

Every sentence has its own speaker, pace, noise, room and level, drawn from the seed and the sentence alone; so files
that are there are kept, an interrupted run goes on, and a longer one begins with what a shorter one made.
"""

import argparse
import functools
import hashlib
import multiprocessing
import os
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch

from asr import audio, augment, manifest
from asr.errors import AsrError, AudioError
from asr.files import atomic_write
from asr.manifest import Utterance
from asr.sentences import line_ranges
from asr.text import normalise
from recipes.synthetic import sentences, voices
from recipes.synthetic.voices import SAMPLE_RATE, SPEAKERS, Speaker, Waveform

SECONDS = (2.0, 16.0)  # of an utterance that is kept
AT_ONCE = 256  # sentences given to the workers before the hours are counted
Synthesise = Callable[..., Waveform]


@dataclass(frozen=True)
class Delivery:
    """How one sentence is spoken and heard."""

    id: str
    text: str
    speaker: Speaker
    pace: float  # factor on the voice's own speaking rate
    room_seconds: float | None  # reverberation time; None for none
    snr_db: float
    pink: bool
    level_db: float  # root mean square, below full scale
    seed: int


def draw(text: str, seed: int, speakers: Sequence[Speaker] = SPEAKERS) -> Delivery:
    """The delivery of a sentence: a function of the arguments."""
    digest = hashlib.sha256(f"{seed} {text}".encode()).hexdigest()
    rng = random.Random(digest)
    speaker = min(speakers, key=lambda speaker: _turn(speaker, digest))
    return Delivery(
        id=f"{speaker.name}-{digest[:12]}",
        text=text,
        speaker=speaker,
        pace=rng.uniform(0.88, 1.18),
        room_seconds=rng.uniform(0.15, 0.5) if rng.random() < 0.4 else None,
        snr_db=rng.uniform(15, 35),
        pink=rng.random() < 0.7,
        level_db=rng.uniform(-32, -18),
        seed=rng.getrandbits(48),
    )


def _turn(speaker: Speaker, digest: str) -> float:
    """The lowest takes the sentence: in proportion to the weights, and without one speaker only its own move on."""
    return random.Random(f"{speaker.name} {digest}").expovariate(speaker.weight)


def render(delivery: Delivery, synthesise: Synthesise = voices.speak) -> Waveform:
    """The sentence as it is heard, float32 (S,) at 16 kHz, within full scale."""
    speech = synthesise(
        delivery.text, delivery.speaker, pace=delivery.pace, seed=delivery.seed % 2**32
    )
    waveform = torch.from_numpy(np.ascontiguousarray(speech, np.float32))
    generator = torch.Generator().manual_seed(delivery.seed)
    if delivery.room_seconds is not None:
        waveform = augment.reverberate(waveform, generator, seconds=delivery.room_seconds)
    waveform = augment.add_noise(waveform, delivery.snr_db, generator, pink=delivery.pink)
    level = float(waveform.square().mean().sqrt())
    peak = float(waveform.abs().max())
    if level == 0:
        return waveform.numpy()
    gain = min(10 ** (delivery.level_db / 20) / level, 0.99 / peak)
    return (waveform * gain).numpy()


def make(
    delivery: Delivery, folder: Path, synthesise: Synthesise = voices.speak
) -> Utterance | str:
    """Write one utterance unless it is there, or say why the sentence is not used."""
    path = folder / delivery.speaker.name / f"{delivery.id}.flac"
    seconds = _seconds(path)
    if seconds is None:
        waveform = render(delivery, synthesise)
        seconds = len(waveform) / SAMPLE_RATE
        if not SECONDS[0] <= seconds <= SECONDS[1]:
            return "shorter than 2 s" if seconds < SECONDS[0] else "longer than 16 s"
        if not np.abs(waveform).max() > 0:
            return "silent"
        with atomic_write(path, "wb") as file:
            soundfile.write(file, waveform, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return Utterance(delivery.id, path, seconds, delivery.text, delivery.speaker.name)


def _seconds(path: Path) -> float | None:
    """The duration of a recording, None where there is none that can be read."""
    try:
        return audio.info(path).duration if path.exists() else None
    except AudioError:
        return None


def make_corpus(
    texts: Iterable[str],
    folder: str | Path,
    output: str | Path,
    *,
    hours: float,
    seed: int = 0,
    workers: int = 1,
    synthesise: Synthesise = voices.speak,
) -> tuple[list[Utterance], Counter[str]]:
    """Speak the sentences in order until there are `hours` of speech; then write the manifest `output`.

    Returns the utterances, and how many sentences were not used, by reason. The result does not depend on `workers`.
    """
    made: list[Utterance] = []
    unused: Counter[str] = Counter()
    seconds = 0.0
    work = functools.partial(make, folder=Path(folder), synthesise=synthesise)
    once = list({normalise(text): text for text in texts}.values())
    with _mapper(workers) as mapped:
        for start in range(0, len(once), AT_ONCE):
            for result in mapped(work, [draw(text, seed) for text in once[start:][:AT_ONCE]]):
                if isinstance(result, str):
                    unused[result] += 1
                elif seconds < hours * 3600:
                    made.append(result)
                    seconds += result.duration
            print(f"{seconds / 3600:.2f} of {hours:g} h, {len(made):,} files", file=sys.stderr)
            if seconds >= hours * 3600:
                break
    manifest.write(output, made)
    return made, unused


@contextmanager
def _mapper(workers: int) -> Iterator[Callable[..., Iterable[Utterance | str]]]:
    """A `map` over so many processes; over none where one is enough. Sums are rounded otherwise by several threads."""
    if workers == 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield map
        finally:
            torch.set_num_threads(threads)
        return
    # Forking after torch has started threads may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        yield functools.partial(pool.map, chunksize=8)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="recipes/synthetic/run.sh", description=(__doc__ or "").split("\n\n")[0]
    )
    add = functools.partial(parser.add_argument, default=[], nargs="+", type=Path, metavar="FILE")
    add("--lines", help="text files (.gz too) with one utterance a line")
    add("--books", help="text files (.gz too) of paragraphs, as Project Gutenberg's")
    add(
        "--exclude",
        required=True,
        help="manifests of all dev and test sets: no sentence of theirs is spoken",
    )
    add = parser.add_argument
    add("--skip", default=[], nargs="*", metavar="FILE:LINES", help="not spoken: book.txt:120-560")
    add("--folder", type=Path, default=Path("data/synthetic"), help="where the audio goes")
    add(
        "--output",
        type=Path,
        default=Path("data/manifests/synthetic-train.jsonl"),
        help="the manifest",
    )
    add("--hours", type=float, default=12.0, help="of speech (default: 12)")
    add("--seed", type=int, default=0, help="another seed, other sentences and voices (default: 0)")
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one a CPU)")
    options = parser.parse_args(arguments)
    if not options.lines and not options.books:
        parser.error("no text: give --lines or --books")
    if not options.hours > 0 or options.workers < 1:
        parser.error("--hours must be above 0 and --workers 1 or more")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see --help."""
    options = _arguments(arguments)
    started = time.monotonic()
    try:
        excluded = sentences.held_out(options.exclude)
        skip = defaultdict(list, line_ranges(options.skip, [*options.lines, *options.books]))
        found = [s for path in options.lines for s in sentences.read_lines(path, skip[path.name])]
        found += [s for path in options.books for s in sentences.read_books(path, skip[path.name])]
        chosen, dropped = sentences.choose(found, excluded, options.seed)
        print(
            f"{len(found):,} sentences, {len(chosen):,} to choose from;"
            f" {dropped:,} dropped: held-out text has them, or {sentences.SPAN_WORDS} words in a row of them",
            file=sys.stderr,
        )
        made, unused = make_corpus(
            chosen,
            options.folder,
            options.output,
            hours=options.hours,
            seed=options.seed,
            workers=options.workers,
        )
    except AsrError as error:
        sys.exit(f"error: {error}")
    hours = sum(u.duration for u in made) / 3600
    print(f"{options.output}: {len(made):,} utterances, {hours:.2f} h")
    for name, count in sorted(Counter(str(u.speaker) for u in made).items()):
        print(f"  {name}: {count:,}")
    for reason, count in sorted(unused.items()):
        print(f"not used: {count:,} {reason}", file=sys.stderr)
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
    if hours < options.hours:
        sys.exit(f"error: the text is enough for {hours:.2f} h only; give more text")


if __name__ == "__main__":
    main()

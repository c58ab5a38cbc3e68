"""`asr listen`: a microphone, a file or a pipe in, text at every pause out."""

import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import typer

from asr.cli.base import BEAM, MODEL, THREADS, app, note
from asr.cli.loading import GREEDY, Loading, open_recognizer
from asr.errors import AsrError, ConfigError
from asr.files import is_terminal

if TYPE_CHECKING:
    from asr.audio import Waveform
    from asr.listen import Heard, Listener


@app.command(epilog="Example: arecord -q -f S16_LE -r 16000 -t raw | asr listen --input -")
def listen(
    input_: str | None = typer.Option(
        None,
        "--input",
        metavar="FILE|-",
        help="Listen to a recording, or to wav or raw samples (16 bit, 16 kHz, mono) on the standard input, "
        "instead of the microphone.",
    ),
    paced: bool = typer.Option(
        False, "--paced", help="With --input: no faster than it was spoken, and tell the latency."
    ),
    microphone: str | None = typer.Option(None, help="Name or number of the device."),
    pause: float = typer.Option(0.5, help="Seconds of silence after which a text is final."),
    partial: float = typer.Option(
        0.5, help="Seconds between partial texts, shown where stdout is a terminal; 0: none."
    ),
    model: Path | None = MODEL,
    beam_size: int | None = BEAM,
    greedy: bool = GREEDY,
    threads: int | None = THREADS,
) -> None:
    """Write down what is said, a line at every pause; Ctrl-C ends it.

    The model hears a phrase as a whole, in both directions, so it cannot stream: a text is final only after a pause,
    some 2 s after the last word (with the bundled model on one core; 1 s with --greedy), after long phrases later. On a
    terminal the phrase so far is shown too, up to 1 s behind the voice (0.3 s with --greedy) and decoded anew each time
    by a narrower beam; its words still change.
    """
    from asr.listen import Listener, ListenOptions

    if paced and input_ is None:
        raise ConfigError("--paced: needs --input; a microphone is never faster")
    if microphone is not None and input_ is not None:
        raise ConfigError("--microphone, --input: only one of them can be listened to")
    shows = is_terminal(sys.stdout)
    options = ListenOptions(pause=pause, partial=partial if shows or paced else 0.0)
    loading = Loading(model, greedy=greedy, beam_size=beam_size, threads=threads)
    recognizer = open_recognizer(loading)
    listener = Listener(recognizer, options)
    rate = recognizer.trained.features.sample_rate
    for heard in until_interrupted(listener, _source(input_, microphone, rate, paced)):
        _show(heard, shows)
    if paced or input_ is None:
        note(f"latency: {listener.latency}")


def _source(
    input_: str | None, microphone: str | None, rate: int, pace: bool
) -> "Iterator[Waveform]":
    from asr.listen import from_file, from_microphone, from_pipe, paced, stdin_pipe

    if input_ is None:
        device = int(microphone) if microphone and microphone.isdecimal() else microphone
        return from_microphone(rate, device)
    blocks = from_pipe(stdin_pipe(), rate) if input_ == "-" else from_file(input_, rate)
    return paced(blocks, rate) if pace else blocks


def until_interrupted(listener: "Listener", blocks: "Iterator[Waveform]") -> "Iterator[Heard]":
    """Yield all texts; Ctrl-C is the end of the sound, and what was said before it is still written down."""
    waiting = asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        again, asked = asked, True
        if waiting or again:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, ask)
    try:
        while not asked:
            try:
                waiting = True
                block = next(blocks, None)
            except KeyboardInterrupt:
                break
            except AsrError:  # the recording is damaged from here on
                yield from listener.finish()
                raise
            finally:
                waiting = False
            if block is None:
                break
            yield from listener.feed(block)
        yield from listener.finish()
    finally:
        signal.signal(signal.SIGINT, before)


def _show(heard: "Heard", terminal: bool) -> None:
    if not terminal:
        if heard.final:
            typer.echo(heard.text)
        return
    width = shutil.get_terminal_size().columns - 2
    text = heard.text if heard.final else "…" + heard.text[-width:]
    typer.echo(f"\r\x1b[K{text}", nl=heard.final)

"""Transcripts as files: a `Transcript` in, the text of one format out; one function a format, one table.

`WRITERS` maps a format's name, which is also its file ending, to its function. Segments without text appear in
json alone. `output_paths` names the files.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from asr.errors import AsrError, ConfigError
from asr.files import atomic_write
from asr.transcript import Transcript


def txt(transcript: Transcript) -> str:
    """Return the text, one segment a line; a transcript without speech is an empty line."""
    return "".join(f"{text}\n" for _, _, text in _spoken(transcript)) or "\n"


def srt(transcript: Transcript) -> str:
    """Return SubRip subtitles: numbered cues, times as 00:00:01,500."""
    return "\n".join(
        f"{number}\n{start} --> {end}\n{text}\n"
        for number, (start, end, text) in enumerate(_cues(transcript, ","), 1)
    )


def vtt(transcript: Transcript) -> str:
    """Return WebVTT subtitles: times as 00:00:01.500.

    The characters that WebVTT reserves in cue text are written as &amp; &lt; &gt;.
    """
    cues = [
        f"\n{start} --> {end}\n{_escape(text)}\n" for start, end, text in _cues(transcript, ".")
    ]
    return "WEBVTT\n" + "".join(cues)


def json_(transcript: Transcript) -> str:
    """Return everything that is known but the attention, as one indented JSON object; times in seconds."""
    return json.dumps(transcript.to_dict(), ensure_ascii=False, indent=2) + "\n"


def tsv(transcript: Transcript) -> str:
    """Return tab-separated start and end in whole milliseconds and text, a line a segment, below a header."""
    rows = [
        f"{_milliseconds(start)}\t{_milliseconds(end)}\t{text}\n"
        for start, end, text in _spoken(transcript)
    ]
    return "start\tend\ttext\n" + "".join(rows)


WRITERS: dict[str, Callable[[Transcript], str]] = {
    "txt": txt,
    "json": json_,
    "srt": srt,
    "vtt": vtt,
    "tsv": tsv,
}
"""Every format by its name, which is its file ending."""


def writer(name: str) -> Callable[[Transcript], str]:
    """Return the function that writes a format. Raises ConfigError, listing the formats, for an unknown name."""
    try:
        return WRITERS[name]
    except KeyError:
        raise ConfigError(f"format {name!r} is not known; choose {', '.join(WRITERS)}") from None


def output_paths(inputs: Sequence[str | Path], folder: str | Path, ending: str) -> list[Path]:
    """Return one path in `folder` for each of `inputs`, no two of which may be the same file.

    An output is named after its input: talk.wav gives talk.txt. Where two inputs would share a name that way,
    all outputs keep their input's ending (talk.wav.txt, talk.flac.txt), and where that is not enough, also the
    folders below the inputs' common parent (monday/talk.wav.txt, tuesday/talk.wav.txt). Capital letters make
    no difference between names, since some file systems see none.
    """
    paths = [Path(os.path.abspath(path)) for path in inputs]
    for relative in ([path.stem for path in paths], [path.name for path in paths]):
        if len({name.casefold() for name in relative}) == len(relative):
            return [Path(folder) / f"{name}.{ending}" for name in relative]
    parent = os.path.commonpath([path.parent for path in paths])
    return [Path(folder) / f"{path.relative_to(parent)}.{ending}" for path in paths]


def save_each(
    results: Iterable[tuple[int, Transcript | AsrError]],
    paths: Sequence[Path],
    write: Callable[[Transcript], str],
) -> Iterator[tuple[int, Transcript | AsrError]]:
    """Write each transcript to the path of its number, whole or not at all, and pass the results on.

    A transcript that cannot be written is passed on as an error that names the path; the others are not affected.
    """
    for index, result in results:
        saved: Transcript | AsrError = result
        if isinstance(result, Transcript):
            try:
                with atomic_write(paths[index]) as file:
                    file.write(write(result))
            except OSError as error:
                saved = AsrError(f"{paths[index]}: cannot be written: {error.strerror or error}")
        yield index, saved


def in_order(
    results: Iterable[tuple[int, Transcript | AsrError]],
) -> Iterator[tuple[int, Transcript | AsrError]]:
    """Pass results on in the order of their numbers 0, 1, ..., each as soon as all before it are there."""
    waiting: dict[int, Transcript | AsrError] = {}
    following = 0
    for index, result in results:
        waiting[index] = result
        while following in waiting:
            yield following, waiting.pop(following)
            following += 1


def _spoken(transcript: Transcript) -> list[tuple[float, float, str]]:
    """Return start, end and text of the segments that have a text, without line breaks or tabs in it.

    Either would end a cue or a field.
    """
    return [
        (segment.start, segment.end, text)
        for segment in transcript.segments
        if (text := " ".join(segment.text.split()))
    ]


def _cues(transcript: Transcript, decimal_mark: str) -> list[tuple[str, str, str]]:
    return [
        (_clock(start, decimal_mark), _clock(end, decimal_mark), text)
        for start, end, text in _spoken(transcript)
    ]


def _clock(seconds: float, decimal_mark: str) -> str:
    """Return seconds as 00:00:01.500, rounded to the millisecond before it is split into parts."""
    whole, milliseconds = divmod(_milliseconds(seconds), 1000)
    minutes, second = divmod(whole, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02d}:{minute:02d}:{second:02d}{decimal_mark}{milliseconds:03d}"


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

"""The formats: a `Transcript` in, the text of one format out; one function a format, one table.

Segments without text appear in json alone. Words whose times are not known share their segment's, by their letters.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from math import inf
from pathlib import PurePath

from asr.errors import ConfigError
from asr.transcript import Transcript
from asr.writers.cues import Layout, cues, spoken, words

Writer = Callable[[Transcript, Layout], str]


def txt(transcript: Transcript, layout: Layout) -> str:
    """Return the text, one segment a line; a transcript without speech is an empty line."""
    return "".join(f"{text}\n" for _, text in spoken(transcript)) or "\n"


def srt(transcript: Transcript, layout: Layout) -> str:
    """Return SubRip subtitles: numbered cues, times as 00:00:01,500."""
    return "\n".join(
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{cue.text}\n"
        for number, cue in enumerate(cues(transcript, layout, _no_arrow), 1)
    )


def vtt(transcript: Transcript, layout: Layout) -> str:
    """Return WebVTT subtitles: times as 00:00:01.500.

    The characters that WebVTT reserves in cue text are written as &amp; &lt; &gt;.
    """
    blocks = [
        f"\n{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{cue.text}\n"
        for cue in cues(transcript, layout, _escape)
    ]
    return "WEBVTT\n" + "".join(blocks)


def json_(transcript: Transcript, layout: Layout) -> str:
    """Return everything that is known but the attention, as one indented JSON object; times in seconds.

    asr/assets/transcript.schema.json describes it.
    """
    return json.dumps(transcript.to_dict(), ensure_ascii=False, allow_nan=False, indent=2) + "\n"


def tsv(transcript: Transcript, layout: Layout) -> str:
    """Return tab-separated start and end in whole milliseconds and text, a line a segment, below a header."""
    rows = [
        f"{_milliseconds(segment.start)}\t{_milliseconds(segment.end)}\t{text}\n"
        for segment, text in spoken(transcript)
    ]
    return "start\tend\ttext\n" + "".join(rows)


def ctm(transcript: Transcript, layout: Layout) -> str:
    """Return NIST's time-marked words: recording, channel, start and duration in seconds, word, confidence.

    The recording is its file's name without ending, blanks as underscores. The confidence is left out where there is
    none. Source: NIST SCTK, doc/infmts.htm.
    """
    name = "_".join(PurePath(transcript.audio or "audio").stem.split()) or "audio"
    number = {"left": 0, "right": 1}.get(transcript.channel or "left")
    channel = int((transcript.channel or "").removeprefix("channel")) if number is None else number
    rows = []
    for segment, _ in spoken(transcript):
        for word in words(segment):
            start, end = _milliseconds(word.start), _milliseconds(word.end)
            confidence = "" if word.confidence is None else f" {word.confidence:.3f}"
            text = "_".join(word.text.split())
            rows.append(
                f"{name} {channel + 1} {start / 1000:.3f} {(end - start) / 1000:.3f} {text}{confidence}\n"
            )
    return "".join(rows)


def lrc(transcript: Transcript, layout: Layout) -> str:
    """Return lyrics: a line a segment, or of `max_line_width` characters, after its start as [01:02.50].

    An empty line marks where what was said ends, if nothing follows within a second.
    """
    single = replace(layout, highlight_words=False)
    if layout.max_line_width is not None:
        single = replace(single, max_line_count=1)
    shown = list(cues(transcript, single))
    rows = []
    starts = [*(cue.start for cue in shown[1:]), inf]
    for cue, following in zip(shown, starts, strict=False):
        rows.append(f"[{_minutes(cue.start)}]{cue.text}\n")
        if following - cue.end > 1:
            rows.append(f"[{_minutes(cue.end)}]\n")
    return "".join(rows)


WRITERS: dict[str, Writer] = {
    "txt": txt,
    "srt": srt,
    "vtt": vtt,
    "json": json_,
    "tsv": tsv,
    "ctm": ctm,
    "lrc": lrc,
}
"""Every format by its name, which is its file ending."""


def chosen(names: str) -> dict[str, Writer]:
    """Return the writers of formats named as in "srt,json", or of all for "all".

    Raises ConfigError, listing the formats, for an unknown name.
    """
    wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if name != "all" and name not in WRITERS:
            known = ", ".join(WRITERS)
            raise ConfigError(
                f"format {name!r} is not known; choose {known}, several with commas, or all"
            )
    return {name: WRITERS[name] for name in (WRITERS if "all" in wanted else wanted)}


def _clock(seconds: float, decimal_mark: str) -> str:
    """Return seconds as 00:00:01.500, rounded to the millisecond before it is split into parts."""
    whole, milliseconds = divmod(_milliseconds(seconds), 1000)
    minutes, second = divmod(whole, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02d}:{minute:02d}:{second:02d}{decimal_mark}{milliseconds:03d}"


def _minutes(seconds: float) -> str:
    minutes, hundredths = divmod(round(seconds * 100), 6000)
    return f"{minutes:02d}:{hundredths // 100:02d}.{hundredths % 100:02d}"


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _no_arrow(text: str) -> str:
    """SubRip has no escapes: an arrow in a text would be read as a line of times."""
    return text.replace("-->", "->")

"""A transcript in; the cues of its subtitles out: which words are shown together, on which lines, from when to when.

The options and what they do are those of Whisper's command line.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise

from asr.errors import ConfigError
from asr.transcript import Segment, Transcript, Word

LONG_PAUSE = 3.0
"""Seconds from the begin of one word to that of the next that end a cue of joined segments."""


@dataclass(frozen=True)
class Layout:
    """How words become cues.

    Without `max_line_width` a segment is a cue of one line. With it, in characters, a line ends before the word that
    would make it longer; a cue has all lines of its segment. With `max_line_count` too, cues no longer keep to the
    segments: each is filled with as many lines, and ends before only at a pause of more than three seconds.
    `highlight_words` writes a cue once for each of its words, with that word underlined while it is spoken.
    """

    max_line_width: int | None = None
    max_line_count: int | None = None
    highlight_words: bool = False

    def __post_init__(self) -> None:
        for name in ("max_line_width", "max_line_count"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; it must be 1 or more")


PLAIN = Layout()


@dataclass(frozen=True)
class Cue:
    """What is shown from `start` to `end`; `text` may have several lines."""

    start: float
    end: float
    text: str


Lines = list[list[Word]]


def spoken(transcript: Transcript) -> list[tuple[Segment, str]]:
    """Return the segments that have a text, and that text without line breaks or tabs, which would end a field."""
    found = [(segment, " ".join(segment.text.split())) for segment in transcript.segments]
    return [(segment, text) for segment, text in found if text]


def words(segment: Segment) -> list[Word]:
    """Return a segment's words; those without known times share the segment's by the number of their letters."""
    if segment.words:
        return list(segment.words)
    texts = segment.text.split()
    letters = list(accumulate((len(text) for text in texts), initial=0))
    second = (segment.end - segment.start) / max(1, letters[-1])
    times = [*(segment.start + second * count for count in letters[:-1]), segment.end]
    return [
        Word(text, start, end) for text, (start, end) in zip(texts, pairwise(times), strict=True)
    ]


def cues(
    transcript: Transcript, layout: Layout, escape: Callable[[str], str] = str
) -> Iterator[Cue]:
    """Yield the cues in order; `escape` is applied to the text of each word."""
    for lines in _grouped(transcript, layout):
        shown = [[escape(" ".join(word.text.split())) for word in line] for line in lines]
        flat = [word for line in lines for word in line]
        if layout.highlight_words:
            yield from _highlighted(flat, shown)
        else:
            yield Cue(flat[0].start, flat[-1].end, _joined(shown))


def _grouped(transcript: Transcript, layout: Layout) -> Iterator[Lines]:
    """Yield the words of each cue by lines, never empty."""
    width, count = layout.max_line_width, layout.max_line_count
    across = width is not None and count is not None
    lines: Lines = []
    for segment, _ in spoken(transcript):
        if lines and not across:
            yield lines
            lines = []
        for word in words(segment):
            pause = across and lines and word.start - lines[-1][-1].start > LONG_PAUSE
            if lines and not pause and (width is None or _length([*lines[-1], word]) <= width):
                lines[-1].append(word)
            elif lines and (pause or (across and len(lines) == count)):
                yield lines
                lines = [[word]]
            else:
                lines.append([word])
    if lines:
        yield lines


def _length(line: list[Word]) -> int:
    return sum(len(word.text) for word in line) + len(line) - 1


def _highlighted(flat: list[Word], shown: list[list[str]]) -> Iterator[Cue]:
    """Yield the cue with each word underlined in turn, and plain while none is spoken."""
    last = flat[0].start
    places = [(row, column) for row, line in enumerate(shown) for column in range(len(line))]
    for word, (row, column) in zip(flat, places, strict=True):
        if round(1000 * word.start) > round(1000 * last):
            yield Cue(last, word.start, _joined(shown))
        marked = [list(line) for line in shown]
        marked[row][column] = f"<u>{marked[row][column]}</u>"
        yield Cue(word.start, word.end, _joined(marked))
        last = word.end


def _joined(lines: list[list[str]]) -> str:
    return "\n".join(" ".join(line) for line in lines)

"""What was heard in the pieces of a recording in; its segments and its transcript, in its own seconds, out."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from asr.confidence import Calibration
from asr.decoding import Hypothesis
from asr.description import describe
from asr.errors import AsrError
from asr.pieces import Piece
from asr.recording import Reader
from asr.tokenizer import Tokenizer
from asr.transcript import Attention, Segment, Transcript
from asr.vad import VadOptions


@dataclass(frozen=True)
class Heard:
    """What a model makes of one waveform: hypotheses, best first, and CTC's log probabilities (F, V) if it has any."""

    hypotheses: list[Hypothesis]
    frame_seconds: float  # of a memory's step
    ctc_log_probs: Tensor | None = None


@dataclass(frozen=True)
class Decoded:
    """A piece's segment, which may have neither text nor failures, and whether its text is complete."""

    segment: Segment
    complete: bool

    @property
    def says_something(self) -> bool:
        """Whether there is a text, or a failure that explains why there is none."""
        return bool(self.segment.text or self.segment.failures)


def decoded(
    piece: Piece,
    heard: Heard,
    *,
    tokenizer: Tokenizer,
    calibration: Calibration | None = None,
) -> Decoded:
    """Describe the best hypothesis of a piece as a segment in the seconds of the whole recording.

    The segment lasts as long as the piece's speech, longer where its words do.
    """
    best, start, end = heard.hypotheses[0], piece.start, piece.end
    told = describe(best, heard.ctc_log_probs, tokenizer, heard.frame_seconds, calibration)

    def moved(item: Any) -> Any:  # a Word or a Failure; the last memory step may reach past the end
        begin = min(start + item.start, end)
        return replace(item, start=begin, end=max(begin, min(start + item.end, end)))

    words = tuple(map(moved, told.words))
    tokens = tuple(tokenizer.decode([token]) for token in best.tokens)
    segment = Segment(
        start=min([piece.speech[0], *(word.start for word in words[:1])]),
        end=max([piece.speech[1], *(word.end for word in words[-1:])]),
        text=told.text,
        words=words,
        confidence=told.confidence,
        failures=tuple(map(moved, told.failures)),
        attention=Attention(best.attention, tokens, heard.frame_seconds, start),
    )
    return Decoded(segment, best.ended)


@dataclass
class Assembly:
    """A recording on its way through, its pieces decoded in whatever order; `waiting` of them are still to come.

    `seconds` of it have been dealt with: decoded, or found before or between pieces to be silence.
    """

    index: int
    reader: Reader
    read: bool = False
    failed: bool = False
    waiting: int = 0
    seconds: float = 0.0
    reached: float = 0.0  # the end of the last piece
    segments: list[Segment] = field(default_factory=list)
    pieces: int = 0
    complete: bool = True
    attention: Attention | None = None

    def expect(self, piece: Piece) -> None:
        """Take note of a piece that is to be decoded."""
        self.waiting += 1
        self.seconds += piece.start - self.reached
        self.reached = piece.end

    def add(self, piece: Decoded, seconds: float, *, attention: bool) -> None:
        """Take in a decoded piece of so many seconds; `attention` keeps the segment's."""
        self.waiting -= 1
        self.seconds += seconds
        self.pieces += 1
        self.complete &= piece.complete
        self.attention = piece.segment.attention if self.pieces == 1 else None
        if piece.says_something:
            self.segments.append(kept(piece.segment, attention=attention))

    def transcript(self, **known: Any) -> Transcript:
        """Join the segments; `known` are the fields of the transcript that do not come from them."""
        segments = tuple(sorted(self.segments, key=lambda segment: segment.start))
        words = [word for segment in segments for word in segment.words]
        trusted = [word.confidence for word in words if word.confidence is not None]
        return Transcript(
            text=" ".join(segment.text for segment in segments if segment.text),
            segments=segments,
            duration=self.reader.duration,
            audio=self.reader.name,
            confidence=sum(trusted) / len(trusted) if trusted else None,
            complete=self.complete,
            attention=self.attention,
            **known,
        )


def events(
    assemblies: Iterable[Assembly], options: VadOptions, *, whole: bool
) -> Iterator[tuple[Assembly, Piece | AsrError | None]]:
    """Yield each recording's pieces, then None, or the error that ended it."""
    for assembly in assemblies:
        try:
            for piece in assembly.reader.pieces(options, whole=whole):
                assembly.expect(piece)
                yield assembly, piece
        except AsrError as error:
            assembly.failed = True
            yield assembly, error
        else:
            assembly.read = True
            yield assembly, None


def kept(segment: Segment, *, attention: bool) -> Segment:
    """Return the segment without its attention unless that is asked for: a long recording's would not fit."""
    return segment if attention else replace(segment, attention=None)

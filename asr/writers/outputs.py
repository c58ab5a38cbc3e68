"""Results in; files under their names out, each whole or not at all, and in the order of the inputs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from asr.errors import AsrError
from asr.files import atomic_write
from asr.transcript import Transcript
from asr.writers.cues import Layout
from asr.writers.formats import Writer

Result = Transcript | AsrError


def save_each(
    results: Iterable[tuple[int, Result]],
    stems: Sequence[Path],
    writers: Mapping[str, Writer],
    layout: Layout,
) -> Iterator[tuple[int, Result]]:
    """Write each transcript as the stem of its number in every format, whole or not at all, and pass the results on.

    A transcript that cannot be written is passed on as an error that names the path; the others are not affected.
    """
    for index, result in results:
        saved = result
        if isinstance(result, Transcript):
            for ending, write in writers.items():
                path = stems[index].with_name(f"{stems[index].name}.{ending}")
                try:
                    with atomic_write(path) as file:
                        file.write(write(result, layout))
                except OSError as error:
                    saved = AsrError(f"{path}: cannot be written: {error.strerror or error}")
                    break
        yield index, saved


def in_order(results: Iterable[tuple[int, Result]]) -> Iterator[tuple[int, Result]]:
    """Pass results on in the order of their numbers 0, 1, ..., each as soon as all before it are there.

    Those that wait are held without their attention, which is far larger than all the rest.
    """
    waiting: dict[int, Result] = {}
    following = 0
    for index, result in results:
        waiting[index] = _light(result)
        while following in waiting:
            yield following, waiting.pop(following)
            following += 1


def _light(result: Result) -> Result:
    if isinstance(result, AsrError):
        return result
    segments = tuple(replace(segment, attention=None) for segment in result.segments)
    return replace(result, attention=None, segments=segments)

"""Whole files or none: what is written appears under its name only once it is complete; and names by content."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import IO, Any, TextIO

_ASKING = Lock()  # the umask of a process can only be read by changing it


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    r"""Open a temporary file beside `path` that takes its place when the block ends without an error.

    `mode` is "w" (UTF-8 text; bytes of a file name that are not Unicode are written as JSON escapes them, \udcff) or
    "wb". Missing parent folders are made. A link is followed; a pipe or a device is written to as it stands. Raises
    OSError as `open` does; the temporary file is removed and an older `path` is left as it was.
    """
    text = ("utf-8", "backslashreplace", "")
    encoding, errors, newline = (None, None, None) if "b" in mode else text
    given = Path(path)  # /dev/stdout in a pipeline is a link to what has no path
    if given.exists() and not given.is_file() and not given.is_dir():
        with given.open(mode, encoding=encoding, errors=errors, newline=newline) as stream:
            yield stream
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".tmp"
    )
    try:
        with os.fdopen(descriptor, mode, encoding=encoding, errors=errors, newline=newline) as file:
            yield file
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def below(folder: Path, problems: list[OSError]) -> Iterator[Path]:
    """The files of a folder and of all below it, linked ones too but none twice, hidden ones left out.

    A folder's files come in alphabetical order. What cannot be listed is added to `problems`.
    """
    visited = set()
    for place, folders, files in os.walk(folder, onerror=problems.append, followlinks=True):
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in sorted(files) if not name.startswith("."))


def content_name(path: str | Path) -> str:
    """Return a name, talk-1a2b3c4d for talk.pt, that a file or folder with another content does not have."""
    path = Path(path)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        if file.is_file():
            digest.update(file.read_bytes())
    return f"{path.stem}-{digest.hexdigest()[:8]}"


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a standard stream is a terminal; one that is closed, which is None, is not."""
    return stream is not None and stream.isatty()


def _umask() -> int:
    with _ASKING:
        mask = os.umask(0)
        os.umask(mask)
    return mask

"""Whole files or none: what is written appears under its name only once it is complete; and names by content."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    r"""Open a temporary file beside `path` that takes its place when the block ends without an error.

    `mode` is "w" (UTF-8 text; bytes of a file name that are not Unicode are written as JSON escapes them, \udcff) or
    "wb". Missing parent folders are made. Raises OSError as `open` does; the temporary file is removed and an older
    `path` is left as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".tmp"
    )
    try:
        text = ("utf-8", "backslashreplace", "")
        encoding, errors, newline = (None, None, None) if "b" in mode else text
        with os.fdopen(descriptor, mode, encoding=encoding, errors=errors, newline=newline) as file:
            yield file
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def content_name(path: str | Path) -> str:
    """Return a name, talk-1a2b3c4d for talk.pt, that a file or folder with another content does not have."""
    path = Path(path)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        if file.is_file():
            digest.update(file.read_bytes())
    return f"{path.stem}-{digest.hexdigest()[:8]}"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

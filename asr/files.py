"""Whole files or none: what is written appears under its name only once it is complete."""

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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

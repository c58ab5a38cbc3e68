"""The name of a public archive in, its verified and extracted folder out; what was interrupted is taken up again.

An archive grows as NAME.part, gets its own name once its checksum is right, is extracted into a temporary folder and
moved to its place with a completion marker inside. So whatever is there under its own name is whole.
"""

import hashlib
import http.client
import os
import shutil
import ssl
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from asr.errors import CorpusError
from asr.files import is_terminal

MARKER = ".complete"
_CHUNK = 1 << 20
_MAX_PAUSE = 30.0  # seconds between two attempts
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Archive:
    """A public archive: `checksum` is "sha256:..." or "md5:..." or None, `folder` what it extracts to."""

    corpus: str
    url: str
    folder: str
    checksum: str | None


def _librispeech(number: int, subset: str, checksum: str) -> Archive:
    url = f"https://www.openslr.org/resources/{number}/{subset}.tar.gz"
    return Archive("librispeech", url, f"LibriSpeech/{subset}", checksum)


# SHA-256 of LibriSpeech and LJ Speech as torchaudio 2.11 pins them; MD5 of the mini sets as openslr.org publishes
# them (resources/31/md5sum.txt).
_SUMS = {
    "train-clean-100": "d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2",
    "train-clean-360": "146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf",
    "train-other-500": "ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2",
    "dev-clean": "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3",
    "dev-other": "12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365",
    "test-clean": "39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23",
    "test-other": "d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29",
}
ARCHIVES: Mapping[str, Archive] = {
    **{
        subset: _librispeech(12, subset, f"sha256:{checksum}") for subset, checksum in _SUMS.items()
    },
    "train-clean-5": _librispeech(31, "train-clean-5", "md5:5df7d4e78065366204ca6845bb08f490"),
    "dev-clean-2": _librispeech(31, "dev-clean-2", "md5:6d7ab67ac6a1d2c993d050e16d61080d"),
    "ljspeech": Archive(
        "ljspeech",
        "https://data.keithito.com/data/speech/LJSpeech-1.1.tar.bz2",
        "LJSpeech-1.1",
        "sha256:be1a30453f28eb8dd26af4101ae40cbf2c50413b1bb21936cbcdc6fae3de8aa5",
    ),
}


def download(
    name: str,
    root: str | Path,
    *,
    mirror: str | None = None,
    attempts: int = 5,
) -> Path:
    """Fetch, verify and extract the archive `name` (a key of ARCHIVES) into `root`; return the folder for `prepare`.

    Does nothing where that is done already. `mirror` is the URL of the folder that holds the archive elsewhere.
    An archive that is there already is verified and kept, one that was fetched is removed once it is extracted.
    `attempts` counts the failures in a row without a byte more. Raises CorpusError naming the URL or file.
    """
    if name not in ARCHIVES:
        raise CorpusError(f"download {name!r} is unknown; allowed are {', '.join(ARCHIVES)}")
    archive, root = ARCHIVES[name], Path(root)
    target = root / archive.folder
    corpus = target if archive.folder == PurePosixPath(archive.folder).name else target.parent
    if (target / MARKER).is_file():
        _say(f"{target}: complete already")
        return corpus
    if target.exists():
        raise CorpusError(
            f"{target}: there already, but not from a finished download; prepare it as it is or move it"
        )
    file = root / PurePosixPath(archive.url).name
    part = file.with_name(f"{file.name}.part")
    url = f"{mirror.rstrip('/')}/{file.name}" if mirror else archive.url
    try:
        root.mkdir(parents=True, exist_ok=True)
        if given := file.exists():
            verify(file, archive.checksum, url, remove=False)
        else:
            fetch(url, part, attempts=attempts)
            verify(part, archive.checksum, url, remove=True)
            os.replace(part, file)
        extract(file, root, archive.folder, note=f"{url} {archive.checksum or 'unverified'}\n")
        if given:
            _say(f"{file}: was there already, and stays")
        else:
            file.unlink()
    except OSError as error:
        raise CorpusError(f"{error.filename or root}: {error.strerror or error}") from error
    return corpus


def fetch(url: str, part: Path, *, attempts: int = 5, timeout: float = 60.0) -> None:
    """Download `url` to `part`, going on from what is there; raises CorpusError once `attempts` in a row got nothing.

    A server that ignores the range is read from the start.
    """
    if not url.startswith(("http://", "https://")):
        raise CorpusError(
            f"{url}: not a download; allowed are URLs that begin with http:// or https://"
        )
    _say(f"downloading {url}")
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _fetch_once(url, part, before, timeout)
            return
        except urllib.error.HTTPError as error:
            if error.code not in _RETRIED:
                raise CorpusError(f"{url}: HTTP status {error.code} {error.reason}") from error
            reason = f"HTTP status {error.code} {error.reason}"
        except urllib.error.URLError as error:
            reason = str(error.reason)
        except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
            reason = str(error) or type(error).__name__
        after = part.stat().st_size if part.exists() else 0
        failures = 1 if after > before else failures + 1
        if failures >= attempts:
            raise CorpusError(
                f"{url}: {reason}, {failures} times in a row; run again to go on from {after:,} bytes"
            )
        pause = min(2.0 ** (failures - 1), _MAX_PAUSE)
        _say(f"  {reason}; going on from {after:,} bytes in {pause:.0f} s")
        time.sleep(pause)


def verify(path: Path, checksum: str | None, url: str, *, remove: bool) -> None:
    """Compare a file's digest; raises CorpusError where it differs, and with `remove` takes the wrong file away."""
    if checksum is None:
        _say(f"{path}: no checksum is published for {url}: unverified")
        return
    algorithm, _, expected = checksum.partition(":")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if found != expected:
        advice = (
            "the wrong file was removed, run again to fetch it anew"
            if remove
            else "remove it to fetch it anew"
        )
        if remove:
            path.unlink()
        raise CorpusError(f"{path} ({url}): {algorithm} is {found}, expected {expected}; {advice}")


def extract(archive: Path, root: Path, folder: str, *, note: str = "") -> None:
    """Extract a tar archive and move its `folder`, with a completion marker holding `note`, into `root`.

    Files that the archive has beside `folder` come too where `root` has none of that name. Links, devices and paths
    that lead outside are refused: CorpusError, with nothing left behind.
    """
    if not hasattr(tarfile, "data_filter"):
        raise CorpusError("safe extraction needs Python 3.11.4 or later")
    temporary = root / f".extract-{archive.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)  # of an extraction that was killed
    temporary.mkdir()
    try:
        _say(f"extracting {archive}")
        with tarfile.open(archive) as tar:
            for member in tar:
                if not (member.isfile() or member.isdir()):
                    raise CorpusError(
                        f"{archive}: refused: {member.name} is a link or device, not a file"
                    )
                tar.extract(member, temporary, filter="data")
        source = temporary / folder
        if not source.is_dir():
            raise CorpusError(f"{archive}: no folder {folder} in it")
        (source / MARKER).write_text(note)
        (root / folder).parent.mkdir(parents=True, exist_ok=True)
        for path in sorted(source.parent.iterdir(), key=lambda path: path == source):
            destination = (root / folder).parent / path.name
            if path == source or not destination.exists():
                os.replace(path, destination)
    except tarfile.FilterError as error:
        raise CorpusError(f"{archive}: refused: {error}") from error
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise CorpusError(
            f"{archive}: damaged archive: {error}; remove it and run again"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fetch_once(url: str, part: Path, start: int, timeout: float) -> None:
    headers = {"User-Agent": "asr"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=timeout
        )
    except urllib.error.HTTPError as error:
        if error.code != 416 or not start:
            raise
        if (
            error.headers.get("Content-Range") != f"bytes */{start}"
        ):  # not what is there already, whole
            part.unlink()
            _fetch_once(url, part, 0, timeout)
        return
    with response:
        resumed = response.status == 206 and response.headers.get("Content-Range", "").startswith(
            f"bytes {start}-"
        )
        if response.status == 206 and not resumed:
            raise http.client.HTTPException("the server sent another range than asked for")
        start = start if resumed else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length and length.isdigit() else None
        with part.open("ab" if resumed else "wb") as file, _progress(start, total) as advance:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                advance(len(chunk))
    size = part.stat().st_size
    if total is not None and size < total:
        raise http.client.HTTPException(f"the connection ended after {size:,} of {total:,} bytes")


@contextmanager
def _progress(start: int, total: int | None) -> Iterator[Callable[[float], None]]:
    if not is_terminal(sys.stderr):
        yield lambda size: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("download", total=total, completed=start)
        yield lambda size: progress.advance(task, size)


def _say(message: str) -> None:
    print(message, file=sys.stderr)

"""Downloads against a server on this machine that misbehaves in every way that real ones do."""

import hashlib
import io
import random
import ssl
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from asr.corpora import download as module
from asr.corpora.download import ARCHIVES, MARKER, Archive, download, extract, fetch
from asr.errors import CorpusError

SUBSET = "LibriSpeech/train-clean-5"


class Server(ThreadingHTTPServer):
    """Serves `content` at any path but /missing; the switches make it break off, ignore ranges or fail."""

    content = b""
    break_after: int | None = None
    ignore_range = False
    failures: int = 0
    ranges: list[str | None]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/resources"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, asked = self.server, self.headers.get("Range")
        server.ranges.append(asked)
        if "missing" in self.path:
            return self.send_error(404)
        if server.failures:
            server.failures -= 1
            return self.send_error(503)
        start = (
            0
            if asked is None or server.ignore_range
            else int(asked.removeprefix("bytes=").rstrip("-"))
        )
        if asked and not server.ignore_range and start >= len(server.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.content)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        body = server.content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}"
            )
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.break_after])
        return None

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    with Server(("127.0.0.1", 0), Handler) as server:
        server.ranges = []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def _tar(members: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                tar.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


SPEECH = random.Random(0).randbytes(50_000)
GOOD = _tar(
    {
        f"{SUBSET}/19/198/19-198.trans.txt": b"19-198-0000 HELLO\n",
        f"{SUBSET}/19/198/19-198-0000.flac": SPEECH,
        "LibriSpeech/SPEAKERS.TXT": b"19 | F\n",
    }
)


@pytest.fixture
def archive(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server with a good archive that the table knows under the name "toy"."""
    server.content = GOOD
    checksum = f"sha256:{hashlib.sha256(GOOD).hexdigest()}"
    entry = Archive("librispeech", f"{server.url}/toy.tar.gz", SUBSET, checksum)
    monkeypatch.setattr(module, "ARCHIVES", {"toy": entry})
    return server


def _assert_complete(root: Path) -> None:
    assert (root / SUBSET / "19" / "198" / "19-198-0000.flac").read_bytes() == SPEECH
    assert "toy.tar.gz sha256:" in (root / SUBSET / MARKER).read_text()
    assert (root / "LibriSpeech" / "SPEAKERS.TXT").is_file()
    assert {path.name for path in root.iterdir()} == {"LibriSpeech"}


def test_a_download_is_verified_extracted_and_marked(archive: Server, tmp_path: Path) -> None:
    assert download("toy", tmp_path / "new") == tmp_path / "new" / "LibriSpeech"
    _assert_complete(tmp_path / "new")
    assert download("toy", tmp_path / "new") == tmp_path / "new" / "LibriSpeech"
    assert len(archive.ranges) == 1  # the second found the marker


def test_what_a_killed_extraction_left_is_removed(archive: Server, tmp_path: Path) -> None:
    left = tmp_path / ".extract-toy.tar.gz.tmp" / "LibriSpeech"
    left.mkdir(parents=True)
    download("toy", tmp_path)
    _assert_complete(tmp_path)


def test_a_download_that_breaks_off_goes_on_where_it_stopped(
    archive: Server, tmp_path: Path
) -> None:
    archive.break_after = len(GOOD) // 7
    download("toy", tmp_path, attempts=2)
    _assert_complete(tmp_path)
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) for asked in archive.ranges if asked]
    assert len(starts) == 7
    assert starts == [archive.break_after * n for n in range(1, 8)]


def test_a_killed_download_is_taken_up_by_the_next_run(archive: Server, tmp_path: Path) -> None:
    (tmp_path / "toy.tar.gz.part").write_bytes(GOOD[:1000])
    download("toy", tmp_path)
    assert archive.ranges == ["bytes=1000-"]
    _assert_complete(tmp_path)


def test_a_part_that_is_whole_already_is_not_fetched_again(archive: Server, tmp_path: Path) -> None:
    (tmp_path / "toy.tar.gz.part").write_bytes(GOOD)
    download("toy", tmp_path)
    assert archive.ranges == [f"bytes={len(GOOD)}-"]
    _assert_complete(tmp_path)


def test_a_part_longer_than_the_file_is_thrown_away(archive: Server, tmp_path: Path) -> None:
    (tmp_path / "toy.tar.gz.part").write_bytes(GOOD + b"more")
    download("toy", tmp_path)
    _assert_complete(tmp_path)


def test_a_server_that_ignores_the_range_is_read_from_the_start(
    archive: Server, tmp_path: Path
) -> None:
    archive.ignore_range = True
    (tmp_path / "toy.tar.gz.part").write_bytes(GOOD[:1000])
    download("toy", tmp_path)
    _assert_complete(tmp_path)


def test_wrong_bytes_are_removed_and_named(archive: Server, tmp_path: Path) -> None:
    archive.content = GOOD[:-1] + b"x"
    with pytest.raises(CorpusError, match=r"toy\.tar\.gz\): sha256 is .*, expected .*removed"):
        download("toy", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_archive_that_is_there_already_is_verified_and_kept(
    archive: Server, tmp_path: Path
) -> None:
    (tmp_path / "toy.tar.gz").write_bytes(b"fetched by hand, and wrong")
    with pytest.raises(CorpusError, match="remove it to fetch it anew"):
        download("toy", tmp_path)
    (tmp_path / "toy.tar.gz").write_bytes(GOOD)
    download("toy", tmp_path)
    assert (tmp_path / "toy.tar.gz").is_file()
    assert archive.ranges == []


def test_a_mirror_gives_the_same_archive(
    archive: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = Archive(
        "librispeech",
        "https://nowhere.invalid/12/toy.tar.gz",
        SUBSET,
        module.ARCHIVES["toy"].checksum,
    )
    monkeypatch.setattr(module, "ARCHIVES", {"toy": entry})
    download("toy", tmp_path, mirror=f"{archive.url}/elsewhere/")
    assert not (tmp_path / "toy.tar.gz").exists()
    assert (tmp_path / SUBSET / MARKER).is_file()


def test_an_archive_without_a_checksum_says_it_is_unverified(
    archive: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    entry = Archive("librispeech", f"{archive.url}/toy.tar.gz", SUBSET, None)
    monkeypatch.setattr(module, "ARCHIVES", {"toy": entry})
    download("toy", tmp_path)
    assert "unverified" in capsys.readouterr().err
    assert "unverified" in (tmp_path / SUBSET / MARKER).read_text()


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(
    archive: Server, tmp_path: Path
) -> None:
    archive.failures = 3
    fetch(f"{archive.url}/toy.tar.gz", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == GOOD
    archive.ranges.clear()
    with pytest.raises(CorpusError, match="missing: HTTP status 404"):
        fetch(f"{archive.url}/missing", tmp_path / "b")
    assert len(archive.ranges) == 1


def test_a_server_that_never_answers_ends_in_one_error(archive: Server, tmp_path: Path) -> None:
    archive.failures = 99
    (tmp_path / "a").write_bytes(b"half")
    with pytest.raises(
        CorpusError, match=r"503 .*3 times in a row; run again to go on from 4 bytes"
    ):
        fetch(f"{archive.url}/toy.tar.gz", tmp_path / "a", attempts=3)
    assert len(archive.ranges) == 3
    with pytest.raises(CorpusError, match="refused, 2 times"):
        fetch("http://127.0.0.1:9/x", tmp_path / "c", attempts=2)


def test_a_secure_connection_that_breaks_off_is_taken_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = []

    def broken(url: str, part: Path, start: int, timeout: float) -> None:
        starts.append(start)
        with part.open("ab") as file:
            file.write(b"half")
        if len(starts) == 1:
            raise ssl.SSLEOFError(8, "EOF occurred in violation of protocol")

    monkeypatch.setattr("asr.corpora.download._fetch_once", broken)
    monkeypatch.setattr("asr.corpora.download.time.sleep", lambda seconds: None)
    fetch("https://host/x", tmp_path / "x")
    assert starts == [0, 4]


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "no-url"])
def test_only_http_is_downloaded(url: str, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="http"):
        fetch(url, tmp_path / "x")


def _link(kind: bytes, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "members",
    [
        {"../outside.txt": b"x"},
        {f"{SUBSET}/../../../outside.txt": b"x"},
        {f"{SUBSET}/link": _link(tarfile.SYMTYPE, "/etc")},
        {f"{SUBSET}/link": _link(tarfile.SYMTYPE, "../../..")},
        {f"{SUBSET}/link": _link(tarfile.LNKTYPE, "/etc/passwd")},
        {f"{SUBSET}/pipe": _link(tarfile.FIFOTYPE, "")},
    ],
    ids=["parent", "nested-parent", "symlink", "relative-symlink", "hard-link", "pipe"],
)
def test_an_archive_that_reaches_outside_is_refused(
    members: dict[str, bytes | tarfile.TarInfo], tmp_path: Path
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "bad.tar.gz").write_bytes(_tar({f"{SUBSET}/a.txt": b"a", **members}))
    with pytest.raises(CorpusError, match=r"bad\.tar\.gz: refused"):
        extract(root / "bad.tar.gz", root, SUBSET)
    assert [path.name for path in root.iterdir()] == ["bad.tar.gz"]
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


@pytest.mark.parametrize(
    "content", [GOOD[: len(GOOD) // 2], b"no archive", b"", _tar({"other/a.txt": b"a"})]
)
def test_a_damaged_archive_leaves_nothing_behind(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.tar.gz").write_bytes(content)
    with pytest.raises(CorpusError, match=r"bad\.tar\.gz: (damaged|no folder)"):
        extract(tmp_path / "bad.tar.gz", tmp_path, SUBSET)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.tar.gz"]


def test_a_folder_of_the_users_own_is_not_overwritten(archive: Server, tmp_path: Path) -> None:
    (tmp_path / SUBSET).mkdir(parents=True)
    with pytest.raises(CorpusError, match="not from a finished download"):
        download("toy", tmp_path)
    assert archive.ranges == []


def test_an_unknown_name_lists_those_allowed(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"allowed are train-clean-100, .*ljspeech"):
        download("everything", tmp_path)


def test_every_archive_has_a_checksum_of_the_right_length() -> None:
    lengths = {"sha256": 64, "md5": 32}
    for name, archive in ARCHIVES.items():
        assert archive.checksum is not None
        algorithm, _, digest = archive.checksum.partition(":")
        assert len(digest) == lengths[algorithm], name
    assert len({archive.checksum for archive in ARCHIVES.values()}) == len(ARCHIVES) == 10

"""Ctrl-C or SIGTERM in, a request to stop between two steps out; and one training at a time in a folder."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout

from asr.errors import TrainingError

SIGNALS = (signal.SIGINT, signal.SIGTERM)
LOCK = ".lock"


@contextmanager
def on_interrupt() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C or SIGTERM within the block into a request; gives a function that says if there is one.

    The second one raises KeyboardInterrupt at once. Outside the main thread, where Python handles no signals, nothing
    is changed; nor is a signal that is ignored or was given its handler outside Python.
    """
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        print("stopping after this step; Ctrl-C again stops at once", file=sys.stderr, flush=True)

    before = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        before = {n: h for n, h in handlers.items() if h not in (None, signal.SIG_IGN)}
    for number in before:
        signal.signal(number, ask)
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def terminable() -> Iterator[None]:
    """Within the block SIGTERM raises KeyboardInterrupt, as Ctrl-C does, so that what is half written is removed.

    As with `on_interrupt`, nothing is changed outside the main thread or where the signal is ignored.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGTERM)
    main = threading.current_thread() is threading.main_thread()
    if not main or before in (None, signal.SIG_IGN):
        yield
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def alone_in(output: Path) -> Iterator[None]:
    """For the time of the block, no other training writes to the folder; raises TrainingError if one does.

    The lock ends with the process, however that ends: a file `.lock` that is left behind locks nothing.
    """
    output.mkdir(parents=True, exist_ok=True)
    lock = FileLock(output / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise TrainingError(
            f"{output}: another training writes here; stop it first, or name another folder with --output"
        ) from None
    try:
        yield
    finally:
        lock.release()

"""Ctrl-C in, a request to stop between two steps out: a training that is stopped by hand loses nothing."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def on_interrupt() -> Iterator[Callable[[], bool]]:
    """For the time of the block, turn the first Ctrl-C into a request; gives a function that says if there is one.

    The second Ctrl-C raises KeyboardInterrupt at once. Outside the main thread, where Python handles no signals, and
    where SIGINT is ignored, nothing is changed.
    """
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        print("stopping after this step; Ctrl-C again stops at once", file=sys.stderr, flush=True)

    before = signal.getsignal(signal.SIGINT)
    handles = threading.current_thread() is threading.main_thread() and callable(before)
    if handles:
        signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        if handles:
            signal.signal(signal.SIGINT, before)

"""torchaudio's Python part, importable beside any torch.

The torchaudio wheel on PyPI links CUDA. Beside a CPU-only torch its native library cannot be loaded and
`import torchaudio` raises OSError, though MelSpectrogram, SpecAugment and the like need none of it.
"""

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


def load_torchaudio() -> Any:
    """Return the torchaudio module, without its native extension where that cannot be loaded."""
    try:
        return importlib.import_module("torchaudio")
    except OSError:
        for name in [n for n in sys.modules if n == "torchaudio" or n.startswith("torchaudio.")]:
            del sys.modules[name]
        sys.modules["torchaudio._extension"] = _extension_stub()
        return importlib.import_module("torchaudio")


def _extension_stub() -> ModuleType:
    stub: Any = ModuleType("torchaudio._extension")
    stub._IS_TORCHAUDIO_EXT_AVAILABLE = False
    stub._IS_ALIGN_AVAILABLE = False
    stub._IS_RIR_AVAILABLE = False
    stub.fail_if_no_align = _pass_through
    return stub


def _pass_through(function: Callable[..., Any]) -> Callable[..., Any]:
    return function

"""The house's rules, held: imports go one way, nothing happens at import, names are documented, parts stay small."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "asr"
MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 60

# A part may import those of its own row and of the rows above it; rows as in the design, top to bottom.
LAYERS = (
    ("errors", "files", "_torchaudio"),
    ("options", "devices"),
    ("_decoders", "audio", "text", "transcript", "manifest"),
    ("features", "phonemes", "tokenizer", "vad"),
    ("pieces",),
    ("recording",),
    ("augment", "corpora", "model", "ngram", "weights"),
    ("onnx_nodes",),
    ("onnx_graph", "onnx_model"),
    ("decoding", "encoding", "batching", "doctor"),
    ("alignment", "sentences"),
    ("confidence", "failures", "leaks"),
    ("description",),
    ("checkpoint", "metrics", "writers", "inputs"),
    ("lm_checkpoint",),
    ("export", "assembly", "search_file"),
    ("recognizer",),
    ("evaluate", "report", "bulk", "listen"),
    ("training",),
    ("language",),
    ("config",),
    ("cli",),
    ("__main__", "__init__"),
)
HEAVY = [
    "av",
    "jiwer",
    "librosa",
    "matplotlib",
    "num2words",
    "numba",
    "onnx",
    "onnxruntime",
    "pocketsphinx",
    "rich",
    "scipy",
    "silero_vad",
    "sounddevice",
    "soxr",
    "tensorboard",
    "torchaudio",
]


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


MODULES = {_module(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def _part(module: str) -> str:
    return module.split(".")[1]


def _imported(module: str) -> set[str]:
    """The modules of the package that a module imports, anywhere in its file."""
    found = set()
    for node in ast.walk(TREES[module]):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            while name and name not in MODULES:
                name = name.rpartition(".")[0]
            if name and name != module:
                found.add(name)
    return found


def _cycle(graph: dict[str, set[str]]) -> list[str]:
    """Some cycle of a graph, or nothing."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for following in sorted(graph[node]):
            if found := visit(following, [*path, node]):
                return found
        done.add(node)
        return []

    return next((found for node in graph if (found := visit(node, []))), [])


def _functions(tree: ast.AST) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def _fresh(code: str) -> str:
    """What a new interpreter prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_every_part_has_its_place_among_the_layers() -> None:
    placed = [part for layer in LAYERS for part in layer]
    assert len(placed) == len(set(placed))
    assert {_part(module) for module in MODULES} <= set(placed)


def test_imports_go_one_way() -> None:
    rank = {part: number for number, layer in enumerate(LAYERS) for part in layer}
    upward = [
        f"{module} imports {other}"
        for module in MODULES
        for other in _imported(module)
        if rank[_part(other)] > rank[_part(module)]
    ]
    assert upward == []


def test_no_import_cycle() -> None:
    assert _cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]  # one is found
    graph = {module: _imported(module) for module in MODULES}
    assert graph["asr.recognizer"] >= {"asr.assembly", "asr.checkpoint", "asr.features"}
    assert _cycle(graph) == []


def test_nothing_outside_the_package_is_imported_from_the_checkout() -> None:
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{module}: relative import"
                assert (node.module or "").split(".")[0] not in ("recipes", "tests"), module


def test_import_asr_loads_neither_torch_nor_numpy() -> None:
    loaded = _fresh("import sys, asr; print(*sys.modules)").split()
    assert {"torch", "numpy", *HEAVY}.isdisjoint(loaded)


def test_the_command_line_starts_without_torch() -> None:
    loaded = _fresh("import sys, asr.cli; print(*sys.modules)").split()
    assert {"torch", "numpy", *HEAVY}.isdisjoint(loaded)


def test_nothing_happens_at_import() -> None:
    code = f"""
import json, logging, random, sys
import numpy, soundfile, torch, torch.distributed, typer, typer.core

events = []
def watch(event, arguments):
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        events.append(f"{{event}} {{arguments[0]}}")
    elif event in ("subprocess.Popen", "socket.connect", "os.mkdir", "os.remove"):
        events.append(f"{{event}} {{arguments}}")

sys.dont_write_bytecode = True
sys.addaudithook(watch)
def state():
    handlers = len(logging.getLogger().handlers)
    seeds = [repr(random.getstate()), repr(numpy.random.get_state()), torch.initial_seed()]
    return [handlers, torch.get_num_threads(), torch.cuda.is_initialized(), *seeds]
before = state()
for name in {sorted(set(MODULES) - {"asr.__main__"})!r}:
    __import__(name)
heavy = sorted(set({HEAVY!r}) & set(sys.modules))
print(json.dumps([events, state() == before, heavy]))
"""
    events, unchanged, heavy = json.loads(_fresh(code))
    assert events == []
    assert unchanged
    assert heavy == []


def test_all_public_names_are_there_and_documented() -> None:
    found = json.loads(
        _fresh(
            "import asr, json; print(json.dumps([sorted(asr.__all__), "
            "[name for name in asr.__all__ if not getattr(asr, name).__doc__], dir(asr)]))"
        )
    )
    names, undocumented, listed = found
    assert names == [
        *("AsrError", "DecodingOptions", "Failure", "HotWords", "Ranking", "Recognizer"),
        *("Search", "Segment", "Transcript", "VadOptions", "Word", "load", "transcribe"),
    ]
    assert undocumented == []
    assert set(names) <= set(listed)


def test_a_name_that_is_not_public_is_not_there() -> None:
    import asr

    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        asr.nonsense  # noqa: B018


def test_modules_and_public_names_have_docstrings() -> None:
    bare = [module for module, tree in TREES.items() if not ast.get_docstring(tree)]
    for module, tree in TREES.items():
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        public = [tree.body, *(node.body for node in classes if not node.name.startswith("_"))]
        bare += [
            f"{module}.{node.name}"
            for body in public
            for node in body
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
            and not node.name.startswith("_")
            and not ast.get_docstring(node)
        ]
    assert bare == []


def test_files_and_functions_stay_small() -> None:
    large = []
    for module, path in MODULES.items():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > MAX_FILE_LINES:
            large.append(f"{module}: {lines} lines")
        for node in _functions(TREES[module]):
            length = (node.end_lineno or 0) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                large.append(f"{module}.{node.name}: {length} lines")
    assert large == []

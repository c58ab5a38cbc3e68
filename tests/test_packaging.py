"""The package as installed: what it imports is declared, what its messages advise exists, its command runs."""

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from asr import config

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "asr").rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
# Import names of optional packages that may be absent where the tests run.
OPTIONAL_IMPORTS = {"av": "av"}


def _names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def _imports(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0], node.lineno


def _constraints() -> dict[str, Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): pin for pin in pins}


def _asr(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "asr", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=120, check=False
    )


def test_every_third_party_import_is_a_declared_dependency() -> None:
    declared = _names(PROJECT["dependencies"])
    for name, extra in EXTRAS.items():
        declared |= set() if name == "dev" else _names(extra)
    distributions = packages_distributions()
    undeclared = []
    for path in SOURCES:
        for module, line in _imports(path):
            if module == "asr" or module in sys.stdlib_module_names:
                continue
            candidates = distributions.get(module, [OPTIONAL_IMPORTS.get(module, module)])
            if not {canonicalize_name(name) for name in candidates} & declared:
                undeclared.append(f"{path.relative_to(ROOT)}:{line} imports {module}")
    assert undeclared == []


def test_extras_named_in_the_documents_exist() -> None:
    named = set()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "Makefile"):
        for names in re.findall(r"\.\[([\w,-]+)\]", path.read_text("utf-8")):
            named |= set(names.split(","))
    assert named
    assert named <= set(EXTRAS)


def test_constraints_pin_every_dependency_to_a_version_it_allows() -> None:
    pins = _constraints()
    for text in [*PROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra)]:
        wanted = Requirement(text)
        pin = pins.get(canonicalize_name(wanted.name))
        assert pin is not None, f"constraints.txt does not pin {wanted.name}"
        (version,) = pin.specifier
        assert version.operator == "=="
        assert wanted.specifier.contains(version.version), f"{pin} is not {wanted}"


def test_constraints_pin_no_local_build() -> None:
    assert [str(pin) for pin in _constraints().values() if "+" in str(pin)] == []


def test_console_command_resolves() -> None:
    module, _, function = PROJECT["scripts"]["asr"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_python_m_asr_prints_help_and_refuses_an_unknown_command() -> None:
    help_ = _asr("--help")
    assert help_.returncode == 0, help_.stderr
    for command in ("transcribe", "train", "evaluate", "prepare"):
        assert command in help_.stdout
    wrong = _asr("no-such-command")
    assert wrong.returncode == 2
    assert "Traceback" not in wrong.stderr


def test_import_loads_no_heavy_package() -> None:
    code = "import sys, asr; print(*sorted(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    heavy = {"librosa", "jiwer", "matplotlib", "num2words", "soxr", "tensorboard", "torchaudio"}
    assert heavy & set(result.stdout.split()) == set()


def test_readme_tree_is_the_package() -> None:
    tree = (ROOT / "README.md").read_text(encoding="utf-8").split("```\nasr/  ")[1].split("```")[0]
    package = tree.split("\nrecipes/")[0]
    named = set(re.findall(r"^  ([\w.]+)", package, re.MULTILINE)) - {"assets"}
    assert named == {path.relative_to(ROOT / "asr").parts[0] for path in SOURCES}


def test_links_in_documents_lead_somewhere() -> None:
    documents = [*ROOT.glob("*.md"), *ROOT.glob("recipes/**/*.md"), *ROOT.glob("data/*.md")]
    broken = [
        f"{document.relative_to(ROOT)}: {target}"
        for document in documents
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8"))
        if not (document.parent / target).exists()
    ]
    assert broken == []


def test_all_names_of_asr_are_there() -> None:
    asr = importlib.import_module("asr")
    assert [name for name in asr.__all__ if not hasattr(asr, name)] == []


@pytest.mark.parametrize("script", [*sorted(ROOT.glob("recipes/*/*.sh")), ROOT / ".ci" / "run"])
def test_shell_scripts_are_executable_and_parse(script: Path) -> None:
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.parametrize("recipe", sorted(ROOT.glob("recipes/*/*.toml")), ids=lambda p: p.stem)
def test_every_recipe_is_valid(recipe: Path) -> None:
    assert config.load_any(recipe) not in (config.Config(), config.LmConfig())

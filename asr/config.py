"""A recipe in TOML and `--set section.key=value` in, one frozen `Config` out; unknown keys are refused by name.

A recipe may begin with `base = "other.toml"`, a recipe beside it: then it holds only what differs from that one.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from asr import options
from asr.augment import AugmentOptions
from asr.batching import DataOptions
from asr.errors import ConfigError
from asr.features import FeatureOptions
from asr.language.training import LmTrainingOptions, TextOptions
from asr.model import ModelOptions
from asr.model.lm import LmOptions
from asr.training import TrainingOptions
from asr.training.spelling import SpellingOptions

T = TypeVar("T")


@dataclass(frozen=True)
class Config:
    """All options of a recipe together; a TOML file has a table for each and holds only what differs."""

    data: DataOptions = field(default_factory=DataOptions)
    features: FeatureOptions = field(default_factory=FeatureOptions)
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)
    spelling: SpellingOptions = field(default_factory=SpellingOptions)


@dataclass(frozen=True)
class LmConfig:
    """All options of a language model's recipe; what has a table [lm] is one."""

    text: TextOptions = field(default_factory=TextOptions)
    lm: LmOptions = field(default_factory=LmOptions)
    training: LmTrainingOptions = field(default_factory=LmTrainingOptions)


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a recognizer's recipe; `overrides` are "section.key=value" with values as in TOML (a bare word is text).

    Raises ConfigError naming the file, or the option and what is allowed.
    """
    return _build(Config, path, _read(path, overrides))


def load_any(path: str | Path, overrides: Sequence[str] = ()) -> Config | LmConfig:
    """Read a recipe of either kind, as `load` does."""
    values = _read(path, overrides)
    if "lm" in values:
        return _build(LmConfig, path, values)
    return _build(Config, path, values)


def _read(path: str | Path, overrides: Sequence[str]) -> dict[str, Any]:
    """The tables of a recipe over those of the recipe beside it that its key `base` names, and the overrides."""
    values = _tables(path)
    base = values.pop("base", None)
    if base is not None:
        values = _merged(_base(path, base), values)
    for override in overrides:
        _apply(values, override)
    return values


def _base(path: str | Path, base: Any) -> dict[str, Any]:
    if not isinstance(base, str) or not base:
        raise ConfigError(f"{path}: base {base!r}: must be the file name of a recipe beside it")
    values = _tables(Path(path).parent / base)
    if "base" in values:
        raise ConfigError(f"{path}: base {base}: has a base itself; one that has none is allowed")
    return values


def _tables(path: str | Path) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read recipe: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from error


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """All keys of both; where both have a table it is merged in turn, any other value of `above` wins."""
    both = below | above
    for key in below.keys() & above.keys():
        if isinstance(below[key], dict) and isinstance(above[key], dict):
            both[key] = _merged(below[key], above[key])
    return both


def _build(kind: type[T], path: str | Path, values: dict[str, Any]) -> T:
    try:
        return options.from_dict(kind, values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _apply(values: dict[str, Any], override: str) -> None:
    name, separator, value = override.partition("=")
    keys = name.strip().split(".")
    if not separator or len(keys) < 2:
        raise ConfigError(f"--set {override}: must be section.key=value, as in training.seed=2")
    table = values
    for key in keys[:-1]:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {override}: {key} is a value, not a section")
    table[keys[-1]] = _parse(value.strip())


def _parse(value: str) -> Any:
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value

"""Frozen option dataclasses from plain dicts and back: unknown keys and wrong types are refused by name."""

import dataclasses
import math
import re
import types
import typing
from collections.abc import Iterable
from typing import Any, TypeVar

from asr.errors import ConfigError

T = TypeVar("T")

_USUAL_TABLE = re.compile(r"^[a-z_.]+\.(?=[a-z_]+[ :,])")


def from_dict(kind: type[T], values: dict[str, Any], where: str = "") -> T:
    """Build the option dataclass `kind` from nested dicts; `where` is the prefix named in errors.

    Raises ConfigError naming the key and what is allowed.
    """
    hints = typing.get_type_hints(kind)
    fields = {f.name for f in dataclasses.fields(typing.cast(Any, kind))}
    arguments = {}
    for key, value in values.items():
        name = f"{where}.{key}" if where else key
        if key not in fields:
            raise ConfigError(f"unknown option {name}; allowed are {', '.join(sorted(fields))}")
        arguments[key] = _convert(hints[key], value, name)
    try:
        return kind(**arguments)
    except ConfigError as error:
        if not where:
            raise
        # It names the table in which such options usually are; a speller's are in another.
        raise ConfigError(_USUAL_TABLE.sub(f"{where}.", str(error))) from error


def check_range(
    options: Any, section: str, names: Iterable[str], low: float, high: float = math.inf
) -> None:
    """Raise ConfigError naming the first of the options `names` that is not from `low` to `high`."""
    for name in names:
        value = getattr(options, name)
        if not low <= value <= high:
            allowed = f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
            raise ConfigError(f"{section}.{name} {value}: must be {allowed}")


def to_dict(options: Any) -> dict[str, Any]:
    """A nested dict of plain values that `from_dict` rebuilds the options from."""
    return dataclasses.asdict(options)


def _convert(hint: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise ConfigError(f"option {name}: a table of options, not {value!r}")
        return from_dict(hint, value, name)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        return _convert(next(a for a in arguments if a is not types.NoneType), value, name)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"option {name}: a list, not {value!r}")
        return tuple(_convert(arguments[0], v, name) for v in value)
    return _convert_plain(hint, value, name)


def _convert_plain(hint: Any, value: Any, name: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise ConfigError(f"option {name}: a value of type {hint.__name__}, not {value!r}")

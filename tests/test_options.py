"""asr.options: dataclasses from dicts and back, refusals by name, and no option that nothing reads."""

import ast
import dataclasses
import importlib
import json
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import asr
from asr import options
from asr.augment import AugmentOptions
from asr.config import Config
from asr.errors import ConfigError
from asr.model import LossWeights, ModelOptions

PACKAGE = Path(asr.__file__).parent


@dataclass(frozen=True)
class Inner:
    count: int = 1
    share: float = 0.5


@dataclass(frozen=True)
class Outer:
    name: str = "a"
    on: bool = False
    limit: float | None = None
    speeds: tuple[float, ...] = (1.0,)
    inner: Inner = field(default_factory=Inner)


@pytest.mark.parametrize(
    "value", [Config(), ModelOptions(), AugmentOptions(speeds=(0.9,)), Outer(limit=2.0)]
)
def test_from_dict_of_to_dict_is_the_same_even_through_json(value: Any) -> None:
    plain = options.to_dict(value)
    assert options.from_dict(type(value), plain) == value
    assert options.from_dict(type(value), json.loads(json.dumps(plain))) == value


@given(
    st.builds(
        Outer,
        name=st.text(),
        on=st.booleans(),
        limit=st.none() | st.floats(allow_nan=False),
        speeds=st.lists(st.floats(allow_nan=False)).map(tuple),
        inner=st.builds(Inner, count=st.integers(), share=st.floats(allow_nan=False)),
    )
)
def test_any_options_survive_the_way_through_a_dict(value: Outer) -> None:
    assert options.from_dict(Outer, options.to_dict(value)) == value


def test_missing_keys_are_defaults_and_whole_numbers_are_floats_where_floats_are_due() -> None:
    built = options.from_dict(Outer, {"speeds": [1, 0.9], "inner": {"share": 1}, "limit": 3})
    assert built == Outer(speeds=(1.0, 0.9), inner=Inner(share=1.0), limit=3.0)
    assert [type(value) for value in (*built.speeds, built.inner.share)] == [float] * 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nam": "b"}, r"unknown option nam; allowed are inner, limit, name, on, speeds"),
        ({"inner": {"counts": 2}}, r"unknown option inner\.counts; allowed are count, share"),
        ({"name": 3}, r"option name: a value of type str, not 3"),
        ({"on": 1}, r"option on: a value of type bool, not 1"),
        ({"inner": {"count": 1.5}}, r"option inner\.count: a value of type int, not 1\.5"),
        ({"inner": {"count": True}}, r"option inner\.count: a value of type int, not True"),
        ({"inner": {"share": "half"}}, r"option inner\.share: a value of type float, not 'half'"),
        ({"inner": {"share": True}}, r"option inner\.share: a value of type float, not True"),
        ({"inner": 3}, r"option inner: a table of options, not 3"),
        ({"speeds": 1.0}, r"option speeds: a list, not 1\.0"),
        ({"speeds": [1.0, "fast"]}, r"option speeds: a value of type float, not 'fast'"),
        ({"limit": "none"}, r"option limit: a value of type float, not 'none'"),
    ],
)
def test_unknown_keys_and_wrong_types_are_refused_by_name(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{message}$"):
        options.from_dict(Outer, values)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_range_is_refused_by_name_and_value(value: float) -> None:
    with pytest.raises(ConfigError, match=rf"^data\.share {value}: must be from 0 to 1$"):
        options.check_range(Inner(share=value), "data", ("share",), 0, 1)
    options.check_range(Inner(share=0.0), "data", ("share",), 0, 1)
    options.check_range(Inner(share=1.0), "data", ("share",), 0, 1)


def option_classes() -> Iterator[type[Any]]:
    """Every dataclass of options in the package, wherever it stands."""
    for module in pkgutil.walk_packages([str(PACKAGE)], "asr."):
        if module.name == "asr.__main__":
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            here = dataclasses.is_dataclass(value) and value.__module__ == module.name
            if here and isinstance(value, type) and name.endswith("Options"):
                yield value
    yield from (LossWeights, Config)


def attributes_read(path: Path) -> Iterator[str]:
    """Names of attributes that a file reads outside the checks of `__post_init__`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    checks = [n for n in ast.walk(tree) if getattr(n, "name", None) == "__post_init__"]
    ignored = {id(inner) for check in checks for inner in ast.walk(check)}
    for node in ast.walk(tree):
        read = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
        if read and id(node) not in ignored:
            yield node.attr


def test_no_option_is_declared_and_never_read() -> None:
    read = {name for path in PACKAGE.rglob("*.py") for name in attributes_read(path)}
    classes = list(option_classes())
    assert {"EncoderOptions", "DataOptions", "DecodingOptions"} <= {c.__name__ for c in classes}
    unread = [
        f"{kind.__name__}.{field.name}"
        for kind in classes
        for field in dataclasses.fields(kind)
        if field.name not in read
    ]
    assert unread == []


def test_every_option_has_a_default() -> None:
    for kind in option_classes():
        assert kind() == kind()


def test_an_option_out_of_range_is_named_where_it_stands() -> None:
    """A speller's tables hold the same options as the model's own."""
    for table in ("encoder", "decoder", "decoder.attention"):
        values: dict[str, Any] = {"width": 0}
        for name in reversed(table.split(".")):
            values = {name: values}
        for at, tables in (("model", values), ("model.speller", {"speller": values})):
            with pytest.raises(ConfigError, match=rf"^{at}\.{table}\.width 0: must be at least 1$"):
                options.from_dict(Config, {"model": tables})

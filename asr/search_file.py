"""The default search of a model: the TOML file beside it in, loaded options and scorers out.

`english.toml` beside `english.pt` says how that model is best decoded; its weights were chosen on dev. An exported
folder holds its own as `search.toml`.
"""

import json
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asr import options
from asr.confidence import Calibration, load_calibration
from asr.decoding import DecodingOptions, FirstPass, Ranking, Search
from asr.errors import ConfigError
from asr.files import atomic_write, content_name

INSIDE = "search.toml"
"""The file's name inside an exported model's folder."""


@dataclass(frozen=True)
class SearchFile:
    """What the file may hold; the names of other files are relative to it."""

    decoding: DecodingOptions = field(default_factory=DecodingOptions)
    ranking: Ranking | None = None  # where finished hypotheses are not ranked as in the beam
    first_pass: FirstPass | None = None  # where texts are proposed by how they sound
    lm: str | None = None  # character language model, as asr.lm_checkpoint saves it
    ngram: str | None = None  # word n-gram model, ARPA or this project's binary
    word_lm: str | None = None  # word LSTM beside the n-grams, as asr.lm_checkpoint saves it
    pronunciations: str | None = None  # of words, as asr.phonemes reads them
    calibration: str | None = None  # of word confidence, as asr.confidence saves it
    greedy_calibration: str | None = None  # the same where greedy search is asked for instead


def default_search(model: str | Path) -> tuple[Search, Calibration | None]:
    """The search and calibration in the TOML beside a model, or inside its folder; greedy and None if there is none.

    Raises ConfigError naming the file and the option, and what the loading of the other files raises.
    """
    path = _path(Path(model))
    if not path.exists():
        return Search(), None
    found = read(path)
    files = {
        key: path.parent / name for key in SCORERS if (name := getattr(found, key)) is not None
    }
    loaded: dict[str, Any] = {key: SCORERS[key](file) for key, file in files.items()}
    names = {key: content_name(file) for key, file in files.items()}
    passes: dict[str, Any] = {"ranking": found.ranking, "first_pass": found.first_pass}
    search = Search(found.decoding, names=names, **passes, **loaded)
    return search, default_calibration(model)


def default_calibration(model: str | Path, *, greedy: bool = False) -> Calibration | None:
    """The calibration in that TOML, without the rest of it; None if there is none. Raises ConfigError as above.

    Where the TOML has none for `greedy` search, it is that of its own search.
    """
    path = _path(Path(model))
    found = read(path) if path.exists() else SearchFile()
    name = (found.greedy_calibration if greedy else None) or found.calibration
    return None if name is None else load_calibration(path.parent / name)


def _lm(path: Path) -> Any:
    from asr.lm_checkpoint import load_lm

    return load_lm(path, "characters")


def _ngram(path: Path) -> Any:
    from asr.ngram import NgramModel

    return NgramModel.load(path)


def _word_lm(path: Path) -> Any:
    from asr.lm_checkpoint import load_lm

    return load_lm(path, "words")


def _pronunciations(path: Path) -> Any:
    from asr import phonemes

    return phonemes.load(path)


SCORERS: dict[str, Callable[[Path], Any]] = {
    "lm": _lm,
    "ngram": _ngram,
    "word_lm": _word_lm,
    "pronunciations": _pronunciations,
}
"""What loads the files of a search, by the keys that name them."""

CALIBRATIONS = ("calibration", "greedy_calibration")


def copy_search(model: str | Path, folder: str | Path) -> None:
    """Copy the TOML of a model, if it has one, and the files that it names into an exported model's folder.

    Raises ConfigError as `read` does, and where two files would have one name there.
    """
    path = _path(Path(model))
    if not path.exists():
        return
    found, lines = read(path), []
    copied: dict[Path, str] = {}
    for key in (*SCORERS, *CALIBRATIONS):
        name = getattr(found, key)
        if name is not None:
            target = Path(folder) / Path(name).name
            if target.exists() and copied.get(target) != name:
                raise ConfigError(f"{path}: {key}: an exported model has another {target.name}")
            shutil.copyfile(path.parent / name, target)
            copied[target] = name
            lines.append(f"{key} = {json.dumps(target.name, ensure_ascii=False)}")
    lines += _table("decoding", found.decoding)
    for name in ("ranking", "first_pass"):
        if (values := getattr(found, name)) is not None:
            lines += _table(name, values)
    with atomic_write(Path(folder) / INSIDE) as file:
        file.writelines(f"{line}\n" for line in lines)


def _table(name: str, values: DecodingOptions | FirstPass | Ranking) -> list[str]:
    given = [(key, value) for key, value in options.to_dict(values).items() if value is not None]
    return ["", f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in given)]


def read(path: str | Path) -> SearchFile:
    """Read such a file alone. Raises ConfigError naming the file, the option and what is allowed."""
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        return options.from_dict(SearchFile, values)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read search options: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _path(model: Path) -> Path:
    if model.is_dir():
        model = model.resolve()  # "." has no name
        beside, inside = model.with_name(f"{model.name}.toml"), model / INSIDE
        return beside if beside.exists() or not inside.is_file() else inside
    return model.with_suffix(".toml")

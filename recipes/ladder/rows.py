"""The ladder's scores as a table, base first, then by the first score: `python -m recipes.ladder.rows runs/ladder`."""

import argparse
import csv
import sys
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).parent
CHANGES, ENCODERS, DECODERS = (HERE / f"{name}.txt" for name in ("changes", "encoders", "decoders"))
WORDS = ("substitutions", "deletions", "insertions"), "reference_words"
CHARACTERS = ("character_errors",), "reference_characters"
Column = tuple[str, tuple[tuple[str, ...], str]]  # file of rows; what is counted, over what
OF_CHANGES: Mapping[str, Column] = {
    "greedy": ("greedy.tsv", WORDS),
    "search": ("search.tsv", WORDS),
}
OF_ENCODERS: Mapping[str, Column] = {"CER": ("ctc.tsv", CHARACTERS), "WER": ("ctc.tsv", WORDS)}
OF_DECODERS: Mapping[str, Column] = {
    "CER": ("greedy.tsv", CHARACTERS),
    "WER": ("greedy.tsv", WORDS),
}


LISTS = {
    "changes": (CHANGES, OF_CHANGES),
    "encoders": (ENCODERS, OF_ENCODERS),
    "decoders": (DECODERS, OF_DECODERS),
}


def read_changes(path: Path) -> dict[str, str]:
    """Names of the changes and their options; lines that are empty or begin with # are skipped."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    pairs = (line.partition(":") for line in lines if line and not line.startswith("#"))
    return {name: options.strip() for name, _, options in pairs}


def error_rate(path: Path, counts: tuple[tuple[str, ...], str] = WORDS) -> float:
    """Corpus-level error rate of the rows that `asr evaluate --output` wrote."""
    errors, total = counts
    with path.open(encoding="utf-8", newline="") as file:
        read = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        rows = [row for row in read if not row.get("error")]
    return sum(int(row[name]) for row in rows for name in errors) / sum(
        int(row[total]) for row in rows
    )


def table(
    folder: Path, changes: Mapping[str, str], columns: Mapping[str, Column] = OF_CHANGES
) -> list[str]:
    """A Markdown table of the changes that have been scored, with differences from the base in points."""
    scores = {
        name: [error_rate(folder / name / file, counts) for file, counts in columns.values()]
        for name in changes
        if all((folder / name / file).is_file() for file, _ in columns.values())
    }
    if "base" not in scores:
        return []
    base = scores["base"]
    lines = [f"| change | options | {' | '.join(columns)} |", "|---|---" + "|---" * len(base) + "|"]
    for name in sorted(scores, key=lambda name: (name != "base", scores[name])):
        cells = [
            f"{100 * rate:.1f} %" + (f" ({100 * (rate - before):+.1f})" if name != "base" else "")
            for rate, before in zip(scores[name], base, strict=True)
        ]
        options = f"`{changes[name]}`" if changes[name] else ""
        lines.append(" | ".join([f"| {name}", options, *cells]) + " |")
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="what was scored; its base must be")
    parser.add_argument(
        "--of", choices=LISTS, default="changes", help="which list; default: changes"
    )
    options = parser.parse_args()
    path, columns = LISTS[options.of]
    lines = table(options.folder, read_changes(path), columns)
    if not lines:
        sys.exit(f"error: {options.folder} holds no scored base of {path.name}")
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()

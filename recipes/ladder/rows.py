"""The ladder's scores as a table: `python -m recipes.ladder.rows runs/ladder`, the base first, then by greedy WER."""

import argparse
import csv
import sys
from pathlib import Path

CHANGES = Path(__file__).with_name("changes.txt")
COUNTS = ("substitutions", "deletions", "insertions")


def read_changes(path: Path) -> dict[str, str]:
    """Names of the changes and their options; lines that are empty or begin with # are skipped."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    pairs = (line.partition(":") for line in lines if line and not line.startswith("#"))
    return {name: options.strip() for name, _, options in pairs}


def error_rate(path: Path) -> float:
    """Corpus-level WER of the rows that `asr evaluate --output` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    errors = sum(int(row[name]) for row in rows for name in COUNTS)
    return errors / sum(int(row["reference_words"]) for row in rows)


def table(folder: Path, changes: dict[str, str]) -> list[str]:
    """A Markdown table of the changes that have been scored, with differences from the base in points."""
    scores = {
        name: [error_rate(folder / name / f"{search}.tsv") for search in ("greedy", "search")]
        for name in changes
        if (folder / name / "search.tsv").is_file() and (folder / name / "greedy.tsv").is_file()
    }
    if "base" not in scores:
        return []
    base = scores["base"]
    lines = ["| change | options | greedy | search |", "|---|---|---|---|"]
    for name in sorted(scores, key=lambda name: (name != "base", scores[name])):
        cells = [
            f"{100 * wer:.1f} %" + (f" ({100 * (wer - before):+.1f})" if name != "base" else "")
            for wer, before in zip(scores[name], base, strict=True)
        ]
        options = f"`{changes[name]}`" if changes[name] else ""
        lines.append(" | ".join([f"| {name}", options, *cells]) + " |")
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="results of recipes/ladder/run.sh")
    lines = table(parser.parse_args().folder, read_changes(CHANGES))
    if not lines:
        sys.exit("error: no scored base in the folder; recipes/ladder/run.sh base makes it")
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()

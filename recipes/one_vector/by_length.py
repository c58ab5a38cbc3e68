"""Error rates by length of the recording: rows of `asr evaluate --output` in, one table over the models out.

python recipes/one_vector/by_length.py runs/one_vector/*/dev.tsv
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

EDGES = (0.0, 3.0, 6.0, 12.0, float("inf"))  # seconds


def rates(rows: Sequence[dict[str, str]], edges: Sequence[float] = EDGES) -> list[str]:
    """WER and CER in percent of the rows in each stretch of lengths, and of all; "-" where there are none."""
    found, rows = [], [row for row in rows if not row["error"]]
    for low, high in [*pairwise(edges), (0.0, float("inf"))]:
        chosen = [row for row in rows if low <= float(row["duration"]) < high]
        words = sum(int(row["reference_words"]) for row in chosen)
        characters = sum(int(row["reference_characters"]) for row in chosen)
        wrong = sum(
            int(row[kind])
            for row in chosen
            for kind in ("substitutions", "deletions", "insertions")
        )
        misspelt = sum(int(row["character_errors"]) for row in chosen)
        rate = f"{100 * wrong / words:.1f} / {100 * misspelt / characters:.1f}" if words else "-"
        found.append(rate)
    return found


def table(paths: Sequence[Path], edges: Sequence[float] = EDGES) -> str:
    """A Markdown table with a line per file, named after its folder."""
    heads = [f"{low:g} to {high:g} s" for low, high in pairwise(edges[:-1])]
    heads = ["WER / CER, %", *heads, f"over {edges[-2]:g} s", "all"]
    lines = [heads, ["---"] * len(heads)]
    for path in paths:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        lines.append([path.parent.name, *rates(rows, edges)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; the exit status."""
    parser = argparse.ArgumentParser(description="Error rates by length of the recording.")
    parser.add_argument("rows", nargs="+", type=Path, help="TSV files of asr evaluate --output")
    paths = parser.parse_args(arguments).rows
    for path in paths:
        if not path.is_file():
            print(f"{path}: not there; make it with asr evaluate --output", file=sys.stderr)
            return 2
    print(table(paths))
    return 0


if __name__ == "__main__":
    sys.exit(main())

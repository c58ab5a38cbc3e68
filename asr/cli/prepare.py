"""`asr prepare`: a corpus in, its manifests out, and the check of manifests."""

from collections.abc import Iterable
from pathlib import Path

import typer

from asr.cli.base import SOME_FAILED, app
from asr.errors import ConfigError


@app.command(
    epilog="Example: asr prepare librispeech data --download --subset train-clean-5 --output data/manifests"
)
def prepare(
    arguments: list[str] = typer.Argument(
        ..., metavar="CORPUS ROOT | --check MANIFEST...", show_default=False
    ),
    output: Path | None = typer.Option(None, help="Folder for the manifests."),
    download: bool = typer.Option(False, "--download", help="Fetch it into ROOT first."),
    subset: list[str] | None = typer.Option(None, help="Which archive to fetch; may be repeated."),
    mirror: str | None = typer.Option(None, metavar="URL", help="Folder to fetch from instead."),
    name: str | None = typer.Option(None, help="Begin the manifests' names so."),
    holdout: float | None = typer.Option(
        None, help="Fraction, or number of utterances, that becomes the dev manifest."
    ),
    seed: int = typer.Option(0, help="Another seed, another choice by --holdout."),
    check: bool = typer.Option(False, "--check", help="Look for faults in the manifests."),
    report: Path | None = typer.Option(None, help="Write all that --check finds here, as JSON."),
) -> None:
    """Write a corpus's manifests, or check manifests that are there.

    CORPUS: librispeech, ljspeech, common_voice, vctk, kaldi_dir, folder, csv_file. ROOT: its folder or file.

    With --check and no CORPUS, all arguments are manifests, which are checked together.
    """
    from asr import corpora

    if report is not None and not check:
        raise ConfigError("--report is where --check writes what it finds: give it too")
    if check and arguments[0] not in corpora.CORPORA:
        if output or download or subset or mirror or name or holdout is not None:
            raise ConfigError(
                f"{arguments[0]!r} is no CORPUS, and manifests take no option but --check and --report; "
                f"a CORPUS is one of {', '.join(corpora.CORPORA)}"
            )
        raise typer.Exit(0 if _check(arguments, report) else SOME_FAILED)
    if len(arguments) != 2:
        raise ConfigError("prepare takes a CORPUS and its ROOT, or --check and manifests")
    if output is None:
        raise ConfigError("prepare needs --output, a folder for the manifests")
    corpus, root = arguments
    if (subset or mirror) and not download:
        raise ConfigError("--subset and --mirror say what --download fetches: give it too")
    folder = _download(corpus, root, subset or [], mirror) if download else Path(root)
    summary = corpora.prepare(corpus, folder, output, name=name, holdout=holdout, seed=seed)
    corpora.print_summary(summary)
    fine = not check or _check([split.manifest for split in summary.splits], report)
    raise typer.Exit(SOME_FAILED if summary.problems or not fine else 0)


def _download(corpus: str, root: str, subsets: list[str], mirror: str | None) -> Path:
    from asr.corpora.download import ARCHIVES, download

    names = subsets or [corpus]
    known = [name for name, archive in ARCHIVES.items() if archive.corpus == corpus]
    for name in names:
        if not known:
            raise ConfigError(f"--download: {corpus} has no public archive")
        if name not in known:
            wrong = f"no subset {name!r} of {corpus}" if subsets else f"{corpus} needs --subset"
            raise ConfigError(f"--download: {wrong}: choose from {', '.join(known)}")
    folders = [download(name, root, mirror=mirror) for name in names]
    return folders[0]  # all subsets of a corpus lie in one


def _check(manifests: Iterable[str | Path], report: Path | None) -> bool:
    from asr import doctor

    found = doctor.check_manifests(manifests)
    doctor.print_report(found)
    if report is not None:
        doctor.write_json(found, report)
    return found.ok

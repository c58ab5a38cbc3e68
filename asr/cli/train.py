"""`asr train`: a recipe in, a trained model out."""

from pathlib import Path

import typer

from asr.cli.base import DEVICE, app


@app.command(
    epilog="Example: asr train recipes/librispeech/mini.toml --hours 2 --set training.seed=2"
)
def train(
    recipe: Path = typer.Argument(..., help="Recipe, TOML."),
    set_: list[str] | None = typer.Option(
        None,
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="Change an option of the recipe; asr/config.py lists them.",
    ),
    hours: float | None = typer.Option(None, help="Train so long: --set training.hours=H."),
    output: Path | None = typer.Option(None, help="Folder for all results; default: runs/RECIPE."),
    resume: bool = typer.Option(True, help="Go on from what is in the folder, or begin anew."),
    init: Path | None = typer.Option(None, help="Model to begin with, where its weights fit."),
    device: str = DEVICE,
) -> None:
    """Train a model by a recipe; Ctrl-C saves, and the same command goes on from there.

    A recipe with a table named lm trains a language model of characters or of words.
    """
    from asr import config, training
    from asr.language import training as language

    overrides = [*(set_ or []), *([] if hours is None else [f"training.hours={hours}"])]
    options = config.load_any(recipe, overrides)
    folder = output or Path("runs") / recipe.stem
    if isinstance(options, config.LmConfig):
        path = language.train(
            folder,
            lm=options.lm,
            text=options.text,
            training=options.training,
            resume=resume,
            initial=init,
            device=device,
        )
        typer.echo(path)
        return
    path = training.train(
        folder,
        model=options.model,
        data=options.data,
        training=options.training,
        features=options.features,
        augmentation=options.augment,
        spelling=options.spelling,
        resume=resume,
        initial=init,
        device=device,
    )
    typer.echo(path)

"""The command line: one function a verb. What a verb does lives elsewhere; here are its options and exit codes.

Exit codes: 0 done, 1 the data or the result is not in order, 2 the call can't be carried out, 130 interrupted.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from . import __version__
from .errors import DataError, UsageError, WinnowError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  context_settings={"help_option_names": ["-h", "--help"]},
                  help="Detection transformers that compute only the tokens that matter.")

Model = Annotated[str, typer.Option("--model", "-m", help="Run folder, checkpoint, or name.")]
Rho = Annotated[float | None, typer.Option(help="Share of the tokens to refine, above 0 and at most 1.")]
Data = Annotated[Path, typer.Argument(help="Folder with COCO or Roboflow annotations.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write what is shown here, as JSON.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Any setting, as key=value; may be repeated.")]


@app.callback()
def root(debug: Annotated[bool, typer.Option(help="Show tracebacks.")] = False) -> None:
    """Options of all verbs; --debug is looked up in `main`."""


@app.command()
def demo(out: Annotated[Path, typer.Option(help="Run folder; an older demo there is replaced.")] = Path("runs/demo"),
         rho: Rho = None,
         epochs: Annotated[int | None, typer.Option(min=1)] = None,
         seed: int = 0) -> None:
    """Learn to find shapes among straw, from nothing, and draw what was learned."""
    from .demo import run_demo  # noqa: PLC0415  (torch takes seconds to import; --help should not)

    run_demo(out, rho=rho, epochs=epochs, seed=seed)


@app.command()
def train(data: Data,
          model: Annotated[str, typer.Option("--model", "-m", help="Name of a model.")] = "sparse-detr-tiny",
          rho: Rho = None,
          epochs: Annotated[int | None, typer.Option(min=1)] = None,
          batch_size: Annotated[int | None, typer.Option(min=1, help="Images a step and process.")] = None,
          size: Annotated[int | None, typer.Option(min=32, help="Shorter side of the images, in pixels.")] = None,
          out: Annotated[Path | None, typer.Option(help="Run folder; by default runs/MODEL-DATA.")] = None,
          resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
          init: Annotated[Path | None, typer.Option(help="Weights to start from: a checkpoint, or a backbone.")] = None,
          workers: Annotated[int, typer.Option(min=0, help="Processes that read images.")] = 2,
          set_: Set = None) -> None:
    """Train a model on a folder of images and boxes."""
    from .settings import free_folder, run_config  # noqa: PLC0415
    from .training.loop import train as run  # noqa: PLC0415

    if resume and out is None:
        raise UsageError("--resume needs --out, the run folder to go on with")
    folder = out or free_folder(Path("runs"), f"{model}-{data.resolve().name}")
    changes = {"rho": rho, "epochs": epochs, "batch_size": batch_size, "size": size}
    if size is not None:
        changes["longest"] = round(size * 1333 / 800)
    config = run_config(str(data), model, out=str(folder), init=str(init) if init else None, workers=workers,
                        changes=changes, assignments=set_ or [])
    done = run(config, resume=resume)
    Console(highlight=False).print(f"weights, metrics and report are in {done.root}")


@app.command()
def val(data: Data,
        model: Annotated[str | None, typer.Option("--model", "-m", help="Run folder, checkpoint, or name.")] = None,
        detections: Annotated[Path | None, typer.Option(help="Evaluate this COCO results file instead.")] = None,
        split: Annotated[str, typer.Option(help="Which split to evaluate on.")] = "val",
        rho: Rho = None,
        batch_size: Annotated[int, typer.Option(min=1)] = 1,
        workers: Annotated[int, typer.Option(min=0, help="Processes that read images.")] = 0,
        json_file: JsonFile = None) -> None:
    """COCO metrics of a model, or of a results file."""
    from .evaluation.validate import validate_command  # noqa: PLC0415

    if (model is None) == (detections is None):
        raise UsageError("val takes either --model or --detections")
    metrics = validate_command(data, split, model=model, detections=detections, rho=rho, batch_size=batch_size,
                               workers=workers)
    Console(highlight=False).print(metrics.table(per_class=True))
    if json_file:
        write_json(json_file, metrics.as_dict())


@app.command()
def predict(sources: Annotated[list[str], typer.Argument(help="Images, folders, globs, URLs.")],
            model: Model,
            rho: Rho = None,
            threshold: Annotated[float, typer.Option(min=0, max=1, help="Lowest score to show.")] = 0.3,
            out: Annotated[Path | None, typer.Option(help="Folder for drawn copies.")] = None,
            json_file: JsonFile = None,
            show_tokens: Annotated[bool, typer.Option("--show-tokens", help="Draw which tokens were kept.")] = False,
            ) -> None:
    """Find objects on images, draw them, and write them down."""
    from .inference.results import predict_command  # noqa: PLC0415

    if out is None and json_file is None:
        out = Path("predictions")
    raise typer.Exit(predict_command(sources, model, out=out, json_path=json_file, threshold=threshold, rho=rho,
                                     show_tokens=show_tokens))


@app.command()
def convert(source: Annotated[Path, typer.Argument(help="Weights in a reference's layout (.pth).")],
            out: Annotated[Path, typer.Argument(help="Our checkpoint (.safetensors), or with --to the other's file.")],
            model: Annotated[str | None, typer.Option(help="What the weights are, where they do not tell.")] = None,
            to: Annotated[str | None, typer.Option(help='"reference": write our weights in its layout.')] = None,
            ) -> None:
    """Public weights into ours, and back."""
    from .weights.convert import convert_command  # noqa: PLC0415

    convert_command(source, out, model=model, to=to)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"winnow {__version__}")


def write_json(path: Path, content: object) -> None:
    """Write JSON as a whole or not at all."""
    from .files import replace_file  # noqa: PLC0415

    replace_file(path, lambda part: part.write_text(json.dumps(content, indent=2)))


def main() -> None:
    """Run the command line; errors that a message explains end without a traceback."""
    debug = "--debug" in sys.argv
    try:
        app()
    except WinnowError as error:
        if debug:
            raise
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"winnow: {error}", markup=False)
        sys.exit(1 if isinstance(error, DataError) else 2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()

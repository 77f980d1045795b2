"""The command line: one function a verb. What a verb does lives elsewhere; here are its options and exit codes.

Exit codes: 0 done, 1 the data or the result is not in order, 2 the call can't be carried out, 130 interrupted.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from . import __version__
from .errors import DataError, UsageError, WinnowError
from .progress import console, counted
from .signals import heard, preparing


class Verbs(TyperGroup):
    """Verbs that end with 130 when they are interrupted; typer's older versions end with 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


app = typer.Typer(cls=Verbs, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  context_settings={"help_option_names": ["-h", "--help"]},
                  help="Detection transformers that compute only the tokens that matter.")

Model = Annotated[str, typer.Option("--model", "-m", help="Run folder, checkpoint, or name.")]
Rho = Annotated[float | None, typer.Option(min=0, max=1, help="Share of the tokens to refine, above 0.")]
Data = Annotated[Path, typer.Argument(help="Folder with COCO, Roboflow, YOLO or VOC data, or one file.")]
Precision = Annotated[str, typer.Option(help="fp32; bf16 (not on every processor) and fp16 (on GPUs) are faster; "
                                               "boxes differ a little.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop where anything of the data would be left out.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write what is shown here, as JSON.")]
SEVERAL = ("--model", "-m", "--size", "--batch", "--rho", "--precision", "--ops", "--against")  # values, of bench
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE ...", help="Any settings, such as lr=1e-4.")]


@app.callback()
def root(debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks. May stand anywhere.")] = False) -> None:
    """Options of all verbs; `main` takes --debug out before they are parsed."""


@app.command()
@heard()
def demo(out: Annotated[Path, typer.Option(help="Run folder; an older demo there is replaced.")] = Path("runs/demo"),
         rho: Rho = None,
         epochs: Annotated[int | None, typer.Option(min=1)] = None,
         seed: Annotated[int, typer.Option(min=0, help="Of the pictures and of the training.")] = 0) -> None:
    """Learn to find shapes among straw, from nothing, and draw what was learned."""
    with preparing():
        from .demo import run_demo  # noqa: PLC0415  (torch takes seconds to import; --help should not)

    run_demo(out, rho=rho, epochs=epochs, seed=seed)


@app.command()
@heard()
def train(data: Data,
          model: Annotated[str, typer.Option("--model", "-m", help="Name of a model.")] = "sparse-detr-tiny",
          rho: Rho = None,
          epochs: Annotated[int | None, typer.Option(min=1)] = None,
          batch_size: Annotated[int | None, typer.Option(min=1, help="Images a step and process.")] = None,
          size: Annotated[int | None, typer.Option(min=32, help="Shorter side of the images, in pixels.")] = None,
          out: Annotated[Path | None, typer.Option(help="Run folder; by default runs/MODEL-DATA.")] = None,
          resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, as begun.")] = False,
          init: Annotated[str | None, typer.Option(help="Start from a checkpoint, a backbone, or a name.")] = None,
          workers: Annotated[int, typer.Option(min=0, help="Processes that read images.")] = 2,
          strict: Strict = False,
          set_: Set = None) -> None:
    """Train a model on a folder of images and boxes."""
    if resume and out is None:
        raise UsageError("--resume needs --out, the run folder to go on with")
    with preparing():
        from . import processes  # noqa: PLC0415
        from .training.loop import train as run  # noqa: PLC0415
        from .training.request import free_folder, run_config  # noqa: PLC0415

    folder = out or free_folder(Path("runs"), f"{model}-{data.resolve().name}")
    changes = {"rho": rho, "epochs": epochs, "batch_size": batch_size, "size": size}
    if size is not None:
        changes["longest"] = round(size * 1333 / 800)
    config = run_config(str(data), model, out=str(folder), init=init, workers=workers, strict=strict,
                        changes=changes, assignments=set_ or [])
    done = run(config, resume=resume)
    console.print(f"weights, metrics and report are in {done.root}", markup=False)
    processes.part()


@app.command()
def val(data: Data,
        model: Annotated[str | None, typer.Option("--model", "-m", help="Run folder, checkpoint, or name.")] = None,
        detections: Annotated[Path | None, typer.Option(help="Evaluate this COCO results file instead.")] = None,
        split: Annotated[str | None, typer.Option(help="Which split; by default val, or test without one.")] = None,
        rho: Rho = None,
        batch_size: Annotated[int, typer.Option(min=1, help="Images of one size at once; changes no figure.")] = 1,
        precision: Precision = "fp32",
        workers: Annotated[int, typer.Option(min=0, help="Processes that read images.")] = 0,
        class_agnostic: Annotated[bool, typer.Option("--class-agnostic", help="Boxes count in any class.")] = False,
        max_dets: Annotated[int | None, typer.Option(min=1, help="Detections of an image that count; 100.")] = None,
        strict: Strict = False,
        page: Annotated[Path | None, typer.Option(help="Draw the evaluation as one HTML file.")] = None,
        json_file: JsonFile = None) -> None:
    """COCO metrics of a model, or of a results file, and the mistakes behind them."""
    from .evaluation.command import Request, validate_command  # noqa: PLC0415
    from .files import check_free  # noqa: PLC0415

    if (model is None) == (detections is None):
        raise UsageError("val takes either --model or --detections")
    for file in (json_file, page):
        if file:
            check_free(file)
    judged = validate_command(Request(data, split, model, detections, rho, batch_size, workers, precision,
                                      class_agnostic, max_dets, page, strict))
    Console(highlight=False, emoji=False).print(judged.table())
    if json_file:
        write_json(json_file, judged.evaluation.as_dict())
    if judged.errors:
        raise DataError(f"{counted(judged.errors, 'thing')} in the data could not be used, see above; the figures are "
                        "of the rest")


@app.command()
def check(data: Data,
          out: Annotated[Path | None, typer.Option(help="HTML page; by default runs/check-DATA.html.")] = None,
          fix: Annotated[Path | None, typer.Option(metavar="OUT", help="New folder for a repaired copy.")] = None,
          link: Annotated[bool, typer.Option("--link", help="Hard links in that copy, no copied images.")] = False,
          fast: Annotated[bool, typer.Option("--fast", help="Open the pictures, but do not decode them.")] = False,
          json_file: JsonFile = None) -> None:
    """What is wrong with a data set, and what it looks like. Exit code 0 clean, 1 problems, 2 unusable."""
    from .doctor.command import check_command  # noqa: PLC0415
    from .files import check_free  # noqa: PLC0415

    if json_file:
        check_free(json_file)
    found, code = check_command(data, page=out, decode=not fast, fix=fix, link=link)
    if json_file:
        write_json(json_file, found)
    if code == 2:
        raise UsageError(f"{data} can't be used, see above")
    raise typer.Exit(code)


@app.command()
def predict(sources: Annotated[list[str], typer.Argument(
                help="Images, folders, globs, URLs; videos, camera:0, rtsp://..., stream:http://...")],
            model: Model,
            rho: Rho = None,
            threshold: Annotated[float, typer.Option(min=0, max=1, help="Lowest score to show.")] = 0.3,
            out: Annotated[Path | None, typer.Option(help="Folder for drawn copies.")] = None,
            json_file: JsonFile = None,
            show_tokens: Annotated[bool, typer.Option("--show-tokens", help="Draw which tokens were kept.")] = False,
            slices: Annotated[int | None, typer.Option(
                "--slice", metavar="PIXELS", help="Look at larger images in slices of this side.")] = None,
            overlap: Annotated[float, typer.Option(help="Share of a slice that its neighbours see too.")] = 0.2,
            track: Annotated[bool, typer.Option("--track", help="Number the objects of a video.")] = False,
            batch_size: Annotated[int, typer.Option(min=1, help="Frames, or slices, at once.")] = 1,
            resume: Annotated[bool, typer.Option("--resume", help="Go on where the same call was stopped.")] = False,
            precision: Precision = "fp32",
            ) -> None:
    """Find objects on images and videos, draw them, and write them down."""
    from .inference.predict import Request, predict_command  # noqa: PLC0415
    from .inference.slicing import Slicing  # noqa: PLC0415

    if out is None and json_file is None:
        out = Path("predictions")
    request = Request(out, json_file, threshold, rho, show_tokens, None if slices is None else Slicing(slices, overlap),
                      track, batch_size, resume)
    raise typer.Exit(predict_command(sources, model, request, precision=precision))


@app.command()
def bench(model: Annotated[list[str] | None, typer.Option(
              "--model", "-m", help="Names, checkpoints, run folders; by default sparse-detr-r50.")] = None,
          size: Annotated[list[str] | None, typer.Option(metavar="HxW", help="By default 800x1066.")] = None,
          batch: Annotated[list[int] | None, typer.Option(help="Images at once, by default 1.")] = None,
          rho: Annotated[list[float] | None, typer.Option(help="Shares of the tokens that sparse models keep.")] = None,
          precision: Annotated[list[str] | None, typer.Option(help="fp32 (by default), bf16, fp16.")] = None,
          ops: Annotated[list[str] | None, typer.Option(help="Who reads the pyramid; by default the fastest.")] = None,
          against: Annotated[list[str] | None, typer.Option(
              help="Peers: torch, our plain path; hf, transformers' models.")] = None,
          train: Annotated[bool, typer.Option("--train", help="Measure training steps.")] = False,
          compiled: Annotated[bool, typer.Option(
              "--compile", help="Ours also compiled by torch.compile; on GPUs as CUDA graphs.")] = False,
          device: Annotated[str | None, typer.Option(help="By default the first GPU, or the CPU.")] = None,
          threads: Annotated[int | None, typer.Option(min=1, help="By default as torch chooses.")] = None,
          rounds: Annotated[int, typer.Option(min=1, help="Samples of each.")] = 5,
          warmup: Annotated[int, typer.Option(min=0, help="Passes before each sample.")] = 1,
          allocator: Annotated[str, typer.Option(help="system, or keep: large blocks stay mapped.")] = "system",
          json_file: JsonFile = None) -> None:
    """Time, memory and work of models, side by side. Options from --model to --against take several values."""
    from .bench.report import as_dict, screen  # noqa: PLC0415
    from .bench.request import settings, typed  # noqa: PLC0415
    from .bench.run import run  # noqa: PLC0415
    from .files import check_free  # noqa: PLC0415

    request = typed(models=model or ["sparse-detr-r50"], sizes=size or ["800x1066"], batches=batch or [1],
                    rhos=rho or [], precisions=precision or ["fp32"], ops=ops or ["auto"], against=against or [],
                    device=device, train=train, compiled=compiled)
    how = settings(rounds=rounds, warmup=warmup, threads=threads, allocator=allocator)
    if json_file:
        check_free(json_file)
    result = run(request, how)
    page().print(screen(result))
    if json_file:
        write_json(json_file, as_dict(result))
    if result.interrupted:
        raise typer.Exit(130)
    if result.lost:
        raise DataError(f"{len(result.lost)} of {len(result.entered)} could not be measured, see above")


@app.command()
def models(pattern: Annotated[str | None, typer.Argument(help="Part of the names, or a pattern with * and ?.")] = None,
           size: Annotated[str, typer.Option(metavar="HxW", help="Image that GFLOPs are for.")] = "800x1066",
           json_file: JsonFile = None) -> None:
    """Every model: parameters, GFLOPs, what its paper prints, and whether there are weights."""
    from .catalogue import entries, table  # noqa: PLC0415
    from .files import check_free  # noqa: PLC0415
    from .resolution import parse_size  # noqa: PLC0415

    if json_file:
        check_free(json_file)
    found = entries(pattern, parse_size(size))
    page().print(table(found))
    if json_file:
        write_json(json_file, [entry.as_dict() for entry in found])


@app.command()
def convert(source: Annotated[Path, typer.Argument(help="Weights of a reference (.pth) or folder of transformers.")],
            out: Annotated[Path, typer.Argument(help="Our checkpoint (.safetensors), or with --to theirs.")],
            model: Annotated[str | None, typer.Option(help="What the weights are, where they do not tell.")] = None,
            to: Annotated[str | None, typer.Option(help="Write ours in another layout: reference, or hf.")] = None,
            ) -> None:
    """Public weights into ours, and back."""
    from .weights.convert import convert_command  # noqa: PLC0415

    convert_command(source, out, model=model, to=to)


@app.command()
def serve(model: Annotated[list[str], typer.Option("--model", "-m", help="Run folder, checkpoint, or name; several are "
                                                                         "several options, the first answers.")],
          host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 is all.")] = "127.0.0.1",
          port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
          precision: Precision = "fp32",
          device: Annotated[str | None, typer.Option(help="By default the first GPU, or the CPU.")] = None,
          allow_urls: Annotated[bool, typer.Option("--allow-urls", help="Fetch images by their addresses.")] = False,
          allow_origin: Annotated[list[str] | None, typer.Option(help="Another site whose pages may ask.")] = None,
          allow_host: Annotated[list[str] | None, typer.Option(help="Name that is answered to.")] = None,
          batch: Annotated[int, typer.Option(min=1, max=256, help="Images at once in the network.")] = 8,
          queue: Annotated[int, typer.Option(min=1, max=4096, help="Images that may wait; then 429.")] = 64,
          max_upload: Annotated[int, typer.Option(min=1, max=1024, help="MiB of a request.")] = 20,
          max_pixels: Annotated[int, typer.Option(min=1, max=178, help="Millions, of an image.")] = 50,
          time_limit: Annotated[float, typer.Option(min=1, help="Seconds for an answer.")] = 30) -> None:
    """Models behind HTTP, and a page that shows what they look at. WINNOW_API_KEY is the key to ask for, if any."""
    from .serving.command import serve_command  # noqa: PLC0415
    from .serving.settings import MIB, Limits  # noqa: PLC0415

    serve_command(model, host=host, port=port, device=device, precision=precision, origins=allow_origin or [],
                  hosts=allow_host or [], urls=allow_urls,
                  limits=Limits(upload=max_upload * MIB, house=max(512, 4 * max_upload) * MIB,
                                pixels=max_pixels * 1_000_000, waiting=queue, batch=batch, seconds=time_limit))


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"winnow {__version__}")


def page() -> Console:
    """For tables: as wide as the terminal; in a file, where a row should be a line, as wide as a row gets."""
    console = Console(highlight=False, emoji=False)
    return console if console.is_terminal else Console(highlight=False, emoji=False, width=240)


def write_json(path: Path, content: object) -> None:
    """Write JSON as a whole or not at all."""
    from .files import as_json, replace_file  # noqa: PLC0415

    replace_file(path, lambda part: part.write_text(as_json(content, indent=2)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; errors that a message explains end without a traceback."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        app(spread([word for word in words if word != "--debug"]), prog_name="winnow")
    except Exception as error:
        if not first_to_tell():
            sys.exit(1)
        if "--debug" in words or not isinstance(error, WinnowError | FloatingPointError):
            raise
        Console(stderr=True, highlight=False, soft_wrap=True, emoji=False).print(f"winnow: {error}", markup=False)
        sys.exit(2 if isinstance(error, UsageError) else 1)


def first_to_tell() -> bool:
    """Whether no other process of the same run has told yet what went wrong; the others only follow it."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return True
    from .processes import first_to_tell as first  # noqa: PLC0415

    return first()


def spread(words: Sequence[str]) -> list[str]:
    """`--set a=1 b=2` as `--set a=1 --set b=2`, the form that the parser knows; of bench, `--model a b` and so on."""
    if words and words[0] == "bench":
        return spread_options(words)
    known: list[str] = []
    among = False
    for word in words:
        setting = re.match(r"\s*[\w.]+\s*=", word) is not None
        if among and setting and known[-1] != "--set":
            known.append("--set")
        known.append(word)
        among = word == "--set" or word.startswith("--set=") or (among and setting)
    return known


def spread_options(words: Sequence[str]) -> list[str]:
    """Several values after one option, each behind an option of its own; for a verb without other words."""
    known: list[str] = []
    option = ""
    for word in words:
        name = word.partition("=")[0]
        if name in SEVERAL:
            option = name
        elif word.startswith("-"):
            option = ""
        elif option and known[-1] != option:
            known.append(option)
        known.append(word)
    return known


if __name__ == "__main__":
    main()

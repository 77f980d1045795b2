"""Writes docs/evidence/speed.md from runs of `winnow bench`: what was typed, and what came out.

    python -m evidence.speed                   # all cases with both allocators: about an hour on two quiet cores
    python -m evidence.speed models training   # some of them; the others keep their last figures
    python -m evidence.speed --page            # only the page, from the runs that are there
    python -m evidence.speed --beside avx2     # a page of its own for another machine, speed-avx2.md

Runs are kept beside the page as speed-CASE-ALLOCATOR.json, those of another machine as speed-NAME-CASE-ALLOCATOR.json.
Times need a quiet machine; ratios forgive some other work.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs" / "evidence"
ALLOCATORS = ("system", "keep")
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Case:
    """A run worth showing: its title, and the words behind `winnow bench`."""

    title: str
    typed: str


SPARSE, DENSE = "sparse-detr-r50", "deformable-detr-two-stage-r50"
CASES = {
    "models": Case("Detection: ours, our plain path, and transformers",
                   f"--model {SPARSE} {DENSE} --precision fp32 bf16 --against torch hf"),
    "shares": Case("Shares of the tokens against the dense model of the same parts",
                   f"--model efficient-detr-r50 {SPARSE} --rho 0.1 0.2 0.3 0.4 0.5"),
    "compiled": Case("Compiled by torch.compile", f"--model {SPARSE} --rho 0.1 --precision fp32 bf16 --compile"),
    "training": Case("A training step", f"--train --size 512x512 --batch 2 --model {DENSE} {SPARSE} "
                                        f"--precision fp32 bf16 --against torch"),
}

INTRODUCTION = """\
# Speed

Medians of alternating rounds, each contender in a process of its own; [performance.md](../performance.md) says how it
is measured. Weights are random. "Against torch" and "against hf" say how many times as long our plain path and
transformers' model took, with the least and the most of the rounds in brackets. Shares of an encoder are taken within
each round, too, or of the medians where no range stands behind them. In brackets behind a stage's
milliseconds stands how many times this machine's floor that is. Written by

    python -m evidence.speed
"""


def measure(stem: str, name: str, allocator: str, rounds: int) -> None:
    """Run a case, and keep what it found with the day it was found on."""
    file = kept(stem, name, allocator)
    words = [*CASES[name].typed.split(), "--allocator", allocator, "--rounds", str(rounds), "--json", str(file)]
    print("winnow bench", *words, flush=True)
    subprocess.run([sys.executable, "-m", "winnow.cli", "bench", *words], check=True, cwd=ROOT)
    found = json.loads(file.read_text(encoding="utf-8")) | {"date": date.today().isoformat()}
    file.write_text(json.dumps(found, indent=1), encoding="utf-8")


def kept(stem: str, name: str, allocator: str) -> Path:
    """Where a run is."""
    return DOCS / f"{stem}-{name}-{allocator}.json"


def page(stem: str) -> str:
    """Every case that was run."""
    parts = [INTRODUCTION]
    for name, case in CASES.items():
        runs = {allocator: json.loads(kept(stem, name, allocator).read_text(encoding="utf-8"))
                for allocator in ALLOCATORS if kept(stem, name, allocator).is_file()}
        if runs:
            parts.append(f"## {case.title}\n")
        for allocator, run in runs.items():
            parts += section(case, allocator, run)
    return "\n".join(parts)


def section(case: Case, allocator: str, run: Mapping[str, Any]) -> Iterator[str]:
    """One run: command, machine, totals, stages, what else follows."""
    machine, rows = run["machine"], run["rows"]
    products = ", ".join(f"{precision} {max(rates.values()):.0f}"
                         for precision, rates in run["rates"]["products"].items())
    yield f"    winnow bench {case.typed} --allocator {allocator} --rounds {run['settings']['rounds']}\n"
    yield (f"{run['date']}, {machine['cpu']} ({' '.join(machine['flags'])}), {run['threads']} threads, load "
           f"{machine['load']} before; torch {run['torch']}; {products} billion multiply-adds a second, copies "
           f"{run['rates']['copy']:.0f} GB/s.\n")
    yield table(totals(rows))
    yield table(stages(rows))
    if any(each["rho"] < 1 for each in rows) and not any(each["train"] for each in rows):
        yield from shares(rows)
    yield from differences(rows)


def totals(rows: Rows) -> list[list[str]]:
    """Times, memory and ratios."""
    against = list(dict.fromkeys(name for each in rows for name in each["ratio"]))
    lines = [["", "ms", "least - most", "MB", "page faults", *(f"against {name}" for name in against)]]
    for each in rows:
        time = each["latency_ms"]
        ratios = [each["ratio"].get(name) for name in against]
        lines.append([title(each), f"{time['median']:.0f}", f"{time['min']:.0f} - {time['max']:.0f}",
                      f"{each['memory_mb']:.0f}", f"{each['page_faults']:.0f}",
                      *(f"{one['median']:.2f} ({one['min']:.2f} - {one['max']:.2f})" if one else "" for one in ratios)])
    return lines


def stages(rows: Rows) -> list[list[str]]:
    """Milliseconds by stage, and the distance to the floor."""
    names = list(dict.fromkeys(stage for each in rows for stage in each["latency_ms"]["stages"]))
    lines = [["", *names]]
    for each in rows:
        times, above = each["latency_ms"]["stages"], each["distance"]
        lines.append([title(each), *(f"{times[name]:.0f}" + (f" ({above[name]:.1f})" if name in above else "")
                                     if name in times else "" for name in names)])
    return lines


def shares(rows: Rows) -> Iterator[str]:
    """How the encoder's time follows the share of the tokens."""
    for dense in rows:
        if dense["rho"] < 1 or dense["form"] != "winnow":
            continue
        whole = took(dense, "encoder")
        found = [f"rho {each['rho']:g}: {share(took(each, 'encoder'), whole)}, with scoring "
                 f"{share(took(each, 'encoder', 'scoring'), whole)}" for each in rows
                 if each["rho"] < 1 and all(each[key] == dense[key] for key in ("form", "precision", "size", "batch"))]
        if found:
            yield f"The encoder ({dense['precision']}), as a share of that of {dense['name']}: {'; '.join(found)}.\n"


def took(row: Mapping[str, Any], *stages: str) -> list[float]:
    """Milliseconds of these stages together, round by round; of runs that kept no more, those of the medians."""
    time = row["latency_ms"]
    times = time.get("stage_samples") or {stage: [each] for stage, each in time["stages"].items()}
    return [sum(each) for each in zip(*(times[stage] for stage in stages if stage in times), strict=True)]


def share(part: Sequence[float], whole: Sequence[float]) -> str:
    """The median of the rounds, the least and the most."""
    found = [mine / each for mine, each in zip(part, whole, strict=False)]  # one may have been lost before the other
    spread = f" ({min(found):.3f} - {max(found):.3f})" if len(found) > 1 else ""
    return f"{statistics.median(found):.3f}{spread}"


def differences(rows: Rows) -> Iterator[str]:
    """How far results differ from those of the baselines."""
    lines = [["", "from", "median pixels", "most pixels", "kept tokens in common", "first loss"]]
    for each in rows:
        for name, found in each["difference"].items():
            if found:
                pixels = found.get("boxes_px")
                lines.append([title(each), name, f"{pixels['median']:.2g}" if pixels else "",
                              f"{pixels['max']:.2g}" if pixels else "",
                              f"{found['tokens_in_common']:.1%}" if "tokens_in_common" in found else "",
                              f"{found['loss']:.1e}" if "loss" in found else ""])
    if lines[1:]:
        yield "How far results differ:\n"
        yield table(lines)


def title(row: Mapping[str, Any]) -> str:
    """A contender in a few words."""
    share = f" rho {row['rho']:g}" if row["rho"] < 1 else ""
    return f"{row['name']}{share} {row['precision']}"


def table(lines: Sequence[Sequence[str]]) -> str:
    """Rows of cells as Markdown, the first of them the heading."""
    marks = "|---|" + "---:|" * (len(lines[0]) - 1)
    head, *rest = ("| " + " | ".join(line) + " |" for line in lines)
    return "\n".join([head, marks, *rest]) + "\n"


def main() -> None:
    """Run what was asked for, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; by default all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--page", action="store_true", help="only write the page")
    parser.add_argument("--beside", metavar="NAME", help="write the page of another machine, speed-NAME.md")
    asked = parser.parse_args()
    stem = f"speed-{asked.beside}" if asked.beside else "speed"
    unknown = sorted(set(asked.cases) - set(CASES))
    if unknown:
        parser.error(f"there is no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    for name in [] if asked.page else asked.cases or list(CASES):
        for allocator in ALLOCATORS:
            measure(stem, name, allocator, asked.rounds)
    (DOCS / f"{stem}.md").write_text(page(stem), encoding="utf-8")
    print(f"written: docs/evidence/{stem}.md")


if __name__ == "__main__":
    main()

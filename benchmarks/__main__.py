"""`python -m benchmarks`: measure, print, and hold the figures against their bars."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks import epochs, growth, memory, overhead, startup, steps, validation
from benchmarks.report import Section, around_markers, document, write_between_markers
from benchmarks.timing import Run

GROUPS: dict[str, Callable[[Run], Section]] = {
    "step": steps.measure,
    "epoch": epochs.measure,
    "overhead": overhead.measure,
    "memory": memory.measure,
    "growth": growth.measure,
    "validation": validation.measure,
    "startup": startup.measure,
}


def arguments(args: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--rows", nargs="+", choices=GROUPS, default=list(GROUPS), help="groups to measure, all if left"
    )
    parser.add_argument("--quick", action="store_true", help="few rounds of small things, to see that it works")
    parser.add_argument("--rounds", type=int, help="rounds of every group")
    parser.add_argument("--steps", type=int, default=600, help="steps of the timed epoch")
    parser.add_argument("--data", metavar="ROOT", help="folder of MNIST for the timed epoch; random images if left")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="threads of the CPU")
    parser.add_argument("--check", action="store_true", help="fail if a bar is exceeded, and name it")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write medians and quartiles, s or bytes")
    parser.add_argument("--write", type=Path, metavar="PATH", help="replace what stands between the file's markers")
    options = parser.parse_args(args)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU here")
    if options.write is not None:
        try:
            around_markers(options.write)  # now rather than after all the measuring
        except ValueError as error:
            parser.error(f"--write {error}")
    return options


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    options = arguments(args)
    torch.set_num_threads(options.threads)
    run = Run(torch.device(options.device), options.quick, options.rounds, options.steps, options.data)
    sections = {}
    for name in options.rows:
        print(f"measuring: {name}", file=sys.stderr, flush=True)
        sections[name] = GROUPS[name](run)
        if run.quick:
            sections[name].bars.clear()  # they are of the full measurement
    text = document(sections.values(), run)
    print(text)
    if options.json is not None:
        raw = {name: {key: asdict(spread) for key, spread in s.raw.items()} for name, s in sections.items()}
        options.json.write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
    if options.write is not None:
        write_between_markers(options.write, text)
    exceeded = [bar for section in sections.values() for bar in section.bars if not bar.met]
    if options.check:
        for bar in exceeded:
            print(f"exceeded: {bar.name}: {bar.measured:.3f}, and the limit is {bar.limit:.2f}", file=sys.stderr)
    return 1 if options.check and exceeded else 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m adv_lightning.paper`: the paper, number by number."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

RESULTS, RUNS = Path("results"), Path("paper_runs")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m adv_lightning.paper",
        description="Goodfellow, Shlens & Szegedy (2015), number by number: run it, report it, draw its figures.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser(
        "run",
        help="train and evaluate what a claim needs: run softmax.fgsm --data.root DIR",
        description="Train and evaluate what claims need, write the results and print them beside the paper's. A "
        "finished run is not run again, and an interrupted one continues. Further --KEY VALUE arguments go to fit.",
        allow_abbrev=False,
    )
    run.add_argument(
        "ids", nargs="*", metavar="ID", help="claims, such as softmax.fgsm, or names of single runs; --list shows all"
    )
    run.add_argument("--list", action="store_true", help="print all ids with their costs")
    run.add_argument("--quick", action="store_true", help="only runs of seconds, one seed each")
    run.add_argument("--seed", nargs="+", type=int, metavar="N", help="seeds in place of the claim's own")
    run.add_argument("--data.root", dest="data", type=Path, default=Path("data"), help="folder of the data (data)")
    run.add_argument("--runs", type=Path, default=RUNS, help=f"folder for the runs ({RUNS})")
    run.add_argument(
        "--out",
        type=Path,
        help=f"folder for the results; default: {RESULTS}, or results in --runs with --quick or further arguments",
    )
    report = commands.add_parser("report", help="print the table, or write it into files")
    report.add_argument("--results", type=Path, default=RESULTS, help=f"folder of results ({RESULTS})")
    report.add_argument("--write", nargs="+", type=Path, metavar="FILE", help="files with the table's markers")
    figures = commands.add_parser("figures", help="draw figures 2 to 5 as PNG files")
    figures.add_argument("--out", type=Path, default=Path("paper_figures"), help="folder to draw into (paper_figures)")
    figures.add_argument("--runs", type=Path, default=RUNS, help=f"folder of the runs of `run` ({RUNS})")
    figures.add_argument(
        "--checkpoints",
        nargs="+",
        default=[],
        metavar="NAME=PATH",
        help="other checkpoints for logistic, maxout_plain or maxout_adv",
    )
    figures.add_argument("--data.root", dest="data", type=Path, default=Path("data"), help="folder of the data (data)")
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line `words`, by default `sys.argv[1:]`, and return the exit status."""
    parser = _parser()
    options, further = parser.parse_known_args(words)
    if further and options.command != "run":
        parser.error(f"unrecognized arguments: {' '.join(further)}")
    try:
        return _report(options) if options.command == "report" else _work(options, further)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


def _report(options: argparse.Namespace) -> int:
    from rich.console import Console

    from adv_lightning.paper.claims import load
    from adv_lightning.paper.report import rows, show, write
    from adv_lightning.paper.results import Results

    if not options.results.is_dir():
        raise ValueError(f"--results {options.results}: there is no such folder")
    paper, results = load(), Results(options.results)
    if options.write is None:
        show(list(rows(paper, results)), Console())
    for path in options.write or ():
        write(path, paper, results)
    return 0


def _work(options: argparse.Namespace, further: Sequence[str]) -> int:
    if options.command == "figures":
        from adv_lightning.paper.figures import draw_all

        draw_all(options.out, options.runs, options.checkpoints, options.data)
        return 0
    from adv_lightning.paper.run import list_claims, run_claims

    if options.list:
        list_claims()
        return 0
    if bool(options.ids) == options.quick:
        raise ValueError("run: give claims, such as softmax.fgsm, or --quick, but not both; --list shows all ids")
    aside = options.quick or bool(further)
    out = options.out or (options.runs / "results" if aside else RESULTS)
    run_claims(options.ids, options.seed, options.data, options.runs, out, list(further), quick=options.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The verbs of the `lbt` command and their arguments."""

import argparse
from typing import Any

from lbt.cli import execute

DESCRIPTION = "Large-batch training: sweep optimizers, batch sizes and learning rates; regenerate published tables."

TRAIN_HELP = """\
train one configuration, or with -m a sweep of them:
  lbt train optimizer=tvlars batch=16384
  lbt train -m +experiment=quickstart
  lbt train --help shows every setting"""


def parser() -> argparse.ArgumentParser:
    """Returns what reads the command line; each verb has its function as `run`."""
    parser = argparse.ArgumentParser("lbt", description=DESCRIPTION, formatter_class=argparse.RawTextHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("train", help=TRAIN_HELP)
    init = verbs.add_parser("init", help="write a small folder of your own to begin with, for --config-dir")
    init.add_argument("folder", metavar="DIR")
    init.set_defaults(run=execute.init)
    _add_reports(verbs)
    _add_runs(verbs)
    return parser


def _add_reports(verbs: Any) -> None:
    """Adds the verbs that read records and write tables, figures and pages."""
    tables = verbs.add_parser("tables", help="write tables from the records: <results>/tables/<name>.md, .tex and .csv")
    tables.add_argument(
        "names", nargs="*", metavar="NAME", help="tables to write, or sweeps; default: all tables that have a run"
    )
    plots = verbs.add_parser("plots", help="draw figures from the records: <results>/figures/<name>.svg and .png")
    plots.add_argument(
        "names", nargs="*", metavar="NAME", help="figures to draw, or sweeps; default: all figures that have a run"
    )
    about = "write <results>/AUDIT.md: paper against released code, and what each difference does alone"
    audit = verbs.add_parser("audit", help=about)
    why = verbs.add_parser("why", help="write <results>/WHY.md: curvature and gradient noise, claims and verdicts")
    about = "the reality check: write its page, tables and figures; or choose trials"
    reality = verbs.add_parser("reality", help=about)
    about = "a study of configs/reality, default: all with runs; choose: write its chosen trials, <results>/reality/"
    reality.add_argument("words", nargs="*", metavar="[choose] STUDY", help=about)
    answer = verbs.add_parser("answer", help="say which optimizer the evidence favours, by workload and batch")
    about = "settings of the runs to look at, e.g. batch=4096 data=cifar10, or names of sweeps; default: all"
    answer.add_argument("words", nargs="*", metavar="SETTING=VALUE", help=about)
    about = "write <results>/index.html: everything in one file that a browser opens, without server or network"
    report = verbs.add_parser("report", help=about)
    report.add_argument("folder", nargs="?", metavar="DIR", help="the results, as --results-dir")
    _add_layout(tables)
    _add_layout(plots)
    runs = (execute.tables, execute.plots, execute.audit, execute.why, execute.reality, execute.answer, execute.report)
    for verb, run in zip((tables, plots, audit, why, reality, answer, report), runs, strict=True):
        _add_results_dir(verb)
        _add_config_dir(verb)
        verb.set_defaults(run=run)


def _add_runs(verbs: Any) -> None:
    """Adds the verbs that look at runs."""
    status = verbs.add_parser("status", help="show which runs are done, running, diverged, failed or missing")
    about = "names of sweeps, or a grid as for lbt train, e.g. +experiment=quickstart; default: list what is recorded"
    status.add_argument("words", nargs="*", metavar="NAME|OVERRIDE", help=about)
    about = "follow it, looking every so many seconds (default: 5), until Ctrl-C or a grid's end"
    status.add_argument("--watch", nargs="?", const="", metavar="SECONDS", help=about)
    _add_results_dir(status)
    profile = verbs.add_parser("profile", help="show where a run's time goes and what limits it; records nothing")
    profile.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="as for lbt train, e.g. batch=4096")
    profile.add_argument("--images", type=_count, metavar="N", help="images an epoch; default: all, on a CPU 2,048")
    profile.add_argument("--epochs", type=_count, default=1, metavar="N", help="timed epochs; default: %(default)s")
    evaluate = verbs.add_parser("evaluate", help="score the weights that a run has kept; records nothing")
    evaluate.add_argument("run_id", metavar="RUN", help="an id, its beginning, or a .safetensors file")
    about = "data=... or settings of the data, device=..., precision=...; default: the run's own"
    evaluate.add_argument("overrides", nargs="*", metavar="OVERRIDE", help=about)
    _add_results_dir(evaluate)
    landscape = _add_landscape(verbs)
    _add_results_dir(landscape)
    for verb, run in (
        (status, execute.status),
        (profile, execute.profile),
        (evaluate, execute.evaluate),
        (landscape, execute.landscape),
    ):
        _add_config_dir(verb)
        verb.set_defaults(run=run)
    verify = verbs.add_parser("verify", help="check the records, and repeat the first epochs of one here")
    verify.add_argument("run_id", nargs="?", metavar="RUN", help="an id or its beginning; default: the cheapest one")
    verify.add_argument("--epochs", type=_count, default=1, metavar="N", help="to repeat; default: %(default)s")
    verify.add_argument("--data-root", metavar="DIR", help="the folder with its data, as data.root")
    verify.add_argument("--write-manifest", action="store_true", help="vouch for the records as they are now")
    _add_results_dir(verify)
    _add_config_dir(verify)
    verify.set_defaults(run=execute.verify)


def _add_landscape(verbs: Any) -> argparse.ArgumentParser:
    about = "draw the loss between the kept weights of two runs, or around those of one"
    landscape = verbs.add_parser("landscape", help=about)
    about = "one or two ids, their beginnings, or .safetensors files; then settings as for lbt evaluate: data.root=..."
    landscape.add_argument("words", nargs="+", metavar="RUN|OVERRIDE", help=about)
    about = "of one run: lines of equal loss over two random directions, in place of curves"
    landscape.add_argument("--plane", action="store_true", help=about)
    about = "random directions of one run; default: %(default)s"
    landscape.add_argument("--directions", type=_count, default=3, metavar="N", help=about)
    landscape.add_argument("--points", type=_count, metavar="N", help="on each axis; default: 21, of a plane 11")
    about = "ends of each axis; default: -0.5 1.5 between runs, -1 1 around one"
    landscape.add_argument("--span", type=float, nargs=2, metavar=("LOW", "HIGH"), help=about)
    about = "of the training and of the test set, stratified draws; default: %(default)s"
    landscape.add_argument("--images", type=_count, default=1000, metavar="N", help=about)
    landscape.add_argument("--seed", type=int, default=0, metavar="N", help="of draws and directions; default: 0")
    about = "its running statistics at each point; default: %(default)s, kept: on the line as the weights"
    choices = ("re-estimated", "kept")
    landscape.add_argument("--batch-norm", choices=choices, default="re-estimated", help=about)
    return landscape


def _add_results_dir(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--results-dir", default="results", metavar="DIR", help="default: %(default)s")


def _add_layout(verb: argparse.ArgumentParser) -> None:
    """Adds what a sweep without a file of its own is shown by; otherwise it is chosen from what varies."""
    shown = verb.add_argument_group("of a sweep that no file describes")
    for name, about in (
        ("rows", "rows; of a figure its axis"),
        ("columns", "columns; lines"),
        ("best", "best of these"),
    ):
        shown.add_argument(f"--{name}", type=_words, default=(), metavar="SETTING,...", help=about)
    shown.add_argument("--metric", metavar="NAME", help="e.g. test_loss; default: the task's leading one")


def _words(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.split(",")))


def _add_config_dir(verb: argparse.ArgumentParser) -> None:
    about = "a folder of your own, whose files stand beside lbt's; default: $LBT_CONFIG_DIR"
    verb.add_argument("--config-dir", metavar="DIR", help=about)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number, 1 or more")
    return int(text)

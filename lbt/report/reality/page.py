"""`results/REALITY_CHECK.md` with its tables and figures, from the records alone."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lbt.errors import UserError
from lbt.records import replace_file
from lbt.report import overview
from lbt.report.frame import load, refuse_missing
from lbt.report.kit.backend import import_matplotlib
from lbt.report.kit.render import markdown_list
from lbt.report.kit.wording import stands_on
from lbt.report.reality import study, tables
from lbt.report.reality.results import TABLES, Results, gather
from lbt.report.reality.verdict import verdict

PAGE = "REALITY_CHECK.md"

HEAD = """\
# The reality check: does a tuned generic optimizer suffice?

Nado et al., *A Large Batch Optimizer Reality Check* (arXiv 2102.06356), asked this of ResNet-50 on ImageNet. Here every
optimizer gets the same number of quasi-random trials from a stated space (`configs/space`), a validation split chooses,
and fresh seeds of the chosen configuration are scored on test data. All figures are this project's own; none is the
paper's. A run that diverged, failed or ran out of memory counts as guessing (100/classes %, or what the study says) and
among the diverged, in tuning and in the final runs; infeasible are such trials and those that end at chance (no more
than three binomial standard errors above guessing; of a loss, no better than it).

A verdict compares two: the generic and the layer-wise optimizer that did best in tuning, by validation data. The
generic one exceeds the other where the interval of the shift is above zero and the corrected p below 0.05; it suffices
where the interval is above minus the margin; it falls short where the interval is below zero, be it by less than the
margin, and the corrected p below 0.05. Of a loss, above means below. Until all planned seeds are there, none is given.
"""

CAPTIONS = {
    "summary": "Final runs and tuning. Intervals: of the median, exact (sign test), none of fewer than six seeds. "
    "Steps to target: median over seeds, of two middle ones the later, counted at the ends of epochs; never where half "
    "of the runs or more do not get there, or diverge later. On the edge: chosen values within 5 % of a bound of their "
    "range; the space may be too small there.",
    "pairs": "Shifts (Hodges-Lehmann: the median of all differences of two seeds), exact rank interval, two-sided "
    "Mann-Whitney p (exact for up to 8 seeds a side), corrected by Holm's method for all pairs of the study's "
    "contestants at a batch, those still missing included.",
    "best_of_k": "",  # the figure shows it
    "ablations": "Each ablated configuration, one change at a time: shifts and exact rank intervals, not corrected for "
    "their number.",
    "chosen": "The chosen settings, by `lbt reality choose`.",
}


def write(names: Sequence[str], results_dir: str | Path) -> int:
    """Writes the page, and each study's tables and figures, and returns the exit code.

    Args:
        names: studies; none: all that have a record.
        results_dir: where the records are.

    Raises:
        UserError: no such study or folder, no record of any, or records that cannot be compared.
    """
    results_dir = Path(results_dir)
    wanted = [study.read(name) for name in names or study.names()]
    refuse_missing(results_dir)
    frame = load(results_dir)
    gathered = [gather(one, frame, results_dir) for one in wanted]
    gathered = [results for results in gathered if results.trials or results.finals or names]
    if not any(results.trials or results.finals for results in gathered):
        raise UserError("no trial of a study yet; lbt train -m +experiment=reality_check_tune makes them")
    parts = [HEAD]
    for results in gathered:
        for problem in results.notes:
            print(problem, file=sys.stderr)
        parts += _section(results, results_dir)
    replace_file(results_dir / PAGE, ("\n".join(parts).rstrip() + "\n").encode())
    overview.write(results_dir)
    print(results_dir / PAGE)
    return 0


def _section(results: Results, results_dir: Path) -> list[str]:
    one = results.study
    parts = [f"## {one.title}", "", one.about.strip(), "", *_standing(results), "", "### Verdict", ""]
    for batch in one.batches:
        sentence = verdict(results, batch).sentence
        parts.append(f"- Batch {batch:,}: {sentence}")
        print(f"{one.name}, batch {batch}: {sentence}")
    parts.append("")
    folder = results_dir / "tables"
    folder.mkdir(exist_ok=True)
    for name, make in TABLES.items():
        rows = make(results)
        if not rows:
            continue
        files = tables.files(rows, results.measure.digits)
        for ending, text in files.items():
            replace_file(folder / f"{one.name}_{name}.{ending}", text.encode())
        if CAPTIONS[name]:
            parts += [CAPTIONS[name], "", files["md"]]
    import_matplotlib()
    from lbt.report.reality.figures import draw  # only here, so that a mistake does not wait for it

    for name, caption in draw(results, results_dir / "figures").items():
        parts += [f"![{caption}](figures/{name}.svg)", "", f"{caption}.", ""]
    if results.notes:
        parts += ["Notes:", "", *markdown_list(results.notes), ""]
    return parts


def _standing(results: Results) -> list[str]:
    """Returns what the figures stand on: data, length, precision, machines and versions, and the rule."""
    kinds = {
        "Tuning": [trials.runs for trials in results.trials.values()],
        "Final runs": [final.runs for final in results.finals],
    }
    lines = []
    for kind, frames in kinds.items():
        if frames:
            runs = pd.concat(frames)
            epochs = ", ".join(sorted(set(runs["epochs"].astype(str))))
            lines.append(stands_on(runs.__getitem__, f"{kind}: {len(runs)} runs, {epochs} epochs of"))
    one, measure = results.study, results.measure
    best = "highest" if measure.metric.higher_is_better else "lowest"
    metric, epoch = one.rule.metric.replace("_", " "), "last" if one.rule.epoch == "last" else "best"
    target, margin = f"{one.target:g}{measure.unit}", f"{one.margin:g}{measure.unit and f' {measure.difference}'}"
    lines.append(f"Rule: the {best} {metric}, {epoch} epoch; on test data target {target}, margin {margin}.")
    if one.chance is not None:
        lines.append(f"Guessing: {measure.text(one.chance)}{measure.unit}; a worse figure counts as that.")
    return markdown_list(lines)

"""Reports on language: the public BERT schedule's figure, fine-tuning by what was pre-trained, published F1 apart."""

import csv
import io
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
from planted import plant
from support import configure

from lbt import records, runtime
from lbt.metrics import declared_by
from lbt.report.claims.explanations_table import ExplanationsTable
from lbt.report.figures.kinds import KINDS
from lbt.report.figures.spec import Spec
from lbt.report.frame import load
from lbt.report.kit import render, specs
from lbt.report.kit.statistics import chance, value_of
from lbt.report.kit.style import context
from lbt.report.page.content import _stands
from lbt.report.page.figures import _chart
from lbt.report.tables import make
from lbt.tasks import TASKS

PUBLISHED = {"32k": (91.48, 91.58), "64k-32k": (90.58, 91.04), "64k": (None, 90.46)}  # F1 of LAMB and Adam

TEXT = {"token_size": [8192, 64]}


@cache
def config(*overrides):
    return runtime.settle(configure(*overrides))


def finetuned(folder):
    """Plants two pre-trainings and fine-tunings from them; returns the accuracies by optimizer."""
    found = {"adamw": [80.0, 90.0], "lamb": [70.0, 72.0]}
    for optimizer, accuracies in found.items():
        words = (f"optimizer={optimizer}", "batch=4096")
        tuned = config("+experiment=reality_check_text_tune", *words)
        origin = plant(folder, tuned, None, lines=[{}] * 60, made_by=TEXT)
        weights = {"sha256": optimizer * 10, "run": records.read(origin).run["id"]}
        for seed, accuracy in enumerate(accuracies):
            plant(
                folder,
                replace(config("+experiment=bert_finetune"), init_from=weights, seed=seed),
                accuracy,
                lines=[{"val_accuracy": accuracy}] * 3,
                made_by=TEXT,
            )
    return found


def test_a_run_is_placed_by_the_run_it_begins_from(tmp_path):
    found = finetuned(tmp_path)
    runs = load(tmp_path).runs
    tuned = runs[runs["experiment"] == "bert_finetune"]
    for optimizer, accuracies in found.items():
        own = tuned[(tuned["init_from.optimizer"] == optimizer) & (tuned["init_from.batch"] == 4096)]
        assert sorted(one["test_accuracy"] for one in own["summary"]) == accuracies
    assert runs[runs["experiment"] != "bert_finetune"]["init_from.optimizer"].isna().all()


def test_a_text_s_fingerprint_is_of_tokens(tmp_path):
    finetuned(tmp_path)
    runs = load(tmp_path).runs
    assert {one["samples"] for one in _stands(runs)} == {"tokens"}
    assert "(tokens " in explained(runs) and "pixels" not in explained(runs)


def explained(runs):
    """The caption of an explanations' table over these runs."""
    chosen = {"select": {"experiment": sorted(set(runs["experiment"]))}}
    table = SimpleNamespace(runs=runs, spec={"sources": {"ours": chosen}}, arms={"ours": SimpleNamespace(probe={})})
    return ExplanationsTable.caption(table, "ours")


def test_fine_tuning_is_drawn_by_what_was_pre_trained(tmp_path):
    found = finetuned(tmp_path)
    with context():
        figure = KINDS["lines"](Spec(**specs.read("figure", "bert_finetune")), load(tmp_path))
    drawn = [sorted(line.get_ydata()) for line in figure.axes[0].lines]
    assert KINDS["lines"](Spec(**specs.read("figure", "bert_finetune")), load(tmp_path / "none")) is None
    assert all(accuracies in drawn and [np.mean(accuracies)] in drawn for accuracies in found.values())


def test_the_page_draws_it_too(tmp_path):
    finetuned(tmp_path)
    chart = _chart("bert_finetune", Spec(**specs.read("figure", "bert_finetune")), load(tmp_path))["chart"]
    assert sum(len(panel["points"]) for panel in chart["panels"]) == 2


def test_published_f1_stands_apart_from_our_accuracies(tmp_path):
    finetuned(tmp_path)
    table = make("bert_squad", load(tmp_path))
    published, ours = table.page().sections
    for row in published.rows:
        label, *entries = (entry.text for entry in row)
        shown = ["not at hand" if value is None else f"{value:.2f}" for value in PUBLISHED[label]]
        assert entries == [*shown, "not run", "not run"]
    text = render.markdown(table.page())
    assert "| 4096 | 85.00 ± 7.07 (n=2) | 71.00 ± 1.41 (n=2) | - | - |" in text
    assert not any(entry.kind == "published" for row in ours.rows for entry in row)
    rows = list(csv.DictReader(io.StringIO(table.csv())))
    theirs = [row for row in rows if row["published"]]
    assert {row["measure"] for row in theirs} == {specs.read("table", "bert_squad")["beside"]["measure"]}
    known = [value for pair in PUBLISHED.values() for value in pair if value is not None]
    assert [float(row["published"]) for row in theirs] == known and not any(row["mean"] for row in theirs)


def test_the_drawn_schedules_are_those_that_train_and_meet_the_recipes(tmp_path):
    spec = Spec(**specs.read("figure", "bert_schedules"))
    with context():
        figure = KINDS["phases"](spec, load(tmp_path))
    for axes, phases in zip(figure.axes, spec.options["recipes"].values(), strict=True):
        intended, public = (np.array(line.get_ydata()) for line in axes.lines)
        assert len(intended) == len(public) == sum(phase["updates"] for phase in phases)
        start = 0
        for phase in phases:
            warm, updates, lr = phase["warmup"], phase["updates"], phase["lr"]
            assert intended[start + warm - 1] == pytest.approx(lr)
            assert public[start + warm] == pytest.approx(lr * (1 - warm / updates))
            start += updates


def test_guessing_tokens_is_not_guessing_among_the_datas_classes():
    run = {"status": "diverged", "summary": {}, "classes": 4, "metrics": declared_by(TASKS["masked_language"])}
    assert chance(run, "test_masked_accuracy") is None and value_of(run, "test_masked_accuracy") is None
    run["metrics"] = declared_by(TASKS["sequence_classification"])
    assert chance(run, "test_accuracy") == value_of(run, "test_accuracy") == 25.0

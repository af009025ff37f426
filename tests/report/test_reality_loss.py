"""A study by a metric that is better the lower it is: what it chooses, what it counts, which way its verdict goes."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from planted import plant
from support import configure

from lbt import runtime
from lbt.errors import UserError
from lbt.report.frame import load
from lbt.report.page.study import _study
from lbt.report.reality import selection, study
from lbt.report.reality.figures import draw
from lbt.report.reality.page import _standing
from lbt.report.reality.results import curves, gather, summary
from lbt.report.reality.verdict import verdict
from lbt.sweep.tuning import chosen_trials, space

BATCH = 512
CONTENT = {
    "title": "By loss", "about": "Planted.", "tune": "mine_tune", "final": "mine_final", "batches": [BATCH, 1024],
    "contestants": ["nesterov", "lars", "lamb"], "rule": {"metric": "val_loss"}, "generic": ["nesterov"],
    "layerwise": ["lars", "lamb"], "margin": 0.05, "target": 1.5, "chance": 2.3, "schedules": ["lars"],
    "ablate": "nesterov",
}  # fmt: skip


@cache
def settings(optimizer, *overrides):
    words = ("schedule=warmup_polynomial", "lr_scaling=none", "epochs=2", "precision=fp32", *overrides)
    return runtime.settle(configure(f"optimizer={optimizer}", *words))


class Planted:
    """The records of a study by loss."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.study = folder, study.parse("mine", CONTENT)
        monkeypatch.setattr(selection, "read", lambda name: self.study)

    def write(self, config, metric, figure):
        lines = [{metric: 2.29}, {metric: figure}]
        plant(self.folder, config, [None, None], status="diverged" if figure is None else "done", lines=lines)

    def tune(self, optimizer, figures, *overrides):
        for number, figure in enumerate(figures):
            config = replace(settings(optimizer, f"batch={BATCH}", *overrides), lr=0.1 + number)
            self.write(replace(config, experiment="mine_tune", study={"trial": number}), "val_loss", figure)

    def final(self, optimizer, figures, origin):
        for seed, figure in enumerate(figures, 1):
            config = replace(settings(optimizer, f"batch={BATCH}"), experiment="mine_final", seed=seed)
            self.write(replace(config, study={"chosen": origin}), "test_loss", figure)

    def choose(self):
        assert selection.choose("mine", self.folder) == 0
        return {one.optimizer: one for one in chosen_trials.read(chosen_trials.path_of(self.folder, "mine"))}

    def results(self):
        return gather(self.study, load(self.folder), self.folder)

    def compared(self, nesterov, lars):
        self.tune("nesterov", [1.6, 1.2, 1.4])
        self.tune("lars", [1.9, 1.3, None])
        self.tune("lamb", [1.8, 2.1, 1.7])
        picked = self.choose()
        self.final("nesterov", nesterov, picked["nesterov"].id)
        self.final("lars", lars, picked["lars"].id)
        self.final("lamb", normal(2.0), picked["lamb"].id)
        return verdict(self.results(), BATCH)


@pytest.fixture
def planted(tmp_path, monkeypatch):
    return Planted(tmp_path, monkeypatch)


def normal(mean, seed=0, spread=0.01, n=5):
    return np.random.default_rng([seed, round(mean * 100)]).normal(mean, spread, n).tolist()


@pytest.mark.parametrize(
    ("nesterov", "lars", "decision", "words"),
    [
        (normal(1.2), normal(1.4), "exceeds", "tuned nesterov exceeds lars: nesterov (1."),
        (normal(1.4), normal(1.2), "falls short", "tuned nesterov falls short of lars"),
        (normal(1.22, spread=0.004), normal(1.2, spread=0.004), "suffices", "less than 0.05 in loss above lars"),
        (normal(1.2), [None] * 5, "not decided", "5 of 5 runs of lars do not train, which is no gain"),
        (normal(1.2), [2.35] * 5, "not decided", "5 of 5 runs of lars do not train, which is no gain"),
    ],
)
def test_the_lower_loss_wins(planted, nesterov, lars, decision, words):
    found = planted.compared(nesterov, lars)
    assert (found.decision, words in found.sentence) == (decision, True), found.sentence
    shift = np.median(np.subtract.outer(nesterov, [2.3 if one in (None, 2.35) else one for one in lars]))
    assert f"shift {shift:+.3f} in loss, exact 95 % interval" in found.sentence


def test_the_lowest_trial_is_chosen_and_guessing_counts_as_the_study_says(planted, capsys):
    planted.tune("nesterov", [1.6, None, 1.2, 2.5, 1.2])  # 2.5 is worse than guessing
    one = planted.choose()["nesterov"]
    assert (one.trial, one.score, one.trials, one.infeasible) == (2, 1.2, 5, 2)
    assert "nesterov at batch 512: trial 2 of 5, 1.200;" in capsys.readouterr().out
    found = planted.results()
    assert sorted(found.trials["nesterov", BATCH].scores) == [1.2, 1.2, 1.6, 2.3, 2.3]
    expected = [row["expected"] for row in curves(found)]
    assert expected[0] == pytest.approx(np.mean([1.2, 1.2, 1.6, 2.3, 2.3])) and expected[-1] == 1.2
    assert expected == sorted(expected, reverse=True)
    assert all(low <= high for low, high in (row["10 % to 90 %"] for row in curves(found)))


def test_the_best_epoch_is_the_lowest(planted):
    rule = replace(planted.study.rule, epoch="best")
    planted.study = replace(planted.study, rule=rule)
    planted.write(
        replace(settings("lars", f"batch={BATCH}"), experiment="mine_tune", study={"trial": 0}), "val_loss", 3.0
    )
    assert planted.results().trials["lars", BATCH].scores == [2.29]


def test_tables_page_and_figures_are_in_the_metrics_own_words(planted, tmp_path):
    planted.compared(normal(1.2), normal(1.55))
    results = planted.results()
    rows = {row["optimizer"]: row for row in summary(results)}
    assert rows["nesterov"]["median"] == pytest.approx(np.median(normal(1.2))) and "median %" not in rows["nesterov"]
    assert (rows["nesterov"]["at the target"], rows["nesterov"]["steps to target"]) == ("100 %", 2)
    assert rows["lars"]["at the target"] == "0 %" and rows["lars"]["steps to target"] == float("inf")
    said = "\n".join(_standing(results))
    assert "the lowest val loss, last epoch; on test data target 1.5, margin 0.05." in said
    assert "Guessing: 2.300; a worse figure counts as that." in said
    charts = {chart["kind"]: chart for chart in _study(results)["charts"]}
    assert (charts["boxes"]["unit"], charts["boxes"]["sign"]) == ("test loss", "")
    assert charts["best_of_k"]["title"].startswith("Validation loss expected of the best")
    assert charts["intervals"]["unit"] == "difference (loss)"
    drawn = draw(results, tmp_path / "figures")
    assert drawn["mine_boxes"] == "Test loss of the final runs, every seed, and their medians"


def test_batch_sizes_may_have_lengths_of_their_own_and_runs_of_one_may_not(planted):
    planted.tune("nesterov", [1.6])
    longer = replace(settings("nesterov", "batch=1024"), epochs=3, experiment="mine_tune", study={"trial": 0})
    plant(planted.folder, longer, [None] * 3, lines=[{"val_loss": 1.5}] * 3)
    assert len(planted.results().trials) == 2
    other = replace(settings("lars", "batch=1024"), experiment="mine_tune", study={"trial": 0})
    planted.write(other, "val_loss", 1.5)
    with pytest.raises(UserError, match=r"differ in epochs \(2, 3\)"):
        planted.results()


def test_a_loss_needs_to_know_what_guessing_scores():
    with pytest.raises(UserError, match="chance is missing: what guessing scores in val_loss"):
        study.parse("mine", {key: value for key, value in CONTENT.items() if key != "chance"})


@pytest.mark.parametrize("name", study.names())
def test_a_studys_spaces_are_those_of_its_trials(name):
    one = study.read(name)
    for optimizer in one.contestants:
        assert space.of(optimizer, one.space).name == one.space.replace("*", optimizer)

"""A folder of one's own, as the verbs have it: beside lbt's files in help, completion, messages and pages."""

import math
from dataclasses import replace

import pytest
from support import TINY, configure, run_tiny
from torch import nn

import lbt
from lbt import build, records
from lbt.cli import main
from lbt.config import binding, groups
from lbt.data import SOURCES
from lbt.errors import UserError
from lbt.identity import identity
from lbt.models import MODELS
from lbt.report.audit import switch_effects
from lbt.schedules import SCHEDULES
from lbt.tasks import TASKS
from lbt.tasks.classification import Classification

OPTIMIZER = "name: lars\nlr: 0.5\nlr_scaling: none\n"
EXPERIMENT = "# @package _global_\nhydra: {sweeper: {params: {seed: '3,4'}}}\nexperiment: mine\n"
TABLE = """\
title: "Mine against yours"
about: What it shows. It says little.
select: {experiment: adhoc}
rows: [batch]
columns: [optimizer.name]
metric: test_accuracy
"""
FIGURE = """\
title: "Mine drawn"
shows: What it shows.
kind: lines
select: {experiment: adhoc}
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(groups.OWN, raising=False)


@pytest.fixture
def own(tmp_path):
    files = {"optimizer": OPTIMIZER, "experiment": EXPERIMENT, "table": TABLE, "figure": FIGURE}
    for group, text in files.items():
        (tmp_path / "own" / group).mkdir(parents=True)
        (tmp_path / "own" / group / "mine.yaml").write_text(text)
    return tmp_path / "own"


@pytest.mark.parametrize("flag", [["--config-dir", "own"], []])
def test_help_lists_ones_own_choices(own, monkeypatch, capsys, flag):
    if not flag:
        monkeypatch.setenv(groups.OWN, "own")
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--help", *flag])
    lines = capsys.readouterr().out.splitlines()
    for group in ("optimizer", "experiment", "table", "figure"):
        assert any(line.startswith(f"{group}: ") and " mine," in line for line in lines), group


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("lbt train --config-dir own +experiment=mi", {"+experiment=mine"}),
        ("lbt train -m seed=0,1 --config-dir=own optimizer=m", {"optimizer=mine", "optimizer=muon"}),
        ("lbt status --config-dir own optimizer=min", {"optimizer=mine"}),
        ("lbt tables --config-dir own tvlars_table1 m", {"mine"}),
        ("lbt plots --config-dir own m", {"mine"}),
        ("lbt tables q", {"quickstart"}),
        ("lbt train data=digits warm", {"warmup="}),
        ("lbt train +experiment=quick", {"+experiment=quickstart"}),
        ("lbt train --config-dir ", set()),  # the shell's: a folder
        ("lbt train --config-dir ow", set()),
        ("lbt train --config-dir nowhere optimizer=m", set()),
        ("lbt tra", set()),
    ],
)
def test_completion_knows_the_folder_of_the_line(own, monkeypatch, capfd, line, wanted):
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    assert main(["-sc", "query=bash"]) == 0
    out, err = capfd.readouterr()
    assert (set(out.split()), err) == (wanted, "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", *TINY, "optimizer=mien"], 'optimizer=mien: there is no optimizer "mien"; did you mean "mine"?'),
        (["status", "+experiment=mien"], 'there is no experiment "mien"; did you mean "mine"?'),
        (["profile", "optimizer=mien"], 'there is no optimizer "mien"; did you mean "mine"?'),
        (["tables", "mien"], 'there is no table, study or sweep "mien"; did you mean "mine"?'),
        (["plots", "mien"], 'there is no figure, study or sweep "mien"; did you mean "mine"?'),
    ],
)
def test_a_misspelt_name_is_told_by_ones_own(own, tmp_path, capfd, words, message):
    (tmp_path / "results").mkdir()  # in which, too, there is none of that name
    assert main([*words, "--config-dir", "own"]) == 2
    err = capfd.readouterr().err
    assert message in err and err.count("\n") == 1


@pytest.mark.parametrize("verb", ["train", "tables", "plots", "audit", "reality", "status", "profile", "verify"])
def test_every_verb_refuses_a_folder_that_is_none(verb, capfd):
    words = ["seed=0"] if verb in ("train", "status") else []
    assert main([verb, *words, "--config-dir", "nowhere"]) == 2
    assert capfd.readouterr().err.startswith("lbt: --config-dir nowhere: no such folder")
    assert main(["train", "--config-dir"]) == 2
    assert "--config-dir: expected a folder" in capfd.readouterr().err


def test_the_flag_stands_anywhere_among_the_settings(own, capsys):
    assert main(["train", "--cfg", "job", "batch=64", "--config-dir", "own", "optimizer=mine", "epochs=2"]) == 0
    said = capsys.readouterr().out
    assert "lr: 0.5" in said and "batch: 64" in said and "epochs: 2" in said


def test_ones_own_tables_and_figures_are_made_like_lbts(own, monkeypatch, capsys):
    for words in (["seed=0"], ["seed=1"], ["batch=8"]):
        run_tiny("results", "optimizer=lars", *words)
    assert main(["tables", "--config-dir", "own"]) == 0  # with nothing named
    assert "results/tables/mine.md  3 runs" in capsys.readouterr().out
    assert "(n=2)" in (own.parent / "results/tables/mine.md").read_text()
    monkeypatch.setenv(groups.OWN, str(own))
    assert main(["plots", "mine"]) == 0
    page = (own.parent / "results/README.md").read_text()
    assert "[Mine against yours](tables/mine.md)" in page and "What it shows. `lbt tables mine`" in page
    assert "### Mine drawn" in page


def test_published_figures_of_ones_own_stand_beside_ours(own, capsys):
    run_tiny("results", "optimizer=lars")
    published = "published: {file: %s, value: acc, source: A paper, keys: {batch: batch, rule: optimizer.name}}\n"
    (own / "table" / "mine.csv").write_text("batch,rule,acc\n16,lars,77.5\n32,lars,78.5\n")
    (own / "table" / "mine.yaml").write_text(TABLE + published % "mine.csv")
    assert main(["tables", "mine", "--config-dir", "own"]) == 0
    said = capsys.readouterr().out
    assert "77.50" in said and "78.50" in said and "A paper" in said
    (own / "table" / "mine.yaml").write_text(TABLE + published % "none.csv")
    assert main(["tables", "mine", "--config-dir", "own"]) == 2
    assert "own/table/none.csv: no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("table", TABLE.replace("rows: [batch]\n", ""), "table mine: rows is missing"),
        ("table", TABLE.replace("columns:", "colums:"), "table mine: columns is missing"),
        ("table", TABLE + "sektions: [seed]\n", 'table mine.sektions: no such setting; did you mean "sections"?'),
        ("table", TABLE.replace("[batch]", "batch"), "table mine.rows=batch: expected a list"),
        ("table", TABLE.replace('title: "Mine against yours"\n', ""), "table mine: title is missing"),
        ("table", "", "table mine: "),
        ("figure", FIGURE.replace("kind: lines\n", ""), "figure mine: kind is missing"),
        ("figure", FIGURE.replace("lines", "line"), 'kind=line: there is no kind "line"; did you mean "lines"?'),
        ("figure", FIGURE + "serie: batch\n", 'figure mine.serie: no such setting; did you mean "series"?'),
    ],
)
def test_a_mistake_in_ones_own_table_or_figure_is_one_line(own, capfd, file, text, message):
    (own.parent / "results" / "runs").mkdir(parents=True)
    (own / file / "mine.yaml").write_text(text)
    verb = {"table": "tables", "figure": "plots"}[file]
    assert main([verb, "mine", "--config-dir", "own"]) == 2
    err = capfd.readouterr().err
    assert message in err and err.count("\n") == 1


def test_an_experiment_by_an_audits_name_without_its_base_is_one_line(own):
    (own / "experiment" / "tvlars_audit_mine.yaml").write_text(EXPERIMENT)
    with groups.using(own), pytest.raises(UserError, match="tvlars_audit_mine: by its name it is one of lbt audit's"):
        switch_effects.grid("tvlars_audit_mine")


def test_what_a_file_leaves_out_is_what_its_code_has_and_no_other_run(own, tmp_path):
    """An id leaves out what is off: without the value, momentum 0 and the constructor's 0.9 would be one run."""
    words = [*TINY, "optimizer=mine", "epochs=1"]
    left_out, off, stated = (
        lbt.run(*words, *more, config_dir=own)
        for more in ([], ["+optimizer.momentum=0"], ["+optimizer.momentum=0.9", "+optimizer.exclude_1d=true"])
    )
    assert left_out.id == stated.id != off.id and not off.recorded_before
    config = records.read(left_out.path).run["config"]["optimizer"]
    assert (config["momentum"], config["exclude_1d"]) == (0.9, True)


def test_files_of_the_package_state_all_that_their_code_has_on_by_default():
    """Otherwise completing them would change the ids of runs that are recorded."""
    for group in ("optimizer", "model", "schedule", "task", "data"):
        for name in groups.choices(group):
            config = configure(f"{group}={name}")
            assert build.completed(config) == config, f"{group}={name}"
    for experiment in groups.choices("experiment"):
        config = configure(f"+experiment={experiment}")
        assert build.completed(config) == config, experiment


def own_model(classes, size=(1, 1), width=8, *, off=0):
    return nn.Linear(width, classes)


def own_schedule(total=1, width=8, *, steps_per_epoch=1, off=0):
    return lambda step: width


def own_data(root=".", *, width=8, off=0):
    raise NotImplementedError


class OwnTask(Classification):
    def __init__(self, width=8, off=0):
        super().__init__()
        self.width = width


@pytest.mark.parametrize("group", ["model", "schedule", "task", "data"])
def test_the_same_is_so_of_every_group_and_no_argument_that_the_training_gives_becomes_a_setting(monkeypatch, group):
    monkeypatch.setattr(own_model, "sized", True, raising=False)
    for table, code in ((MODELS, own_model), (SCHEDULES, own_schedule), (TASKS, OwnTask), (SOURCES, own_data)):
        monkeypatch.setitem(table, "own", code)
    config = configure("data=digits", "batch=8")

    def settled(**settings):
        if group == "data":
            return build.completed(replace(config, data=replace(config.data, name="own", options=settings)))
        return build.completed(replace(config, **{group: {"name": "own", **settings}}))

    left_out, off, stated = settled(), settled(width=0), settled(width=8)
    assert left_out == stated and identity(left_out) != identity(off)
    found = {"name": "own", **left_out.data.options} if group == "data" else getattr(left_out, group)
    assert found == {"name": "own", "width": 8}
    build.validate(left_out)
    if group == "model":
        assert build.model(left_out, 3, (5, 5)).in_features == 8


def test_defaults_that_no_record_can_hold_are_left_where_they_are():
    """Nor what the training gives an optimizer, and what cannot be given by name."""

    def made(params, lr=0.1, hidden=3, /, *, bound=math.inf, kinds=(int,), betas=(0.9, 0.99), on=True, off=0, how="so"):
        raise NotImplementedError

    assert binding.defaults(made) == {"betas": (0.9, 0.99), "on": True, "how": "so"}


@pytest.mark.parametrize(
    ("file", "text", "words", "message"),
    [
        ("optimizer/bare.yaml", "lr: 0.5\nlr_scaling: none\n", ["optimizer=bare"], "optimizer: its file has no name"),
        ("experiment/bare.yaml", "epochs: 3\n", ["+experiment=bare"], "`# @package _global_` as its first line"),
        (
            "experiment/body.yaml",
            "# @package _global_\noptimizer: nesterov\n",
            ["+experiment=body"],
            "optimizer=nesterov: is a choice; an experiment's file has it in its defaults: - override /optimizer:",
        ),
    ],
)
@pytest.mark.parametrize("many", [[], ["-m"]])
def test_a_mistake_in_ones_own_file_is_one_line(own, capfd, file, text, words, message, many):
    (own / file).write_text(text)
    more = ["seed=0,1"] if many else []
    assert main(["train", *many, "--config-dir", "own", *TINY, *words, *more]) == 2
    err = capfd.readouterr().err
    assert message in err and err.count("\n") == 1

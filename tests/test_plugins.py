"""Plug-ins, from folders outside of the package: found, registered, recorded, and done without."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from support import REPOSITORY, TINY, StopAfter, figures, run_tiny

from lbt import data, models, optim, plugins, records, schedules, suite, sweep, tasks, weights
from lbt.cli import main
from lbt.config import groups, resolve
from lbt.errors import UserError
from lbt.records import index
from lbt.run import finished, run
from lbt.session.console import ConsoleReporter
from lbt.train.probes import PROBES

SIGNUM = re.search(r"```python\n(# mine/signum\.py\n.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)[1]
ONE_OF_EACH = """
import torch
from lbt.data import SOURCES as KNOWN
from lbt.schedules import SCHEDULES as FACTORS
from lbt.tasks import Classification

__version__ = "3.1"


class Halved(Classification):
    def loss(self, outputs, labels):
        return {"loss": super().loss(outputs, labels)["loss"] / 2}


class Count:
    obstacle = "counts on the host"

    def __init__(self, config, model, most):
        self.count = 0

    def due(self, step):
        return True

    def measure(self, update):
        self.count += 1

    def read(self):
        return {"count": self.count}

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def linear(num_classes):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, num_classes))


OPTIMIZERS = {"own_sgd": lambda params, lr: torch.optim.SGD(params, lr)}
SCHEDULES = {"own_constant": lambda total, *, steps_per_epoch: FACTORS["constant"](total, steps_per_epoch=1)}
MODELS = {"own_linear": linear}
SOURCES = {"own_data": lambda root, *, size: KNOWN["synthetic"](root, size, 16, resolution=8)}
TASKS = {"own_task": Halved}
AUGMENTATIONS = {"own_flip": lambda images, generator: images.flip(-1)}
PROBES = {"own_count": Count}
"""
CHOICES = {
    "optimizer/own_sgd": "name: own_sgd\nlr: 0.01\nlr_scaling: none", "schedule/own_constant": "name: own_constant",
    "model/own_linear": "name: own_linear", "task/own_task": "name: own_task",
    "data/own_data": "name: own_data\nsize: 44",
    "optimizer/signum": "name: signum\nlr: 0.01\nlr_scaling: none\nmomentum: 0.9",
    "table/of_mine": "title: Mine\nabout: Mine.\nselect: {experiment: adhoc}\n"
    "axes: {batch: [16], optimizer.name: [signum]}\nrows: [batch]\ncolumns: [optimizer.name]\nmetric: test_accuracy",
}  # fmt: skip
CHOSEN = [
    *(word for key in CHOICES if "own" in key for word in [key.replace("/", "=")]),
    "data.augment=own_flip", "probes=[own_count]",
]  # fmt: skip
SMALL = ["batch=16", "epochs=4", "precision=fp32", "device=cpu"]
TABLES = [
    schedules.SCHEDULES, models.MODELS, data.SOURCES, tasks.TASKS, data.AUGMENTATIONS, PROBES, plugins._loaded,
]  # fmt: skip


def environment(**more):
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


@pytest.fixture
def begin_anew(tmp_path):
    """Forgets plug-ins and imports from the test's folder, when called and at the test's end: as a new process."""
    tables = [*TABLES, optim._registry()]  # which other tests have made anew
    before = [dict(table) for table in tables]

    def forget():
        for table, content in zip(tables, before, strict=True):
            table.clear()
            table.update(content)
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
                del sys.modules[name]

    yield forget
    forget()


@pytest.fixture(scope="module")
def choices(tmp_path_factory):
    """A folder of configuration without code, and what two commands with it mean: composing takes a while."""
    folder = tmp_path_factory.mktemp("choices")
    for choice, content in CHOICES.items():
        (folder / choice).parent.mkdir(exist_ok=True)
        (folder / f"{choice}.yaml").write_text(f"{content}\n")
    tiny = [word for word in TINY if word.partition("=")[0] not in ("batch", "epochs", "precision", "device")]
    commands = [*CHOSEN, "plugins=[one_of_each]"], [*tiny, "optimizer=signum"]
    with groups.using(folder):
        return folder, *(resolve(sweep.compose([*SMALL, *words])) for words in commands)


@pytest.fixture
def own(tmp_path, monkeypatch, choices, begin_anew):
    """A folder of configuration of one's own."""
    folder = tmp_path / "own"
    shutil.copytree(choices[0], folder)
    monkeypatch.setattr(groups, "folders", lambda: (groups.CONFIG_DIR, folder))
    return folder


@pytest.fixture
def signum(own, choices):
    """Executes a small run of the README's optimizer."""

    def executed(results_dir, *names, interrupt=None, **settings):
        torch.manual_seed(12345)
        optimizer = choices[2].optimizer | settings
        config = replace(choices[2], results_dir=str(results_dir), plugins=list(names), optimizer=optimizer)
        return run(config, interrupt=interrupt)

    return executed


def test_a_module_brings_one_of_each_kind_and_stands_in_the_record(tmp_path, own, choices):
    file = own / "one_of_each.py"
    file.write_text(ONE_OF_EACH)
    outcome = run(replace(choices[1], results_dir=str(tmp_path)))
    record = records.read(outcome.path)
    assert outcome.status == "done"
    assert record.run["config"]["plugins"] == ["one_of_each"]
    hashed = hashlib.sha256(file.read_bytes()).hexdigest()
    assert record.run["provenance"]["plugins"] == [{"name": "one_of_each", "version": "3.1", "sha256": hashed}]
    assert [line["own_count"]["count"] for line in record.epochs] == [3, 6, 9, 12]
    parameters = 3 * 8 * 8 * 10 + 10
    assert record.run["provenance"]["parameters"] == parameters
    without = run(replace(outcome.config, plugins=[]))  # what was loaded stays; the setting is no part of an id
    assert without.recorded_before and without.id == outcome.id


def test_without_plugins_records_say_nothing_of_them(tmp_path, own):
    record = records.read(run_tiny(tmp_path).path)
    assert "plugins" not in record.run["config"] and "plugins" not in record.run["provenance"]


def test_a_folder_lists_its_plugins_and_nothing_else_is_imported(tmp_path, own, signum, monkeypatch):
    (own / "signum.py").write_text(SIGNUM)
    (own / "listed_not.py").write_text("raise SystemExit('imported')")
    (own / "torchvision.py").write_text("raise SystemExit('imported')")  # the folder is not on Python's path
    plugins.load()
    assert "signum" not in optim.names() and "signum" not in sys.modules
    (own / "lbt.yaml").write_text("plugins: [signum]\n")
    outcome = signum(tmp_path)
    assert [plugin["name"] for plugin in records.read(outcome.path).run["provenance"]["plugins"]] == ["signum"]
    assert "listed_not" not in sys.modules
    assert str(own) not in sys.path


def test_misspelt_settings_are_found_by_the_constructors_annotations(tmp_path, own, signum):
    (own / "signum.py").write_text(SIGNUM)
    for setting, value, said in (
        ("momentum", "high", "optimizer.momentum=high: expected a number"),
        ("momentun", 0.5, 'optimizer.momentun: no such setting; did you mean "momentum"?'),
    ):
        with pytest.raises(UserError, match=f"^{re.escape(said)}"):
            signum(tmp_path, "signum", **{setting: value})


def test_a_choice_without_its_plugin_says_so(tmp_path, own, signum):
    with pytest.raises(UserError, match=r"optimizer=signum: its file is there, its code is not: plugins=\[my_module\]"):
        signum(tmp_path)


TABLE = "OPTIMIZERS = {'lars': print, 'free': print}"
MISTAKES = [
    ("mime", "", r"^plugins=mime: there is no module mime in .*own or on Python's path"),
    ("mine", "import nothing_like_it", "^plugins=mine: its import fails: ModuleNotFoundError: No module named 'noth"),
    ("mine", "OPTIMIZERS = {'a': undefined}", "^plugins=mine: its import fails: NameError: name 'undefined'"),
    ("mine", "raise SystemExit(3)", "^plugins=mine: its import fails: SystemExit: 3"),
    ("mine", "def f(:", "^plugins=mine: its import fails: SyntaxError"),
    ("mine", "x = 1", "^plugins=mine: brings nothing; expected a table of OPTIMIZERS, SCHEDULES,"),
    ("mine", "OPTIMIZERS = [print]", "^plugins=mine: OPTIMIZERS: expected names and what makes them"),
    ("mine", "OPTIMIZERS = {'free': 'print'}", "^plugins=mine: OPTIMIZERS: expected names and what makes them"),
    ("mine", TABLE, '^plugins=mine: its optimizer "lars" is one of lbt.optim.lars, too; give it another name'),
    ("mine", "MODELS = {'resnet18': print}", '^plugins=mine: its model "resnet18" is one of lbt.models.resnets, too'),
    ("mine.py", "", "^plugins=mine.py: there is no module mine.py in"),
    ("own/mine", "", "^plugins=own/mine: expected the name of a module, as import has it, without .py"),
    ("json", "OPTIMIZERS = {}", r"^plugins=json: .*json\.py cannot have this name, .*__init__\.py has it"),
]


@pytest.mark.parametrize(("name", "source", "said"), MISTAKES)
def test_a_plugin_that_cannot_be_used_is_one_line_and_leaves_nothing(own, name, source, said):
    (own / ("json.py" if name == "json" else "mine.py")).write_text(source)
    before, modules = optim.names(), set(sys.modules)
    for _ in range(2):  # a mistake is one for every run of a process
        with pytest.raises(UserError, match=said) as caught:
            plugins.load([name])
        assert "\n" not in str(caught.value)
    assert optim.names() == before and plugins.names() == []
    if "import fails" in said:
        assert sys.modules.keys() == modules


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("plugin: [mine]", r'lbt\.yaml: there is no "plugin"; did you mean "plugins"\?$'),
        ("plugins: mine", r"lbt\.yaml: expected a list of modules, plugins: \[mine\]$"),
        ("[mine]", r"lbt\.yaml: expected a list of modules, plugins: \[mine\]$"),
        ("plugins: [7]", r"lbt\.yaml: plug-in 7: expected the name of a module"),
        ("plugins: [mine", r"lbt\.yaml: cannot be read: "),
        ("plugins: [mine]", r"lbt\.yaml: plug-in mine: there is no module mine in .*own"),
    ],
)
def test_a_list_that_cannot_be_used_is_one_line(own, content, said):
    (own / "lbt.yaml").write_text(content)
    with pytest.raises(UserError, match=said) as caught:
        plugins.load()
    assert "\n" not in str(caught.value)


def test_two_plugins_cannot_bring_one_name_and_one_plugin_may_be_named_often(own):
    (own / "first.py").write_text("class Made: pass\nMODELS = {'made': Made, 'other': Made}")
    (own / "second.py").write_text("from first import Made\nMODELS = {'other': print}")
    (own / "third.py").write_text("import first\nMODELS = first.MODELS")  # the same thing again is none too many
    (own / "lbt.yaml").write_text("plugins: [first, first]")
    plugins.load(["first"])
    plugins.load(["first", "third"])
    with pytest.raises(UserError, match=r'^plugins=second: its model "other" is one of the plug-in first, too; give'):
        plugins.load(["second"])
    assert plugins.names() == ["first", "third"]


def test_a_package_is_hashed_as_a_whole_and_as_the_shell_does(own):
    for file, content in (("__init__", "from .b import MODELS"), ("b", "MODELS = {}"), ("sub/c", "x = 1\n")):
        path = own / "whole" / f"{file}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (own / "whole" / "notes.txt").write_text("no source")
    plugins.load(["whole"])
    command = "find . -name '*.py' | LC_ALL=C sort | xargs sha256sum | sha256sum"
    listed = subprocess.run(command, shell=True, cwd=own / "whole", capture_output=True, text=True, check=True).stdout
    assert plugins.provenance() == [{"name": "whole", "version": None, "sha256": listed.split()[0]}]


def test_what_is_installed_is_loaded_by_its_entry_point_when_a_run_needs_it(tmp_path, own, signum, monkeypatch):
    site = tmp_path / "site"
    (site / "own_rules-1.2.dist-info").mkdir(parents=True)
    (site / "own_rules-1.2.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: own-rules\nVersion: 1.2\n")
    (site / "own_rules-1.2.dist-info" / "entry_points.txt").write_text("[lbt.plugins]\nrules = own_rules.signum\n")
    (site / "own_rules-1.2.dist-info" / "top_level.txt").write_text("own_rules\n")
    (site / "own_rules").mkdir()
    (site / "own_rules" / "__init__.py").touch()
    (site / "own_rules" / "signum.py").write_text(SIGNUM)
    monkeypatch.syspath_prepend(site)
    plugins._installed.cache_clear()
    try:
        assert "own_rules" not in sys.modules
        outcome = signum(tmp_path)
    finally:
        plugins._installed.cache_clear()
    (found,) = records.read(outcome.path).run["provenance"]["plugins"]
    assert (found["name"], found["version"]) == ("own_rules.signum", "1.2")


def test_a_changed_plugin_is_told_of_finished_runs(tmp_path, own, signum, begin_anew, capsys):
    (own / "signum.py").write_text(SIGNUM)
    (own / "beside.py").write_text("MODELS = {'beside': print}")
    words = ["signum", "beside"]
    before = signum(tmp_path, *words)
    begin_anew()
    (own / "beside.py").write_text("MODELS = {'beside': repr}")  # of which the run uses nothing
    assert signum(tmp_path, *words).changed == []
    begin_anew()
    (own / "signum.py").write_text(SIGNUM + "# other\n")
    again = signum(tmp_path, *words)
    assert again.recorded_before and again.id == before.id
    (told,) = again.changed
    then, now = (hashlib.sha256(text.encode()).hexdigest()[:12] for text in (SIGNUM, SIGNUM + "# other\n"))
    assert told == f"the plug-in signum has changed (SHA-256 {then}... then, {now}... now)"
    assert finished(again.config, index.by_key(tmp_path)).changed == [told]  # as a sweep asks
    run(again.config, reporter=ConsoleReporter())
    assert f"since then {told}; another results_dir trains" in capsys.readouterr().out


def test_a_run_that_goes_on_with_a_changed_plugin_says_so_in_its_record(tmp_path, own, signum, begin_anew, capsys):
    (own / "signum.py").write_text(SIGNUM)
    for change, folder in (("", "same"), ("# other\n", "changed")):
        begin_anew()
        (own / "signum.py").write_text(SIGNUM)
        signum(tmp_path / folder, "signum", interrupt=StopAfter(5))
        begin_anew()
        (own / "signum.py").write_text(SIGNUM + change)
        outcome = signum(tmp_path / folder, "signum")
        assert outcome.status == "done"
        assert ("plugins_changed" in records.read(outcome.path).end["summary"]) == bool(change)
    begin_anew()
    (own / "signum.py").write_text(SIGNUM)
    whole = figures(signum(tmp_path / "whole", "signum").path)
    assert figures(tmp_path / "same" / "runs" / "adhoc" / f"{outcome.id}.jsonl") == whole


def test_a_record_is_verified_with_its_plugin_and_told_without(tmp_path, own, signum, begin_anew, capsys):
    (own / "signum.py").write_text(SIGNUM)
    (own / "lbt.yaml").write_text("plugins: [signum]\n")
    outcome = signum(tmp_path / "results")
    verify = ["verify", outcome.id, "--results-dir", str(tmp_path / "results")]
    begin_anew()
    assert main(verify) == 0
    assert "bit-equal" in capsys.readouterr().out
    begin_anew()
    (own / "signum.py").write_text(SIGNUM + "# other\n")
    assert main(verify) == 0
    assert "since then the plug-in signum has changed" in capsys.readouterr().out
    begin_anew()
    (own / "lbt.yaml").unlink()
    assert main(verify) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "made with plug-ins: signum; --config-dir finds those of a folder" in line


def test_kept_weights_of_a_plugins_network_need_its_folder_and_say_so(tmp_path, choices, begin_anew, capsys):
    folder, results = tmp_path / "mine", tmp_path / "results"
    shutil.copytree(choices[0], folder)
    (folder / "one_of_each.py").write_text(ONE_OF_EACH)
    (folder / "lbt.yaml").write_text("plugins: [one_of_each]\n")
    with groups.using(folder):
        outcome = run(replace(choices[1], results_dir=str(results), plugins=[], keep="weights"))
    assert outcome.status == "done"
    evaluate = ["evaluate", outcome.id, "--results-dir", str(results)]
    remedy = "(made with plug-ins: one_of_each; --config-dir, in Python config_dir=, finds those of a folder)"
    begin_anew()
    with pytest.raises(UserError, match=re.escape(remedy)):
        weights.load_model(outcome.id, results)
    assert main(evaluate) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "there is no" in line and line.endswith(remedy)
    (layer,) = [one for one in weights.load_model(outcome.id, results, folder) if isinstance(one, torch.nn.Linear)]
    assert layer.weight.shape == (10, 3 * 8 * 8)
    begin_anew()
    assert main([*evaluate, "--config-dir", str(folder)]) == 0


def test_reports_read_a_record_without_its_plugin(tmp_path, own, signum, begin_anew):
    (own / "signum.py").write_text(SIGNUM)
    accuracy = signum(tmp_path, "signum").summary["test_accuracy"]
    begin_anew()
    (own / "signum.py").write_text("raise SystemExit('imported')")
    assert main(["tables", "of_mine", "--results-dir", str(tmp_path)]) == 0
    text = (tmp_path / "tables" / "of_mine.md").read_text()
    assert f"| 16 | {accuracy:.2f} (n=1) |" in text
    assert f"; plug-ins signum {hashlib.sha256(SIGNUM.encode()).hexdigest()[:10]}." in text
    assert plugins.names() == [] and "signum" not in sys.modules


def test_processes_of_a_sweep_load_the_plugins_for_themselves(tmp_path, choices):
    """In a folder outside of the checkout, by the command."""
    (tmp_path / "signum.py").write_text(SIGNUM)
    (tmp_path / "one_of_each.py").write_text(ONE_OF_EACH)
    words = ["optimizer=signum,own_sgd", "plugins=[signum,one_of_each]", "model=own_linear", "data=own_data"]
    command = [sys.executable, "-m", "lbt", "train", "-m", "--config-dir", str(choices[0]), *SMALL, *words]
    path = f"{REPOSITORY}:{tmp_path}"
    ended = subprocess.run(
        [*command, "sweep.parallel=2"], cwd=tmp_path, capture_output=True, text=True, env=environment(PYTHONPATH=path)
    )
    assert ended.returncode == 0, ended.stderr
    found = [records.read(record).run for record in records.paths(tmp_path / "results")]
    assert sorted(one["config"]["optimizer"]["name"] for one in found) == ["own_sgd", "signum"]
    assert all(len(one["provenance"]["plugins"]) == 2 for one in found)


FORGETFUL = """
class Forgetful(Signum):
    def step(self, closure=None):
        self.steps = getattr(self, "steps", 0) + 1  # in no state_dict
        for group in self.param_groups:
            for p in [p for p in group["params"] if p.grad is not None]:
                p.data.sub_(p.grad, alpha=float(group["lr"]) / self.steps)


OPTIMIZERS["forgetful"] = Forgetful
SUITE = {"signum": [{}, {"momentum": 0.0}]}
"""


def test_the_suite_of_optimizers_runs_on_a_plugins(tmp_path):
    """In a process of its own and a folder outside of the checkout: the README's optimizer passes, a bad one fails."""
    (tmp_path / "two_rules.py").write_text(SIGNUM + FORGETFUL)
    command = [sys.executable, "-m", "lbt.suite", "two_rules", "-k", "lock_step or alike or one_group", "-rA"]
    path = f"{REPOSITORY}:{tmp_path}"
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment(PYTHONPATH=path))
    assert ended.returncode == 1, ended.stdout + ended.stderr
    # Where $CI is set or the terminal is wide, pytest adds the reason to the line of a failed test.
    cases = {
        how: re.findall(rf"^{how} .*?::(\S+)\d\](?: - |$)", ended.stdout, re.MULTILINE) for how in ("PASSED", "FAILED")
    }
    assert "test_state_dict_in_lock_step[forgetful" in cases["FAILED"]
    assert all("forgetful" in case for case in cases["FAILED"])
    for test in ("state_dict_in_lock_step[", "groups_equal_one_group[", "copies_go_on_alike[deepcopy-"):
        assert cases["PASSED"].count(f"test_{test}signum") == 2  # once for each entry of its table SUITE


def test_the_suite_refuses_a_folder_that_is_none_and_leaves_the_environment(monkeypatch, capsys):
    monkeypatch.setenv(suite.TESTED, "")  # it is put back afterwards
    assert suite.main(["--config-dir", "nowhere"]) == 2
    assert capsys.readouterr().err.startswith("lbt: --config-dir nowhere: no such folder; lbt init DIR")
    assert groups.own_folder() is None

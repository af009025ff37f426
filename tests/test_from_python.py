"""`lbt.run(...)`: the run that `lbt train` makes of the same words, in a program that goes on afterwards."""

import inspect
import os
import re
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from support import REPOSITORY, TINY, figures, tiny_config

import lbt
from lbt import records
from lbt.cli import main
from lbt.session.interrupt import Interrupt


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The outcomes of two runs, each by itself."""
    folder = tmp_path_factory.mktemp("alone")
    return [lbt.run(*TINY, f"results_dir={folder}", f"seed={seed}") for seed in (0, 1)]


def test_it_is_the_run_that_the_command_makes(made, tmp_path, capsys):
    assert main(["train", *TINY, f"results_dir={tmp_path}"]) == 0
    (path,) = records.paths(tmp_path)
    one = made[0]
    assert one.id == path.stem and one.status == "done" and not one.recorded_before
    assert figures(one.path) == figures(path)
    assert one.config.batch == 16 and one.summary["test_accuracy"] == one.epochs[-1]["test_accuracy"]
    assert [line["epoch"] for line in one.epochs] == [1, 2, 3, 4]


def test_it_is_quiet_unless_asked_and_a_finished_run_is_not_made_again(made, capsys):
    again = lbt.run(*TINY, f"results_dir={made[0].config.results_dir}")
    assert again.recorded_before and again.id == made[0].id
    assert capsys.readouterr() == ("", "")
    lbt.run(*TINY, f"results_dir={made[0].config.results_dir}", progress=True)
    assert "done already" in capsys.readouterr().out


def test_the_module_is_called_and_keeps_what_is_in_it(made):
    from lbt import run
    from lbt.run import run as of_a_configuration

    assert run is lbt.run and lbt.run.run is of_a_configuration
    assert of_a_configuration(tiny_config(made[0].config.results_dir)).id == made[0].id
    assert list(inspect.signature(lbt.run).parameters) == ["overrides", "options"]


def test_runs_of_several_threads_come_out_as_alone(made, tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with ThreadPoolExecutor(2) as pool:
        both = pool.map(lambda seed: lbt.run(*TINY, f"results_dir={tmp_path}", f"seed={seed}"), (0, 1))
        for alone, one in zip(made, both, strict=True):
            assert one.id == alone.id and figures(one.path) == figures(alone.path)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_the_programs_random_numbers_go_on_as_without_it(tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    lbt.run(*TINY, f"results_dir={tmp_path}", "epochs=1")
    assert torch.equal(torch.rand(3), expected)


class PressedAfter(Interrupt):
    """Sends the process a signal at the fifth question whether to stop."""

    number = signal.SIGINT
    asked = 0

    def requested(self):
        self.asked += 1
        if self.asked == 5:
            os.kill(os.getpid(), self.number)
        return super().requested()


def test_ctrl_c_reaches_the_program_and_the_run_goes_on_later(made, tmp_path, monkeypatch):
    assert threading.current_thread() is threading.main_thread()
    words = [*TINY, f"results_dir={tmp_path}"]
    with monkeypatch.context() as patch:
        patch.setattr("lbt.sweep.from_python.Interrupt", PressedAfter)
        with pytest.raises(KeyboardInterrupt):
            lbt.run(*words)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    (path,) = records.paths(tmp_path)
    assert records.read(path).status == "interrupted"
    assert figures(lbt.run(*words).path) == figures(made[0].path)


def test_another_signal_reaches_the_programs_own_handler(tmp_path, monkeypatch):
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        monkeypatch.setattr("lbt.sweep.from_python.Interrupt", PressedAfter)
        monkeypatch.setattr(PressedAfter, "number", signal.SIGTERM)
        assert lbt.run(*TINY, f"results_dir={tmp_path}").status == "interrupted"
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


def test_a_folder_of_ones_own(tmp_path):
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    text = "# @package _global_\nexperiment: mine\nseed: 5\n"
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text(text)
    words = [*TINY, "epochs=1", "+experiment=mine", f"results_dir={tmp_path}"]
    one = lbt.run(*words, config_dir=tmp_path / "own")
    assert one.config.seed == 5 and one.path.parent.name == "mine"
    with pytest.raises(lbt.UserError, match="no such folder"):
        lbt.run(*words, config_dir=tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["optimizer=larz"], 'did you mean "lars"'),
        (["batch=0"], "batch=0: expected a whole number"),
        (["seed=0,1"], "several values are a sweep"),
        (["~batch"], "cannot be taken away"),
        (["-m", "seed=0,1"], "-m: is for the command line"),
        ([["batch=512"]], "expected settings as texts"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(tmp_path, words, said):
    with pytest.raises(lbt.UserError, match=said) as caught:
        lbt.run(*TINY, f"results_dir={tmp_path}/results", *words)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_pages_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "python.md").read_text(), flags=re.DOTALL)
    exec(compile(example, "python.md", "exec"), {})
    said = capsys.readouterr().out
    assert "epoch 1/1" in said and "optimizer.name" in said and said.count("tvlars") > 2

import pytest
from support import TINY

from lbt.cli import main


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space").mkdir()
    (tmp_path / "space" / "mine.yaml").write_text("axes: {lr: {log: [0.1, 1]}}\n")
    monkeypatch.setenv("LBT_CONFIG_DIR", ".")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["+experiment=quickstart"], "quickstart is a grid of 16 (optimizer x batch x seed), which the same command"),
        (["+experiment=quickstart"], "trains with -m; this trains one run alone: optimizer=lars, batch=512, seed=0\n"),
        (["+experiment=quickstart", "batch=64", "seed=1"], "a grid of 4 (optimizer), which"),
        (["+experiment=fig6_lambda", "data=digits"], "protocol=paper, optimizer.lam=0.001\n"),
        (["+experiment=reality_check_cpu_tune", "data=digits"], "a grid of 5 (optimizer), 8 trials each, which"),
        (["+experiment=reality_check_cpu_tune", "data=digits", "optimizer=lars"], "is a sweep, 8 trials each, which"),
        (["+experiment=reality_check_small_final", "data=digits"], "a grid of 4 (optimizer), 5 seeds each"),
    ],
)  # fmt: skip
def test_one_run_of_a_sweep_is_said_to_be_one(words, told, capsys):
    assert main(["train", *words, "time_budget=0s"]) == 0
    said = capsys.readouterr().out
    assert told in said and said.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["data=digits"],
        ["-m", *TINY, "hydra/sweeper=quasi_random", "hydra.sweeper.n_trials=2", "hydra.sweeper.space=mine"],
        ["+experiment=quickstart", "optimizer=lars", "batch=64", "seed=1"],
        ["+preset=goyal_linear", "data=digits"],
    ],
)
def test_where_nothing_is_left_out_nothing_is_said(words, capsys):
    assert main(["train", *words, "time_budget=0s"]) == 0
    assert "one run alone" not in capsys.readouterr().out

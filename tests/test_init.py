import shlex

import pytest
import torch

from lbt.cli import main
from lbt.config import groups
from lbt.init import EXAMPLE


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(groups.OWN, raising=False)


def test_nothing_is_written_over(tmp_path, capfd):
    assert main(["init", "mine"]) == 0
    written = {path: path.read_bytes() for path in (tmp_path / "mine").rglob("*") if path.is_file()}
    assert len(written) == 8 and not any(path.suffix == ".pyc" for path in written)
    (tmp_path / "mine" / "lbt.yaml").write_text("plugins: []\n")
    (tmp_path / "mine" / "README.md").unlink()
    assert main(["init", "mine"]) == 2
    err = capfd.readouterr().err
    assert "is there already; lbt init writes over nothing" in err and err.count("\n") == 1
    assert (tmp_path / "mine" / "lbt.yaml").read_text() == "plugins: []\n"
    assert not (tmp_path / "mine" / "README.md").exists()
    assert main(["init", "mine/lbt.yaml"]) == 2
    assert "mine/lbt.yaml: is a file" in capfd.readouterr().err


def test_it_can_be_laid_beside_other_files_and_where_the_environment_points(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    monkeypatch.setenv(groups.OWN, "other")  # not there yet
    assert main(["init", "mine"]) == 0
    with groups.using("mine"):
        assert "first" in groups.choices("experiment") and "nsgd" in groups.choices("optimizer")


def test_the_readme_names_the_files_that_are_there():
    text = (EXAMPLE / "README.md").read_text()
    assert len(text.splitlines()) <= 20
    for path in EXAMPLE.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts and path.name != "README.md":
            assert f"`{path.relative_to(EXAMPLE)}`" in text
    for group in groups.groups():
        assert f"`{group}`" in text or f"`{group}/" in text, group


def test_the_examples_optimizer_makes_steps_of_one_length():
    made: dict = {}
    exec((EXAMPLE / "nsgd.py").read_text(), made)
    weights = [torch.zeros(3, requires_grad=True), torch.zeros(2, 2, requires_grad=True), torch.ones(1)]
    optimizer = made["OPTIMIZERS"]["nsgd"]([{"params": weights[:1]}, {"params": weights[1:]}], lr=0.5)
    weights[0].grad, weights[1].grad = torch.tensor([3.0, 0.0, 0.0]), torch.tensor([[0.0, 4.0], [0.0, 0.0]])
    optimizer.step()
    assert torch.allclose(weights[0].detach(), torch.tensor([-0.3, 0.0, 0.0]))
    assert torch.allclose(weights[1].detach(), torch.tensor([[0.0, -0.4], [0.0, 0.0]]))
    moved = [weight.detach().clone() for weight in weights]
    optimizer.step()
    length = torch.cat([(now.detach() - before).flatten() for now, before in zip(weights, moved, strict=True)]).norm()
    assert length.item() == pytest.approx(0.5)


def test_its_commands_are_ones_a_shell_takes():
    block = (EXAMPLE / "README.md").read_text().split("```")[1]
    commands = [shlex.split(line, comments=True) for line in block.splitlines()[1:]]
    assert [words[1] for words in commands] == ["train", "status", "tables"]

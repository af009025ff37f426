import ast
import csv
import itertools
import os
import re
import subprocess
import sys
import tomllib
import zipfile

import pytest
import torch
from support import REPOSITORY

from lbt import records
from lbt.init import EXAMPLE


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(REPOSITORY)]
    subprocess.run(command, check=True, capture_output=True)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_the_wheel_holds_every_module_and_every_configuration(wheel):
    names = set(wheel.namelist())
    files = [path for path in (REPOSITORY / "lbt").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    modules = {str(path.relative_to(REPOSITORY)) for path in files}  # and the example of an own folder
    configs = {f"lbt/{path.relative_to(REPOSITORY)}" for path in (REPOSITORY / "configs").rglob("*") if path.is_file()}
    assert modules <= names and configs <= names
    assert "lbt/py.typed" in names  # to type checkers the package is typed
    extra = {name for name in names if not name.startswith("lbt/") and ".dist-info/" not in name}
    assert extra == set()


def test_the_wheel_starts_lbt_and_needs_no_test_tools(wheel):
    info = next(name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name)
    assert "lbt = lbt.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()
    metadata = wheel.read(f"{info}/METADATA").decode()
    required = re.findall(r"^Requires-Dist: ([\w-]+)(?!.*extra)", metadata, flags=re.MULTILINE)
    assert not {"tensorboard", "pytest", "optax", "timm"} & set(required)
    assert {"torch", "torchvision", "hydra-core", "omegaconf", "rich", "wandb"} <= set(required)


OWN_FOLDER = """
import os, shlex
import lbt
from lbt.cli import main

assert os.path.realpath(lbt.__file__).startswith(os.path.realpath("site")), lbt.__file__
assert main(["init", "mine"]) == 0
os.chdir("mine")
for line in open("README.md").read().split("```")[1].splitlines()[1:]:
    app, *words = shlex.split(line, comments=True)
    assert app == "lbt" and main(words) == 0, line
"""


def test_the_wheels_own_folder_trains_and_makes_its_table_by_the_commands_of_its_readme(wheel, tmp_path):
    wheel.extractall(tmp_path / "site")
    environment = {key: value for key, value in os.environ.items() if key != "LBT_CONFIG_DIR"}
    environment |= {"PYTHONPATH": str(tmp_path / "site"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-c", OWN_FOLDER]  # -P: Python does not look for modules where it is called
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert said.returncode == 0, said.stderr
    results = tmp_path / "mine" / "results"
    rows = list(csv.DictReader((results / "tables" / "first.csv").read_text().splitlines()))
    assert sorted((row["optimizer.name"], row["batch"], row["n"]) for row in rows) == [
        (name, batch, "2") for name in ("nesterov", "nsgd") for batch in ("512", "64")
    ]
    assert min(float(row["mean"]) for row in rows if row["batch"] == "64") > 90  # chance: 10
    assert "[Normalized SGD against Nesterov momentum](tables/first.md)" in (results / "README.md").read_text()
    made = [records.read(path) for path in records.paths(results)]
    assert [record.status for record in made] == ["done"] * 8
    assert all([plugin["name"] for plugin in one.run["provenance"]["plugins"]] == ["nsgd", "small_net"] for one in made)


OWN_STUDY = """
import os
import lbt
from lbt.cli import main

def command(line):
    assert main(line.split()) == 0, line

assert os.path.realpath(lbt.__file__).startswith(os.path.realpath("site")), lbt.__file__
tiny = "data=digits data.subset=128 batch=64 epochs=1 device=cpu precision=fp32 threads=1"
command(f"train -m name=study optimizer=lars,signum {tiny}")
for line in ("status", "status study", "tables study --rows batch", "plots study"):
    command(line)
assert main(f"train optimizer=signum optimizer.momentum=high {tiny}".split()) == 2
network = f"model=torchvision model.arch=mobilenet_v3_small optimizer=sgd lr=0.1 {tiny}"
command(f"train name=net {network} keep=weights mirror=tensorboard")
outcome = lbt.run(*network.split())
assert outcome.recorded_before and outcome.path.parent.name in ("net", "adhoc"), outcome
command(f"evaluate {outcome.id[:8]}")
assert sum(weight.numel() for weight in lbt.load_model(outcome.id).parameters()) > 1_000_000
command(f"train name=net {network} init_from={outcome.id} seed=1")
runs, epochs = lbt.runs("results"), lbt.epochs("results", where={"optimizer.name": "sgd"})
assert sorted(runs["optimizer.name"]) == ["lars", "sgd", "sgd", "signum"] and len(epochs) == 2
assert os.listdir("results/weights") == [f"{outcome.id}.safetensors"]
assert os.path.getsize("results/figures/study_curves.png") > 1000
"""


def test_an_own_study_from_outside_of_the_package(wheel, tmp_path):
    """The README's optimizer, a named sweep, networks, weights, mirrors and Python, with the wheel, from elsewhere."""
    wheel.extractall(tmp_path / "site")
    text = (REPOSITORY / "README.md").read_text()
    blocks = dict(re.findall(r"```\w+\n# (mine/[\w/.]+)\n(.*?)```", text, flags=re.DOTALL))
    assert list(blocks) == ["mine/signum.py", "mine/optimizer/signum.yaml", "mine/lbt.yaml"]
    for name, content in blocks.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    made: dict = {}
    exec(blocks["mine/signum.py"], made)
    weight = torch.zeros(3, requires_grad=True)
    weight.grad = torch.tensor([5.0, -0.1, 2.0])
    made["OPTIMIZERS"]["signum"]([weight], lr=0.5).step()
    assert weight.tolist() == [-0.5, 0.5, -0.5]  # what its docstring says
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "LBT_CONFIG_DIR": "mine", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-c", OWN_STUDY]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert said.returncode == 0, said.stderr
    assert "the record's figures, bit for bit" in said.stdout
    assert "optimizer.momentum=high: expected a number" in said.stderr
    assert any((tmp_path / "results" / "tensorboard" / "net").rglob("events*"))
    lines = (tmp_path / "results" / "tables" / "study.md").read_text()
    assert "signum" in lines and "lars" in lines


def test_every_import_of_the_package_is_declared():
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    packages = {
        "hydra-core": "hydra",
        "scikit-learn": "sklearn",
        "pillow": "PIL",
        "markdown-it-py": "markdown_it",
        "pyyaml": "yaml",
    }
    stated = [*declared["dependencies"], *itertools.chain(*declared["optional-dependencies"].values())]
    known = {re.match(r"[\w-]+", requirement)[0].lower() for requirement in stated}
    known = {packages.get(name, name) for name in known} | {"lbt"} | set(sys.stdlib_module_names)
    for path in (REPOSITORY / "lbt").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                used = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                used = {node.module.split(".")[0]}
            else:
                continue
            assert used <= known, f"{path}:{node.lineno}: {used - known}"


def test_the_readme_names_only_what_exists():
    pages = [REPOSITORY / "README.md", REPOSITORY / "ARCHITECTURE.md", *(REPOSITORY / "docs").glob("*.md")]
    for page in pages:
        text = page.read_text()
        for experiment in re.findall(r"\+experiment=(\w+)", text):
            places = (REPOSITORY / "configs", EXAMPLE)
            found = [folder for folder in places if (folder / "experiment" / f"{experiment}.yaml").exists()]
            assert found, (page.name, experiment)
        for target in re.findall(r"\]\(([\w./-]+)\)", text):
            assert (page.parent / target).exists(), (page.name, target)


def test_the_readmes_example_of_an_own_loop_runs():
    text = (REPOSITORY / "README.md").read_text()
    (example,) = re.findall(r"```python\n(import torch\nfrom lbt\.optim.*?)```", text, flags=re.DOTALL)
    exec(compile(example, "README.md", "exec"), {})

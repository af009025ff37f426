"""What importing the package brings along, told by the modules a fresh interpreter has afterwards."""

import json
import pkgutil
import subprocess
import sys

import pytest

import lbt
import lbt.optim


def new_modules(before, statement):
    """The modules that a statement loads in a process of its own."""
    code = f"""
import json, sys
{before}
known = set(sys.modules)
{statement}
print(json.dumps(sorted(set(sys.modules) - known)))
"""
    return json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)


def test_importing_lbt_loads_nothing_of_others():
    loaded = new_modules("", "import lbt; assert dir(lbt)")
    assert {name.split(".")[0] for name in loaded} - set(sys.stdlib_module_names) == {"lbt"}
    assert [name for name in loaded if name.startswith("lbt.")] == []


def test_a_page_of_results_waits_for_nothing_that_it_does_not_show():
    """Each takes about as long to import as the page to write; the names are of what has been there before."""
    loaded = new_modules("", "import lbt.report.page.bundle, lbt.report.page.content, lbt.report.page.runs")
    assert {"lbt.report.page.content", "scipy.special", "pandas"} <= set(loaded)
    assert {"torch", "hydra", "matplotlib", "scipy.stats", "scipy.optimize"} & set(loaded) == set()


def test_an_optimizer_loads_no_other_one_and_nothing_besides_torch():
    loaded = new_modules("import torch", "from lbt.optim import LARS")
    assert [name for name in loaded if name.split(".")[0] not in {*sys.stdlib_module_names, "lbt"}] == []
    modules = {module.name for module in pkgutil.iter_modules(lbt.optim.__path__)}
    rules = {name for name in modules if hasattr(getattr(lbt.optim, name), "OPTIMIZERS")}
    assert {"lars", "tvlars", "generic", "packaged"} <= rules
    assert {name for name in rules if f"lbt.optim.{name}" in loaded} == {"lars"}


def test_every_name_is_there_and_a_wrong_one_is_not():
    for name in lbt.optim.__all__:
        assert callable(getattr(lbt.optim, name)) and name in dir(lbt.optim)
    for name in {*lbt.__all__} - {"load_model"}:
        assert callable(getattr(lbt, name)) and name in dir(lbt)
    for package in (lbt, lbt.optim):
        with pytest.raises(AttributeError, match="has no attribute 'larz'"):
            _ = package.larz
    with pytest.raises(ImportError):
        from lbt.optim import larz  # noqa: F401


def test_load_model_is_the_weights_rooms():
    weights = pytest.importorskip("lbt.weights")
    assert lbt.load_model is weights.load_model

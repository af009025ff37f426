"""What an epoch's line says without a terminal."""

import pytest
from support import StopAfter, run_tiny, tiny_config

from lbt import records
from lbt.run import run
from lbt.session.console import ConsoleReporter


@pytest.mark.parametrize("undone", [0, 1])
def test_an_epoch_resumed_at_its_end_has_no_rate(tmp_path, capsys, undone):
    """There was nothing left to train: 0 images a second would read as if it had been slow."""
    whole = run_tiny(tmp_path / "whole")
    updates = records.read(whole.path).epochs[-1]["step"]
    stopped = run_tiny(tmp_path, interrupt=StopAfter(updates - undone))
    assert stopped.status == "interrupted"
    run(tiny_config(tmp_path), reporter=ConsoleReporter())
    line = next(one for one in capsys.readouterr().out.splitlines() if one.startswith("epoch "))
    assert "test accuracy" in line and ("images/s" in line) == bool(undone)

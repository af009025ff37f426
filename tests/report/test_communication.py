"""The table of what was sent, from planted records."""

import csv
import io
from dataclasses import replace

import pytest
from planted import plant
from support import configure

from lbt import runtime
from lbt.report.frame import load
from lbt.report.kit import render
from lbt.report.kit.exchange import LATENCY, all_reduce_seconds, sent_seconds
from lbt.report.tables import make

PARAMETERS, UPDATES, WORKERS = 11_173_962, 5, 8  # as planted


def record(folder, accuracy, *words, seed=0, **more):
    config = runtime.settle(configure("data=cifar10", "precision=fp32", "batch=512", "epochs=5", *words))
    plant(folder, replace(config, experiment="communication", seed=seed), accuracy, **more)


def test_bytes_are_the_counted_ones_or_an_all_reduces_and_seconds_are_predicted(tmp_path):
    for seed, accuracy in enumerate((58.0, 60.0)):
        lines = [{"bytes_sent": 3_000_000}] * UPDATES
        record(tmp_path, accuracy, "optimizer=onebit_lamb", "workers=8", seed=seed, lines=lines)
    record(tmp_path, 61.0, "optimizer=lamb", "lr=0.01")
    record(tmp_path, None, "optimizer=agvm_lars", "workers=8", status="failed")
    table = make("communication", load(tmp_path))
    rows = {row["optimizer.name"]: row for row in csv.DictReader(io.StringIO(table.csv()))}
    full = 2 * 7 / 8 * 4 * PARAMETERS * UPDATES
    assert float(rows["lamb"]["bytes_sent"]) == pytest.approx(full) and rows["lamb"]["counted"] == "False"
    assert float(rows["onebit_lamb"]["bytes_sent"]) == 15_000_000 and rows["onebit_lamb"]["n"] == "2"
    assert float(rows["onebit_lamb"]["of_all_reduce"]) == pytest.approx(15_000_000 / full)
    waits = UPDATES * 2 * 7 * LATENCY
    assert float(rows["onebit_lamb"]["predicted_seconds_1gbps"]) == pytest.approx(waits + 15_000_000 * 8 / 1e9)
    text = render.markdown(table.page())
    assert "agvm around lars" in text and "(computed)" in text and "Predicted, not measured" in text
    assert "15.0 |" in text and "59.00" in text


def test_an_all_reduces_bytes_take_an_all_reduces_time():
    size, workers = 4e8, 8
    sent = 2 * (workers - 1) / workers * size
    assert sent_seconds(sent, 1, workers, 25.0) == pytest.approx(all_reduce_seconds(size, workers, 25.0))

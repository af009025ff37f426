"""Which settings tell a sweep's runs apart."""

import itertools

from lbt.records.variation import distinct, telling

RATES = {"lars": 10.0, "nesterov": 0.05}


def grid(**axes):
    """Runs of every combination; an optimizer brings a rate and settings of its own."""
    for values in itertools.product(*axes.values()):
        run = dict(zip(axes, values, strict=True))
        name = run.pop("optimizer")
        own = {"optimizer.eta": 0.001} if name == "lars" else {"optimizer.nesterov": True}
        yield {"optimizer.name": name, "lr": RATES[name], "epochs": 8.0, **own, **run}


def test_what_follows_from_others_tells_nothing():
    assert telling(list(grid(optimizer=RATES, batch=[64, 512], seed=[0, 1]))) == ["optimizer.name", "batch"]
    assert telling(list(grid(optimizer=["lars"], seed=[1, 2]))) == []


def test_a_rate_of_its_own_does_and_comes_before_what_goes_with_it():
    rates = [{"lr": lr, "ema": lr / 10} for lr in (0.1, 0.2)]
    runs = [{**run, **rate} for run in grid(optimizer=RATES, batch=[64, 512]) for rate in rates]
    assert telling(runs) == ["optimizer.name", "batch", "lr"]
    assert telling(runs, ["ema"]) == ["optimizer.name", "batch"]
    assert telling(runs, ["batch", "optimizer.name"]) == ["lr"]


def test_what_is_off_is_a_value():
    assert telling([{"batch": 8}, {"batch": 8, "ema": 0.9}]) == ["ema"]
    assert distinct([{"ema": 0.99}, {}, {"ema": 0.9}, {"ema": 0.9}], "ema") == [None, 0.9, 0.99]

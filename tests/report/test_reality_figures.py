import pandas as pd
import pytest

from lbt.report.kit.style import context
from lbt.report.reality import seeds, study
from lbt.report.reality.results import Results
from lbt.report.reality.seeds import FEW, MEDIAN
from lbt.report.reality.study import Final

STUDY = study.read("reality_check_small")


def final(optimizer, values, variant=""):
    """Final runs with these accuracies; None is one that diverged."""
    statuses = ["diverged" if value is None else "done" for value in values]
    columns = {
        "epochs": 2,
        "model.name": "resnet18",
        "origin": "some $ data $",
        "protocol.name": "paper",
        "precision": "fp32",
        "samples": "pixels",
        "fingerprint": "f" * 16,
    }
    runs = pd.DataFrame({"status": statuses, **{name: [value] * len(values) for name, value in columns.items()}})
    kept = [0.0 if value is None else value for value in values]
    return Final(optimizer, STUDY.batches[0], variant, "", runs, kept, statuses.count("diverged"), [], {})


def drawn(*finals):
    with context():
        figure = seeds.draw(Results(STUDY, {}, {}, list(finals), []), "final runs")
    figure.canvas.draw()
    return figure, figure.axes[0]


def values_of(axes):
    return [list(line.get_ydata()) for line in axes.lines if line.get_transform() == axes.transData]


def test_every_seed_is_a_point_and_the_median_a_bar():
    figure, axes = drawn(final("nesterov", [41.0, 40.0, 45.0]), final("lars", [42.0, 42.0], variant="no decay"))
    assert [41.0, 40.0, 45.0] in values_of(axes) and [41.0, 41.0] in values_of(axes)
    points = next(line for line in axes.lines if list(line.get_ydata()) == [42.0, 42.0] and line.get_marker() != "None")
    assert len(set(points.get_xdata())) == 2  # side by side
    assert points.get_markerfacecolor() == "none"  # an ablation
    assert [label.get_text() for label in axes.get_xticklabels()] == ["nesterov (n=3)", "no decay (n=2)"]
    assert r"some \$ data \$, pixels" in figure._suptitle.get_text().replace("\n", " ")
    assert "n=2 to 3 seeds each" in figure._suptitle.get_text().replace("\n", " ")


def test_a_diverged_seed_is_no_value_but_a_marker_at_the_foot():
    _, axes = drawn(final("nesterov", [41.0, None, 45.0]), final("lars", [None, None, 40.0]))
    assert min(min(values, default=99.0) for values in values_of(axes)) >= 40.0
    lost = [line for line in axes.lines if line.get_transform() == axes.get_xaxis_transform()]
    assert [len(line.get_xdata()) for line in lost] == [1, 2]
    medians = [line for line in axes.lines if line.get_linewidth() == MEDIAN["linewidth"]]
    assert [list(line.get_ydata()) for line in medians] == [[41.0, 41.0]]  # most of the other's runs have no figure
    assert "diverged" in [text.get_text() for text in axes.texts]


@pytest.mark.parametrize(("count", "boxes"), [(FEW, 0), (FEW + 1, 1)])
def test_many_seeds_are_a_box(count, boxes):
    values = [40.0 + number / 10 for number in range(count)]
    _, axes = drawn(final("nesterov", values))
    assert (values in values_of(axes)) == (not boxes)
    assert bool([line for line in axes.lines if len(line.get_xdata()) == 5]) == bool(boxes)

import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from planted import looked, plant
from support import configure

from lbt import records, runtime
from lbt.cli import main
from lbt.config import CONFIG_DIR
from lbt.optim.tvlars import phi
from lbt.report import figures
from lbt.report.figures import looks, norms
from lbt.report.figures.kinds import KINDS
from lbt.report.figures.points import points
from lbt.report.figures.spec import Spec
from lbt.report.frame import load
from lbt.report.kit import specs
from lbt.report.kit.style import DASHES, MARKERS, along, context


def spec(name):
    return Spec(**specs.read(figures.GROUP, name))


def record(results_dir, accuracy, *overrides, folder="tvlars_table1_x", seed=0, **more):
    config = runtime.settle(configure("data=cifar10", "precision=fp32", *overrides))
    return plant(results_dir, replace(config, experiment=folder, seed=seed), accuracy, **more)


def norm_lines(names=("first", "last")):
    lines = []
    for epoch in range(100):
        found = {"steps": [epoch], "lwn": [[2.0 + epoch, 6.0]], "lgn": [[0.5, 0.0 if epoch == 3 else 2.0]]}
        lines.append({"test_loss": 1.0, "layer_norms": {"names": list(names), **found} if epoch == 0 else found})
    return lines


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A record or two for each figure that is drawn from records."""
    folder = tmp_path_factory.mktemp("results")
    for batch in (512, 1024, 16384):
        for optimizer in ("lars", "tvlars"):
            record(folder, 80.0, f"batch={batch}", f"optimizer={optimizer}")
        nowa = (f"batch={batch}", "optimizer=lars", "schedule=warmup_polynomial", "warmup=0")
        record(folder, 70.0, *nowa, folder="fig2_warmup")
        record(folder, 70.0, *nowa, "ema=0.5", folder="fig3_norms", lines=norm_lines())
        record(folder, 75.0, f"batch={batch}", "optimizer=tvlars", "optimizer.lam=0.01", folder="fig6_lambda")
        for init in ("xavier_normal", "kaiming_normal"):
            place = (f"batch={batch}", "optimizer=tvlars", f"model.init={init}")
            record(folder, 78.0, *place, folder="fig8_init")
    record(folder, None, "batch=512", "optimizer=lamb", status="diverged")
    tiny = ("data=tiny_imagenet", "model=resnet34", "batch=1024")
    record(folder, 40.0, *tiny, "optimizer=tvlars")
    record(folder, 41.0, *tiny, "optimizer=tvlars", "lr_rank=2")
    record(folder, 30.0, *tiny, "optimizer=tvlars", "optimizer.lam=0.01", folder="fig6_lambda")
    record(folder, 35.0, *tiny, "optimizer=lars", "ema=0.5", folder="fig3_norms", lines=norm_lines())
    for experiment in ("why_sharpness", "why_sharpness_small"):
        looked(folder, 60.0, f"+experiment={experiment}", "batch=512", "schedule=nowa")
    for batch, epoch in ((512, 5), (1024, 3), (2048, 2)):
        of_table, curve = ("optimizer=tvlars", f"batch={batch}", "protocol=released"), [10.0] * epoch
        record(folder, curve + [80.0] * (100 - epoch), *of_table, folder="tvlars_table1_cifar10_clf")
    for factor, loss in ((1, 1.0), (2, 1.2), (4, None)):
        branch = runtime.settle(configure("+experiment=critical_batch", "branch.at=1", f"branch.factor={factor}"))
        plant(folder, branch, [50.0] * 2, status="done" if loss else "diverged", lines=[{"test_loss": loss}] * 2)
    for batch in (512, 4096):
        place = ("protocol=plain", "optimizer=lars", f"batch={batch}", "lr_rank=0", "epochs=100")
        record(folder, 80.0, *place, folder="tvlars_readings")
    sending = ("batch=512", "epochs=5")
    record(folder, 60.0, *sending, "optimizer=lamb", folder="communication")
    lines = [{"bytes_sent": 3_000_000}] * 5
    record(folder, 58.0, *sending, "optimizer=onebit_lamb", "workers=8", folder="communication", lines=lines)
    for optimizer in ("adamw", "lamb"):
        words = ("+experiment=reality_check_text_tune", f"optimizer={optimizer}", "batch=256")
        path = plant(folder, runtime.settle(configure(*words)), 1.0)
        origin = {"sha256": optimizer * 10, "run": records.read(path).run["id"]}
        tuned = replace(runtime.settle(configure("+experiment=bert_finetune")), init_from=origin)
        plant(folder, tuned, 70.0, lines=[{"val_accuracy": 70.0}] * 3)
    return folder


def test_every_figure_is_drawn_and_the_same_records_give_the_same_bytes(results):
    def drawn():
        assert main(["plots", "--results-dir", str(results)]) == 0
        found = {path.name: path.read_bytes() for path in (results / "figures").iterdir()}
        return found | {"README.md": (results / "README.md").read_bytes()}

    assert main(["tables", "--results-dir", str(results)]) == 0
    first = drawn()
    wanted = {f"{name}.{ending}" for name in figures.names() for ending in ("svg", "png")}
    assert set(first) == wanted | {"README.md"}
    assert drawn() == first
    page = first["README.md"].decode()
    for name in figures.names():
        assert f"](figures/{name}.png)" in page and page.count(f"`lbt plots {name}`") == 1
    for target in re.findall(r"\]\(([\w./]+)\)", page):
        assert (results / target).exists(), target


def test_a_figure_without_a_record_is_not_drawn_and_says_so(tmp_path, capsys):
    assert main(["plots", "fig3_norms", "fig8_init", "accuracy_by_batch", "--results-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{name}: not drawn, there is no record of it yet" for name in ("fig3_norms", "fig8_init", "accuracy_by_batch")
    ]
    assert not list((tmp_path / "figures").iterdir())
    page = (tmp_path / "README.md").read_text()
    assert "\n## Not run yet\n" in page
    for name in figures.names():
        assert f"`lbt plots {name}`" in page
    for experiment in re.findall(r"`lbt train -m \+experiment=([^` ]+)", page):
        assert (CONFIG_DIR / "experiment" / f"{experiment}.yaml").exists()


def test_a_misspelt_figure_is_one_line_with_the_right_name(tmp_path, capsys):
    assert main(["plots", "fig6_lamda", "--results-dir", str(tmp_path)]) == 2
    expected = 'lbt: there is no figure, study or sweep "fig6_lamda"; did you mean "fig6_lambda"?\n'
    assert capsys.readouterr().err == expected


def lines_of(figure, panel=0):
    return [tuple(map(float, line.get_ydata())) for line in figure.axes[panel].lines]


def test_accuracy_by_batch_shows_the_best_rates_mean_and_the_published_best(tmp_path):
    for seed, accuracy in enumerate((80.0, 83.0)):
        record(tmp_path, accuracy, "batch=512", "optimizer=lars", "lr=2", seed=seed)
        record(tmp_path, accuracy, "batch=1024", "optimizer=lars", "lr=2", seed=seed)
    record(tmp_path, 10.0, "batch=512", "optimizer=lars", "lr=3")
    with context():
        drawn = lines_of(KINDS["lines"](spec("accuracy_by_batch"), load(tmp_path)))
    assert (81.5, 81.5) in drawn
    assert (79.64, 80.52) in drawn  # LARS's best published at 512 and at 1,024, classification on CIFAR-10


def test_a_run_stands_in_each_readings_row_at_the_rate_that_prints_its_peak(tmp_path):
    """A peak of 1 at batch 512: printed 1 if plain, in the third column (3) if the ladder's 0.5 times 512/256."""
    place = ("protocol=plain", "optimizer=lars", "batch=512", "lr_rank=0", "epochs=100")
    record(tmp_path, 77.7, *place, folder="tvlars_readings")
    found, _ = points(spec("fig_readings"), load(tmp_path))
    assert {(point.panel, point.x) for point in found} == {(("plain", 512), 1.0), (("ladder", 512), 3.0)}
    with context():
        rows = KINDS["lines"](spec("fig_readings"), load(tmp_path)).axes
    for axes in rows:
        printed = [tuple(line.get_ydata()) for line in axes.lines]
        assert (74.64, 79.64) in printed, printed  # LARS's published, in both


def test_figures_of_other_data_or_lengths_are_left_out_and_counted(tmp_path):
    for seed in range(2):
        record(tmp_path, 80.0, "batch=512", "optimizer=lars", seed=seed)
    record(tmp_path, 20.0, "batch=512", "optimizer=lars", seed=2, fingerprint="a" * 16)
    found, notes = points(spec("accuracy_by_batch"), load(tmp_path))
    assert [point.cell.values for point in found] == [[80.0, 80.0]]
    assert "not shown: 1 runs on other data or of another length or precision" in notes


def test_warm_up_is_compared_at_a_rate_both_were_run_at(tmp_path):
    record(tmp_path, 85.0, "batch=512", "optimizer=lars", "lr=3")
    record(tmp_path, 80.0, "batch=512", "optimizer=lars", "lr=2")
    nowa = ("batch=512", "optimizer=lars", "lr=2", "schedule=warmup_polynomial", "warmup=0")
    record(tmp_path, 70.0, *nowa, folder="fig2_warmup")
    found, _ = points(spec("fig2_warmup"), load(tmp_path))
    assert sorted((point.series, point.cell.mean) for point in found) == [(False, 70.0), (True, 80.0)]


def test_lnr_is_weight_norm_over_gradient_norm_and_time_is_in_epochs(results):
    (path, *_) = (results / "runs" / "fig3_norms").iterdir()
    read = norms.read(str(path), steps_per_epoch=4)
    assert read.names == ["first", "last"] and read.ratio.shape == (100, 2)
    np.testing.assert_allclose(read.ratio[:, 0], (2.0 + np.arange(100)) / 0.5)
    assert np.isnan(read.ratio[3, 1]) and read.ratio[4, 1] == 3.0
    np.testing.assert_allclose(read.epochs, np.arange(100) / 4)
    (other, *_) = (results / "runs" / "fig8_init").iterdir()
    assert norms.read(str(other), 4) is None


def test_the_computed_figures_are_the_optimizers_own_phi(tmp_path):
    with context():
        figure = KINDS["phi"](spec("fig5_phi"), load(tmp_path))
    line = figure.axes[1].lines[4]  # paper protocol, batch 16,384: 4 updates an epoch; lambda 0.005
    assert len(line.get_ydata()) == 400
    expected = phi(123.0, alpha=1.0, lam=0.005, delay_steps=40, floor=0.064)
    assert line.get_ydata()[123] == pytest.approx(expected) and line.get_xdata()[123] == 31.0


@pytest.mark.parametrize("backend", ["no_such_backend", "module://no.such.module"])
@pytest.mark.parametrize("verb", [["plots", "fig1_schedules"], ["reality"]])
def test_a_window_system_chosen_outside_is_none_of_our_business(tmp_path, backend, verb):
    config = replace(runtime.settle(configure("+experiment=reality_check_small_tune", "epochs=2")), study={"trial": 0})
    plant(tmp_path, config, 40.0)
    command = [sys.executable, "-m", "lbt", *verb, "--results-dir", str(tmp_path)]
    done = subprocess.run(command, env={**os.environ, "MPLBACKEND": backend}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_what_records_say_is_no_formula_in_a_figure(tmp_path):
    for batch in (512, 1024):
        path = record(tmp_path, 80.0, f"batch={batch}", "optimizer=lars")
        first, *lines, last = path.read_text().splitlines()
        run = json.loads(first)
        run["provenance"]["data"] = "my $\\frac{$ data"
        records.RecordWriter(path, [json.dumps(run), *lines]).end("done", json.loads(last)["summary"])
    assert main(["plots", "accuracy_by_batch", "--results-dir", str(tmp_path)]) == 0
    assert (tmp_path / "figures" / "accuracy_by_batch.png").stat().st_size > 1000


def drawn(name, folder):
    with context():
        figure = KINDS[spec(name).kind](spec(name), load(folder))
    figure.canvas.draw()
    return figure


def boxes_of(figure):
    renderer = figure.canvas.get_renderer()
    return [axes.get_window_extent(renderer) for axes in figure.axes], renderer


@pytest.mark.parametrize("name", figures.names())
def test_title_and_legend_are_whole_and_outside_the_panels_and_say_data_n_and_precision(results, name):
    figure = drawn(name, results)
    panels, renderer = boxes_of(figure)
    whole = figure.bbox
    for artist in (*figure.legends, figure._suptitle):
        box = artist.get_window_extent(renderer)
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1
        assert not any(box.overlaps(panel) for panel in panels)
    assert all(axes.get_legend() is None for axes in figure.axes)
    said = figure._suptitle.get_text().replace("\n", " ")
    assert "epochs of" in said and "n=" in said and ("no run" in said or "fp32" in said)


def test_a_long_name_of_data_is_wrapped_and_not_cut_off(tmp_path):
    for batch in (512, 1024):
        path = record(tmp_path, 80.0, f"batch={batch}", "optimizer=lars")
        first, *lines, last = path.read_text().splitlines()
        run = json.loads(first)
        run["provenance"]["data"] = "pictures from everywhere, " * 12 + "W" * 200
        records.RecordWriter(path, [json.dumps(run), *lines]).end("done", json.loads(last)["summary"])
    figure = drawn("accuracy_by_batch", tmp_path)
    box = figure._suptitle.get_window_extent(figure.canvas.get_renderer())
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
    assert box.y0 > max(panel.y1 for panel in boxes_of(figure)[0])


def at_foot(axes):
    """Lines whose heights are shares of the panel: no values."""
    return [line for line in axes.lines if line.get_transform() == axes.get_xaxis_transform() and len(line.get_xdata())]


def test_diverged_runs_stand_below_all_values_and_break_the_line(tmp_path):
    for batch in (512, 1024, 2048):
        status = "diverged" if batch == 1024 else "done"
        record(tmp_path, None if batch == 1024 else 10.0, f"batch={batch}", "optimizer=lamb", status=status)
    record(tmp_path, None, "batch=2048", "optimizer=lamb", seed=1, status="diverged")
    figure = drawn("accuracy_by_batch", tmp_path)
    (axes,) = figure.axes
    (markers,) = at_foot(axes)
    assert [round(x) for x in markers.get_xdata()] == [1, 2]
    (height,) = set(markers.get_ydata())
    low = axes.transAxes.inverted().transform(axes.transData.transform((0, 10.0)))[1]
    strip = axes.patches[0].get_height()
    assert 0 < height < strip < low and all(tick > 0 for tick in axes.get_yticks())
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["diverged", "1/2"]
    line = axes.lines[0].get_ydata()
    assert line[0] == line[2] == 10.0 and np.isnan(line[1])
    assert "n=1 to 2; 2 of the 4 shown diverged" in figure._suptitle.get_text()


def test_a_diverged_runs_curve_ends_at_the_epoch_marked_at_the_foot(tmp_path):
    record(tmp_path, [10.0, 30.0, 11.0], "batch=512", "optimizer=lars", status="diverged")
    record(tmp_path, 80.0, "batch=512", "optimizer=tvlars")
    (axes,) = drawn("training_curves", tmp_path).axes
    (markers,) = at_foot(axes)
    assert list(markers.get_xdata()) == [3]


def test_the_epochs_of_a_short_sweep_are_whole(tmp_path):
    for name in ("lars", "tvlars"):
        record(tmp_path, [10.0, 30.0], "batch=512", f"optimizer={name}", "epochs=2")
    asked = spec("training_curves")
    with context():
        figure = KINDS["curves"](replace(asked, select={**asked.select, "epochs": 2}), load(tmp_path))
    (axes,) = figure.axes
    assert [tick for tick in axes.get_xticks() if tick <= 2] == [0, 1, 2]


@pytest.mark.parametrize(("seeds", "points"), [(3, True), (11, False)])
def test_few_seeds_are_drawn_one_by_one_and_many_as_their_deviation(tmp_path, seeds, points):
    accuracies = [80.0 + seed / 4 for seed in range(seeds)]
    for seed, accuracy in enumerate(accuracies):
        for batch in (512, 1024):
            record(tmp_path, accuracy, f"batch={batch}", "optimizer=lars", seed=seed)
    figure = drawn("accuracy_by_batch", tmp_path)
    (axes,) = figure.axes
    assert (tuple(accuracies) in lines_of(figure)) == points
    assert bool(axes.containers) != points  # error bars
    legend = [text.get_text() for text in figure.legends[0].texts]
    assert ("each run" in legend) == points and ("standard deviation" in legend) != points


def test_equal_figures_of_two_optimizers_do_not_hide_each_other(tmp_path):
    for batch in (512, 1024):
        for optimizer in ("lars", "tvlars"):
            record(tmp_path, 82.0, f"batch={batch}", f"optimizer={optimizer}")
    (axes,) = drawn("accuracy_by_batch", tmp_path).axes
    places = [tuple(line.get_xdata()) for line in axes.lines if len(line.get_xdata())]
    assert len(set(places)) == len(places)
    widths = [along(index, 100, 3)["linewidth"] for index in range(3)]
    assert widths == sorted(set(widths), reverse=True)  # curves that coincide lie on wider ones


def test_lines_are_told_apart_without_colour():
    assert len(set(MARKERS)) == len(MARKERS) and len(set(DASHES)) == len(DASHES)
    assert len(MARKERS) == len(DASHES) >= 8


def test_a_line_is_broken_at_a_batch_without_a_run(tmp_path):
    for batch in (512, 2048, 4096):
        record(tmp_path, 70.0, f"batch={batch}", "optimizer=lamb")
    record(tmp_path, 50.0, "batch=1024", "optimizer=lars")
    line = drawn("accuracy_by_batch", tmp_path).axes[0].lines
    (of_lamb,) = [one.get_ydata() for one in line if 70.0 in one.get_ydata()]
    assert np.array_equal(of_lamb, [70.0, np.nan, 70.0, 70.0], equal_nan=True)


def test_a_figure_says_under_which_reading_of_the_rates_its_lines_were_run(tmp_path):
    for batch in (1024, 4096):
        record(tmp_path, 80.0, f"batch={batch}", "optimizer=lars", "protocol=plain")
        record(tmp_path, 60.0, f"batch={batch}", "optimizer=lars", "protocol=released", "protocol.schedule_lag=0")
    figure = drawn("accuracy_by_batch", tmp_path)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["released protocol, scaled reading", "released protocol, plain reading"]
    assert (80.0, 80.0) in lines_of(figure, 1) and (60.0, 60.0) in lines_of(figure, 0)


def test_a_line_looks_the_same_whichever_others_are_there(tmp_path):
    for batch in (512, 1024):
        record(tmp_path, 80.0, f"batch={batch}", "optimizer=tvlars")
    alone = drawn("accuracy_by_batch", tmp_path).axes[0].lines[0]
    for batch in (512, 1024):
        record(tmp_path, 80.0, f"batch={batch}", "optimizer=lars")
    both = drawn("accuracy_by_batch", tmp_path).axes[0].lines
    assert (alone.get_marker(), alone.get_color()) in [(line.get_marker(), line.get_color()) for line in both[1:]]
    assert alone.get_marker() != both[0].get_marker()


def test_a_figure_of_one_protocol_names_it_and_how_its_means_are_made(tmp_path):
    for seed, status in enumerate(("done", "diverged")):
        accuracy = 70.0 if status == "done" else None
        nowa = ("batch=512", "optimizer=lars", "schedule=warmup_polynomial", "warmup=0")
        record(tmp_path, accuracy, *nowa, folder="fig2_warmup", seed=seed, status=status)
    record(tmp_path, 80.0, "batch=512", "optimizer=lars")
    said = drawn("fig2_warmup", tmp_path)._suptitle.get_text().replace("\n", " ")
    assert "protocol paper; fp32; 3 runs" in said
    assert "a mean is over the runs that did not diverge" in said or "in a mean a diverged run is at chance" in said


def test_a_diverged_run_with_norms_is_said_to_have_diverged(tmp_path):
    lines = [{**norm_lines()[0], "train_loss": None, "test_loss": None}]
    record(tmp_path, None, "batch=512", "optimizer=lars", folder="fig3_norms", lines=lines, status="diverged")
    assert "diverged where the line ends: WA-LARS at batch 512" in drawn("fig3_norms", tmp_path)._suptitle.get_text()


def test_looks_show_each_run_and_their_mean_by_updates(tmp_path):
    """lambda_max falls from 100 by the epoch; the noise scale's mean is the quotient of the means of its parts."""
    for seed, level in enumerate((1.0, 4.0)):
        where = ("+experiment=why_sharpness", "batch=512", "schedule=nowa")
        looked(tmp_path, 60.0, *where, seed=seed, sharpness=lambda over, level=level: level * 100 / (10 * over))
    with context():
        figure = KINDS["looks"](spec("fig_sharpness"), load(tmp_path))
    drawn = {tuple(np.round(one, 6)) for one in lines_of(figure)}
    assert drawn == {tuple(np.round(level * 100 / np.arange(1, 11), 6)) for level in (1, 2, 4)}
    assert [tuple(line.get_xdata()) for line in figure.axes[0].lines] == [tuple(range(1, 11))] * 3
    assert "n=2" in figure._suptitle.get_text()
    assert looks._quotient([[{1: 1.0}, {1: 1.0}], [{1: 9.0, 2: 3.0}, {1: 1.0, 2: 0.0}]]) == {1: 5.0}

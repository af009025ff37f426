"""Times what reads many synthetic records: `lbt status`, `lbt tables`, `lbt plots`, the page, and a finished sweep.

    python scripts/bench_report.py --records 10000 --cells 1000
    python scripts/bench_report.py page answer

Of each the seconds and the peak memory; the index of the records, which `status` and a sweep use, without its cache and
with it. The records have 100 epochs each and the settings of the experiments behind Table 1 and figures 2, 3, 6 and 8,
with as many seeds as it takes; their numbers are made up, and they lie in a temporary folder. The sweep's cells are
runs of the embedded digits that have all been finished; what is timed is how long it takes to see that.

The page is also made of the committed results, and opened in headless Chromium where there is one and selenium is
installed: its first paint, and a search and a filter of the runs until the table shows them. Beside the figures stand
the targets; what misses one is marked, and makes the exit code 1.
"""

import argparse
import hashlib
import importlib.util
import itertools
import json
import math
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import browsed_page

from lbt import build, records, runtime, sweep
from lbt.config import Config, resolve
from lbt.identity import identity, run_id, to_json

RESULTS = Path(__file__).resolve().parents[1] / "results"
PARTS = ("status", "tables", "answer", "page", "sweep")
WRITE_PAGE = "import sys; from lbt.report.page import write; write(sys.argv[1])"
BATCHES = (512, 1024, 2048, 4096, 8192, 16384)
PROTOCOLS = ("paper", "released")
LAYERS = 21
FINGERPRINT = "5" * 16
MADE_BY = {
    "lbt": "0.1.0", "commit": "0" * 40, "dirty": False, "torch": "2.11.0", "device_name": "none",
    "data": "synthetic", "data_fingerprint": FINGERPRINT, "steps_per_epoch": 20,
}  # fmt: skip


def grid() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yields (experiment, overrides) of every configuration."""
    for batch, protocol, rank, name in itertools.product(BATCHES, PROTOCOLS, range(3), ("lars", "lamb", "tvlars")):
        yield "tvlars_table1_x", (f"batch={batch}", f"protocol={protocol}", f"lr_rank={rank}", f"optimizer={name}")
    for batch, protocol, lam in itertools.product((1024, 16384), PROTOCOLS, (1e-6, 1e-5, 1e-4, 5e-3, 1e-2)):
        place = (f"batch={batch}", f"protocol={protocol}")
        yield "fig6_lambda", (*place, "optimizer=tvlars", f"optimizer.lam={lam}")
    for batch, protocol, init in itertools.product(BATCHES, PROTOCOLS, ("xavier_uniform", "kaiming_normal")):
        place = (f"batch={batch}", f"protocol={protocol}")
        yield "fig8_init", (*place, "optimizer=tvlars", f"model.init={init}")
    for batch in BATCHES:
        yield "fig2_warmup", (f"batch={batch}", "optimizer=lars", "schedule=warmup_polynomial", "warmup=0")
    for batch, schedule in itertools.product(BATCHES, ("warmup_cosine", "nowa")):
        yield "fig3_norms", (f"batch={batch}", "optimizer=lars", "ema=0.5", f"schedule={schedule}")


def epoch_lines(variant: int, norms: bool) -> tuple[str, dict]:
    """Returns 100 epochs' lines and the last one's figures."""
    lines = []
    for epoch in range(1, 101):
        accuracy = round(10 + (60 + variant % 17) * (1 - math.exp(-epoch / (10 + variant))), 2)
        loss = 2.3 * math.exp(-epoch / 50)
        line = {"kind": "epoch", "epoch": epoch, "step": 20 * epoch, "lr": 0.1, "effective_lr": 0.1, "train_loss": loss}
        line |= {"test_loss": loss, "test_accuracy": accuracy, "wall_train_seconds": 1.0, "wall_eval_seconds": 1.0}
        if norms:
            steps = [20 * (epoch - 1), 20 * (epoch - 1) + 10]
            rows = [[1.0 + layer + epoch for layer in range(LAYERS)] for _ in steps]
            line["layer_norms"] = {"names": list(range(LAYERS)), "steps": steps, "lwn": rows, "lgn": rows}
        lines.append(json.dumps(line))
    figures = {"epochs": 100, "steps": 2000, "train_loss": loss, "test_loss": loss, "test_accuracy": accuracy}
    return "".join(f"{line}\n" for line in lines), {**figures, "wall_seconds": 1.0}


def plant(folder: Path, config: Config, epochs: str, summary: dict, fingerprint: str = FINGERPRINT) -> None:
    """Writes one record."""
    name = run_id(identity(config), fingerprint)
    made_by = {**MADE_BY, "data_fingerprint": fingerprint}
    first = {"kind": "run", "schema": records.SCHEMA, "id": name, "config": to_json(config), "provenance": made_by}
    text = f"{records.to_line(first)}\n{epochs}"
    sha256 = records.checksum(text.encode())
    end = records.to_line({"kind": "end", "status": "done", "summary": summary, "sha256": sha256})
    path = records.path_of(folder, config.experiment, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}{end}\n")


def plant_all(folder: Path, count: int) -> None:
    """Writes `count` records, seed by seed; the layers' norms are in one seed of figure 3."""
    known = [
        replace(runtime.settle(resolve(sweep.compose([*overrides, "precision=fp32"]))), experiment=experiment)
        for experiment, overrides in grid()
    ]
    pool = [epoch_lines(variant, False) for variant in range(40)]
    norms = epoch_lines(0, True)
    kinds = ((seed, config) for seed in itertools.count() for config in known)
    for _, (seed, config) in zip(range(count), kinds, strict=False):
        chosen = int(hashlib.sha256(f"{seed}{config}".encode()).hexdigest(), 16) % len(pool)
        with_norms = config.experiment == "fig3_norms" and seed == 0
        plant(folder, replace(config, seed=seed), *(norms if with_norms else pool[chosen]))


def plant_cells(folder: Path, count: int) -> list[str]:
    """Writes the records of a grid on the digits and returns the overrides that make it."""
    overrides = ["data=digits", "precision=fp32", "device=cpu", "epochs=100", f"results_dir={folder}"]
    config = runtime.settle(resolve(sweep.compose(overrides)))
    fingerprint = build.images(config).fingerprint
    for seed in range(count):
        plant(folder, replace(config, seed=seed), *epoch_lines(seed % 40, False), fingerprint)
    return [*overrides, f"seed=range(0,{count})"]


def measure(what: str, *words: str) -> tuple[float, float]:
    """Runs a command of the package; returns its seconds and peak memory in MiB, and prints them."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL)
    _, code, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if code:
        raise SystemExit(f"{' '.join(words)}: exit code {os.waitstatus_to_exitcode(code)}")
    cpu = used.ru_utime + used.ru_stime
    peak = used.ru_maxrss / 1024  # KiB on Linux
    print(f"{what}: {seconds:.1f} s, of them {cpu:.1f} s at work, peak memory {peak:.0f} MiB", flush=True)
    return seconds, peak


def lbt(what: str, *words: str) -> float:
    """Measures a verb; returns its seconds."""
    return measure(what, "-m", "lbt", *words)[0]


def target(what: str, value: float, most: float, unit: str) -> bool:
    """Prints a figure beside its target; returns whether it misses that."""
    print(f"  {what}: {value:.3g} {unit} (target: under {most:g}){' MISSED' if value > most else ''}", flush=True)
    return value > most


def status(folder: Path) -> None:
    """Measures `lbt status` without the index's cache and with it."""
    shutil.rmtree(folder / "work", ignore_errors=True)
    one = ["status", "data=digits", f"results_dir={folder}"]
    lbt("lbt status, first time", *one)
    lbt("lbt status, again", *one)


def tables(folder: Path) -> None:
    """Measures the tables and figures."""
    where = ("--results-dir", str(folder))
    print(f"{lbt('lbt tables', 'tables', *where) + lbt('lbt plots', 'plots', *where):.1f} s together")


def answer(folder: Path) -> None:
    """Measures the answers."""
    lbt("lbt answer", "answer", "--results-dir", str(folder))


def swept(folder: Path, cells: int) -> None:
    """Measures how long it takes to see that a sweep is finished."""
    words = plant_cells(folder, cells)
    print(f"a sweep of {cells} finished runs")
    lbt("lbt status", "status", *words)
    lbt("lbt train -m", "train", "-m", *words)


def page(folder: Path, what: str, seconds: float, megabytes: float, mebibytes: float | None = None) -> bool:
    """Measures the page of a folder against its targets; returns whether one is missed."""
    if importlib.util.find_spec("lbt.report.page") is None:
        print("the page: not measured, there is no lbt.report.page")
        return False
    took, peak = measure(f"the page of {what}", "-c", WRITE_PAGE, str(folder))
    size = (folder / "index.html").stat().st_size / 1e6
    missed = [target("made", took, seconds, "s"), target("size", size, megabytes, "MB")]
    missed += [target("peak memory", peak, mebibytes, "MiB")] if mebibytes else []
    if why := browsed_page.missing():
        print(f"  in a browser: not measured, {why}")
        return any(missed)
    for name, times in browsed_page.timed(folder / "index.html").items():
        most = 2000 if name == "first paint" else 200
        missed.append(target(f"{name}, median of {len(times)}", statistics.median(times), most, "ms"))
    return any(missed)


def committed(folder: Path) -> Path:
    """Returns a copy of the committed results, whose page is nobody's to commit."""
    shutil.copytree(RESULTS, folder, ignore=shutil.ignore_patterns("index.html", "work"))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--records", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--folder", type=Path, help="of the records; planted there if it does not exist, and kept")
    parser.add_argument("--cells", type=int, default=1_000, help="of the finished sweep; default: %(default)s")
    options = parser.parse_args()
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"{unknown[0]}: choose from {', '.join(PARTS)}")
    missed = False
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "results"
        if not folder.exists():
            # In a process of its own, which ends before anything is measured.
            planting = multiprocessing.Process(target=plant_all, args=(folder, options.records))
            planting.start()
            planting.join()
        print(f"{len(records.paths(folder))} records")
        for part in options.parts or PARTS:
            if part == "page":
                missed = page(committed(Path(temporary) / "committed"), "the committed results", 5, 4) or missed
                missed = page(folder, f"{len(records.paths(folder))} records", 40, 25, 1536) or missed
            elif part == "sweep":
                swept(Path(temporary) / "sweep", options.cells)
            else:
                {"status": status, "tables": tables, "answer": answer}[part](folder)
    raise SystemExit(int(missed))


if __name__ == "__main__":
    main()

"""The full training loop against the bare network: images/s of both, interleaved in one process, medians and ratios.

bare: forward and backward of the model on one fixed, normalised batch, in the same precision and memory format.
full: what a run does an update: gather, augmentation, normalisation, forward, backward, optimizer, schedule.
For Barlow Twins an image is a pair of views; the memory of its loss is printed too.

    python scripts/bench_pipeline.py                             # synthetic images
    python scripts/bench_pipeline.py --task barlow_twins --batches 2048 --precisions bf16
    python scripts/bench_pipeline.py --norms 10                  # what layer_norms=10 adds to an update
    python scripts/bench_pipeline.py --probes --batches 512 --precisions fp32   # share of a 20-epoch training in probes
    python scripts/bench_pipeline.py --set data=cifar10 --set data.root=DIR --precisions bf16
    python scripts/bench_pipeline.py --task masked_language --set model=bert_tiny --set data=pydocs
    python scripts/bench_pipeline.py --text DIR                  # MB/s of making tokens and sequences of its *.txt
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from lbt import build, runtime, sweep
from lbt.config import resolve
from lbt.data import vocabulary as vocabularies
from lbt.data.packing import pack
from lbt.tasks.barlow_twins import barlow_twins_loss
from lbt.train import Training
from lbt.train.probes.curvature import Curvature
from lbt.train.probes.layer_norms import LayerNorms
from lbt.train.probes.looks import loss_of, still, trained

EPOCHS, IMAGES, SCORED = 20, 50_000, 10_000  # of the training whose share of probes is told: CIFAR-10's images


def make(overrides: list[str]) -> Training:
    config = runtime.settle(resolve(sweep.compose(overrides)))
    return Training(config, build.images(config), "benchmark")


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def timed(function, device: torch.device) -> float:
    synchronise(device)
    started = time.perf_counter()
    function()
    synchronise(device)
    return time.perf_counter() - started


def compare(overrides: list[str], rounds: int, updates: int) -> tuple[float, float, float]:
    """Returns the medians of bare and full images/s, and of the rounds' ratios full/bare."""
    training = make(overrides)
    batch = training.config.batch
    executor, device = training.update.executor, training.device
    batches = training.data.batches()
    images, labels = next(batches)
    fixed = executor.input(images)

    def bare() -> None:
        for _ in range(updates):
            training.model.zero_grad(set_to_none=True)
            with executor.autocast():
                loss = executor.task.loss(executor.task.forward(training.model, fixed), labels)["loss"]
            loss.backward()

    def full() -> None:
        nonlocal batches
        for _ in range(updates):
            pair = next(batches, None)
            if pair is None:
                batches = training.data.batches()
                pair = next(batches)
            training._update(*pair)

    bare(), full()
    bare_rates, full_rates = [], []
    for number in range(rounds):
        order = ((bare, bare_rates), (full, full_rates))
        for function, rates in order if number % 2 == 0 else order[::-1]:
            rates.append(batch * updates / timed(function, device))
    ratios = [one / other for one, other in zip(full_rates, bare_rates, strict=True)]
    return statistics.median(bare_rates), statistics.median(full_rates), statistics.median(ratios)


def loss_memory(batch: int, width: int = 4096) -> float:
    """Returns the peak MiB that Barlow Twins' loss and its gradient take beyond the embeddings, in float32."""
    torch.manual_seed(0)
    first, second = (torch.randn(batch, width, requires_grad=True) for _ in range(2))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        barlow_twins_loss(first, second)[0].backward()
    now = peak = 0
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak / 2**20


def cost_of_norms(overrides: list[str], rounds: int, every: int) -> tuple[float, float]:
    """Returns the medians, in ms, of one measurement of the layers' norms and of one update."""
    training = make(overrides)
    norms = LayerNorms(training.model, every=1, most=every)
    (images, labels) = next(training.data.batches())

    def measure() -> None:
        for _ in range(every):
            norms.measure(training.update)

    training._update(images, labels)
    measurements, updates = [], []
    for _ in range(rounds):
        updates.append(1e3 * timed(lambda: training._update(images, labels), training.device))
        measurements.append(1e3 / every * timed(measure, training.device))
        norms.read()
    return statistics.median(measurements), statistics.median(updates)


def computed(function, device: torch.device) -> float:
    """Returns the seconds a function takes, on a CPU those that the process computes: others may be busy there."""
    if device.type != "cpu":
        return timed(function, device)
    started = time.process_time()
    function()
    return time.process_time() - started


def cost_of_product(training: Training, rounds: int) -> float:
    """Returns the median of the rounds' ratios: a Hessian-vector product in gradients, on the probe's images."""
    probe, ratios = training.update.probes["sharpness"], []
    with still(training.model) as model:
        parts = probe._parts(training.update)
        weights = [one for _, one in trained(model)]
        losses = [(1 / len(parts), loss_of(training.update, model, *part)) for part in parts]
        curvature, vector = Curvature(losses, weights), [torch.randn_like(one) for one in weights]
        curvature.product(vector)
        for _ in range(rounds):
            gradient = computed(curvature.gradient, training.device)
            ratios.append(computed(lambda: curvature.product(vector), training.device) / gradient)
    return statistics.median(ratios)


def cost_of_probes(overrides: list[str], rounds: int) -> tuple[dict[str, float], float]:
    """Returns each default probe's share, in %, of a training of EPOCHS epochs of IMAGES images, and a product's cost.

    An update, an evaluation of as many images and a look are computed in turn, and each round's multiplied by how many
    there are of them; the look before the first update, which has less to do, counts like the others.
    """
    names, shares = ["sharpness", "noise_scale"], []
    training = make([*overrides, f"probes=[{','.join(names)}]"])
    images, labels = next(training.data.batches())
    training._update(images, labels)
    looks, updates = EPOCHS // training.config.probe_every + 1, EPOCHS * -(-IMAGES // training.config.batch)
    for _ in range(rounds):
        update = computed(lambda: training._update(images, labels), training.device)
        evaluation = computed(lambda: evaluated(training, images), training.device) * SCORED / len(images)
        costs = {}
        for name in names:
            probe = training.update.probes[name]
            costs[name] = computed(lambda probe=probe: probe.look(training.update, ended=True), training.device)
            products = probe.read().get("products", 0)
            print(f"  {name}: a look {costs[name]:.1f} s, {products} products; an update {update:.1f} s", flush=True)
        whole = updates * update + EPOCHS * evaluation + looks * sum(costs.values())
        shares.append({name: 100 * looks * one / whole for name, one in costs.items()})
    medians = {name: statistics.median(share[name] for share in shares) for name in names}
    return medians, cost_of_product(training, rounds)


@torch.no_grad()
def evaluated(training: Training, images: torch.Tensor) -> None:
    training.model.eval()
    training.update.executor.forward(images)
    training.model.train()


def start_up() -> float:
    """Returns the seconds of a whole `lbt train data=digits` of a single update: start to first step, and its end."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = ["data=digits", "batch=1437", "epochs=1", f"results_dir={folder}"]
        command = [sys.executable, "-m", "lbt", "train", *overrides]
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - started


def speed_of_text(folder: Path, rounds: int) -> None:
    """Prints the MB of text a second that are made tokens and packed, by both kinds of tokens; medians of rounds."""
    texts = [path.read_text() for path in sorted(folder.rglob("*.txt"))]
    size = sum(len(text.encode()) for text in texts) / 1e6
    for kind in vocabularies.KINDS:
        started = time.perf_counter()
        vocabulary = vocabularies.trained(texts, 8192, kind)
        learned, spent, computing = time.perf_counter() - started, [], []
        for _ in range(rounds):
            before = time.process_time()
            spent.append(timed(lambda: pack(vocabulary.encode(texts), 128, apart=True), torch.device("cpu")))  # noqa: B023
            computing.append(time.process_time() - before)
        rates = size / statistics.median(spent), size / statistics.median(computing)
        print(
            f"{kind:9} {size:.1f} MB: {rates[0]:.2f} MB/s, {rates[1]:.2f} a second of computing; "
            f"its vocabulary of {vocabulary.size:,} took {learned:.1f} s"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[512, 4096])
    parser.add_argument("--precisions", nargs="+", default=["bf16", "fp32"])
    parser.add_argument("--task", default="classification")
    parser.add_argument("--optimizers", nargs="+", default=["tvlars"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=4096, help="images per timing (default: %(default)s)")
    parser.add_argument("--norms", type=int, metavar="K", help="only the cost of layer_norms=K")
    parser.add_argument("--probes", action="store_true", help="only the cost of sharpness and noise_scale")
    parser.add_argument("--text", type=Path, metavar="DIR", help="only the speed of making tokens of its *.txt")
    parser.add_argument("--set", action="append", default=[], metavar="OVERRIDE", help="e.g. data=cifar10")
    options = parser.parse_args()
    if options.text:
        return speed_of_text(options.text, options.rounds)
    base = [f"task={options.task}", *(options.set or ["data=synthetic", "data.size=8192"])]
    if options.task == "classification" and not options.set:
        base.append("data.augment=crop_flip_rotate")

    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, ResNet18 unless set (of text: sequences)")
    print(f"{'optimizer':10} {'batch':>6} {'precision':9} {'bare img/s':>11} {'full img/s':>11} {'full/bare':>9}")
    for optimizer in options.optimizers:
        for precision in options.precisions:
            for batch in options.batches:
                overrides = [*base, f"optimizer={optimizer}", f"batch={batch}", f"precision={precision}"]
                if options.norms:
                    one, update = cost_of_norms(overrides, options.rounds, options.norms)
                    share = 100 * one / options.norms / update
                    print(f"{optimizer} {batch} {precision}: norms {one:.2f} ms, update {update:.1f} ms, {share:.2f} %")
                    continue
                if options.probes:
                    shares, product = cost_of_probes(overrides, options.rounds)
                    told = ", ".join(f"{name} {share:.1f}" for name, share in shares.items())
                    print(f"{optimizer} {batch} {precision}: {sum(shares.values()):.1f} % of {EPOCHS} epochs ({told})")
                    print(f"{optimizer} {batch} {precision}: a Hessian-vector product costs {product:.2f} gradients")
                    continue
                updates = max(1, options.images // batch)
                bare, full, ratio = compare(overrides, options.rounds, updates)
                print(f"{optimizer:10} {batch:6} {precision:9} {bare:11,.0f} {full:11,.0f} {ratio:9.3f}", flush=True)
    if options.task == "barlow_twins":
        for batch in options.batches:
            print(f"loss and gradient at D = 4096, batch {batch}, fp32: {loss_memory(batch):.0f} MiB (D x D: 64 MiB)")
        return
    if options.norms or options.probes:
        return
    print(f"lbt train data=digits, start to the end of its first and only update: {start_up():.1f} s")


if __name__ == "__main__":
    main()

"""Every optimizer choice on two processes: as one process, or refused in one line. One start of them for all checks."""

import contextlib
import copy
import os
import socket
import warnings

import pytest
import torch
from torch import nn

import lbt.optim
from lbt.optim import shampoo, shares

distributed = pytest.importorskip("torch.distributed")
if not (distributed.is_available() and distributed.is_gloo_available()):
    pytest.skip("needs gloo", allow_module_level=True)

OPTIONS = {
    "lars": {"eta": 0.1},
    "tvlars": {"eta": 0.1, "lam": 0.3, "denominator": "joint"},
    "clars": {"eta": 0.1},
    "larc": {"eta": 0.1},
    "lamb": {"grad_clip": 0.1},
    "shampoo": {"start": 1, "interval": 1, "eps": 1e-3, "block": 8},
    "muon": {"ns_precision": "full"},
    "sam": {"rho": 0.3, "adaptive": True},
    "soap": {"max_precondition_dim": 1},  # else rounding chooses its first basis, see test_suite.py
}
LAYERS = {"lars", "tvlars", "clars", "larc", "lamb", "sm3", "shampoo", "muon", "sam", "soap"}  # see more than elements
# Rules for several workers exchange by themselves: test_workers.py and tests/devices.
NAMES = [name for name in lbt.optim.names() if not getattr(lbt.optim.get(name), "local_gradients", False)]
WAYS = ("ddp", "no_sync", "zero", "fsdp2", "fsdp2_resumed", "fsdp1")
NEAR = 1e-12


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 5)).double()


def batch(step):
    generator = torch.Generator().manual_seed(step)
    return (torch.randn(8, n, generator=generator, dtype=torch.float64) for n in (12, 5))


def train(network, optimizer, part, steps=4, first=0, no_sync=None):
    """With ``no_sync`` in two micro-batches, of which only the second one's backward pass exchanges gradients."""
    for t in range(first, first + steps):
        x, y = batch(t)

        def closure(x=x[part], y=y[part]):
            optimizer.zero_grad()
            if no_sync:
                with no_sync():
                    (nn.functional.mse_loss(network(x[::2]), y[::2]) / 2).backward()
                x, y = x[1::2], y[1::2]
            loss = nn.functional.mse_loss(network(x), y) / (2 if no_sync else 1)
            loss.backward()
            return loss

        closure()
        optimizer.step(closure) if getattr(optimizer, "needs_closure", False) else optimizer.step()


def trained(name, way, part):
    """The network's whole weights after training in one of the `WAYS`; None where the optimizer has been refused."""
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
    from torch.distributed.optim import ZeroRedundancyOptimizer
    from torch.nn.parallel import DistributedDataParallel

    make, options, net = lbt.optim.get(name), OPTIONS.get(name, {}), network()
    if way == "alone":
        train(net, make(net.parameters(), lr=0.05, **options), part)
    elif way == "ddp":
        train(DistributedDataParallel(net), make(net.parameters(), lr=0.05, **options), part)
    elif way == "no_sync":
        spread = DistributedDataParallel(net)
        train(spread, make(net.parameters(), lr=0.05, **options), part, no_sync=spread.no_sync)
    elif way == "zero":
        optimizer = ZeroRedundancyOptimizer(net.parameters(), optimizer_class=make, lr=0.05, **options)
        train(DistributedDataParallel(net), optimizer, part)
    elif way == "fsdp1":
        net = FullyShardedDataParallel(net, use_orig_params=True, device_id=torch.device("cpu"))
        train(net, make(net.parameters(), lr=0.05, **options), part)
        with FullyShardedDataParallel.summon_full_params(net):
            return [p.detach().clone() for p in net.parameters()]
    else:
        mesh = distributed.device_mesh.init_device_mesh("cpu", (2,))
        fully_shard(net, mesh=mesh)
        optimizer = make(net.parameters(), lr=0.05, **options)
        if way == "fsdp2_resumed":
            train(net, optimizer, part, 2)
            net, optimizer = resumed(net, optimizer, mesh, make, options)
        train(net, optimizer, part, *((2, 2) if way == "fsdp2_resumed" else (4, 0)))
        return [p.full_tensor().detach() for p in net.parameters()]
    return [p.detach() for p in net.parameters()]


def resumed(net, optimizer, mesh, make, options):
    """Network and optimizer, made anew and loaded by torch's functions for distributed checkpoints."""
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
    from torch.distributed.fsdp import fully_shard

    state = copy.deepcopy(get_optimizer_state_dict(net, optimizer))
    other = network(1)
    fully_shard(other, mesh=mesh)
    other.load_state_dict(net.state_dict())
    fresh = make(other.parameters(), lr=9.0, **options)
    set_optimizer_state_dict(other, fresh, state)
    return other, fresh


def difference(found, expected):
    return max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True))


def clars(net, optimizer, micro_batches, no_sync=None):
    for t in range(3):
        x, y = batch(t)
        optimizer.zero_grad()
        for i, rows in enumerate(micro_batches):
            last = i == len(micro_batches) - 1
            with no_sync() if no_sync and not last else contextlib.nullcontext():
                (nn.functional.mse_loss(net(x[rows]), y[rows]) / len(micro_batches)).backward()
            optimizer.observe_micro_batch(1 / len(micro_batches))
        optimizer.step()


def clars_differences(rank):
    """Of micro-batches that are exchanged, and of those that are not, from the same ones on a single process."""
    found = {}
    quarters = [slice(i, i + 2) for i in range(0, 8, 2)]
    for exchanged in (True, False):
        pairs = [[0, 1, 4, 5], [2, 3, 6, 7]]  # what both processes' micro-batches are together
        alone, net = network(), network()
        clars(alone, lbt.optim.CLARS(alone.parameters(), 0.5, eta=0.1), pairs if exchanged else quarters)
        spread = nn.parallel.DistributedDataParallel(net)
        own = quarters[2 * rank : 2 * rank + 2]
        clars(spread, lbt.optim.CLARS(net.parameters(), 0.5, eta=0.1), own, None if exchanged else spread.no_sync)
        found["exchanged" if exchanged else "no_sync"] = difference(net.parameters(), alone.parameters())
    return found


def shampoo_shared(rank):
    """The difference from one process of Shampoo whose processes share the roots out, and how many each computed."""
    half, options = slice(4 * rank, 4 * rank + 4), {**OPTIONS["shampoo"], "interval": 2}
    alone, net, counts, function = network(), network(), [], shampoo.inverse_root
    train(alone, lbt.optim.Shampoo(alone.parameters(), 0.05, **options), slice(None))
    optimizer = lbt.optim.Shampoo(net.parameters(), 0.05, **options)
    optimizer.share_with(distributed.group.WORLD)
    shampoo.inverse_root = lambda matrices, eps: counts.append(len(matrices)) or function(matrices, eps)
    train(nn.parallel.DistributedDataParallel(net), optimizer, half)
    shampoo.inverse_root = function
    everyone = [None, None]
    distributed.all_gather_object(everyone, sum(counts))
    try:
        lbt.optim.Shampoo(list(net.parameters())[rank:], 0.05).share_with(distributed.group.WORLD)
        refused = "not at all"
    except ValueError as error:
        refused = str(error)
    return {"difference": difference(net.parameters(), alone.parameters()), "counts": everyone, "refused": refused}


def work(rank, port, path):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    found = {"clars": clars_differences(rank), "shared": shampoo_shared(rank)}
    half = slice(4 * rank, 4 * rank + 4)
    for name in NAMES:
        try:
            expected = trained(name, "alone", slice(None))
        except ValueError as error:  # a package is not installed
            found[name] = str(error)
            continue
        for way in WAYS:
            try:
                found[name, way] = difference(trained(name, way, half), expected)
            except (ValueError, RuntimeError) as error:
                found[name, way] = f"{type(error).__name__}: {error}"
    OPTIONS["sgd"] = {"decay_1d": False}
    for way in ("zero", "fsdp1"):
        with pytest.raises(ValueError, match="decay_1d=False") as caught:
            trained("sgd", way, half)
        found["decay_1d", way] = str(caught.value)
    torch.save(found, f"{path}/{rank}")
    distributed.barrier()
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    path = tmp_path_factory.mktemp("processes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(work, (port, str(path)), 2, start_method="spawn")
    both = [torch.load(path / str(rank)) for rank in range(2)]
    assert both[0].keys() == both[1].keys()
    return both[0]


def expect(found, name, way, refused=None):
    if isinstance(found.get(name), str):
        pytest.skip(found[name])
    outcome = found[name, way]
    if refused is None:
        assert not isinstance(outcome, str), outcome
        assert outcome <= NEAR
    else:
        assert isinstance(outcome, str), f"differs by {outcome} without a word"
        assert refused in outcome and outcome.count("\n") == 0


@pytest.mark.parametrize("name", NAMES)
def test_distributed_data_parallel(found, name):
    expect(found, name, "ddp")
    expect(found, name, "no_sync")


@pytest.mark.parametrize("name", NAMES)
def test_fully_shard(found, name):
    refused = "takes no DTensors (use DistributedDataParallel" if name in ("soap", "adan") else None
    expect(found, name, "fsdp2", refused)
    expect(found, name, "fsdp2_resumed", refused)


@pytest.mark.parametrize("name", NAMES)
def test_flat_shards(found, name):
    expect(found, name, "fsdp1", "(use fully_shard, FSDP2, or DistributedDataParallel)" if name in LAYERS else None)


@pytest.mark.parametrize("name", NAMES)
def test_zero_redundancy_optimizer(found, name):
    refused = {"lamb": "LAMB's grad_clip under Zero", "clars": "CLARS under Zero", "sam": "SAM's radius under Zero"}
    expect(found, name, "zero", refused.get(name))


@pytest.mark.parametrize("way", ["zero", "fsdp1"])
def test_no_decay_of_biases(found, way):
    assert found["decay_1d", way].endswith(")")  # what to use


@pytest.mark.parametrize("how", ["exchanged", "no_sync"])
def test_clars_and_accumulation(found, how):
    assert found["clars"][how] <= NEAR


def test_shampoos_roots_are_shared_out(found):
    """Sides of 12, 16, 16 and 5 in blocks of 8: 2 x 2 and 1 x 2 of them, each with two roots, in steps 1, 2 and 4."""
    shared = found["shared"]
    assert shared["difference"] <= NEAR
    assert sum(shared["counts"]) == 3 * 2 * (4 + 2) and min(shared["counts"]) > 0
    assert "different layers" in shared["refused"] and "\n" not in shared["refused"]


@pytest.mark.parametrize("count", [1, 2, 3, 8, 40])
def test_work_is_shared_out_by_its_cost(count):
    costs = [512**3] * 9 + [64**3] * 30 + [512**3, 1]
    found = shares.owners(costs, count)
    assert found == sorted(found) and len(found) == len(costs)
    loads = [0] * count
    for cost, owner in zip(costs, found, strict=True):
        loads[owner] += cost
    assert max(loads) <= sum(costs) / count + max(costs)

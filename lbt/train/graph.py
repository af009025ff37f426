"""Updates as CUDA graphs: what the host launches kernel by kernel is recorded once and then replayed as a whole.

The first updates of a shape are made as without a graph; they create the optimizer's state and choose the kernels.
Then one graph is captured for gather and augmentation and one for the rest of the update: normalisation, forward,
backward, clipping, optimizer, sum of the losses. Learning rates are tensors that are filled before a replay, and the
generator's state is advanced by it, so the same images are drawn. What differs from the plain loop is rounding: rates
in float32. That, like the device, does not make another run of it: the setting is no part of a run's identity.

Where an update cannot be replayed, all of it is made as without a graph, and `state` says why. An epoch's last,
smaller batch is always made so. The process's next run of the same kind uses the graphs again (`lbt.train.reuse`).
"""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from lbt.data.resident import ResidentData
from lbt.train import reuse
from lbt.train.update import Update

WARM_UP = 3  # updates before the capture


def obstacle(update: Update) -> str | None:
    """Returns why an update cannot be replayed, as far as that can be told beforehand."""
    optimizer = update.optimizer
    if update.device.type != "cuda":
        return "not on a CUDA device"
    if update.executor.group.size > 1:
        return "several devices exchange their gradients"
    if getattr(optimizer, "local_gradients", False):
        return "the optimizer takes each worker's gradient"
    if getattr(optimizer, "needs_closure", False):
        return "the optimizer has the gradients computed anew"
    if hasattr(optimizer, "observe_micro_batch"):
        return "the optimizer looks at every micro-batch"
    if update.average is not None:
        return "averaged weights are counted on the host"
    return next((probe.obstacle for probe in update.probes.values() if probe.obstacle), None)


def host_state(optimizer: Optimizer) -> list[Any]:
    """Returns what an optimizer keeps on the host, its learning rates left out: a replay would not change it."""
    kept = [{key: value for key, value in group.items() if key != "lr"} for group in optimizer.param_groups]
    values: list[Any] = []
    for entries in (vars(optimizer), *kept, *optimizer.state.values()):
        for key, value in entries.items():
            if isinstance(value, Tensor) and value.device.type == "cpu" and value.numel() == 1:
                values.append((key, value.item()))
            elif isinstance(value, int | float | str):
                values.append((key, value))
    return values


class Graphed:
    """A function of device tensors that is replayed as a CUDA graph once it has been called often enough.

    Args:
        function: its results are tensors or nothing; they are overwritten by the next replay.
        generator: what it draws from, besides torch's own.
    """

    def __init__(self, function: Callable[..., Any], generator: torch.Generator | None = None):
        self.function, self._generator = function, generator
        self.graph: torch.cuda.CUDAGraph | None = None
        self._stream: torch.cuda.Stream | None = None  # one for all calls: each stream keeps memory of its own
        self._inputs: list[Tensor] = []
        self._outputs: Any = None
        self.calls = 0  # since the inputs have had this shape

    def fits(self, *tensors: Tensor) -> bool:
        """Says whether the inputs have the shape of the calls before; another one starts from the beginning."""
        if [tensor.shape for tensor in self._inputs] != [tensor.shape for tensor in tensors]:
            self.graph, self._outputs, self.calls = None, None, 0
            self._inputs = [torch.empty_like(tensor) for tensor in tensors]
            return False
        return True

    def alike(self, other: "Graphed") -> bool:
        """Says whether this has a graph, for inputs like the other one's."""
        shapes = [[tensor.shape for tensor in one._inputs] for one in (self, other)]
        return self.graph is not None and shapes[0] == shapes[1]

    def given_to(self, other: "Graphed") -> "Graphed":
        """Returns this, with its graph, as the one that calls the other's function where it calls one."""
        self.function, self.calls = other.function, other.calls
        return self

    def plain(self, *tensors: Tensor) -> Any:
        """Calls the function in a stream of its own, as a capture will."""
        self.calls += 1
        self._stream = self._stream or torch.cuda.Stream()
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            results = self.function(*tensors)
        current.wait_stream(self._stream)
        for result in results or ():
            result.record_stream(current)
        return results

    def capture(self) -> None:
        """Records the function; nothing is computed."""
        graph = torch.cuda.CUDAGraph()
        if self._generator is not None:
            graph.register_generator_state(self._generator)
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._outputs = self.function(*self._inputs)
        self.graph = graph

    def replay(self, *tensors: Tensor) -> Any:
        """Computes the function by its graph."""
        for own, given in zip(self._inputs, tensors, strict=True):
            own.copy_(given)
        self.graph.replay()
        return self._outputs


def _holds_half(device: torch.device) -> bool:
    """Says whether this process keeps more than half of a GPU's memory."""
    return torch.cuda.memory_reserved(device) > torch.cuda.get_device_properties(device).total_memory / 2


class GraphedUpdate:
    """Makes updates, of full batches by CUDA graphs.

    Args:
        update: its `apply` is what is captured.
        data: the training set; its `take` is captured, too.
        kind: from `reuse.kind`.

    Attributes:
        state: "captured", "reused" (captured by an earlier run), "not yet" or why there is no graph.
        last: the one that made its graphs last; the next run of its kind takes them over.
    """

    last: ClassVar["GraphedUpdate | None"] = None

    def __init__(self, update: Update, data: ResidentData, kind: str):
        self._plain, self._data, self._kind = update, data, kind
        self.state = obstacle(update) or "not yet"
        if GraphedUpdate.last is not None and GraphedUpdate.last._kind != self._kind:
            GraphedUpdate.last = None  # frees its memory
        if GraphedUpdate.last is not None and torch.cuda.is_available() and _holds_half(update.device):
            GraphedUpdate.last = None  # updates before a capture need as much again
        self._update = Graphed(update.apply)
        self._rates: list[Tensor] = []
        self._left: tuple | None = None  # what the captured update leaves on the host for others to read
        if self.state == "not yet":
            self._take = Graphed(data.take, data.generator)
            data.take = self._batch

    def __call__(self, images: Tensor, labels: Tensor) -> None:
        """Makes one update with images uint8 [B, C, H, W] and labels int64 [B]."""
        if self.state not in ("captured", "reused", "not yet"):
            self._plain(images, labels)
            return
        self._set_rates()
        if len(images) != self._data.batch:
            self._plain.apply(images, labels)
        elif self._update.fits(images, labels) and self._captured():
            self._update.replay(images, labels)
            self._restore()
        else:
            before = host_state(self._plain.optimizer)
            self._update.plain(images, labels)
            if self._update.calls > 1 and host_state(self._plain.optimizer) != before:
                self.state = "the optimizer counts on the host"

    def _batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Gathers and augments a batch; a full one by its graph once the update has one."""
        if self._update.graph is None or len(indices) != self._data.batch:
            return self._take.function(indices)
        if not self._take.fits(indices):
            return self._take.plain(indices)
        if self._take.graph is None and not self._try(self._take):
            self._data.take = self._take.function
            return self._take.function(indices)
        return self._take.replay(indices)

    def _set_rates(self) -> None:
        """Puts the learning rates into tensors of their own, which a replay reads; nothing waits for the device."""
        groups = self._plain.optimizer.param_groups
        self._rates = self._rates or [torch.zeros((), device=self._plain.device) for _ in groups]
        self._plain.set_rates()
        for group, rate in zip(groups, self._rates, strict=True):
            group["lr"] = rate.fill_(group["lr"])

    def _captured(self) -> bool:
        if self._update.graph is None and self._update.calls >= WARM_UP:
            if self._reused():
                self.state = "reused"
            elif self._try(self._update):
                self.state = "captured"
                self._left = self._host_view()
                GraphedUpdate.last = self
        return self._update.graph is not None

    def _reused(self) -> bool:
        """Takes over the graphs of the run before, if there are any and they fit."""
        last = GraphedUpdate.last
        if last is None or last is self or not last._update.alike(self._update):
            return False
        if not reuse.take_over(self._plain, self._data, last._plain, last._data):
            return False
        self._update, self._rates, self._left = last._update.given_to(self._update), last._rates, last._left
        if last._take.graph is not None:
            self._take = last._take.given_to(self._take)
        self._set_rates()
        GraphedUpdate.last = self
        return True

    def _try(self, part: Graphed) -> bool:
        try:
            part.capture()
        except RuntimeError as error:
            torch.cuda.synchronize()
            self.state = f"capture failed: {error}".splitlines()[0]
            return False
        return True

    def _host_view(self) -> tuple:
        """What an update leaves for others to read: gradients, effective rates, trust ratios; tensors of the graph."""
        optimizer = self._plain.optimizer
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        groups = [
            (group, {key: value for key, value in group.items() if isinstance(value, Tensor)})
            for group in optimizer.param_groups
        ]
        own = {key: value for key, value in vars(optimizer).items() if key not in ("param_groups", "state")}
        return [(parameter, parameter.grad) for parameter in parameters], groups, own

    def _restore(self) -> None:
        """Shows the graph's tensors again where an update without it has left others."""
        gradients, groups, own = self._left
        if gradients[0][0].grad is not gradients[0][1]:
            for parameter, gradient in gradients:
                parameter.grad = gradient
            for group, values in groups:
                group.update(values)
            vars(self._plain.optimizer).update(own)

"""A stand-in for CUDA graphs on a CPU: operations are recorded with the tensors they used and replayed on these."""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lbt.train.graph import Graphed


class Recorder(TorchDispatchMode):
    """Notes each operation, and what memory held before the first one that used it."""

    def __init__(self):
        super().__init__()
        self.operations, self._before = [], {}

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        if function is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("a capture cannot wait for the device")
        keywords = keywords or {}
        for used in _tensors((arguments, keywords)):
            memory = used.untyped_storage()
            if memory.data_ptr() not in self._before:
                self._before[memory.data_ptr()] = memory, memory.clone()
        result = function(*arguments, **keywords)
        self.operations.append((function, arguments, keywords, result))
        return result

    def undo(self):
        """Gives all memory back what it held: a capture computes nothing."""
        for memory, before in self._before.values():
            memory.copy_(before)


def _tensors(values):
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


class Taped(Graphed):
    """Captures the operations below autograd; like a graph, a replay knows addresses and no Python objects."""

    def plain(self, *tensors):
        self.calls += 1
        return self.function(*tensors)

    def capture(self):
        for own in self._inputs:
            own.zero_()  # here, unlike in a capture, they are computed with
        drawn = None if self._generator is None else self._generator.get_state()
        with Recorder() as recorder:
            self._outputs = self.function(*self._inputs)
        recorder.undo()
        if drawn is not None:
            self._generator.set_state(drawn)
        self.graph = recorder

    @torch.no_grad()
    def replay(self, *tensors):
        for own, given in zip(self._inputs, tensors, strict=True):
            own.copy_(given)
        for function, arguments, keywords, result in self.graph.operations:
            again = function(*arguments, **keywords)
            for held, made in zip(_tensors(result), _tensors(again), strict=True):
                if held.data_ptr() != made.data_ptr():  # neither a view nor changed in place
                    held.copy_(made)
        return self._outputs

"""The largest eigenvalues of a Hessian, by Lanczos on products with it (Pearlmutter 1994), in micro-batches."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor

RESTARTS = 50  # of Lanczos, after which it gives what it has found


@dataclass(frozen=True)
class Eigenvalues:
    """The largest eigenvalues, in descending order; one that was not found is NaN.

    Attributes:
        values: of the matrix.
        products: Hessian-vector products that were made.
    """

    values: list[float]
    products: int


class Curvature:
    """Gradient and Hessian of a mean of losses, each of which is differentiated by itself to bound the memory.

    Args:
        losses: each computes a part's loss from the present weights, with its share of the mean.
        weights: what the losses are differentiated by; float32 or float64.
    """

    def __init__(self, losses: Sequence[tuple[float, Callable[[], Tensor]]], weights: Sequence[Tensor]):
        self._losses, self.weights = losses, list(weights)

    @torch.no_grad()
    def loss(self) -> float:
        """Returns the loss; waits for the device."""
        return float(sum(share * loss().double() for share, loss in self._losses))

    def gradient(self) -> list[Tensor]:
        """Returns the gradient by weight."""
        found = [torch.zeros_like(weight) for weight in self.weights]
        for share, loss in self._losses:
            gradient = torch.autograd.grad(loss(), self.weights, materialize_grads=True)
            torch._foreach_add_(found, gradient, alpha=share)
        return found

    def product(self, vector: Sequence[Tensor]) -> list[Tensor]:
        """Returns the Hessian times a vector, both by weight."""
        found = [torch.zeros_like(weight) for weight in self.weights]
        for share, loss in self._losses:
            gradient = torch.autograd.grad(loss(), self.weights, create_graph=True, materialize_grads=True)
            along = torch.stack([(one * other).sum() for one, other in zip(gradient, vector, strict=True)]).sum()
            if along.requires_grad:  # else the loss is linear in the weights
                second = torch.autograd.grad(along, self.weights, materialize_grads=True)
                torch._foreach_add_(found, second, alpha=share)
        return found

    def largest(
        self, count: int = 1, *, tolerance: float = 0.0, seed: int = 0, scales: Sequence[float] | None = None
    ) -> Eigenvalues:
        """Returns the algebraically largest eigenvalues of the Hessian H, or of D^(1/2) H D^(1/2).

        Args:
            count: of eigenvalues; fewer are found where there are fewer weights.
            tolerance: residual of an eigenvector as a share of its eigenvalue, whose own error is of its square where
                the next eigenvalue is well away (ARPACK's `tol`); 0 is the machine's precision.
            seed: of the vector that Lanczos begins with.
            scales: the diagonal of D, a number a weight (tensor), not negative. Weights of 0 are left out.
        """
        kept = [place for place in range(len(self.weights)) if scales is None or scales[place] > 0]
        sizes = [self.weights[place].numel() for place in kept]
        roots = [1.0 if scales is None else scales[place] ** 0.5 for place in kept]
        held = [torch.zeros_like(weight) for weight in self.weights]  # what the vector is where a weight is left out
        products = 0

        def times(flat: np.ndarray) -> np.ndarray:
            nonlocal products
            products += 1
            vector, whole = list(held), torch.from_numpy(np.ascontiguousarray(flat).reshape(-1))
            parts = whole.to(held[0].device).split(sizes)
            for place, part, root in zip(kept, parts, roots, strict=True):
                vector[place] = part.view(held[place].shape) * root
            found = self.product(vector)
            scaled = [found[place].mul_(root).reshape(-1) for place, root in zip(kept, roots, strict=True)]
            return torch.cat(scaled).cpu().numpy()

        kind = torch.zeros((), dtype=self.weights[0].dtype).numpy().dtype
        values = _largest(LinearOperator((sum(sizes),) * 2, matvec=times, dtype=kind), count, tolerance, seed)
        return Eigenvalues(values, products)


def _largest(matrix: LinearOperator, count: int, tolerance: float, seed: int) -> list[float]:
    size, random = matrix.shape[0], np.random.default_rng(seed)
    room = max(2 * count + 1, 6)  # Lanczos vectors held at once: few, so that it soon looks whether it is done
    if size <= room:  # ARPACK wants some to spare
        columns = [matrix.matvec(column) for column in np.eye(size, dtype=matrix.dtype)]
        return np.linalg.eigvalsh(np.array(columns, dtype=np.float64).reshape(size, size))[::-1][:count].tolist()
    first = random.standard_normal(size).astype(matrix.dtype)
    how = {"k": count, "which": "LA", "v0": first, "ncv": room, "maxiter": RESTARTS, "return_eigenvectors": False}
    if "rng" in inspect.signature(eigsh).parameters:  # of what it draws where the first vector was in a subspace
        how["rng"] = random
    try:
        found = eigsh(matrix, tol=tolerance, **how)
    except ArpackNoConvergence as error:
        found = error.eigenvalues
    ordered = np.sort(found)[::-1].astype(float).tolist()
    return ordered + [float("nan")] * (count - len(ordered))

"""Writes results/tables/optimizer_conformance.md: how far each rule and variant is from each independent oracle.

The cases, their problem and the NumPy rewrites are those of the tests: tests/optim/agreement.py and reference.py.
``python scripts/optimizer_conformance.py [--output FILE]``; needs the ``dev`` extra.
"""

import argparse
import importlib.metadata
import inspect
import sys
import warnings
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests" / "optim"))

import agreement  # noqa: E402
import reference  # noqa: E402

from lbt.records import replace_file  # noqa: E402

PACKAGES = ("torch", "numpy", "optax", "timm", "pytorch_optimizer")
STEPS = inspect.signature(reference.problem).parameters["steps"].default

INTRODUCTION = """# Agreement of the optimizers with independent implementations

Each row: the weights after {steps} steps of our optimizer and of the oracle, float64, under the same gradients and a
learning rate that changes in every step. The error is the largest difference of an element, relative to the tensor's
largest element: over the tensors (shapes {shapes} unless noted; one is zero at the
start, two have a gradient of zero in one step), over weight decay 0 and 0.05 (unless the rule has none in common with
the oracle), and over both of our code paths (fused on CPU, and foreach). Machine precision is 2.2e-16. "NumPy" is the
rewrite from the paper's formula in tests/optim/reference.py. lion, adan and the schedule-free rules are
pytorch_optimizer's; its SOAP has no oracle here.

Left out, because they are other rules under the same name: pytorch_optimizer's LARS (first step unscaled) and Lamb
(bias correction outside the ratio), its adaptive SAM (scales `|w|` for every tensor; the authors' program has
`|w| + 0.01` for weights and 1 for biases), and optax's `adan`, which weights the gradient difference by `1 - b2` where
the paper's Algorithm 1 has `1 - beta_2 = b2`.

Made by `python scripts/optimizer_conformance.py` with {packages}.

| rule | variant | oracle | largest error | steps | note |
|---|---|---|---|---|---|
"""


def rows():
    """A line of the table a case, and whether it agrees; prints those that do not."""
    for case in agreement.CASES:
        error = case.largest_error()
        if error > case.near:
            print(f"{case}: {error:.1e}, expected at most {case.near:.0e}", file=sys.stderr)
        shapes = case.problem.get("shapes")
        notes = [case.note] if case.note else []
        notes += [f"shapes {list(map(list, shapes))}"] if shapes else []
        cells = (case.rule, case.variant, case.oracle, f"{error:.1e}", str(STEPS), "; ".join(notes))
        yield f"| {' | '.join(cells)} |", error <= case.near


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=REPOSITORY / "results/tables/optimizer_conformance.md")
    path = parser.parse_args().output
    warnings.filterwarnings("ignore")
    lines, fine = zip(*rows(), strict=True)
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    shapes = ", ".join(str(list(shape)) for shape in reference.SHAPES)
    page = INTRODUCTION.format(steps=STEPS, shapes=shapes, packages=packages) + "\n".join(lines) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, page.encode())
    print(f"{path}: {len(lines)} cases, {fine.count(False)} off")
    return int(not all(fine))


if __name__ == "__main__":
    sys.exit(main())

"""Every rule and variant against every oracle: one table, for the tests and for scripts/optimizer_conformance.py."""

import importlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import reference
import torch

import lbt.optim

NEAR = 1e-10  # largest error relative to a tensor's largest element, unless the case says why not
DECAYS = (0.0, 0.05)


@dataclass
class Case:
    """Our optimizer's final weights have to be those of an oracle, for weight decay zero and not."""

    rule: str
    variant: str
    oracle: str
    ours: dict
    theirs: Callable  # (problem, weight decay) -> final weights
    problem: dict = field(default_factory=dict)
    near: float = NEAR
    note: str = ""
    decays: tuple = DECAYS
    pull: float = 0.0
    shares: tuple | None = None
    dtype: torch.dtype = torch.float64

    def __str__(self):
        return f"{self.rule}-{self.variant}-{self.oracle}".replace(" ", "_")

    def make_problem(self):
        weights, gradients, rates = reference.problem(**self.problem)
        if self.shares:
            gradients = reference.micro_batches(**self.problem, count=len(self.shares))
        return weights, gradients, rates

    def largest_error(self):
        """Over weight decays, code paths, tensors and elements; asserts that the weights moved at all."""
        largest = 0.0
        for wd in self.decays:
            problem = self.make_problem()
            expected = self.theirs(problem, wd)
            decay = {} if wd is None else {"weight_decay": wd}
            for fast in (True, False):
                found = run(
                    lambda p, lr, decay=decay: lbt.optim.get(self.rule)(p, lr, **decay, **self.ours),
                    *problem, fast=fast, pull=self.pull, shares=self.shares, dtype=self.dtype,
                )  # fmt: skip
                for a, b, w in zip(found, expected, problem[0], strict=True):
                    assert np.abs(a - w).max() > 1e-6 and np.isfinite(b).all()
                    largest = max(largest, np.abs(a - np.asarray(b)).max() / np.abs(np.asarray(b)).max())
        return float(largest)


def run(make, weights, gradients, rates, fast=True, pull=0.0, shares=None, dtype=torch.float64, device="cpu"):
    """Final weights of a torch optimizer; the gradient of step t at the point x is ``gradients[t] + pull * x``.

    With ``shares`` the gradients come by micro-batch, as `reference.micro_batches` makes them.
    """
    params = [torch.nn.Parameter(torch.tensor(w, dtype=dtype, device=device)) for w in weights]
    optimizer = make(params, lr=rates[0])
    if not fast:
        optimizer.cpu_kernels = False

    def give():
        for p, g in zip(params, grads, strict=True):
            p.grad = torch.tensor(g, dtype=dtype, device=device) + pull * p.detach()

    for grads, rate in zip(gradients, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        if shares:
            optimizer.zero_grad()
            for k, share in enumerate(shares):
                for p, parts in zip(params, grads, strict=True):
                    added = share * torch.tensor(parts[k], dtype=dtype)
                    p.grad = added if p.grad is None else p.grad + added
                optimizer.observe_micro_batch(share)
            optimizer.step()
            continue
        give()
        optimizer.step(give) if pull else optimizer.step()
    return [p.detach().cpu().numpy() for p in params]


def run_optax(make, weights, gradients, rates):
    """Final weights of an optax chain, ``make(optax, schedule)``."""
    jax, optax = importlib.import_module("jax"), importlib.import_module("optax")
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    try:
        table = jax.numpy.asarray(rates)
        chain = make(optax, lambda count: table[count])
        params = [jax.numpy.asarray(w) for w in weights]
        state = chain.init(params)
        update = jax.jit(chain.update)
        for grads in gradients:
            changes, state = update([jax.numpy.asarray(g) for g in grads], state, params)
            params = optax.apply_updates(params, changes)
        return [np.asarray(p) for p in params]
    finally:
        jax.config.update("jax_enable_x64", before)


def text(options):
    """Options as the variant's name."""
    return ", ".join(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in options.items()) or "default"


def numpy_case(rule, options, **more):
    """Against the rewrite of the same name in reference.py, from the formula in the paper."""

    def theirs(problem, wd):
        extra = {"pull": more["pull"]} if "pull" in more else {}
        extra |= {"shares": more["shares"]} if "shares" in more else {}
        decay = {} if wd is None else {"weight_decay": wd}
        return getattr(reference, rule)(*problem, **decay, **options, **extra)

    return Case(rule, text(options), "NumPy", options, theirs, **more)


def optax_case(rule, options, make, **more):
    """Against ``make(optax, schedule, weight decay)``."""
    return Case(rule, text(options), "optax", options,
                lambda problem, wd: run_optax(lambda optax, rate: make(optax, rate, wd), *problem), **more)  # fmt: skip


def torch_case(rule, options, oracle, module, make, **more):
    """Against ``make(module, params, lr, weight decay)``, another torch optimizer."""

    def theirs(problem, wd):
        package = importlib.import_module(module)
        settings = {key: more[key] for key in ("pull", "dtype") if key in more}
        return run(lambda p, lr: make(package, p, lr, wd), *problem, **settings)

    return Case(rule, text(options), oracle, options, theirs, **more)


def lars_cases():
    for denominator, placement, nesterov, exclude in itertools.product(
        ("sum", "joint", "bare"), ("inside", "outside"), (False, True), (True, False)
    ):
        options = {"denominator": denominator, "momentum_placement": placement, "nesterov": nesterov}
        yield numpy_case("lars", options | {"exclude_1d": exclude, "eta": 0.02})
    for options in (
        {"norm_clamp": 1.5}, {"norm_clamp": 1.5, "denominator": "joint"}, {"eps": 0.1}, {"maximize": True},
        {"maximize": True, "denominator": "joint"}, {"momentum": 0.0},
        {"momentum": 0.0, "momentum_placement": "outside"},
    ):  # fmt: skip
        yield numpy_case("lars", {"eta": 0.02} | options)
    for nesterov in (False, True):
        options = {"exclude_1d": False, "eta": 0.02, "nesterov": nesterov}
        yield optax_case(
            "lars", {"denominator": "joint"} | options,
            lambda optax, rate, wd, n=nesterov: optax.lars(rate, wd, trust_coefficient=0.02, nesterov=n),
        )  # fmt: skip
        yield torch_case(
            "lars", {"momentum_placement": "outside"} | options, "timm", "timm.optim",
            lambda timm, p, lr, wd, n=nesterov: timm.Lars(
                p, lr, momentum=0.9, weight_decay=wd, nesterov=n, trust_coeff=0.02, eps=0.0, always_adapt=True
            ),
        )  # fmt: skip
        yield torch_case(
            "larc", {"eta": 0.3, "exclude_1d": False, "nesterov": nesterov}, "timm", "timm.optim",
            lambda timm, p, lr, wd, n=nesterov: timm.Lars(
                p, lr, momentum=0.9, weight_decay=wd, nesterov=n, trust_coeff=0.3, eps=0.0, always_adapt=True,
                trust_clip=True,
            ),
        )  # fmt: skip
    vectors = {"problem": {"shapes": ((6,), (1,))}}
    yield torch_case(
        "lars", {"momentum_placement": "outside", "nesterov": True}, "torch SGD (vectors only)", "torch.optim",
        lambda torch, p, lr, wd: torch.SGD(p, lr, momentum=0.9, nesterov=True), **vectors,
    )  # fmt: skip


def other_layerwise_cases():
    for options in (
        {"eta": 0.3}, {"eta": 0.3, "denominator": "joint"}, {"eta": 1e-3}, {"eta": 0.3, "exclude_1d": False},
        {"eta": 0.3, "momentum_placement": "inside", "nesterov": True}, {"eta": 0.3, "eps": 0.1},
        {"eta": 0.3, "maximize": True}, {"eta": 0.3, "momentum": 0.0},
    ):  # fmt: skip
        yield numpy_case("larc", options)
    for shares in ((1.0,), (0.5, 0.5), (0.5, 0.3, 0.2)):
        yield numpy_case("clars", {"eta": 0.02}, shares=shares, note=f"micro-batches {shares}")
    options = {"eta": 0.02, "momentum_placement": "outside", "nesterov": True, "exclude_1d": False, "eps": 0.1}
    yield numpy_case("clars", options, shares=(0.4, 0.4, 0.2), note="micro-batches (0.4, 0.4, 0.2)")
    released = {"alpha": 0.1, "delay_steps": None, "phi_scope": "adapted", "norm_clamp": 10.0, "denominator": "joint"}
    for options, placement in itertools.product(
        ({}, {"delay_steps": 8, "floor": 0.01}, {"denominator": "bare"}, released, {"phi_scope": "adapted"}),
        ("inside", "outside"),
    ):
        yield numpy_case("tvlars", {"lam": 0.3, "eta": 0.02, "momentum_placement": placement} | options)


def lamb_cases():
    for options in (
        {}, {"bias_correction": False}, {"ratio_clip": 1.0}, {"grad_clip": 1.0}, {"grad_clip": 1e6},
        {"norm_clamp": 1.5, "bias_correction": False}, {"unit_ratio": True}, {"exclude_1d": True}, {"maximize": True},
        {"maximize": True, "grad_clip": 1.0}, {"betas": (0.8, 0.95), "eps": 0.1},
    ):  # fmt: skip
        yield numpy_case("lamb", options)
    yield optax_case("lamb", {}, lambda optax, rate, wd: optax.lamb(rate, weight_decay=wd))
    for mine, theirs in (
        ({}, {}),
        ({"bias_correction": False}, {"bias_correction": False}),
        ({"ratio_clip": 1.0}, {"trust_clip": True}),
        ({"grad_clip": 1.0}, {"max_grad_norm": 1.0}),
    ):
        yield torch_case(
            "lamb", mine, "timm", "timm.optim",
            lambda timm, p, lr, wd, t=theirs: timm.Lamb(
                p, lr, **({"max_grad_norm": None, "always_adapt": True, "weight_decay": wd} | t)
            ),
        )  # fmt: skip
    yield torch_case(
        "lamb", {"unit_ratio": True}, "torch AdamW", "torch.optim",
        lambda torch, p, lr, wd: torch.AdamW(p, lr, eps=1e-6, weight_decay=wd),
    )  # fmt: skip


def sm3_and_sam_cases():
    for options in ({}, {"momentum": 0.0}):
        yield numpy_case("sm3", options)
        yield torch_case(
            "sm3", options, "pytorch_optimizer", "pytorch_optimizer",
            lambda package, p, lr, wd, o=options: package.SM3(p, lr, momentum=o.get("momentum", 0.9)), decays=(0.0,),
        )  # fmt: skip
        yield optax_case(
            "sm3", options,
            lambda optax, rate, wd, o=options: optax.chain(
                optax.scale_by_sm3(o.get("momentum", 0.9), eps=0.0), optax.scale_by_learning_rate(rate)
            ),
            decays=(0.0,),
        )  # fmt: skip
    for options in ({"rho": 0.5}, {"rho": 0.5, "adaptive": True}, {"rho": 0.0}):
        for wd in DECAYS:
            base = {"name": "nesterov", "weight_decay": wd}
            yield Case(
                "sam", text(options | {"wd": wd}), "NumPy", options | {"base": base},
                lambda problem, _, o=options, wd=wd: reference.sam(*problem, pull=0.3, weight_decay=wd, **o),
                decays=(None,), pull=0.3,
            )  # fmt: skip
            if options.get("adaptive"):
                continue  # the package's is another rule
            yield Case(
                "sam", text(options | {"wd": wd}), "pytorch_optimizer", options | {"base": base},
                lambda problem, _, o=options, wd=wd: run(
                    lambda p, lr: importlib.import_module("pytorch_optimizer").SAM(
                        p, torch.optim.SGD, lr=lr, momentum=0.9, nesterov=True, weight_decay=wd, **o
                    ),
                    *problem, pull=0.3,
                ),
                decays=(None,), pull=0.3, near=1e-8, note="its gradient norm is float32",
            )  # fmt: skip


def preconditioned_cases():
    for options in (
        {}, {"nesterov": False}, {"scale": "original", "rest_lr": 0.1}, {"ns_steps": 3, "momentum": 0.8},
    ):  # fmt: skip
        yield numpy_case("muon", {"ns_precision": "full"} | options, near=1e-8)
    for nesterov, scale in itertools.product((True, False), ("original", "match_rms_adamw")):
        yield torch_case(
            "muon", {"nesterov": nesterov, "scale": scale}, "torch Muon (matrices)", "torch.optim",
            lambda torch, p, lr, wd, n=nesterov, s=scale: torch.Muon(
                p, lr, weight_decay=wd, nesterov=n, adjust_lr_fn=s
            ),
            problem={"shapes": ((5, 7), (8, 3), (4, 4))}, near=0.02, note="both orthogonalise in bfloat16",
        )  # fmt: skip
    yield torch_case(
        "muon", {}, "torch AdamW (vectors)", "torch.optim",
        lambda torch, p, lr, wd: torch.AdamW(p, lr, betas=(0.9, 0.95), weight_decay=0.0),
        problem={"shapes": ((6,), (1,))},
    )  # fmt: skip
    for options in (
        {}, {"start": 1, "interval": 1}, {"start": 3, "interval": 4, "graft": "sgd", "nesterov": True},
        {"start": 4, "interval": 2, "block": 3}, {"graft": "none", "start": 5, "interval": 5, "momentum": 0.0},
    ):  # fmt: skip
        yield numpy_case("shampoo", {"eps": 1e-4} | options, near=1e-9)
    for block, nesterov in itertools.product((512, 3), (False, True)):
        yield torch_case(
            "shampoo", {"graft": "sgd", "start": 1, "interval": 1, "eps": 0.0, "block": block, "nesterov": nesterov},
            "pytorch_optimizer", "pytorch_optimizer",
            lambda package, p, lr, wd, b=block, n=nesterov: package.ScalableShampoo(
                p, lr, betas=(0.9, 0.99), weight_decay=wd, start_preconditioning_step=1, nesterov=n, block_size=b,
                preconditioning_compute_steps=1, shape_interpretation=False, use_svd=True, matrix_eps=1e-14,
            ),
            problem={"shapes": ((6, 6), (3, 3), (9, 9))}, near=1e-6,
            note="square blocks; its ridge is absolute, 1e-14",
        )  # fmt: skip


def packaged_cases():
    yield optax_case("lion", {}, lambda optax, rate, wd: optax.lion(rate, b1=0.9, b2=0.99, weight_decay=wd))
    yield numpy_case("adan", {})
    yield numpy_case("schedulefree_sgd", {})
    yield numpy_case("schedulefree_adamw", {})


CASES = [
    *lars_cases(), *other_layerwise_cases(), *lamb_cases(), *sm3_and_sam_cases(), *preconditioned_cases(),
    *packaged_cases(),
]  # fmt: skip

"""BERT: its arithmetic against a rewrite in NumPy, its size against the published one, its tensors' names."""

import math
import re

import numpy as np
import pytest
import torch
from scipy.special import erf, log_softmax, softmax
from torch import nn

from lbt.models import MODELS, Bert
from lbt.models.bert import INIT_STD, SHORT, attend
from lbt.tasks import TASKS
from lbt.train.probes.curvature import Curvature
from lbt.train.probes.looks import still

SIZES = ["bert_tiny", "bert_small", "bert_base", "bert_large"]
EXCLUDED = ["LayerNorm", "layer_norm", "bias"]  # from decay and adaptation, by the published program of LAMB
TASK = {"masked_language": TASKS["masked_language"](), "sequence_classification": TASKS["sequence_classification"]()}
VOCABULARY, LENGTH, PAD, IGNORED = 40, 12, 0, -100


def network(task="masked_language", name="bert_tiny", size=(VOCABULARY, LENGTH), classes=3, **settings):
    torch.manual_seed(0)
    return TASK[task].prepare(MODELS[name](classes, size, **{"dropout": 0.0, **settings}))


def spread(model):
    """A network whose biases and norms are no longer 0 and 1, in float64."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.double()


def masked(count=5):
    """Masked samples, int64 [count, 2, L], the last ones filled up, with one or two tokens asked of each."""
    random = torch.Generator().manual_seed(1)
    tokens = torch.randint(5, VOCABULARY, (count, LENGTH), generator=random)
    tokens[:, 0] = 2
    targets = torch.full_like(tokens, IGNORED)
    for row in range(count):
        if row > 1:
            tokens[row, LENGTH - row :] = PAD
        for place in [1 + row, 3][: 1 + row % 2]:
            targets[row, place] = (tokens[row, place] + row) % VOCABULARY
    return torch.stack([tokens, targets], dim=1)


# ------------------------------------------------------------------------ arithmetic


class Rewritten:
    """The same network in NumPy, from its weights."""

    def __init__(self, model, *, heads, pre):
        self.weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
        self.heads, self.pre = heads, pre

    def linear(self, name, x):
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, name, x):
        centred = x - x.mean(-1, keepdims=True)
        x = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        return x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def attention(self, name, x, real):
        width = x.shape[1] // self.heads
        q, k, v = (self.linear(f"{name}.{part}", x) for part in ("query", "key", "value"))
        mixed = []
        for head in range(self.heads):
            own = slice(head * width, (head + 1) * width)
            scores = q[:, own] @ k[:, own].T / math.sqrt(width)
            mixed.append(softmax(np.where(real, scores, -np.inf), axis=1) @ v[:, own])
        return self.linear(f"{name}.output", np.concatenate(mixed, axis=1))

    def feed_forward(self, name, x):
        return self.linear(f"{name}.2", gelu(self.linear(f"{name}.0", x)))

    def encode(self, tokens):
        x = self.weights["backbone.embeddings.word.weight"][tokens]
        x = x + self.weights["backbone.embeddings.position.weight"][: len(tokens)]
        if not self.pre:
            x = self.norm("backbone.embeddings.layer_norm", x)
        for layer in range(2):
            at = f"backbone.layers.{layer}"
            if self.pre:
                x = x + self.attention(f"{at}.attention", self.norm(f"{at}.attention_layer_norm", x), tokens != PAD)
                x = x + self.feed_forward(f"{at}.feed_forward", self.norm(f"{at}.layer_norm", x))
            else:
                x = self.norm(f"{at}.attention_layer_norm", x + self.attention(f"{at}.attention", x, tokens != PAD))
                x = self.norm(f"{at}.layer_norm", x + self.feed_forward(f"{at}.feed_forward", x))
        return self.norm("backbone.layer_norm", x) if self.pre else x

    def masked_loss(self, tokens, targets):
        """Mean loss and share of hits over the tokens asked."""
        x = self.norm("head.layer_norm", gelu(self.linear("head.dense", self.encode(tokens))))
        decoder = self.weights.get("head.decoder.weight", self.weights["backbone.embeddings.word.weight"])
        logits = x @ decoder.T + self.weights["head.bias"]
        asked = np.flatnonzero(targets != IGNORED)
        losses = -log_softmax(logits[asked], axis=1)[np.arange(len(asked)), targets[asked]]
        return losses.mean(), (logits[asked].argmax(1) == targets[asked]).mean()

    def logits(self, tokens):
        return self.linear("fc", np.tanh(self.linear("pooler", self.encode(tokens)[0])))


def gelu(x):
    return x * (1 + erf(x / math.sqrt(2))) / 2


VARIANTS = [{}, {"norm": "pre"}, {"tied": False}, {"norm": "pre", "tied": False, "positions": 20}]


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_the_masked_loss_is_that_of_a_rewrite_in_numpy(settings):
    model, samples, task = spread(network(**settings)), masked(), TASK["masked_language"]
    outputs = task.forward(model, samples)
    rewritten = Rewritten(model, heads=2, pre=settings.get("norm") == "pre")
    expected = np.array([rewritten.masked_loss(*sample) for sample in samples.numpy()])
    assert np.abs(outputs.detach().numpy() - expected).max() < 1e-10
    figures = task.loss(outputs, torch.zeros(5, dtype=torch.long))
    assert float(figures["loss"].detach()) == pytest.approx(expected[:, 0].mean(), abs=1e-10)
    assert float(figures["masked_accuracy"].detach()) == pytest.approx(100 * expected[:, 1].mean(), abs=1e-10)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_a_sequences_logits_are_those_of_a_rewrite_in_numpy(norm):
    model, tokens = spread(network("sequence_classification", norm=norm)), masked()[:, 0]
    rewritten = Rewritten(model, heads=2, pre=norm == "pre")
    expected = np.array([rewritten.logits(row) for row in tokens.numpy()])
    found = TASK["sequence_classification"].forward(model, tokens).detach().numpy()
    assert found.shape == (5, 3) and np.abs(found - expected).max() < 1e-10


def test_what_fills_a_sequence_up_changes_nothing():
    model = spread(network(positions=LENGTH + 5)).eval()
    tokens = masked()[:, 0]
    longer = torch.cat([tokens, torch.full((5, 5), PAD)], dim=1)
    with torch.no_grad():
        assert torch.allclose(model(longer)[:, :LENGTH], model(tokens), rtol=0, atol=1e-12)


def test_without_dropout_training_and_evaluation_are_one():
    model, samples = network(), masked()
    with torch.no_grad():
        assert torch.equal(model.train()(samples), model.eval()(samples))
        model = network(dropout=0.5)
        assert not torch.equal(model.train()(samples), model.eval()(samples))


def test_a_bf16_loss_is_computed_in_float32():
    model, samples, task = network(), masked(), TASK["masked_language"]
    plain = task.forward(model, samples)
    with torch.autocast("cpu", torch.bfloat16):
        found = task.forward(model, samples)
    assert found.dtype == torch.float32 and torch.allclose(found[:, 0], plain[:, 0], rtol=0.02)


@pytest.mark.parametrize(("length", "digit"), [(SHORT, 2**-8), (SHORT + 1, 2**-5)])
def test_attention_in_bf16_is_that_of_float64_rounded(length, digit):
    """Forward and backward; of short sequences to the last digit. Under autocast, as in training, and without."""
    random = torch.Generator().manual_seed(0)
    query, key, value, slope = (torch.randn(3, 2, length, 16, generator=random).bfloat16() for _ in range(4))
    real = torch.rand(3, 1, 1, length, generator=random) < 0.5

    def attended(dtype, autocast=False):
        inputs = [tensor.to(dtype, copy=True).requires_grad_() for tensor in (query, key, value)]
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            mixed = attend(*inputs, real, dropout=0.0)
        assert mixed.dtype == dtype
        mixed.backward(slope.to(dtype))
        return [mixed.detach(), *(tensor.grad for tensor in inputs)]

    exact = attended(torch.float64)
    for autocast in (True, False):
        for found, expected in zip(attended(torch.bfloat16, autocast), exact, strict=True):
            assert torch.allclose(found.double(), expected, rtol=digit, atol=digit * float(expected.abs().mean()))


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_there_are_second_derivatives(norm):
    """A product with the Hessian is the slope of the gradient."""
    samples, task = masked(), TASK["masked_language"]
    with still(spread(network(norm=norm))) as model:
        weights = list(model.parameters())
        curvature = Curvature([(1.0, lambda: task.forward(model, samples)[:, 0].mean())], weights)
        vector = [torch.randn_like(weight) for weight in weights]
        product = curvature.product(vector)
        slopes = []
        for step in (1e-7, -1e-7):
            with torch.no_grad():
                torch._foreach_add_(weights, vector, alpha=step)
            slopes.append(curvature.gradient())
            with torch.no_grad():
                torch._foreach_add_(weights, vector, alpha=-step)
    for found, up, down in zip(product, *slopes, strict=True):
        assert torch.allclose(found, (up - down) / 2e-7, rtol=1e-3, atol=1e-4)


# ------------------------------------------------------------------------ size and weights


def outline(*arguments, **settings):
    with torch.device("meta"):
        return network(*arguments, **settings)


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "published", "digits"),
    [
        ("bert_base", 110_106_428, 0),
        ("bert_large", 336_226_108, 0),
        ("bert_tiny", 4.4e6, -5),
        ("bert_small", 29.1e6, -5),
    ],
)
def test_it_has_the_published_number_of_parameters(name, published, digits):
    """Less those of the two segments, the pooling layer and the next-sentence head, which pre-training here has not."""
    model = outline(name=name, size=(30_522, 512))
    width = model.backbone.width
    assert round(count(model) + 2 * width + (width + 1) * width + 2 * (width + 1), digits) == published
    untied = outline(name=name, size=(30_522, 512), tied=False)
    assert count(untied) - count(model) == 30_522 * width
    assert count(outline(name=name, size=(30_522, 128), norm="pre")) == count(model) - (512 - 128) * width


@pytest.mark.parametrize("task", TASK)
@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_vectors_are_the_tensors_that_large_batch_recipes_exclude_by_name(task, name, norm):
    named = dict(outline(task, name, norm=norm, tied=norm == "pre").named_parameters())
    by_name = {name for name in named if any(re.search(pattern, name) for pattern in EXCLUDED)}
    assert by_name == {name for name, parameter in named.items() if parameter.ndim <= 1} and by_name
    assert {"embeddings", "attention", "feed_forward"} <= {
        part for one in named.keys() - by_name for part in one.split(".")
    }


def test_a_tied_decoder_is_the_embedding_under_one_name():
    model = network()
    shape = model.backbone.embeddings.word.weight.shape
    assert [name for name, one in model.state_dict().items() if one.shape == shape] == [
        "backbone.embeddings.word.weight"
    ]
    TASK["masked_language"].forward(model, masked())[:, 0].sum().backward()
    assert model.backbone.embeddings.word.weight.grad[VOCABULARY - 1].abs().sum() > 0  # by the decoder alone


def test_weights_are_drawn_as_berts():
    model = network(size=(5000, 64))
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            assert parameter.abs().max() <= 2 * INIT_STD, name
            assert float(parameter.detach().std()) == pytest.approx(0.8796 * INIT_STD, rel=0.03), name  # cut off at 2
        else:
            assert torch.equal(parameter, torch.full_like(parameter, float("norm.weight" in name))), name
    assert all(layer.eps == 1e-12 for layer in model.modules() if isinstance(layer, nn.LayerNorm))


# ------------------------------------------------------------------------ what is refused


def test_mistakes_name_the_setting():
    for settings, word in (({"positions": 0}, "positions=0"), ({"dropout": 1.0}, "dropout=1.0")):
        with pytest.raises(ValueError, match=word):
            network(**settings)
    with pytest.raises(ValueError, match=r"positions=8: sequences have 12 tokens"):
        network(positions=8)(masked())
    with pytest.raises(ValueError, match=r"data\.augment=mask_tokens"):
        TASK["masked_language"].forward(network(), masked()[:, 0])
    with pytest.raises(ValueError, match=r"data\.augment=none"):
        TASK["sequence_classification"].forward(network("sequence_classification"), masked())
    for task in TASK.values():
        with pytest.raises(ValueError, match=r"ResNet reads images; task=\w+ needs model=bert_tiny"):
            task.prepare(MODELS["resnet18"](10))
    assert isinstance(MODELS["bert_tiny"](10, (40, 12)), Bert)

"""Text through the loop: exact micro-batches and scores, resumption, and the encoder's way from task to task."""

import math

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from support import TINY, StopAfter, configure, figures

from lbt import build, fit, records, runtime, weights
from lbt.cli import main
from lbt.data import SOURCES, Tokens, token_set
from lbt.data.masking import IGNORED, mask_tokens
from lbt.data.vocabulary import CLS, PAD, SEP, Vocabulary
from lbt.devices.group import Group
from lbt.errors import UserError
from lbt.models import MODELS
from lbt.models.bert import PADDING, _builder
from lbt.records import places as lie
from lbt.run import run
from lbt.tasks import MaskedLanguage
from lbt.tasks.masked_language import places
from lbt.train.executor import Executor
from lbt.train.sets import Sets

SIZE = 60  # tokens of the vocabulary
START = [word for word in TINY if word != "model.name=tiny"]
SMALL = ["model=bert_tiny", "model.name=bert_smallest", "model.dropout=0"]
TEXT = [*START, "data.name=letters", "data.resolution=12", *SMALL]
MASKED = [*TEXT, "task=masked_language", "data.augment=mask_tokens"]
CLASSES = [*TEXT, "task=sequence_classification", "data.augment=none"]


def vocabulary(words: str = "these"):
    continues = torch.arange(SIZE) % 3 == 0
    continues[:5] = False
    return Vocabulary(f'{{"made up": "{words}"}}', SIZE, continues)


def sequences(count, length, classes):
    """Sequences of 16 tokens that count up in steps of one or two, some of them short, and their labels."""
    random = torch.Generator().manual_seed(count)
    labels = torch.arange(count) % classes
    first = torch.randint(8, (count, 1), generator=random)
    tokens = 5 + (first + torch.arange(length) * (1 + labels[:, None] % 2)) % 16
    tokens[:, 0], tokens[:, -1] = CLS, SEP
    tokens[::4, -4:] = torch.tensor([SEP, PAD, PAD, PAD])
    return tokens.int(), labels


def letters(root, size: int = 40, test_size: int = 20, classes: int = 10, resolution: int = 12, words: str = "these"):
    pairs, known = (sequences(count, resolution, classes) for count in (size, test_size)), vocabulary(words)
    return token_set("letters", *pairs, tuple(map(str, range(classes))), vocabulary=known, origin="made up")


MODELS["bert_smallest"] = _builder(1, 16, 2)
SOURCES["letters"] = letters
letters.embedded = True


def network(classes=3, **settings):
    torch.manual_seed(0)
    return MaskedLanguage().prepare(MODELS["bert_smallest"](classes, (SIZE, 12), **{"dropout": 0.0, **settings}))


def masked(count=11, length=12):
    tokens, labels = sequences(count, length, 3)
    return mask_tokens(tokens, torch.Generator().manual_seed(5), vocabulary()), labels


# ------------------------------------------------------------------------ the task by itself


@pytest.mark.parametrize("whole_words", [False, True])
def test_there_is_a_place_for_each_token_asked(whole_words):
    assert PADDING == PAD
    for length in range(3, 140):
        tokens, _ = sequences(8, length, 3) if length > 6 else (torch.full((8, length), 7).int(), None)
        tokens[:, 0], tokens[-1, -1] = CLS, SEP
        targets = mask_tokens(tokens, torch.Generator().manual_seed(length), vocabulary(), whole_words=whole_words)[
            :, 1
        ]
        kept = targets.gather(1, places(targets))
        for row, found in zip(targets, kept, strict=True):
            assert found[found != IGNORED].tolist() == row[row != IGNORED].tolist()
        assert kept.shape[1] <= math.ceil(0.15 * length)


@pytest.mark.parametrize("micro_batch", [1, 4])
def test_micro_batches_are_the_whole_batch(micro_batch):
    samples, labels = masked()
    found = []
    for micro in (None, micro_batch):
        model = network(norm="pre").double()
        executor = Executor(model, MaskedLanguage(), precision="fp32", micro_batch=micro, form=Tokens(vocabulary()))
        sums = executor.backward(samples, labels)
        found.append([*(parameter.grad for parameter in model.parameters()), *sums.values()])
        assert sums["masked_accuracy"] / len(labels) <= 100 and float(sums["loss"]) > 0
    for whole, parts in zip(*found, strict=True):
        assert torch.allclose(whole, parts, rtol=1e-12, atol=1e-14)


class OneOf(Group):
    """One of several devices, which adds up what those before it found."""

    def __init__(self, rank, size, sums):
        self.rank, self.size, self.sums = rank, size, sums

    def share(self, count):
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def total(self, tensor):
        self.sums.append(tensor)
        return sum(self.sums)


def scores(model, group=None, epoch=1, seed=0):
    form, (tokens, labels) = Tokens(vocabulary()), sequences(50, 12, 3)
    torch.manual_seed(seed)
    augment = form.augmentations["mask_tokens"]
    sets = Sets(tokens[:0], labels[:0], tokens, labels, 3, input=form.input, augment=augment)
    if group is not None:
        sets = Sets(**{**vars(sets), "group": group})
    with torch.no_grad():
        return MaskedLanguage().evaluate(model.eval(), sets, epoch, 9)


def test_scores_are_means_over_all_held_out_tokens_asked(monkeypatch):
    model = network(tied=False).double()
    found = scores(model)
    tokens, _ = sequences(50, 12, 3)
    samples = mask_tokens(tokens, torch.Generator().manual_seed(0), vocabulary()).long()
    with torch.no_grad():
        said = model(samples[:, 0]).log_softmax(2)  # of every token
    asked = samples[:, 1] != IGNORED
    wanted = samples[:, 1][asked]
    loss = -said[asked].gather(1, wanted[:, None]).mean().item()
    assert found["loss"] == pytest.approx(loss, abs=1e-12)
    assert found["perplexity"] == pytest.approx(math.exp(loss), rel=1e-12)
    assert found["masked_accuracy"] == 100 * int((said[asked].argmax(1) == wanted).sum()) / len(wanted)
    assert scores(model, epoch=4, seed=8) == found
    monkeypatch.setattr("lbt.tasks.masked_language.LOGITS", 1000)
    assert scores(model)["loss"] == pytest.approx(loss, abs=1e-12)
    sums = []
    for rank in range(3):
        together = scores(model, OneOf(rank, 3, sums))
    assert together == pytest.approx(found, abs=1e-12)


def test_a_diverged_model_has_no_finite_score():
    model = network()
    with torch.no_grad():
        model.head.bias[:5] = 1e4
    assert scores(model)["perplexity"] == math.inf
    with torch.no_grad():
        model.head.bias[7] = math.nan
    assert math.isnan(scores(model)["loss"])


# ------------------------------------------------------------------------ runs


def executed(folder, *words, interrupt=None):
    torch.manual_seed(12345)  # whatever the process did before must not matter
    return run(configure(*words, f"results_dir={folder}"), interrupt=interrupt)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A folder with the weights of a pre-training and of a classifier, and the outcomes of their runs."""
    folder = tmp_path_factory.mktemp("source")
    how = ["keep=weights", "optimizer=adamw", "lr=0.03", "lr_scaling=none"]
    one = executed(folder, *MASKED, *how, "epochs=20", "ema=0.5")
    other = executed(folder, *CLASSES, "keep=weights", "epochs=1", "data.classes=4")
    return folder, one, other


def test_a_run_learns_and_scores_held_out_text(source):
    record = records.read(source[1].path)
    first, last = record.epochs[0], record.epochs[-1]
    assert record.status == "done"
    assert abs(first["test_loss"] - math.log(SIZE)) < 0.3 and last["test_loss"] < first["test_loss"] - 0.3
    assert last["test_perplexity"] == pytest.approx(math.exp(last["test_loss"]), rel=1e-12)
    summary = record.end["summary"]
    assert {"test_loss", "test_perplexity", "test_masked_accuracy"} <= summary.keys()
    assert 0 <= last["train_masked_accuracy"] <= 100


@pytest.mark.parametrize("form", [MASKED, CLASSES], ids=["masked", "classes"])
def test_an_interrupted_run_goes_on_bit_for_bit_with_its_dropout(tmp_path, form):
    words = [*form, "model.dropout=0.2", "epochs=2", "micro_batch=5"]
    whole = executed(tmp_path / "whole", *words)
    assert executed(tmp_path / "parts", *words, interrupt=StopAfter(4)).status == "interrupted"
    assert figures(executed(tmp_path / "parts", *words).path) == figures(whole.path)


def test_kept_weights_give_the_records_scores(source, capsys):
    folder, *outcomes = source
    for outcome in outcomes:
        assert main(["evaluate", outcome.id, "--results-dir", str(folder)]) == 0
        assert "the record's figures, bit for bit" in capsys.readouterr().out


def begun(source, outcome, *overrides):
    """The weights a training begins with, by name, those it was given, and what it says of them."""
    given = lie.weights_of(source[0], outcome.id)
    config = runtime.settle(configure(*overrides, f"init_from={given}"))
    images = build.images(config)
    fit.fits(config, images)
    torch.manual_seed(9)
    model = build.network(config.model, config.task, len(images.classes), images.form.size(images.train_images))
    drawn = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights.take(config, model)
    return model.state_dict(), drawn, load_file(given), weights.told(config, model)


def test_a_pre_trained_encoder_becomes_a_classifier(source):
    state, drawn, given, said = begun(source, source[1], *CLASSES)
    above = {"pooler.weight", "pooler.bias", "fc.weight", "fc.bias"}
    assert len(state) == 24 and {name for name in state if not name.startswith("backbone.")} == above
    for name in state:
        assert torch.equal(state[name], (drawn if name in above else given)[name]), name
    count = len(state) - len(above)
    assert said.endswith(f"{count} of its {len(given)} tensors taken, without head; fc, pooler begins as drawn")


def test_a_second_phase_takes_the_head_too_and_a_classifier_gives_its_encoder(source):
    state, _, given, said = begun(source, source[1], *MASKED)
    assert state.keys() == given.keys() and all(torch.equal(state[name], given[name]) for name in state)
    assert said.endswith(f"{len(given)} of its {len(given)} tensors taken")
    state, drawn, given, said = begun(source, source[2], *MASKED)
    for name in state:
        assert torch.equal(state[name], (given if name.startswith("backbone.") else drawn)[name]), name
    assert said.endswith("without fc, pooler; head begins as drawn")


def test_weights_go_on_to_longer_sequences_where_positions_were_given(tmp_path, source):
    with pytest.raises(UserError, match=r"embeddings.position.weight is 12x16 there and 16x16 here"):
        begun(source, source[1], *MASKED, "data.resolution=16")
    short = executed(tmp_path, *MASKED, "keep=weights", "epochs=1", "model.positions=16")
    state, _, given, _ = begun((tmp_path,), short, *MASKED, "data.resolution=16", "model.positions=16")
    assert all(torch.equal(state[name], given[name]) for name in state)


@pytest.mark.parametrize("form", [MASKED, CLASSES], ids=["masked", "classes"])
def test_tokens_of_another_vocabulary_are_no_beginning_even_of_the_same_number(source, form):
    with pytest.raises(UserError, match=r"are of another vocabulary than data=letters's; begin from a run on the same"):
        begun(source, source[1], *form, "+data.words=those")


def test_a_landscape_has_the_records_loss_at_its_centre(source):
    folder, outcome, _ = source
    assert main(["landscape", outcome.id, "--points", "3", "--images", "40", "--results-dir", str(folder)]) == 0
    drawn = pd.read_csv(folder / "tables" / f"landscape_{outcome.id}.csv")
    centre = drawn[drawn["x"] == 0]
    assert centre["test_loss"].iloc[0] == pytest.approx(records.read(outcome.path).epochs[-1]["test_loss"], rel=1e-5)


def test_a_look_at_the_sharpness_has_second_derivatives(tmp_path):
    words = ["probes=[sharpness]", "probe.images=8", "probe.micro_batch=4", "probe.tolerance=0.2", "epochs=1"]
    found = records.read(executed(tmp_path, *MASKED, *words).path).epochs[-1]["sharpness"]
    assert "error" not in found and found["lambda_max"] > 0 and "error" not in found["earlier"][0]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([*MASKED[: -len(SMALL) - 2], *MASKED[-2:]], "model=resnet18: is for images, data=letters has tokens"),
        (
            [*MASKED, "data.name=synthetic", "data.augment=none"],
            "model=bert_smallest: is for tokens, data=synthetic has",
        ),
        ([*MASKED, "data.augment=none"], "task=masked_language needs data.augment=mask_tokens or mask_whole_words"),
        ([*CLASSES, "data.augment=mask_tokens"], "task=sequence_classification needs data.augment=none"),
        ([*MASKED, "model.positions=8"], "model.positions=8: sequences have 12 tokens"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(tmp_path, words, told):
    with pytest.raises(UserError) as caught:
        executed(tmp_path, *words)
    assert told in str(caught.value) and "\n" not in str(caught.value)

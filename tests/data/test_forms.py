"""Token sequences go the way of images: split, drawn, augmented and fed by the same code."""

import pytest
import torch

from lbt.data import PICTURES, Tokens, augmentation, scored_part, split_validation, take_subset, token_set
from lbt.data.resident import ResidentData
from lbt.data.vocabulary import CLS, PAD, SEP, trained
from lbt.errors import UserError


@pytest.fixture(scope="module")
def vocabulary():
    return trained(["a rose is a rose, and a rose by any other name would smell as sweet"] * 3, 320, "bytes")


def made(vocabulary, count=40, length=12):
    random = torch.Generator().manual_seed(3)
    tokens = torch.randint(5, vocabulary.size, (count, length), generator=random, dtype=torch.int32)
    tokens[:, 0], tokens[:, -1] = CLS, SEP
    tokens[::4, -3:] = torch.tensor([SEP, PAD, PAD], dtype=torch.int32)
    return tokens, torch.arange(count) % 2


@pytest.fixture
def text(vocabulary):
    return token_set("t", made(vocabulary), made(vocabulary, 10), ("a", "b"), vocabulary=vocabulary, origin="made up")


def test_the_vocabulary_belongs_to_the_fingerprint(vocabulary, text):
    other = trained(
        ["the same numbers mean other things here, and there, and elsewhere too, in another text"] * 3, 320, "bytes"
    )
    assert other.size >= vocabulary.size
    parts = (text.train_images, text.train_labels), (text.test_images, text.test_labels)
    same, changed = (token_set("t", *parts, ("a", "b"), vocabulary=v, origin="") for v in (vocabulary, other))
    assert same.fingerprint == text.fingerprint != changed.fingerprint
    assert text.form.told(text.train_images)["vocabulary"] != changed.form.told(text.train_images)["vocabulary"]


@pytest.mark.parametrize("wrong", ["type", "number", "label"])
def test_what_is_no_token_set_is_refused(vocabulary, wrong):
    tokens, labels = made(vocabulary)
    if wrong == "type":
        tokens = tokens.long()
    elif wrong == "number":
        tokens[0, 1] = vocabulary.size
    else:
        labels[0] = 2
    with pytest.raises(ValueError, match="t: "):
        token_set("t", (tokens, labels), made(vocabulary), ("a", "b"), vocabulary=vocabulary, origin="")


def test_parts_of_a_text_are_texts(text):
    for part in (split_validation(text, 0.25, 0), take_subset(text, 20, 0), scored_part(text, 5)):
        assert isinstance(part.form, Tokens)
        assert part.origin.startswith("made up, ")
    held = split_validation(text, 0.25, 0)
    assert sorted(map(tuple, torch.cat((held.train_images, held.test_images)).tolist())) == sorted(
        map(tuple, text.train_images.tolist())
    )
    assert held.fingerprint != text.fingerprint
    with pytest.raises(UserError, match="40 training sequences of 2 classes"):
        take_subset(text, 40, 0)


def feed(text, rows=None, augment="mask_tokens"):
    return ResidentData(
        text.train_images, text.train_labels, batch=8, last_batch="keep", augment=augment, seed=5, rows=rows,
        form=text.form,
    )  # fmt: skip


def test_each_device_masks_its_sequences_as_one_device_would(text):
    whole = list(feed(text).batches())
    parts = [list(feed(text, lambda count, one=one: torch.arange(one, count, 3)).batches()) for one in range(3)]
    assert len(whole) == 5
    for place, (samples, _) in enumerate(whole):
        assert samples.shape == (8, 2, 12)
        for one in range(3):
            assert torch.equal(parts[one][place][0], samples[one::3])


def test_a_checkpoint_goes_on_with_the_masks_that_would_have_come(text):
    first, second = feed(text), feed(text)
    batches = first.batches()
    next(batches)
    next(batches)
    second.load_state_dict(first.state_dict())
    assert all(
        torch.equal(one[0], other[0]) for one, other in zip(first.batches(), second.batches(), strict=True)
    )  # the generator of `batches` has drawn no further than what was given


def test_augmentations_of_images_are_no_texts(text):
    with pytest.raises(
        UserError, match=r"data.augment=crop_flip: is not for sequences; of these there are none, mask_"
    ):
        augmentation(text.form, "crop_flip")
    with pytest.raises(UserError, match=r"data.augment=mask_tokens: is not for images"):
        augmentation(PICTURES, "mask_tokens")
    with pytest.raises(UserError, match='did you mean "mask_tokens"'):
        augmentation(text.form, "mask_token")


def test_a_model_is_given_numbers_of_the_size_it_was_built_for(vocabulary, text):
    data = feed(text)
    samples, _ = next(data.batches())
    given = text.form.input(samples, torch.bfloat16)
    assert given.dtype == torch.long and torch.equal(given, samples.long())
    assert text.form.size(text.train_images) == (vocabulary.size, 12)
    assert text.form.blank(3, text.form.shape(samples)).shape == (3, 2, 12)

import math

import numpy as np
import pytest
import torch

from lbt.data.augment import Rows
from lbt.data.masking import IGNORED, mask_tokens
from lbt.data.vocabulary import CLS, MASK, PAD, SEP, UNK, Vocabulary

SIZE, LENGTH = 500, 64
LAST = 400  # tokens from here on go on with a word
VOCABULARY = Vocabulary("", SIZE, torch.arange(SIZE) >= LAST)


def sequences(count, length=LENGTH, low=5, high=SIZE):
    """Sequences of 0, 1, 2, ... tokens, again and again, each the first that is drawn of the vocabulary."""
    random = np.random.default_rng(3)
    tokens = torch.full((count, length), PAD, dtype=torch.int32)
    for number, row in enumerate(tokens):
        size = number % (length - 1)
        row[0], row[1 + size] = CLS, SEP
        row[1 : 1 + size] = torch.from_numpy(random.integers(low, high, size).astype(np.int32))
    return tokens


def real(tokens):
    return (tokens != PAD) & (tokens != CLS) & (tokens != SEP)


def masked(tokens, seed=0, rows=None, **options):
    given, targets = mask_tokens(tokens, torch.Generator().manual_seed(seed), VOCABULARY, rows=rows, **options).unbind(
        1
    )
    return given, targets


def within(count, trials, share):
    """Whether a count is within five standard deviations of a binomial one's mean."""
    return abs(count - trials * share) <= 5 * math.sqrt(trials * share * (1 - share)) + 1


@pytest.mark.parametrize("whole_words", [False, True])
def test_targets_are_the_originals_and_nothing_special_is_asked(whole_words):
    tokens = sequences(500)
    tokens[60:70, 3] = UNK
    given, targets = masked(tokens, whole_words=whole_words)
    asked = targets != IGNORED
    assert given.dtype == targets.dtype == torch.int32
    assert torch.equal(targets[asked], tokens[asked]) and torch.equal(given[~asked], tokens[~asked])
    assert not (asked & ~real(tokens)).any()
    assert asked[:, 3][tokens[:, 3] == UNK].any()  # an unknown word is a word
    changed = given[(given != tokens) & (given != MASK)]
    assert len(changed) and changed.min() >= 5 and changed.max() < SIZE
    assert not torch.equal(masked(tokens, seed=1, whole_words=whole_words)[1], targets)
    assert torch.equal(masked(tokens, whole_words=whole_words)[0], given)


def test_of_each_sequence_a_fixed_number_is_asked():
    tokens = sequences(4 * LENGTH)
    sizes = real(tokens).sum(1).numpy()
    expected = np.where(sizes > 0, np.maximum(1, np.round(15 * sizes / 100)), 0)
    assert (masked(tokens)[1] != IGNORED).sum(1).tolist() == expected.tolist()
    assert expected[[0, 1, 10, 30, 50]].tolist() == [0, 1, 2, 4, 8]  # the half is rounded to even


@pytest.mark.parametrize("whole_words", [False, True])
def test_eight_tenths_are_hidden_a_tenth_is_another_token_and_a_tenth_stays(whole_words):
    tokens = torch.full((4000, LENGTH), 7, dtype=torch.int32)
    given, targets = masked(tokens, whole_words=whole_words)
    found = given[targets != IGNORED]
    assert len(found) == 4000 * 10
    others = found[(found != MASK) & (found != 7)]
    for count, share in (((found == MASK).sum(), 0.8), (len(others), 0.1 * (SIZE - 6) / (SIZE - 5))):
        assert within(int(count), len(found), share)
    counts = torch.bincount(others, minlength=SIZE)[5:]
    assert others.min() >= 5 and counts[2] == 0
    assert all(within(int(count), len(others), 1 / (SIZE - 6)) for count in counts[torch.arange(SIZE - 5) != 2])


def test_another_token_is_never_a_special_one():
    two = Vocabulary("", 7, torch.zeros(7, dtype=torch.bool))
    tokens = torch.full((4000, LENGTH), 5, dtype=torch.int32)
    given, targets = mask_tokens(tokens, torch.Generator().manual_seed(0), two).unbind(1)
    asked = targets != IGNORED
    assert within(int((given == 6).sum()), int(asked.sum()), 0.05)
    assert within(int((given == MASK).sum()), int(asked.sum()), 0.8)


@pytest.mark.parametrize("whole_words", [False, True])
def test_every_place_is_asked_as_often(whole_words):
    tokens = torch.full((4000, LENGTH), 7, dtype=torch.int32)
    if whole_words:
        tokens[:, 1::2] = LAST  # words of two tokens
    times = (masked(tokens, whole_words=whole_words)[1] != IGNORED).sum(0)
    assert all(within(int(count), 4000, 10 / LENGTH) for count in times)


@pytest.mark.parametrize("whole_words", [False, True])
def test_a_sequence_is_masked_alike_whatever_else_is_here(whole_words):
    tokens = sequences(96)
    whole = mask_tokens(tokens, torch.Generator().manual_seed(5), VOCABULARY, whole_words=whole_words)
    mixed = torch.randperm(96, generator=torch.Generator().manual_seed(1))
    for own in (slice(0, 32), slice(32, 96), mixed[:7], mixed[7:], torch.tensor([95])):
        generator = torch.Generator().manual_seed(5)
        part = mask_tokens(tokens[own], generator, VOCABULARY, whole_words=whole_words, rows=Rows(96, own))
        assert torch.equal(part, whole[own])
        left = torch.rand(1, generator=generator)  # the batch after it is the same, too
        assert left == torch.rand(1, generator=_after(tokens, whole_words))


def _after(tokens, whole_words):
    generator = torch.Generator().manual_seed(5)
    mask_tokens(tokens, generator, VOCABULARY, whole_words=whole_words)
    return generator


def words_of(row):
    """The places of each word of a sequence, told one token after the other."""
    words, before = [], False
    for place, token in enumerate(row.tolist()):
        if token in (PAD, CLS, SEP):
            before = False
            continue
        if token >= LAST and before:
            words[-1].append(place)
        else:
            words.append([place])
        before = True
    return words


def test_whole_words_are_asked_for_as_long_as_they_fit():
    tokens = sequences(600, low=LAST - 150)  # four words in ten begin anew
    asked = (masked(tokens, whole_words=True)[1] != IGNORED).numpy()
    several = 0
    for row, mask in zip(tokens, asked, strict=True):
        words = words_of(row)
        size = sum(map(len, words))
        most, count = max(1, round(15 * size / 100)), int(mask.sum())
        taken = [word for word in words if mask[word].any()]
        if not words:
            assert count == 0
            continue
        assert 1 <= count <= most
        if not mask[taken[0]].all():  # the first one drawn was too long: what it begins with
            assert len(taken) == 1 and len(taken[0]) > most
            assert mask[taken[0]].tolist() == [True] * most + [False] * (len(taken[0]) - most)
            continue
        assert all(mask[word].all() for word in taken)
        longest = max((len(word) for word in words if word not in taken), default=0)
        assert count + longest > most or len(taken) == len(words)  # the next one did not fit
        several += len(taken) > 1
    assert several > 100


def test_where_every_token_is_a_word_whole_words_are_tokens():
    tokens = sequences(200, high=LAST)
    for one, other in zip(masked(tokens), masked(tokens, whole_words=True), strict=True):
        assert torch.equal(one, other)

import numpy as np
import pytest

from lbt.data.packing import pack, split
from lbt.data.vocabulary import CLS, PAD, SEP

RANDOM = np.random.default_rng(7)
SIZES = {
    "of all sizes": [3, 0, 6, 7, 5, 12, 13, 1, 0, 11, 30],
    "full": [6, 12, 6],
    "one": [20],
    "begun by an empty one": [0, 0, 4],
    "empty": [0, 0],
    "none": [],
}


def documents(sizes):
    return [RANDOM.integers(5, 99, size).astype(np.int32) for size in sizes]


def packed_one_by_one(found, length, apart):
    """Rows and labels as a reader would lay them out by hand."""
    rows, labels = [], []
    for number, document in enumerate(found):
        for token in document.tolist():
            if not rows or len(rows[-1]) == length - 1 or (apart and labels[-1] != number):
                rows.append([CLS])
                labels.append(number)
            rows[-1].append(token)
    return [[*row, SEP] + [PAD] * (length - 1 - len(row)) for row in rows], labels


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_no_token_is_lost_and_no_document_crossed_where_they_are_apart(sizes, apart):
    found = documents(sizes)
    tokens, labels = pack(found, 8, apart)
    rows, expected = packed_one_by_one(found, 8, apart)
    assert tokens.tolist() == rows and labels.tolist() == expected
    assert tokens.shape == (len(rows), 8) and tokens.numpy().dtype == np.int32 and labels.numpy().dtype == np.int64
    inside = tokens[(tokens != CLS) & (tokens != SEP) & (tokens != PAD)]
    assert inside.tolist() == [token for document in found for token in document.tolist()]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("unit", ["line of words\n", "word ", "letter", "ツ"])
def test_a_text_is_cut_near_its_share_at_a_line_end_or_space(unit, share):
    text = unit * 400
    train, test = split(text, share)
    assert train + test == text and train and test
    assert share * len(text) - 0.5 <= len(test) <= 2 * share * len(text) + 0.5
    if unit[-1].isspace():
        assert train[-1] == unit[-1] and abs(len(test) - share * len(text)) <= len(unit)


def test_a_line_end_is_better_than_a_space_and_too_far_a_one_is_none():
    near = "a" * 850 + "\n" + "b c " * 37
    assert split(near, 0.1)[0] == "a" * 850 + "\n"
    far = "a" * 100 + "\n" + "b c " * 225
    assert split(far, 0.1)[0].endswith(" ") and len(split(far, 0.1)[1]) < 110


@pytest.mark.parametrize("text", ["word", "", " \n ", "one two " + " " * 400, "a"])
def test_what_is_too_little_to_cut_stays_whole(text):
    assert split(text, 0.1) == (text, "")

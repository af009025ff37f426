import os
import platform
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import error_line

from lbt.data import load, split_validation, vocabulary
from lbt.data.forms import Tokens
from lbt.data.readers import text as reader
from lbt.data.vocabulary import SPECIAL, UNK

SMALL = {"length": 16, "vocabulary": 300}
WORDS = ["we", "the", "people", "of", "united", "states", "in", "order", "to", "form", "a", "more", "perfect", "union"]


def lines(seed, count=60):
    """Lines of words, none of which is twice the same."""
    random = np.random.default_rng(seed)
    return "".join(f"{seed} {n} {' '.join(random.choice(WORDS, 6))}\n" for n in range(count))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two texts, one of them below a folder, among files that are none."""
    root = tmp_path / "corpus"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "b.txt").write_text(lines(1))
    (root / "deep" / "er" / "a.TXT").write_text(lines(2, 40))
    for other in ("notes.md", "deep/x.json", ".hidden.txt"):
        (root / other).write_bytes(b"\xff none of it")
    return root


def told(images, split="train"):
    """Each document's text, from the tokens of its sequences."""
    tokens, labels = getattr(images, f"{split}_images"), getattr(images, f"{split}_labels")
    return [images.form.vocabulary.decode(tokens[labels == label].flatten()) for label in range(len(images.classes))]


def test_a_files_end_is_held_out_and_nothing_of_it_is_lost_or_mixed(folder):
    images = load("text", folder, **SMALL, tokens="bytes")
    assert images.classes == ("b.txt", "deep/er/a.TXT") and isinstance(images.form, Tokens)
    for name, train, test in zip(images.classes, told(images), told(images, "test"), strict=True):
        assert train + test == (folder / name).read_text()
        assert train.endswith("\n") and 0.1 <= len(test) / len(train + test) < 0.14
    assert images.train_images.shape[1] == 16 and images.train_images.dtype == torch.int32


def test_the_vocabulary_knows_nothing_of_what_is_held_out(folder):
    first = load("text", folder, **SMALL).form.vocabulary
    content = (folder / "b.txt").read_text()
    (folder / "b.txt").write_text(content[:-40] + "zygotes" * 5 + "\n" + "zebras\n")
    images = load("text", folder, **SMALL)
    assert images.form.vocabulary.tokenizer == first.tokenizer and "zygotes" not in told(images)[0]
    assert UNK in images.test_images


def test_across_documents_only_the_last_sequence_is_padded(folder):
    apart, across = (load("text", folder, **SMALL, apart=apart) for apart in (True, False))
    for images, padded in ((apart, 2), (across, 1)):
        assert int((images.train_images == 0).any(1).sum()) <= padded
    flat = [images.train_images[images.train_images >= len(SPECIAL)] for images in (apart, across)]
    assert torch.equal(*flat) and len(across.train_images) <= len(apart.train_images)
    assert across.fingerprint != apart.fingerprint and "across documents" in across.origin


def test_one_file_of_any_name_is_a_text(folder):
    (folder / "README").write_text(lines(3))
    for place in (folder / "README", folder / "b.txt"):
        images = load("text", place, **SMALL)
        assert images.classes == (place.name,) and place.name in images.origin and not images.official
    assert len(list((folder / ".lbt-cache").glob("*.pt"))) == 2


def test_the_origin_says_what_the_sequences_are(folder):
    expected = "text (corpus, 2 files, up to 300 word pieces, sequences of 16, the last 0.1 of each held out)"
    assert load("text", folder, **SMALL).origin == expected
    assert "up to 300 byte-level tokens" in load("text", folder, **SMALL, tokens="bytes").origin


def test_a_mark_of_the_byte_order_is_no_text(folder):
    plain = load("text", folder, **SMALL)
    (folder / "b.txt").write_text((folder / "b.txt").read_text(), encoding="utf-8-sig")
    assert load("text", folder, **SMALL).fingerprint == plain.fingerprint


# --- kept ---


@pytest.fixture
def made(monkeypatch):
    """Counts the vocabularies that are trained."""
    count = []
    monkeypatch.setattr(reader, "trained", lambda *args: count.append(1) or vocabulary.trained(*args))
    return count


def test_it_is_made_once_and_anew_when_a_file_or_an_option_changes(folder, made):
    first, second = load("text", folder, **SMALL), load("text", folder, **SMALL)
    assert len(made) == 1 and second.fingerprint == first.fingerprint
    assert second.form.vocabulary.tokenizer == first.form.vocabulary.tokenizer
    assert (second.origin, second.classes) == (first.origin, first.classes)
    assert torch.equal(second.test_images, first.test_images)
    (folder / "notes.md").write_text("not read")
    load("text", folder, **SMALL)
    assert len(made) == 1
    (folder / "b.txt").write_text(lines(1).replace("people", "pupils"))
    assert load("text", folder, **SMALL).fingerprint != first.fingerprint and len(made) == 2
    load("text", folder, **SMALL | {"length": 17})
    assert len(made) == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"tokenizer": None},
        {"tokenizer": "{}"},
        {"tokenizer": "other"},
        {
            "train_images": torch.full((9, 16), 300, dtype=torch.int32),
            "train_labels": torch.zeros(9, dtype=torch.int64),
        },
        {"train_images": torch.zeros(9, 3, 8, 8, dtype=torch.uint8), "train_labels": torch.zeros(9, dtype=torch.int64)},
        {"test_labels": torch.tensor([0])},
    ],
)
def test_a_damaged_or_planted_file_is_made_again(folder, changes, made, capsys):
    first = load("text", folder, **SMALL)
    (path,) = (folder / ".lbt-cache").glob("*.pt")
    stored = torch.load(path, weights_only=True) | changes
    if stored["tokenizer"] == "other":  # a whole vocabulary, and not the one of these tokens
        stored["tokenizer"] = vocabulary.trained([lines(9)], 300, "wordpiece").tokenizer
    path.unlink()
    torch.save(stored, path)
    again = load("text", folder, **SMALL)
    assert again.fingerprint == first.fingerprint and len(made) == 2
    assert f"{path} is damaged" in capsys.readouterr().err


def test_a_text_in_the_place_of_images_is_not_believed(folder, tmp_path, capsys):
    load("text", folder, **SMALL)
    (path,) = (folder / ".lbt-cache").glob("*.pt")
    stored = torch.load(path, weights_only=True)
    for name in ("train/x/0.png", "test/x/0.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"no image")
    line = error_line("image_folder", tmp_path)
    assert "cannot be read as an image" in line
    from lbt.data.listing import listing

    file = "image_folder-resolution32.pt"
    key = f"{stored['key'].split()[0]} {listing(tmp_path, 'train', 'test').state} {file}"
    torch.save(stored | {"key": key, "classes": '["x"]'}, tmp_path / ".lbt-cache" / file)
    assert error_line("image_folder", tmp_path) == line
    assert "is damaged" in capsys.readouterr().err


# --- mistakes ---


def test_bad_encodings_are_told_with_file_and_byte(folder):
    for content, byte in ((b"abc caf\xe9 def", "7"), ("words".encode("utf-16"), "0"), (b"a\0b\0", "1")):
        (folder / "deep" / "bad.txt").write_bytes(content)
        line = error_line("text", folder, **SMALL)
        assert line == f"{folder}/deep/bad.txt is not UTF-8 text (byte {byte}): convert or remove it"


def test_files_without_a_word_are_no_documents(folder):
    (folder / "0.txt").write_bytes(b"")
    (folder / "1.txt").write_text(" \n\n")
    assert load("text", folder, **SMALL).classes == ("b.txt", "deep/er/a.TXT")
    for name in ("b.txt", "deep/er/a.TXT"):
        (folder / name).write_text("\n")
    assert error_line("text", folder, **SMALL) == f"{folder} has no text: its files are empty"
    (folder / "b.txt").write_text("word")
    assert "too little text to hold a part out" in error_line("text", folder, **SMALL)


def test_where_no_text_is_the_remedy_is_told(tmp_path):
    (tmp_path / "picture.png").write_bytes(b"")
    assert f"{tmp_path} has no text files (*.txt): set data.root to" in error_line("text", tmp_path)
    assert "nowhere cannot be read (No such file or directory)" in error_line("text", tmp_path / "nowhere")


def test_what_is_no_file_is_told_and_not_opened(folder):
    os.mkfifo(folder / "pipe.txt")
    assert "pipe.txt cannot be read as text (it is a named pipe, not a file)" in error_line("text", folder)
    assert "pipe.txt cannot be read as text (it is a named pipe, not a file)" in error_line("text", folder / "pipe.txt")
    (folder / "pipe.txt").unlink()
    (folder / "gone.txt").symlink_to("nothing")
    assert "gone.txt is a link to nothing" in error_line("text", folder)


@pytest.mark.parametrize("name", ["text", "pydocs"])
@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ({"held_out": 0}, "data.held_out=0: expected a share of the text between 0 and 1"),
        ({"held_out": 1.0}, "data.held_out=1: expected"),
        ({"length": 7}, "data.length=7: expected a whole number of at least 8"),
        ({"vocabulary": 299}, "data.vocabulary=299: expected a whole number of 300 to 1,000,000"),
        ({"vocabulary": 10**12}, "data.vocabulary=1000000000000: expected"),
        ({"tokens": "byte"}, 'data.tokens=byte: no such choice; did you mean "bytes"?'),
        ({"lenght": 64}, 'data.lenght: no such setting; did you mean "length"?'),
    ],
)
def test_options_out_of_range_are_one_line(folder, name, option, expected):
    assert error_line(name, folder, **option).startswith(expected.split(";")[0])


# --- the embedded text, and a real one ---


def test_pydocs_are_the_interpreters_own():
    from pydoc_data.topics import topics

    images = load("pydocs")
    assert images.official and f"Python {platform.python_version()}" in images.origin
    assert 20 <= len(images.classes) < len(topics) and set(images.classes) <= set(topics)
    for labels in (images.train_labels, images.test_labels):
        assert len(labels.unique()) == len(images.classes)
    assert len(images.train_images) > 1000 and images.form.vocabulary.size <= 2048
    assert len(split_validation(images, 0.1, seed=0).test_labels) == round(len(images.train_labels) / 10)
    number = images.classes.index("specialnames")
    words = lambda text: re.findall(r"[a-z]+", text.lower())  # noqa: E731
    whole = words(told(images)[number]) + words(told(images, "test")[number])
    assert whole == words(topics["specialnames"])


def test_english_comes_back_from_its_tokens(real_data, tmp_path):
    place = real_data / "text" / "tinyshakespeare.txt"
    if not place.exists():
        pytest.skip(f"no real text: {place} does not exist")
    content = place.read_text()[:200_000]
    (tmp_path / "shakespeare.txt").write_text(content)
    exact = load("text", tmp_path, length=64, vocabulary=2000, tokens="bytes")
    assert told(exact)[0] + told(exact, "test")[0] == content
    pieces = load("text", tmp_path, length=64, vocabulary=2000)
    assert UNK not in pieces.train_images
    words = re.findall(r"[a-z]+|[^\sa-z]", content.lower())
    assert re.findall(r"[a-z]+|[^\sa-z]", told(pieces)[0] + " " + told(pieces, "test")[0]) == words

import hashlib
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from lbt.data.vocabulary import CLS, KINDS, MASK, PAD, SEP, SMALLEST, SPECIAL, UNK, trained, vocabulary_of

WORDS = "the cat sat on the mat and the dog sat with the cats unhappily while unhappy dogs were happily sitting . "
TEXT = "".join(f"{word}{' ,.;-!?'[n % 7]} {WORDS[n % 60 :]}" for n, word in enumerate(WORDS.split() * 20))
TEXTS = [
    "",
    TEXT.title() + "\r\n\tWell -- 'tis (he said) $5.00's worth\n\n\n  indented\n",
    "[MASK] it and [SEP] it [PAD]\n",
]
ODD = "Zoë  ate\tñandú\r\n\r\n \x0b 東京 🙂\U0001f3fd e\u0301 \u00a0nbsp \ufeff zero\u200bwidth [MASK][CLS]\x7f  \n "
DIGESTS = """
import hashlib, sys
from lbt.data.vocabulary import KINDS, trained
texts = sys.stdin.read().split("\\0")
for kind in KINDS:
    print(hashlib.sha256(trained(texts, 500, kind).tokenizer.encode()).hexdigest())
"""


@pytest.fixture(scope="module", params=KINDS)
def vocabulary(request):
    return trained(TEXTS, 500, request.param)


def test_the_special_tokens_have_the_first_numbers(vocabulary):
    tokenizer = Tokenizer.from_str(vocabulary.tokenizer)
    assert [tokenizer.token_to_id(name) for name in SPECIAL] == [PAD, UNK, CLS, SEP, MASK] == [0, 1, 2, 3, 4]
    assert vocabulary.size == tokenizer.get_vocab_size() <= 500
    assert vocabulary.continues.shape == (vocabulary.size,) and vocabulary.continues.dtype == torch.bool


def test_the_tokens_are_those_of_hugging_faces_tokenizer(vocabulary):
    tokenizer = Tokenizer.from_str(vocabulary.tokenizer)
    tokenizer.encode_special_tokens = True
    texts = [*TEXTS, ODD, "\n", "one"]
    found = vocabulary.encode(texts)
    assert [tokens.tolist() for tokens in found] == [tokenizer.encode(text).ids for text in texts]
    assert {tokens.dtype for tokens in found} == {np.dtype(np.int32)}


def test_bytes_come_back_as_they_were():
    vocabulary = trained(TEXTS, 400, "bytes")
    for text in (*TEXTS, ODD):
        tokens = vocabulary.encode([text])[0]
        assert vocabulary.decode(tokens) == text
        assert len(tokens) == 0 or tokens.min() >= len(SPECIAL)


def test_word_pieces_come_back_as_words():
    vocabulary = trained(TEXTS, 500, "wordpiece")
    for text in TEXTS:
        tokens = vocabulary.encode([text])[0]
        assert vocabulary.decode(torch.from_numpy(tokens)) == " ".join(
            re.findall(r"[a-z0-9]+|[^\sa-z0-9]", text.lower())
        )
        assert len(tokens) == 0 or tokens.min() >= len(SPECIAL)  # "[MASK]" in a text is a word between brackets
    assert vocabulary.decode(vocabulary.encode(["UNHAPPILÝ"])[0]) == "unhappily"


def test_a_token_goes_on_with_the_word_before_it_where_no_space_is_between_them(vocabulary):
    for text in ("unhappily sitting onions", " Unhappily\n\tthe dogs"):
        tokens = vocabulary.encode([text])[0]
        words, goes_on = [], vocabulary.continues[torch.from_numpy(tokens)].tolist()
        for token, continued in zip(tokens, goes_on, strict=True):
            words.append([*words.pop(), token] if continued and words else [token])
        told = [vocabulary.decode(word).strip() for word in words]
        assert [word.lower() for word in told if word] == text.lower().split()
    assert not vocabulary.continues[: len(SPECIAL)].any()


def test_the_same_text_gives_the_same_vocabulary_in_every_process():
    command = [sys.executable, "-c", DIGESTS]
    said = subprocess.run(command, input="\0".join(TEXTS), capture_output=True, text=True, check=True).stdout.split()
    for kind, theirs in zip(KINDS, said, strict=True):
        ours = {hashlib.sha256(trained(TEXTS, 500, kind).tokenizer.encode()).hexdigest() for _ in range(3)}
        assert ours == {theirs}


def test_frequent_words_are_tokens_and_rare_letters_are_unknown():
    letters = "".join(map(chr, range(0x4E00, 0x4E00 + 2 * SMALLEST)))
    vocabulary = trained([TEXT + letters], SMALLEST, "wordpiece")
    assert vocabulary.size <= SMALLEST
    assert len(vocabulary.encode(["the cat"])[0]) == 2
    assert vocabulary.encode([letters[-1]])[0].tolist() == [UNK]
    spoken = vocabulary.encode([TEXT])[0]
    assert UNK not in spoken


def test_what_is_no_vocabulary_is_refused(vocabulary):
    for wrong in (vocabulary.tokenizer.replace("[CLS]", "[CLZ]"), '{"version": "1.0"}', ""):
        with pytest.raises(Exception, match=r".") as caught:
            vocabulary_of(wrong)
        assert isinstance(caught.value, Exception)
    again = vocabulary_of(vocabulary.tokenizer)
    assert torch.equal(again.continues, vocabulary.continues) and again.size == vocabulary.size

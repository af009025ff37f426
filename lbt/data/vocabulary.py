"""Vocabularies of subwords, trained on a text by Hugging Face's `tokenizers`, and text as numbers of their tokens.

The same text gives the same vocabulary in every process: `tokenizers` numbers the letters inside of words in the order
of a hash table, which differs from process to process, unless they are given to it in an order.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNK, CLS, SEP, MASK = range(len(SPECIAL))
KINDS = ("wordpiece", "bytes")
SMALLEST = 300  # tokens of a vocabulary: the special ones, all bytes, and some pairs of them
_RARE = 2  # what occurs less often is merged into no token
_INSIDE = "##"  # what a token that goes on with a word begins with
_SPACE = ("Ġ", "Ċ", "ĉ", "č")  # how a byte-level token shows the space, line feed, tab and carriage return
_WORD = re.compile(r"\s*\S+|\s+$")  # white space goes with the word after it; no token reaches over its end


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The tokens that sequences are made of.

    Attributes:
        tokenizer: the tokenizer in the JSON of `tokenizers`; the special tokens have the first numbers.
        size: number of tokens.
        continues: bool [size], whether a token goes on with the word of the token before it.
    """

    tokenizer: str
    size: int
    continues: Tensor

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Returns each text's tokens, int32 [n], without special ones; words of them all are looked up once.

        What looks like a special token in a text is text.
        """
        numbers: dict[str, int] = {}
        places = [np.fromiter((numbers.setdefault(m[0], len(numbers)) for m in _WORD.finditer(t)), int) for t in texts]
        encoded = [
            one.ids for one in _loaded(self.tokenizer).encode_batch_fast(list(numbers), add_special_tokens=False)
        ]
        lengths = np.fromiter(map(len, encoded), int, len(encoded))
        tokens = np.fromiter(chain.from_iterable(encoded), np.int32, lengths.sum())
        starts = lengths.cumsum() - lengths
        found = []
        for words in places:
            counts = lengths[words]
            shift = starts[words] - (counts.cumsum() - counts)
            found.append(tokens[np.repeat(shift, counts) + np.arange(counts.sum())])
        return found

    def decode(self, tokens: Sequence[int] | np.ndarray | Tensor) -> str:
        """Returns the text of tokens [n], without special ones: of bytes the very text, of word pieces its words."""
        return _loaded(self.tokenizer).decode([int(token) for token in tokens], skip_special_tokens=True)

    def continues_on(self, device: torch.device) -> Tensor:
        """Returns `continues` on a device, copied there once."""
        return _copied(self, device)


@lru_cache(maxsize=8)
def _copied(vocabulary: Vocabulary, device: torch.device) -> Tensor:
    return vocabulary.continues.to(device)


@lru_cache(maxsize=4)
def _loaded(tokenizer: str) -> "Tokenizer":
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_str(tokenizer)
    loaded.encode_special_tokens = True
    return loaded


def vocabulary_of(tokenizer: str) -> Vocabulary:
    """Returns the vocabulary of a tokenizer's JSON.

    Raises:
        ValueError: its tokens are not numbered from 0 on, the special ones first.
    """
    tokens = _loaded(tokenizer).get_vocab()
    names = sorted(tokens, key=tokens.__getitem__)
    if [tokens[name] for name in names] != list(range(len(names))) or tuple(names[: len(SPECIAL)]) != SPECIAL:
        raise ValueError("its tokens are no vocabulary")
    if "Ġ" in tokens:
        inside = [not name.startswith(_SPACE) for name in names]
    else:
        inside = [name.startswith(_INSIDE) for name in names]
    inside[: len(SPECIAL)] = [False] * len(SPECIAL)
    return Vocabulary(tokenizer, len(names), torch.tensor(inside))


def trained(texts: Sequence[str], size: int, kind: str) -> Vocabulary:
    """Trains a vocabulary; the same texts give the same one.

    Args:
        texts: to train on.
        size: the most tokens it may have, at least `SMALLEST`; it has fewer where the texts hold no more pairs.
        kind: "wordpiece", lower case and without accents as BERT's uncased one, or "bytes", byte-level pairs, which
            loses nothing. Of word pieces at most a quarter are single letters, the most frequent ones: a word with
            another letter is unknown.
    """
    make = _train_bytes if kind == "bytes" else _train_pieces
    return vocabulary_of(make(texts, size).to_str())


def _lines(texts: Sequence[str]) -> Iterator[str]:
    return chain.from_iterable(text.splitlines(keepends=True) for text in texts)


def _train_bytes(texts: Sequence[str], size: int) -> "Tokenizer":
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=_RARE,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator(_lines(texts), trainer)
    return made


def _train_pieces(texts: Sequence[str], size: int) -> "Tokenizer":
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    def untrained(vocabulary: dict[str, int] | None = None) -> Tokenizer:
        made = Tokenizer(models.WordPiece(vocabulary, unk_token=SPECIAL[UNK]))
        made.normalizer = normalizers.BertNormalizer(lowercase=True)
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        made.decoder = decoders.WordPiece(prefix=_INSIDE, cleanup=False)
        return made

    counted = untrained()
    letters = _letters(counted, texts, (size - len(SPECIAL)) // 4)
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=_RARE,
        # Given as special ones, the letters inside of words have their numbers before any is met.
        special_tokens=[*SPECIAL, *(_INSIDE + letter for letter in letters if _goes_on(counted, letter))],
        initial_alphabet=letters,
        limit_alphabet=len(letters),
        continuing_subword_prefix=_INSIDE,
        show_progress=False,
    )
    counted.train_from_iterator(_lines(texts), trainer)
    made = untrained(counted.get_vocab())
    made.add_special_tokens(list(SPECIAL))
    return made


def _letters(tokenizer: "Tokenizer", texts: Sequence[str], most: int) -> list[str]:
    """Returns the letters that the normalised texts have most often, in the order of their code points."""
    counts: dict[str, int] = {}
    for text in texts:
        codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        for code, count in zip(*(part.tolist() for part in np.unique(codes, return_counts=True)), strict=True):
            for letter in tokenizer.normalizer.normalize_str(chr(code)):
                if not letter.isspace():
                    counts[letter] = counts.get(letter, 0) + count
    return sorted(sorted(counts, key=lambda letter: (-counts[letter], letter))[:most])


def _goes_on(tokenizer: "Tokenizer", letter: str) -> bool:
    """Says whether a letter can stand inside of a word: no sign of punctuation does."""
    normal = tokenizer.normalizer.normalize_str(f"a{letter}")
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal)] == [f"a{letter}"]

"""Text: files of one's own, and Python's language reference."""

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from lbt.data.cache import Known, cached
from lbt.data.files import said
from lbt.data.imageset import ImageSet, token_set
from lbt.data.listing import Wanted, listing
from lbt.data.packing import pack, split
from lbt.data.sources import embedded, source
from lbt.data.vocabulary import SMALLEST, trained
from lbt.errors import UserError
from lbt.files import irregular, read_regular

FILES = Wanted("text", (".txt",), alone=True)
SHORTEST = 8  # tokens of a sequence
LARGEST = 1_000_000  # tokens of a vocabulary
LETTERS = 2_000  # of a topic of Python's reference, in which seven sequences of 64 tokens are to be trained on
Kind = Literal["wordpiece", "bytes"]


@source
def text(
    root: Path,
    length: int = 128,
    vocabulary: int = 8192,
    tokens: Kind = "wordpiece",
    apart: bool = True,
    held_out: float = 0.1,
) -> ImageSet:
    """Anybody's UTF-8 text: the file `root`, or every `root/**/*.txt`; a file is a document, and a class.

    Args:
        root: the file or folder.
        length: of a sequence in tokens, its first and last mark among them.
        vocabulary: the most tokens there may be; they are learned from what is trained on.
        tokens: "wordpiece" (lower case, without accents) or "bytes" (pairs of bytes, the very text).
        apart: whether no sequence goes over from one document to the next.
        held_out: share of each document, its end, that is the test set.

    Raises:
        UserError: there is no text, a file is not UTF-8, an option is out of range, or nothing is left to hold out.
    """
    _check(length, vocabulary, held_out)
    folder = root if root.is_dir() else root.parent
    found = listing(root, "", wanted=FILES)
    if not found.names:
        raise UserError(f"{said(root)} {_why_none(root)}: set data.root to a file of text or a folder with some")
    options = {"length": length, "vocabulary": vocabulary, "tokens": tokens, "apart": apart, "held_out": held_out}
    count = "" if len(found.names) == 1 else f"{len(found.names):,} files, "
    meant = Known(f"text ({said(root.resolve().name)}, {count}{_in_words(**options)})", text=True)

    def build() -> ImageSet:
        documents = {name: _read(folder / name) for name in found.names}
        return _packed("text", root, documents, meant, **options)

    one = {} if root == folder else {"file": root.name}
    return cached("text", folder, found.state, build, meant, **one, **options)


@source
@embedded
def pydocs(
    root: Path,
    length: int = 64,
    vocabulary: int = 2048,
    tokens: Kind = "wordpiece",
    apart: bool = True,
    held_out: float = 0.1,
) -> ImageSet:
    """The longer topics of the language reference that Python brings along; its text is the interpreter's version's.

    Args:
        root: not looked at; nothing is cached.
        length: of a sequence in tokens, its first and last mark among them.
        vocabulary: the most tokens there may be; they are learned from what is trained on.
        tokens: "wordpiece" (lower case, without accents) or "bytes" (pairs of bytes, the very text).
        apart: whether no sequence goes over from one topic to the next.
        held_out: share of each topic, its end, that is the test set.

    Raises:
        UserError: an option is out of range, or nothing is left to hold out.
    """
    from pydoc_data.topics import topics

    _check(length, vocabulary, held_out)
    options = {"length": length, "vocabulary": vocabulary, "tokens": tokens, "apart": apart, "held_out": held_out}
    documents = {name: topics[name] for name in sorted(topics) if len(topics[name]) >= LETTERS}
    told = f"pydocs (Python {platform.python_version()}, {len(documents)} topics, {_in_words(**options)})"
    return _packed("pydocs", "pydocs", documents, Known(told, official=True), **options)


def _check(length: int, vocabulary: int, held_out: float) -> None:
    """Raises UserError for an option out of range."""
    if length < SHORTEST:
        raise UserError(f"data.length={length}: expected a whole number of at least {SHORTEST}")
    if not SMALLEST <= vocabulary <= LARGEST:
        raise UserError(f"data.vocabulary={vocabulary}: expected a whole number of {SMALLEST} to {LARGEST:,}")
    if not 0 < held_out < 1:
        raise UserError(f"data.held_out={held_out:g}: expected a share of the text between 0 and 1, for example 0.1")


def _in_words(length: int, vocabulary: int, tokens: Kind, apart: bool, held_out: float) -> str:
    """Returns what the options make of a text."""
    pieces = "word pieces" if tokens == "wordpiece" else "byte-level tokens"
    across = "" if apart else " across documents"
    return f"up to {vocabulary:,} {pieces}, sequences of {length}{across}, the last {held_out:g} of each held out"


def _why_none(root: Path) -> str:
    """Says what is wrong with a file or folder in which no text is found."""
    try:
        wrong = irregular(root.stat().st_mode)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return "has no text files (*.txt)" if root.is_dir() else f"cannot be read as text ({wrong})"


def _read(path: Path) -> str:
    """Returns a file's text.

    Raises:
        UserError: it is none in UTF-8; names the byte.
    """
    data = read_regular(path)
    try:
        words = data.decode().removeprefix("\ufeff")  # a mark of the byte order
        if (wrong := data.find(b"\0")) < 0:  # UTF-16 of English has as many zeros as letters
            return words
    except UnicodeDecodeError as error:
        wrong = error.start
    raise UserError(f"{said(path)} is not UTF-8 text (byte {wrong:,}): convert or remove it")


def _packed(
    name: str,
    where: Path | str,
    documents: Mapping[str, str],
    known: Known,
    *,
    length: int,
    vocabulary: int,
    tokens: Kind,
    apart: bool,
    held_out: float,
) -> ImageSet:
    """Returns the sequences of documents; those without a word are left out.

    Raises:
        UserError: none is left, or none of which a part can be held out.
    """
    documents = {title: words for title, words in documents.items() if words.strip()}
    if not documents:
        raise UserError(f"{said(where)} has no text: its files are empty")
    parts = list(zip(*(split(words, held_out) for words in documents.values()), strict=True))
    if not any(parts[1]):
        raise UserError(f"data.held_out={held_out:g}: {said(where)} has too little text to hold a part out")
    learned = trained(parts[0], vocabulary, tokens)
    pairs = [pack(learned.encode(part), length, apart) for part in parts]
    return token_set(
        name, *pairs, tuple(map(said, documents)), vocabulary=learned, origin=known.origin, official=known.official
    )

"""BERT's masking on the device: what is hidden of each sequence is drawn for a batch at once.

Source: Devlin et al. 2019, "BERT", section 3.1, and the released code's `create_masked_lm_predictions`; whole words as
its "whole word masking" of May 2019.
"""

import torch
from torch import Tensor

from lbt.data.augment import Rows, all_of
from lbt.data.vocabulary import CLS, MASK, PAD, SEP, SPECIAL, Vocabulary

IGNORED = -100  # the target where nothing is asked, which torch's cross-entropy leaves out
PERCENT_ASKED = 15  # of a sequence's tokens
MASKED, RANDOM = 0.8, 0.1  # shares of those asked that are hidden by MASK, and by another token; the others stay


def mask_tokens(
    tokens: Tensor,
    generator: torch.Generator,
    vocabulary: Vocabulary,
    *,
    whole_words: bool = False,
    rows: Rows | None = None,
) -> Tensor:
    """Hides tokens of each sequence, 15 % of those that are not special, and says which they were.

    Of n tokens max(1, round(0.15 n)) are asked for, the half rounded to even, and each of them is replaced by MASK with
    probability 0.8, by a random token with 0.1, and left with 0.1. Of whole words as many are asked for as fit into
    that number: they are drawn one after the other until one does not fit, where BERT's code goes on to shorter ones;
    of a first one that does not fit, the tokens it begins with.

    Args:
        tokens: int32 [B, L].
        generator: on the tokens' device; the same state gives the same batch.
        vocabulary: what the tokens are numbers of.
        whole_words: whether the tokens of a word are asked for together.
        rows: which sequences of a larger batch these are; None: they are all of it.

    Returns:
        int32 [B, 2, L]: what the model is given, and the tokens asked for, `IGNORED` elsewhere.
    """
    device, length, (count, own) = tokens.device, tokens.shape[1], rows or all_of(tokens)
    drawn, fate = torch.rand(2, count, length, generator=generator, device=device)[:, own]
    other = torch.randint(len(SPECIAL), vocabulary.size, (count, length), generator=generator, device=device)[own]
    real = (tokens != PAD) & (tokens != CLS) & (tokens != SEP)
    most = (real.sum(1, keepdim=True) * PERCENT_ASKED / 100).round_().clamp_(min=1)
    if whole_words:
        asked = _words(real, drawn, most, vocabulary.continues_on(device)[tokens])
    else:
        asked = real & (_ranks(drawn, real) < most)
    hidden = torch.where(fate < MASKED, MASK, torch.where(fate < MASKED + RANDOM, other, tokens))
    return torch.stack((torch.where(asked, hidden, tokens), torch.where(asked, tokens, IGNORED)), 1).to(torch.int32)


def _ranks(drawn: Tensor, real: Tensor) -> Tensor:
    """Returns each place's rank among those of its sequence that are real, int64 [B, L]; equal ones in their order."""
    order = torch.where(real, drawn, 2.0).argsort(dim=1, stable=True)
    places = torch.arange(drawn.shape[1], device=drawn.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def _words(real: Tensor, drawn: Tensor, most: Tensor, continues: Tensor) -> Tensor:
    """Returns which tokens are asked for where words are drawn, bool [B, L]."""
    places = torch.arange(drawn.shape[1], device=drawn.device)
    goes_on = continues & real
    goes_on[:, 1:] &= real[:, :-1]
    goes_on[:, 0] = False
    first = torch.where(goes_on, 0, places).cummax(1).values  # the place where the token's word begins
    ranks = _ranks(drawn.gather(1, first), real)
    begins = ranks.gather(1, first)
    sizes = torch.zeros_like(ranks).scatter_add_(1, first, torch.ones_like(ranks)).gather(1, first)
    return real & ((begins + sizes <= most) | ((begins == 0) & (ranks < most)))

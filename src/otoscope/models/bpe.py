"""Byte-level BPE merges that a tokenizer file lost, found again from its vocabulary.

OpenAI's vocabularies number their tokens in the order of merging, so the id of a token is the rank of its merge
(``tiktoken``), and the merge itself is what the earlier ones leave of the token: two parts. Several Whisper
``tokenizer.json`` in circulation lack their first merge, ``Ġ t``, because their writer took the first line of
``merges.txt`` for a header; with them " to" becomes two tokens that the model has never seen together.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

Merge = tuple[str, str]


def complete_merges(vocab: Mapping[str, int], merges: Sequence[Merge], special: Collection[str] = ()) -> list[Merge]:
    """``merges`` with those put back that ``vocab`` shows to be missing, each at the rank its token's id gives it.

    A merge is put back only where that is certain: the ids of the merges that are there rise with their ranks, and the
    lower-ranked merges leave exactly two tokens of the missing token's text.

    Args:
        vocab: token -> id, in byte-level spelling (``Ġ`` for a space).
        merges: pairs of tokens, by rank.
        special: tokens of the vocabulary that are not made by merging.

    Returns:
        the merges by rank; as they were where none is missing or ids are not ranks.
    """
    ranked = [(vocab.get(left + right, -1), (left, right)) for left, right in merges]
    ids = [i for i, _ in ranked]
    if any(after <= before for before, after in zip([-1, *ids], ids)):
        return list(merges)
    known = {left + right: i for i, (left, right) in ranked}
    missing = [(i, t) for t, i in vocab.items() if len(t) > 1 and t not in known and t not in special]
    for i, token in sorted(missing):
        parts = _merged(token, known, below=i)
        if len(parts) == 2 and all(part in vocab for part in parts):
            known[token] = i
            ranked.append((i, (parts[0], parts[1])))
    return [merge for _, merge in sorted(ranked)]


def _merged(text: str, ranks: Mapping[str, int], below: int) -> list[str]:
    """The parts of ``text`` after all merges of a rank under ``below``, the lowest rank first."""
    parts = list(text)
    while len(parts) > 1:
        rank, at = min((ranks.get(a + b, below), i) for i, (a, b) in enumerate(zip(parts, parts[1:])))
        if rank >= below:
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts

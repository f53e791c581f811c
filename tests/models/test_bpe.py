"""Lost merges are found again where that is certain, and the embedded tokenizers have all of theirs."""

from __future__ import annotations

import json

import pytest

from otoscope.models.bpe import complete_merges

MERGES = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("Ġthe", "n"), ("e", "n"), ("he", "en")]
LETTERS = "abehnotĠ"
VOCAB = {token: i for i, token in enumerate([*LETTERS, *(a + b for a, b in MERGES)])}


def test_whole_merges_stay_as_they_are():
    assert complete_merges(VOCAB, MERGES) == MERGES
    assert complete_merges({}, []) == []


@pytest.mark.parametrize("lost", range(len(MERGES)))
def test_any_single_lost_merge_comes_back_at_its_rank(lost):
    assert complete_merges(VOCAB, MERGES[:lost] + MERGES[lost + 1 :]) == MERGES


def test_several_lost_merges_come_back():
    assert complete_merges(VOCAB, [MERGES[1], MERGES[4]]) == MERGES


def test_nothing_is_guessed():
    # special tokens are no merges, nor are tokens that take more than one merge, nor the empty one
    more = {**VOCAB, "": len(VOCAB), "no": len(VOCAB) + 1, "bonbon": len(VOCAB) + 2}
    assert complete_merges(more, MERGES[1:], special={"no"}) == MERGES
    # where ids are not ranks, they do not tell where a merge belongs
    swapped = {**VOCAB, "he": VOCAB["Ġthe"], "Ġthe": VOCAB["he"]}
    assert complete_merges(swapped, MERGES[1:]) == MERGES[1:]


@pytest.mark.weights
@pytest.mark.parametrize("name", ["whisper_tiny_en", "whisper_base", "smollm2"])
def test_every_entry_of_a_real_vocabulary_encodes_to_itself(name, request):
    from transformers import AutoTokenizer

    folder = request.getfixturevalue(name)
    words = AutoTokenizer.from_pretrained(folder)
    for word in (" to", " them", " then"):
        assert len(words(word, add_special_tokens=False).input_ids) == 1
    file = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    special = {token["content"] for token in file["added_tokens"]}
    bpe = words.backend_tokenizer.model
    entries = {token: i for token, i in file["model"]["vocab"].items() if token and token not in special}
    odd = [token for token, i in entries.items() if [piece.id for piece in bpe.tokenize(token)] != [i]]
    assert odd == []
    assert len(file["model"]["merges"]) >= len(entries) - 256

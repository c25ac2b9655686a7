"""Documents in pieces: every word once, where it stood, and never more of them than asked."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import DataError
from harness.retrieval.chunks import cited_name, cut, split
from harness.retrieval.documents import Document

texts = st.text(alphabet=st.sampled_from("ab. \n\t!?é漢\u202e"), max_size=400)


def document(name: str, text: str = "some text") -> Document:
    return Document(name, text, "0" * 64)


@given(texts, st.integers(1, 30))
def test_spans_hold_every_word_once_and_in_order(text: str, words: int) -> None:
    spans = split(text, words=words)

    assert "".join("".join(text[slice(*span)].split()) for span in spans) == "".join(text.split())
    assert all(before.end <= after.start for before, after in pairwise(spans))
    assert all(len(text[slice(*span)].split()) <= words for span in spans)


def test_a_chunk_ends_with_a_paragraph_once_it_is_half_full() -> None:
    text = "one two three four five\n\nsix seven eight"

    assert [text[slice(*span)] for span in split(text, words=8)] == [
        "one two three four five",
        "six seven eight",
    ]
    assert len(split(text, words=20)) == 1


def test_a_long_paragraph_is_cut_at_the_last_sentence_that_fits() -> None:
    text = "One two three. Four five six. Seven eight nine ten."

    assert [text[slice(*span)] for span in split(text, words=8)] == [
        "One two three. Four five six.", "Seven eight nine ten.",
    ]  # fmt: skip


def test_a_run_without_spaces_is_cut_too() -> None:
    spans = split("x" * 100_000, words=10)

    assert max(span.end - span.start for span in spans) == 2_000
    assert sum(span.end - span.start for span in spans) == 100_000


def test_ids_are_names_and_numbers_and_digests_see_every_part() -> None:
    one, two = cut([document("returns", "a b c. d e f.")], words=3)
    (other,) = cut([document("refunds", "a b c.")], words=3)

    assert (one.id, two.id) == ("returns:1", "returns:2")
    assert one.text == other.text
    assert len({one.digest, two.digest, other.digest, one._replace(sha256="1" * 64).digest}) == 4


@pytest.mark.parametrize("name", ["a b", "x" * 49, "[1]", "a\nb", "§ 7"])
def test_a_name_that_no_citation_can_hold_is_cited_by_a_digest(name: str) -> None:
    cited = cited_name(name)

    assert (cited[0], len(cited), cited.isalnum()) == ("d", 13, True)
    assert cited != cited_name(name + "!")


def test_two_documents_that_would_be_cited_alike_are_refused() -> None:
    with pytest.raises(DataError, match=r"a/b and a\.b would both be cited as a\.b"):
        cut([document("a/b"), document("a.b")], words=10)

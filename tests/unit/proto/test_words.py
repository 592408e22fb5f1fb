"""Fingerprints as words."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from barrel_p2p.proto.words import COUNT, WORDS, fingerprint_words


def test_the_words_can_be_told_apart() -> None:
    assert len(WORDS) == len(set(WORDS)) == 256
    assert len({word[:3] for word in WORDS}) == 256, "the first three letters are enough"
    assert all(word.isascii() and word.isalpha() and word.islower() and 3 <= len(word) <= 7 for word in WORDS)
    assert tuple(sorted(WORDS)) == WORDS


@given(st.binary(min_size=32, max_size=32))
def test_the_words_are_the_first_half_of_the_fingerprint(key: bytes) -> None:
    words = fingerprint_words(key).split()
    assert bytes(WORDS.index(word) for word in words) == hashlib.sha256(key).digest()[:COUNT]

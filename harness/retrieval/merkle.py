"""One digest for a set of digests: the Merkle tree hash of RFC 6962, section 2.1."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

_LEAF, _NODE = b"\x00", b"\x01"
"""Prefixes that keep a leaf from being read as a node: without them, a node's two children make a leaf."""


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """The tree's root, 32 bytes; of nothing, the SHA-256 of nothing. Order counts."""
    level = [hashlib.sha256(_LEAF + leaf).digest() for leaf in leaves]
    if not level:
        return hashlib.sha256(b"").digest()
    while len(level) > 1:
        # Pairing neighbours and handing an odd last one up gives the tree of the RFC, which splits at the largest
        # power of two below n.
        paired = [
            hashlib.sha256(_NODE + a + b).digest() for a, b in zip(level[::2], level[1::2], strict=False)
        ]
        level = paired + level[len(level) - len(level) % 2 :]
    return level[0]


def snapshot_of(digests: Iterable[str]) -> str:
    """The hex root over the hex digests, sorted: which chunks there are, and not where they came in."""
    return merkle_root([bytes.fromhex(digest) for digest in sorted(digests)]).hex()

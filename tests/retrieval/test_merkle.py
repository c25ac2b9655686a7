"""The Merkle tree hash against the published vectors of certificate transparency's reference log."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.retrieval.merkle import merkle_root, snapshot_of

LEAVES = [
    bytes.fromhex(leaf)
    for leaf in (
        "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
    )
]  # fmt: skip
ROOTS = {
    0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    4: "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    5: "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    6: "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    7: "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}
"""By number of leaves, as google/certificate-transparency tests its trees."""

digests = st.lists(st.binary(min_size=32, max_size=32).map(bytes.hex), min_size=1, max_size=20, unique=True)


@pytest.mark.parametrize("n", ROOTS)
def test_roots_are_those_of_the_reference_log(n: int) -> None:
    assert merkle_root(LEAVES[:n]).hex() == ROOTS[n]


def by_the_rfc(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, word by word."""
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + by_the_rfc(leaves[:k]) + by_the_rfc(leaves[k:])).digest()


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=70))
def test_pairing_upwards_is_the_recursion_of_the_rfc(leaves: list[bytes]) -> None:
    assert merkle_root(leaves) == by_the_rfc(leaves)


@given(digests, st.randoms())
def test_a_snapshot_knows_no_order_and_sees_every_change(found: list[str], chance: object) -> None:
    shuffled = sorted(found, key=lambda one: one[::-1])

    assert snapshot_of(shuffled) == snapshot_of(found)
    assert snapshot_of(found[1:]) != snapshot_of(found)
    assert snapshot_of([*found, found[0]]) != snapshot_of(found)

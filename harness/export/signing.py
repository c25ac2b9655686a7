"""DSSE envelopes, written and opened: what is signed, and whose signatures are on it.

Source: https://github.com/secure-systems-lab/dsse, protocol and envelope v1.0.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.errors import DataError
from harness.export.keys import KnownKey
from harness.files import parse_json

if TYPE_CHECKING:
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import Signer

PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_ENVELOPE_BYTES = 8 * 2**20
MAX_SIGNATURES = 16
MAX_SIG_CHARS = 512


class Opened(NamedTuple):
    """An envelope after its signatures were looked at."""

    payload: bytes
    payload_type: str
    valid: tuple[str, ...]
    """Ids of the known keys whose signatures hold; revoked keys among them."""
    invalid: tuple[str, ...]
    """Ids of the known keys whose signatures do not."""
    unknown: tuple[str, ...]
    """Key ids that nothing is known of: what stands under them shows nothing."""


def seal(payload: bytes, signer: Signer) -> dict[str, Any]:
    """The envelope of an in-toto statement, signed, as JSON holds it."""
    from securesystemslib.dsse import Envelope

    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    envelope.sign(signer)
    document: dict[str, Any] = envelope.to_dict()
    return document


def open_envelope(data: bytes, known: Mapping[str, KnownKey], *, name: str) -> Opened:
    """What the envelope holds and who signed it; decides nothing.

    Raises:
        DataError: no envelope, or one that could be read in more than one way.
    """
    from securesystemslib.exceptions import UnverifiedSignatureError

    if len(data) > MAX_ENVELOPE_BYTES:
        raise DataError(f"{name}: over the limit of {MAX_ENVELOPE_BYTES:,} bytes")
    envelope = _envelope(parse_json(data, name=name), name)
    found: dict[str, list[str]] = {"valid": [], "invalid": [], "unknown": []}
    signed = envelope.pae()
    for key_id, signature in envelope.signatures.items():
        if key_id not in known:
            found["unknown"].append(key_id)
            continue
        try:
            known[key_id].key().verify_signature(signature, signed)
            found["valid"].append(key_id)
        except UnverifiedSignatureError:
            found["invalid"].append(key_id)
    by_outcome = (tuple(found[outcome]) for outcome in ("valid", "invalid", "unknown"))
    return Opened(envelope.payload, envelope.payload_type, *by_outcome)


def _envelope(document: Any, name: str) -> Envelope:
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import FormatError

    if not isinstance(document, dict) or document.keys() != {"payload", "payloadType", "signatures"}:
        raise DataError(f"{name}: no DSSE envelope: wanted payload, payloadType and signatures")
    signatures = document["signatures"]
    if not isinstance(signatures, list) or not 1 <= len(signatures) <= MAX_SIGNATURES:
        raise DataError(f"{name}: wanted 1 to {MAX_SIGNATURES} signatures")
    for signature in signatures:
        if not isinstance(signature, dict) or signature.keys() != {"keyid", "sig"}:
            raise DataError(f"{name}: a signature has keyid and sig, and nothing else")
        if not all(isinstance(text, str) and len(text) <= MAX_SIG_CHARS for text in signature.values()):
            raise DataError(f"{name}: a signature is two short texts")
    try:
        envelope = Envelope.from_dict(copy.deepcopy(document))  # it writes into what it is given
        again = envelope.to_dict()
    except (ValueError, TypeError, KeyError, AttributeError, FormatError) as error:
        raise DataError(f"{name}: no DSSE envelope: {error}") from error
    if again != document:
        raise DataError(f"{name}: its base64 has another spelling than the one there is")
    return envelope

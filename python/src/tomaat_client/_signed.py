"""What servers sign: compact JWS (RFC 7515) with Ed25519 (RFC 8037), the public key in the header."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from ._extras import need
from .errors import TomaatError

_LONGEST = 65_536


def verify_signed(text: str, type: str) -> tuple[Any, str]:
    """What was signed, and the thumbprint (RFC 7638) of the key that signed it. Needs cryptography.

    Raises:
        TomaatError: BAD_SIGNATURE
    """
    need("cryptography")
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        if len(text) > _LONGEST:
            raise ValueError("it is too long")
        parts = text.split(".")
        if len(parts) != 3:
            raise ValueError("it does not consist of three parts")
        header, payload, signature = (_decode(part) for part in parts)
        stated = json.loads(header)
        if stated.get("alg") != "EdDSA" or stated.get("typ") != type or "crit" in stated or "b64" in stated:
            raise ValueError(f"it is not of the type {type}, signed with EdDSA")
        jwk = stated["jwk"]
        if jwk.get("kty") != "OKP" or jwk.get("crv") != "Ed25519":
            raise ValueError("its key is not an Ed25519 key")
        Ed25519PublicKey.from_public_bytes(_decode(jwk["x"])).verify(signature, ".".join(parts[:2]).encode("ascii"))
        members = json.dumps({"crv": "Ed25519", "kty": "OKP", "x": jwk["x"]}, separators=(",", ":"))
        return json.loads(payload.decode("utf-8")), _encode(hashlib.sha256(members.encode()).digest())
    except (InvalidSignature, ValueError, KeyError, TypeError, AttributeError) as error:
        why = "it was not made with the key in it" if isinstance(error, InvalidSignature) else str(error)
        raise TomaatError(
            "BAD_SIGNATURE",
            f"The signature does not hold: {why}. What was signed has been changed, or was signed by something else.",
        ) from error


def _encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode("ascii")


def _decode(part: str) -> bytes:
    content = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    # The last character may have several spellings: only the canonical one is accepted.
    if _encode(content) != part:
        raise ValueError("it is not base64url")
    return content

"""Receipts: what a server signs about a prediction."""

from __future__ import annotations

from typing import Any, NamedTuple

from ._signed import verify_signed
from .errors import TomaatError


class Receipt(NamedTuple):
    """``content`` names the inputs, models and outputs by their SHA-256; ``thumbprint`` is that of the signing key."""

    content: dict[str, Any]
    thumbprint: str


def verify_receipt(text: str, key: str | None = None) -> Receipt:
    """Checks the signature of a receipt, and that ``key`` made it: the thumbprint that the server prints at startup
    in the line “Identity”. Without ``key``, compare ``thumbprint`` with it. Needs cryptography.

    Raises:
        TomaatError: BAD_SIGNATURE
    """
    content, thumbprint = verify_signed(text.strip(), "tomaat-receipt+jws")
    if not isinstance(content, dict) or content.get("kind") != "tomaat-receipt/1":
        raise TomaatError("BAD_SIGNATURE", "This is not a receipt that this version knows. Use a newer version.")
    if key is not None and key != thumbprint:
        raise TomaatError(
            "BAD_SIGNATURE", f"The receipt was signed by {thumbprint}, not by {key}. It comes from another server."
        )
    return Receipt(content, thumbprint)

"""The client of a registry, where servers announce their services."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Any, cast
from urllib.parse import urlsplit

from ._connection import Connection, is_loopback
from ._signed import verify_signed
from .errors import TomaatError
from .types import Entry, SignedAnnouncement

_SIGNED = (
    "id name modality anatomy task description predictionUrl interfaceUrl serverUrl serviceId version default volumes"
).split()
_CLOCK_SKEW_SECONDS = 60
_DEFAULT_REGISTRY = "http://127.0.0.1:8001"


def discover(
    registry: str | None = None,
    *,
    task: str | None = None,
    anatomy: str | None = None,
    modality: str | None = None,
    q: str | None = None,
    live: bool = True,
    api_key: str | None = None,
    ca: str | os.PathLike[str] | None = None,
    fingerprint: str | Iterable[str] | None = None,
    data: str | os.PathLike[str] | None = None,
) -> list[Entry]:
    """The services that are announced at a registry; the variable TOMAAT_REGISTRY, or the one on this machine, if missing.

    ``Client(entry["serverUrl"])`` and ``entry["serviceId"]`` lead to a service. An entry says what the registry
    says: check it with ``verify_entry``, or its address by eye, before you send a patient's scan there.

    Args:
        live: only services whose announcement is still valid.
        q: words that must occur in name or description. For the other arguments see ``Client``.

    Raises:
        TomaatError: as ``Client``; UPSTREAM if there is no registry at the address.
    """
    url = registry or os.environ.get("TOMAAT_REGISTRY") or _DEFAULT_REGISTRY
    connection = Connection(
        url, api_key, None if ca is None else str(ca), fingerprint, None if data is None else str(data), 10.0
    )
    try:
        filters = {"task": task, "anatomy": anatomy, "modality": modality, "q": q, "live": "true" if live else None}
        entries = connection.json("GET", "/api/services", params=filters)["services"]
    finally:
        connection.close()
    if any("inputs" in entry for entry in entries):
        raise TomaatError(
            "UPSTREAM", f"{url} is a server, not a registry. Use Client, or give the address of a registry."
        )
    return cast("list[Entry]", entries)


def verify_entry(entry: Entry, registry: str) -> SignedAnnouncement:
    """Checks what the server of an entry signed: for this registry, at this time, and as the entry says it.

    Its ``sub`` is the thumbprint of the server's key, ``certificate`` the fingerprint of its certificate:
    ``Client(entry["serverUrl"], fingerprint=…)``. Needs cryptography.

    Raises:
        TomaatError: BAD_SIGNATURE
    """
    signed = entry.get("signed")
    if not isinstance(signed, str):
        raise _refused(f"{entry['name']} is announced without a signature, so nobody vouches for its address.")
    content, thumbprint = verify_signed(signed, "tomaat-announcement+jws")
    try:
        faults = [
            (content["sub"] != thumbprint, "it names another key than the one that signed it"),
            (content["id"] != f"{thumbprint}.{content['serviceId']}", "its id is not that of its key and service"),
            (not _same_place(content["aud"], registry), f"it was made for the registry at {content['aud']}"),
            (
                not content["iat"] - _CLOCK_SKEW_SECONDS <= time.time() < content["exp"],
                "it has expired, or the clocks differ",
            ),
            (content["exp"] - content["iat"] > 120, "it would be valid for too long"),
        ]
        shown = cast("dict[str, Any]", entry)
        changed = [name for name in _SIGNED if (shown.get(name) or None) != (content.get(name) or None)]
    except (KeyError, TypeError) as error:
        raise _refused("The announcement is not one that this version knows.") from error
    why = [text for is_fault, text in faults if is_fault]
    if changed:
        why.append(f"the registry shows another {', '.join(changed)}")
    if why:
        raise _refused(f"The announcement of {entry['name']} does not hold: {'; '.join(why)}. Do not use it.")
    return cast(SignedAnnouncement, content)


def _same_place(one: str, other: str) -> bool:
    def place(url: str) -> tuple[str, int, str]:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return "this machine" if is_loopback(host) else host, port, parts.path.rstrip("/")

    return place(one) == place(other)


def _refused(message: str) -> TomaatError:
    return TomaatError("BAD_SIGNATURE", message)

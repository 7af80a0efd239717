"""Resumable uploads (tus 1.0). A file that the server already has, by its SHA-256, is not sent."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable
from urllib.parse import urlsplit

from ._connection import Connection, is_passing
from .errors import TomaatError

_TUS = {"tus-resumable": "1.0.0"}
# Bytes per request: proxies may buffer a whole request, or limit its size.
_REQUEST_BYTES = 16 * 1024 * 1024
_CHUNK_BYTES = 256 * 1024
# Consecutive failures without progress after which an upload is abandoned.
_MAX_FAULTS = 6


def upload(connection: Connection, file: Path, name: str, report: Callable[[int], None]) -> dict[str, Any]:
    """Sends a file so that an interruption costs only the bytes in flight.

    Returns the reference by which a prediction names the file. ``report`` is called with the bytes that the
    server has.

    Raises:
        TomaatError: as the server answers; UNREACHABLE if it stays out of reach; BAD_INPUT if the file changes.
    """
    size = file.stat().st_size
    digest = sha256_of(file)
    if _has_blob(connection, digest):
        report(size)
        return {"blob": f"sha256:{digest}", "fileName": name}
    path = _begin(connection, size, name, digest)
    offset, faults = 0, 0
    while offset < size:
        try:
            offset, faults = _send_part(connection, path, file, offset, size, report), 0
        except TomaatError as error:
            faults += 1
            if not (is_passing(error) or error.code in ("CONFLICT", "UPLOAD_TOO_SLOW")) or faults > _MAX_FAULTS:
                raise
            time.sleep(max(error.retry_after or 0.0, min(0.3 * 2 ** (faults - 1), 10.0)))
            reached = _offset_in(connection.call("HEAD", path, headers=_TUS).headers.get("upload-offset"))
            if reached > offset:
                faults = 0
            offset = reached
        report(offset)
    return {"upload": path.rsplit("/", 1)[1]}


def sha256_of(file: Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1024 * 1024):
            digest.update(chunk)
    return digest.hexdigest()


def _has_blob(connection: Connection, digest: str) -> bool:
    try:
        connection.call("HEAD", f"/api/blobs/sha256:{digest}")
        return True
    except TomaatError as error:
        if error.status == 404:
            return False
        raise


def _begin(connection: Connection, size: int, name: str, digest: str) -> str:
    """The path of a new upload."""
    pairs = (
        (key, base64.b64encode(value.encode()).decode()) for key, value in (("filename", name), ("sha256", digest))
    )
    metadata = ",".join(f"{key} {value}" for key, value in pairs)
    answer = connection.call(
        "POST", "/api/uploads", headers={**_TUS, "upload-length": str(size), "upload-metadata": metadata}
    )
    # Only the path is used: a proxy in front may have another host name.
    path: str = urlsplit(str(answer.headers.get("location", ""))).path
    at = path.rfind("/api/uploads/")
    if at < 0:
        raise TomaatError("UPSTREAM", f"{connection.url} answers an upload without its address. Check for a proxy.")
    return path[at:]


def _send_part(
    connection: Connection, path: str, file: Path, offset: int, size: int, report: Callable[[int], None]
) -> int:
    """Sends the next bytes; returns the server's new offset."""
    end = min(offset + _REQUEST_BYTES, size)

    def read() -> Iterator[bytes]:
        at = offset
        with file.open("rb") as stream:
            stream.seek(offset)
            while at < end:
                chunk = stream.read(min(_CHUNK_BYTES, end - at))
                if not chunk:
                    raise TomaatError(
                        "BAD_INPUT", f"{file} changed while it was being sent. Send it again when it is complete."
                    )
                yield chunk
                at += len(chunk)
                report(at)

    headers = {
        **_TUS,
        "upload-offset": str(offset),
        "content-type": "application/offset+octet-stream",
        "content-length": str(end - offset),
    }
    with connection.open("PATCH", path, headers=headers, body=read()) as response:
        return _offset_in(response.headers.get("upload-offset"))


def _offset_in(text: Any) -> int:
    if isinstance(text, str) and text.isascii() and text.isdigit():
        return int(text)
    raise TomaatError(
        "UPSTREAM", "The server does not say how much of the upload it has. Check whether a proxy stands in between."
    )

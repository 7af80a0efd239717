"""The one error of this package."""

from __future__ import annotations

import json
from typing import Any


class TomaatError(Exception):
    """What went wrong, and what to do about it.

    ``code`` is one of the codes of the server (docs/reference/errors.md), or UNREACHABLE, UPSTREAM,
    BAD_INPUT, BAD_SIGNATURE or NOT_READY if this package found the fault. ``field`` is the input or parameter
    that is at fault. ``status`` is the HTTP status. ``request_id`` finds the line in the server's log.
    ``retry_after`` is how long the server asks to wait, in seconds.
    """

    def __init__(
        self,
        code: str,
        message: str,
        field: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(code, message, field, status, request_id, retry_after)
        self.code = code
        self.message = message
        self.field = field
        self.status = status
        self.request_id = request_id
        self.retry_after = retry_after

    def __str__(self) -> str:
        return self.message


def error_of(problem: Any) -> TomaatError:
    """The error in a Problem (RFC 9457) of a job."""
    return TomaatError(
        str(problem.get("code", "INTERNAL")),
        str(problem.get("detail", "The server does not say why.")),
        problem.get("field"),
        problem.get("status"),
        problem.get("requestId"),
    )


_BY_STATUS = {
    401: ("UNAUTHORIZED", "wants a login. Give a valid API key."),
    403: ("FORBIDDEN", "refuses this (HTTP 403). Ask its operator for access."),
    404: ("NOT_FOUND", "has nothing at this address. Check the address; is it a TOMAAT server?"),
    413: ("UPLOAD_TOO_LARGE", "refuses uploads of this size. Send less, or ask for a higher limit."),
    429: ("BUSY", "is busy (HTTP 429). Try again later."),
    502: ("UPSTREAM", "failed behind its proxy (HTTP 502). Try again later."),
    503: ("BUSY", "is busy (HTTP 503). Try again later."),
    504: ("UNREACHABLE", "kept its proxy waiting (HTTP 504). Try again later."),
}


def error_of_response(status: int, retry_after: str, body: bytes, host: str) -> TomaatError:
    """The error in a response: a Problem keeps its code, anything else gets one by its status."""
    seconds = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else None
    try:
        problem = json.loads(body)
    except ValueError:
        problem = None
    if isinstance(problem, dict) and isinstance(problem.get("code"), str) and "detail" in problem:
        error = error_of(problem)
        error.status, error.retry_after = status, seconds
        return error
    if 300 <= status < 400:
        message = "redirects, which is not followed. Give the address that it redirects to, if you trust it."
        return TomaatError("UPSTREAM", f"{host} {message}", status=status)
    code, message = _BY_STATUS.get(status) or (
        ("INTERNAL", f"failed (HTTP {status}). Its log says why.")
        if status >= 500
        else ("BAD_REQUEST", f"refuses this request (HTTP {status}). Check the address; is it a TOMAAT server?")
    )
    return TomaatError(code, f"{host} {message}", status=status, retry_after=seconds)

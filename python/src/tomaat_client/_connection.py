"""Requests to one server: retries, errors, limits."""

from __future__ import annotations

import ipaddress
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Callable, NamedTuple, TypeVar, Union
from urllib.parse import urlsplit

import httpx

from ._trust import tls_context
from ._version import __version__
from .errors import TomaatError, error_of_response

_MAX_JSON_BYTES = 2**25
_MAX_PROBLEM_BYTES = 2**20
# Attempts to send a request while no response has come from the server yet.
_FIRST_ATTEMPTS = 3

T = TypeVar("T")
Body = Union[bytes, Iterable[bytes], None]


class Answer(NamedTuple):
    """A response that was read to its end."""

    status: int
    headers: httpx.Headers
    content: bytes


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_passing(error: TomaatError) -> bool:
    """Whether the connection or the server's load is at fault, so that a later attempt may succeed."""
    return error.code in ("UNREACHABLE", "BUSY", "UPSTREAM", "INTERNAL", "LIMIT_REACHED")


class Connection:
    """Sends requests to a server. May be used by several threads at once."""

    def __init__(
        self,
        url: str,
        api_key: str | None,
        ca: str | None,
        fingerprint: str | Iterable[str] | None,
        data: str | None,
        patience: float,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise TomaatError(
                "BAD_REQUEST", f"“{url}” is not an http or https address. Give one such as http://127.0.0.1:9000."
            )
        if parts.username or parts.password:
            raise TomaatError("BAD_REQUEST", "The address contains a password. Give api_key instead.")
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self.host = parts.netloc
        self.patience = patience
        local = is_loopback(parts.hostname)
        key = api_key if api_key is not None else os.environ.get("TOMAAT_API_KEY")
        if key and parts.scheme == "http" and not local:
            raise TomaatError(
                "BAD_REQUEST",
                f"The API key would be sent to {self.host} unencrypted. Use https://, or leave the key out.",
            )
        headers = {"accept-encoding": "identity", "user-agent": f"tomaat-client/{__version__}"}
        if key:
            headers["authorization"] = f"Bearer {key}"
        self._http = httpx.Client(
            headers=headers,
            verify=tls_context(url, ca, fingerprint, data) if parts.scheme == "https" else True,
            timeout=httpx.Timeout(60, connect=15, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
            trust_env=not local,
        )
        self._is_reached = False

    def close(self) -> None:
        self._http.close()

    @contextmanager
    def open(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        timeout: float | None = None,
    ) -> Iterator[httpx.Response]:
        """One request, without retries. The response is 2xx and its body is read by the caller."""
        given = {name: value for name, value in (params or {}).items() if value is not None}
        request = self._http.build_request(
            method,
            self.url + path,
            params=given,
            headers=dict(headers or {}),
            content=body,
            timeout=httpx.USE_CLIENT_DEFAULT if timeout is None else httpx.Timeout(timeout, pool=None),
        )
        try:
            response = self._http.send(request, stream=True)
            self._is_reached = True
            try:
                if not response.is_success:
                    text = _read(response, _MAX_PROBLEM_BYTES)
                    retry_after = response.headers.get("retry-after", "")
                    raise error_of_response(response.status_code, retry_after, text, self.host)
                yield response
            finally:
                response.close()
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def patiently(self, attempt: Callable[[], T]) -> T:
        """Repeats an attempt while the server is busy or unreachable, for as long as the patience lasts."""
        give_up = time.monotonic() + self.patience
        failures = 0
        while True:
            try:
                return attempt()
            except TomaatError as error:
                failures += 1
                wait = self._wait_after(error, failures)
                if wait is None or time.monotonic() + wait > give_up:
                    raise
            time.sleep(wait)

    def _wait_after(self, error: TomaatError, failures: int) -> float | None:
        """Seconds until the next attempt; None if there should be none."""
        backoff: float = min(0.25 * 2 ** min(failures, 8), 10.0)
        if error.status in (429, 503):
            return backoff if error.retry_after is None else max(error.retry_after, 0.05)
        if error.code == "UNREACHABLE" or error.status in (502, 504):
            cause = error.__cause__
            if not self._is_reached and (failures >= _FIRST_ATTEMPTS or isinstance(cause, httpx.ConnectError)):
                return None
            return backoff
        return None

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        json_body: Any = None,
    ) -> Answer:
        """One request with retries. Every request of this package may be repeated."""
        sent = dict(headers or {})
        body = None if json_body is None else json.dumps(json_body, allow_nan=False).encode()
        if body is not None:
            sent["content-type"] = "application/json"

        def attempt() -> Answer:
            with self.open(method, path, params=params, headers=sent, body=body) as response:
                return Answer(response.status_code, response.headers, _read(response, _MAX_JSON_BYTES))

        return self.patiently(attempt)

    def json(self, method: str, path: str, **options: Any) -> Any:
        """The JSON object of a response, None if it is empty."""
        answer = self.call(method, path, **options)
        if answer.status == 204:
            return None
        try:
            value = json.loads(answer.content)
        except ValueError:
            value = None
        if isinstance(value, dict):
            return value
        raise TomaatError(
            "UPSTREAM",
            f"{self.url}{path} answered (HTTP {answer.status}), but not as a TOMAAT server does. "
            "Check the address, and whether a proxy stands in between.",
            status=answer.status,
        )

    def _unreachable(self, error: httpx.TransportError) -> TomaatError:
        if isinstance(error, httpx.TimeoutException):
            what = f"{self.host} does not answer. Check the network and the server's load, then try again."
        elif "CERTIFICATE_VERIFY_FAILED" in str(error):
            what = (
                f"The certificate of {self.host} is not the one that was accepted before ({error}). "
                "If the server renewed it, create a new Client."
            )
        elif isinstance(error, httpx.ConnectError):
            what = (
                f"Nothing can be reached at {self.host} ({error}). Check the address and the port, or start "
                "the server there."
            )
        else:
            what = f"The connection to {self.host} was cut ({error}). Check the network, then try again."
        return TomaatError("UNREACHABLE", what)


def _read(response: httpx.Response, limit: int) -> bytes:
    """The body, if it is not longer than ``limit`` bytes."""
    parts, length = [], 0
    for part in response.iter_bytes():
        length += len(part)
        if length > limit:
            raise TomaatError("UPSTREAM", f"{response.url} answers with more than {limit} bytes. Check the address.")
        parts.append(part)
    return b"".join(parts)

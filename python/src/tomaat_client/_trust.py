"""Which certificates are accepted: those of the authorities, and those that the user trusts.

The rules and the file ``known_hosts`` are those of the command line. This package only reads the file;
``tomaat trust`` writes it.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import socket
import ssl
import sys
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from .errors import TomaatError

_HANDSHAKE_SECONDS = 15
# ssl.VERIFY_X509_PARTIAL_CHAIN, which Python 3.9 does not name: a trusted certificate needs no issuer.
_PARTIAL_CHAIN = 0x80000


def data_folder(data: str | None = None) -> Path:
    """The data folder of TOMAAT: the argument, else the variable TOMAAT_DATA, else the user's."""
    given = data or os.environ.get("TOMAAT_DATA")
    if given:
        return Path(given)
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "tomaat" / "Data"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "tomaat"
    shared = os.environ.get("XDG_DATA_HOME")
    return (Path(shared) if shared else Path.home() / ".local" / "share") / "tomaat"


def tls_context(url: str, ca: str | None, fingerprint: str | Iterable[str] | None, data: str | None) -> ssl.SSLContext:
    """A context that accepts the certificate of the server at ``url``, and no other unknown one.

    Accepted are a certificate that an authority of the system or of ``ca`` vouches for, one with the SHA-256
    ``fingerprint``, one in ``known_hosts``, and the one of the server on this machine. Only the handshake is
    sent to find out.

    Raises:
        TomaatError: UNREACHABLE for any other certificate, BAD_REQUEST for an invalid ``ca`` or ``fingerprint``.
    """
    context = _authorities(ca or os.environ.get("TOMAAT_CA"))
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 443
    given = _fingerprints(fingerprint if fingerprint is not None else os.environ.get("TOMAAT_FINGERPRINT"))
    try:
        with socket.create_connection((host, port), _HANDSHAKE_SECONDS) as plain:
            with context.wrap_socket(plain, server_hostname=host):
                return context
    except ssl.SSLCertVerificationError as error:
        reason = error.verify_message
    except OSError:
        # It is unreachable from here, or through a proxy only: the first request says why.
        return context
    shown = _peek(host, port)
    _judge(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", host, shown, given, data_folder(data), reason)
    return _pinned(shown)


def _authorities(ca: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_default_certs()
    if ca:
        try:
            context.load_verify_locations(ca)
        except (OSError, ssl.SSLError) as error:
            raise TomaatError(
                "BAD_REQUEST",
                f"{ca} cannot be read as certificates ({error}). Give a PEM file such as the server's tomaat.pem.",
            ) from error
    else:
        import certifi

        context.load_verify_locations(certifi.where())
    return context


def _pinned(certificate: bytes) -> ssl.SSLContext:
    """A context that accepts this certificate alone, under any name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.load_verify_locations(cadata=ssl.DER_cert_to_PEM_cert(certificate))
    context.verify_flags |= _PARTIAL_CHAIN
    return context


def _peek(host: str, port: int) -> bytes:
    """The certificate that a server presents, DER. Nothing but the handshake is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection((host, port), _HANDSHAKE_SECONDS) as plain:
        with context.wrap_socket(plain, server_hostname=host) as connection:
            return connection.getpeercert(binary_form=True) or b""


def _judge(name: str, host: str, certificate: bytes, given: set[str], folder: Path, reason: str | None) -> None:
    """Raises unless the user trusts the certificate."""
    shown = fingerprint_of(certificate)
    if shown in given:
        return
    if host in ("localhost", "127.0.0.1", "::1") and shown == _own_fingerprint(folder):
        return
    pins = _pins(folder / "known_hosts", name)
    key = _key_fingerprint(certificate)
    if any(shown == value or key == known_key for value, known_key in pins):
        return
    if pins:
        raise TomaatError(
            "UNREACHABLE",
            f"{name} presents a different certificate than before. Either it was renewed, or somebody is "
            f"intercepting the connection.\n  known  {pins[0][0]}\n  shown  {shown}\nNothing was sent. Ask the "
            f"operator of the server. If the certificate was renewed: tomaat trust remove {name}, then tomaat trust "
            f"https://{name}.",
        )
    if given:
        raise TomaatError(
            "UNREACHABLE",
            f"{name} presents a different certificate than the one given.\n  given  {', '.join(sorted(given))}\n"
            f"  shown  {shown}\nNothing was sent. Ask the operator of the server.",
        )
    raise TomaatError(
        "UNREACHABLE",
        f"The certificate of {name} is not trusted here ({reason}). Its SHA-256 fingerprint is\n  {shown}\n"
        "Compare it with the one that the server prints at startup. If they match, give "
        "Client(…, fingerprint=…), or remember it with tomaat trust on the command line. The server's tomaat.pem "
        "serves as well: Client(…, ca='tomaat.pem').",
    )


def fingerprint_of(certificate: bytes) -> str:
    """SHA-256 of a certificate (DER), as AB:01:…"""
    digest = hashlib.sha256(certificate).hexdigest().upper()
    return ":".join(digest[at : at + 2] for at in range(0, 64, 2))


def _fingerprints(given: str | Iterable[str] | None) -> set[str]:
    texts = [given] if isinstance(given, str) else list(given or [])
    found = set()
    for text in texts:
        digits = re.sub("[:=\\s]", "", text).upper()
        for prefix in ("SHA-256", "SHA256"):
            digits = digits[len(prefix) :] if digits.startswith(prefix) else digits
        digits = digits[len("FINGERPRINT") :] if digits.startswith("FINGERPRINT") else digits
        if not re.fullmatch("[0-9A-F]{64}", digits):
            raise TomaatError(
                "BAD_REQUEST",
                f"“{text[:120]}” is not a SHA-256 fingerprint. Give 32 pairs of hex digits such as AB:01:…, as the "
                "server prints them at startup.",
            )
        found.add(":".join(digits[at : at + 2] for at in range(0, 64, 2)))
    return found


def _own_fingerprint(folder: Path) -> str | None:
    try:
        return fingerprint_of(ssl.PEM_cert_to_DER_cert((folder / "tomaat.pem").read_text()))
    except (OSError, ValueError):
        return None


def _pins(file: Path, name: str) -> list[tuple[str, str | None]]:
    """The fingerprints of a name in known_hosts, each with that of its key."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        entry, _, comment = line.partition("#")
        words, notes = entry.split(), comment.split()
        if len(words) >= 2 and words[0] == name:
            found.append((words[1], notes[1] if len(notes) == 2 and notes[0] == "key" else None))
    return found


def _key_fingerprint(certificate: bytes) -> str:
    """SHA-256 of the public key (SubjectPublicKeyInfo) of a certificate, base64url (RFC 5280, 4.1)."""

    def content(at: int) -> tuple[int, int]:
        length, start = certificate[at + 1], at + 2
        if length & 0x80:
            start += length & 0x7F
            length = int.from_bytes(certificate[at + 2 : start], "big")
        return start, start + length

    at = content(content(0)[0])[0]
    # Version (optional), serial number, signature, issuer, validity, subject.
    for _ in range(6 if certificate[at] == 0xA0 else 5):
        at = content(at)[1]
    digest = hashlib.sha256(certificate[at : content(at)[1]]).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

"""Removes text that may identify the patient from the headers of volume files, as the command line does.

Voxels and geometry are copied unchanged. Offsets: nifti1.h, nifti2.h; fields: MetaIO documentation, "Definition of
NRRD File Format".
"""

from __future__ import annotations

import gzip
import shutil
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import BinaryIO

from .errors import TomaatError

_MAX_HEADER_BYTES = 4 * 2**20
# Bytes of fields that no reader of voxels and geometry needs: data_type, db_name, dates, descrip, aux_file, intent_name.
_NIFTI1 = ((4, 40), (148, 252), (328, 344))
_NIFTI2 = ((240, 344), (508, 540))
_META = frozenset(
    "ndims dimsize elementspacing elementsize transformmatrix rotation orientation offset position origin "
    "elementnumberofchannels headersize compresseddatasize centerofrotation anatomicalorientation binarydata "
    "binarydatabyteordermsb elementbyteordermsb compresseddata objecttype objectsubtype transformtype distanceunits "
    "modality elementtype elementdatafile".split()
)
_NRRD = frozenset(
    "dimension spacedimension sizes spacings axismins axismaxs lineskip byteskip spacedirections spaceorigin "
    "measurementframe type encoding endian space kinds centers centerings spaceunits units datafile".split()
)


@contextmanager
def unpacked(path: Path) -> Iterator[BinaryIO | gzip.GzipFile]:
    """The content of a file, decompressed if it is a gzip file.

    Raises:
        TomaatError: BAD_VOXELS if the compressed data is damaged.
    """
    with path.open("rb") as stream:
        is_gzip = stream.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path, "rb") if is_gzip else path.open("rb") as source:
            yield source
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise TomaatError(
            "BAD_VOXELS",
            f"The gzip data of {path} is damaged or cut off: get the file again from where it came from.",
        ) from error


def without_text(path: Path, folder: Path) -> Path:
    """The file itself if its header has no such text, otherwise a copy without it in ``folder``.

    A file that is no volume is returned as it is: the server says what is wrong with it.

    Raises:
        TomaatError: BAD_VOXELS if the compressed data is damaged.
    """
    with path.open("rb") as stream:
        packed = stream.read(10)
    is_gzip = packed[:2] == b"\x1f\x8b"
    with unpacked(path) as source:
        start = source.read(_MAX_HEADER_BYTES)
        head = _clean_head(start)
        # The header of gzip holds the file's first name and a time (RFC 1952, 2.3).
        speaks = is_gzip and (packed[3] & 0x1C or any(packed[4:8]))
        if head == start[: len(head)] and not speaks:
            return path
        copy = folder / f"{len(list(folder.iterdir()))}-{'x.gz' if is_gzip else 'x'}"
        with copy.open("wb") as target:
            if is_gzip:
                with gzip.GzipFile("", "wb", 1, target, mtime=0) as repacked:
                    _write(repacked, head, start, source)
            else:
                _write(target, head, start, source)
        return copy


def _write(target: BinaryIO | gzip.GzipFile, head: bytes, start: bytes, rest: BinaryIO | gzip.GzipFile) -> None:
    target.write(head)
    target.write(start[len(head) :])
    shutil.copyfileobj(rest, target, 1024 * 1024)


def _clean_head(start: bytes) -> bytes:
    """The header without the text; of the same length."""
    if start[:7] == b"NRRD000":
        return _clean_lines(start, b":", _NRRD)
    if start[344:348] in (b"n+1\0", b"ni1\0"):
        return _clean_nifti(start, 348, _NIFTI1, "f", 108)
    if start[4:8] in (b"n+2\0", b"ni2\0"):
        return _clean_nifti(start, 540, _NIFTI2, "q", 168)
    if b"ElementDataFile" in start[:65536] and b"\0" not in start[: start.find(b"ElementDataFile")]:
        return _clean_lines(start, b"=", _META)
    return b""


def _clean_nifti(start: bytes, length: int, text: tuple[tuple[int, int], ...], kind: str, at: int) -> bytes:
    order = "<" if struct.unpack_from("<i", start)[0] == length else ">"
    offset = struct.unpack_from(order + kind, start, at)[0]
    # Extensions lie between the header and the voxels; if the voxels are in another file, after the header.
    is_alone = start[344:347] == b"ni1" or start[4:7] == b"ni2"
    end = (
        len(start)
        if is_alone or len(start) <= offset < inf
        else max(int(offset), length)
        if offset > length
        else length
    )
    head = bytearray(start[:end])
    for begin, stop in text:
        head[begin:stop] = bytes(stop - begin)
    if length == 348:
        # "regular", which some readers want.
        head[38:39] = start[38:39]
    head[length:] = bytes(len(head) - length)
    return bytes(head)


def _clean_lines(start: bytes, separator: bytes, kept: frozenset[str]) -> bytes:
    """Lines of unknown fields become blanks (MetaImage) or a comment of blanks (NRRD)."""
    lines, at, is_nrrd = [], 0, separator == b":"
    while at < len(start):
        newline = start.find(b"\n", at)
        end = len(start) if newline < 0 else newline + 1
        line = start[at:end]
        at = end
        name = _field_of(line, separator)
        if is_nrrd and not line.strip():
            lines.append(line)
            break
        keeps = name in kept or (is_nrrd and len(lines) == 0)
        body = line.rstrip(b"\r\n")
        lines.append(line if keeps else (b"#" if is_nrrd else b"x ="[: len(body)]).ljust(len(body)) + line[len(body) :])
        if name == "elementdatafile":
            break
    return b"".join(lines)


def _field_of(line: bytes, separator: bytes) -> str | None:
    if separator == b"=" and b":" in line.split(b"=")[0]:
        separator = b":"
    elif separator == b":" and line.partition(b":")[2][:1] == b"=":
        return None
    name, found, _ = line.partition(separator)
    if not found:
        return None
    return "".join(name.decode("latin-1").lower().split())

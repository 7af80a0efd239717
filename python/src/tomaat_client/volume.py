"""Volumes in memory: arrays with their place in space, and the NRRD files in which they travel.

Arrays are indexed ``[x, y, z]``. An affine is 4 × 4 and maps a voxel's index to millimetres, RAS+, as in
nibabel. SimpleITK uses LPS, and arrays indexed ``[z, y, x]``: the conversions here change both.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._extras import need
from .errors import TomaatError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Definition of NRRD File Format (teem.sourceforge.net/nrrd/format.html), 5.
_TYPES = {
    "int8": "int8",
    "uint8": "uint8",
    "int16": "int16",
    "uint16": "uint16",
    "int32": "int32",
    "uint32": "uint32",
    "int64": "int64",
    "uint64": "uint64",
    "float32": "float",
    "float64": "double",
}
# Units of length by the beginning of their names; an unknown one counts as mm, as in ITK and 3D Slicer.
_MM = (
    ("nm", 1e-6),
    ("nano", 1e-6),
    ("um", 1e-3),
    ("micr", 1e-3),
    ("mm", 1.0),
    ("milli", 1.0),
    ("cm", 10.0),
    ("centi", 10.0),
    ("m", 1000.0),
)
_LPS_TO_RAS = (-1.0, -1.0, 1.0)
_SIGNS = {"right-anterior-superior": (1.0, 1.0, 1.0), "left-anterior-superior": (-1.0, 1.0, 1.0)}
_MAX_HEADER_BYTES = 2**20


@dataclass(frozen=True)
class LabelMap:
    """Labels on the input's grid: ``array[x, y, z]`` of whole numbers, ``affine`` from index to mm, RAS+."""

    array: NDArray[Any]
    affine: NDArray[np.float64]

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in millilitres."""
        np = need("numpy")
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000

    def to_nibabel(self) -> Any:
        """The same as a ``nibabel.Nifti1Image``."""
        image = need("nibabel").Nifti1Image(self.array, self.affine, dtype=self.array.dtype)
        image.header.set_xyzt_units("mm")
        return image

    def to_sitk(self) -> Any:
        """The same as a ``SimpleITK.Image``: LPS, its array indexed [z, y, x]."""
        np, sitk = need("numpy"), need("SimpleITK")
        spacing = np.linalg.norm(self.affine[:3, :3], axis=0)
        direction = np.diag(_LPS_TO_RAS) @ self.affine[:3, :3] / spacing
        image = sitk.GetImageFromArray(np.ascontiguousarray(self.array.T))
        image.SetSpacing(spacing.tolist())
        image.SetDirection(direction.ravel().tolist())
        image.SetOrigin((np.diag(_LPS_TO_RAS) @ self.affine[:3, 3]).tolist())
        return image


def write_nrrd(file: Path, array: Any, affine: Any) -> None:
    """Writes a volume of three axes, or four (the last one holds frames), as NRRD; the affine is exact.

    Raises:
        TomaatError: BAD_INPUT if it is not a volume, or the affine has no inverse.
    """
    np = need("numpy")
    voxels = np.asarray(array)
    try:
        matrix = np.asarray(affine, dtype=np.float64)
    except (TypeError, ValueError):
        matrix = np.empty(0)
    if voxels.ndim not in (3, 4) or voxels.size == 0:
        raise TomaatError(
            "BAD_INPUT",
            f"The array has the shape {voxels.shape}. Give a volume [x, y, z], or [x, y, z, frame] of several frames.",
        )
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or (matrix[3] != (0, 0, 0, 1)).any():
        raise TomaatError(
            "BAD_INPUT", "The affine is not a 4 × 4 matrix with the last row 0 0 0 1. Give index to mm, RAS+."
        )
    if not abs(np.linalg.det(matrix[:3, :3])) > 0:
        raise TomaatError("BAD_INPUT", "The affine has no inverse: its voxels have no volume. Correct it.")
    narrow = {"bool": "uint8", "float16": "float32"}.get(voxels.dtype.name, voxels.dtype.name)
    if narrow not in _TYPES:
        raise TomaatError(
            "BAD_INPUT",
            f"Voxels of the type {voxels.dtype} cannot be sent. Convert them to a number type such as float32.",
        )
    voxels = voxels.astype(np.dtype(narrow).newbyteorder("<"), copy=False)
    frames = voxels.ndim == 4
    vectors = " ".join(_vector(matrix[:3, axis]) for axis in range(3))
    lines = [
        "NRRD0005",
        f"type: {_TYPES[narrow]}",
        f"dimension: {voxels.ndim}",
        "space: right-anterior-superior",
        f"sizes: {' '.join(map(str, voxels.shape))}",
        f"space directions: {vectors}{' none' if frames else ''}",
        f"kinds: domain domain domain{' list' if frames else ''}",
        "endian: little",
        "encoding: gzip",
        'space units: "mm" "mm" "mm"',
        f"space origin: {_vector(matrix[:3, 3])}",
    ]
    with file.open("wb") as stream:
        stream.write(("\n".join(lines) + "\n\n").encode("ascii"))
        with gzip.GzipFile("", "wb", 1, stream, mtime=0) as packed:
            # Slice by slice: the voxels go out with x fastest, without a copy of the whole.
            for frame in np.moveaxis(voxels, 3, 0) if frames else [voxels]:
                for z in range(frame.shape[2]):
                    packed.write(frame[:, :, z].tobytes(order="F"))


def _mm_of(unit: str) -> float:
    return next((mm for start, mm in _MM if unit.startswith(start)), 1.0)


def _vector(numbers: Any) -> str:
    # repr() gives the shortest text that is the same float64.
    return "(" + ",".join(repr(float(number)) for number in numbers) + ")"


def read_nrrd(content: bytes) -> LabelMap:
    """The volume of an NRRD file as servers write it: three axes, gzip or raw, a space with directions.

    Raises:
        TomaatError: UPSTREAM for any other file.
    """
    np = need("numpy")
    end = content.find(b"\n\n", 0, _MAX_HEADER_BYTES)
    fields = {}
    for line in content[: max(end, 0)].decode("utf-8", "replace").split("\n")[1:]:
        name, separator, value = line.partition(": ")
        if separator and not name.startswith("#"):
            fields[name] = value
    try:
        sizes = [int(word) for word in fields["sizes"].split()]
        types = {name: dtype for dtype, name in _TYPES.items()}
        dtype = np.dtype(types[fields["type"]]).newbyteorder("<" if fields["endian"] == "little" else ">")
        signs = _SIGNS.get(fields.get("space", ""), _LPS_TO_RAS)
        units = [word for word in fields.get("space units", "").split('"') if word.strip()] or ["mm"] * 3
        scale = np.array([sign * _mm_of(unit) for sign, unit in zip(signs, units)])
        affine = np.eye(4)
        columns = [*fields["space directions"].split(), fields.get("space origin", "(0,0,0)")]
        for axis, column in enumerate(columns):
            affine[:3, axis] = scale * [float(number) for number in column.strip("()").split(",")]
        body = memoryview(content)[end + 2 :]
        # No more than the header states: a file may expand to anything.
        expected = prod(sizes) * dtype.itemsize
        data = zlib.decompressobj(31).decompress(body, expected) if fields["encoding"] == "gzip" else body[:expected]
        array = np.frombuffer(data, dtype).reshape(sizes, order="F")
    except (KeyError, ValueError, zlib.error) as error:
        raise TomaatError(
            "UPSTREAM", f"The label map cannot be read ({error!r}). Save it with save(), and open the file."
        ) from error
    return LabelMap(array.astype(dtype.newbyteorder("="), order="F"), affine)

"""What callers give as a volume, as files to send."""

from __future__ import annotations

import base64
import hashlib
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Union
from urllib.parse import urlsplit

from ._connection import is_loopback
from ._extras import need
from ._text import unpacked, without_text
from .errors import TomaatError
from .types import Service
from .volume import write_nrrd

# Of a file's name only the ending is sent: a name may identify the patient.
_ENDINGS = (
    (".nii.gz", ".hdr.gz", ".img.gz", ".nii", ".hdr", ".img", ".mha", ".mhd", ".nrrd", ".nhdr", ".zraw", ".raw.gz", ".raw")
    + (".dcm", ".zip", ".tfm", ".h5", ".mat", ".txt")
)  # fmt: skip
# Voxels may begin with any bytes.
_VOXELS_ALONE = (".raw", ".raw.gz", ".zraw", ".img", ".img.gz")
# Their headers name the file of the voxels, which therefore keeps its name.
_NAMING = (".mhd", ".nhdr")


class ToSend(NamedTuple):
    """A file, and the name under which it is sent."""

    path: Path
    name: str


def files_of(
    field: str, value: Any, folder: Path, service: Service, url: str, keep_identity: bool, keep_text: bool
) -> list[ToSend]:
    """The files of an input: a path or several, a DICOM folder, an image of nibabel or SimpleITK, or (array, affine).

    What is made here lies in ``folder``, which the caller deletes.

    Raises:
        TomaatError: BAD_INPUT for anything else, FORBIDDEN for DICOM files that may not be sent unchanged.
    """
    if isinstance(value, (str, os.PathLike)):
        paths = [Path(value)]
    elif isinstance(value, (list, tuple)) and value and all(isinstance(one, (str, os.PathLike)) for one in value):
        paths = [Path(one) for one in value]
    else:
        file = folder / f"{field}.nrrd"
        try:
            write_nrrd(file, *_array_and_affine(field, value))
        except TomaatError as error:
            error.field = field
            raise
        return [ToSend(file, file.name)]
    for path in paths:
        if not path.exists():
            raise TomaatError("BAD_INPUT", f"{path} does not exist. Check the path.", field)
        if path.is_dir() and len(paths) > 1:
            raise TomaatError("BAD_INPUT", f"{path} is a folder. Give one folder alone, or a list of files.", field)
    if len(paths) == 1 and paths[0].is_dir():
        _require_identity_may_leave(field, service, url, keep_identity)
        return [ToSend(_zip_series(field, paths[0], folder), f"{field}.zip")]
    if any(_is_dicom(path) or _is_zip(path) for path in paths):
        _require_identity_may_leave(field, service, url, keep_identity)
        return [ToSend(path, name) for path, name in zip(paths, _neutral(field, paths))]
    names = [path.name for path in paths] if any(_ending(path) in _NAMING for path in paths) else _neutral(field, paths)
    sent = paths if keep_text else [without_text(path, folder) for path in paths]
    return [ToSend(path, name) for path, name in zip(sent, names)]


def _array_and_affine(field: str, value: Any) -> tuple[Any, Any]:
    module = type(value).__module__.split(".")[0]
    if module == "SimpleITK":
        return _from_sitk(value)
    if module == "nibabel" or (hasattr(value, "dataobj") and hasattr(value, "affine")):
        return _from_nibabel(value)
    if isinstance(value, tuple) and len(value) == 2 and hasattr(value[0], "shape"):
        return value
    found = "an array without an affine" if hasattr(value, "shape") else f"of the type {type(value).__name__}"
    raise TomaatError(
        "BAD_INPUT",
        f"The volume {field} is {found}. Give a path, an image of nibabel or SimpleITK, or (array, affine): "
        "array[x, y, z], and the 4 × 4 matrix from voxel index to mm, RAS+.",
        field,
    )


def _from_nibabel(image: Any) -> tuple[Any, Any]:
    np = need("numpy")
    if getattr(image, "affine", None) is None:
        raise TomaatError("BAD_INPUT", "The image has no affine. Give one that says where the voxels are.")
    units = image.header.get_xyzt_units()[0] if hasattr(image.header, "get_xyzt_units") else "mm"
    if units in ("meter", "micron"):
        raise TomaatError(
            "BAD_INPUT",
            f"The affine of the image is in the unit {units}, which nibabel does not convert. Give the path of the file, "
            "or (array, affine) in mm.",
        )
    return np.asanyarray(image.dataobj), image.affine


def _from_sitk(image: Any) -> tuple[Any, Any]:
    np, sitk = need("numpy"), need("SimpleITK")
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise TomaatError(
            "BAD_INPUT",
            "The SimpleITK image is not a volume of one component and three dimensions. Extract one, or give the path of the file.",
        )
    lps = np.eye(4)
    lps[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    lps[:3, 3] = image.GetOrigin()
    return sitk.GetArrayViewFromImage(image).T, np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


# ---- Files ----


def _ending(path: Path) -> str:
    lower = path.name.lower()
    return next((ending for ending in _ENDINGS if lower.endswith(ending)), "")


def _neutral(field: str, paths: list[Path]) -> list[str]:
    endings = [_ending(path) for path in paths]
    return [
        f"{field}{'' if endings.index(ending) == at else f'-{at + 1}'}{ending}" for at, ending in enumerate(endings)
    ]


def _is_dicom(path: Path) -> bool:
    """Whether the file begins as DICOM files do: PS3.10, 7.1, or with an element of group 2 or 8 where that is missing."""
    if _ending(path) in _VOXELS_ALONE:
        return False
    with unpacked(path) as stream:
        start = stream.read(132)
    groups = (b"\x02\0", b"\x08\0", b"\0\x02", b"\0\x08")
    return start[128:] == b"DICM" or start[:4] == b"DICM" or start[:2] in groups


def _is_zip(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4) == b"PK\x03\x04"


def _zip_series(field: str, series: Path, folder: Path) -> Path:
    """An archive, not compressed, of the DICOM files of a folder and its subfolders, under neutral names."""
    archive = folder / f"{field}.zip"
    count = 0
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:
        for path in dicom_files(series):
            count += 1
            entry = zipfile.ZipInfo(f"{count:05}.dcm")
            with path.open("rb") as source, packed.open(entry, "w", force_zip64=True) as target:
                while chunk := source.read(1024 * 1024):
                    target.write(chunk)
    if count == 0:
        raise TomaatError(
            "BAD_INPUT", f"{series} contains no DICOM file. Give the folder of a series, or a file.", field
        )
    return archive


def dicom_files(folder: Path) -> Iterator[Path]:
    """The DICOM files of a folder and its subfolders."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name.upper() != "DICOMDIR" and _is_dicom(path):
            yield path


# ---- Who may see whose scan it is ----


def _require_identity_may_leave(field: str, service: Service, url: str, keep_identity: bool) -> None:
    """DICOM files name the patient. This package sends them as they are, so not without being asked, unless the
    service computes on this machine alone."""
    processing = service.get("processing")
    if processing is not None and processing["identity"] == "refused":
        raise TomaatError(
            "FORBIDDEN",
            f"The server does not accept DICOM files that name a patient. {_REMEDY}",
            field,
        )
    if keep_identity or _is_here(processing, url):
        return
    raise TomaatError(
        "FORBIDDEN",
        "DICOM files, and archives of them, name the patient, and this package does not remove that. Give "
        f"keep_identity=True if the server may see it. {_REMEDY}",
        field,
    )


_REMEDY = "On the command line, tomaat predict de-identifies a series before it is sent."


def _is_here(processing: Any, url: str) -> bool:
    """Whether a service computes on this machine, and nothing is in between."""
    parts = urlsplit(url)
    if processing is None or processing["reach"] != "loopback" or processing["remoteWorkers"]:
        return False
    if not is_loopback(parts.hostname or ""):
        return False
    port = parts.port or (443 if parts.scheme == "https" else 80)
    machine = _machine_id()
    return machine is not None and machine == processing.get("machine") and port in processing.get("ports", [])


def _machine_id() -> str | None:
    """The name of this machine until its next start, as a server on it states it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    digest = hashlib.sha256(f"tomaat machine\0{boot}".encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


Volume = Union[str, "os.PathLike[str]", Any]

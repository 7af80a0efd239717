"""The client of a server."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, cast

from ._connection import Connection
from ._inputs import Volume, files_of
from ._progress import Progress, ShowProgress
from ._upload import upload
from .batch import Row, predict_each, table_of
from .errors import TomaatError
from .job import Job, Result
from .types import Job as JobState
from .types import Service

if TYPE_CHECKING:
    import pandas

_FILES = ("volume", "transform")


class Client:
    """A TOMAAT server.

    Args:
        url: its address, such as ``http://127.0.0.1:9000``; a path is kept.
        api_key: the key for a server with login; the variable TOMAAT_API_KEY if missing.
        ca: a file of certificates (PEM) to trust besides those of the system, such as the server's ``tomaat.pem``;
            the variable TOMAAT_CA if missing.
        fingerprint: the SHA-256 fingerprint of a self-signed certificate, as the server prints it at startup, or
            several; the variable TOMAAT_FINGERPRINT if missing. Certificates that ``tomaat trust`` remembers are
            accepted too.
        data: the data folder of the command line, with ``known_hosts``; TOMAAT_DATA, else the user's, if missing.
        patience: how long a busy or interrupted server is waited for, in seconds, in each request.

    A client may be used by several threads. As a context manager it closes its connections at the end.

    Raises:
        TomaatError: BAD_REQUEST for an invalid argument, UNREACHABLE for a certificate that is not trusted.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        ca: str | os.PathLike[str] | None = None,
        fingerprint: str | Iterable[str] | None = None,
        data: str | os.PathLike[str] | None = None,
        patience: float = 120.0,
    ) -> None:
        self._connection = Connection(
            url, api_key, None if ca is None else str(ca), fingerprint, None if data is None else str(data), patience
        )
        self.url = self._connection.url

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._connection.close()

    def services(
        self,
        *,
        task: str | None = None,
        anatomy: str | None = None,
        modality: str | None = None,
        q: str | None = None,
    ) -> list[Service]:
        """The services of the server; ``q``: words that must occur in name or description."""
        filters = {"task": task, "anatomy": anatomy, "modality": modality, "q": q}
        return cast("list[Service]", self._connection.json("GET", "/api/services", params=filters)["services"])

    def service(self, name: str) -> Service:
        """A service by its id, or by task and anatomy as in ``segmentation/lung``.

        Raises:
            TomaatError: NOT_FOUND, or BAD_REQUEST if task and anatomy match several services.
        """
        if "/" not in name:
            return cast(Service, self._connection.json("GET", f"/api/services/{_quoted(name)}"))
        task, _, anatomy = name.partition("/")
        found = self.services(task=task, anatomy=anatomy)
        chosen = [service for service in found if service["default"]] if len(found) > 1 else found
        if len(chosen) == 1:
            return chosen[0]
        ids = ", ".join(service["id"] for service in found or self.services())
        if found:
            raise TomaatError("BAD_REQUEST", f"{name} means several services. Give one of the ids {ids}.")
        raise TomaatError("NOT_FOUND", f"{self.url} has no service {name}. Available: {ids}.")

    def submit(
        self,
        service: str | Service,
        volume: Volume | Mapping[str, Volume],
        *,
        parameters: Mapping[str, Any] | None = None,
        frame: int | None = None,
        series: str | int | None = None,
        formats: Mapping[str, str] | None = None,
        urgency: int | None = None,
        keep_identity: bool = False,
        keep_text: bool = False,
        progress: ShowProgress = None,
        **values: Any,
    ) -> Job:
        """Sends a volume and returns the job, which is then on the server's disk. See ``predict`` for the arguments."""
        known = self.service(service) if isinstance(service, str) else service
        inputs = _by_input(known, volume)
        sent_parameters = {name: _as_value(name, value) for name, value in {**(parameters or {}), **values}.items()}
        with tempfile.TemporaryDirectory(prefix="tomaat-") as folder, Progress(progress) as bar:
            files = {
                name: files_of(name, value, Path(folder), known, self.url, keep_identity, keep_text)
                for name, value in inputs.items()
            }
            total = sum(file.path.stat().st_size for sent in files.values() for file in sent) or 1
            before = 0
            refs: dict[str, list[Any]] = {}
            for name, sent in files.items():
                for file in sent:
                    report = _reporter(bar, before, total)
                    refs.setdefault(name, []).append(upload(self._connection, file.path, file.name, report))
                    before += file.path.stat().st_size
        body: dict[str, Any] = {
            "inputs": refs,
            "parameters": sent_parameters,
            "frame": frame,
            "series": None if series is None else str(series),
            "formats": None if formats is None else dict(formats),
        }
        headers = {"idempotency-key": uuid.uuid4().hex}
        if urgency is not None:
            headers["priority"] = f"u={urgency}"
        state = self._connection.json(
            "POST",
            f"/api/services/{_quoted(known['id'])}/predictions",
            headers=headers,
            json_body={name: value for name, value in body.items() if value is not None},
        )
        return Job(self._connection, cast(JobState, state), known)

    def predict(
        self,
        service: str | Service,
        volume: Volume | Mapping[str, Volume],
        *,
        parameters: Mapping[str, Any] | None = None,
        frame: int | None = None,
        series: str | int | None = None,
        formats: Mapping[str, str] | None = None,
        urgency: int | None = None,
        keep_identity: bool = False,
        keep_text: bool = False,
        progress: ShowProgress = None,
        timeout: float | None = None,
        **values: Any,
    ) -> Result:
        """Sends a volume, waits, and returns the result. If it is interrupted (Ctrl-C), the job is cancelled.

        Args:
            service: its id, task and anatomy as in ``segmentation/lung``, or what ``service()`` returned.
            volume: the path of a file (NIfTI, NRRD, MetaImage, a zip archive) or of the folder of a DICOM series, a
                list of files that are one volume (``.hdr`` and ``.img``), an image of nibabel or SimpleITK, or a pair
                ``(array, affine)``: ``array[x, y, z]``, and the 4 × 4 matrix from index to mm, RAS+. A dict of these
                by the name of the input for a service that has several.
            parameters: values of the other inputs by name; those whose names are words of Python's can be given as
                keyword arguments. Points are a list of ``(x, y, z)``, mm, RAS+.
            frame: which frame of a 4-D volume, from 0.
            series: which DICOM series of several: its UID or number.
            formats: the format of an output by name. DICOM formats such as ``seg.dcm`` can only be asked for here.
            urgency: 0 (most urgent) to 7; 3 if missing.
            keep_identity: sends DICOM files, which name the patient, as they are.
            keep_text: sends headers of volumes with text that may identify the patient.
            progress: True for a bar (tqdm), False for none, or a function of the step and the fraction done.
                None: a bar if tqdm is installed and there is a terminal or notebook.
            timeout: seconds to wait for the end; the job is then cancelled.

        Raises:
            TomaatError: with the server's code and message, the field that is at fault, or why the job failed.
        """
        job = self.submit(
            service,
            volume,
            parameters=parameters,
            frame=frame,
            series=series,
            formats=formats,
            urgency=urgency,
            keep_identity=keep_identity,
            keep_text=keep_text,
            progress=progress,
            **values,
        )
        return job.wait_or_cancel(timeout, progress)

    def job(self, id: str) -> Job:
        """A job by its id, such as one that another program submitted with the same key."""
        state = cast(JobState, self._connection.json("GET", f"/api/jobs/{_quoted(id)}"))
        return Job(self._connection, state, self.service(state["service"]))

    def predict_each(
        self,
        service: str | Service,
        files: Iterable[str | os.PathLike[str]],
        *,
        workers: int = 4,
        cache: str | os.PathLike[str] | None = None,
        on_result: Callable[[Path, Result], None] | None = None,
        progress: ShowProgress = None,
        **options: Any,
    ) -> Iterator[Row]:
        """The rows of ``predict_many``, each as soon as it is there, in the order in which they finish."""
        known = self.service(service) if isinstance(service, str) else service
        folder = None if cache is None else Path(cache)
        return predict_each(self, known, _paths(files), workers, folder, on_result, progress, options)

    def predict_many(
        self,
        service: str | Service,
        files: Iterable[str | os.PathLike[str]],
        *,
        workers: int = 4,
        cache: str | os.PathLike[str] | None = None,
        on_result: Callable[[Path, Result], None] | None = None,
        progress: ShowProgress = None,
        **options: Any,
    ) -> pandas.DataFrame:
        """A table of volumes: one row for each scan, in the given order; a column for each label, in ml.

        A scan that fails has its message in the column ``error``; the others go on. Results are deleted at the
        server as soon as they were read.

        Args:
            files: paths of files, or of folders of DICOM series.
            workers: predictions in progress at once.
            cache: a folder that remembers the rows. Scans whose bytes, service, version and options are the same
                are not sent again, so that an interrupted batch goes on where it was. Errors are not remembered,
                and ``on_result`` is not called for a remembered row.
            on_result: called with the path and the result of each scan, to save what else is wanted of it, by
                several threads at once. What it raises becomes the error of the scan.
            options: as in ``predict``.
        """
        paths = _paths(files)
        rows = self.predict_each(
            service, paths, workers=workers, cache=cache, on_result=on_result, progress=progress, **options
        )
        return table_of(paths, rows)


def _quoted(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="")


def _paths(files: Iterable[str | os.PathLike[str]]) -> list[Path]:
    # A str is an Iterable of its letters, too.
    if isinstance(files, (str, os.PathLike)):
        raise TomaatError("BAD_INPUT", f"{files} is one path. Give a list of the scans, such as [{str(files)!r}].")
    return [Path(file) for file in files]


def _by_input(service: Service, volume: Any) -> dict[str, Any]:
    """The given files by the inputs of the service."""
    names = [one["name"] for one in service["inputs"] if one["type"] in _FILES]
    if isinstance(volume, Mapping):
        for name in volume:
            if name not in names:
                raise TomaatError(
                    "BAD_INPUT",
                    f"{service['id']} has no file input {name}. Its file inputs: {', '.join(names) or '(none)'}.",
                    str(name),
                )
        return dict(volume)
    needed = [one["name"] for one in service["inputs"] if one["type"] in _FILES and not one.get("optional")]
    if len(needed) == 1 or len(names) == 1:
        return {(needed or names)[0]: volume}
    raise TomaatError(
        "BAD_INPUT",
        f"{service['id']} takes the files {', '.join(names) or '(none)'}. Give a dict of them by these names.",
    )


def _reporter(bar: Progress, before: int, total: int) -> Callable[[int], None]:
    return lambda sent: bar.show("upload", (before + sent) / total)


def _as_value(name: str, value: Any) -> Any:
    """Numbers of numpy as Python's; points as x,y,z;x,y,z."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        try:
            return ";".join(",".join(repr(float(number)) for number in point) for point in value)
        except (TypeError, ValueError):
            raise TomaatError(
                "BAD_INPUT", f"{name} is not a list of points. Give [(x, y, z), …] in mm, RAS+.", name
            ) from None
    return value

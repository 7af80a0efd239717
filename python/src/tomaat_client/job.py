"""Jobs, and what they give: outputs, label maps, volumes, receipts."""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Optional, cast

from ._connection import Connection
from ._progress import Progress, ShowProgress
from .errors import TomaatError, error_of
from .types import Job as JobState
from .types import JobOutput, Service, SucceededJob
from .volume import LabelMap, read_nrrd

# The server writes to an event stream at least every 15 s.
_SILENCE_SECONDS = 40.0
_POLL_SECONDS = 0.5


class Label(NamedTuple):
    """A value of a label map; ``color`` is such as #e6194b."""

    value: int
    name: str
    color: str | None


class Job:
    """A prediction at the server. It goes on if this program ends: ``Client.job(id)`` finds it again."""

    def __init__(self, connection: Connection, state: JobState, service: Service) -> None:
        self._connection = connection
        self._path = f"/api/jobs/{state['id']}"
        self.service = service
        self.state: JobState = state

    @property
    def id(self) -> str:
        return self.state["id"]

    def __repr__(self) -> str:
        return f"Job({self.id!r}, {self.state['service']!r}, {self.state['state']!r})"

    def refresh(self) -> JobState:
        """Asks the server for the state."""
        self.state = cast(JobState, self._connection.json("GET", self._path))
        return self.state

    @property
    def is_settled(self) -> bool:
        """Whether the job had ended when it was last asked for."""
        return self.state["state"] not in ("queued", "running")

    def watch(self, timeout: float | None = None) -> Iterator[JobState]:
        """The state now and at every change, until the job has ended. Interruptions and restarts are waited out.

        Raises:
            TomaatError: NOT_READY after ``timeout`` seconds, while the job goes on; NOT_FOUND if it was deleted.
        """
        give_up = None if timeout is None else time.monotonic() + timeout
        shown = ""
        for state in self._states(give_up):
            text = json.dumps(state)
            self.state = state
            if text != shown:
                shown = text
                yield state
            if self.is_settled:
                return
            if give_up is not None and time.monotonic() > give_up:
                raise TomaatError(
                    "NOT_READY",
                    f"The job {self.id} has not ended in {timeout} s. It goes on: wait again, or cancel it.",
                )

    def _states(self, give_up: float | None) -> Iterator[JobState]:
        """From server-sent events; from requests where a proxy swallows them."""
        while True:
            try:
                rest = (
                    _SILENCE_SECONDS if give_up is None else max(0.1, min(_SILENCE_SECONDS, give_up - time.monotonic()))
                )
                accept = {"accept": "text/event-stream"}
                with self._connection.open("GET", f"{self._path}/events", headers=accept, timeout=rest) as response:
                    for line in response.iter_lines():
                        if line.startswith("data: ") and line != "data: {}":
                            yield cast(JobState, json.loads(line[6:]))
            except (TomaatError, ValueError):
                # The request below says what is wrong, or waits until it is over.
                pass
            yield self.refresh()
            time.sleep(_POLL_SECONDS)

    def wait(self, timeout: float | None = None, progress: ShowProgress = None) -> Result:
        """Waits for the end and gives the result.

        Raises:
            TomaatError: why the job failed or was cancelled; as ``watch``.
        """
        with Progress(progress) as bar:
            for state in self.watch(timeout):
                bar.show(_step_of(state), cast(Optional[float], state.get("fraction")))
        return self.result()

    def wait_or_cancel(self, timeout: float | None = None, progress: ShowProgress = None) -> Result:
        """Waits as ``wait`` does; whatever interrupts it (Ctrl-C, the timeout) cancels the job."""
        try:
            return self.wait(timeout, progress)
        except BaseException:
            # The first fault matters more than one of the cancellation.
            if not self.is_settled:
                with suppress(TomaatError):
                    self.cancel()
            raise

    def result(self) -> Result:
        """The result of a job that has succeeded.

        Raises:
            TomaatError: why it failed or was cancelled; NOT_READY if it has not ended.
        """
        state = self.state
        if state["state"] == "succeeded":
            return Result(self, state)
        if state["state"] == "failed" or state["state"] == "canceled":
            raise error_of(state["error"])
        raise TomaatError("NOT_READY", f"The job {self.id} is {state['state']}. Wait for it.")

    def cancel(self) -> JobState:
        """Cancels a queued or running job; one that has ended stays as it is."""
        self.state = cast(JobState, self._connection.json("POST", f"{self._path}/cancel"))
        return self.state

    def delete(self) -> None:
        """Cancels the job if need be, and deletes it with its results. A missing job is not an error."""
        try:
            if self._connection.json("DELETE", self._path) is not None:
                for _ in self.watch():
                    pass
                self._connection.json("DELETE", self._path)
        except TomaatError as error:
            if error.code != "NOT_FOUND":
                raise

    def receipt(self) -> str:
        """The signed receipt of a job that has ended; see ``verify_receipt``."""
        return self._connection.call("GET", f"{self._path}/receipt").content.decode("ascii")


def _step_of(state: JobState) -> str:
    return str(state.get("stage") or state["state"])


class Output:
    """One output of a job. Its bytes are fetched when they are asked for, while the server keeps the results."""

    def __init__(self, connection: Connection, facts: JobOutput, job: str) -> None:
        self._connection = connection
        self._path = f"/api/jobs/{job}/outputs/{facts['name']}"
        self.facts = facts
        self.name = facts["name"]
        self.type = facts["type"]
        self.formats = facts["formats"]
        self.format = facts["format"]

    def __repr__(self) -> str:
        return f"Output({self.name!r}, {self.type!r}, {self.format!r})"

    def read(self, format: str | None = None) -> bytes:
        """The file, in the stored format or another one of ``formats``."""

        def attempt() -> bytes:
            return b"".join(self._chunks(format))

        return self._connection.patiently(attempt)

    def text(self, format: str | None = None) -> str:
        """The file as text."""
        return self.read(format).decode("utf-8")

    def json(self) -> Any:
        """Measurements, points or text as Python objects."""
        return json.loads(self.read("json"))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the file, in the format that the ending of ``path`` names. A file there is replaced at the end.

        Raises:
            TomaatError: BAD_INPUT if the output cannot be had in that format.
        """
        target = Path(path)
        found = [one for one in self.formats if f".{target.name.lower()}".endswith(f".{one}")]
        if not found:
            raise TomaatError(
                "BAD_INPUT",
                f"{self.name} is not available as {target.name}. Use one of the endings {', '.join(self.formats)}.",
            )
        self._connection.patiently(lambda: self._write(target, max(found, key=len)))
        return target

    def _write(self, target: Path, format: str) -> None:
        part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
        try:
            with part.open("xb") as stream:
                for chunk in self._chunks(format):
                    stream.write(chunk)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    def _chunks(self, format: str | None) -> Iterator[bytes]:
        """The bytes, checked: by their digest in the stored format, otherwise by their number."""
        is_stored = format is None or format == self.format
        digest, length = hashlib.sha256(), 0
        params = {} if is_stored else {"format": format}
        with self._connection.open("GET", self._path, params=params) as response:
            for chunk in response.iter_raw():
                digest.update(chunk)
                length += len(chunk)
                yield chunk
            told = response.headers.get("content-length", str(length))
        if told != str(length) or (is_stored and f"sha256:{digest.hexdigest()}" != self.facts["digest"]):
            raise TomaatError("UPSTREAM", f"{self.name} did not arrive as the server stored it. Fetch it again.")


class Result:
    """What a job gave. It is fetched when it is asked for: the server deletes results after a while (``expires``).

    As a context manager it deletes the job with its results at the end.
    """

    def __init__(self, job: Job, state: SucceededJob) -> None:
        self.job = job
        self.expires = state["expiresTime"]
        self.outputs = {facts["name"]: Output(job._connection, facts, job.id) for facts in state["outputs"]}
        self._state = state

    def __repr__(self) -> str:
        return f"Result({self.job.id!r}, {list(self.outputs)})"

    def __enter__(self) -> Result:
        return self

    def __exit__(self, *_: object) -> None:
        self.delete()

    def delete(self) -> None:
        """Deletes the job with its results at the server. What was fetched stays here."""
        self.job.delete()

    @property
    def primary(self) -> Output:
        """The first label map of the service, otherwise its first output."""
        name = next((facts["name"] for facts in self._state["outputs"] if facts["primary"]), None)
        if name is None:
            raise TomaatError("APP_OUTPUT", "The job has no outputs.")
        return self.outputs[name]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the primary output, in the format that the ending of ``path`` names."""
        return self.primary.save(path)

    @cached_property
    def label_map(self) -> LabelMap:
        """The primary label map, on the input's grid. Needs numpy."""
        if self.primary.type != "LabelVolume":
            raise TomaatError("APP_OUTPUT", f"This service gives no label map but {self.primary.type}. See outputs.")
        return read_nrrd(self.primary.read("nrrd"))

    @cached_property
    def labels(self) -> list[Label]:
        """The labels that apply with the parameters of this job."""
        given = self._state["parameters"]
        return [
            Label(label["value"], label["name"], label.get("color"))
            for label in self.job.service["labels"]
            if all(given.get(name) == value for name, value in label.get("when", {}).items())
        ]

    @cached_property
    def volumes(self) -> dict[str, float]:
        """Millilitres by the name of the label: as the service measured them, otherwise counted in the label map."""
        measured = self._measurements()
        rows = measured.json()["labels"] if measured else self._count()
        volumes: dict[str, float] = {}
        for row in rows:
            name = row["name"] if row["name"] not in volumes else f"{row['name']} ({row['value']})"
            volumes[name] = float(row["volumeMl"])
        return volumes

    def _measurements(self) -> Output | None:
        """The measurements of the primary output."""
        for output in self.job.service["outputs"]:
            if output["type"] == "Measurements" and output["name"] in self.outputs:
                if output.get("from", self.primary.name) == self.primary.name:
                    return self.outputs[output["name"]]
        return None

    def _count(self) -> list[dict[str, Any]]:
        from ._extras import need

        values, counts = need("numpy").unique(self.label_map.array, return_counts=True)
        found = {int(value): int(count) for value, count in zip(values, counts) if value != 0}
        names = {label.value: label.name for label in self.labels}
        return [
            {
                "value": value,
                "name": names.get(value, f"label {value}"),
                "volumeMl": found.get(value, 0) * self.label_map.voxel_ml,
            }
            for value in sorted({*names, *found})
        ]

    @cached_property
    def receipt(self) -> str:
        """The signed receipt of the job; see ``verify_receipt``."""
        return self.job.receipt()

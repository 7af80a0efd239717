"""Many scans: a row of volumes for each."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from ._extras import need
from ._inputs import dicom_files
from ._progress import ShowProgress, wants_bar
from ._upload import sha256_of
from .errors import TomaatError
from .job import Job, Result
from .types import Service

if TYPE_CHECKING:
    import pandas

    from .client import Client


class Row(NamedTuple):
    """A scan of a batch: millilitres by label, or the error."""

    path: Path
    volumes: dict[str, float]
    error: TomaatError | None


def predict_each(
    client: Client,
    service: Service,
    paths: list[Path],
    workers: int,
    cache: Path | None,
    on_result: Callable[[Path, Result], None] | None,
    progress: ShowProgress,
    options: dict[str, Any],
) -> Iterator[Row]:
    """See ``Client.predict_each``."""
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)

    stop = _Stop()

    def run(path: Path) -> Row:
        try:
            return Row(path, _volumes_of(client, service, path, cache, on_result, stop, options), None)
        except TomaatError as error:
            return Row(path, {}, error)
        except Exception as error:  # A broken scan never ends the batch.
            return Row(path, {}, TomaatError("BAD_INPUT", f"{type(error).__name__}: {error}"))

    bar = need("tqdm.auto").tqdm(total=len(paths), unit="scan") if wants_bar(progress) else None
    done = 0
    pool = ThreadPoolExecutor(max_workers=workers)
    waiting = iter(paths)
    running: set[Future[Row]] = set()
    try:
        while True:
            while len(running) < workers and (path := next(waiting, None)) is not None:
                running.add(pool.submit(run, path))
            if not running:
                return
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                done += 1
                if bar is not None:
                    bar.update()
                if callable(progress):
                    progress(f"{done} of {len(paths)}", done / len(paths))
                yield future.result()
    finally:
        # Nothing runs if all is done. After Ctrl-C, or if the caller wants no more rows, the rest is cancelled.
        stop.cancel()
        pool.shutdown(wait=True)
        if bar is not None:
            bar.close()


class _Stop:
    """Cancels the jobs in progress when a batch ends early, and those that are submitted after that."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: set[Job] = set()
        self._is_over = False

    @contextmanager
    def watching(self, job: Job) -> Iterator[None]:
        with self._lock:
            self._jobs.add(job)
            is_late = self._is_over
        try:
            if is_late:
                job.cancel()
            yield
        finally:
            with self._lock:
                self._jobs.discard(job)

    def cancel(self) -> None:
        with self._lock:
            self._is_over = True
            jobs = list(self._jobs)
        for job in jobs:
            with suppress(TomaatError):
                job.cancel()


def _volumes_of(
    client: Client,
    service: Service,
    path: Path,
    cache: Path | None,
    on_result: Callable[[Path, Result], None] | None,
    stop: _Stop,
    options: dict[str, Any],
) -> dict[str, float]:
    entry = None if cache is None or not path.exists() else cache / f"{_key_of(service, path, options)}.json"
    if entry is not None and entry.exists():
        remembered: dict[str, float] = json.loads(entry.read_text())
        return remembered
    given = dict(options)
    timeout = given.pop("timeout", None)
    job = client.submit(service, path, progress=False, **given)
    with stop.watching(job), job.wait_or_cancel(timeout, progress=False) as result:
        volumes = result.volumes
        if on_result:
            on_result(path, result)
    if entry is not None:
        part = entry.with_suffix(f".{os.getpid()}-{id(volumes)}.part")
        part.write_text(json.dumps(volumes))
        part.replace(entry)
    return volumes


def _key_of(service: Service, path: Path, options: dict[str, Any]) -> str:
    """A name for the row: the same for the same bytes, service, version and options."""
    files = sorted(dicom_files(path)) if path.is_dir() else [path]
    model = [service["id"], service["version"], service.get("modelSha256")]
    facts = [
        model,
        sorted((name, _exact(value)) for name, value in options.items()),
        [sha256_of(file) for file in files],
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _exact(value: Any) -> str:
    # The text of a long array of numpy leaves out its middle.
    if isinstance(value, dict):
        return repr({name: _exact(one) for name, one in value.items()})
    return repr(value.tolist() if hasattr(value, "tolist") else value)


def table_of(paths: list[Path], rows: Iterable[Row]) -> pandas.DataFrame:
    """The rows as a table, in the order of ``paths``; the index holds them."""
    pandas = need("pandas")
    found: dict[Path, list[Row]] = {}
    for row in rows:
        found.setdefault(row.path, []).append(row)
    ordered = [found[path].pop() for path in paths]
    names = list(dict.fromkeys(name for row in ordered for name in row.volumes))
    # A label of the name "error" has another column than the errors.
    columns = [f"{name} (label)" if name == "error" else name for name in names]
    table = pandas.DataFrame(
        [[row.volumes.get(name) for name in names] for row in ordered], columns=columns, dtype=float
    )
    table["error"] = [None if row.error is None else str(row.error) for row in ordered]
    table.index = pandas.Index([str(path) for path in paths], name="scan")
    return table

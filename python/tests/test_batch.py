"""Tables of volumes."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from conftest import AFFINE

from tomaat_client import Client, Job, Result, TomaatError
from tomaat_client.batch import Row, _key_of, table_of

COUNT = 60
BROKEN = (7, 30, 59)
VOXEL_ML = abs(np.linalg.det(AFFINE[:3, :3])) / 1000


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Sixty scans, each with more bright voxels than the one before; three are broken."""
    folder = tmp_path_factory.mktemp("scans")
    paths = []
    for number in range(COUNT):
        path = folder / f"scan{number:02}.nii.gz"
        array = np.zeros((12, 9, 7), np.int16)
        array.ravel()[: 3 + number] = 500
        nibabel.Nifti1Image(array, AFFINE).to_filename(path)
        paths.append(path)
    paths[BROKEN[0]].write_bytes(paths[BROKEN[0]].read_bytes()[:60])
    paths[BROKEN[1]].write_text("<html></html>")
    paths[BROKEN[2]] = folder / "nowhere.nii.gz"
    return paths


def test_sixty_scans_with_three_broken_ones(client: Client, scans: list[Path], tmp_path: Path) -> None:
    saved: list[str] = []

    def keep(path: Path, result: Result) -> None:
        if path.name == "scan03.nii.gz":
            saved.append(str(result.save(tmp_path / path.name)))

    progress: list[Any] = []
    cache = tmp_path / "cache"
    table = client.predict_many(
        "threshold",
        scans,
        workers=6,
        cache=cache,
        on_result=keep,
        progress=lambda step, done: progress.append((step, done)),
    )
    assert list(table.columns) == ["bright", "error"]
    assert list(table.index) == [str(path) for path in scans]
    for number in range(COUNT):
        row = table.iloc[number]
        if number in BROKEN:
            assert np.isnan(row["bright"]) and row["error"]
        else:
            assert row["error"] is None or np.isnan(row["error"])
            assert row["bright"] == pytest.approx((3 + number) * VOXEL_ML, rel=1e-4)
    assert "does not exist" in table["error"].iloc[BROKEN[2]]
    assert progress[-1] == (f"{COUNT} of {COUNT}", 1.0)
    assert saved and Path(saved[0]).exists()
    assert len(list(cache.iterdir())) == COUNT - len(BROKEN)


def test_rows_come_as_they_are_done_and_are_remembered(client: Client, scans: list[Path], tmp_path: Path) -> None:
    sent: list[Path] = []
    lock = threading.Lock()

    def count(path: Path, _: Result) -> None:
        with lock:
            sent.append(path)

    rows = client.predict_each("threshold", scans[:5], workers=2, cache=tmp_path, on_result=count)
    first = next(rows)
    assert first.error is None and first.path in scans[:2] and len(sent) < 5
    # An interrupted batch: what was done is remembered.
    rows.close()  # type: ignore[attr-defined]
    done = set(sent)
    table = client.predict_many("threshold", scans[:6], cache=tmp_path, on_result=count)
    assert table["error"].isna().all() and len(sent) == 6 and set(sent) > done
    client.predict_many("threshold", scans[:6], cache=tmp_path, on_result=count, factor=2)
    assert len(sent) == 12


def test_a_fault_of_the_callback_is_an_error_of_its_scan(client: Client, scans: list[Path]) -> None:
    def fail(path: Path, _: Result) -> None:
        if path == scans[1]:
            raise RuntimeError("my disk is full")

    rows = list(client.predict_each("threshold", [*scans[:3], scans[0]], on_result=fail))
    assert [row.path for row in rows if row.error] == [scans[1]]
    assert "my disk is full" in str(next(row.error for row in rows if row.error))
    with pytest.raises(TomaatError):
        client.predict_many("nothing", scans[:3])


def test_ctrl_c_cancels_what_is_in_progress(client: Client, scans: list[Path]) -> None:
    submitted: list[Job] = []
    real = client.submit

    def submit(*args: Any, **options: Any) -> Job:
        submitted.append(real(*args, **options))
        if len(submitted) == 2:
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        return submitted[-1]

    client.submit = submit  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        client.predict_many("slow", scans[:6], workers=2)
    assert [job.refresh()["state"] for job in submitted] == ["canceled", "canceled"]


def test_one_path_is_not_a_list_of_its_letters(client: Client) -> None:
    with pytest.raises(TomaatError, match="one path"):
        client.predict_many("threshold", "scan.nii.gz")


def test_a_label_of_the_name_error_has_a_column_of_its_own() -> None:
    good, bad = Path("a"), Path("b")
    table = table_of([good, bad], [Row(bad, {}, TomaatError("BAD_INPUT", "broken")), Row(good, {"error": 2.0}, None)])
    assert table.loc["a", "error (label)"] == 2.0
    assert table["error"].isna()["a"]
    assert table.loc["b", "error"] == "broken"


def test_rows_are_remembered_for_all_numbers_of_an_array(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(b"scan")
    service: Any = {"id": "points", "version": "1"}
    points = np.zeros((2000, 3))
    moved = points.copy()
    moved[1000] = 1
    keys = {_key_of(service, tmp_path / "a.nii", {"parameters": {"seeds": one}}) for one in (points, moved)}
    keys |= {_key_of(service, tmp_path / "a.nii", {"seeds": one}) for one in (points, moved)}
    assert len(keys) == 4

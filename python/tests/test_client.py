"""Services, jobs, results, receipts and errors."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from conftest import AFFINE, phantom

from tomaat_client import Client, TomaatError, discover, verify_entry, verify_receipt

SCAN = (phantom(), AFFINE)
VOXEL_ML = abs(np.linalg.det(AFFINE[:3, :3])) / 1000
BRIGHT_VOXELS = 6 * 6 * 4 + 3 * 4 * 3


def test_services(client: Client) -> None:
    ids = [service["id"] for service in client.services()]
    assert {"threshold", "bright", "marks", "pair", "slow"} <= set(ids)
    assert [service["id"] for service in client.services(task="threshold")] == ["threshold"]
    assert client.service("threshold/any")["id"] == "threshold"
    with pytest.raises(TomaatError, match="Available: .*threshold") as missing:
        client.service("segmentation/liver")
    assert missing.value.code == "NOT_FOUND"
    with pytest.raises(TomaatError) as unknown:
        client.service("nothing")
    assert (unknown.value.code, unknown.value.status) == ("NOT_FOUND", 404)
    assert unknown.value.request_id


def test_volumes_measured_by_the_service(client: Client) -> None:
    result = client.predict("threshold", SCAN, factor=1.5)
    assert result.job.state["parameters"] == {"factor": 1.5}
    assert list(result.volumes) == ["bright"]
    assert result.volumes["bright"] == pytest.approx(BRIGHT_VOXELS * VOXEL_ML, rel=1e-3)
    assert [label[:2] for label in result.labels] == [(1, "bright")]
    assert result.labels[0].color == "#f2c14e"
    assert set(result.outputs) == {"segmentation", "report", "volumes"}
    assert "bright" in result.outputs["report"].text()
    assert result.outputs["volumes"].json()["labels"][0]["value"] == 1
    assert repr(result).startswith("Result(")


def test_volumes_counted_in_the_label_map(client: Client) -> None:
    for mode, name in (("dark", "shadow"), ("light", "glow")):
        result = client.predict("bright", SCAN, mode=mode)
        assert [label.name for label in result.labels] == [name, "both"]
        assert result.volumes == pytest.approx({name: BRIGHT_VOXELS * VOXEL_ML, "both": 0})


def test_saved_files(client: Client, tmp_path: Path) -> None:
    result = client.predict("threshold", SCAN)
    path = result.save(tmp_path / "labels.nii.gz")
    assert nibabel.load(path).shape == phantom().shape
    assert result.outputs["volumes"].save(str(tmp_path / "v.csv")).read_text().startswith("label,name,voxels,volume_ml")
    with pytest.raises(TomaatError, match=r"endings nii.gz|endings .*nii\.gz"):
        result.save(tmp_path / "labels.png")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["labels.nii.gz", "v.csv"]


def test_result_is_deleted_at_the_end(client: Client) -> None:
    with client.predict("bright", SCAN) as result:
        assert result.label_map.array.any()
    with pytest.raises(TomaatError) as gone:
        client.job(result.job.id)
    assert gone.value.code == "NOT_FOUND"
    result.delete()


def test_points_numbers_and_several_volumes(client: Client) -> None:
    points = np.array([[1.5, -2, 3], [4, 5, 6.25]])
    result = client.predict("marks", SCAN, parameters={"seeds": points, "size": np.int64(3)})
    assert json.loads(result.primary.text()) == {"seeds": [[1.5, -2, 3], [4, 5, 6.25]], "size": 3}
    pair = client.predict("pair", {"fixed": SCAN, "moving": (phantom() * 0, AFFINE)})
    assert np.array_equal(pair.label_map.array, phantom() > 100)
    with pytest.raises(TomaatError, match="fixed, moving"):
        client.predict("pair", SCAN)


def test_errors_of_the_server(client: Client, tmp_path: Path) -> None:
    (tmp_path / "page.nii.gz").write_text("<html></html>")
    with pytest.raises(TomaatError) as refused:
        client.predict("threshold", tmp_path / "page.nii.gz")
    assert refused.value.status is not None and 400 <= refused.value.status < 500
    assert refused.value.field == "volume"
    with pytest.raises(TomaatError) as wrong:
        client.predict("threshold", SCAN, factor=77)
    assert wrong.value.field == "factor"
    with pytest.raises(TomaatError) as failed:
        client.predict("fails", SCAN)
    assert failed.value.code == "APP_FAILED"
    assert "no such organ" in str(failed.value)


def test_progress_and_states(client: Client) -> None:
    seen: list[tuple[str, float | None]] = []
    client.predict("threshold", SCAN, progress=lambda step, fraction: seen.append((step, fraction)))
    assert seen[0] == ("upload", 1.0)
    assert seen[-1][0] == "succeeded"
    job = client.submit("threshold", SCAN)
    states = [state["state"] for state in job.watch()]
    assert states[-1] == "succeeded" and job.is_settled
    assert client.job(job.id).wait().volumes


def test_bar_of_tqdm(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    client.predict("threshold", SCAN, progress=True)
    assert "succeeded" in capsys.readouterr().err
    client.predict("threshold", SCAN)
    assert capsys.readouterr().err == ""


def test_cancel(client: Client) -> None:
    job = client.submit("slow", SCAN)
    threading.Timer(0.5, job.cancel).start()
    with pytest.raises(TomaatError) as canceled:
        job.wait()
    assert canceled.value.code == "CANCELED"
    assert job.refresh()["state"] == "canceled"


def test_timeout(client: Client) -> None:
    started = time.monotonic()
    job = client.submit("slow", SCAN)
    with pytest.raises(TomaatError) as late:
        job.wait(timeout=1)
    assert late.value.code == "NOT_READY"
    assert job.refresh()["state"] in ("queued", "running")
    job.delete()
    with pytest.raises(TomaatError):
        client.predict("slow", SCAN, timeout=1)
    assert time.monotonic() - started < 30


def test_ctrl_c_cancels(client: Client) -> None:
    jobs: list[str] = []

    def interrupt(step: str, _: float | None) -> None:
        if step != "upload" and not jobs:
            jobs.append(step)
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()

    real = client.submit
    submitted: list[Any] = []
    client.submit = lambda *args, **options: submitted.append(real(*args, **options)) or submitted[0]  # type: ignore[method-assign, func-returns-value]
    with pytest.raises(KeyboardInterrupt):
        client.predict("slow", SCAN, progress=interrupt)
    assert submitted[0].refresh()["state"] == "canceled"


def test_receipt(client: Client, stand: dict[str, Any]) -> None:
    result = client.predict("threshold", SCAN)
    content, thumbprint = verify_receipt(result.receipt)
    assert thumbprint == stand["identity"]
    assert content["job"] == result.job.id
    assert content["outputs"][0]["digest"] == result.outputs["segmentation"].facts["digest"]
    assert verify_receipt(result.receipt, key=stand["identity"]).content == content
    with pytest.raises(TomaatError, match="another server"):
        verify_receipt(result.receipt, key="x" * 43)
    head, payload, signature = result.receipt.strip().split(".")
    swapped = "A" if payload[20] != "A" else "B"
    for forged in (
        f"{head}.{payload[:20]}{swapped}{payload[21:]}.{signature}",
        f"{head}.{payload}.{signature[:10]}{'A' if signature[10] != 'A' else 'B'}{signature[11:]}",
        f"{head}.{payload}",
        "",
        "x" * 70_000,
    ):
        with pytest.raises(TomaatError) as refused:
            verify_receipt(forged)
        assert refused.value.code == "BAD_SIGNATURE"


def test_discover(stand: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    registry = stand["registry"]
    entries = discover(registry)
    assert {entry.get("serviceId") for entry in entries} >= {"threshold", "bright"}
    monkeypatch.setenv("TOMAAT_REGISTRY", registry)
    [entry] = discover(task="threshold", anatomy="any")
    assert discover(task="nothing") == []
    signed = verify_entry(entry, registry)
    assert signed["sub"] == stand["identity"]
    with pytest.raises(TomaatError, match="another serverUrl"):
        verify_entry({**entry, "serverUrl": "http://127.0.0.1:1"}, registry)
    with pytest.raises(TomaatError, match="made for the registry"):
        verify_entry(entry, "https://registry.example")
    with Client(entry["serverUrl"], fingerprint=signed["certificate"]) as client:
        assert client.predict(entry["serviceId"], SCAN).volumes["bright"] > 0
    with pytest.raises(TomaatError, match="is a server"):
        discover(stand["server"])

"""Keys, certificates, broken connections, busy servers, what leaves this machine."""

from __future__ import annotations

import gzip
import pickle
import socket
import threading
import time
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from conftest import AFFINE, phantom

from tomaat_client import Client, TomaatError
from tomaat_client._text import without_text

SCAN = (phantom(), AFFINE)


def test_key(stand: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    url = stand["locked"]
    with pytest.raises(TomaatError) as refused:
        Client(url).services()
    assert (refused.value.code, refused.value.status) == ("UNAUTHORIZED", 401)
    with pytest.raises(TomaatError):
        Client(url, api_key="tmt_aaaaaaaaaa_wrongwrongwrong").predict("bright", SCAN)
    assert Client(url, api_key=stand["key"]).services()
    monkeypatch.setenv("TOMAAT_API_KEY", stand["key"])
    assert Client(url).predict("bright", SCAN).volumes


def test_key_is_not_sent_unencrypted() -> None:
    with pytest.raises(TomaatError, match="unencrypted"):
        Client("http://server.example:9000", api_key="tmt_x")
    for address in ("server", "ftp://server", "http://user:pass@127.0.0.1:1"):
        with pytest.raises(TomaatError):
            Client(address)


def test_limit_of_a_key(stand: dict[str, Any]) -> None:
    with Client(stand["locked"], api_key=stand["limitedKey"], patience=1) as client:
        job = client.submit("slow", SCAN)
        with pytest.raises(TomaatError) as refused:
            client.submit("bright", SCAN)
        assert (refused.value.code, refused.value.status, refused.value.retry_after) == ("LIMIT_REACHED", 429, 10)
        job.delete()


def test_nothing_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    started = time.monotonic()
    with pytest.raises(TomaatError, match="start the server") as refused:
        Client(f"http://127.0.0.1:{port}").services()
    assert refused.value.code == "UNREACHABLE"
    assert time.monotonic() - started < 10


def test_another_kind_of_server(stand: dict[str, Any]) -> None:
    with pytest.raises(TomaatError) as refused:
        Client(stand["stranger"]).services()
    assert refused.value.code == "UPSTREAM"


class TestCertificates:
    def test_unknown_one_is_refused(self, stand: dict[str, Any]) -> None:
        with pytest.raises(TomaatError, match="not trusted") as refused:
            Client(stand["secure"])
        assert refused.value.code == "UNREACHABLE"
        assert stand["fingerprint"] in str(refused.value)

    @pytest.mark.parametrize("form", ["AB:CD", "abcd", "SHA256 Fingerprint=AB:CD"])
    def test_by_fingerprint(self, stand: dict[str, Any], form: str) -> None:
        fingerprint = stand["fingerprint"]
        given = {"abcd": fingerprint.replace(":", "").lower(), "AB:CD": fingerprint}.get(form)
        with Client(stand["secure"], fingerprint=given or f"SHA256 Fingerprint={fingerprint}") as client:
            assert client.predict("bright", SCAN).volumes
        with pytest.raises(TomaatError, match="than the one given"):
            Client(
                stand["secure"],
                fingerprint=fingerprint.replace(fingerprint[:2], "00" if fingerprint[:2] != "00" else "01"),
            )
        with pytest.raises(TomaatError, match="not a SHA-256 fingerprint"):
            Client(stand["secure"], fingerprint="AB:CD")

    def test_by_authority(self, stand: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        assert Client(stand["secure"], ca=stand["certificate"]).services()
        monkeypatch.setenv("TOMAAT_CA", stand["certificate"])
        assert Client(stand["secure"]).services()
        with pytest.raises(TomaatError, match="cannot be read"):
            Client(stand["secure"], ca=__file__)

    def test_of_the_server_on_this_machine(self, stand: dict[str, Any]) -> None:
        assert Client(stand["secure"], data=stand["serverData"]).services()

    @pytest.mark.parametrize("how", ["pinned", "pinnedByKey"])
    def test_remembered_by_the_command_line(
        self, stand: dict[str, Any], how: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TOMAAT_DATA", stand[how])
        assert Client(stand["secure"]).services()

    def test_another_one_than_remembered(self, stand: dict[str, Any]) -> None:
        with pytest.raises(TomaatError, match="different certificate than before"):
            Client(stand["secure"], data=stand["pinnedOther"])

    def test_replaced_while_the_client_is_in_use(self, stand: dict[str, Any]) -> None:
        with Client(stand["secure"], fingerprint=stand["fingerprint"]) as client:
            client._connection.url = stand["otherSecure"]
            with pytest.raises(TomaatError, match="certificate") as refused:
                client.services()
            assert refused.value.code == "UNREACHABLE"


def big_scan(path: Path) -> Path:
    noise = np.random.default_rng(1).integers(0, 2000, (180, 160, 100), np.int16)
    nibabel.Nifti1Image(noise, AFFINE).to_filename(path)
    return path


def test_upload_is_resumed_after_a_cut(stand: dict[str, Any], tmp_path: Path) -> None:
    """The proxy cuts the first parts off after a megabyte; the test in TypeScript looks at what was sent."""
    seen: list[float] = []
    with Client(stand["cutting"]) as client:
        scan = big_scan(tmp_path / "scan.nii")
        result = client.predict(
            "threshold", scan, progress=lambda step, done: seen.append(done or 0) if step == "upload" else None
        )
        assert result.volumes["bright"] > 0
        assert seen[-1] == 1.0
        # The server has it: it is not sent a second time.
        assert client.predict("threshold", scan, factor=2).volumes


def test_events_that_are_cut_and_a_proxy_without_them(stand: dict[str, Any]) -> None:
    with Client(stand["eventless"]) as client:
        assert client.predict("nap", SCAN).label_map.array.any()


def test_full_queue_is_waited_for(stand: dict[str, Any]) -> None:
    with Client(stand["small"], patience=0) as hasty:
        refused = []
        jobs = []
        for _ in range(6):
            try:
                jobs.append(hasty.submit("nap", SCAN))
            except TomaatError as error:
                refused.append(error)
    assert {(error.code, error.status, error.retry_after) for error in refused} == {("BUSY", 503, 5)}
    with Client(stand["small"], patience=60) as patient:
        assert patient.predict("nap", SCAN).label_map.array.any()


def test_server_that_restarts(stand: dict[str, Any]) -> None:
    """The proxy refuses connections for a while once it has been reached."""
    with Client(stand["flaky"], patience=30) as client:
        client.services()
        job = client.submit("nap", SCAN)
        client.services(q="go away")
        started = time.monotonic()
        assert job.wait().label_map.array.any()
        assert time.monotonic() - started > 0.5


def test_error_survives_a_process_boundary() -> None:
    error = TomaatError("BUSY", "Try later.", "volume", 503, "r1", 5)
    copy = pickle.loads(pickle.dumps(error))
    assert copy.__dict__ == error.__dict__ and str(copy) == "Try later."


def test_many_threads_share_a_client(client: Client) -> None:
    found: list[bool] = []
    threads = [
        threading.Thread(target=lambda: found.append(bool(client.predict("bright", SCAN).volumes))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 8


class TestWhatLeaves:
    """Text in headers, file names, the patient’s name in DICOM files. The proxy records everything that is sent."""

    def canary(self) -> Any:
        image = nibabel.Nifti1Image(phantom(), AFFINE)
        image.header["descrip"] = b"Doe^Canary"
        image.header["aux_file"] = b"Doe^Canary"
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"Doe^Canary was here"))
        return image

    def test_text_of_headers(self, stand: dict[str, Any], tmp_path: Path) -> None:
        self.canary().to_filename(tmp_path / "DoeCanary.nii")
        nibabel.Nifti2Image.from_image(self.canary()).to_filename(tmp_path / "DoeCanary2.nii")
        comment = (
            b"NRRD0005\n# Doe^Canary\ntype: short\ndimension: 3\nspace: RAS\nsizes: 23 17 11\nPatient:=Doe^Canary\n"
        )
        rest = b"content: Doe^Canary\nspace directions: (1,0,0) (0,2,0) (0,0,3)\nendian: little\nencoding: raw\n\n"
        (tmp_path / "DoeCanary.nrrd").write_bytes(comment + rest + phantom().tobytes(order="F"))
        lines = "ObjectType = Image\nNDims = 3\nComment = Doe^Canary\nDimSize = 23 17 11\nElementSpacing = 1 2 3\nDoe^Canary : x\n"
        data = "ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
        (tmp_path / "DoeCanary.mha").write_bytes((lines + data).encode() + phantom().tobytes(order="F"))
        with Client(stand["recording"]) as client:
            for name in ("DoeCanary.nii", "DoeCanary2.nii", "DoeCanary.nrrd", "DoeCanary.mha"):
                labels = client.predict("bright", tmp_path / name).label_map
                assert np.array_equal(labels.array, phantom() > 100), name

    def test_compressed_files(self, tmp_path: Path) -> None:
        path, folder = tmp_path / "DoeCanary.nii.gz", tmp_path / "made"
        folder.mkdir()
        self.canary().to_filename(path)
        cleaned = without_text(path, folder)
        assert b"Canary" not in cleaned.read_bytes() and b"Canary" not in gzip.decompress(cleaned.read_bytes())
        found = nibabel.load(cleaned.rename(tmp_path / "clean.nii.gz"))
        assert np.array_equal(np.asarray(found.dataobj), phantom())
        np.testing.assert_allclose(found.affine, AFFINE, atol=1e-5)
        assert without_text(tmp_path / "clean.nii.gz", folder) == tmp_path / "clean.nii.gz"
        with gzip.GzipFile("DoeCanary", "wb", 1, (tmp_path / "named.nii.gz").open("wb")) as named:
            named.write(gzip.decompress((tmp_path / "clean.nii.gz").read_bytes()))
        assert b"Canary" not in without_text(tmp_path / "named.nii.gz", folder).read_bytes()

    def test_damaged_files_are_not_sent(self, stand: dict[str, Any], tmp_path: Path) -> None:
        self.canary().to_filename(tmp_path / "scan.nii.gz")
        whole = (tmp_path / "scan.nii.gz").read_bytes()
        for damaged in (whole[: len(whole) // 2], whole[:20] + bytes(20) + whole[40:]):
            (tmp_path / "scan.nii.gz").write_bytes(damaged)
            with Client(stand["recording"]) as client, pytest.raises(TomaatError) as refused:
                client.predict("bright", tmp_path / "scan.nii.gz")
            assert refused.value.code == "BAD_VOXELS"

    @pytest.mark.parametrize("start", [bytes(128) + b"DICM", b"\x08\0\x05\0CS", b"\0\x08\0\x05", b"PK\x03\x04"])
    def test_other_forms_of_dicom(self, stand: dict[str, Any], tmp_path: Path, start: bytes) -> None:
        content = start + b"Doe^Canary" * 20
        for name in ("plain", "packed") if start[:2] != b"PK" else ("plain",):
            (tmp_path / name).write_bytes(gzip.compress(content) if name == "packed" else content)
            with Client(stand["recording"]) as client, pytest.raises(TomaatError) as refused:
                client.predict("bright", tmp_path / name)
            assert (refused.value.code, refused.value.status) == ("FORBIDDEN", None)

    def test_text_stays_if_asked(self, client: Client, tmp_path: Path) -> None:
        self.canary().to_filename(tmp_path / "scan.nii")
        digest = client.predict("bright", tmp_path / "scan.nii", keep_text=True).job.receipt()
        import hashlib

        from tomaat_client import verify_receipt

        [sent] = verify_receipt(digest).content["inputs"]
        assert sent["received"] == f"sha256:{hashlib.sha256((tmp_path / 'scan.nii').read_bytes()).hexdigest()}"

    def test_dicom_series(self, stand: dict[str, Any], client: Client, tmp_path: Path) -> None:
        with Client(stand["recording"]) as elsewhere:
            for given in (stand["series"], f"{stand['series']}/{stand['slice']}"):
                with pytest.raises(TomaatError, match="keep_identity=True") as refused:
                    elsewhere.predict("bright", given)
                assert refused.value.code == "FORBIDDEN"
        # This server computes on this machine alone.
        result = client.predict("bright", stand["series"], formats={"segmentation": "seg.dcm"})
        labels = result.label_map
        reference = nibabel.load(stand["seriesAs"])
        expected = np.asarray(reference.dataobj) > 100
        ours = np.argwhere(labels.array > 0) @ labels.affine[:3, :3].T + labels.affine[:3, 3]
        theirs = np.argwhere(expected) @ reference.affine[:3, :3].T + reference.affine[:3, 3]
        np.testing.assert_allclose(
            ours[np.lexsort(np.round(ours, 1).T)], theirs[np.lexsort(np.round(theirs, 1).T)], atol=1e-2
        )
        assert result.save(tmp_path / "seg.dcm").read_bytes()[128:132] == b"DICM"
        (tmp_path / "empty").mkdir()
        with pytest.raises(TomaatError, match="no DICOM file"):
            client.predict("bright", tmp_path / "empty")

"""Volumes in, label maps out: at the same place in the world, whichever library has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from conftest import AFFINE, phantom, positions, rotated

from tomaat_client import Client, TomaatError
from tomaat_client.volume import read_nrrd, write_nrrd

BRIGHT = phantom() > 100
NIBABEL_AFFINE = AFFINE.astype(np.float32).astype(np.float64)


def itk_image(affine: Any) -> Any:
    """Made by ITK’s own words: LPS, z slowest."""
    image = sitk.GetImageFromArray(phantom().transpose(2, 1, 0).copy())
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    lps = np.diag([-1.0, -1.0, 1.0])
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps @ affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin((lps @ affine[:3, 3]).tolist())
    return image


def itk_positions(image: Any) -> Any:
    """Where ITK sees the voxels that are not 0, as RAS+."""
    mask = sitk.GetArrayFromImage(image) > 0
    points = [image.TransformIndexToPhysicalPoint((int(x), int(y), int(z))) for z, y, x in np.argwhere(mask)]
    world = np.array(points) * (-1, -1, 1)
    return world[np.lexsort(np.round(world, 2).T)]


@pytest.mark.parametrize(
    "affine", [AFFINE, rotated(), np.diag([1.0, 2.0, 3.0, 1.0])], ids=["sheared", "rotated", "plain"]
)
def test_array_with_affine_gives_labels_at_the_same_place(client: Client, affine: Any) -> None:
    result = client.predict("bright", (phantom(), affine))
    labels = result.label_map
    assert np.array_equal(labels.array, BRIGHT)
    np.testing.assert_allclose(labels.affine, affine, rtol=0, atol=1e-12)
    expected = positions(BRIGHT, affine)
    image = labels.to_nibabel()
    np.testing.assert_allclose(positions(np.asarray(image.dataobj) > 0, image.affine), expected, atol=1e-6)
    np.testing.assert_allclose(itk_positions(labels.to_sitk()), expected, atol=1e-6)


def test_nibabel_image(client: Client) -> None:
    image = nibabel.Nifti1Image(phantom(), AFFINE)
    labels = client.predict("bright", image).label_map
    assert np.array_equal(labels.array, BRIGHT)
    np.testing.assert_allclose(labels.affine, AFFINE, atol=1e-12)


def test_nibabel_image_in_metres_is_refused(client: Client) -> None:
    image = nibabel.Nifti1Image(phantom(), AFFINE)
    image.header.set_xyzt_units("meter")
    with pytest.raises(TomaatError, match="mm"):
        client.predict("bright", image)


@pytest.mark.parametrize("affine", [AFFINE, rotated()], ids=["sheared", "rotated"])
def test_sitk_image(client: Client, affine: Any) -> None:
    labels = client.predict("bright", itk_image(affine)).label_map
    assert np.array_equal(labels.array, BRIGHT)
    np.testing.assert_allclose(labels.affine, affine, atol=1e-9)
    np.testing.assert_allclose(itk_positions(labels.to_sitk()), positions(BRIGHT, affine), atol=1e-6)


@pytest.mark.parametrize("ending", ["nii.gz", "nii", "nrrd", "mha"])
def test_file_of_itk_and_saved_result(client: Client, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"scan.{ending}"
    sitk.WriteImage(itk_image(rotated()), str(path))
    result = client.predict("segmentation/any" if ending == "mha" else "bright", str(path))
    expected = positions(BRIGHT, rotated())
    for saved in ("a.nii.gz", "b.nrrd", "c.mha", f"d.{ending}"):
        found = sitk.ReadImage(str(result.save(tmp_path / saved)))
        np.testing.assert_allclose(itk_positions(found), expected, atol=1e-3)
    map_ = result.label_map
    np.testing.assert_allclose(positions(map_.array > 0, map_.affine), expected, atol=1e-3)
    in_nibabel = nibabel.load(tmp_path / "a.nii.gz")
    np.testing.assert_allclose(positions(np.asarray(in_nibabel.dataobj) > 0, in_nibabel.affine), expected, atol=1e-3)


def test_nifti_of_nibabel_in_metres_is_read_in_mm(client: Client, tmp_path: Path) -> None:
    metres = AFFINE.copy()
    metres[:3] /= 1000
    image = nibabel.Nifti1Image(phantom(), metres)
    image.header.set_xyzt_units("meter")
    image.to_filename(tmp_path / "scan.nii.gz")
    labels = client.predict("bright", tmp_path / "scan.nii.gz").label_map
    np.testing.assert_allclose(positions(labels.array > 0, labels.affine), positions(BRIGHT, AFFINE), atol=1e-3)


@pytest.mark.parametrize("space", ["left-anterior-superior", "left-posterior-superior", "right-anterior-superior"])
def test_label_map_of_an_nrrd_in_any_space_and_unit(client: Client, tmp_path: Path, space: str) -> None:
    signs = {"l": -1, "r": 1, "p": -1, "a": 1, "s": 1}
    sign = np.array([signs[word[0]] for word in space.split("-")])
    columns = [sign * rotated()[:3, axis] / 10 for axis in range(4)]
    vectors = [f"({','.join(map(repr, map(float, column)))})" for column in columns]
    header = (
        f"NRRD0004\ntype: short\ndimension: 3\nspace: {space}\nsizes: 23 17 11\nspace directions: {' '.join(vectors[:3])}\n"
        f'kinds: domain domain domain\nendian: little\nencoding: raw\nspace units: "cm" "cm" "cm"\nspace origin: {vectors[3]}\n\n'
    )
    (tmp_path / "scan.nrrd").write_bytes(header.encode() + phantom().tobytes(order="F"))
    labels = client.predict("bright", tmp_path / "scan.nrrd").label_map
    np.testing.assert_allclose(positions(labels.array > 0, labels.affine), positions(BRIGHT, rotated()), atol=1e-6)


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint8", ">i2", "uint16", "int32", "uint32", "int64", "float16", "float32", ">f8"]
)
def test_voxel_types_arrive(client: Client, dtype: str) -> None:
    array = (BRIGHT * 101).astype(dtype)
    service = "any" if dtype == "bool" else "bright"
    assert np.array_equal(client.predict(service, (array, AFFINE)).label_map.array, BRIGHT)


def test_frames_of_an_array(client: Client) -> None:
    frames = np.stack([np.zeros_like(phantom()), phantom()], axis=3)
    result = client.predict("bright", (frames, AFFINE), frame=1)
    assert np.array_equal(result.label_map.array, BRIGHT)
    with pytest.raises(TomaatError) as refused:
        client.predict("bright", (frames, AFFINE))
    assert refused.value.field is not None


def test_nrrd_of_a_view_and_a_fortran_array(tmp_path: Path) -> None:
    for array in (phantom()[::-1, :, ::2], np.asfortranarray(phantom())):
        write_nrrd(tmp_path / "a.nrrd", array, AFFINE)
        found = read_nrrd((tmp_path / "a.nrrd").read_bytes())
        assert np.array_equal(found.array, array)
        by_itk = sitk.ReadImage(str(tmp_path / "a.nrrd"))
        assert np.array_equal(sitk.GetArrayFromImage(by_itk).T, array)


REFUSED = {
    "no affine": (phantom(), "without an affine"),
    "2-D": ((phantom()[0], AFFINE), "shape"),
    "singular": ((phantom(), np.diag([1.0, 0, 1, 1])), "no inverse"),
    "3 x 3": ((phantom(), np.eye(3)), "4 × 4"),
    "not finite": ((phantom(), np.diag([np.nan, 1, 1, 1])), "4 × 4"),
    "complex": ((phantom().astype(complex), AFFINE), "type"),
    "no file": ("nowhere.nii.gz", "does not exist"),
    "no matrix": ((phantom(), "identity"), "4 × 4"),
    "surface of nibabel": (nibabel.GiftiImage(), "no affine"),
    "folder among files": (["/", "/"], "is a folder"),
    "number": (7, "type int"),
    "vector image": (sitk.Image([4, 4, 4], sitk.sitkVectorFloat32, 3), "one component"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_anything_is_sent(client: Client, name: str) -> None:
    given, why = REFUSED[name]
    with pytest.raises(TomaatError, match=why) as refused:
        client.predict("bright", given)
    assert refused.value.code == "BAD_INPUT"
    assert refused.value.status is None
    assert refused.value.field == "volume"


def test_unknown_inputs_and_bad_points_are_refused_before_the_upload(client: Client) -> None:
    for volume, values in [({"no-such": "a.nii.gz"}, {}), ((phantom(), AFFINE), {"seeds": [1.0, 2.0, 3.0]})]:
        with pytest.raises(TomaatError) as refused:
            client.predict("bright", volume, parameters=values)
        assert refused.value.code == "BAD_INPUT"
        assert refused.value.status is None
        assert refused.value.field in ("no-such", "seeds")


def test_volume_of_two_files(client: Client, tmp_path: Path) -> None:
    array = phantom()
    array[0, 0, 0] = 8  # The voxels begin as some DICOM files do.
    image = itk_image(rotated())
    image[0, 0, 0] = 8
    sitk.WriteImage(image, str(tmp_path / "scan.mhd"))
    nibabel.Nifti1Pair(array, rotated()).to_filename(tmp_path / "pair.img")
    for names in (("scan.mhd", "scan.raw"), ("pair.hdr", "pair.img")):
        labels = client.predict("bright", [tmp_path / name for name in names]).label_map
        assert np.array_equal(labels.array, BRIGHT)
        np.testing.assert_allclose(labels.affine, rotated(), atol=1e-4)

"""Makes the scan that the app offers for trying it out, and its true labels.

    python sample.py --maps FOLDER --output FOLDER

A T1-like scan of a head that was not trained on, but chose the recipe, 2 mm, slightly oblique: `sample.nii.gz` (int16)
and `sample-expected.nii.gz` (uint8, the values of `labels.LABELS`). No real person was scanned.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nibabel
import numpy as np

from evaluate import Acquisition, acquire
from synthesis import held_out, read_label_maps

HOW = Acquisition("T1, 2 mm", "t1", (2.0, 2.0, 2.0), (4, -6, 7))


def write(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    image = nibabel.Nifti1Image(voxels, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    print(f"{path}: {voxels.shape} {voxels.dtype}, {path.stat().st_size} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--maps", type=Path, nargs="+", required=True, help="folders of label maps")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=107)
    options = parser.parse_args()
    head = next(m for m in read_label_maps(options.maps) if held_out(m.name))
    voxels, labels, affine = acquire(head, HOW, options.seed, (176, 216, 192))
    write(options.output / "sample.nii.gz", np.rint(voxels).astype(np.int16), affine)
    write(options.output / "sample-expected.nii.gz", labels, affine)


if __name__ == "__main__":
    main()

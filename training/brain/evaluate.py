"""Measures an exported model through the whole pipeline: held-out heads and real scans.

    python evaluate.py --model brain.onnx --maps FOLDER [--real FOLDER] --output FOLDER

Held-out heads are synthesised at 1 mm with seeds of their own, then acquired on grids that training
never makes: oblique, left-handed, thick slices; Dice is counted on those grids. Real scans are
compared with what is known of them, in world space. Writes the figures of each resolution as
`NAME.json`, which `card.py` makes tables of, and pictures of the real scans. About three minutes on
two cores that have nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import nibabel
import numpy as np
import onnxruntime
import torch
from scipy import ndimage

from labels import LABELS, STRUCTURES, TISSUES
from pipeline import RESOLUTIONS, brain_mask, segment
from synthesis import LabelMap, Recipe, held_out, read_label_maps, synthesise

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

Run = Callable[[np.ndarray], np.ndarray]
COLUMNS = ("brain", *TISSUES[1:])
TISSUE_OF_LABEL = np.array([label.tissue for label in LABELS], np.uint8)


@dataclass(frozen=True)
class Acquisition:
    """A way to scan: contrast of synthesis.py, voxel size (mm) and rotations (degrees)."""

    name: str
    contrast: str
    voxel: tuple[float, float, float]
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0)
    left_handed: bool = False


ACQUISITIONS = (
    Acquisition("T1, 1 mm", "t1", (1.0, 1.0, 1.0)),
    Acquisition("T1, 1.2×1×1 mm oblique, left-handed", "t1", (1.2, 1.0, 1.0), (10, -8, 12), True),
    Acquisition("T2, 0.8×0.8×4 mm oblique", "t2", (0.8, 0.8, 4.0), (-12, 6, 5)),
    Acquisition("T2, 1×1×4 mm, left-handed", "t2", (1.0, 1.0, 4.0), (5, 5, -10), True),
    Acquisition("FLAIR, 1×1×3 mm", "flair", (1.0, 1.0, 3.0), (6, 0, -4)),
    Acquisition("proton density, 1×1×3 mm", "pd", (1.0, 1.0, 3.0), (6, 0, -4)),
    Acquisition("random contrast, 1.5 mm", "random", (1.5, 1.5, 1.5), (-6, 9, 0)),
)


def turn_matrix(degrees: tuple[float, float, float]) -> np.ndarray:
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        first, second = [(1, 2), (0, 2), (0, 1)][axis]
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = math.cos(angle)
        turn[first, second], turn[second, first] = -math.sin(angle), math.sin(angle)
        matrix = matrix @ turn
    return matrix


def label_values(tissues: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Values of LABELS from a tissue and a side (0 none, 1 left, 2 right) per voxel."""
    table = np.zeros((len(TISSUES), 3), np.uint8)
    for value, label in enumerate(LABELS):
        for side, name in enumerate(("", "left", "right")):
            if label.side in ("", name):
                table[label.tissue, side] = value
    return table[tissues, sides]


def acquire(
    head: LabelMap, how: Acquisition, seed: int, extent: tuple[float, float, float] = (180, 220, 200)
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A scan of a head: voxels [i, j, k] (0..1000), labels [i, j, k], RAS+ affine."""
    recipe = Recipe(
        spacing=1.0,
        sizes=((208,), (224,), (192,)),
        rotation=3, steep_rotation=3, scale=0.05, shear=0.02, shift=6,
        stripped=0, cut=0, thick=0,
        contrasts={how.contrast: 1.0},
    )  # fmt: skip
    sample = synthesise(head, recipe, torch.Generator().manual_seed(seed))
    image = sample.image.numpy().transpose(2, 1, 0)
    values = label_values(sample.tissues.numpy(), sample.sides.numpy()).transpose(2, 1, 0)
    voxel = np.array(how.voxel)
    size = np.ceil(np.array(extent) / voxel).astype(int)
    linear = turn_matrix(how.turn) @ np.diag(voxel)
    if how.left_handed:
        linear[:, 0] = -linear[:, 0]
    middle = (np.array(image.shape) - 1) / 2
    start = middle - linear @ ((size - 1) / 2)
    # A thick voxel is the mean over its width.
    scan = np.zeros(size, np.float32)
    counts = [max(1, round(mm)) for mm in voxel]
    offsets = [(np.arange(c) + 0.5) / c - 0.5 for c in counts]
    places = [(x, y, z) for x in offsets[0] for y in offsets[1] for z in offsets[2]]
    for place in places:
        scan += ndimage.affine_transform(image, linear, start + linear @ place, tuple(size), order=1)
    truth = ndimage.affine_transform(values, linear, start, tuple(size), order=0)
    affine = np.eye(4)
    affine[:3, :3] = linear
    affine[:3, 3] = start - middle + [7.0, -13.0, 21.0]
    return scan * (1000 / len(places)), truth, affine


def dice(first: np.ndarray, second: np.ndarray) -> float:
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else math.nan


def tissue_dice(predicted: np.ndarray, truth: np.ndarray) -> list[float]:
    """Brain, then each tissue but the background; both arguments hold tissues."""
    return [dice(predicted > 0, truth > 0)] + [
        dice(predicted == tissue, truth == tissue) for tissue in range(1, len(TISSUES))
    ]


def named(scores: list[float], names: tuple[str, ...]) -> dict[str, float | None]:
    return {name: None if math.isnan(score) else round(score, 4) for name, score in zip(names, scores)}


Figures = dict[str, list[dict]]
"""For each resolution its rows."""


def evaluate_held_out(maps: list[LabelMap], run: Run, seeds: int, only: list[str]) -> Figures:
    figures: Figures = {name: [] for name in RESOLUTIONS}
    for how in ACQUISITIONS:
        if only and not any(word in how.name for word in only):
            continue
        for head in maps:
            for seed in range(seeds):
                voxels, truth, affine = acquire(head, how, 50_000 + 97 * seed)
                tissues = TISSUE_OF_LABEL[truth]
                for resolution, spacing in RESOLUTIONS.items():
                    found = segment(voxels, affine, spacing, run)
                    scores = tissue_dice(TISSUE_OF_LABEL[found], tissues)
                    sided = (TISSUE_OF_LABEL[found] == tissues) & (truth > 0)
                    scores.append(float((found == truth)[sided].mean()) if sided.any() else math.nan)
                    dices = named(scores, (*COLUMNS, "right side"))
                    figures[resolution].append({"scan": how.name, "head": head.name, "dice": dices})
                    print(resolution, figures[resolution][-1], flush=True)
    return figures


def on_grid(
    source: nibabel.spatialimages.SpatialImage, data: np.ndarray, like: nibabel.spatialimages.SpatialImage
) -> np.ndarray:
    """`data` on the grid of `source`, nearest neighbour, at the voxels of `like` (world space)."""
    index = np.linalg.inv(source.affine) @ like.affine
    return ndimage.affine_transform(data, index[:3, :3], index[:3, 3], like.shape[:3], order=0)


def read_nrrd(path: Path) -> nibabel.Nifti1Image:
    """A gzip or raw NRRD of bytes as a NIfTI image in RAS+."""
    import gzip

    head, _, body = path.read_bytes().partition(b"\n\n")
    fields = dict(
        line.split(": ", 1) for line in head.decode().splitlines() if ": " in line and line[0] != "#"
    )
    raw = gzip.decompress(body) if fields["encoding"].startswith("gz") else body
    size = tuple(int(n) for n in fields["sizes"].split())
    data = np.frombuffer(raw, np.uint8).reshape(size, order="F")
    vector = lambda text: [float(v) for v in text.strip("()").split(",")]  # noqa: E731
    affine = np.eye(4)
    affine[:3, :3] = np.array([vector(v) for v in fields["space directions"].split()]).T
    affine[:3, 3] = vector(fields["space origin"])
    if fields.get("space", "").startswith(("left-posterior", "LPS")):
        affine = np.diag([-1, -1, 1, 1]) @ affine
    return nibabel.Nifti1Image(data, affine)


def freesurfer_tissues(numbers: np.ndarray) -> np.ndarray:
    lookup = np.zeros(1 + max(int(numbers.max()), 1024), np.uint8)
    for structure in STRUCTURES:
        lookup[[*structure.left, *structure.right, *structure.middle]] = structure.tissue
    lookup[[31, 63]] = 5  # choroid plexus
    lookup[[77, 78, 79, 251, 252, 253, 254, 255]] = 2
    return lookup[numbers.astype(int)]


def picture(path: Path, voxels: np.ndarray, found: np.ndarray, affine: np.ndarray, title: str) -> None:
    """Three planes through the middle of what was found: the scan alone and with its labels."""
    image = nibabel.as_closest_canonical(nibabel.Nifti1Image(voxels.astype(np.float32), affine))
    labels = nibabel.as_closest_canonical(nibabel.Nifti1Image(found.astype(np.uint8), affine))
    scan, overlay = image.get_fdata(), np.asarray(labels.dataobj)
    mm = image.header.get_zooms()[:3]
    inside = np.argwhere(overlay > 0)
    centre = inside.mean(0).astype(int) if len(inside) else np.array(scan.shape) // 2
    centre[0] += int(8 / mm[0])
    top = np.percentile(scan, 99.7)
    figure, panels = plt.subplots(2, 3, figsize=(9, 6))
    for column, axis in enumerate((2, 1, 0)):
        first, second = [a for a in range(3) if a != axis]
        plane, mask = (np.take(a, centre[axis], axis).T for a in (scan, overlay))
        for row in range(2):
            panel = panels[row, column]
            panel.imshow(plane, cmap="gray", origin="lower", vmin=0, vmax=top, aspect=mm[second] / mm[first])
            if row == 1:
                panel.imshow(
                    np.ma.masked_equal(mask, 0), cmap="tab20", origin="lower", vmin=0, vmax=19,
                    alpha=0.55, interpolation="nearest", aspect=mm[second] / mm[first],
                )  # fmt: skip
            panel.axis("off")
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=60, pil_kwargs={"optimize": True})
    plt.close(figure)


def known_of(
    name: str, image: nibabel.spatialimages.SpatialImage, folder: Path
) -> tuple[str, np.ndarray | None, bool]:
    """What is known of a real scan, on its grid: by whom, the tissues (or brain where 0 or 1), whether all tissues."""
    if name == "seg3d_MR":
        mask = read_nrrd(folder / "seg3d_Brain.nrrd")
        return "hand-made brain mask", on_grid(mask, np.asarray(mask.dataobj), image) > 0, False
    if name == "vxm_t1":
        truth = nibabel.load(folder / "vxm_seg.nii.gz")
        return "FreeSurfer", on_grid(truth, freesurfer_tissues(np.asarray(truth.dataobj)), image), True
    if name == "fernando_t2":
        truth = nibabel.load(folder / "fernando_t1_seg_gif.nii.gz")
        numbers = on_grid(truth, np.asarray(truth.dataobj).astype(np.uint8), image)
        return "GIF parcellation of the T1", numbers > 4, False
    if name == "t1_crop":
        mask = nibabel.load(folder / "t1_crop_ref_mindgrab.nii.gz")
        return "another network's brain mask", np.asarray(mask.dataobj) > 0, False
    if name == "mni09a_t1":
        grey, white = (
            nibabel.load(folder / f"mni09a_{kind}.nii.gz").get_fdata() / 255 for kind in ("gm", "wm")
        )
        return "tissue probabilities > ½ (without ventricles)", grey + white > 0.5, False
    if name == "synth01_t1":
        truth = nibabel.load(folder / "synth01_fslabels.nii.gz")
        tissues = freesurfer_tissues(np.asarray(truth.dataobj))
        return "its label map (seen in training)", tissues, True
    return "n/a", None, False


REAL = ("seg3d_MR", "vxm_t1", "fernando_t2", "t1_crop", "mni09a_t1", "hippodeep_t1", "synth01_t1")


def evaluate_real(folder: Path, run: Run, output: Path) -> Figures:
    figures: Figures = {name: [] for name in RESOLUTIONS}
    for name in REAL:
        image = nibabel.load(folder / f"{name}.nii.gz")
        voxels = image.get_fdata(dtype=np.float32)
        against, truth, whole = known_of(name, image, folder)
        for resolution, spacing in RESOLUTIONS.items():
            found = segment(voxels, image.affine, spacing, run)
            tissues = TISSUE_OF_LABEL[found]
            scores = [math.nan] * len(COLUMNS)
            if truth is not None and whole:
                scores = tissue_dice(tissues, truth)
            elif truth is not None:
                scores[0] = dice(tissues > 0, truth)
            row_dice = named(scores, COLUMNS)
            # A mask of the brain, as others make it, takes in the fluid of the furrows.
            mask = None if truth is None or whole else dice(brain_mask(found, image.affine), truth)
            row_dice["mask"] = None if mask is None else round(mask, 4)
            litres = float((found > 0).sum() * abs(np.linalg.det(image.affine[:3, :3])) / 1e6)
            row = {"scan": name, "against": against, "dice": row_dice, "litres": litres}
            figures[resolution].append(row)
            print(resolution, row, flush=True)
            if resolution == next(iter(RESOLUTIONS)):
                said = "" if math.isnan(scores[0]) else f", brain Dice {scores[0]:.3f} ({against})"
                picture(output / f"{name}.png", voxels, found, image.affine, f"{name}{said}")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--maps", type=Path, nargs="+", required=True, help="folders of label maps")
    parser.add_argument("--real", type=Path, help="folder of real scans")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=1, help="scans per head and acquisition")
    parser.add_argument("--only", nargs="*", default=[], help="words; acquisitions with one of them")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    session = onnxruntime.InferenceSession(str(options.model), settings, providers=["CPUExecutionProvider"])

    def run(image: np.ndarray) -> np.ndarray:
        return session.run(["logits"], {"image": image})[0]

    steps = session.get_modelmeta().custom_metadata_map.get("steps")
    trained = f"Trained on a CPU, for {int(steps):,} steps." if steps else "Trained for a short time on a CPU."
    heads = [head for head in read_label_maps(options.maps) if held_out(head.name)]
    found = evaluate_held_out(heads, run, options.seeds, options.only)
    real = evaluate_real(options.real, run, options.output) if options.real else {}
    for name, spacing in RESOLUTIONS.items():
        figures = {"trained": trained, "spacing": spacing, "heldOut": found[name], "real": real.get(name, [])}
        (options.output / f"{name}.json").write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()

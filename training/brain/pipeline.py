"""What happens around the network when it is used: the reference for the app's manifest.

1. Reorient to RAS+ by swapping and flipping axes (oblique scans stay oblique).
2. Voxels that are not finite become 0.
3. Resample linearly to `spacing` mm along each axis; the outer edge of the field of view stays:
   size = round(n · old / new), voxel i of the new grid lies at (i + ½) · new / old − ½ of the old.
4. (v − p0.5) / (p99.5 − p0.5) with the percentiles of all voxels, clipped to 0..1.
5. Crop to the box of the voxels above 0.1 and 4 voxels around it.
6. Pad with 0 on both sides (the odd voxel at the end) to multiples of 16.
7. The network.
8. Scores interpolated linearly at the voxels of the input, then the highest wins; background
   outside the crop.
9. Of the brain (all labels together) the largest part that holds together by faces, edges or corners.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import nibabel
import numpy as np
from nibabel import orientations
from scipy import ndimage

from labels import SIZE_MULTIPLE

RESOLUTIONS = {"fast": 2.0, "fine": 1.75}
"""Millimetres that the network works at; the first is the default."""

PERCENTILES = (0.5, 99.5)
FOREGROUND = 0.1
MARGIN = 4
CLOSING_MM = 5

Scores = np.ndarray
"""float32 [labels, z, y, x]."""


@dataclass(frozen=True)
class Prepared:
    """`image` [z, y, x] float32 for the network, and what leads back."""

    image: np.ndarray
    start: tuple[int, ...]
    """[z, y, x] of the crop in the resampled scan."""
    size: tuple[int, ...]
    """[z, y, x] of the crop."""
    pad: tuple[int, ...]
    """Zeros before the crop on each axis."""
    factors: tuple[float, ...]
    """New spacing / old spacing of z, y, x."""
    ras_size: tuple[int, ...]
    """[z, y, x] of the reoriented input."""
    back: np.ndarray
    """Orientation that undoes step 1, for nibabel."""


def resample_linear(array: np.ndarray, axis: int, positions: np.ndarray) -> np.ndarray:
    """Values of `array` at fractional `positions` along `axis`; beyond the ends the end holds."""
    count = array.shape[axis]
    positions = np.clip(positions, 0, count - 1)
    low = np.floor(positions).astype(np.intp)
    high = np.minimum(low + 1, count - 1)
    shape = [1] * array.ndim
    shape[axis] = -1
    weight = (positions - low).astype(np.float32).reshape(shape)
    return array.take(low, axis) * (1 - weight) + array.take(high, axis) * weight


def prepare(voxels: np.ndarray, affine: np.ndarray, spacing: float) -> Prepared:
    """Steps 1 to 6 for `voxels` [i, j, k] with a RAS+ `affine`."""
    forward = nibabel.io_orientation(affine)
    back = orientations.ornt_transform(orientations.axcodes2ornt("RAS"), forward)
    ras = orientations.apply_orientation(voxels, forward).transpose(2, 1, 0)
    ras_affine = affine @ orientations.inv_ornt_aff(forward, voxels.shape)
    old = np.linalg.norm(ras_affine[:3, :3], axis=0)[::-1]
    image = np.nan_to_num(ras.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    factors = tuple(float(spacing / mm) for mm in old)
    for axis in sorted(range(3), key=lambda a: -factors[a]):
        count = max(1, round(ras.shape[axis] / factors[axis]))
        positions = (np.arange(count) + 0.5) * factors[axis] - 0.5
        image = resample_linear(image, axis, positions)
    low, high = np.percentile(image, PERCENTILES)
    image = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    foreground = image > FOREGROUND
    start, stop = [0, 0, 0], list(image.shape)
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        filled = np.flatnonzero(foreground.any(others))
        if len(filled):
            start[axis] = max(0, int(filled[0]) - MARGIN)
            stop[axis] = min(image.shape[axis], int(filled[-1]) + 1 + MARGIN)
    image = image[tuple(slice(a, b) for a, b in zip(start, stop))]
    missing = [-n % SIZE_MULTIPLE for n in image.shape]
    pad = tuple(n // 2 for n in missing)
    padded = np.pad(image, [(before, n - before) for before, n in zip(pad, missing)])
    return Prepared(padded.astype(np.float32), tuple(start), image.shape, pad, factors, ras.shape, back)


def interpolation(places: np.ndarray, count: int) -> np.ndarray:
    """Matrix [places, count] that interpolates linearly between `count` values; beyond the ends the end holds."""
    places = np.clip(places, 0, count - 1)
    low = np.floor(places).astype(np.intp)
    weight = (places - low).astype(np.float32)
    matrix = np.zeros((len(places), count), np.float32)
    rows = np.arange(len(places))
    matrix[rows, low] = 1 - weight
    matrix[rows, np.minimum(low + 1, count - 1)] += weight
    return matrix


def restore(scores: Scores, prepared: Prepared) -> np.ndarray:
    """Steps 8 and 9: label map [i, j, k], uint8, on the grid of the input."""
    scores = scores[(slice(None), *(slice(p, p + n) for p, n in zip(prepared.pad, prepared.size)))]
    places = [
        (np.arange(n) + 0.5) / factor - 0.5 - start
        for n, factor, start in zip(prepared.ras_size, prepared.factors, prepared.start)
    ]
    along_z, along_y, along_x = (interpolation(p, n) for p, n in zip(places, prepared.size))
    best = np.full(prepared.ras_size, -np.inf, np.float32)
    labels = np.zeros(prepared.ras_size, np.uint8)
    for label, score in enumerate(scores):
        rows = along_y @ (score @ along_x.T)
        score = (along_z @ rows.reshape(len(rows), -1)).reshape(prepared.ras_size)
        labels[score > best] = label
        np.maximum(best, score, out=best)
    for axis, (place, size) in enumerate(zip(places, prepared.size)):
        outside = (place < -0.5) | (place > size - 0.5)
        labels[(slice(None),) * axis + (outside,)] = 0
    parts, count = ndimage.label(labels > 0, np.ones((3, 3, 3)))
    if count > 1:
        sizes = np.bincount(parts.ravel())
        labels[parts != 1 + sizes[1:].argmax()] = 0
    return orientations.apply_orientation(labels.transpose(2, 1, 0), prepared.back)


def segment(
    voxels: np.ndarray, affine: np.ndarray, spacing: float, run: Callable[[np.ndarray], Scores]
) -> np.ndarray:
    """The label map of a scan; `run` maps [1, 1, z, y, x] to scores [1, labels, z, y, x]."""
    prepared = prepare(voxels, affine, spacing)
    return restore(run(prepared.image[None, None])[0], prepared)


def brain_mask(labels: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """The brain as one: all labels, closed by a ball, so that the furrows belong to it. As `detail: mask` in the app."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    margin = int(CLOSING_MM / spacing.min()) + 1
    brain = np.pad(labels > 0, margin)
    grown = ndimage.distance_transform_edt(~brain, sampling=spacing) <= CLOSING_MM
    closed = ndimage.distance_transform_edt(grown, sampling=spacing) > CLOSING_MM
    return closed[(slice(margin, -margin),) * 3]

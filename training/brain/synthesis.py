"""Head scans of any contrast, made from label maps (the idea of SynthSeg, Billot et al. 2023).

One sample: deform a label map (rotation, scale, shear, two elastic fields, mirror), look up a
random intensity for each structure, then bias field, blur, thick slices, noise, cropping, skull
stripping. Everything is computed on the grid that the network sees; partial volume comes from
averaging several shifted look-ups in the 1 mm map. A sample of 0.6 million voxels takes about
0.1 s of one core.

Frame: arrays are [z, y, x] of a RAS+ grid (x grows to the right, y to the front, z to the top).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import nibabel
import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from labels import STRUCTURES, TISSUES

NAMES = tuple(structure.name for structure in STRUCTURES)
INSIDE = torch.tensor([structure.inside for structure in STRUCTURES])
SIDES = {"": 0, "left": 1, "right": 2}


@dataclass(frozen=True)
class LabelMap:
    """Codes [z, y, x] at 1 mm, cropped to the head; a code is 3 · structure + side."""

    name: str
    codes: Tensor
    centre: tuple[float, float, float]
    """Middle of the brain's bounding box, voxel (x, y, z)."""


@dataclass(frozen=True)
class Sample:
    """`image` [z, y, x] in 0..1; `tissues` and `sides` (0 none, 1 left, 2 right) uint8."""

    image: Tensor
    tissues: Tensor
    sides: Tensor
    structures: Tensor


@dataclass(frozen=True)
class Recipe:
    """How far samples may go. Lengths in mm, angles in degrees, chances 0..1."""

    spacing: float = 2.0
    sizes: tuple[tuple[int, ...], ...] = ((64, 80, 96), (80, 96, 112), (80, 96))
    """Choices for z, y and x."""
    rotation: float = 15.0
    steep_rotation: float = 40.0
    """Used about one axis once in twelve samples."""
    scale: float = 0.15
    shear: float = 0.08
    shift: float = 20.0
    coarse_warp: float = 4.0
    fine_warp: float = 1.2
    stripped: float = 0.2
    cut: float = 0.3
    thick: float = 0.4
    contrasts: dict[str, float] = field(
        default_factory=lambda: {"random": 0.1, "t1": 0.38, "t2": 0.28, "flair": 0.14, "pd": 0.06, "ct": 0.04}
    )


def read_label_map(path: Path) -> LabelMap:
    """Reads a whole-head map of FreeSurfer numbers; unknown numbers raise ValueError."""
    image = nibabel.as_closest_canonical(nibabel.load(path))
    numbers = np.asarray(image.dataobj).astype(np.int32)
    table = np.full(1024, 255, np.uint8)
    for index, structure in enumerate(STRUCTURES):
        for side, members in (("", structure.middle), ("left", structure.left), ("right", structure.right)):
            table[list(members)] = 3 * index + SIDES[side]
    codes = table[numbers]
    if (codes == 255).any():
        unknown = np.unique(numbers[codes == 255]).tolist()
        raise ValueError(f"{path.name} holds numbers that labels.py does not know: {unknown}")
    head = np.argwhere(codes >= 3)
    low, high = head.min(0), head.max(0) + 1
    codes = np.pad(codes[tuple(slice(a, b) for a, b in zip(low, high))], 1)
    brain = np.argwhere(TISSUE_OF_CODE.numpy()[codes] > 0)
    centre = (brain.min(0) + brain.max(0)) / 2
    return LabelMap(
        name=path.name.split(".")[0],
        codes=torch.from_numpy(np.ascontiguousarray(codes.transpose(2, 1, 0))),
        centre=(float(centre[0]), float(centre[1]), float(centre[2])),
    )


def _lookup(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.uint8).repeat_interleave(3)


TISSUE_OF_CODE = _lookup([structure.tissue for structure in STRUCTURES])
SIDE_OF_CODE = torch.tensor([0, 1, 2] * len(STRUCTURES), dtype=torch.uint8)


class Dice:
    """Random draws from one seeded generator."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * torch.rand((), generator=self.generator).item()

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def chance(self, probability: float) -> bool:
        return self.uniform(0, 1) < probability

    def choose(self, count: int) -> int:
        return int(torch.randint(count, (), generator=self.generator).item())


# Typical intensities (0..1) of each structure; a sample shifts and spreads them.
_TYPICAL: dict[str, dict[str, float]] = {
    "t1": {
        "air": 0.01, "cortex": 0.55, "white matter": 0.8, "white matter lesion": 0.55, "vessel": 0.35,
        "ventricle": 0.17, "choroid plexus": 0.4, "thalamus": 0.67, "caudate": 0.58, "putamen": 0.63,
        "pallidum": 0.73, "hippocampus": 0.56, "amygdala": 0.55, "accumbens": 0.58,
        "ventral diencephalon": 0.7, "cerebellar white matter": 0.78, "cerebellar cortex": 0.55,
        "brain stem": 0.73, "fluid": 0.17, "optic chiasm": 0.6, "spinal cord": 0.65, "eye": 0.2,
        "soft tissue": 0.5, "lens": 0.4, "mucosa": 0.5, "skin": 0.75, "cord fluid": 0.2, "dura": 0.4,
        "bone": 0.15, "marrow": 0.75, "optic nerve": 0.5,
    },
    "t2": {
        "air": 0.01, "cortex": 0.5, "white matter": 0.36, "white matter lesion": 0.6, "vessel": 0.5,
        "ventricle": 0.92, "choroid plexus": 0.75, "thalamus": 0.42, "caudate": 0.46, "putamen": 0.4,
        "pallidum": 0.3, "hippocampus": 0.52, "amygdala": 0.5, "accumbens": 0.46,
        "ventral diencephalon": 0.38, "cerebellar white matter": 0.36, "cerebellar cortex": 0.48,
        "brain stem": 0.38, "fluid": 0.9, "optic chiasm": 0.4, "spinal cord": 0.4, "eye": 0.95,
        "soft tissue": 0.28, "lens": 0.3, "mucosa": 0.6, "skin": 0.5, "cord fluid": 0.9, "dura": 0.3,
        "bone": 0.1, "marrow": 0.45, "optic nerve": 0.4,
    },
    "flair": {
        "air": 0.01, "cortex": 0.62, "white matter": 0.5, "white matter lesion": 0.9, "vessel": 0.4,
        "ventricle": 0.12, "choroid plexus": 0.35, "thalamus": 0.56, "caudate": 0.6, "putamen": 0.57,
        "pallidum": 0.45, "hippocampus": 0.66, "amygdala": 0.66, "accumbens": 0.6,
        "ventral diencephalon": 0.52, "cerebellar white matter": 0.5, "cerebellar cortex": 0.58,
        "brain stem": 0.5, "fluid": 0.15, "optic chiasm": 0.5, "spinal cord": 0.5, "eye": 0.15,
        "soft tissue": 0.35, "lens": 0.3, "mucosa": 0.6, "skin": 0.6, "cord fluid": 0.15, "dura": 0.35,
        "bone": 0.1, "marrow": 0.45, "optic nerve": 0.5,
    },
    "ct": {
        "air": 0.0, "cortex": 0.42, "white matter": 0.4, "white matter lesion": 0.38, "vessel": 0.41,
        "ventricle": 0.35, "choroid plexus": 0.4, "thalamus": 0.42, "caudate": 0.42, "putamen": 0.42,
        "pallidum": 0.41, "hippocampus": 0.42, "amygdala": 0.42, "accumbens": 0.42,
        "ventral diencephalon": 0.41, "cerebellar white matter": 0.4, "cerebellar cortex": 0.42,
        "brain stem": 0.4, "fluid": 0.35, "optic chiasm": 0.4, "spinal cord": 0.4, "eye": 0.36,
        "soft tissue": 0.42, "lens": 0.45, "mucosa": 0.4, "skin": 0.34, "cord fluid": 0.35,
        "dura": 0.45, "bone": 0.95, "marrow": 0.6, "optic nerve": 0.38,
    },
}  # fmt: skip


def _draw_intensities(dice: Dice, contrast: str) -> tuple[Tensor, Tensor]:
    """Mean and spread of each structure, 0..1."""
    count = len(STRUCTURES)
    if contrast == "random":
        means = torch.rand(count, generator=dice.generator)
        # Structures that scanners see alike are alike half of the time.
        if dice.chance(0.5):
            for follower, leader in (
                ("white matter lesion", "white matter"),
                ("cerebellar white matter", "white matter"),
                ("brain stem", "white matter"),
                ("cerebellar cortex", "cortex"),
                ("hippocampus", "cortex"),
                ("amygdala", "cortex"),
                ("fluid", "ventricle"),
                ("choroid plexus", "ventricle"),
                ("accumbens", "caudate"),
                ("putamen", "caudate"),
            ):
                means[NAMES.index(follower)] = means[NAMES.index(leader)] + 0.06 * dice.normal(1)
        if dice.chance(0.6):
            means[0] = dice.uniform(0, 0.08)
        spreads = 0.06 * torch.rand(count, generator=dice.generator)
    else:
        typical = torch.tensor([_TYPICAL["flair" if contrast == "pd" else contrast][name] for name in NAMES])
        low_contrast = contrast == "ct"
        inside_shift = dice.uniform(0.006, 0.02) if low_contrast else dice.uniform(0.02, 0.06)
        shift = torch.where(INSIDE, inside_shift, 0.12) * dice.normal(count)
        means = typical + shift
        means[0] = abs(typical[0].item() + 0.02 * dice.normal(1).item())
        if contrast == "pd":  # proton density: as FLAIR, but fluid is about as bright as grey matter
            bright = dice.uniform(0.5, 0.85)
            for name in ("ventricle", "fluid", "cord fluid", "eye"):
                means[NAMES.index(name)] = bright
        spreads = torch.where(INSIDE, dice.uniform(0.005, 0.03), dice.uniform(0.01, 0.1)) * torch.ones(count)
        if low_contrast:
            spreads = spreads * 0.3
    spreads[0] = dice.uniform(0, 0.02)
    return means.clamp(0, 1.2), spreads


def _smooth_field(
    dice: Dice, size: tuple[int, int, int], nodes: tuple[int, int, int], channels: int
) -> Tensor:
    """Random field [channels, z, y, x] that varies over size / nodes voxels."""
    coarse = dice.normal(1, channels, *nodes)
    return functional.interpolate(coarse, size=size, mode="trilinear", align_corners=True)[0]


def _blur(image: Tensor, sigmas: tuple[float, float, float]) -> Tensor:
    """Gaussian blur of [z, y, x]; sigmas in voxels."""
    result = image[None, None]
    for axis, sigma in enumerate(sigmas):
        if sigma < 0.2:
            continue
        radius = max(1, math.ceil(2.5 * sigma))
        steps = torch.arange(-radius, radius + 1, dtype=torch.float32)
        kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
        kernel = kernel / kernel.sum()
        shape = [1, 1, 1, 1, 1]
        shape[axis + 2] = -1
        padding = [0, 0, 0]
        padding[axis] = radius
        result = functional.conv3d(result, kernel.reshape(shape), padding=tuple(padding))
    return result[0, 0]


def _draw_affine(dice: Dice, recipe: Recipe) -> Tensor:
    """3×3 matrix: millimetres of the sample (x, y, z) to millimetres of the label map."""
    angles = [math.radians(dice.uniform(-recipe.rotation, recipe.rotation)) for _ in range(3)]
    if dice.chance(1 / 12):
        steep = math.radians(recipe.steep_rotation)
        angles[dice.choose(3)] = dice.uniform(-steep, steep)
    matrix = torch.eye(3)
    for axis, angle in enumerate(angles):
        first, second = [(1, 2), (0, 2), (0, 1)][axis]
        turn = torch.eye(3)
        turn[first, first] = turn[second, second] = math.cos(angle)
        turn[first, second], turn[second, first] = -math.sin(angle), math.sin(angle)
        matrix = matrix @ turn
    common = dice.uniform(1 - recipe.scale, 1 + recipe.scale)
    scales = torch.tensor([common * dice.uniform(0.93, 1.07) for _ in range(3)])
    shear = torch.eye(3)
    for row, column in ((0, 1), (0, 2), (1, 2)):
        shear[row, column] = dice.uniform(-recipe.shear, recipe.shear)
    return matrix @ shear @ torch.diag(scales)


def synthesise(label_map: LabelMap, recipe: Recipe, generator: torch.Generator) -> Sample:
    """One random scan of `label_map` with its labels, both on a grid of `recipe.spacing` mm."""
    dice = Dice(generator)
    size = tuple(choices[dice.choose(len(choices))] for choices in recipe.sizes)
    mirror = dice.chance(0.5)

    # Where each voxel of the sample lies in the label map, in its voxels (1 mm).
    matrix = _draw_affine(dice, recipe) * recipe.spacing
    if mirror:
        matrix[0] = -matrix[0]
    axes = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in size]
    shift = [dice.uniform(-recipe.shift, recipe.shift) for _ in range(3)]
    shift[2] -= 10.0  # a little more neck than air
    extent = [n * recipe.spacing for n in size]
    coarse_nodes = tuple(max(3, round(mm / 40)) for mm in extent)
    fine_nodes = tuple(max(4, round(mm / 14)) for mm in extent)
    warp = _smooth_field(dice, size, coarse_nodes, 3) * dice.uniform(0, recipe.coarse_warp)
    warp += _smooth_field(dice, size, fine_nodes, 3) * dice.uniform(0, recipe.fine_warp)
    position = []
    for axis in range(3):
        plane = (matrix[axis, 2] * axes[0])[:, None, None] + (matrix[axis, 1] * axes[1])[:, None]
        offset = label_map.centre[axis] + shift[axis] + 0.5
        position.append(warp[axis].add_(plane + matrix[axis, 0] * axes[2]).add_(offset))
    flat = label_map.codes.reshape(-1)
    depth, height, width = label_map.codes.shape

    def look_up(x: float, y: float, z: float) -> Tensor:
        index = (position[2] + z).clamp_(0, depth - 1).int().mul_(height)
        index += (position[1] + y).clamp_(0, height - 1).int()
        index *= width
        index += (position[0] + x).clamp_(0, width - 1).int()
        return flat[index.reshape(-1)].reshape(size)

    codes = look_up(0, 0, 0)
    structures = codes // 3
    sides = SIDE_OF_CODE[codes.int()]
    if mirror:
        sides = torch.tensor([0, 2, 1], dtype=torch.uint8)[sides.int()]

    # Intensities.
    names = list(recipe.contrasts)
    weights = torch.tensor([recipe.contrasts[name] for name in names])
    contrast = names[int(torch.multinomial(weights, 1, generator=generator).item())]
    means, spreads = _draw_intensities(dice, contrast)
    outside = ~INSIDE
    if dice.chance(recipe.stripped):
        kept_fluid = dice.chance(0.5)
        means[outside] = 0
        spreads[outside] = 0
        if not kept_fluid:
            for name in ("fluid", "optic chiasm"):
                means[NAMES.index(name)] = spreads[NAMES.index(name)] = 0
    table = means.repeat_interleave(3)
    shifts = [(0.0, 0.0, 0.0)]
    span = recipe.spacing / 4
    kind = dice.choose(3)
    if kind == 1:
        shifts = [(-span, -span, -span), (span, span, -span), (span, -span, span), (-span, span, span)]
    elif kind == 2:
        shifts += [(span, span, span), (-span, -span, -span)]
    image = torch.zeros(size)
    for step in shifts:
        image += table[(codes if step == (0, 0, 0) else look_up(*step)).int()]
    image /= len(shifts)
    spread = spreads[structures.int()]
    texture = _smooth_field(dice, size, tuple(max(4, n // 4) for n in size), 1)[0]
    rough = dice.normal(*size)
    grain = dice.uniform(0, 1)
    image += spread * (rough * (1 - grain) + 1.5 * texture * grain)
    # Soft tissue is muscle and fat: two intensities with smooth borders.
    soft = structures == NAMES.index("soft tissue")
    other = dice.uniform(0, 1) if contrast == "random" else dice.uniform(0.2, 1.0)
    if contrast != "ct" and means[NAMES.index("soft tissue")] > 0 and dice.chance(0.8):
        fat = soft & (texture > dice.uniform(-0.3, 0.8))
        image[fat] += other - means[NAMES.index("soft tissue")]

    # What the scanner does.
    if contrast != "ct" or dice.chance(0.3):
        bias = _smooth_field(dice, size, tuple(3 + dice.choose(3) for _ in range(3)), 1)[0]
        image *= torch.exp(bias * dice.uniform(0, 0.35))
    sigmas = [dice.uniform(0, 0.7) for _ in range(3)] if dice.chance(0.6) else [0.0, 0.0, 0.0]
    if dice.chance(recipe.thick):
        axis = dice.choose(3)
        thickness = dice.uniform(1.3, 7.0 / recipe.spacing)
        sigmas[axis] = max(sigmas[axis], 0.35 * thickness * dice.uniform(0.6, 1.1))
        thin = max(8, round(size[axis] / thickness))
        short = list(size)
        short[axis] = thin
        image = _blur(image, (sigmas[0], sigmas[1], sigmas[2]))
        image = functional.interpolate(image[None, None], size=tuple(short), mode="trilinear")
        image = image + dice.uniform(0, 0.04) * dice.normal(*image.shape)
        image = functional.interpolate(image, size=size, mode="trilinear")[0, 0]
    else:
        image = _blur(image, (sigmas[0], sigmas[1], sigmas[2]))
    noise = 0.06 * dice.uniform(0, 1) ** 2 if dice.chance(0.8) else 0.0
    if contrast == "ct":
        noise *= 0.25
    if noise > 0:
        image = image + noise * dice.normal(*size)
        if dice.chance(0.5):  # magnitude images: Rician
            image = torch.sqrt(image * image + (noise * dice.normal(*size)) ** 2)

    tissues = TISSUE_OF_CODE[codes.int()]
    if dice.chance(recipe.cut):
        _cut(dice, (image, tissues, sides))
    low = dice.uniform(0, 0.01)
    high = dice.uniform(0.985, 1)
    image = scale_percentiles(image, low, high)
    if dice.chance(0.5):
        image = image ** math.exp(0.35 * dice.normal(1).item())
    return Sample(image=image, tissues=tissues, sides=sides, structures=structures)


def _cut(dice: Dice, arrays: tuple[Tensor, ...]) -> None:
    """Zeroes, in all `arrays` alike, what a smaller field of view or a removed face would miss."""
    size = arrays[0].shape
    for _ in range(1 + dice.choose(2)):
        axis = dice.choose(3)
        depth = int(dice.uniform(0, 0.18) * size[axis])
        if depth == 0:
            continue
        start = 0 if axis == 0 or dice.chance(0.5) else size[axis] - depth
        for array in arrays:
            array.narrow(axis, start, depth).zero_()


def scale_percentiles(image: Tensor, low: float, high: float) -> Tensor:
    """Maps the quantiles `low`..`high` (0..1) of an eighth of the voxels to 0..1 and clips."""
    few = image.reshape(-1)[::8].sort().values
    bottom = few[round(low * (len(few) - 1))].item()
    top = few[round(high * (len(few) - 1))].item()
    return ((image - bottom) / max(top - bottom, 1e-6)).clamp(0, 1)


def held_out(name: str) -> bool:
    """Heads that training never sees."""
    return name in ("synthseg_17", "synthseg_18")


def read_label_maps(folders: list[Path]) -> list[LabelMap]:
    """Every label map in `folders` (`synthseg_*.nii.gz`, `*fslabels.nii.gz`), sorted by name."""
    paths = [path for folder in folders for path in sorted(folder.glob("*.nii.gz"))]
    wanted = [path for path in paths if "synthseg_" in path.name or "fslabels" in path.name]
    if not wanted:
        raise FileNotFoundError(f"no label maps (synthseg_*.nii.gz) in {[str(f) for f in folders]}")
    return [read_label_map(path) for path in wanted]


assert len(TISSUES) == 1 + int(TISSUE_OF_CODE.max())

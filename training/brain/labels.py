"""Which structures the label maps hold, and which of our labels each becomes.

The label maps are the training maps of SynthSeg (Apache-2.0): whole heads at 1 mm with FreeSurfer's
numbers for the brain and 502-530 for what lies outside it.
"""

from __future__ import annotations

from typing import NamedTuple

TISSUES = (
    "background",
    "cortex",
    "white matter",
    "deep grey matter",
    "cerebellum",
    "ventricles",
    "brain stem",
)
"""What the network tells apart, by class number."""


class Label(NamedTuple):
    """One value of the exported model: its name, its tissue (index in TISSUES), its side."""

    name: str
    tissue: int
    side: str


LABELS = (
    Label("background", 0, ""),
    Label("left cortex", 1, "left"),
    Label("right cortex", 1, "right"),
    Label("left white matter", 2, "left"),
    Label("right white matter", 2, "right"),
    Label("left deep grey matter", 3, "left"),
    Label("right deep grey matter", 3, "right"),
    Label("left cerebellum", 4, "left"),
    Label("right cerebellum", 4, "right"),
    Label("ventricles", 5, ""),
    Label("brain stem", 6, ""),
)
"""The values of the exported model; the position is the value."""


SIZE_MULTIPLE = 16
"""Every side of the network's input must be a multiple of this: four halvings."""


class Structure(NamedTuple):
    """A group of label-map numbers that share one random intensity."""

    name: str
    tissue: int
    left: tuple[int, ...] = ()
    right: tuple[int, ...] = ()
    middle: tuple[int, ...] = ()
    inside: bool = True
    """False: outside the brain and the fluid around it; removed by skull stripping."""


STRUCTURES = (
    Structure("air", 0, middle=(0,), inside=False),
    Structure("cortex", 1, (3,), (42,)),
    Structure("white matter", 2, (2,), (41,)),
    Structure("white matter lesion", 2, (25,), (57,)),
    Structure("vessel", 2, (30,), (62,)),
    Structure("ventricle", 5, middle=(4, 5, 43, 44, 14, 15, 72)),
    Structure("choroid plexus", 5, middle=(136, 137, 163, 164)),
    Structure("thalamus", 3, (10,), (49,)),
    Structure("caudate", 3, (11,), (50,)),
    Structure("putamen", 3, (12,), (51,)),
    Structure("pallidum", 3, (13,), (52,)),
    Structure("hippocampus", 3, (17,), (53,)),
    Structure("amygdala", 3, (18,), (54,)),
    Structure("accumbens", 3, (26,), (58,)),
    Structure("ventral diencephalon", 3, (28,), (60,)),
    Structure("cerebellar white matter", 4, (7,), (46,)),
    Structure("cerebellar cortex", 4, (8,), (47,)),
    Structure("brain stem", 6, middle=(16,)),
    Structure("fluid", 0, middle=(24,)),
    Structure("optic chiasm", 0, middle=(85,)),
    Structure("spinal cord", 0, middle=(502,), inside=False),
    Structure("eye", 0, middle=(506,), inside=False),
    Structure("soft tissue", 0, middle=(507,), inside=False),
    Structure("lens", 0, middle=(508,), inside=False),
    Structure("mucosa", 0, middle=(509,), inside=False),
    Structure("skin", 0, middle=(511,), inside=False),
    Structure("cord fluid", 0, middle=(512,), inside=False),
    Structure("dura", 0, middle=(514,), inside=False),
    Structure("bone", 0, middle=(515,), inside=False),
    Structure("marrow", 0, middle=(516,), inside=False),
    Structure("optic nerve", 0, middle=(530,), inside=False),
)

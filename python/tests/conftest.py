"""The servers that packages/server/test/python-client.test.ts starts for these tests."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tomaat_client import Client

# Oblique, anisotropic, left-handed: swapped or mirrored axes show.
AFFINE = np.array([[-1.4, 0.35, 0.3, 30], [0.4, 1.9, -0.5, -40], [-0.2, 0.3, 2.8, 12], [0, 0, 0, 1.0]])


def rotated() -> Any:
    """The same without shear, as files of ITK need it: left-handed, 1.5 × 2 × 2.75 mm."""
    first, second = np.radians(20), np.radians(-35)
    about_z = [[np.cos(first), -np.sin(first), 0], [np.sin(first), np.cos(first), 0], [0, 0, 1]]
    about_x = [[1, 0, 0], [0, np.cos(second), -np.sin(second)], [0, np.sin(second), np.cos(second)]]
    affine = np.eye(4)
    affine[:3, :3] = np.array(about_z) @ about_x @ np.diag([-1.5, 2.0, 2.75])
    affine[:3, 3] = (30, -40, 12)
    return affine


def phantom() -> Any:
    """A block off the middle and a smaller, brighter one, so that no symmetry hides a fault."""
    array = np.full((23, 17, 11), 10, np.int16)
    array[3:9, 2:8, 1:5] = 400
    array[14:17, 11:15, 7:10] = 900
    return array


def positions(mask: Any, affine: Any) -> Any:
    """Where the voxels of a mask lie, mm, RAS+; in an order of their own."""
    world = np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]
    return world[np.lexsort(np.round(world, 2).T)]


@pytest.fixture(scope="session")
def stand() -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(Path(os.environ["TOMAAT_STAND"]).read_text())
    return facts


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable or file of the user's plays a part."""
    for name in ("API_KEY", "CA", "FINGERPRINT", "REGISTRY"):
        monkeypatch.delenv(f"TOMAAT_{name}", raising=False)
    monkeypatch.setenv("TOMAAT_DATA", str(tmp_path / "none"))


@pytest.fixture
def client(stand: dict[str, Any]) -> Iterator[Client]:
    with Client(stand["server"]) as open_client:
        yield open_client

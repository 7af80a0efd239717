"""From a checkpoint to the app in the box, in one command:

    python release.py --weights averaged.pt --maps FOLDER --real FOLDER

1. ONNX, checked against PyTorch → `apps/brain/brain.onnx`
2. its SHA-256 → `apps/brain/tomaat.yaml`
3. the least Dice of the self-test: what the sample reaches, less a margin → `apps/brain/tomaat.yaml`
4. figures of both resolutions, pictures (`evaluate.py`, in a process of its own)
5. tables, pictures, limitations → card, read-me, manifest (`card.py`)

Without `--weights` the model that is there is measured again (steps 2 to 5).
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel
import numpy as np
import onnxruntime

from card import APP, write_card
from evaluate import dice
from labels import LABELS
from pipeline import RESOLUTIONS, segment

MODEL = APP / "brain.onnx"
MANIFEST = APP / "tomaat.yaml"
SELFTEST_MARGIN = 0.03
"""Other machines and runtimes round otherwise."""


def put(pattern: str, text: str) -> None:
    """Replaces the only match of `pattern` in the manifest by `text`."""
    new, count = re.subn(pattern, text, MANIFEST.read_text(), flags=re.MULTILINE)
    if count != 1:
        raise SystemExit(f"{MANIFEST} has {count} places for {text!r}; there has to be one ({pattern}).")
    MANIFEST.write_text(new)


def sample_dice(threads: int) -> float:
    """The least Dice over the labels that the sample reaches at the default resolution."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(MODEL), settings, providers=["CPUExecutionProvider"])
    scan = nibabel.load(APP / "sample.nii.gz")
    truth = np.asarray(nibabel.load(APP / "sample-expected.nii.gz").dataobj)
    spacing = next(iter(RESOLUTIONS.values()))
    found = segment(
        scan.get_fdata(dtype=np.float32),
        scan.affine,
        spacing,
        lambda image: session.run(["logits"], {"image": image})[0],
    )
    return min(dice(found == value, truth == value) for value in range(1, len(LABELS)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, help="checkpoint of train.py; the model that is there if missing")
    parser.add_argument("--maps", type=Path, nargs="+", required=True, help="folders of label maps")
    parser.add_argument("--real", type=Path, required=True, help="folder of real scans")
    parser.add_argument("--figures", type=Path, help="keep figures and pictures here")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()

    if options.weights:
        from export import publish

        publish(options.weights, MODEL)
    put(r"^  sha256: [0-9a-f]{64}$", f"  sha256: {hashlib.sha256(MODEL.read_bytes()).hexdigest()}")
    least = sample_dice(options.threads)
    put(r"^  dice: [0-9.]+$", f"  dice: {least - SELFTEST_MARGIN:.2f}")
    print(f"the sample reaches a Dice of {least:.3f} at least", flush=True)

    with tempfile.TemporaryDirectory() as temporary:
        figures = options.figures or Path(temporary)
        figures.mkdir(parents=True, exist_ok=True)
        program = [sys.executable, str(Path(__file__).with_name("evaluate.py")), "--model", str(MODEL)]
        program += ["--maps", *map(str, options.maps), "--real", str(options.real)]
        program += ["--output", str(figures), "--threads", str(options.threads)]
        subprocess.run(program, check=True)
        write_card(figures)
    print(f"{APP} is up to date. Look at the pictures, then: npx tomaat check apps/brain")


if __name__ == "__main__":
    main()

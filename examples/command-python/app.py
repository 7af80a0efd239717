"""Otsu's threshold (Otsu 1979), with Python's standard library alone.

The last three arguments are the folder of the inputs, the folder for the outputs, and the file of the parameters.
A line {"fraction": 0.4, "stage": "..."} on stdout is progress, any other goes to the job's log. Exit code 0: done;
2: the input is wrong, and the last line on stderr tells the caller why; any other: the program failed.
"""

import array
import gzip
import json
import math
import pathlib
import struct
import sys

TYPES = {2: "B", 256: "b", 4: "h", 512: "H", 8: "i", 768: "I", 16: "f", 64: "d"}
BINS = 256


def refuse(message):
    print(message, file=sys.stderr)
    sys.exit(2)


def progress(fraction, stage):
    print(json.dumps({"fraction": fraction, "stage": stage}), flush=True)


def read_nifti(path):
    """Header and voxels of the first component, scaled. TOMAAT writes NIfTI-1, little-endian, with the sform set."""
    data = gzip.decompress(path.read_bytes())
    if struct.unpack_from("<i", data)[0] != 348:
        refuse("The volume has an axis of more than 32767 voxels. Crop it first.")
    dim = struct.unpack_from("<8h", data, 40)
    (datatype,) = struct.unpack_from("<h", data, 70)
    offset, slope, intercept = struct.unpack_from("<3f", data, 108)
    if datatype not in TYPES:
        refuse("Voxels of NIfTI's type %d are not read here. Convert them to float32." % datatype)
    voxels = array.array(TYPES[datatype])
    count = dim[1] * dim[2] * dim[3]
    voxels.frombytes(data[int(offset) : int(offset) + count * voxels.itemsize])
    if sys.byteorder == "big":
        voxels.byteswap()
    if slope not in (0, 1) or (slope == 1 and intercept != 0):
        voxels = array.array("d", (v * slope + intercept for v in voxels))
    return data[:348], voxels


def write_labels(path, header, labels):
    """The labels under the header of the input: the same grid, another type."""
    header = bytearray(header)
    dim = struct.unpack_from("<8h", header, 40)
    struct.pack_into("<8h", header, 40, 3, *dim[1:4], 1, 1, 1, 1)
    struct.pack_into("<h", header, 68, 0)  # no intent
    struct.pack_into("<2h", header, 70, 2, 8)  # uint8
    struct.pack_into("<3f", header, 108, 352, 1, 0)
    path.write_bytes(gzip.compress(bytes(header) + b"\0\0\0\0" + labels, 1))


def finite(voxels):
    """The voxels without NaN and infinite ones: masked background and divisions by 0, common after registration."""
    return array.array(voxels.typecode, filter(math.isfinite, voxels)) if voxels.typecode in "fd" else voxels


def otsu(voxels):
    """The level that parts the histogram into the two classes with the largest variance between them."""
    if not voxels:
        refuse("No voxel has a finite value. Send a volume with an image in it.")
    low = min(voxels)
    high = max(voxels)
    if not low < high:
        refuse("All finite voxels have the value %g, so there is nothing to separate. Send a volume with contrast." % low)
    counts = [0] * BINS
    scale = BINS / (high - low)
    for v in voxels:
        counts[min(BINS - 1, int((v - low) * scale))] += 1
    total = sum(counts)
    total_sum = sum(i * n for i, n in enumerate(counts))
    best = best_bin = 0
    below = below_sum = 0
    for i, n in enumerate(counts):
        below += n
        below_sum += i * n
        if below in (0, total):
            continue
        difference = below_sum / below - (total_sum - below_sum) / (total - below)
        variance = below * (total - below) * difference * difference
        if variance > best:
            best, best_bin = variance, i
    return low + (best_bin + 1) / scale


def main():
    inputs, outputs, parameters = (pathlib.Path(argument) for argument in sys.argv[-3:])
    invert = json.loads(parameters.read_text())["invert"]
    progress(0.0, "reading")
    header, voxels = read_nifti(inputs / "volume.nii.gz")
    progress(0.3, "finding the threshold")
    level = otsu(finite(voxels))
    print("threshold", level, flush=True)
    progress(0.6, "marking")
    labels = bytes(math.isfinite(v) and (v >= level) != invert for v in voxels)
    write_labels(outputs / "segmentation.nii.gz", header, labels)
    (outputs / "threshold.txt").write_text("Otsu's threshold is %.6g.\n" % level)
    progress(1.0, "done")


main()

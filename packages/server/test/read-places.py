"""What nibabel and SimpleITK read of the place of each file named on the command line, as one JSON array.

A library that is not here, or that refuses a file, gives null.
"""

import json
import sys

try:
    import nibabel
except ImportError:
    nibabel = None
try:
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
except ImportError:
    sitk = None


def by_nibabel(path):
    if nibabel is None or not path.endswith(".nii"):
        return None
    header = nibabel.load(path).header
    qform, qcode = header.get_qform(coded=True)
    sform, scode = header.get_sform(coded=True)
    rows = lambda matrix: None if matrix is None else matrix.tolist()
    return {
        "affine": nibabel.load(path).affine.tolist(),
        "qform": rows(qform),
        "sform": rows(sform),
        "codes": [int(qcode), int(scode)],
        "units": header.get_xyzt_units(),
        "zooms": [float(zoom) for zoom in header.get_zooms()[:3]],
    }


def by_itk(path):
    if sitk is None:
        return None
    try:
        image = sitk.ReadImage(path)
    except RuntimeError:
        return None
    dimension = image.GetDimension()
    direction = image.GetDirection()
    return {
        "origin": image.GetOrigin()[:3],
        "spacing": image.GetSpacing()[:3],
        "direction": [direction[row * dimension + column] for row in range(3) for column in range(3)],
        "size": image.GetSize()[:3],
    }


print(json.dumps([{"nibabel": by_nibabel(path), "itk": by_itk(path)} for path in sys.argv[1:]]))

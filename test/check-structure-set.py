"""What pydicom reads in RT structure sets, held against the label maps and the series that they were made of.

check-structure-set.py CASES: a JSON file with a list of {structures, series, size, affine, labels}. `structures` is a file,
`series` the files that it was made of, `affine` takes a voxel index to RAS mm, row by row, `labels` is a file of uint8, x fastest.
Prints a JSON list.
"""
import json
import sys

import numpy
import pydicom

lps = numpy.array([-1, -1, 1])


def frames_of(image):
    """Position, orientation and pixel spacing of each frame of an image, of which a classic one has one."""
    if "PerFrameFunctionalGroupsSequence" not in image:
        return [(image.ImagePositionPatient, image.ImageOrientationPatient, image.PixelSpacing)]
    shared = image.SharedFunctionalGroupsSequence[0]

    def of(group, name):
        return (group if name in group else shared)[name][0]

    return [
        (
            of(group, "PlanePositionSequence").ImagePositionPatient,
            of(group, "PlaneOrientationSequence").ImageOrientationPatient,
            of(group, "PixelMeasuresSequence").PixelSpacing,
        )
        for group in image.PerFrameFunctionalGroupsSequence
    ]


def inside(points, columns, rows):
    """The pixels whose centres are inside a polygon by the even-odd rule; points are (column, row)."""
    x, y = numpy.meshgrid(numpy.arange(columns), numpy.arange(rows))
    result = numpy.zeros((rows, columns), bool)
    for (ax, ay), (bx, by) in zip(points, numpy.roll(points, -1, axis=0)):
        if ay == by:
            continue
        low, high = int(numpy.ceil(min(ay, by))), int(numpy.ceil(max(ay, by)))
        low, high = max(low, 0), min(high, rows)
        cross = ax + (y[low:high] - ay) / (by - ay) * (bx - ax)
        result[low:high] ^= x[low:high] < cross
    return result


def check(case):
    rt = pydicom.dcmread(case["structures"])
    series = [pydicom.dcmread(path, stop_before_pixels=True) for path in case["series"]]
    labels = numpy.fromfile(case["labels"], numpy.uint8).reshape(case["size"][::-1])
    affine = numpy.array(case["affine"], float).reshape(4, 4)
    images = {image.SOPInstanceUID: (image, frames_of(image)) for image in series}
    wrong, off_plane, areas = 0, 0.0, {}
    for roi in rt.ROIContourSequence:
        value = int(roi.ReferencedROINumber)
        found = numpy.zeros(labels.shape, bool)
        area = 0.0
        for contour in roi.get("ContourSequence", []):
            assert contour.ContourGeometricType == "CLOSED_PLANAR"
            points = numpy.array(contour.ContourData, float).reshape(-1, 3)
            assert len(points) == contour.NumberOfContourPoints >= 3
            reference = contour.ContourImageSequence[0]
            image, frames = images[reference.ReferencedSOPInstanceUID]
            position, orientation, spacing = frames[int(reference.get("ReferencedFrameNumber", 1)) - 1]
            position, row, column = (numpy.array(v, float) for v in (position, orientation[:3], orientation[3:]))
            relative = points - position
            off_plane = max(off_plane, numpy.abs(relative @ numpy.cross(row, column)).max())
            pixels = numpy.c_[relative @ row / float(spacing[1]), relative @ column / float(spacing[0])]
            index = numpy.linalg.solve(affine[:3, :3], position * lps - affine[:3, 3])
            z = int(round(index[2]))
            assert numpy.abs(index - [0, 0, z]).max() < 0.02, index
            found[z] ^= inside(pixels, image.Columns, image.Rows)
            following = numpy.roll(pixels, -1, axis=0)
            area += (pixels[:, 0] * following[:, 1] - following[:, 0] * pixels[:, 1]).sum() / 2
        wrong += int((found != (labels == value)).sum())
        count = int((labels == value).sum())
        # Signed: the outlines of holes run the other way.
        areas[value] = area / count if count > 0 else None
    frame = rt.ReferencedFrameOfReferenceSequence[0]
    study = frame.RTReferencedStudySequence[0]
    referenced = study.RTReferencedSeriesSequence[0]
    copied = ["StudyInstanceUID", "PatientName", "PatientID", "PatientBirthDate", "StudyDate"]
    structures = rt.StructureSetROISequence
    return {
        "wrong": wrong,
        "unknown": sorted(set(numpy.unique(labels).tolist()) - {0} - {int(one.ROINumber) for one in structures}),
        "offPlane": off_plane,
        "areas": areas,
        "differs": [name for name in copied if str(series[0].get(name) or "") != str(rt.get(name) or "")],
        "patientName": str(rt.PatientName),
        "names": {int(one.ROINumber): str(one.ROIName) for one in structures},
        "colors": {int(one.ReferencedROINumber): list(one.get("ROIDisplayColor", [])) for one in rt.ROIContourSequence},
        "types": {int(one.ReferencedROINumber): one.RTROIInterpretedType for one in rt.RTROIObservationsSequence},
        "references": referenced.SeriesInstanceUID == series[0].SeriesInstanceUID
        and study.ReferencedSOPInstanceUID == series[0].StudyInstanceUID
        and sorted(one.ReferencedSOPInstanceUID for one in referenced.ContourImageSequence) == sorted(images),
        "frameOfReference": {one.ReferencedFrameOfReferenceUID for one in structures}
        == {frame.FrameOfReferenceUID}
        == {rt.FrameOfReferenceUID}
        == {series[0].FrameOfReferenceUID},
    }


print(json.dumps([check(case) for case in json.load(open(sys.argv[1]))]))

"""What pydicom and highdicom read in segmentations, held against the label maps and the series that they were made of.

check-segmentation.py CASES: a JSON file with a list of {segmentation, series, size, affine, labels, values}. `segmentation` is a
file, `series` the files that it was made of, `affine` takes a voxel index to RAS mm, row by row, `labels` is a file of uint8, x
fastest, and `values` has the label of each segment number. Prints a JSON list.
"""
import json
import sys

import highdicom
import numpy
import pydicom

lps = numpy.array([-1, -1, 1])


def frames_of(image):
    """Positions of the frames of an image, of which a classic one has one."""
    if "PerFrameFunctionalGroupsSequence" not in image:
        return [numpy.array(image.ImagePositionPatient, float)]
    groups = image.PerFrameFunctionalGroupsSequence
    return [numpy.array(g.PlanePositionSequence[0].ImagePositionPatient, float) for g in groups]


def by_position(seg, case, labels, series):
    """Voxels that are not as in the label map, each frame put where its position says; and how far frames lie from the images
    that they name, mm."""
    affine = numpy.array(case["affine"], float).reshape(4, 4)
    values = {int(number): value for number, value in case["values"].items()}
    pixels = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    found = numpy.zeros_like(labels)
    places = {image.SOPInstanceUID: frames_of(image) for image in series}
    distance = 0
    for frame, group in enumerate(seg.PerFrameFunctionalGroupsSequence):
        position = numpy.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        index = numpy.linalg.solve(affine[:3, :3], position * lps - affine[:3, 3])
        z = int(round(index[2]))
        assert numpy.abs(index - [0, 0, z]).max() < 0.02, (frame, index)
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        own = places[source.ReferencedSOPInstanceUID][int(source.get("ReferencedFrameNumber", 1)) - 1]
        distance = max(distance, numpy.abs(own - position).max())
        if seg.SegmentationType == "BINARY":
            number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
            assert not found[z][pixels[frame] > 0].any(), "segments overlap"
            found[z][pixels[frame] > 0] = values[number]
        else:
            found[z] = pixels[frame]
    return int((found != labels).sum()), float(distance)


def by_highdicom(case, labels):
    """Voxels that highdicom places elsewhere, by their place in the world; its message where it forms no volume."""
    affine = numpy.array(case["affine"], float).reshape(4, 4)
    values = {int(number): value for number, value in case["values"].items()}
    read = highdicom.seg.segread(case["segmentation"])
    try:
        volume = read.get_volume(combine_segments=True, relabel=False)
    except RuntimeError as error:
        return str(error)
    indices = numpy.argwhere(volume.array > 0)
    found = numpy.zeros_like(labels)
    if len(indices) > 0:
        world = (numpy.c_[indices, numpy.ones(len(indices))] @ volume.affine.T)[:, :3] * lps
        x, y, z = numpy.rint(numpy.linalg.solve(affine[:3, :3], (world - affine[:3, 3]).T)).astype(int)
        found[z, y, x] = [values[int(number)] for number in volume.array[tuple(indices.T)]]
    return int((found != labels).sum())


def code(sequence):
    return [sequence[0].CodingSchemeDesignator, sequence[0].CodeValue, sequence[0].CodeMeaning]


def check(case):
    seg = pydicom.dcmread(case["segmentation"])
    series = [pydicom.dcmread(path, stop_before_pixels=True) for path in case["series"]]
    labels = numpy.fromfile(case["labels"], numpy.uint8).reshape(case["size"][::-1])
    wrong, distance = by_position(seg, case, labels, series)
    copied = ["StudyInstanceUID", "FrameOfReferenceUID", "PatientName", "PatientID", "PatientBirthDate", "StudyDate"]
    return {
        "wrong": wrong,
        "distance": distance,
        "highdicom": by_highdicom(case, labels),
        "differs": [name for name in copied if str(series[0].get(name) or "") != str(seg.get(name) or "")],
        "patientName": str(seg.PatientName),
        "names": {int(one.SegmentNumber): str(one.SegmentLabel) for one in seg.SegmentSequence},
        "types": {int(one.SegmentNumber): code(one.SegmentedPropertyTypeCodeSequence) for one in seg.SegmentSequence},
        "categories": {
            int(one.SegmentNumber): code(one.SegmentedPropertyCategoryCodeSequence) for one in seg.SegmentSequence
        },
        "colors": {
            int(one.SegmentNumber): list(one.RecommendedDisplayCIELabValue)
            for one in seg.SegmentSequence
            if "RecommendedDisplayCIELabValue" in one
        },
        "references": sorted(
            one.ReferencedSOPInstanceUID for one in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
        )
        == sorted({image.SOPInstanceUID for image in series}),
    }


print(json.dumps([check(case) for case in json.load(open(sys.argv[1]))]))

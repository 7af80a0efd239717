"""What pydicom and highdicom read in a segmentation, held against the label map and the series that it was made of.

check-segmentation.py SEGMENTATION EXPECTED SERIES…: EXPECTED is a JSON file with size, affine (voxel index to RAS mm, row by
row), labels (a file of uint8, x fastest) and values (label value of each segment number). Prints JSON.
"""
import json
import sys

import highdicom
import numpy
import pydicom

seg = pydicom.dcmread(sys.argv[1])
expected = json.load(open(sys.argv[2]))
series = [pydicom.dcmread(path, stop_before_pixels=True) for path in sys.argv[3:]]
size = expected["size"]
labels = numpy.fromfile(expected["labels"], numpy.uint8).reshape(size[::-1])
affine = numpy.array(expected["affine"], float).reshape(4, 4)
values = {int(number): value for number, value in expected["values"].items()}
lps = numpy.array([-1, -1, 1])


def frames_of(image):
    """Positions of the frames of an image, of which a classic one has one."""
    if "PerFrameFunctionalGroupsSequence" not in image:
        return [numpy.array(image.ImagePositionPatient, float)]
    groups = image.PerFrameFunctionalGroupsSequence
    return [numpy.array(g.PlanePositionSequence[0].ImagePositionPatient, float) for g in groups]


def by_position():
    """The label map again, each frame where its position says; and how far frames lie from the images that they name."""
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


def by_highdicom():
    """Voxels that highdicom places elsewhere, by their place in the world; None where it has no volume of a tilted series."""
    read = highdicom.seg.segread(sys.argv[1])
    try:
        volume = read.get_volume(combine_segments=True, relabel=False)
    except (ValueError, RuntimeError) as error:
        return str(error)
    indices = numpy.argwhere(volume.array > 0)
    found = numpy.zeros_like(labels)
    if len(indices) > 0:
        world = (numpy.c_[indices, numpy.ones(len(indices))] @ volume.affine.T)[:, :3] * lps
        x, y, z = numpy.rint(numpy.linalg.solve(affine[:3, :3], (world - affine[:3, 3]).T)).astype(int)
        found[z, y, x] = [values[int(number)] for number in volume.array[tuple(indices.T)]]
    return int((found != labels).sum())


wrong, distance = by_position()
print(
    json.dumps(
        {
            "wrong": wrong,
            "distance": distance,
            "highdicom": by_highdicom(),
            "sameStudy": {image.StudyInstanceUID for image in series} == {seg.StudyInstanceUID},
            "sameFrameOfReference": {image.FrameOfReferenceUID for image in series} == {seg.FrameOfReferenceUID},
            "patient": str(series[0].PatientName) == str(seg.PatientName)
            and series[0].get("PatientID") == seg.get("PatientID"),
            "patientName": str(seg.PatientName),
            "labels": [str(segment.SegmentLabel) for segment in seg.SegmentSequence],
            "colors": [list(segment.get("RecommendedDisplayCIELabValue", [])) for segment in seg.SegmentSequence],
        }
    )
)

"""What pydicom reads in key pictures, held against the label maps and the images that they were made of.

check-key-picture.py CASES: a JSON file with a list of {picture, series, size, affine, labels, colors}. `picture` is a file, `series`
the files that it was made of, `affine` takes a voxel index to RAS mm, row by row, `labels` is a file of uint8, x fastest, and `colors`
has the red, green and blue of each value. Every pixel of the picture is put where the header of the image that it names says that it
is. Prints a JSON list.
"""
import json
import sys

import numpy
import pydicom
from scipy.ndimage import binary_erosion, map_coordinates

to_ras = numpy.array([-1, -1, 1])
# Outlines are two pixels wide: what is more than two steps from the next label is within.
step = numpy.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)


class Image:
    """An image, or a frame of one: its values, window and place."""

    def __init__(self, dataset, number):
        groups = []
        self.pixels = dataset.pixel_array.astype(float)
        if "PerFrameFunctionalGroupsSequence" in dataset:
            self.pixels = self.pixels[number - 1]
            groups = [dataset.PerFrameFunctionalGroupsSequence[number - 1], dataset.SharedFunctionalGroupsSequence[0]]

        def value(sequence, name):
            for group in groups:
                if sequence in group and name in group[sequence].value[0]:
                    return group[sequence].value[0][name].value
            return dataset.get(name)

        slope = value("PixelValueTransformationSequence", "RescaleSlope")
        intercept = value("PixelValueTransformationSequence", "RescaleIntercept")
        self.pixels = self.pixels * float(1 if slope is None else slope) + float(intercept or 0)
        self.position = numpy.array(value("PlanePositionSequence", "ImagePositionPatient"), float)
        self.orientation = numpy.array(value("PlaneOrientationSequence", "ImageOrientationPatient"), float)
        self.spacing = numpy.array(value("PixelMeasuresSequence", "PixelSpacing"), float)
        self.center = numpy.atleast_1d(value("FrameVOILUTSequence", "WindowCenter") or numpy.nan).astype(float)[0]
        self.width = numpy.atleast_1d(value("FrameVOILUTSequence", "WindowWidth") or numpy.nan).astype(float)[0]

    def shades(self):
        """Brightness from 0 to 255: the window of the header (LINEAR), or the range of most pixels where there is none."""
        center, width = self.center - 0.5, self.width - 1
        within = abs(self.pixels - self.center) < self.width / 2
        if not within.mean() >= 0.01:
            low, high = numpy.percentile(self.pixels, [1, 99.5])
            center, width = (low + high) / 2, high - low
        return 255 * numpy.clip((self.pixels - center) / width + 0.5, 0, 1)

    def labels(self, volume, affine):
        """The label of each pixel, by its place in the patient."""
        rows, columns = numpy.indices(self.pixels.shape)
        right, down = columns * self.spacing[1], rows * self.spacing[0]
        place = (
            self.position[:, None, None]
            + self.orientation[:3, None, None] * right
            + self.orientation[3:, None, None] * down
        )
        ras = (place * to_ras[:, None, None]).reshape(3, -1)
        index = numpy.linalg.solve(affine[:3, :3], ras - affine[:3, 3:4])
        nearest = numpy.rint(index).astype(int)
        assert abs(index - nearest).max() < 0.1, abs(index - nearest).max()
        return volume[nearest[2], nearest[1], nearest[0]].reshape(self.pixels.shape)


def check(case):
    picture = pydicom.dcmread(case["picture"])
    affine = numpy.array(case["affine"], float).reshape(4, 4)
    volume = numpy.fromfile(case["labels"], numpy.uint8).reshape(case["size"][::-1])
    reference = picture.SourceImageSequence[0]
    datasets = [pydicom.dcmread(path) for path in case["series"]]
    [source] = [d for d in datasets if d.SOPInstanceUID == reference.ReferencedSOPInstanceUID]
    image = Image(source, int(reference.get("ReferencedFrameNumber", 1)))
    labels = image.labels(volume, affine)
    largest = max((plane > 0).sum() for plane in volume)

    # Where the image is in the picture: its size in mm says how large, the brightness says where.
    rgb = picture.pixel_array.astype(int)
    height, width = [round(n * s / float(p)) for n, s, p in zip(labels.shape, image.spacing, picture.PixelSpacing)]
    left = (rgb.shape[1] - width) // 2
    y = (numpy.arange(height) + 0.5) * labels.shape[0] / height
    x = (numpy.arange(width) + 0.5) * labels.shape[1] / width
    grid = numpy.meshgrid(y - 0.5, x - 0.5, indexing="ij")
    expected = map_coordinates(image.shades(), grid, order=1, mode="nearest")
    large = labels[numpy.ix_(y.astype(int), x.astype(int))]
    is_grey = (rgb.max(2) == rgb.min(2))[:, left : left + width]
    green = rgb[:, left : left + width, 1]

    def difference(top):
        part = slice(top, top + height, 5)
        return abs(green[part, ::5] - expected[::5, ::5])[is_grey[part, ::5]].mean()

    tops = range(rgb.shape[0] - height + 1)
    top = min(tops, key=difference)
    part = rgb[top : top + height, left : left + width]

    # The letters at the edges cover some pixels.
    free = numpy.ones((height, width), bool)
    middle_x, middle_y = width // 2, height // 2
    for box in [(slice(0, 30), slice(middle_x - 30, middle_x + 30)), (slice(-30, None), slice(middle_x - 30, middle_x + 30)),
                (slice(middle_y - 15, middle_y + 15), slice(0, 60)), (slice(middle_y - 15, middle_y + 15), slice(-60, None))]:
        free[box] = False
    outline = numpy.zeros((height, width), bool)
    wrong = 0
    for value, color in case["colors"].items():
        region = large == int(value)
        own = region & ~binary_erosion(region, step, iterations=2, border_value=0)
        outline |= own
        wrong += int((((part == color).all(2) != own) & free).sum())
    inside = free & ~outline
    off = abs(part[inside] - expected[inside][:, None]).max(1)
    return {
        "wrong": wrong,
        "off": float(off.max()),
        "outline": int(outline.sum()),
        "is largest": int((labels > 0).sum()) == int(largest),
        "square": abs(float(picture.PixelSpacing[0]) / float(picture.PixelSpacing[1]) - 1) < 0.01,
        "shape": list(rgb.shape),
        "same study": picture.StudyInstanceUID == source.StudyInstanceUID and picture.PatientID == source.PatientID,
        "orientation": list(picture.PatientOrientation),
    }


with open(sys.argv[1]) as file:
    print(json.dumps([check(case) for case in json.load(file)]))

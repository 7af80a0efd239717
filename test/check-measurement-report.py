"""What pydicom and highdicom read in structured reports of volumes, held against the label maps, the series and the segmentations.

check-measurement-report.py CASES: a JSON file with a list of {report, segmentation, series, size, labels, values}. `series` has the
files of the series, `labels` is a file of uint8, x fastest, and `values` has the label of each segment number. Prints a JSON list.
"""
import json
import sys

import highdicom
import numpy
import pydicom
from pydicom.sr.coding import Code


def frames_of(image):
    """Position, orientation and spacing of the frames of an image, of which a classic one has one."""
    if "PerFrameFunctionalGroupsSequence" not in image:
        return [(image.ImagePositionPatient, image.ImageOrientationPatient, image.PixelSpacing)]
    shared = image.SharedFunctionalGroupsSequence[0]
    found = []
    for group in image.PerFrameFunctionalGroupsSequence:
        first = lambda name: (group if name in group else shared)[name][0]
        found.append((
            first("PlanePositionSequence").ImagePositionPatient,
            first("PlaneOrientationSequence").ImageOrientationPatient,
            first("PixelMeasuresSequence").PixelSpacing,
        ))
    return found


def voxel_millilitres(series):
    """The volume of a voxel, from the headers alone: of its parallelepiped, and the product of the distances of neighbours."""
    frames = [frame for image in series for frame in frames_of(image)]
    row, column = numpy.array(frames[0][1], float).reshape(2, 3)
    normal = numpy.cross(row, column)
    positions = numpy.array(sorted((list(map(float, f[0])) for f in frames), key=lambda p: numpy.dot(p, normal)))
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    rows, columns = map(float, frames[0][2])
    edges = numpy.array([row * columns, column * rows, step])
    return abs(numpy.linalg.det(edges)) / 1000, float(numpy.prod(numpy.linalg.norm(edges, axis=1))) / 1000


def code(value):
    return [value.scheme_designator, value.value, value.meaning]


def group_of(group):
    segment = next(item for item in group.referenced_segment)
    (measurement,) = group.get_measurements(Code("118565006", "SCT", "Volume"))
    sites = group.finding_sites
    reference = segment.ReferencedSOPSequence[0]
    return {
        "name": group.tracking_identifier,
        "trackingUid": str(group.tracking_uid),
        "category": code(group.finding_category),
        "finding": code(group.finding_type),
        "site": code(sites[0].value) if sites else None,
        "side": code(sites[0].laterality) if sites and sites[0].laterality else None,
        "number": int(reference.ReferencedSegmentNumber),
        "instance": [reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID],
        "series": str(group.referenced_segment[1].value),
        "millilitres": float(measurement.value),
        "unit": code(measurement.unit),
    }


def tree(item, depth=0):
    """A content tree, one line for each item, without values that differ between two writers of the same report."""
    name = item.ConceptNameCodeSequence[0]
    template = item.ContentTemplateSequence[0].TemplateIdentifier if "ContentTemplateSequence" in item else ""
    line = f"{depth} {item.get('RelationshipType', '')} {item.ValueType} {name.CodingSchemeDesignator} {name.CodeValue} {template}"
    lines = [line.strip()]
    for child in item.get("ContentSequence", []):
        lines += tree(child, depth + 1)
    return lines


def by_highdicom(groups, series, segmentation):
    """A report of the same groups by highdicom, for its tree and its evidence."""
    for image in series:
        # It refuses an empty first value, which is correct.
        image.SpecificCharacterSet = "ISO_IR 192"
    sr = highdicom.sr
    observer = sr.ObserverContext(
        observer_type=Code("121007", "DCM", "Device"),
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid="1.2.3", name="a", manufacturer_name="b", model_name="c", serial_number="d"
        ),
    )
    measured = []
    for one in groups:
        sites = [sr.FindingSite(Code(*swapped(one["site"])), one["side"] and Code(*swapped(one["side"])))] if one["site"] else None
        measured.append(
            sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
                tracking_identifier=sr.TrackingIdentifier(uid=one["trackingUid"], identifier=one["name"]),
                referenced_segment=sr.ReferencedSegment(
                    *one["instance"], one["number"], source_series=sr.SourceSeriesForSegmentation(one["series"])
                ),
                finding_category=Code(*swapped(one["category"])),
                finding_type=Code(*swapped(one["finding"])),
                finding_sites=sites,
                algorithm_id=sr.AlgorithmIdentification("n", "v", family=Code("123109", "DCM", "Artificial Intelligence")),
                measurements=[sr.Measurement(Code("118565006", "SCT", "Volume"), 1.5, Code("mL", "UCUM", "mL"))],
            )
        )
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=Code("363679005", "SCT", "Imaging procedure"),
        imaging_measurements=measured,
    )
    return sr.ComprehensiveSR(
        evidence=[*series, segmentation],
        content=content[0],
        series_instance_uid="1.2.3.4",
        series_number=1,
        sop_instance_uid="1.2.3.5",
        instance_number=1,
        manufacturer="x",
        is_complete=True,
    )


def swapped(code):
    scheme, value, meaning = code
    return value, scheme, meaning


def evidence_of(report):
    """Series and instances of the evidence, in order of their UIDs."""
    return sorted(
        [series.SeriesInstanceUID, sorted(one.ReferencedSOPInstanceUID for one in series.ReferencedSOPSequence)]
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
    )


def check(case):
    series = [pydicom.dcmread(path, stop_before_pixels=True) for path in case["series"]]
    segmentation = pydicom.dcmread(case["segmentation"])
    report = highdicom.sr.srread(case["report"])
    groups = [group_of(one) for one in report.content.get_volumetric_roi_measurement_groups()]
    labels = numpy.fromfile(case["labels"], numpy.uint8)
    voxel, box = voxel_millilitres(series)
    segments = {int(one.SegmentNumber): one for one in segmentation.SegmentSequence}
    of = lambda one: segments[one["number"]]
    counts = [int((labels == case["values"][str(one["number"])]).sum()) for one in groups]
    copied = ["StudyInstanceUID", "PatientName", "PatientID", "PatientBirthDate", "StudyDate"]
    differs = [name for name in copied if str(series[0].get(name) or "") != str(report.get(name) or "")]
    again = by_highdicom(groups, series, segmentation)
    return {
        "groups": groups,
        "counts": counts,
        "millilitres": [count * voxel for count in counts],
        "boxByVoxel": box / voxel,
        "tracked": all(
            one["trackingUid"] == of(one).TrackingUID
            and one["name"] == of(one).TrackingID
            and one["finding"] == code(highdicom.sr.CodedConcept.from_dataset(of(one).SegmentedPropertyTypeCodeSequence[0]))
            for one in groups
        ),
        "refers": all(one["instance"] == [segmentation.SOPClassUID, segmentation.SOPInstanceUID] for one in groups),
        "sourceSeries": sorted({one["series"] for one in groups}) == [series[0].SeriesInstanceUID],
        "sameTree": tree(report) == tree(again),
        "sameEvidence": evidence_of(report) == evidence_of(again),
        "differs": differs,
        "patientName": str(report.PatientName),
    }


print(json.dumps([check(case) for case in json.load(open(sys.argv[1]))]))

import type { DicomFormat } from '@tomaat/core';
import { characterSetNames } from '../packages/core/src/dicom/character-sets.ts';
import { syntaxFault } from '../packages/core/src/dicom/decode-frame.ts';
import { safePrivateElements } from '../packages/core/src/dicom/deidentification-rules.ts';
import { otherObjects } from '../packages/core/src/dicom/object-kinds.ts';
import { transferSyntaxes } from '../packages/core/src/dicom/transfer-syntaxes.ts';

/** The DICOM conformance statement (PS3.2), from the tables of the code. */

export const syntaxNames: Record<keyof typeof transferSyntaxes, string> = {
  implicitLittleEndian: 'Implicit VR Little Endian',
  explicitLittleEndian: 'Explicit VR Little Endian',
  deflated: 'Deflated Explicit VR Little Endian',
  explicitBigEndian: 'Explicit VR Big Endian (retired)',
  rleLossless: 'RLE Lossless',
  jpegBaseline: 'JPEG Baseline (Process 1)',
  jpegExtended: 'JPEG Extended (Process 2 and 4)',
  jpegSpectralSelection: 'JPEG Spectral Selection, Non-Hierarchical (Process 6 and 8) (retired)',
  jpegFullProgression: 'JPEG Full Progression, Non-Hierarchical (Process 10 and 12) (retired)',
  jpegLossless: 'JPEG Lossless, Non-Hierarchical (Process 14)',
  jpegLosslessFirstOrder:
    'JPEG Lossless, Non-Hierarchical, First-Order Prediction (Process 14, Selection Value 1)',
  jpegLsLossless: 'JPEG-LS Lossless',
  jpegLsNearLossless: 'JPEG-LS Lossy (Near-Lossless)',
  jpeg2000Lossless: 'JPEG 2000 (Lossless Only)',
  jpeg2000: 'JPEG 2000',
  htj2kLossless: 'High-Throughput JPEG 2000 (Lossless Only)',
  htj2kLosslessRpcl: 'High-Throughput JPEG 2000 with RPCL (Lossless Only)',
  htj2k: 'High-Throughput JPEG 2000',
};
const uncompressed: readonly (keyof typeof transferSyntaxes)[] = [
  'implicitLittleEndian',
  'explicitLittleEndian',
  'deflated',
  'explicitBigEndian',
];

/** The objects that are written, by the name of the format. */
export const writtenObjects: Readonly<
  Record<DicomFormat, readonly [name: string, uid: string, syntax: string]>
> = {
  'seg.dcm': ['Segmentation, BINARY', '1.2.840.10008.5.1.4.1.1.66.4', 'Explicit VR Little Endian'],
  'labelmap.dcm': ['Label Map Segmentation', '1.2.840.10008.5.1.4.1.1.66.7', 'RLE Lossless'],
  'rtstruct.dcm': ['RT Structure Set', '1.2.840.10008.5.1.4.1.1.481.3', 'Implicit VR Little Endian'],
  'sr.dcm': ['Comprehensive SR, template 1500', '1.2.840.10008.5.1.4.1.1.88.33', 'Explicit VR Little Endian'],
  'key.dcm': ['Secondary Capture Image', '1.2.840.10008.5.1.4.1.1.7', 'Explicit VR Little Endian'],
};

export function conformancePage(): string {
  const syntaxes = Object.entries(transferSyntaxes).map(([key, uid]) => {
    const name = key as keyof typeof transferSyntaxes;
    const fault = syntaxFault(uid, !uncompressed.includes(name), { decodeFrame: async () => ({}) as never });
    return `| ${syntaxNames[name]} | ${uid} | ${fault ? 'no' : 'yes'} |`;
  });
  const written = Object.entries(writtenObjects).map(
    ([format, [name, uid, syntax]]) => `| ${name} | ${uid} | \`${format}\` | ${syntax} |`,
  );
  const leftOut = otherObjects.map(([uid, name]) => `| ${name} | ${uid} |`);
  const privateElements = safePrivateElements.map(
    ({ creator, group, element }) => `| ${creator} | (${hex(group, 4)},xx${hex(element, 2)}) |`,
  );
  return `# DICOM conformance statement

What TOMAAT reads and writes of DICOM, in the order of PS3.2. How to use it is in the [guide](../guides/dicom.md).

## Implementation model

TOMAAT is a server with HTTP interfaces of its own, a command line, a page and an SDK. All of them take DICOM files (PS3.10) as
files, folders, parts of a form, and zip archives, and give results as files. There is no DIMSE service: no association is opened or
accepted. The SDK is a user agent of DICOMweb (PS3.18) and an origin server of nothing. So is the server with the setting \`dicomweb\`: it finds a series by
its UID (QIDO-RS), and retrieves it (WADO-RS).

| service | role | media types |
|---|---|---|
| QIDO-RS: search for studies, series and instances | user agent | application/dicom+json |
| WADO-RS: retrieve studies, series, instances and metadata | user agent | multipart/related; type="application/dicom", application/dicom+json |
| STOW-RS: store instances | user agent | multipart/related; type="application/dicom" in, application/dicom+json out |

Files without a preamble, without file meta information or with a wrong group length are read where the encoding can be told from
the first elements. Media directories (DICOMDIR) are not needed and left out.

## Images that are read

An image is read whatever its storage SOP class if it has a place in the body: \`ImagePositionPatient\` and \`ImageOrientationPatient\`,
of the image or of each of its frames. These are images of CT, MR, PET, nuclear medicine and others with one frame per file, enhanced and
legacy-converted multi-frame images of CT, MR and PET, and secondary captures with a place. Photometric interpretations are MONOCHROME1
and MONOCHROME2, with 8 to 32 bits allocated; colour is refused.

| attribute | use |
|---|---|
| ImagePositionPatient, ImageOrientationPatient, PixelSpacing | the place of each slice; the order of slices. SliceThickness, SpacingBetweenSlices, SliceLocation and InstanceNumber are not used |
| RescaleSlope, RescaleIntercept | values, for each slice or frame |
| BitsAllocated, BitsStored, HighBit, PixelRepresentation | stored values; the sign is that of the header, also of compressed pixels |
| SeriesInstanceUID, SeriesNumber | which images belong together |
| TemporalPositionIndex, EchoNumbers, DiffusionBValue, AcquisitionNumber and others | frames of a 4-D series |
| WindowCenter, WindowWidth | the first view on the page |

Objects of these classes are left out by name where they lie among the images:

| object | SOP class |
|---|---|
${leftOut.join('\n')}

A segmentation of the type BINARY or LABELMAP, uncompressed or in RLE, is read as a label map where it is sent without images.

## Objects that are written

| object | SOP class | format | transfer syntax |
|---|---|---|---|
${written.join('\n')}

Each is in the study and the frame of reference of the images, in a series of its own with a number from 1000 upwards. Patient, study and character
set are copied from the images. UIDs have the root \`2.25\` (PS3.5 B.2) and follow from the job: the same job gives the same UIDs, so that
a result that is stored twice is one object in the archive. Private elements have the creator \`TOMAAT\`.

A result that takes the place of an earlier one, of the same series with fewer images, names it: a report in PredecessorDocumentsSequence, a structure
set in PredecessorStructureSetSequence, a segmentation and a picture in RelatedSeriesSequence, with the purpose 122401 (Same Anatomy): each result is a
series of its own.

## Transfer syntaxes

| name | UID | read |
|---|---|---|
${syntaxes.join('\n')}

## Character sets

Read: the default repertoire, and ${characterSetNames.join(', ')}. Text of an unknown set is read as ISO_IR 100. Results keep the character
set of the images where it can say all names of the labels, and are in ISO_IR 192 (UTF-8) otherwise.

## De-identification

The Basic Application Confidentiality Profile (PS3.15 E, table E.1-1 of January 2025), with these options:

| option | code | |
|---|---|---|
| Retain Longitudinal Temporal Information with Modified Dates | 113107 | on the command line and the page always; in the SDK \`shiftDates\` |
| Retain Patient Characteristics | 113108 | \`--keep-patient-characteristics\` |
| Retain Safe Private | 113111 | always |

Pixels are not cleaned: text that may be burned in is warned of. UIDs are replaced by a keyed hash, the same for the same key. These
private elements are kept, all others are removed:

| private creator | element |
|---|---|
${privateElements.join('\n')}

## Security

Connections are HTTPS except on the machine itself ([SECURITY.md](../../SECURITY.md)). Files and results are stored in the data folder,
readable by its owner alone, until they expire.
`;
}

const hex = (value: number, digits: number) => value.toString(16).padStart(digits, '0');

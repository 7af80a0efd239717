/** A tag as one number: group × 65536 + element. */
export type Tag = number;

/** The attributes that are read or written by name, after PS3.6. */
export const tags = {
  transferSyntaxUid: 0x00020010,
  mediaStorageSopClassUid: 0x00020002,
  mediaStorageSopInstanceUid: 0x00020003,
  specificCharacterSet: 0x00080005,
  imageType: 0x00080008,
  sopClassUid: 0x00080016,
  sopInstanceUid: 0x00080018,
  studyDate: 0x00080020,
  seriesDate: 0x00080021,
  acquisitionDate: 0x00080022,
  contentDate: 0x00080023,
  acquisitionDateTime: 0x0008002a,
  studyTime: 0x00080030,
  seriesTime: 0x00080031,
  acquisitionTime: 0x00080032,
  contentTime: 0x00080033,
  accessionNumber: 0x00080050,
  modality: 0x00080060,
  manufacturer: 0x00080070,
  studyDescription: 0x00081030,
  seriesDescription: 0x0008103e,
  referencedSopClassUid: 0x00081150,
  referencedSopInstanceUid: 0x00081155,
  patientName: 0x00100010,
  patientId: 0x00100020,
  patientBirthDate: 0x00100030,
  patientSex: 0x00100040,
  patientWeight: 0x00101030,
  sliceThickness: 0x00180050,
  echoTime: 0x00180081,
  spacingBetweenSlices: 0x00180088,
  diffusionBValue: 0x00189087,
  mrDiffusionSequence: 0x00189117,
  mrEchoSequence: 0x00189114,
  effectiveEchoTime: 0x00189082,
  studyInstanceUid: 0x0020000d,
  seriesInstanceUid: 0x0020000e,
  studyId: 0x00200010,
  seriesNumber: 0x00200011,
  acquisitionNumber: 0x00200012,
  instanceNumber: 0x00200013,
  imagePositionPatient: 0x00200032,
  imageOrientationPatient: 0x00200037,
  frameOfReferenceUid: 0x00200052,
  temporalPositionIdentifier: 0x00200100,
  frameContentSequence: 0x00209111,
  planePositionSequence: 0x00209113,
  planeOrientationSequence: 0x00209116,
  temporalPositionIndex: 0x00209128,
  dimensionIndexValues: 0x00209157,
  samplesPerPixel: 0x00280002,
  photometricInterpretation: 0x00280004,
  planarConfiguration: 0x00280006,
  numberOfFrames: 0x00280008,
  rows: 0x00280010,
  columns: 0x00280011,
  pixelSpacing: 0x00280030,
  bitsAllocated: 0x00280100,
  bitsStored: 0x00280101,
  highBit: 0x00280102,
  pixelRepresentation: 0x00280103,
  burnedInAnnotation: 0x00280301,
  rescaleIntercept: 0x00281052,
  rescaleSlope: 0x00281053,
  pixelMeasuresSequence: 0x00289110,
  frameVoiLutSequence: 0x00289132,
  pixelValueTransformationSequence: 0x00289145,
  sharedFunctionalGroupsSequence: 0x52009229,
  perFrameFunctionalGroupsSequence: 0x52009230,
  floatPixelData: 0x7fe00008,
  doubleFloatPixelData: 0x7fe00009,
  pixelData: 0x7fe00010,
} as const satisfies Record<string, Tag>;

const keywords = new Map<Tag, string>(
  Object.entries(tags).map(([name, tag]) => [tag, `${name[0].toUpperCase()}${name.slice(1)}`]),
);

/** A tag in a message: “ImagePositionPatient (0020,0032)”, or the numbers alone. */
export function tagName(tag: Tag): string {
  const hex = tag.toString(16).padStart(8, '0').toUpperCase();
  const numbers = `(${hex.slice(0, 4)},${hex.slice(4)})`;
  const keyword = keywords
    .get(tag)
    ?.replace(/Uid$/, 'UID')
    .replace(/^Sop/, 'SOP')
    .replace('SopInstance', 'SOPInstance');
  return keyword ? `${keyword} ${numbers}` : numbers;
}

export const isPixelData = (tag: Tag): boolean =>
  tag === tags.pixelData || tag === tags.floatPixelData || tag === tags.doubleFloatPixelData;

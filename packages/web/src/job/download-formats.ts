/** The formats of results by name, in the order in which they are offered. Which of them can be had is not decided here. */
const formatNames = {
  'seg.dcm': 'Segmentation (DICOM SEG)',
  'rtstruct.dcm': 'Structure set (DICOM RTSTRUCT)',
  'sr.dcm': 'Measurements (DICOM SR)',
  'key.dcm': 'Key picture (DICOM)',
  'labelmap.dcm': 'Label map (DICOM LABELMAP)',
  zip: 'All DICOM results (zip)',
  'nii.gz': 'NIfTI (.nii.gz)',
  nrrd: 'NRRD (.nrrd)',
  mha: 'MetaImage (.mha)',
  nii: 'NIfTI, not compressed (.nii)',
  vtk: 'Surface (.vtk)',
  stl: 'Surface (.stl)',
  csv: 'Table (.csv)',
  txt: 'Text (.txt)',
  json: 'JSON (.json)',
  h5: 'Transform (.h5)',
  mat: 'Transform (.mat)',
} as const satisfies Record<string, string>;

const names = new Map<string, string>(Object.entries(formatNames));
const places = new Map<string, number>([...names.keys()].map((format, place) => [format, place]));

/** A format as people call it; one that has no name here as it is. */
export const formatName = (format: string): string => names.get(format) ?? format;

/** Compares formats for a list: those of DICOM first, those that are not known here last. */
export const compareFormats = (a: string, b: string): number =>
  (places.get(a) ?? places.size) - (places.get(b) ?? places.size);

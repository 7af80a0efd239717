import { z } from 'zod';

/**
 * The position of the voxels as a file's header states it: in the numbers, units and forms of that file. The affine
 * is computed from it, and everything else uses the affine. A result on the same grid in a file of the same format repeats
 * it, because other programs read it differently: they choose another form of a NIfTI file, and ignore the units of
 * NRRD and MetaImage files. It contains only numbers and listed words: no text of a file can pass through it.
 */
export type FileGeometry = NiftiGeometry | MetaImageGeometry | NrrdGeometry | DicomGeometry;
export type NiftiGeometry = z.infer<typeof niftiSchema>;
export type MetaImageGeometry = z.infer<typeof metaImageSchema>;
export type NrrdGeometry = z.infer<typeof nrrdSchema>;
export type DicomGeometry = z.infer<typeof dicomSchema>;

// Arrays of a fixed length rather than tuples: client generators do not support tuples in JSON Schema.
const three = <T extends z.ZodType>(item: T) => z.array(item).length(3);
const vector = three(z.number());
const code = z
  .int()
  .min(1)
  .max(2 ** 31 - 1);

const niftiSchema = z.strictObject({
  format: z.literal('nifti'),
  version: z.union([z.literal(1), z.literal(2)]),
  /** xyzt_units: the unit of length and that of time. */
  units: z.int().min(0).max(63),
  /** pixdim[0], the handedness of the qform (qfac), and pixdim[1] to [3], the spacing. */
  pixdim: z.array(z.number()).length(4),
  /** Absent if the code is 0. */
  qform: z.strictObject({ code, quaternion: vector, offset: vector }).optional(),
  /** `rows` are srow_x, srow_y and srow_z. Absent if the code is 0 or the numbers are unusable. */
  sform: z.strictObject({ code, rows: z.array(z.number()).length(12) }).optional(),
});

/** MetaIO's names of units of length. */
export const metaImageUnits = ['?', 'um', 'mm', 'cm'] as const;

const metaImageSchema = z.strictObject({
  format: z.literal('metaimage'),
  /** TransformMatrix: the direction of axis i is row i, LPS. */
  matrix: z.array(z.number()).length(9),
  offset: vector,
  spacing: vector,
  units: z.enum(metaImageUnits).optional(),
});

/** Spaces of three dimensions, lower case. */
export const nrrdSpaces = [
  'right-anterior-superior',
  'ras',
  'left-anterior-superior',
  'las',
  'left-posterior-superior',
  'lps',
  'scanner-xyz',
  '3d-right-handed',
] as const;
/** Words for units of length, lower case; an empty word is an unknown unit. */
export const nrrdUnits = [
  '',
  'nm',
  'nanometer',
  'nanometers',
  'um',
  'micron',
  'microns',
  'micrometer',
  'micrometers',
  'mm',
  'millimeter',
  'millimeters',
  'cm',
  'centimeter',
  'centimeters',
  'm',
  'meter',
  'meters',
] as const;
const nrrdUnitsOfAxes = three(z.enum(nrrdUnits));

const nrrdSchema = z.strictObject({
  format: z.literal('nrrd'),
  /** 'dimension': the header has "space dimension: 3" instead of a name. */
  space: z.enum([...nrrdSpaces, 'dimension']).optional(),
  origin: vector.optional(),
  directions: three(vector).optional(),
  /** One for each coordinate of space. */
  spaceUnits: nrrdUnitsOfAxes.optional(),
  /** The axes of a file without directions. */
  spacings: vector.optional(),
  axisMins: vector.optional(),
  axisMaxs: vector.optional(),
  centers: three(z.enum(['cell', 'node', '???'])).optional(),
  units: nrrdUnitsOfAxes.optional(),
});

/** Images state their place one by one, and no result is written as such images: nothing is stated again. */
const dicomSchema = z.strictObject({ format: z.literal('dicom') });

/** Checks what came as JSON from another process or machine, or lay in a database. */
export const fileGeometrySchema = z.discriminatedUnion('format', [
  niftiSchema,
  metaImageSchema,
  nrrdSchema,
  dicomSchema,
]);

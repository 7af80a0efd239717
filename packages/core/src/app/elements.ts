import { z } from 'zod';
import { extensionsByChoice, volumeMediaTypes } from '../formats/table.ts';

/**
 * The elements of a service: its inputs and outputs, with the words of the TOMAAT v1 protocol. The
 * manifest, the web form, the command line's flags, v1's `/interface` and the client's types all come from
 * these schemas.
 */

/** Names of inputs, outputs and parameters: they become form fields, flags and file names. */
export const elementName = z
  .string()
  .regex(
    /^[a-z][a-z0-9_-]{0,39}$/i,
    'must begin with a letter and contain only letters, digits, - and _ (at most 40)',
  );

const common = {
  label: z.string().max(200).optional().describe('Its label in forms; the name if missing'),
  description: z.string().max(2000).optional().describe('A help text'),
};

export const inputSchemas = {
  volume: z.strictObject({
    type: z.literal('volume'),
    ...common,
    modality: z.string().max(40).optional().describe('MRI, CT, PET, US …'),
    optional: z.boolean().default(false).describe('Whether a prediction works without it'),
    frames: z
      .enum(['one', 'all'])
      .default('one')
      .describe('one: a 4-D file needs the choice of a frame; all: its frames come as components'),
  }),
  slider: z.strictObject({
    type: z.literal('slider'),
    ...common,
    minimum: z.number(),
    maximum: z.number(),
    step: z.number().positive().optional(),
    default: z.number().optional().describe('The minimum if missing'),
    unit: z.string().max(20).optional(),
  }),
  checkbox: z.strictObject({ type: z.literal('checkbox'), ...common, default: z.boolean().default(false) }),
  radiobutton: z.strictObject({
    type: z.literal('radiobutton'),
    ...common,
    options: z.array(z.string().min(1).max(100)).min(1).max(100),
    default: z.string().optional().describe('The first option if missing'),
  }),
  fiducials: z.strictObject({
    type: z.literal('fiducials'),
    ...common,
    optional: z.boolean().default(false),
    minimumPoints: z.int().min(0).default(1),
    maximumPoints: z.int().min(1).default(10_000),
  }),
  transform: z.strictObject({
    type: z.literal('transform'),
    ...common,
    optional: z.boolean().default(false),
  }),
};

/** Checks the fields of an input against each other, for the schemas of inputs. */
export function checkInput(
  input: z.infer<(typeof inputSchemas)[keyof typeof inputSchemas]>,
  context: z.RefinementCtx,
): void {
  if (input.type === 'slider') {
    if (!(input.minimum < input.maximum)) {
      context.addIssue({ code: 'custom', path: ['maximum'], message: 'must be greater than the minimum' });
    }
    if (input.default !== undefined && (input.default < input.minimum || input.default > input.maximum)) {
      context.addIssue({
        code: 'custom',
        path: ['default'],
        message: 'must be between minimum and maximum',
      });
    }
  }
  if (input.type === 'radiobutton' && input.default !== undefined && !input.options.includes(input.default)) {
    context.addIssue({ code: 'custom', path: ['default'], message: 'must be one of the options' });
  }
  if (input.type === 'fiducials' && input.minimumPoints > input.maximumPoints) {
    context.addIssue({
      code: 'custom',
      path: ['minimumPoints'],
      message: `must not be greater than maximumPoints (${input.maximumPoints})`,
    });
  }
}

export const inputSchema = z
  .discriminatedUnion('type', [
    inputSchemas.volume,
    inputSchemas.slider,
    inputSchemas.checkbox,
    inputSchemas.radiobutton,
    inputSchemas.fiducials,
    inputSchemas.transform,
  ])
  .superRefine(checkInput);
export type Input = z.infer<typeof inputSchema>;
export type InputType = Input['type'];

const from = z.string().optional().describe('The label map that it is made from; the primary one if missing');

export const outputSchemas = {
  LabelVolume: z.strictObject({ type: z.literal('LabelVolume'), ...common }),
  VTKMesh: z.strictObject({
    type: z.literal('VTKMesh'),
    ...common,
    from,
    labels: z.array(z.int()).optional().describe('Values to mesh; all of them if missing'),
    smooth: z.boolean().default(true),
    keepTriangles: z
      .number()
      .min(0.01)
      .max(1)
      .default(0.5)
      .describe('The share of triangles kept by simplification'),
  }),
  Fiducials: z.strictObject({
    type: z.literal('Fiducials'),
    ...common,
    from: from.describe(
      'A label map from whose labels the centroids are taken if the app itself returns no points',
    ),
  }),
  PlainText: z.strictObject({
    type: z.literal('PlainText'),
    ...common,
    from,
    report: z.enum(['volumes']).optional().describe('volumes: a table of the labels and their volumes in ml'),
  }),
  Measurements: z.strictObject({ type: z.literal('Measurements'), ...common, from }),
  TransformGrid: z.strictObject({ type: z.literal('TransformGrid'), ...common }),
  TransformBSpline: z.strictObject({ type: z.literal('TransformBSpline'), ...common }),
  TransformLinear: z.strictObject({ type: z.literal('TransformLinear'), ...common }),
};

export const outputSchema = z.discriminatedUnion('type', [
  outputSchemas.LabelVolume,
  outputSchemas.VTKMesh,
  outputSchemas.Fiducials,
  outputSchemas.PlainText,
  outputSchemas.Measurements,
  outputSchemas.TransformGrid,
  outputSchemas.TransformBSpline,
  outputSchemas.TransformLinear,
]);
export type Output = z.infer<typeof outputSchema>;
export type OutputType = Output['type'];

/** Values of parameters for which a step, a model or a label applies. */
export const conditionsSchema = z.record(z.string(), z.union([z.string(), z.number(), z.boolean()]));

const codeSchema = z.strictObject({
  scheme: z.string().max(40),
  value: z.string().max(40),
  meaning: z.string().max(200),
});

/** A label: the value in the label map, its name, its colour, its codes in a terminology. */
export const labelSchema = z.strictObject({
  value: z.int().min(1).max(65_535),
  name: z.string().min(1).max(100),
  color: z
    .string()
    .regex(/^#[0-9a-f]{6}$/i, 'must be a colour such as #e6194b')
    .optional(),
  code: codeSchema
    .optional()
    .describe(
      'What it is: a code in a terminology, SNOMED CT (scheme SCT) by preference. In DICOM results `85756007` (SCT, Tissue) if missing',
    ),
  category: codeSchema
    .optional()
    .describe(
      'What kind of thing that is, for DICOM results: `123037004` (SCT, Anatomical Structure) if missing, and like the code if that is missing too',
    ),
  modifier: codeSchema
    .optional()
    .describe('What restricts the code, for DICOM results, such as `7771000` (SCT, Left)'),
  when: conditionsSchema
    .optional()
    .describe('The value has this meaning only with these values of parameters'),
});
export type Label = z.infer<typeof labelSchema>;

/**
 * DICOM objects of results for a DICOM series: they refer to its images, and are made while those are at hand.
 * `seg.dcm` is a segmentation, `labelmap.dcm` one of the type LABELMAP, which few programs read yet, `rtstruct.dcm` an
 * RT structure set, for radiotherapy, `key.dcm` a picture of one slice with the outlines of its labels, `sr.dcm` a
 * structured report of measurements.
 */
export const dicomFormats = ['seg.dcm', 'labelmap.dcm', 'rtstruct.dcm', 'key.dcm', 'sr.dcm'] as const;
export type DicomFormat = (typeof dicomFormats)[number];
export const isDicomFormat = (format: string): format is DicomFormat =>
  (dicomFormats as readonly string[]).includes(format);

/**
 * All formats that refer to the images of a DICOM series. `zip` is an archive of every DICOM object that a label map
 * can become.
 */
export const seriesFormats = [...dicomFormats, 'zip'] as const;
export type SeriesFormat = (typeof seriesFormats)[number];
export const isSeriesFormat = (format: string): format is SeriesFormat =>
  (seriesFormats as readonly string[]).includes(format);

/** The available formats of each type of output; the first is the default if the input does not determine one. */
export const outputFormats = {
  LabelVolume: [
    ...extensionsByChoice,
    'vtk',
    'stl',
    'seg.dcm',
    'labelmap.dcm',
    'rtstruct.dcm',
    'key.dcm',
    'zip',
  ],
  VTKMesh: ['vtk', 'stl'],
  Fiducials: ['json', 'txt'],
  PlainText: ['txt', 'json'],
  Measurements: ['json', 'csv', 'sr.dcm'],
  TransformGrid: ['nii.gz'],
  TransformBSpline: ['h5'],
  TransformLinear: ['mat', 'txt'],
} as const satisfies Record<OutputType, readonly string[]>;
export type OutputFormat = (typeof outputFormats)[OutputType][number];

/**
 * The formats from which an output can be read again as it was, so that all other formats can be made of the stored
 * file. An output in any other format is stored twice: as it was wanted, and in one of these.
 */
const readBackFormats: Record<OutputType, readonly OutputFormat[]> = {
  ...outputFormats,
  LabelVolume: [...extensionsByChoice, 'seg.dcm', 'labelmap.dcm'],
  Measurements: ['json', 'csv'],
};
export const isReadBack = (type: OutputType, format: string): boolean =>
  (readBackFormats[type] as readonly string[]).includes(format);

/** An output as it is stored. */
export interface StoredOutput {
  readonly type: OutputType;
  readonly format: OutputFormat;
  /** The second file, where the first cannot be read back. */
  readonly kept?: { readonly format: OutputFormat };
}

/** Formats in which a stored output can be had: those that refer to a DICOM series only as they are stored. */
export function formatsOf({ type, format, kept }: StoredOutput): OutputFormat[] {
  const formats: readonly OutputFormat[] = outputFormats[type];
  const isStored = (one: OutputFormat) => one === format || one === kept?.format;
  const isMade = kept !== undefined || isReadBack(type, format);
  return formats.filter((one) => isStored(one) || (isMade && !isSeriesFormat(one)));
}

/** The media type of each format. */
export const mediaTypes: Record<OutputFormat, string> = {
  ...volumeMediaTypes,
  vtk: 'application/x-vtk',
  stl: 'model/stl',
  json: 'application/json',
  txt: 'text/plain; charset=utf-8',
  csv: 'text/csv; charset=utf-8',
  h5: 'application/x-hdf5',
  mat: 'application/x-matlab-data',
  'seg.dcm': 'application/dicom',
  'labelmap.dcm': 'application/dicom',
  'rtstruct.dcm': 'application/dicom',
  'key.dcm': 'application/dicom',
  'sr.dcm': 'application/dicom',
  zip: 'application/zip',
};

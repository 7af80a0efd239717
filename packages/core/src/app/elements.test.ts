import { describe, expect, it } from 'vitest';
import type { z } from 'zod';
import {
  conditionsSchema,
  elementName,
  formatsOf,
  inputSchema,
  inputSchemas,
  isReadBack,
  labelSchema,
  mediaTypes,
  type OutputFormat,
  type OutputType,
  outputFormats,
  outputSchema,
  outputSchemas,
  seriesFormats,
} from './elements.ts';

/** The paths of what is wrong with a value; none where the schema takes it. */
const faultyPaths = (schema: z.ZodType, value: unknown) =>
  (schema.safeParse(value).error?.issues ?? []).map(({ path }) => path.join('.'));

const text = (length: number) => 'x'.repeat(length);
const slider = { type: 'slider', minimum: -1, maximum: 2 };
const radio = { type: 'radiobutton', options: ['a', 'b'] };

/** The least that each type of input needs, and what it is with its defaults. */
const inputs: [string, object, object][] = [
  ['volume', {}, { optional: false, frames: 'one' }],
  ['slider', { minimum: -1, maximum: 2 }, { minimum: -1, maximum: 2 }],
  ['checkbox', {}, { default: false }],
  ['radiobutton', { options: ['a', 'b'] }, { options: ['a', 'b'] }],
  ['fiducials', {}, { optional: false, minimumPoints: 1, maximumPoints: 10_000 }],
  ['transform', {}, { optional: false }],
];
/** What each type of output is with its defaults. */
const outputs: [string, object][] = [
  ['LabelVolume', {}],
  ['VTKMesh', { smooth: true, keepTriangles: 0.5 }],
  ['Fiducials', {}],
  ['PlainText', {}],
  ['Measurements', {}],
  ['TransformGrid', {}],
  ['TransformBSpline', {}],
  ['TransformLinear', {}],
];
const everyElement = [
  ...inputs.map(([type, fields]) => [type, inputSchema, { type, ...fields }] as const),
  ...outputs.map(([type]) => [type, outputSchema, { type }] as const),
];

describe('elementName', () => {
  it.each(['a', 'Z', 'a0-_Z', `a${text(39)}`])('takes %s', (name) => {
    expect(elementName.safeParse(name).success).toBe(true);
  });

  it.each(['', '0a', '-a', '_a', 'a b', 'a.b', 'é', 'a\n', `a${text(40)}`])('refuses %j', (name) => {
    const result = elementName.safeParse(name);
    expect(result.error?.issues[0].message).toContain('at most 40');
  });
});

describe('inputSchema', () => {
  it('has these types', () => {
    expect(Object.keys(inputSchemas)).toEqual(inputs.map(([type]) => type));
  });

  it.each(inputs)('fills in the defaults of %s', (type, fields, expected) => {
    expect(inputSchema.parse({ type, ...fields })).toEqual({ type, ...expected });
  });

  it.each([
    { type: 'volume', modality: text(40), optional: true, frames: 'all' },
    { ...slider, step: 1e-9, default: -1, unit: text(20) },
    { ...slider, default: 2 },
    { type: 'checkbox', default: true },
    { ...radio, default: 'b' },
    { ...radio, options: [text(1)], default: 'x' },
    { ...radio, options: [text(100)] },
    { ...radio, options: Array.from({ length: 100 }, (_, i) => `o${i}`) },
    { type: 'fiducials', optional: true, minimumPoints: 0, maximumPoints: 1 },
    { type: 'transform', optional: true },
  ])('keeps $type as it is written', (input) => {
    expect(inputSchema.parse(input)).toMatchObject(input);
  });

  it.each<[object, string]>([
    [{ type: 'volume', modality: text(41) }, 'modality'],
    [{ type: 'volume', frames: 'some' }, 'frames'],
    [{ type: 'volume', optional: 'yes' }, 'optional'],
    [{ type: 'slider', maximum: 2 }, 'minimum'],
    [{ type: 'slider', minimum: -1 }, 'maximum'],
    [{ ...slider, step: 0 }, 'step'],
    [{ ...slider, unit: text(21) }, 'unit'],
    [{ type: 'checkbox', default: 'yes' }, 'default'],
    [{ ...radio, options: [] }, 'options'],
    [{ ...radio, options: Array.from({ length: 101 }, (_, i) => `o${i}`) }, 'options'],
    [{ ...radio, options: ['a', ''] }, 'options.1'],
    [{ ...radio, options: [text(101)] }, 'options.0'],
    [{ type: 'fiducials', minimumPoints: -1 }, 'minimumPoints'],
    [{ type: 'fiducials', minimumPoints: 1.5 }, 'minimumPoints'],
    [{ type: 'fiducials', minimumPoints: 0, maximumPoints: 0 }, 'maximumPoints'],
    [{ type: 'fiducials', minimumPoints: 3, maximumPoints: 2 }, 'minimumPoints'],
    [{ type: 'fiducials', minimumPoints: 10_001 }, 'minimumPoints'],
    [{ type: 'fiducials', maximumPoints: 1.5 }, 'maximumPoints'],
    [{ type: 'transform', optional: 1 }, 'optional'],
    [{ type: 'image' }, 'type'],
    [{ type: '' }, 'type'],
  ])('refuses %j at %s', (input, path) => {
    expect(faultyPaths(inputSchema, input)).toEqual([path]);
  });

  it.each<[object, string, string]>([
    [{ ...slider, maximum: -1 }, 'maximum', 'greater than the minimum'],
    [{ ...slider, maximum: -2 }, 'maximum', 'greater than the minimum'],
    [{ ...slider, default: -1.01 }, 'default', 'between minimum and maximum'],
    [{ ...slider, default: 2.01 }, 'default', 'between minimum and maximum'],
    [{ ...radio, default: 'c' }, 'default', 'one of the options'],
  ])('compares the fields of %j', (input, path, message) => {
    const issues = inputSchema.safeParse(input).error?.issues;
    expect(issues).toEqual([
      expect.objectContaining({ code: 'custom', path: [path], message: expect.stringContaining(message) }),
    ]);
  });
});

describe('outputSchema', () => {
  it('has these types', () => {
    expect(Object.keys(outputSchemas)).toEqual(outputs.map(([type]) => type));
  });

  it.each(outputs)('fills in the defaults of %s', (type, expected) => {
    expect(outputSchema.parse({ type })).toEqual({ type, ...expected });
  });

  it.each([
    { type: 'VTKMesh', from: 'map', labels: [0, 7], smooth: false, keepTriangles: 0.01 },
    { type: 'VTKMesh', keepTriangles: 1 },
    { type: 'Fiducials', from: 'map' },
    { type: 'PlainText', from: 'map', report: 'volumes' },
    { type: 'Measurements', from: 'map' },
  ])('keeps $type as it is written', (output) => {
    expect(outputSchema.parse(output)).toMatchObject(output);
  });

  it.each<[object, string]>([
    [{ type: 'VTKMesh', labels: [1.5] }, 'labels.0'],
    [{ type: 'VTKMesh', keepTriangles: 0.009 }, 'keepTriangles'],
    [{ type: 'VTKMesh', keepTriangles: 1.001 }, 'keepTriangles'],
    [{ type: 'VTKMesh', smooth: 1 }, 'smooth'],
    [{ type: 'PlainText', report: 'lengths' }, 'report'],
    [{ type: 'PlainText', from: 1 }, 'from'],
    [{ type: 'LabelVolume', from: 'map' }, ''],
    [{ type: 'Image' }, 'type'],
    [{ type: '' }, 'type'],
  ])('refuses %j at "%s"', (output, path) => {
    expect(faultyPaths(outputSchema, output)).toEqual([path]);
  });
});

describe('every input and output', () => {
  it.each(everyElement)(
    '%s takes a label of 200 and a description of 2000 characters',
    (_, schema, least) => {
      const longest = { ...least, label: text(200), description: text(2000) };
      expect(schema.parse(longest)).toMatchObject(longest);
      expect(faultyPaths(schema, { ...longest, label: text(201) })).toEqual(['label']);
      expect(faultyPaths(schema, { ...longest, description: text(2001) })).toEqual(['description']);
    },
  );

  it.each(everyElement)('%s takes no unknown key', (_, schema, least) => {
    expect(schema.safeParse({ ...least, colour: 'red' }).error?.issues).toEqual([
      expect.objectContaining({ code: 'unrecognized_keys', keys: ['colour'] }),
    ]);
  });
});

describe('conditionsSchema', () => {
  it('takes texts, numbers and truths by name', () => {
    const conditions = { mode: 'fast', level: 2, smooth: false };
    expect(conditionsSchema.parse(conditions)).toEqual(conditions);
  });

  it.each([{ mode: ['fast'] }, { mode: null }, 'fast'])('refuses %j', (conditions) => {
    expect(conditionsSchema.safeParse(conditions).success).toBe(false);
  });
});

describe('labelSchema', () => {
  const label = { value: 1, name: 'liver' };
  const code = { scheme: text(40), value: text(40), meaning: text(200) };

  it.each([
    label,
    { ...label, value: 65_535 },
    { ...label, name: 'l' },
    { ...label, name: text(100) },
    { ...label, color: '#e6194b' },
    { ...label, color: '#09AFaf' },
    { ...label, code },
    { ...label, code, category: code, modifier: code },
    { ...label, when: { mode: 'fast' } },
  ])('takes %j', (value) => {
    expect(labelSchema.parse(value)).toEqual(value);
  });

  it.each<[object, string]>([
    [{ ...label, value: 0 }, 'value'],
    [{ ...label, value: 65_536 }, 'value'],
    [{ ...label, value: 1.5 }, 'value'],
    [{ ...label, name: '' }, 'name'],
    [{ ...label, name: text(101) }, 'name'],
    [{ ...label, color: 'e6194b' }, 'color'],
    [{ ...label, color: '#e6194' }, 'color'],
    [{ ...label, color: '#e6194bf' }, 'color'],
    [{ ...label, color: '#e6194g' }, 'color'],
    [{ ...label, code: { ...code, scheme: text(41) } }, 'code.scheme'],
    [{ ...label, code: { ...code, value: text(41) } }, 'code.value'],
    [{ ...label, code: { ...code, meaning: text(201) } }, 'code.meaning'],
    [{ ...label, code: { scheme: 'SCT', value: '1' } }, 'code.meaning'],
    [{ ...label, code: { ...code, version: '1' } }, 'code'],
    [{ ...label, category: { scheme: 'SCT', value: '1' } }, 'category.meaning'],
    [{ ...label, modifier: { ...code, scheme: text(41) } }, 'modifier.scheme'],
    [{ ...label, colour: '#e6194b' }, ''],
  ])('refuses %j at "%s"', (value, path) => {
    expect(faultyPaths(labelSchema, value)).toEqual([path]);
  });
});

describe('outputFormats', () => {
  it('lists each type’s formats with the default first', () => {
    expect(outputFormats).toEqual({
      LabelVolume: [
        'nii.gz',
        'nii',
        'mha',
        'nrrd',
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
    });
  });
});

describe('formatsOf()', () => {
  it('returns DICOM objects only as stored: the series is no longer available', () => {
    const of = (format: OutputFormat) => formatsOf({ type: 'LabelVolume', format });
    const others = ['nii.gz', 'nii', 'mha', 'nrrd', 'vtk', 'stl'];
    expect(of('nii.gz')).toEqual(others);
    expect(of('seg.dcm')).toEqual([...others, 'seg.dcm']);
    expect(of('labelmap.dcm')).toEqual([...others, 'labelmap.dcm']);
    expect(of('key.dcm')).toEqual(['key.dcm']);
    expect(formatsOf({ type: 'Fiducials', format: 'txt' })).toEqual(['json', 'txt']);
    expect(formatsOf({ type: 'Measurements', format: 'json' })).toEqual(['json', 'csv']);
  });

  it('returns all formats that the kept file gives', () => {
    const of = (format: OutputFormat, kept?: OutputFormat) =>
      formatsOf({ type: 'LabelVolume', format, ...(kept && { kept: { format: kept } }) });
    const others = ['nii.gz', 'nii', 'mha', 'nrrd', 'vtk', 'stl'];
    expect(of('zip', 'seg.dcm')).toEqual([...others, 'seg.dcm', 'zip']);
    expect(of('zip', 'nii.gz')).toEqual([...others, 'zip']);
    expect(of('stl', 'mha')).toEqual(others);
    // As servers stored it that kept no second file.
    expect(of('stl')).toEqual(['stl']);
    expect(of('rtstruct.dcm', 'seg.dcm')).toEqual([...others, 'seg.dcm', 'rtstruct.dcm']);
  });
});

describe('isReadBack()', () => {
  it('is false for surfaces of label maps and for what refers to a series, except segmentations', () => {
    const notReadBack = (Object.keys(outputFormats) as OutputType[]).flatMap((type) =>
      outputFormats[type].filter((format) => !isReadBack(type, format)).map((format) => `${type} ${format}`),
    );
    const segmentations = ['seg.dcm', 'labelmap.dcm'];
    const ofSeries = seriesFormats.filter((format) => !segmentations.includes(format));
    const typeOf = (format: string) =>
      (outputFormats.LabelVolume as readonly string[]).includes(format) ? 'LabelVolume' : 'Measurements';
    expect(new Set(notReadBack)).toEqual(
      new Set([
        'LabelVolume vtk',
        'LabelVolume stl',
        ...ofSeries.map((format) => `${typeOf(format)} ${format}`),
      ]),
    );
  });
});

describe('mediaTypes', () => {
  // Registered with IANA: gzip, stl, json, plain, csv and dicom. The others have no registered type.
  it('gives the registered media type, DICOM’s, or application/x- and the format', () => {
    expect(mediaTypes).toEqual({
      'nii.gz': 'application/gzip',
      nii: 'application/x-nifti',
      mha: 'application/x-metaimage',
      nrrd: 'application/x-nrrd',
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
    });
    expect(new Set(Object.values(outputFormats).flat())).toEqual(new Set(Object.keys(mediaTypes)));
  });
});

import { describe, expect, it } from 'vitest';
import { goodFile, goodVolume, type Kind } from '../../test/bad-files.ts';
import { findIdentifyingText, neutralDataName, type TextSource, writeStripped } from './identifying-text.ts';
import {
  endingOf,
  extensionOf,
  extensionsByChoice,
  formatNames,
  formatOf,
  holdsVoxelsAlone,
  isVolumeMediaType,
  isVolumeUnlikeBase64,
  kindOf,
  listedWithOr,
  resultExtension,
  rowOf,
  supportedExtensions,
  type VolumeExtension,
  type VolumeFormat,
  volumeEndings,
  volumeFormats,
  volumeMediaTypes,
  withoutVolumeEnding,
  writerOf,
} from './table.ts';
import { collectBytes, inspectVolume, writeVolume } from './volume-file.ts';
import type { VolumeFormatRow } from './volume-format.ts';
import { webPlatform } from './web-platform.ts';

/** A file, not packed, of every format that headers may be of. */
const samples: Readonly<Record<VolumeFormat, Kind>> = {
  nifti1: 'nii',
  nifti2: 'nifti2',
  metaimage: 'mha',
  nrrd: 'nrrd',
  dicom: 'dcm',
};
const sampleOf = (format: string) => goodFile(samples[format as VolumeFormat]);
const versions = volumeFormats.flatMap((row) =>
  Object.keys(row.versions).map((format) => [format, row] as const),
);

const fileOf = (name: string, bytes: Uint8Array): TextSource => ({
  name,
  sizeBytes: bytes.length,
  async *read(start, end) {
    yield bytes.subarray(start, end);
  },
});

describe('volumeFormats', () => {
  it.each(versions)('%s is recognised by its first bytes, as the row that reads it', async (format, row) => {
    const bytes = await sampleOf(format);
    expect(formatOf(bytes)).toBe(row);
    expect(volumeFormats.filter(({ matches }) => matches(bytes))).toEqual([row]);
    expect(rowOf(format)).toBe(row);
    const header = await inspectVolume([{ name: 'a', prefix: bytes, sizeBytes: bytes.length }], webPlatform);
    expect(header.format).toBe(format);
    expect(formatNames[header.format]).toBe(row.versions[format]);
  });

  it.each(versions)('%s is distinguished from its base64 by 256 bytes', async (format) => {
    const head = (await sampleOf(format)).subarray(0, 256);
    expect(isVolumeUnlikeBase64(head)).toBe(true);
    expect(isVolumeUnlikeBase64(new TextEncoder().encode(btoa(String.fromCharCode(...head))))).toBe(false);
  });

  it.each(supportedExtensions)('.%s is written, recognised, and stands for itself', async (extension) => {
    const bytes = await collectBytes(writeVolume(goodVolume, extension, webPlatform));
    const header = await inspectVolume([{ name: 'a', prefix: bytes, sizeBytes: bytes.length }], webPlatform);
    expect(header.extension).toBe(extension);
    expect(extensionOf(`a.${extension}`)).toBe(extension);
    expect(endingOf(`a.${extension}`)?.format).toBe(rowOf(header.format));
    expect(volumeMediaTypes[extension]).toMatch(/^application\/./);
  });

  it.each(supportedExtensions)('.%s with text that may tell whose scan it is loses it', async (extension) => {
    const options = { description: 'Jane Doe 1970', level: 0 };
    const bytes = await collectBytes(writeVolume(goodVolume, extension, webPlatform, options));
    const file = fileOf(`a.${extension}`, bytes);
    const { fields, rewrite } = await findIdentifyingText(file, webPlatform);
    expect(fields.map(({ value }) => value)).toContain('Jane Doe 1970');
    const clean = await collectBytes(writeStripped(file, rewrite!, webPlatform));
    const again = await findIdentifyingText(fileOf(`a.${extension}`, clean), webPlatform);
    expect(again.fields).toEqual([]);
  });

  it('has no two rows or versions of one name', () => {
    const names = volumeFormats.flatMap((row) =>
      [row.name, ...Object.keys(row.versions)].map((n) => [n, row.name]),
    );
    for (const [name, row] of names) {
      expect(names.filter(([other, one]) => other === name && one !== row)).toEqual([]);
    }
  });

  it('has detached headers only where it states how voxels are found', () => {
    for (const { endings, detached } of volumeFormats) {
      expect(endings.some(({ holds }) => holds === 'header')).toBe(detached !== undefined);
      expect(endings.some(({ holds }) => holds === 'voxels')).toBe(detached === 'same stem');
    }
  });
});

describe('formatOf()', () => {
  const put = (bytes: Uint8Array, at: number, text: string) => {
    const copy = bytes.slice();
    copy.set(new TextEncoder().encode(text), at);
    return copy;
  };

  it('does not mistake words in the text of NIfTI or NRRD for MetaImage', async () => {
    const words = '\nNDims = 3\nDimSize = 1 1 1\nElementDataFile = LOCAL\n';
    // 148: descrip of a NIfTI-1 header.
    const nifti = put(await goodFile('nii'), 148, words);
    expect(formatOf(nifti)?.name).toBe('NIfTI');
    const nrrd = new TextEncoder().encode(`NRRD0005${words}type: uchar\n`);
    expect(formatOf(nrrd)?.name).toBe('NRRD');
    // The last words of a header that cannot be an NRRD file's: 344 is the place of the magic of NIfTI-1.
    expect(formatOf(put(new Uint8Array(400), 344, 'n+1\0'))?.name).toBe('NIfTI');
    expect(formatOf(put(put(new Uint8Array(400), 344, 'n+1\0'), 0, 'NRRD0004'))?.name).toBe('NRRD');
    expect(formatOf(new Uint8Array(400))).toBeUndefined();
  });

  it('finds identifying text by the format that the file is read as', async () => {
    const nifti = put(await goodFile('nii'), 148, 'Jane\nNDims = 3\nDimSize = 1 1 1\n');
    const { fields } = await findIdentifyingText(fileOf('a.nii', nifti), webPlatform);
    expect(fields).toEqual([{ name: 'descrip', value: expect.stringContaining('Jane') }]);
  });
});

describe('endings', () => {
  it('are lower case, and none is the end of another', () => {
    const all = volumeEndings.map(({ ending }) => ending);
    for (const ending of all) {
      expect(ending).toMatch(/^(\.[a-z0-9]+)+$/);
      expect(all.filter((other) => other.endsWith(ending))).toEqual([ending]);
    }
  });

  it.each(volumeEndings.map((one) => [one.ending, one] as const))(
    '%s is known in any case',
    (ending, one) => {
      for (const name of [`Jane.Doe${ending}`, `Jane.Doe${ending.toUpperCase()}`]) {
        expect(endingOf(name)).toBe(one);
        expect(withoutVolumeEnding(name)).toBe('Jane.Doe');
        expect(kindOf({ name })).toBe(`${ending} file`);
        expect(holdsVoxelsAlone(name)).toBe(one.holds === 'voxels');
        expect(supportedExtensions).toContain(extensionOf(name));
      }
      expect(endingOf(`a${ending}x`)).toBeUndefined();
      expect(withoutVolumeEnding(`a${ending}x`)).toBe(`a${ending}x`);
    },
  );

  it.each([
    ['a.raw', '.raw file', true],
    ['a.ZRAW', '.zraw file', true],
    ['a.raw.gz', '.raw.gz file', true],
    ['a.mha.GZ', '.mha.gz file', false],
    ['a.nii.gz.gz', 'file', false],
    ['a.img.gz.gz', 'file', false],
    ['a.gz', 'file', false],
    ['raw', 'file', false],
    ['', 'file', false],
  ])('%s is a %s', (name, kind, alone) => {
    expect(kindOf({ name })).toBe(kind);
    expect(holdsVoxelsAlone(name)).toBe(alone);
  });

  it('give results the input’s format and compression, or the default if unwritable', () => {
    const both = (row: VolumeFormatRow) => [false, true].map((packed) => resultExtension(row, packed));
    expect(['nifti1', 'metaimage', 'nrrd'].map((format) => both(rowOf(format)))).toEqual([
      ['nii', 'nii.gz'],
      ['mha', 'mha'],
      ['nrrd', 'nrrd'],
    ]);
    expect(both({ ...rowOf('nrrd'), endings: [] })).toEqual(['nii.gz', 'nii.gz']);
    expect([...extensionsByChoice].sort()).toEqual([...supportedExtensions].sort());
  });

  it('give the voxel file a neutral name if it is missing', () => {
    expect(neutralDataName('t2', 'Jane.zraw')).toBe('t2.zraw');
    expect(neutralDataName('t2', 'Jane.dat')).toBe('t2.raw');
  });
});

describe('isVolumeMediaType()', () => {
  const types = volumeEndings.flatMap((one) => (one.holds === 'volume' ? one.mediaType : []));
  it.each(types)('takes %s, with or without x- and parameters', (type) => {
    const plain = type.replace('x-', '');
    for (const one of [type, plain, plain.replace('/', '/x-'), type.toUpperCase(), `${type}; charset=binary`])
      expect(isVolumeMediaType(one)).toBe(true);
  });

  it.each([
    '',
    'application/',
    'application/json',
    'application/nifti1',
    'image/nifti',
    'x application/gzip',
  ])('refuses "%s"', (type) => {
    expect(isVolumeMediaType(type)).toBe(false);
  });
});

it('writerOf() refuses what is not written, and names what is', () => {
  for (const extension of ['mhd', 'nii.', 'gz', '', 'toString'])
    expect(() => writerOf(extension as VolumeExtension)).toThrow(
      `Volumes are not written as ${extension}. Available: ${supportedExtensions.join(', ')}.`,
    );
  expect(writerOf('nii').packed).toBe(false);
  expect(writerOf('nii.gz').packed).toBe(true);
});

it.each([
  [[], ''],
  [['a'], 'a'],
  [['a', 'b'], 'a or b'],
  [['a', 'b', 'c'], 'a, b or c'],
])('listedWithOr(%j) is "%s"', (texts, text) => {
  expect(listedWithOr(texts)).toBe(text);
});

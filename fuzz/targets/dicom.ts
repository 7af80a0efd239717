/** Targets for DICOM: the parser, series of files, and the decoders of core. */
import {
  inspectVolume,
  listSeries,
  type Platform,
  readDicomHeader,
  readVolume,
  sourceFromBytes,
} from '@tomaat/core';
import type { Dataset, DicomFile } from '../../packages/core/src/dicom/dataset.ts';
import { encodeDataset } from '../../packages/core/src/dicom/encode.ts';
import { decodeJpegLossless } from '../../packages/core/src/dicom/jpeg-lossless.ts';
import { parseDicom } from '../../packages/core/src/dicom/parse.ts';
import { decodeRle } from '../../packages/core/src/dicom/rle.ts';
import {
  dicomFile,
  type Elements,
  type FileForm,
  type Slice,
  sliceElements,
  syntaxes,
} from '../../packages/core/test/dicom-files.ts';
import { encodeJpegLossless } from '../../packages/core/test/jpeg-lossless.ts';
import { equal, must, type Target } from '../target.ts';
import { platformFor } from './inputs.ts';

const limits = { maxVoxels: 2 ** 14 };
const words = [
  'DICM',
  'SQ',
  'UN',
  'OW',
  'OB',
  'DS',
  '\\',
  'nan',
  '1e999',
  '\xfe\xff\x00\xe0',
  '\xfe\xff\x0d\xe0',
  '\xfe\xff\xdd\xe0',
  '\xff\xff\xff\xff',
  'LOCALIZER',
  '1.2.840.10008.1.2',
];

const slice = (k: number, more: Slice['more'] = {}): Slice => ({
  position: [0, 0, 2 * k],
  orientation: [1, 0, 0, 0, 1, 0],
  instance: k + 1,
  rows: 2,
  columns: 2,
  more: { 1572944: ['DS', '2'], ...more },
});
const sequences: Elements = [[0x00081140, 'SQ', [[[0x00081155, 'UI', '1.2.5']], []]]];
const fileOf = (k: number, form?: FileForm, more?: Slice['more']) =>
  dicomFile(
    [...sliceElements(slice(k, more)), ...sequences].sort(([a], [b]) => a - b),
    form,
  );

const jpeg = { rows: 3, columns: 4, precision: 12, predictor: 4 };
const samples = Array.from({ length: 12 }, (_, i) => (i * 997) % 4096);

/** Frames of two slices in one file. */
const enhanced = (): Uint8Array => {
  const place = (z: number) => [0x00209113, 'SQ', [[[0x00200032, 'DS', `0\\0\\${z}`]]]] as const;
  return fileOf(
    0,
    {},
    {
      2621448: ['IS', '2'],
      1375769136: ['SQ', [[place(0)], [place(3)]]],
      2145386512: ['OW', new Uint8Array(16)],
    },
  );
};

async function singleFiles(): Promise<Uint8Array[]> {
  const forms: FileForm[] = [
    {},
    { open: true },
    { syntax: syntaxes.implicit },
    { syntax: syntaxes.big },
    { syntax: syntaxes.deflated },
    { bare: true },
  ];
  const fragments = [
    new Uint8Array(0),
    encodeJpegLossless(samples.slice(0, 4), { ...jpeg, rows: 2, columns: 2 }),
  ];
  return [
    ...forms.map((form) => fileOf(0, form)),
    fileOf(0, { syntax: syntaxes.jpegLossless }, { 2145386512: ['OB', { fragments }] }),
    enhanced(),
  ];
}

/** Files one after the other, each preceded by its length. */
const joined = (files: readonly Uint8Array[]): Uint8Array =>
  new Uint8Array(
    Buffer.concat(
      files.flatMap((file) => {
        const length = Buffer.alloc(2);
        length.writeUInt16LE(file.length);
        return [length, file];
      }),
    ),
  );

function separated(input: Uint8Array): Uint8Array[] {
  const files: Uint8Array[] = [];
  for (let at = 0; at + 2 <= input.length && files.length < 16; ) {
    const length = input[at] | (input[at + 1] << 8);
    files.push(input.subarray(at + 2, at + 2 + length));
    at += 2 + length;
  }
  return files;
}

/** Reads files as a volume, from their first bytes and whole. */
async function readAll(files: readonly Uint8Array[], platform: Platform): Promise<void> {
  const sources = files.map((bytes, i) => sourceFromBytes(`f${i}`, bytes));
  const headers = await Promise.all(sources.map((source) => readDicomHeader(source, platform)));
  const { series, leftOut } = listSeries(headers, limits);
  const used = series.flatMap(({ images }) => images.map(({ header }) => header));
  const isWhole = series.every(({ refusal }) => refusal === undefined);
  must(!isWhole || new Set(used).size + leftOut.length === files.length, 'every file is used or named');
  for (const { stack, refusal, images } of series) {
    must((stack === undefined) === (refusal !== undefined), 'a series is a volume or refused');
    if (stack) must(stack.size[2] * stack.frames.length === images.length, 'every image has one place');
  }
  const prefixes = files.map((prefix, i) => ({ name: `f${i}`, prefix, sizeBytes: prefix.length }));
  const header = await inspectVolume(prefixes, platform, limits);
  if (header.format !== 'dicom') return;
  const { size, affine, frames } = header;
  must(affine.every(Number.isFinite), 'the affine is finite');
  must(size[0] * size[1] * size[2] * frames <= limits.maxVoxels, 'no more voxels than are allowed');
  const { volume, header: again, source } = await readVolume(sources, platform, { limits, frame: 'all' });
  must(JSON.stringify(again) === JSON.stringify(header), 'both readers see the same header');
  must(volume.voxels.length === size[0] * size[1] * size[2] * frames, 'a value for every voxel');
  must(source?.slices.length === size[2], 'a source for every slice');
}

/** The elements of a data set and of its items, in writing order. */
const shown = (dataset: Dataset): unknown =>
  [...dataset]
    .sort(([a], [b]) => a - b)
    .map(([tag, element]) =>
      element.kind === 'sequence' ? [tag, element.items.map(shown)] : [tag, element.kind],
    );

function checkParsed(input: Uint8Array, file: DicomFile): void {
  const pieces = encodeDataset(file.dataset, file);
  const meta = encodeDataset(file.meta, { explicit: true, littleEndian: true });
  const written = new Uint8Array(Buffer.concat([Buffer.alloc(128), Buffer.from('DICM'), ...meta, ...pieces]));
  // An element of group 2 after others would be written before them, as meta information.
  const isOrdered = [...file.dataset.keys()].every((tag) => tag >= 0x00030000);
  if (file.meta.size > 0 && isOrdered) {
    const again = parseDicom(written);
    must(
      JSON.stringify(again && shown(again.dataset)) === JSON.stringify(shown(file.dataset)),
      'what is written is what was read',
    );
  }
  for (const length of [input.length >> 1, input.length - 1]) {
    const beginning = parseDicom(input.subarray(0, length), { fileBytes: input.length });
    if (beginning)
      must(beginning.dataset.size <= file.dataset.size, 'a beginning has no more than the whole');
  }
}

export const dicomTargets: Readonly<Record<string, Target>> = {
  dicom: {
    description: 'a DICOM file as a volume',
    seeds: singleFiles,
    words,
    maxBytes: 4096,
    run: (input) => readAll([input], platformFor(input)),
  },
  'dicom-series': {
    description: 'the files of DICOM series',
    async seeds() {
      const other = { 2097166: ['UI', '1.2.3.8'] as const };
      return [
        joined([0, 1, 2].map((k) => fileOf(k))),
        joined([2, 0, 1].map((k) => fileOf(k, { syntax: syntaxes.implicit }))),
        joined([fileOf(0), fileOf(1), fileOf(0, {}, other), new Uint8Array(3)]),
        joined(
          [1, 2].flatMap((t) =>
            [0, 1].map((k) => fileOf(k, {}, { 2097408: ['IS', String(t)], 524312: ['UI', `1.${t}.${k}`] })),
          ),
        ),
      ];
    },
    words,
    maxBytes: 8192,
    run: (input) => readAll(separated(input), platformFor(input)),
  },
  'dicom-parse': {
    description: 'the elements of a DICOM file',
    seeds: singleFiles,
    words,
    maxBytes: 4096,
    run(input) {
      const file = parseDicom(input);
      if (file) checkParsed(input, file);
    },
  },
  'dicom-jpeg-lossless': {
    description: 'a frame of lossless JPEG',
    async seeds() {
      return [1, 4, 7].flatMap((predictor) =>
        [0, 1].map((restartLines) => encodeJpegLossless(samples, { ...jpeg, predictor, restartLines })),
      );
    },
    words: ['\xff\xd8', '\xff\xc3', '\xff\xc4', '\xff\xda', '\xff\xdd', '\xff\xd0', '\xff\x00'],
    maxBytes: 1024,
    run(input) {
      const { bytes, bitsPerSample } = decodeJpegLossless(input, jpeg);
      must(bytes.length === 24, 'a sample for every pixel');
      must(bitsPerSample >= 2 && bitsPerSample <= 16, '2 to 16 bits');
    },
  },
  'dicom-rle': {
    description: 'a frame of RLE',
    async seeds() {
      const frame = Buffer.alloc(64);
      for (const [i, value] of [2, 64, 66].entries()) frame.writeUInt32LE(value, 4 * i);
      return [
        new Uint8Array(
          Buffer.concat([frame, Buffer.from([245, 3, 11, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])]),
        ),
      ];
    },
    words: ['\x80', '\x7f', '\xff'],
    maxBytes: 512,
    run(input) {
      const shape = {
        rows: 3,
        columns: 4,
        samplesPerPixel: 1,
        bitsAllocated: 16,
        bitsStored: 16,
        isSigned: false,
      };
      const { bytes } = decodeRle(input, shape);
      must(bytes.length === 24, 'a sample for every pixel');
      must(equal(bytes, decodeRle(input, shape).bytes), 'the same twice');
    },
  },
};

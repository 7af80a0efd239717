/**
 * Files of every format with a fault, each with the code and the words of its refusal: for the tests of the formats,
 * and of everything that accepts untrusted files.
 */
import { gunzipSync, gzipSync } from 'node:zlib';
import {
  type Affine,
  collectBytes,
  type ErrorCode,
  type supportedExtensions,
  type Volume,
  webPlatform,
  writeVolume,
} from '@tomaat/core';
import { dicomFile, sliceElements } from './dicom-files.ts';

const affine: Affine = [0.7, 0, 0.3, -31, 0, 1.25, 0, 47, -0.3, 0, 5.5, -112, 0, 0, 0, 1];
const voxels = Int16Array.from({ length: 60 * 49 }, (_, i) => ((i * 7919) % 4001) - 1000);
export const goodVolume: Volume = { voxels, size: [15, 14, 14], components: 1, affine };

export type Kind = 'nii' | 'nii.gz' | 'nifti2' | 'mha' | 'mha raw' | 'nrrd' | 'nrrd raw' | 'dcm';

/** A file of this kind that is right. */
export async function goodFile(kind: Kind): Promise<Uint8Array> {
  if (kind === 'nifti2') return nifti2(await goodFile('nii'));
  // A series of one image.
  if (kind === 'dcm') return dicomFile(sliceElements({ more: { 1572944: ['DS', '2.5'] } }));
  const extension = kind.split(' ')[0] as (typeof supportedExtensions)[number];
  return collectBytes(
    writeVolume(goodVolume, extension, webPlatform, { level: kind.endsWith('raw') ? 0 : 1 }),
  );
}

/** The fields of a NIfTI-1 file of ours in a NIfTI-2 header. */
function nifti2(one: Uint8Array): Uint8Array {
  const from = new DataView(one.buffer);
  const bytes = new Uint8Array(544 + one.length - 352);
  const to = new DataView(bytes.buffer);
  to.setInt32(0, 540, true);
  bytes.set([0x6e, 0x2b, 0x32, 0, 0x0d, 0x0a, 0x1a, 0x0a], 4);
  to.setInt16(12, from.getInt16(70, true), true);
  for (let i = 0; i < 8; i++) to.setBigInt64(16 + 8 * i, BigInt(from.getInt16(40 + 2 * i, true)), true);
  for (let i = 0; i < 8; i++) to.setFloat64(104 + 8 * i, from.getFloat32(76 + 4 * i, true), true);
  to.setInt32(348, 1, true);
  for (let i = 0; i < 12; i++) to.setFloat64(400 + 8 * i, from.getFloat32(280 + 4 * i, true), true);
  bytes.set(one.subarray(352), 544);
  return bytes;
}

/** A change of the bytes at a place of the header. */
const at = (change: (view: DataView) => void) => (bytes: Uint8Array) => {
  const copy = bytes.slice();
  change(new DataView(copy.buffer));
  return copy;
};
const dims = (...values: number[]) =>
  at((v) => values.forEach((value, i) => void v.setInt16(40 + 2 * i, value, true)));
const replace = (from: RegExp, to: string) => (bytes: Uint8Array) => {
  const text = Buffer.from(bytes).toString('latin1');
  if (!from.test(text)) throw new Error(`${from} is not in the file`);
  return new Uint8Array(Buffer.from(text.replace(from, to), 'latin1'));
};
const cut = (length: (total: number) => number) => (bytes: Uint8Array) =>
  bytes.subarray(0, length(bytes.length));
const flip = (fromEnd: number) => (bytes: Uint8Array) =>
  at((v) => v.setUint8(bytes.length - fromEnd, v.getUint8(bytes.length - fromEnd) ^ 0x55))(bytes);
const append =
  (...surplus: number[]) =>
  (bytes: Uint8Array) =>
    Uint8Array.from([...bytes, ...surplus]);
const packed = (change: (bytes: Uint8Array) => Uint8Array) => (bytes: Uint8Array) =>
  new Uint8Array(gzipSync(change(new Uint8Array(gunzipSync(bytes)))));
const big64 = (offset: number, value: bigint) => at((v) => v.setBigInt64(offset, value, true));

export type Fault = [
  kind: Kind,
  what: string,
  change: (bytes: Uint8Array) => Uint8Array,
  code: ErrorCode,
  message: RegExp,
];

export const faults: readonly Fault[] = [
  // Lengths
  ...(['nii', 'nii.gz', 'nifti2', 'mha', 'mha raw', 'nrrd', 'nrrd raw'] as const).flatMap((kind): Fault[] => [
    [kind, 'empty', cut(() => 0), 'UNKNOWN_FORMAT', /empty/],
    [kind, 'the last byte missing', cut((n) => n - 1), 'BAD_VOXELS', /cut off|damaged/],
    [kind, 'cut in its middle', cut((n) => n >> 1), 'BAD_VOXELS', /cut off|damaged/],
    [
      kind,
      '16 bytes too many',
      append(...new Uint8Array(16).fill(65)),
      'BAD_VOXELS',
      /(16 bytes after the 5880 bytes of voxels.* write the file again|follows the complete (gzip|zlib) data.* Write the file again)/,
    ],
  ]),
  ['nii', 'cut in its header', cut(() => 200), 'BAD_HEADER', /200 of the 348 bytes/],
  ['nifti2', 'cut in its header', cut(() => 400), 'BAD_HEADER', /400 of the 540 bytes/],
  ['nii', 'cut before its voxels', cut(() => 350), 'BAD_VOXELS', /byte 352.*has 350/],
  ['nii.gz', 'cut in the gzip header', cut(() => 8), 'UNKNOWN_FORMAT', /gzip/],
  ['nii.gz', 'cut in the packed header', cut(() => 40), 'UNKNOWN_FORMAT', /gzip/],
  ['mha', 'cut in its header', cut(() => 60), 'BAD_HEADER', /MetaImage field DimSize|ElementDataFile/],
  ['nrrd', 'cut in its header', cut(() => 60), 'BAD_HEADER', /NRRD field/],
  [
    'nii.gz',
    'more voxels inside than promised',
    packed(append(...new Uint8Array(16))),
    'BAD_VOXELS',
    /More than 15 bytes follow the 5880 bytes .*nibabel\.save/,
  ],
  [
    'nii.gz',
    'fewer voxels inside than promised',
    packed(cut((n) => n - 2)),
    'BAD_VOXELS',
    /5878 of the 5880 bytes/,
  ],
  [
    'nii.gz',
    'one byte inside less than promised',
    packed(cut((n) => n - 1)),
    'BAD_VOXELS',
    /5879 of the 5880 bytes/,
  ],
  // Bits
  ['nii.gz', 'a flipped bit in its checksum', flip(6), 'BAD_VOXELS', /damaged/],
  ['nii.gz', 'a flipped bit in its data', flip(2000), 'BAD_VOXELS', /damaged/],
  ['mha', 'a flipped bit in its checksum', flip(2), 'BAD_VOXELS', /damaged/],
  ['mha', 'a flipped bit in its data', flip(2000), 'BAD_VOXELS', /damaged/],
  ['nrrd', 'a flipped bit in its data', flip(2000), 'BAD_VOXELS', /damaged/],
  // Magic
  ['nii', 'a wrong magic', at((v) => v.setUint8(344, 65)), 'BAD_HEADER', /field magic/],
  ['nii', 'the magic of a pair', at((v) => v.setUint8(345, 0x69)), 'BAD_INPUT', /\.img/],
  ['nii', 'no magic, as in Analyze', at((v) => v.setUint32(344, 0)), 'UNSUPPORTED_FORMAT', /Analyze/],
  ['nii', 'a wrong sizeof_hdr', at((v) => v.setInt32(0, 349, true)), 'BAD_HEADER', /field sizeof_hdr/],
  ['nifti2', 'line ends changed in its magic', at((v) => v.setUint8(8, 0x0a)), 'BAD_HEADER', /field magic/],
  ['mha', 'no NDims', replace(/NDims = 3\n/, ''), 'BAD_HEADER', /field NDims is missing/],
  ['nrrd', 'a version from the future', replace(/^NRRD0005/, 'NRRD0009'), 'BAD_HEADER', /magic/],
  // Sizes
  ['nii', 'no dimensions', dims(0), 'BAD_HEADER', /dim\[0\]/],
  ['nii', 'eight dimensions', dims(8), 'BAD_HEADER', /dim\[0\]/],
  ['nii', 'two dimensions', dims(2), 'UNSUPPORTED_FORMAT', /2-D/],
  ['nii', 'six dimensions', dims(6, 15, 14, 14, 1, 1, 2), 'UNSUPPORTED_FORMAT', /dim\[6\]/],
  ['nii', 'a size of 0', dims(3, 15, 0, 14), 'BAD_HEADER', /dim\[2\] is 0/],
  ['nii', 'a size of -1', dims(3, -1, 14, 14), 'BAD_HEADER', /dim\[1\] is -1/],
  ['nii', '32767³ voxels', dims(3, 32767, 32767, 32767), 'TOO_MANY_VOXELS', /35181150961663 values/],
  [
    'nii',
    'sizes whose product is 2^64',
    dims(7, 16384, 16384, 16384, 16384, 256, 1, 1),
    'TOO_MANY_VOXELS',
    /18446744073709551616/,
  ],
  ['nii', 'twice as many slices', dims(3, 15, 14, 28), 'BAD_VOXELS', /5880 bytes of voxels.*11760/],
  [
    'nii.gz',
    'more voxels than so few bytes unpack to',
    packed(dims(3, 1000, 1000, 1000)),
    'BAD_VOXELS',
    /cannot decompress/,
  ],
  ['nifti2', 'a size of 2^53', big64(24, 2n ** 53n), 'TOO_MANY_VOXELS', /9007199254740992/],
  ['nifti2', 'a size of -2^63', big64(24, -(2n ** 63n)), 'BAD_HEADER', /dim\[1\]/],
  ['mha', 'a size of 0', replace(/DimSize = 15/, 'DimSize = 0'), 'BAD_HEADER', /DimSize\[0\] is 0/],
  ['mha', 'a size of -1', replace(/DimSize = 15/, 'DimSize = -1'), 'BAD_HEADER', /DimSize\[0\] is -1/],
  [
    'mha',
    '32767³ voxels',
    replace(/DimSize = .*/, 'DimSize = 32767 32767 32767'),
    'TOO_MANY_VOXELS',
    /35181150961663/,
  ],
  [
    'mha',
    'a size of 2^53',
    replace(/DimSize = 15/, 'DimSize = 9007199254740992'),
    'BAD_HEADER',
    /DimSize\[0\]/,
  ],
  ['mha', 'a size in hexadecimal', replace(/DimSize = 15/, 'DimSize = 0x0f'), 'BAD_HEADER', /DimSize/],
  ['mha', 'two sizes', replace(/DimSize = 15/, 'DimSize ='), 'BAD_HEADER', /DimSize .*not 3 finite numbers/],
  ['mha', 'five dimensions', replace(/NDims = 3/, 'NDims = 5'), 'UNSUPPORTED_FORMAT', /NDims is 5/],
  [
    'mha',
    'no channels',
    replace(/DimSize/, 'ElementNumberOfChannels = 0\nDimSize'),
    'BAD_HEADER',
    /ElementNumberOfChannels is 0/,
  ],
  ['nrrd', 'a size of 0', replace(/sizes: 15/, 'sizes: 0'), 'BAD_HEADER', /"sizes"\[0\] is 0/],
  ['nrrd', 'a size of -1', replace(/sizes: 15/, 'sizes: -1'), 'BAD_HEADER', /"sizes"\[0\] is -1/],
  [
    'nrrd',
    '32767³ voxels',
    replace(/sizes: .*/, 'sizes: 32767 32767 32767'),
    'TOO_MANY_VOXELS',
    /35181150961663/,
  ],
  ['nrrd', 'a size of 2^53', replace(/sizes: 15/, 'sizes: 9007199254740992'), 'BAD_HEADER', /"sizes"\[0\]/],
  ['nrrd', 'two dimensions', replace(/dimension: 3/, 'dimension: 2'), 'UNSUPPORTED_FORMAT', /2-D/],
  [
    'nrrd',
    'a dimension of a billion',
    replace(/dimension: 3/, 'dimension: 1000000000'),
    'BAD_HEADER',
    /"dimension"/,
  ],
  // Types
  ['nii', 'an unknown type', at((v) => v.setInt16(70, 5, true)), 'BAD_HEADER', /field datatype is 5/],
  ['nii', 'complex voxels', at((v) => v.setInt16(70, 32, true)), 'UNSUPPORTED_FORMAT', /complex64/],
  ['mha', 'an unknown type', replace(/MET_SHORT/, 'SHORT'), 'BAD_HEADER', /ElementType/],
  ['mha', 'a type of text', replace(/MET_SHORT/, 'MET_STRING'), 'UNSUPPORTED_FORMAT', /ElementType/],
  ['nrrd', 'an unknown type', replace(/type: int16/, 'type: int17'), 'BAD_HEADER', /"type"/],
  ['nrrd', 'no byte order', replace(/endian: .*\n/, ''), 'BAD_HEADER', /"endian"/],
  ['nrrd', 'bzip2', replace(/encoding: gzip/, 'encoding: bzip2'), 'UNSUPPORTED_FORMAT', /bzip2/],
  ['nrrd', 'an unknown encoding', replace(/encoding: gzip/, 'encoding: magic'), 'BAD_HEADER', /"encoding"/],
  // Offsets
  ...[1, 351, -16, 352.5, 1e12, Number.NaN, Number.POSITIVE_INFINITY].map(
    (offset): Fault => [
      'nii',
      `vox_offset ${offset}`,
      at((v) => v.setFloat32(108, offset, true)),
      'BAD_HEADER',
      /field vox_offset/,
    ],
  ),
  [
    'nii',
    'vox_offset in the voxels',
    at((v) => v.setFloat32(108, 368, true)),
    'BAD_VOXELS',
    /5864 bytes of voxels/,
  ],
  ['nifti2', 'vox_offset 2^62', big64(168, 2n ** 62n), 'BAD_HEADER', /field vox_offset/],
  [
    'mha raw',
    'a HeaderSize inside the header',
    replace(/DimSize/, 'HeaderSize = 10\nDimSize'),
    'BAD_HEADER',
    /HeaderSize is 10/,
  ],
  [
    'mha raw',
    'a HeaderSize below -1',
    replace(/DimSize/, 'HeaderSize = -2\nDimSize'),
    'BAD_HEADER',
    /HeaderSize/,
  ],
  [
    'mha raw',
    'a HeaderSize past the end',
    replace(/DimSize/, 'HeaderSize = 99999999\nDimSize'),
    'BAD_VOXELS',
    /99999999/,
  ],
  [
    'mha',
    'a CompressedDataSize past the end',
    replace(/CompressedDataSize = \d+/, 'CompressedDataSize = 999999'),
    'BAD_VOXELS',
    /999999/,
  ],
  [
    'nrrd raw',
    'a byte skip below -1',
    replace(/encoding/, 'byte skip: -5\nencoding'),
    'BAD_HEADER',
    /"byte skip"/,
  ],
  [
    'nrrd raw',
    'a byte skip past the end',
    replace(/encoding/, 'byte skip: 99999999\nencoding'),
    'BAD_VOXELS',
    /cut off/,
  ],
  [
    'nrrd',
    'a line skip past the end',
    replace(/encoding/, 'line skip: 99999999\nencoding'),
    'BAD_HEADER',
    /"line skip"/,
  ],
  [
    'nrrd',
    'a list of files',
    replace(/encoding/, 'data file: LIST\nencoding'),
    'UNSUPPORTED_FORMAT',
    /list of files/,
  ],
  [
    'mha',
    'a list of files',
    replace(/= LOCAL/, '= slice%03d.raw 1 14 1'),
    'UNSUPPORTED_FORMAT',
    /list of files/,
  ],
  // Geometry
  ...[Number.NaN, Number.POSITIVE_INFINITY].map(
    (value): Fault => [
      'nii',
      `${value} in its sform`,
      at((v) => v.setFloat32(284, value, true)),
      'BAD_HEADER',
      /sform .*finite/,
    ],
  ),
  [
    'nii',
    'a singular sform',
    at((v) => [296, 300, 304].forEach((o) => void v.setFloat32(o, 0, true))),
    'BAD_HEADER',
    /sform .*inverted/,
  ],
  [
    'nii',
    'an sform of huge numbers',
    at((v) => [280, 300, 320].forEach((o) => void v.setFloat32(o, 3e38, true))),
    'BAD_HEADER',
    /sform/,
  ],
  ...[0, Number.NaN, Number.POSITIVE_INFINITY].flatMap((value) =>
    [0, 1].map(
      (qform): Fault => [
        'nii',
        `pixdim ${value} where ${qform ? 'qform' : 'nothing'} is set`,
        at((v) => {
          v.setInt16(252, qform, true);
          v.setInt16(254, 0, true);
          v.setFloat32(84, value, true);
        }),
        'BAD_HEADER',
        /field pixdim\[2\]/,
      ],
    ),
  ),
  ...[1.1, Number.NaN].map(
    (value): Fault => [
      'nii',
      `a quaternion of ${value}`,
      at((v) => {
        v.setInt16(252, 1, true);
        v.setInt16(254, 0, true);
        v.setFloat32(256, value, true);
      }),
      'BAD_HEADER',
      /quatern_b/,
    ],
  ),
  [
    'nii',
    'an intercept of NaN',
    at((v) => [2, Number.NaN].forEach((value, i) => void v.setFloat32(112 + 4 * i, value, true))),
    'BAD_HEADER',
    /scl_inter/,
  ],
  [
    'nifti2',
    'NaN in its sform',
    at((v) => v.setFloat64(400, Number.NaN, true)),
    'BAD_HEADER',
    /sform .*finite/,
  ],
  [
    'nifti2',
    'an sform that overflows',
    at((v) => [400, 440, 480].forEach((o) => void v.setFloat64(o, 1e200, true))),
    'BAD_HEADER',
    /sform/,
  ],
  [
    'mha',
    'NaN in its matrix',
    replace(/TransformMatrix = \S+/, 'TransformMatrix = nan'),
    'BAD_HEADER',
    /TransformMatrix/,
  ],
  [
    'mha',
    'a singular matrix',
    replace(/TransformMatrix = .*/, 'TransformMatrix = 1 0 0 1 0 0 0 0 1'),
    'BAD_HEADER',
    /inverted/,
  ],
  ['mha', 'an infinite offset', replace(/Offset = \S+/, 'Offset = inf'), 'BAD_HEADER', /Offset/],
  [
    'mha',
    'a spacing of 0',
    replace(/ElementSpacing = \S+/, 'ElementSpacing = 0'),
    'BAD_HEADER',
    /ElementSpacing\[0\] is 0/,
  ],
  [
    'mha',
    'a negative spacing',
    replace(/ElementSpacing = \S+/, 'ElementSpacing = -1'),
    'BAD_HEADER',
    /ElementSpacing\[0\] is -1/,
  ],
  [
    'nrrd',
    'NaN in a direction',
    replace(/space directions: \([^,]*/, 'space directions: (nan'),
    'BAD_HEADER',
    /"space directions"/,
  ],
  [
    'nrrd',
    'a direction of length 0',
    replace(/space directions: \([^)]*\)/, 'space directions: (0,0,0)'),
    'BAD_HEADER',
    /inverted/,
  ],
  [
    'nrrd',
    'two directions',
    replace(/space directions: \([^)]*\)/, 'space directions:'),
    'BAD_HEADER',
    /2 entries for 3 axes/,
  ],
  [
    'nrrd',
    'an infinite origin',
    replace(/space origin: \([^,]*/, 'space origin: (inf'),
    'BAD_HEADER',
    /"space origin"/,
  ],
  ['nrrd', 'an unknown space', replace(/left-posterior-superior/, 'outer'), 'UNSUPPORTED_FORMAT', /"space"/],
  [
    'nrrd',
    'two of three units',
    replace(/"mm" "mm" "mm"/, '"mm" "um"'),
    'BAD_HEADER',
    /"space units".* 2 entries/,
  ],
];

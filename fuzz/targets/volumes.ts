/** Readers and writers of volumes. */
import { gzipSync } from 'node:zlib';
import {
  collectBytes,
  fileGeometrySchema,
  inspectVolume,
  readVolume,
  sourceFromBytes,
  TomaatError,
  type Volume,
  type VolumeExtension,
  type VolumeHeader,
  writeVolume,
} from '@tomaat/core';
import { bytesPerVoxel, voxelTypeOf } from '../../packages/core/src/volume.ts';
import { goodFile } from '../../packages/core/test/bad-files.ts';
import type { LongRuns } from '../long-runs.ts';
import { bytesOf, equal, must, type Target, textOf } from '../target.ts';
import { colours, heads, limits, platformFor, smallFile, sumOf } from './inputs.ts';

const rawBytes = ({ voxels }: Volume) => new Uint8Array(voxels.buffer, voxels.byteOffset, voxels.byteLength);

function checkHeader(header: VolumeHeader): void {
  const { size, components, frames, voxelType, storedBytes, affine } = header;
  const count = size[0] * size[1] * size[2] * components * frames;
  must(
    [...size, components, frames].every((n) => Number.isInteger(n) && n >= 1),
    'sizes are from 1',
  );
  must(count <= limits.maxVoxels, 'no more voxels than are allowed');
  must(storedBytes === count * bytesPerVoxel(voxelType), 'stored bytes = voxels × bytes of the type');
  must(affine.length === 16 && affine.every(Number.isFinite), 'the affine is finite');
}

/** Reads, writes and reads again. */
async function readWhole(input: Uint8Array, written: VolumeExtension): Promise<void> {
  const options = { limits, frame: 'all' } as const;
  const platform = platformFor(input);
  let files = [sourceFromBytes('a', input)];
  let header: VolumeHeader;
  const inspect = () =>
    inspectVolume(
      files.map(({ name, sizeBytes }, i) => ({
        name,
        sizeBytes,
        prefix: i === 0 ? input.subarray(0, 65_536) : beside,
      })),
      platform,
      limits,
    );
  try {
    header = await inspect();
  } catch (error) {
    // A header whose voxels are in another file: this is that file.
    if (!(error instanceof TomaatError && error.code === 'BAD_INPUT')) throw error;
    files = [sourceFromBytes('a.hdr', input), sourceFromBytes('b.raw', beside)];
    if (/\.img/.test(error.message)) files[1] = sourceFromBytes('a.img', beside);
    header = await inspect();
  }
  checkHeader(header);
  const { volume, header: again } = await readVolume(files, platform, options);
  must(JSON.stringify(again) === JSON.stringify(header), 'both readers see the same header');
  const { size, components, voxels } = volume;
  must(components === header.components * header.frames, 'components × frames');
  must(voxels.length === size[0] * size[1] * size[2] * components, 'a value for every voxel');
  must(voxels.byteLength === voxels.length * bytesPerVoxel(voxelTypeOf(voxels)), 'bytes of the type');

  // Writing takes longer than reading: an eighth of the accepted inputs is written and read back.
  if (sumOf(input) % 8 !== 0) return;
  const { geometry } = header;
  const stated = await collectBytes(
    writeVolume(volume, header.extension === 'nii.gz' ? 'nii' : header.extension, platform, {
      level: 0,
      geometry,
    }),
  );
  const result = (await readVolume([sourceFromBytes('c', stated)], platform, options)).header;
  must(JSON.stringify(result.geometry) === JSON.stringify(geometry), 'a result states the same geometry');
  must(
    fileGeometrySchema.safeParse(JSON.parse(JSON.stringify(geometry))).success,
    'a geometry passes its own check',
  );
  const first = await collectBytes(writeVolume(volume, written, platform, { level: 0 }));
  const back = (await readVolume([sourceFromBytes('b', first)], platform, options)).volume;
  must(back.size.join() === size.join() && back.components === components, 'sizes survive');
  must(equal(rawBytes(back), rawBytes(volume)), 'voxels survive to the bit');
  const scale = Math.max(...volume.affine.map(Math.abs));
  must(
    back.affine.every((v, i) => Math.abs(v - volume.affine[i]) <= 1e-6 * scale),
    'the affine survives',
  );
  if (written !== 'nrrd') return;
  const second = await collectBytes(writeVolume(back, written, platform, { level: 0 }));
  must(equal(first, second), 'writing what was read gives the same file');
}

/** Voxels in a separate file, as many as a small file has. */
const beside = Uint8Array.from({ length: 24 }, (_, i) => (i * 7) & 255);
const asPair = (file: Uint8Array, from: RegExp, to: string) => bytesOf(textOf(file).replace(from, to));

const volumeTarget = (
  description: string,
  written: VolumeExtension,
  seeds: () => Promise<Uint8Array[]>,
  words: readonly string[],
  longRuns?: LongRuns,
): Target => ({
  description,
  seeds,
  words,
  longRuns,
  maxBytes: 4096,
  run: (input) => readWhole(input, written),
});

const floats = { voxels: Float64Array.from({ length: 12 }, (_, i) => i / 7 - 3) };

function scaled(file: Uint8Array): Uint8Array {
  const copy = file.slice();
  new DataView(copy.buffer).setFloat32(112, 0.25, true);
  new DataView(copy.buffer).setFloat32(116, -3, true);
  return copy;
}

function nifti2Of(file: Uint8Array, from: Uint8Array): Uint8Array {
  // The header of the valid NIfTI-2 file with this one's sizes and voxels.
  const copy = new Uint8Array(544 + from.length - 352);
  copy.set(file.subarray(0, 544));
  const to = new DataView(copy.buffer);
  const view = new DataView(from.buffer, from.byteOffset);
  for (let i = 0; i < 8; i++) to.setBigInt64(16 + 8 * i, BigInt(view.getInt16(40 + 2 * i, true)), true);
  copy.set(from.subarray(352), 544);
  return copy;
}

/** Values for each place in text headers, for all their readers. */
const headerRuns: Readonly<Record<'nrrd' | 'metaimage', LongRuns>> = {
  nrrd: {
    texts: [
      'NRRD0005…\n…# comment…\n…type…:…uchar…\ndimension:…3…\nspace:…left-posterior-superior…\nsizes:…2…2…1…\nspace directions:…(…1…,…0,0…)…(0,1,0) (0,0,1)…\nspace origin:…(…1…,2,3…)…\nspace units:…"…mm…" "mm" "mm"…\nkinds:…domain…domain domain\nendian:…little…\nkey…:=…value…\nencoding:…raw…\n\n1234',
      'NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 2 1\nspacings:…1…2 3…\naxis mins:…0…0 0…\naxis maxs:…1…1 1…\ncenterings:…cell…node cell…\nunits:…"…um…" "um" "um"…\nthicknesses:…1 1 1\nbyte skip:…0…\nline skip:…0…\ncontent:…a…\nmeasurement frame:…(1,0,0)…(0,1,0) (0,0,1)\nencoding: text\n\n1…2 3 4…\n',
      'NRRD0005\ntype: uchar\ndimension: 3\nspace dimension:…3…\nsizes: 2 2 1\nspace directions: …none…(1,0,0) (0,1,0)\ndata file:…b.raw…\nencoding: raw\n',
    ],
  },
  metaimage: {
    texts: [
      '…ObjectType…=…Image…\n…NDims…=…3…\nBinaryData =…True…\nBinaryDataByteOrderMSB =…False…\nCompressedData =…False…\nTransformMatrix =…1…0 0 0 1 0 0 0 1…\nOffset =…1…2 3…\nCenterOfRotation =…0…0 0\nAnatomicalOrientation =…RAI…\nElementSpacing =…1…2 3…\nDistanceUnits =…mm…\nDimSize =…2…2 1…\nElementNumberOfChannels =…1…\nHeaderSize =…0…\nComment…=…a…\nPatient…Name :…b…\nElementType =…MET_UCHAR…\nElementDataFile…=…LOCAL…\n1234',
      'NDims = 3\nDimSize = 2 2 1\nBinaryData = False\nElementType = MET_SHORT\nElementDataFile = LOCAL\n1…2,3…4…\n',
      'NDims = 3\nDimSize = 2 2 1\nElementType = MET_UCHAR\nElementDataFile =…b.raw…\n',
    ],
  },
};

export const volumeTargets = {
  nifti1: volumeTarget(
    'NIfTI-1, plain, packed and as a pair',
    'nii',
    async () => [
      await smallFile('nii.gz', {}, 1),
      await smallFile('nii'),
      await smallFile('nii', colours),
      scaled(await smallFile('nii')),
      new Uint8Array(gzipSync(await smallFile('nii', floats))),
      asPair((await smallFile('nii')).subarray(0, 352), /n\+1/, 'ni1').fill(0, 108, 112),
    ],
    heads,
  ),
  nifti2: volumeTarget(
    'NIfTI-2, plain, packed and as a pair',
    'nii',
    async () => {
      const good = await goodFile('nifti2');
      const small = nifti2Of(good, await smallFile('nii'));
      return [small, new Uint8Array(gzipSync(small)), asPair(small.subarray(0, 544), /n\+2/, 'ni2')];
    },
    [...heads, 'n+2\0\r\n\x1a\n'],
  ),
  metaimage: volumeTarget(
    'MetaImage, .mha and .mhd',
    'mha',
    async () => [
      await smallFile('mha', {}, 1),
      await smallFile('mha'),
      await smallFile('mha', colours),
      asPair((await smallFile('mha')).subarray(0, -24), /= LOCAL/, '= b.raw'),
      bytesOf(
        'ObjectType = Image\nNDims = 3\nBinaryData = False\nElementSpacing = 1 2 3\nDimSize = 2 2 1\nElementType = MET_SHORT\nElementDataFile = LOCAL\n1 -2, 3\n4\n',
      ),
    ],
    [
      'ObjectType = Image\n',
      'NDims = 4\n',
      'BinaryData = False\n',
      'BinaryDataByteOrderMSB = True\n',
      'CompressedData = True\n',
      'CompressedDataSize = 10\n',
      'HeaderSize = -1\n',
      'ElementNumberOfChannels = 3\n',
      'ElementSize = 1 1 1\n',
      'DistanceUnits = um\n',
      'MET_UCHAR',
      'MET_FLOAT',
      'MET_ULONG_LONG',
      'LOCAL',
      'LIST',
      'b.raw',
      '../b.raw',
      '%d',
      '\n',
      ' = ',
      '\0',
    ],
    headerRuns.metaimage,
  ),
  nrrd: volumeTarget(
    'NRRD, attached and detached',
    'nrrd',
    async () => [
      await smallFile('nrrd', {}, 1),
      await smallFile('nrrd'),
      await smallFile('nrrd', colours),
      asPair((await smallFile('nrrd')).subarray(0, -24), /encoding/, 'data file: b.raw\nencoding'),
      bytesOf(
        'NRRD0005\ntype: uchar\ndimension: 4\nspace dimension: 4\nsizes: 2 2 1 2\nspace directions: (1,0,0,0) (0,0,0,2) (0,1,0,0) (0,0,3,0)\nspace origin: (1,2,3,4)\nencoding: raw\n\n12345678',
      ),
      bytesOf(
        'NRRD0004\ntype: short\ndimension: 4\nsizes: 2 2 1 2\nspacings: 1 2 3 nan\naxis mins: 0 0 0 nan\ncenterings: cell node cell none\nkinds: space space space time\nencoding: text\n\n1 -2 3 4 5 6 7 8\n',
      ),
    ],
    [
      'NRRD0005\n',
      'dimension: 4\n',
      'type: float\n',
      'type: uint8\n',
      'kinds: vector domain domain domain\n',
      'endian: big\n',
      'encoding: gzip\n',
      'encoding: text\n',
      'byte skip: -1\n',
      'line skip: 2\n',
      'data file: b.raw\n',
      'space: RAS\n',
      'space directions: none (1,0,0) (0,1,0) (0,0,1)\n',
      'spacings: 1 1 1\n',
      'axis mins: 0 0 0\n',
      'space units: "um" "um" "mm"\n',
      'space dimension: 4\n',
      'space: LPST\n',
      'space directions: (1,0,0,0) (0,1,0,0) (0,0,1,0) (0,0,0,1)\n',
      'units: "cm" "cm" "cm"\n',
      'axis maxs: 1 1 1\n',
      'key:=value\n',
      '# comment\n',
      '(',
      ')',
      'none',
      'nan',
      '\n',
      '\n\n',
      ': ',
    ],
    headerRuns.nrrd,
  ),
} satisfies Record<string, Target>;

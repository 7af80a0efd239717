import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  applyAffine,
  invert,
  readVolume,
  sourceFromBytes,
  TomaatError,
  type Vec3,
  type Volume,
  webPlatform,
} from '@tomaat/core';
import { describe, expect, it } from 'vitest';
import { nodePlatform } from '../packages/server/src/node-platform.ts';
import { dataFolder } from './real-data.ts';

/* Series of real scanners, with the codecs of the server: against the values, places and refusals that other programs found. */

const root = dataFolder() ?? '';
const skip = root === '';
const foldersIn = (set: string) =>
  skip
    ? ['no images at hand']
    : readdirSync(join(root, set), { withFileTypes: true }).flatMap((entry) =>
        entry.isDirectory() ? entry.name : [],
      );
const filesIn = (...path: string[]) => {
  const folder = join(root, ...path);
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) =>
    entry.isFile() ? sourceFromBytes(entry.name, readFileSync(join(folder, entry.name))) : [],
  );
};
const load = (set: string, name: string, series?: string) =>
  readVolume(filesIn(set, name), nodePlatform, { frame: 'all', series });
const refusalOf = async (reading: Promise<unknown>) => {
  const error = await reading.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (error instanceof TomaatError) return error;
  throw error ?? new Error('it was read');
};

const largestOf = (values: ArrayLike<number>) => {
  let largest = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < values.length; i++) largest = Math.max(largest, values[i]);
  return largest;
};

interface Truth {
  expect: 'volume' | 'refuse';
  size: number[];
  affineRas: number[][];
  sha256_float32_xfastest: string;
  probes: [index: number[], value: number][];
}

/** The numbers of the series that are meant where a folder holds several. */
const chosen: Readonly<Record<string, string>> = { mr9_two_series: '201' };

describe.skipIf(skip)('every set of dicom_cases', () => {
  it.each(foldersIn('dicom_cases'))('%s', async (name) => {
    const truth: Truth = JSON.parse(readFileSync(join(root, 'dicom_cases', `${name}_truth.json`), 'utf8'));
    if (truth.expect === 'refuse') {
      const { code, message } = await refusalOf(load('dicom_cases', name));
      expect(code).toBe('BAD_HEADER');
      expect(message).toMatch(
        /between slice 4 at 25\.208 mm and slice 5 at 41\.208 mm|slice 4 of 9, at 25\.208 mm/,
      );
      return;
    }
    const { volume, header } = await load('dicom_cases', name, chosen[name]);
    const [x, y, z, frames = 1] = truth.size;
    expect(volume.size).toEqual([x, y, z]);
    expect([volume.components, header.frames]).toEqual([frames, frames]);
    for (const [i, value] of truth.affineRas.flat().entries())
      expect(Math.abs(volume.affine[i] - value)).toBeLessThanOrEqual(0.002);
    for (const [[i, j, k, t = 0], value] of truth.probes)
      expect(Math.fround(Number(volume.voxels[((t * z + k) * y + j) * x + i]))).toBe(value);
    const floats = Float32Array.from(volume.voxels as Float32Array);
    expect(createHash('sha256').update(new Uint8Array(floats.buffer)).digest('hex')).toBe(
      truth.sha256_float32_xfastest,
    );
  });

  it('names what belongs to no volume', async () => {
    const { leftOut } = await load('dicom_cases', 'ct_folder_with_surview');
    expect(leftOut).toEqual([
      { name: 'DIRFILE', reason: 'is a DICOMDIR, the table of contents of a medium' },
      { name: 'README.txt', reason: 'is not a DICOM file' },
      { name: 'ref_I10', reason: 'is a secondary capture' },
      { name: 'ref_I20', reason: 'is a secondary capture' },
      { name: 'surview', reason: 'is a localizer (ImageType LOCALIZER)' },
    ]);
    const mixed = await load('dicom_cases', 'mr9_localizer_same_series');
    expect(mixed.leftOut?.map(({ name }) => name)).toEqual(['loc0.dcm', 'loc1.dcm']);
    const twice = await load('dicom_cases', 'mr9_dup_same_file');
    expect(twice.leftOut).toEqual([{ name: 'copy_of_3.dcm', reason: 'is a copy of another file' }]);
  });

  it('lists the series where there are several, and takes either by UID or number', async () => {
    const { code, message, detail } = await refusalOf(load('dicom_cases', 'mr9_two_series'));
    expect(code).toBe('BAD_INPUT');
    expect(message).toContain('201: MR EPI_asc (64 × 64, 9 images)');
    const series = detail?.series as { uid: string; number: number; slices: number }[];
    expect(series.map(({ number, slices }) => [number, slices])).toEqual([
      [77, 6],
      [201, 9],
    ]);
    const { volume } = await load('dicom_cases', 'mr9_two_series', series[0].uid);
    expect(volume.size).toEqual([64, 64, 6]);
    await expect(load('dicom_cases', 'mr9_two_series', '78')).rejects.toThrow(
      'No series has that UID or number',
    );
  });

  it('gives a result’s source: LPS positions, numbered frames of enhanced images', async () => {
    const { source } = await load('dicom_cases', 'mr9_enhanced_shuffled');
    expect(source?.slices.map(({ frameNumber }) => frameNumber)).toEqual([3, 7, 5, 9, 1, 8, 4, 6, 2]);
    const classic = (await load('dicom_cases', 'mr9_htj2k')).source;
    expect(classic?.slices.map(({ position }) => position[2])).toEqual(
      source?.slices.map(({ position }) => position[2]),
    );
    expect(classic?.slices[0]).toMatchObject({
      sopClassUid: '1.2.840.10008.5.1.4.1.1.4',
      position: [-123.6631527543, -115.61663889884, -27.910904228687],
    });
    expect(classic?.slices[0]).not.toHaveProperty('frameNumber');
  });
});

/** The largest difference of two volumes at the same places of the world. */
function largestDifference(a: Volume, b: Volume): number {
  const toB = invert(b.affine);
  const at = ({ voxels, size }: Volume, [x, y, z]: readonly number[]) =>
    Number(voxels[(z * size[1] + y) * size[0] + x]);
  let largest = 0;
  for (let z = 0; z < a.size[2]; z++)
    for (let y = 0; y < a.size[1]; y++)
      for (let x = 0; x < a.size[0]; x++) {
        const place = applyAffine(toB, applyAffine(a.affine, [x, y, z] as Vec3));
        const index = place.map(Math.round);
        const off = Math.max(...place.map((value, i) => Math.abs(value - index[i])));
        if (off > 0.01 || index.some((value, i) => value < 0 || value >= b.size[i]))
          return Number.POSITIVE_INFINITY;
        largest = Math.max(largest, Math.abs(at(a, [x, y, z]) - at(b, index)));
      }
  return largest;
}

const withTruth = foldersIn('dicom').filter((name) =>
  existsSync(join(root, 'dicom', `${name}_truth.nii.gz`)),
);

describe.skipIf(skip)('every set of dicom', () => {
  it.each(skip ? ['no images at hand'] : withTruth)(
    '%s has the values of its NIfTI file, place by place',
    async (name) => {
      const { volume } = await load('dicom', name);
      const file = sourceFromBytes('a.nii.gz', readFileSync(join(root, 'dicom', `${name}_truth.nii.gz`)));
      const truth = (await readVolume([file], nodePlatform, { frame: 0 })).volume;
      expect(volume.size[0] * volume.size[1] * volume.size[2]).toBe(
        truth.size[0] * truth.size[1] * truth.size[2],
      );
      expect(largestDifference(volume, truth)).toBeLessThan(1e-4 * largestOf(truth.voxels as Float32Array));
    },
  );

  it.each(['series_jpegls', 'series_j2k', 'series_jpeg_lossless'])(
    '%s has the voxels of series_rle',
    async (name) => {
      const [found, expected] = await Promise.all([load('dicom', name), load('dicom', 'series_rle')]);
      expect(found.volume).toEqual(expected.volume);
      expect(found.header).toMatchObject({ size: [256, 256, 4], voxelType: 'uint16', compressed: true });
    },
  );

  it('keeps the tilt of a gantry as a shear', async () => {
    const { volume } = await load('dicom', 'fail_gantry_tilt');
    const [x, y, z] = [0, 1, 2].map((column) => [0, 4, 8].map((row) => volume.affine[row + column]));
    expect(z).toEqual([0, 0, 5].map((value) => expect.closeTo(value, 6)));
    const cosine = y.reduce((sum, value, i) => sum + value * z[i], 0) / (Math.hypot(...y) * 5);
    expect((Math.asin(Math.abs(cosine)) * 180) / Math.PI).toBeCloseTo(14, 5);
    expect(Math.abs(x[0])).toBeCloseTo(0.41796875, 9);
  });

  it('reads the time points of ge_4d_timepoints by their numbers, and asks which is meant', async () => {
    const { volume } = await load('dicom', 'ge_4d_timepoints');
    expect([...volume.size, volume.components]).toEqual([64, 64, 4, 2]);
    const asked = await refusalOf(readVolume(filesIn('dicom', 'ge_4d_timepoints'), nodePlatform));
    expect([asked.code, asked.detail]).toEqual(['FRAME_NEEDED', { frames: 2 }]);
    const second = await readVolume(filesIn('dicom', 'ge_4d_timepoints'), nodePlatform, { frame: 1 });
    expect(second.volume.voxels).toEqual(volume.voxels.subarray(64 * 64 * 4));
  });

  it.each<[string, RegExp]>([
    [
      'fail_irregular_slices',
      /gap of 10 mm between slice 3 at 28\.107 mm and slice 4 at 38\.107 mm.* 5 mm apart/,
    ],
    ['series_rgb_j2k', /in colour \(RGB\)/],
  ])('%s is refused', async (name, message) => {
    expect((await refusalOf(load('dicom', name))).message).toMatch(message);
  });
});

describe.skipIf(skip)('one CT slice in all transfer syntaxes', () => {
  const names = skip ? ['no images at hand'] : readdirSync(join(root, 'dicom/ct_one_slice_all_syntaxes'));
  const one = (name: string, platform = nodePlatform) =>
    readVolume(
      [sourceFromBytes(name, readFileSync(join(root, 'dicom/ct_one_slice_all_syntaxes', name)))],
      platform,
    );
  const uncompressed = () => one('CTImage.dcm');
  const twelveBits = names.filter((name) => /\.(51|53|55)\.dcm$/.test(name));
  const lossy = names.filter((name) => /\.(50|81|91)\.dcm$/.test(name));
  const exact = names.filter(
    (name) => name.startsWith('CTImage') && ![...twelveBits, ...lossy].includes(name),
  );

  it('are 17, of which 10 are exact', () => {
    expect([exact.length, lossy.length, twelveBits.length]).toEqual([10, 3, 4]);
  });

  it.each(exact)('%s has the voxels of the uncompressed file', async (name) => {
    expect((await one(name)).volume).toEqual((await uncompressed()).volume);
  });

  // Differences from the uncompressed image as pydicom and its decoders have them; those of baseline JPEG depend on the decoder.
  it.each<[suffix: string, largest: number, mean: number]>([
    ['4.91.dcm', 5, 0.57137],
    ['4.81.dcm', 1, 0.69407],
    ['4.50.dcm', 65, 19.6],
  ])('…%s is off by no more than its code loses', async (suffix, largest, mean) => {
    const name = lossy.find((one) => one.endsWith(suffix))!;
    const [{ volume }, expected] = await Promise.all([one(name), uncompressed()]);
    const differences = Array.from(volume.voxels as Float32Array, (value, i) =>
      Math.abs(value - Number(expected.volume.voxels[i])),
    );
    expect(largestOf(differences)).toBeLessThanOrEqual(largest);
    const found = differences.reduce((sum, value) => sum + value, 0) / differences.length;
    expect(Math.abs(found - mean)).toBeLessThan(suffix.includes('50') ? 0.5 : 1e-5);
  });

  it.each(twelveBits)('%s is refused with the remedy', async (name) => {
    const { code, message } = await refusalOf(one(name));
    expect(code).toBe('UNSUPPORTED_FORMAT');
    expect(message).toContain('dcmdjpeg');
  });

  it('are refused with the remedy where no codecs are', async () => {
    const name = names.find((one) => one.endsWith('.4.80.dcm'))!;
    expect((await refusalOf(one(name, webPlatform))).message).toContain('dcmdjpls');
    expect((await one(exact.find((name) => name.endsWith('.4.70.dcm'))!, webPlatform)).volume).toEqual(
      (await uncompressed()).volume,
    );
  });

  it.each([
    ['no-pixel-data.dcm', /structured report|without pixels/],
    ['no-pixel-spacing.dcm', /in colour \(PALETTE COLOR\)/],
  ])('%s is refused', async (name, message) => {
    expect((await refusalOf(one(name))).message).toMatch(message);
  });
});

describe.skipIf(skip)('files made to break readers', () => {
  const names = skip
    ? ['no images at hand']
    : ['pydicom', 'dicom_fuzz'].flatMap((set) =>
        readdirSync(join(root, 'malformed', set), { recursive: true, encoding: 'utf8' }).flatMap((name) =>
          name.endsWith('.dcm') ? `${set}/${name}` : [],
        ),
      );
  const read = (name: string) =>
    readVolume([sourceFromBytes(name, readFileSync(join(root, 'malformed', name)))], nodePlatform);
  /** As pydicom has them: least, largest, sum. Elements are padded to 128 bytes too many, and JPEG 2000 says unsigned where the header says signed. */
  const readable: Readonly<Record<string, readonly [number, number, number]>> = {
    'pydicom/MR_small.dcm': [127, 2145, 2_125_338],
    'pydicom/MR_small_padded.dcm': [127, 2145, 2_125_338],
    'pydicom/J2K_pixelrep_mismatch.dcm': [-2000, 1896, -172_605_258],
  };

  it('are more than a hundred', () => {
    expect(names.length).toBeGreaterThan(100);
    expect(names).toEqual(expect.arrayContaining(Object.keys(readable)));
  });

  it.each(names)('%s', async (name) => {
    const expected = readable[name];
    if (!expected) {
      const { code, message } = await refusalOf(read(name));
      expect(code).toMatch(/^(BAD_HEADER|BAD_VOXELS|BAD_INPUT|UNSUPPORTED_FORMAT|UNKNOWN_FORMAT)$/);
      expect(message).toMatch(/: \w|\. Send /);
      return;
    }
    const values = [...((await read(name)).volume.voxels as Int16Array)];
    expect([
      values.reduce((a, b) => Math.min(a, b)),
      largestOf(values),
      values.reduce((a, b) => a + b),
    ]).toEqual(expected);
  });
});

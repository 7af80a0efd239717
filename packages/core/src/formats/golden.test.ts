import { closeSync, existsSync, openSync, readFileSync, readSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { dataFolder } from '../../../../test/real-data.ts';
import { type ErrorCode, TomaatError } from '../errors.ts';
import { applyAffine, invert } from '../geometry/affine.ts';
import { voxelCount, voxelTypeOf } from '../volume.ts';
import { inspectVolume, readVolume, sourceFromBytes } from './volume-file.ts';
import { webPlatform } from './web-platform.ts';

interface Golden {
  refused?: string;
  shape?: number[];
  size?: number[];
  dtype?: string;
  componentType?: string;
  components?: number;
  affineRas?: number[][];
  min?: number;
  max?: number;
  sum?: number;
  probes?: [number[], number][];
}

const folder = dataFolder();
const golden: Record<string, Golden> = folder
  ? JSON.parse(readFileSync(join(folder, 'golden.json'), 'utf8')).files
  : { 'no images at hand': {} };

/** What we refuse, and why; nibabel or ITK reads some of these. */
const refused: Record<string, ErrorCode> = {
  // The other half of the pair is not there.
  'formats/nifti/nibabel/nifti1.hdr': 'BAD_INPUT',
  'formats/nifti/nibabel/nifti2.hdr': 'BAD_INPUT',
  'formats/nifti/nibabel/analyze.hdr': 'UNSUPPORTED_FORMAT',
  'formats/nifti/nifti-reader-js/not-nifti.nii': 'UNKNOWN_FORMAT',
  // Complex voxels.
  'formats/nifti/niivue/complex.nii.gz': 'UNSUPPORTED_FORMAT',
  // Images of one or two dimensions have no place in space; five are not frames and components.
  'formats/nifti/dtypes/complex/complex32.nii': 'UNSUPPORTED_FORMAT',
  'formats/nifti/dtypes/complex/complex64.nii': 'UNSUPPORTED_FORMAT',
  'formats/nifti/dtypes/minimal_extended_hdr.nii': 'UNSUPPORTED_FORMAT',
  'formats/metaimage/image128x256RGB.mhd': 'UNSUPPORTED_FORMAT',
  'formats/metaimage/image3x4-extra-stuff.mhd': 'UNSUPPORTED_FORMAT',
  'formats/metaimage/image3x4-no-spacing-with-12-size.mhd': 'UNSUPPORTED_FORMAT',
  'formats/metaimage/image3x4-no-spacing.mhd': 'UNSUPPORTED_FORMAT',
  'formats/metaimage/image3x4-with-12-spacing.mhd': 'UNSUPPORTED_FORMAT',
  'formats/metaimage/image3x4.mhd': 'UNSUPPORTED_FORMAT',
  'formats/metaimage/image_min10_max10.mha': 'UNSUPPORTED_FORMAT',
  'formats/metaimage/image4x4x4x4x4.mha': 'UNSUPPORTED_FORMAT',
  'formats/nrrd/pynrrd/test1d_ascii.nrrd': 'UNSUPPORTED_FORMAT',
  'formats/nrrd/pynrrd/test2d_ascii.nrrd': 'UNSUPPORTED_FORMAT',
  'formats/nrrd/pynrrd/test_customFields.nrrd': 'UNSUPPORTED_FORMAT',
  'formats/nrrd/pynrrd/BallBinary30x30x30_bz2.nrrd': 'UNSUPPORTED_FORMAT',
  // A byte skip below -1; ITK refuses it too.
  'formats/nrrd/pynrrd/BallBinary30x30x30_byteskip_minus_five.nhdr': 'BAD_HEADER',
  // Its header takes a NIfTI header for voxels: ITK reads them, off by 352 bytes. More bytes than promised.
  'formats/nrrd/pynrrd/BallBinary30x30x30_nifti.nhdr': 'BAD_VOXELS',
};

const companions: [RegExp, string[]][] = [[/\.hdr(\.gz)?$/, ['.img', '.img.gz']]];

/** The file, and the one that its header needs. */
function filesOf(path: string): string[] {
  const paths = [path];
  for (const [ending, others] of companions) {
    if (!ending.test(path)) continue;
    const gz = path.endsWith('.gz');
    const found = others
      .map((other) => path.replace(ending, other))
      .filter(existsSync)
      .sort((a, b) => Number(b.endsWith('.gz') === gz) - Number(a.endsWith('.gz') === gz));
    paths.push(...found.slice(0, 1));
  }
  if (/\.(mhd|nhdr)$/.test(path)) {
    const name =
      /^(?:ElementDataFile = |data file: )(.*)$/m.exec(readFileSync(path, 'latin1'))?.[1].trim() ?? '';
    const other = join(path, '..', name);
    if (existsSync(other)) paths.push(other);
  }
  return paths;
}

const sourceOf = (path: string) => sourceFromBytes(basename(path), readFileSync(path));

function prefixOf(path: string) {
  const sizeBytes = statSync(path).size;
  const prefix = new Uint8Array(Math.min(65536, sizeBytes));
  const file = openSync(path, 'r');
  readSync(file, prefix);
  closeSync(file);
  return { name: basename(path), prefix, sizeBytes };
}

describe('readVolume() reads every image as nibabel and ITK do, or refuses it', () => {
  it.skipIf(!folder).each(Object.entries(golden))('%s', async (name, expected) => {
    const paths = filesOf(join(folder!, name));
    const reading = readVolume(paths.map(sourceOf), webPlatform, { frame: 'all' });
    if (refused[name]) {
      const error = await reading.catch((e: unknown) => e);
      expect(error).toBeInstanceOf(TomaatError);
      expect({ code: (error as TomaatError).code, message: (error as Error).message }).toMatchObject({
        code: refused[name],
      });
      return;
    }
    const { volume, header } = await reading;
    expect(await inspectVolume(paths.map(prefixOf), webPlatform)).toEqual(header);

    const shape = expected.shape ?? expected.size ?? header.size;
    const colour = expected.dtype?.startsWith('[') ?? false;
    const components = expected.shape
      ? colour
        ? expected.dtype!.split('u1').length - 1
        : (shape[4] ?? 1)
      : (expected.components ?? 1);
    expect([...header.size, header.frames, header.components]).toEqual([
      ...shape.slice(0, 3),
      shape[3] ?? 1,
      components,
    ]);
    const type = expected.dtype ?? expected.componentType;
    const names: Record<string, string> = { '>i2': 'int16', '>f4': 'float32' };
    if (type && !colour) expect(header.voxelType).toBe(names[type] ?? type);
    if (expected.affineRas) {
      const flat = expected.affineRas.flat();
      for (const [i, v] of header.affine.entries()) {
        expect(Math.abs(v - flat[i]), `affine[${i}]`).toBeLessThanOrEqual(1e-5);
      }
    }

    const { voxels } = volume;
    expect(voxels.length).toBe(voxelCount(header) * header.frames * header.components);
    if (!header.scale) expect(voxelTypeOf(voxels)).toBe(header.voxelType);
    if (expected.sum !== undefined) {
      const precision = header.scale && voxelTypeOf(voxels) === 'float32' ? 1e-6 : 1e-12;
      const near = (value: number, wanted: number, size: number) =>
        expect(Math.abs(value - wanted)).toBeLessThanOrEqual(precision * Math.max(1, size));
      let [sum, size, min, max] = [0, 0, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
      for (let i = 0; i < voxels.length; i++) {
        const v = Number(voxels[i]);
        sum += v;
        size += Math.abs(v);
        if (v < min) min = v;
        if (v > max) max = v;
      }
      near(sum, expected.sum, size);
      near(min, expected.min!, Math.abs(expected.min!));
      near(max, expected.max!, Math.abs(expected.max!));
      for (const [index, value] of expected.probes ?? []) {
        const [x, y, z, t = 0, c = 0] = index;
        const n = voxelCount(header);
        const at = x + header.size[0] * (y + header.size[1] * z) + n * (t * header.components + c);
        near(Number(voxels[at]), value, Math.abs(value));
      }
    }
  });

  it.skipIf(!folder)('refuses exactly the images in the table', () => {
    expect(Object.keys(refused).filter((name) => !(name in golden))).toEqual([]);
  });
});

describe('readVolume() agrees with itself across formats', () => {
  const read = async (...names: string[]) =>
    (
      await readVolume(
        names.map((n) => sourceOf(join(folder!, n))),
        webPlatform,
      )
    ).volume;

  it.skipIf(!folder)('FLAIR as NIfTI and as NRRD: the same values at the same places', async () => {
    const nifti = await read('formats/nifti/niivue/FLAIR.nii.gz');
    const nrrd = await read('formats/nifti/niivue/FLAIR.nrrd');
    const toIndex = invert(nrrd.affine);
    for (let i = 0; i < 5000; i++) {
      const p = [(i * 7919) % 124, (i * 104729) % 160, (i * 1299709) % 140] as const;
      const q = applyAffine(toIndex, applyAffine(nifti.affine, p)).map(Math.round);
      const at = (v: readonly number[]) => v[0] + 124 * (v[1] + 160 * v[2]);
      expect(nrrd.voxels[at(q)]).toBe(nifti.voxels[at(p)]);
      const world = applyAffine(nrrd.affine, q as [number, number, number]);
      for (const [k, w] of applyAffine(nifti.affine, p).entries()) expect(world[k]).toBeCloseTo(w, 3);
    }
  });

  it.skipIf(!folder)('one image as MHA and as compressed NHDR: same voxels and place', async () => {
    const mha = await read('formats/same_image/mha.mha');
    const nhdr = await read('formats/same_image/nrrd.nhdr', 'formats/same_image/nrrd.raw.gz');
    expect(nhdr.voxels).toEqual(mha.voxels);
    for (const [i, v] of nhdr.affine.entries()) expect(v).toBeCloseTo(mha.affine[i], 3);
  });

  it.skipIf(!folder)('big- and little-endian twins of NIfTI: the same voxels', async () => {
    const big = await read('formats/nifti/nifti-reader-js/big.nii.gz');
    const little = await read('formats/nifti/nifti-reader-js/little.nii.gz');
    expect(big).toEqual(little);
  });

  it.skipIf(!folder)('an NHDR over the end of a compressed NIfTI: the NIfTI’s voxels', async () => {
    const nifti = await read('formats/nrrd/pynrrd/BallBinary30x30x30.nii.gz');
    const nhdr = await read(
      'formats/nrrd/pynrrd/BallBinary30x30x30_byteskip_minus_one_nifti.nhdr',
      'formats/nrrd/pynrrd/BallBinary30x30x30.nii.gz',
    );
    expect(nhdr).toEqual(nifti);
  });
});

describe('readVolume() refuses files made to break readers', () => {
  const cases: [string, ErrorCode][] = [
    ['malformed/nifti-rs/crash-08123ef33416bd6f0c5fa63d44b681b8581d62a0', 'BAD_HEADER'],
    ['malformed/nifti-rs/crash-1.nii', 'BAD_HEADER'],
    ['malformed/nifti-rs/crash-98aa054390f8d3f932f190dc22ef62c6ff2d6619', 'BAD_HEADER'],
    ['malformed/nifti-rs/crash-d03c6346fe83a026738f6b8cd2a9335a3f8cb158', 'BAD_HEADER'],
    ['malformed/nifti-rs/crash-ed7d46344d7efb3b9f0c374d66d2e02f66cc447d.nii', 'BAD_HEADER'],
    ['malformed/panimg/invalid_utf8.mhd', 'BAD_INPUT'],
    ['malformed/panimg/referring_to_system_file.mhd', 'BAD_INPUT'],
    ['malformed/panimg/zip_flat.zip', 'UNKNOWN_FORMAT'],
    ['malformed/panimg/same_name.zip', 'UNSUPPORTED_FORMAT'],
    ['malformed/panimg/tar_with_link.tar', 'UNSUPPORTED_FORMAT'],
    ['malformed/panimg/tar_with_sym_link.tar', 'UNSUPPORTED_FORMAT'],
    ['malformed/pydicom/MR_truncated.dcm', 'BAD_VOXELS'],
    ['formats/nifti/nibabel/test.mgz', 'UNSUPPORTED_FORMAT'],
    ['formats/same_image/spr.spr', 'UNKNOWN_FORMAT'],
  ];
  it.skipIf(!folder).each(cases)('%s: %s', async (name, code) => {
    const error = await readVolume([sourceOf(join(folder!, name))], webPlatform).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(TomaatError);
    expect({ code: (error as TomaatError).code, message: (error as Error).message }).toMatchObject({ code });
  });

  it.skipIf(!folder)('a MetaImage that names a system file cannot read it, even renamed', async () => {
    const header = sourceOf(join(folder!, 'malformed/panimg/referring_to_system_file.mhd'));
    const other = sourceFromBytes('other.raw', new Uint8Array(8000));
    await expect(readVolume([header, other], webPlatform)).rejects.toMatchObject({ code: 'BAD_INPUT' });
  });

  it.skipIf(!folder)('a volume of one voxel with five components is one', async () => {
    const { volume } = await readVolume(
      [sourceOf(join(folder!, 'malformed/panimg/5_1_1_1_invalid.mha'))],
      webPlatform,
    );
    expect([...volume.size, volume.components, volume.voxels.length]).toEqual([1, 1, 1, 5, 5]);
  });
});

import { describe, expect, it } from 'vitest';
import { dicomFile, type Elements, oblique, type Slice, sliceElements } from '../../test/dicom-files.ts';
import { along, four, read, refusalOf, slices } from '../../test/dicom-series.ts';
import { readVolume, sourceFromBytes } from '../formats/volume-file.ts';
import { webPlatform } from '../formats/web-platform.ts';

describe('the order and place of slices', () => {
  it('is that of their positions: affine of columns, rows and steps in RAS+', async () => {
    const { volume, header } = await read([four[2], four[0], four[3], four[1]]);
    expect(volume.size).toEqual([4, 3, 4]);
    // Columns are 1.5 mm apart along the row, rows 0.75 mm along the column; x and y change their sign.
    const expected = [
      -0.8 * 1.5, 0, -0.6 * 2.5, -10,
      -0.36 * 1.5, -0.8 * 0.75, 0.48 * 2.5, 20,
      -0.48 * 1.5, 0.6 * 0.75, 0.64 * 2.5, 30,
      0, 0, 0, 1,
    ]; // biome-ignore format: a matrix
    for (const [i, value] of expected.entries()) expect(volume.affine[i]).toBeCloseTo(value, 9);
    // The first value of slice k is 100 × its number, and of row j it is 4 j more.
    expect([0, 1, 4, 12, 24, 47].map((i) => volume.voxels[i])).toEqual([100, 101, 104, 200, 300, 411]);
    expect(header).toMatchObject({ format: 'dicom', extension: 'nii.gz', frames: 1, compressed: false });
  });

  it('does not depend on numbers, names or the order of files', async () => {
    const renumbered = four.map((slice, i) => ({ ...slice, instance: 9 - i, values: Array(12).fill(i) }));
    const { volume } = await read(renumbered.reverse());
    expect([0, 12, 24, 36].map((i) => volume.voxels[i])).toEqual([0, 1, 2, 3]);
  });

  it('keeps the shear of a tilted gantry', async () => {
    const tilted = [0, 1, 2].map(
      (k): Slice => ({ position: [0, 0, 5 * k], orientation: [1, 0, 0, 0, 0.96, 0.28], instance: k + 1 }),
    );
    const { volume } = await read(tilted);
    expect([2, 6, 10].map((i) => volume.affine[i])).toEqual(
      [0, 0, 5].map((value) => expect.closeTo(value, 9)),
    );
    expect(volume.affine[5]).toBeCloseTo(-0.96 * 0.75, 9);
  });

  it.each<[spacing: number, tolerance: number]>([
    [2.5, 0.05],
    [0.8, 0.02],
    // A tenth of the distance at most: finer slices are not let off by 0.02 mm.
    [0.05, 0.005],
  ])('of %f mm may be off by %f mm, not by more', async (spacing, tolerance) => {
    const at = (off: number) =>
      slices([0, spacing, 2 * spacing + off, 3 * spacing, 4 * spacing], { spacing: [0.05, 0.05] });
    expect((await read(at(0.98 * tolerance))).volume.size[2]).toBe(5);
    expect((await read(at(-0.98 * tolerance))).volume.size[2]).toBe(5);
    for (const off of [1.02 * tolerance, -1.02 * tolerance]) {
      const { code, message } = await refusalOf(read(at(off)));
      expect(code).toBe('BAD_HEADER');
      expect(message).toMatch(/not evenly spaced|straight line|a corner is off/);
    }
    // In the plane of the slices too.
    const moved = (off: number) =>
      at(0).map((slice, i) =>
        i === 2 ? { ...slice, position: slice.position!.map((value, k) => value + off * oblique[k]) } : slice,
      );
    expect((await read(moved(0.98 * tolerance))).volume.size[2]).toBe(5);
    expect((await refusalOf(read(moved(1.02 * tolerance)))).message).toMatch(/straight line: slice 3 of 5/);
  });

  it.each<[what: string, all: readonly Slice[], message: RegExp]>([
    [
      'a gap, with its place',
      slices([0, 2.5, 5, 10, 12.5]),
      /gap of 5 mm between slice 3 at 39\.8 mm and slice 4 at 44\.8 mm \(of 5, along the normal\), where slices are 2\.5 mm apart: a slice is missing/,
    ],
    ['a gap of several', slices([0, 2.5, 5, 15, 17.5]), /gap of 10 mm .*: 3 slices are missing there/],
    [
      'uneven spacing',
      slices([0, 2, 4, 6.5, 8.5, 10.5]),
      /not evenly spaced: 2\.5 mm between slice 3 .* but 2 mm elsewhere/,
    ],
    [
      'two images at one position',
      [...four, { ...four[1], instance: 7 }],
      /2 different images lie at one position \(slice 2 of 4, at /,
    ],
    [
      'two images side by side in one plane',
      [...four, { ...four[1], position: along(2.5, [14, -18.2, 27.6]), instance: 7 }],
      /side by side in one plane, 5 mm apart/,
    ],
    [
      'two orientations',
      [...four, { position: [0, 0, 0], orientation: [0, 1, 0, 0, 0, -1], instance: 8 }],
      /different orientations: 4 of \(0\.8\\0\.36\\-0\.48\\0\\0\.8\\0\.6\), 1 of \(0\\1\\0\\0\\0\\-1\)/,
    ],
    [
      'two matrix sizes',
      [...four, { ...four[3], rows: 4, columns: 3, instance: 8 }],
      /different matrix sizes: 4 of 4 × 3 pixels, 1 of 3 × 4 pixels/,
    ],
    [
      'two pixel spacings',
      [...four.slice(0, 3), { ...four[3], spacing: [1.5, 0.75] }],
      /different pixel spacings: 3 of 0\.75\\1\.5 mm, 1 of 1\.5\\0\.75 mm/,
    ],
    [
      'an orientation that is not of unit vectors',
      slices([0, 2], { orientation: [1, 0, 0, 0, 0, 0] }),
      /not two perpendicular unit vectors/,
    ],
    [
      'directions that are not perpendicular',
      slices([0, 2], { orientation: [1, 0, 0, 0.6, 0.8, 0] }),
      /not two perpendicular unit vectors/,
    ],
    [
      'a spacing of zero',
      slices([0, 2], { spacing: [0, 1] }),
      /PixelSpacing \(0028,0030\) is 0\\1, not two lengths/,
    ],
    ['a single image without a thickness', slices([0]), /single image without SliceThickness/],
    [
      'an image without a position',
      [...four.slice(0, 3), { ...four[3], more: { 2097202: undefined } }],
      /no ImagePositionPatient \(0020,0032\)/,
    ],
    [
      'an image without an orientation',
      [...four.slice(0, 3), { ...four[3], more: { 2097207: undefined } }],
      /no ImageOrientationPatient/,
    ],
    [
      'a position of two numbers',
      slices([0, 2], { more: { 2097202: ['DS', '1\\2'] } }),
      /has 2 numbers instead of 3/,
    ],
    ['a slope of zero', slices([0, 2], { slope: '0' }), /RescaleSlope \(0028,1053\) is 0/],
    [
      'a lookup table',
      slices([0, 2], { more: { 2633728: ['SQ', [[[0x00283002, 'US', [1, 0, 16]]]]] } }),
      /lookup table/,
    ],
    [
      'a mosaic',
      slices([0, 2], { more: { 524296: ['CS', 'ORIGINAL\\PRIMARY\\M\\MOSAIC'] } }),
      /mosaics.*dcm2niix/,
    ],
    [
      'colours',
      slices([0, 2], { more: { 2621444: ['CS', 'RGB'], 2621442: ['US', [3]] } }),
      /in colour \(RGB\)/,
    ],
    [
      '12 bits allocated',
      slices([0, 2], { more: { 2621696: ['US', [12]] } }),
      /12 bits each \(BitsAllocated\)/,
    ],
    [
      'bits that contradict each other',
      slices([0, 2], { more: { 2621698: ['US', [3]] } }),
      /BitsStored 12 and HighBit 3 contradict/,
    ],
    [
      'frames without places',
      [{ ...four[0], more: { 2621448: ['IS', '2'], 524384: ['CS', 'NM'] } }],
      /2 frames \(NM\) that have no position each/,
    ],
    [
      'pixels that are cut off',
      slices([0, 2], { more: { 2145386512: ['OW', new Uint8Array(22)] } }),
      /states 22 bytes of pixels, but its size takes 24/,
    ],
  ])('refuses %s', async (_, all, message) => {
    const error = await refusalOf(read(all));
    expect(error.code).toMatch(/BAD_HEADER|UNSUPPORTED_FORMAT|BAD_VOXELS/);
    expect(error.message).toMatch(message);
  });

  it('takes the thickness of a single image', async () => {
    const { volume } = await read(slices([0], { more: { 1572944: ['DS', '4.5'] } }));
    expect([2, 6, 10].map((i) => volume.affine[i] / 4.5)).toEqual(
      [-0.6, 0.48, 0.64].map((value) => expect.closeTo(value, 9)),
    );
  });

  it('refuses more voxels than allowed before it reads a pixel', async () => {
    const limited = (maxVoxels: number) => read(four, { limits: { maxVoxels } });
    expect((await limited(48)).volume.voxels.length).toBe(48);
    expect((await refusalOf(limited(47))).code).toBe('TOO_MANY_VOXELS');
  });
});

describe('frames', () => {
  const twice = (tag: number, vr: string, values: readonly string[]) =>
    values.flatMap((value, t) =>
      four.map(
        (slice, k): Slice => ({
          ...slice,
          instance: 10 * k + t + 1,
          values: Array(12).fill(100 * t + k),
          uid: `1.2.${t}.${k}`,
          more: { [tag]: [vr, value] },
        }),
      ),
    );

  it.each([
    ['temporal positions', 0x00200100, 'IS'],
    ['echo times', 0x00180081, 'DS'],
    ['acquisitions', 0x00200012, 'IS'],
    ['trigger times', 0x00181060, 'DS'],
  ])('by %s, in the order of the numbers', async (_, tag, vr) => {
    const all = twice(tag, vr, ['20', '3', '100']);
    const { volume, header } = await read(all, { frame: 'all' });
    expect([header.frames, volume.components]).toEqual([3, 3]);
    // 3, 20, 100: the second, the first, the third.
    expect([0, 12, 48, 96, 143].map((i) => volume.voxels[i])).toEqual([100, 101, 0, 200, 203]);
    expect((await read(all, { frame: 1 })).volume.voxels).toEqual(volume.voxels.subarray(48, 96));
    expect((await refusalOf(read(all))).code).toBe('FRAME_NEEDED');
    expect((await refusalOf(read(all, { frame: 3 }))).code).toBe('BAD_INPUT');
  });

  it('by instance numbers ordered by frame or by position', async () => {
    const same = twice(0x00200100, 'IS', ['1', '1']);
    expect((await read(same, { frame: 'all' })).volume.components).toBe(2);
    const timeMajor = same.map((slice, i) => ({ ...slice, instance: i + 1 }));
    expect((await read(timeMajor, { frame: 1 })).volume.voxels[0]).toBe(100);
    const mixed = [1, 3, 5, 8, 4, 2, 6, 7].map((instance, i) => ({ ...same[i], instance }));
    expect((await refusalOf(read(mixed))).message).toMatch(
      /2 images at each of 4 positions.*nothing tells them apart/,
    );
  });

  it('refuses frames of different numbers of images', async () => {
    const all = twice(0x00200100, 'IS', ['1', '2']);
    expect((await refusalOf(read(all.slice(1)))).message).toMatch(
      /hold 2 images each, but slice 1 of 4, at .*, holds 1/,
    );
  });
});

describe('enhanced multi-frame images', () => {
  const group = (tag: number, ...elements: Elements) => [tag, 'SQ', [elements]] as const;
  /** Frames at distances along the normal, in that order, each filled with its number × 10. */
  const enhanced = (distances: readonly number[], more: Slice['more'] = {}) => {
    const pixels = Buffer.alloc(24 * distances.length);
    for (let i = 0; i < 12 * distances.length; i++) pixels.writeUInt16LE(10 * Math.floor(i / 12), 2 * i);
    return sourceFromBytes(
      'E',
      dicomFile(
        sliceElements({
          more: {
            2097202: undefined,
            2097207: undefined,
            2621488: undefined,
            2625618: undefined,
            2625619: undefined,
            2621448: ['IS', String(distances.length)],
            1375769129: [
              'SQ',
              [
                [
                  group(0x00209116, [0x00200037, 'DS', oblique.join('\\')]),
                  group(0x00289110, [0x00180050, 'DS', '9'], [0x00280030, 'DS', '0.75\\1.5']),
                ],
              ],
            ],
            1375769136: [
              'SQ',
              distances.map((mm, i) => [
                // Index values that run against the positions.
                group(0x00209111, [0x00209128, 'UL', [1]], [0x00209157, 'UL', [distances.length - i]]),
                group(0x00209113, [0x00200032, 'DS', along(mm).join('\\')]),
                group(0x00289145, [0x00281052, 'DS', String(i)], [0x00281053, 'DS', '1']),
              ]),
            ],
            2145386512: ['OW', pixels],
            ...more,
          },
        }),
      ),
    );
  };

  it('are ordered by the position of each frame, and rescaled by its own rule', async () => {
    const { volume, source } = await readVolume([enhanced([5, 0, 7.5, 2.5])], webPlatform);
    expect(volume.size).toEqual([4, 3, 4]);
    expect([0, 12, 24, 36].map((i) => volume.voxels[i])).toEqual([11, 33, 0, 22]);
    expect(volume.affine[10]).toBeCloseTo(0.64 * 2.5, 9);
    expect(source?.slices.map(({ frameNumber }) => frameNumber)).toEqual([2, 4, 1, 3]);
  });

  it('refuse a gap as series do, and frames that are not described', async () => {
    expect((await refusalOf(readVolume([enhanced([0, 2.5, 7.5, 10])], webPlatform))).message).toMatch(
      /gap of 5 mm/,
    );
    const many = enhanced([0, 2.5], { 2621448: ['IS', '1000000000'] });
    expect((await refusalOf(readVolume([many], webPlatform))).message).toMatch(
      /1000000000 frames, but describes 2/,
    );
  });
});

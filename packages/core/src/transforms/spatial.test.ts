import { describe, expect, it } from 'vitest';
import { applyAffine, orientationOf, spacingOf, type Vec3 } from '../geometry/affine.ts';
import { oblique, patterned, voxelAt } from '../geometry/fixtures.ts';
import { corners } from '../geometry/grid.ts';
import { type Size, type Volume, voxelTypeOf } from '../volume.ts';
import { apply, logged } from './fixtures.ts';
import { spatialTransforms } from './spatial.ts';

const parse = (name: string, parameters: object) => {
  const transform = spatialTransforms.find((one) => one.name === name);
  if (!transform) throw new Error(`no transform ${name}`);
  return transform.parameters.safeParse(parameters);
};

const whole = { nonzero: false, fillHoles: false };

describe('spatialTransforms', () => {
  it('stand in the order of the documentation', () => {
    expect(spatialTransforms.map(({ name }) => name)).toEqual([
      'orientation',
      'spacing',
      'resize',
      'cropForeground',
      'centerSpatialCrop',
      'spatialPad',
      'resizeWithPadOrCrop',
      'divisiblePad',
      'flip',
    ]);
  });

  const spacing = { scaleExtent: false, antiAlias: false, fit: false };
  const constant = { mode: 'constant', value: 0 };
  it.each([
    ['orientation', { axcodes: 'PIL' }, { axcodes: 'PIL' }],
    ['spacing', { pixdim: [1000, -1, 0] }, { pixdim: [1000, -1, 0], ...spacing }],
    ['spacing', { pixdim: [-1, 1000, 1000] }, { pixdim: [-1, 1000, 1000], ...spacing }],
    ['spacing', { pixdim: [1, 1, 1], mode: 'cubic' }, { ...spacing, pixdim: [1, 1, 1], mode: 'cubic' }],
    [
      'spacing',
      { pixdim: [1, 1, 1], fit: true, separate: 'auto' },
      { ...spacing, pixdim: [1, 1, 1], fit: true, separate: 'auto' },
    ],
    ['resize', { size: [65536, -1, 0] }, { size: [65536, -1, 0], mode: 'linear', antiAlias: false }],
    ['resize', { size: [-1, 65536, 65536] }, { size: [-1, 65536, 65536], mode: 'linear', antiAlias: false }],
    ['resize', { size: [1, 1, -1] }, { size: [1, 1, -1], mode: 'linear', antiAlias: false }],
    ['cropForeground', {}, { ...whole, margin: 0 }],
    ['cropForeground', { aboveFraction: 0 }, { ...whole, aboveFraction: 0, margin: 0 }],
    [
      'cropForeground',
      { aboveFraction: 1, margin: [0, 0, 0] },
      { ...whole, aboveFraction: 1, margin: [0, 0, 0] },
    ],
    ['cropForeground', { above: -1000, margin: 3 }, { ...whole, above: -1000, margin: 3 }],
    ['centerSpatialCrop', { roiSize: [-1, 0, 9] }, { roiSize: [-1, 0, 9] }],
    ['spatialPad', { size: [9, 9, 9] }, { size: [9, 9, 9], method: 'symmetric', ...constant }],
    [
      'spatialPad',
      { size: [9, 9, 9], method: 'end', mode: 'edge', value: 2 },
      { size: [9, 9, 9], method: 'end', mode: 'edge', value: 2 },
    ],
    [
      'spatialPad',
      { size: [9, 9, 9], method: 'symmetric', mode: 'reflect' },
      { size: [9, 9, 9], method: 'symmetric', mode: 'reflect', value: 0 },
    ],
    [
      'resizeWithPadOrCrop',
      { size: [9, 9, 9], mode: 'constant' },
      { size: [9, 9, 9], mode: 'constant', value: 0 },
    ],
    ['divisiblePad', { k: 1 }, { k: 1, method: 'symmetric', ...constant }],
    ['divisiblePad', { k: 65536 }, { k: 65536, method: 'symmetric', ...constant }],
    ['divisiblePad', { k: [1, 65536, 4] }, { k: [1, 65536, 4], method: 'symmetric', ...constant }],
    ['divisiblePad', { k: 4, method: 'symmetric' }, { k: 4, method: 'symmetric', ...constant }],
    ['divisiblePad', { k: 4, method: 'end' }, { k: 4, method: 'end', ...constant }],
    ['flip', { axes: ['x'] }, { axes: ['x'] }],
    ['flip', { axes: ['z', 'y', 'x'] }, { axes: ['z', 'y', 'x'] }],
  ])('%s takes %j, with its defaults', (name, given, whole) => {
    expect(parse(name, given).data).toEqual(whole);
  });

  it.each([
    ['orientation', { axcodes: 'ras' }, ['axcodes']],
    ['orientation', { axcodes: 'RA' }, ['axcodes']],
    ['orientation', { axcodes: 'RASS' }, ['axcodes']],
    ['orientation', { axcodes: 'RAA' }, ['axcodes']],
    ['orientation', { axcodes: 'RSI' }, ['axcodes']],
    ['orientation', { axcodes: 'PAS' }, ['axcodes']],
    ['spacing', { pixdim: [1001, 1, 1] }, ['pixdim', 0]],
    ['spacing', { pixdim: [1, 1001, 1] }, ['pixdim', 1]],
    ['spacing', { pixdim: [1, 1, 1001] }, ['pixdim', 2]],
    ['spacing', { pixdim: [1, 1, 1], mode: 'quadratic' }, ['mode']],
    ['spacing', { pixdim: [1, 1, 1], separate: 'x' }, ['separate']],
    ['spacing', { pixdim: [1, 1, 1], fit: true, separate: 'w' }, ['separate']],
    ['spacing', { pixdim: [1, 1, 1], fit: true, scaleExtent: true }, ['scaleExtent']],
    ['spacing', { pixdim: [1, 1, 1], fit: true, antiAlias: true }, ['antiAlias']],
    ['resize', { size: [-2, 1, 1] }, ['size', 0]],
    ['resize', { size: [1, -2, 1] }, ['size', 1]],
    ['resize', { size: [1, 1, -2] }, ['size', 2]],
    ['resize', { size: [65537, 1, 1] }, ['size', 0]],
    ['resize', { size: [1, 65537, 1] }, ['size', 1]],
    ['resize', { size: [1, 1, 65537] }, ['size', 2]],
    ['resize', { size: [1, 1.5, 1] }, ['size', 1]],
    ['cropForeground', { aboveFraction: -0.5 }, ['aboveFraction']],
    ['cropForeground', { aboveFraction: 1.5 }, ['aboveFraction']],
    ['cropForeground', { above: 0, aboveFraction: 0 }, []],
    ['cropForeground', { above: 0, nonzero: true }, ['nonzero']],
    ['cropForeground', { aboveFraction: 0, nonzero: true }, ['nonzero']],
    ['cropForeground', { fillHoles: true }, ['fillHoles']],
    ['cropForeground', { margin: -1 }, ['margin']],
    ['cropForeground', { margin: 0.5 }, ['margin']],
    ['cropForeground', { margin: [-1, 0, 0] }, ['margin', 0]],
    ['cropForeground', { margin: [0, -1, 0] }, ['margin', 1]],
    ['cropForeground', { margin: [0, 0, -1] }, ['margin', 2]],
    ['spatialPad', { size: [9, 9, 9], method: 'start' }, ['method']],
    ['spatialPad', { size: [9, 9, 9], mode: 'wrap' }, ['mode']],
    ['divisiblePad', { k: 0 }, ['k']],
    ['divisiblePad', { k: 65537 }, ['k']],
    ['divisiblePad', { k: [4, 0, 4] }, ['k', 1]],
    ['divisiblePad', { k: 4, method: 'start' }, ['method']],
    ['flip', { axes: [] }, ['axes']],
    ['flip', { axes: ['x', 'y', 'z', 'x'] }, ['axes']],
    ['flip', { axes: ['w'] }, ['axes', 0]],
  ])('%s refuses %j', (name, given, path) => {
    expect(parse(name, given).error?.issues[0].path).toEqual(path);
  });
});

/** That voxel `there` of the result is voxel `here` of the volume: its value, at the same place in the world. */
function expectSame(out: Volume, there: Vec3, volume: Volume, here: Vec3): void {
  for (let c = 0; c < volume.components; c++) expect(voxelAt(out, there, c)).toBe(voxelAt(volume, here, c));
  const place = applyAffine(volume.affine, here).map((v) => expect.closeTo(v, 9));
  expect(applyAffine(out.affine, there)).toEqual(place);
}

const volume = patterned([7, 5, 6], oblique, 'int16', 2);

describe('flip', () => {
  it.each([
    ['x', [4, 1, 2]],
    ['y', [2, 3, 2]],
    ['z', [2, 1, 3]],
    ['xz', [4, 1, 3]],
    ['yx', [4, 3, 2]],
  ] as [string, Vec3][])('reverses %s', async (axes, there) => {
    const out = await apply(volume, ['flip', { axes: [...axes] }]);
    expect(out.size).toEqual([7, 5, 6]);
    expectSame(out, there, volume, [2, 1, 2]);
  });
});

describe('spacing', () => {
  it('keeps the first centre, or its outer edge with scaleExtent', async () => {
    // Spacing 1.2, 0.8, 2.5: 6 · 0.5 + 1, 4 · 0.4 + 1 = 2.6, kept; or 7 · 0.5 = 3.5, 5 · 0.4 and kept.
    const pixdim = [2.4, 2, -1];
    const first = await apply(volume, ['spacing', { pixdim }]);
    expect(first.size).toEqual([4, 3, 6]);
    expect(applyAffine(first.affine, [0, 0, 0])).toEqual(
      applyAffine(volume.affine, [0, 0, 0]).map((v) => expect.closeTo(v, 9)),
    );
    const edge = await apply(volume, ['spacing', { pixdim, scaleExtent: true }]);
    expect(edge.size).toEqual([4, 2, 6]);
    expect(corners(edge, 'edges')[0]).toEqual(corners(volume, 'edges')[0].map((v) => expect.closeTo(v, 9)));
    for (const { affine } of [first, edge])
      expect(spacingOf(affine)).toEqual([2.4, 2, 2.5].map((v) => expect.closeTo(v, 9)));
  });

  it('gives float32, or the own type where it takes the nearest voxel', async () => {
    const nearest = await apply(volume, ['spacing', { pixdim: [2.4, 1.6, 2.5], mode: 'nearest' }]);
    expect(voxelTypeOf(nearest.voxels)).toBe('int16');
    expect(nearest.size).toEqual([4, 3, 6]);
    for (const at of [
      [0, 0, 0],
      [3, 1, 4],
      [1, 2, 5],
    ] as Vec3[])
      expectSame(nearest, at, volume, [2 * at[0], 2 * at[1], at[2]]);
    const linear = await apply(volume, ['spacing', { pixdim: [2.4, 1.6, 2.5] }]);
    expect([voxelTypeOf(linear.voxels), linear.size]).toEqual(['float32', [4, 3, 6]]);
  });

  it.each(['spacing', 'resize'])('%s smooths first with antiAlias, but no nearest voxels', async (name) => {
    // Factor 3.5 along x (sigma 1.25), 1 along y, 1.5 along z (sigma 0.25); finer along y in the second.
    const target = name === 'resize' ? { size: [2, 5, 4] } : { pixdim: [4.2, 0.8, 3.75], scaleExtent: true };
    const smooth = await apply(volume, ['gaussianSmooth', { sigma: [1.25, 0, 0.25] }], [name, target]);
    const direct = await apply(volume, [name, { ...target, antiAlias: true }]);
    expect(direct.size).toEqual([2, 5, 4]);
    const near = [...(smooth.voxels as Float32Array)].map((v) => expect.closeTo(v, 4));
    expect([...(direct.voxels as Float32Array)]).toEqual(near);
    expect((await apply(volume, [name, target])).voxels).not.toEqual(direct.voxels);
    const nearest = await apply(volume, [name, { ...target, mode: 'nearest', antiAlias: true }]);
    expect(nearest.voxels).toEqual((await apply(volume, [name, { ...target, mode: 'nearest' }])).voxels);
  });
});

describe('resize', () => {
  it.each([
    [
      [3, -1, 0],
      [3, 5, 6],
    ],
    [
      [0, 1, -1],
      [7, 1, 6],
    ],
    [
      [-1, 0, 1],
      [7, 5, 1],
    ],
    [
      [1, 10, 12],
      [1, 10, 12],
    ],
  ])('to %j keeps the outer edges and gives %j', async (size, expected) => {
    const out = await apply(volume, ['resize', { size }]);
    expect(out.size).toEqual(expected);
    expect(out.voxels).toBeInstanceOf(Float32Array);
    const edges = corners(volume, 'edges').map((corner) => corner.map((v) => expect.closeTo(v, 9)));
    expect(corners(out, 'edges')).toEqual(edges);
  });

  it('keeps the type of nearest voxels', async () => {
    const out = await apply(volume, ['resize', { size: [7, 15, 6], mode: 'nearest' }]);
    expect(voxelTypeOf(out.voxels)).toBe('int16');
    expect(voxelAt(out, [3, 7, 4], 1)).toBe(voxelAt(volume, [3, 2, 4], 1));
  });
});

describe('cropForeground', () => {
  /** Zeros with these voxels: x, y, z, value, component. */
  const spots = (...voxels: [number, number, number, number, number?][]): Volume => {
    const out = { ...volume, voxels: new Int16Array(420) };
    for (const [x, y, z, v, c = 0] of voxels) out.voxels[((c * 6 + z) * 5 + y) * 7 + x] = v;
    return out;
  };
  const crop = async (head: Volume, parameters: object, start: Vec3, size: Size) => {
    const out = await apply(head, ['cropForeground', parameters]);
    expect(out.size).toEqual(size);
    expectSame(out, [0, 0, 0], head, start);
    const last: Vec3 = [size[0] - 1, size[1] - 1, size[2] - 1];
    expectSame(out, last, head, [start[0] + last[0], start[1] + last[1], start[2] + last[2]]);
  };

  it.each([
    [0, 0, 0],
    [6, 4, 5],
    [0, 4, 5],
    [6, 0, 0],
    [3, 2, 1],
  ] as Vec3[])('keeps a single voxel at %i, %i, %i', async (...at) => {
    await crop(spots([...at, 9]), {}, at, [1, 1, 1]);
    await crop(spots([...at, 9, 1]), {}, at, [1, 1, 1]);
  });

  it('spans first and last voxels of all rows, planes and components', async () => {
    await crop(spots([2, 3, 4, 1], [5, 1, 2, 1]), {}, [2, 1, 2], [4, 3, 3]);
    await crop(spots([5, 3, 2, 1], [2, 1, 4, 1, 1]), {}, [2, 1, 2], [4, 3, 3]);
    await crop(spots([1, 2, 3, 1], [4, 2, 3, 1], [3, 2, 3, 1]), {}, [1, 2, 3], [4, 1, 1]);
  });

  it('counts only values greater than the threshold', async () => {
    const head = spots([1, 1, 1, 10], [2, 2, 2, 20], [4, 3, 4, 40], [6, 4, 5, -5]);
    await crop(head, {}, [1, 1, 1], [4, 3, 4]);
    await crop(head, { above: 10 }, [2, 2, 2], [3, 2, 3]);
    await crop(head, { above: 9 }, [1, 1, 1], [4, 3, 4]);
    await crop(head, { aboveFraction: 0.5 }, [4, 3, 4], [1, 1, 1]);
    await crop(head, { aboveFraction: 0 }, [1, 1, 1], [4, 3, 4]);
    await crop(head, { above: -1 }, [0, 0, 0], [7, 5, 6]);
  });

  it('adds the margin to each side within the volume', async () => {
    const head = spots([3, 2, 3, 1], [4, 2, 3, 1]);
    await crop(head, { margin: 1 }, [2, 1, 2], [4, 3, 3]);
    await crop(head, { margin: [2, 1, 0] }, [1, 1, 3], [6, 3, 1]);
    await crop(head, { margin: [0, 2, 3] }, [3, 0, 0], [2, 5, 6]);
    await crop(head, { margin: 100 }, [0, 0, 0], [7, 5, 6]);
  });

  it('crops integers of 64 bits', async () => {
    const voxels = new BigInt64Array(420);
    voxels[(2 * 5 + 3) * 7 + 4] = 2n;
    await crop({ ...volume, voxels }, {}, [4, 3, 2], [1, 1, 1]);
  });

  it('finds a voxel’s plane where plane size is a multiple of plane count', async () => {
    const head: Volume = { ...volume, size: [6, 2, 4], components: 1, voxels: new Int16Array(48) };
    head.voxels[(1 * 2 + 1) * 6 + 4] = 3;
    await crop(head, {}, [4, 1, 1], [1, 1, 1]);
  });

  it('leaves the volume as it is where nothing is above the value', async () => {
    logged.length = 0;
    const head = spots([3, 2, 3, 12]);
    expect(await apply(head, ['cropForeground', { above: 12 }])).toBe(head);
    expect(logged).toEqual([expect.stringContaining('no voxel is above 12')]);
  });
});

describe('crops and pads', () => {
  it.each([
    // floor(n / 2) − floor(size / 2): 3 − 2, 2 − 1, 3 − 1.
    ['centerSpatialCrop', { roiSize: [4, 2, 3] }, [4, 2, 3], [1, 1, 2]],
    ['centerSpatialCrop', { roiSize: [1, -1, 0] }, [1, 5, 6], [3, 0, 0]],
    ['centerSpatialCrop', { roiSize: [0, 1, 9] }, [7, 1, 6], [0, 2, 0]],
    ['centerSpatialCrop', { roiSize: [-1, 9, 1] }, [7, 5, 1], [0, 0, 3]],
    // Half before, the odd voxel behind.
    ['spatialPad', { size: [10, 9, 7] }, [10, 9, 7], [-1, -2, 0]],
    ['spatialPad', { size: [10, 9, 7], method: 'end' }, [10, 9, 7], [0, 0, 0]],
    ['spatialPad', { size: [-1, 4, 8] }, [7, 5, 8], [0, 0, -1]],
    ['divisiblePad', { k: 4 }, [8, 8, 8], [0, -1, -1]],
    ['divisiblePad', { k: [2, 5, 9] }, [8, 5, 9], [0, 0, -1]],
    ['divisiblePad', { k: [9, 9, 1], method: 'end' }, [9, 9, 6], [0, 0, 0]],
    ['resizeWithPadOrCrop', { size: [4, 9, 3] }, [4, 9, 3], [1, -2, 2]],
    ['resizeWithPadOrCrop', { size: [10, 2, 0] }, [10, 2, 6], [-1, 1, 0]],
  ] as [string, object, Size, Vec3][])('%s %j gives %j voxels from %j', async (name, given, size, start) => {
    const filled = await apply(volume, [
      name,
      name === 'centerSpatialCrop' ? given : { ...given, value: -7 },
    ]);
    expect(filled.size).toEqual(size);
    expect(voxelTypeOf(filled.voxels)).toBe('int16');
    for (let z = 0; z < size[2]; z++)
      for (let y = 0; y < size[1]; y++)
        for (let x = 0; x < size[0]; x++) {
          const here: Vec3 = [x + start[0], y + start[1], z + start[2]];
          const isInside = here.every((v, i) => v >= 0 && v < volume.size[i]);
          if (isInside) expectSame(filled, [x, y, z], volume, here);
          else expect([voxelAt(filled, [x, y, z], 0), voxelAt(filled, [x, y, z], 1)]).toEqual([-7, -7]);
        }
  });

  it.each([
    ['spatialPad', { size: [9, 5, 6] }],
    ['resizeWithPadOrCrop', { size: [9, 5, 6] }],
    ['divisiblePad', { k: [9, 5, 6] }],
  ])('%s fills with 0, the border, or the mirror image', async (name, given) => {
    const row = async (mode?: string) => {
      const out = await apply(volume, [name, { ...given, ...(mode && { mode }) }]);
      return Array.from({ length: 9 }, (_, x) => voxelAt(out, [x, 3, 4], 1));
    };
    const inner = Array.from({ length: 7 }, (_, x) => voxelAt(volume, [x, 3, 4], 1));
    expect(await row()).toEqual([0, ...inner, 0]);
    expect(await row('edge')).toEqual([inner[0], ...inner, inner[6]]);
    expect(await row('reflect')).toEqual([inner[1], ...inner, inner[5]]);
    expect(new Set([0, inner[0], inner[1]]).size).toBe(3);
    expect(new Set([0, inner[5], inner[6]]).size).toBe(3);
  });
});

describe('orientation', () => {
  it('turns voxels to the letters and keeps their places', async () => {
    const out = await apply(volume, ['orientation', { axcodes: 'SRP' }]);
    expect(orientationOf(out.affine)).toBe('SRP');
    expect([...out.size].sort()).toEqual([5, 6, 7]);
    const first = applyAffine(out.affine, [0, 0, 0]);
    const same = corners(volume).some((corner) => corner.every((v, i) => Math.abs(v - first[i]) < 1e-9));
    expect(same).toBe(true);
  });
});

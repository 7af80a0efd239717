import { describe, expect, it } from 'vitest';
import { createVoxels, type Grid, type Size, type VoxelType, voxelTypes } from '../volume.ts';
import { applyAffine, identity, invert } from './affine.ts';
import {
  asWords,
  coversGrid,
  cropOrPad,
  flip,
  movesNothing,
  moveVoxels,
  reorient,
  voxelMove,
} from './exact.ts';
import { allOrientations, oblique, patterned, voxelAt } from './fixtures.ts';
import { cropGrid, orientedGrid } from './grid.ts';
import { restore } from './restore.ts';

describe('reorient()', () => {
  it('moves every voxel with its place in the world, in all 48 orientations', () => {
    const volume = patterned([7, 5, 6], oblique, 'int16', 2);
    const back = invert(volume.affine);
    for (const axcodes of allOrientations) {
      const out = reorient(volume, axcodes);
      for (let z = 0; z < out.size[2]; z++) {
        for (let y = 0; y < out.size[1]; y++) {
          for (let x = 0; x < out.size[0]; x++) {
            const p = applyAffine(back, applyAffine(out.affine, [x, y, z]));
            const source = [Math.round(p[0]), Math.round(p[1]), Math.round(p[2])] as const;
            expect(Math.hypot(p[0] - source[0], p[1] - source[1], p[2] - source[2])).toBeLessThan(1e-6);
            for (const c of [0, 1]) expect(voxelAt(out, [x, y, z], c)).toBe(voxelAt(volume, source, c));
          }
        }
      }
    }
  });

  it('is undone bit for bit in every type, larger than a tile', () => {
    for (const type of voxelTypes) {
      const volume = patterned([70, 3, 41], oblique, type);
      if (volume.voxels instanceof BigInt64Array) volume.voxels[17] = -(2n ** 62n) - 1n;
      // A NaN with a payload, which arithmetic would lose.
      if (volume.voxels instanceof Float32Array) new Uint32Array(volume.voxels.buffer)[17] = 0x7fa12345;
      for (const axcodes of ['SAR', 'LIA', 'PSR', 'ILA']) {
        const there = reorient(volume, axcodes);
        expect(there.voxels.constructor).toBe(volume.voxels.constructor);
        expect(new Uint8Array(restore(there, volume).voxels.buffer)).toEqual(
          new Uint8Array(volume.voxels.buffer),
        );
      }
    }
  });
});

describe('cropOrPad()', () => {
  const volume = patterned([5, 4, 3], oblique, 'int16');

  it('copies the inside and fills the rest, rounded and clamped to type', () => {
    const out = cropOrPad(volume, [-1, 1, 0], [4, 5, 2], { value: 40_000.6 });
    expect(voxelAt(out, [1, 0, 0])).toBe(voxelAt(volume, [0, 1, 0]));
    expect(voxelAt(out, [3, 2, 1])).toBe(voxelAt(volume, [2, 3, 1]));
    expect(voxelAt(out, [0, 0, 0])).toBe(32767);
    expect(voxelAt(out, [1, 3, 0])).toBe(32767);
    const world = applyAffine(out.affine, [3, 2, 1]);
    applyAffine(volume.affine, [2, 3, 1]).forEach((v, k) => {
      expect(world[k]).toBeCloseTo(v, 9);
    });
  });

  it('gives only the fill where nothing is inside', () => {
    const out = cropOrPad(volume, [50, 0, 0], [2, 2, 2], { value: 7 });
    expect([...out.voxels]).toEqual([7, 7, 7, 7, 7, 7, 7, 7]);
    const nan = patterned([2, 2, 2], oblique, 'float32');
    expect(cropOrPad(nan, [2, 0, 0], [1, 1, 1], { value: Number.NaN }).voxels[0]).toBeNaN();
  });

  it('repeats and mirrors as numpy.pad, padding wider than the volume', () => {
    const line = patterned([3, 1, 1], oblique, 'uint8');
    line.voxels.set([1, 2, 3] as never);
    // np.pad([1, 2, 3], 5, mode='edge' | 'reflect')
    expect([...cropOrPad(line, [-5, 0, 0], [13, 1, 1], { mode: 'edge' }).voxels]).toEqual([
      1, 1, 1, 1, 1, 1, 2, 3, 3, 3, 3, 3, 3,
    ]);
    expect([...cropOrPad(line, [-5, 0, 0], [13, 1, 1], { mode: 'reflect' }).voxels]).toEqual([
      2, 1, 2, 3, 2, 1, 2, 3, 2, 1, 2, 3, 2,
    ]);
  });

  it.each(voxelTypes)('repeats and mirrors along every axis, each component by itself: %s', (type) => {
    const source = patterned([4, 3, 5], oblique, type, 2);
    // Written out: what np.pad gives for the indices -2 to n.
    const indices = {
      edge: [
        [0, 0, 0, 1, 2, 3, 3],
        [0, 0, 0, 1, 2, 2],
        [0, 0, 0, 1, 2, 3, 4, 4],
      ],
      reflect: [
        [2, 1, 0, 1, 2, 3, 2],
        [2, 1, 0, 1, 2, 1],
        [2, 1, 0, 1, 2, 3, 4, 3],
      ],
    };
    for (const mode of ['edge', 'reflect'] as const) {
      const out = cropOrPad(source, [-2, -2, -2], [7, 6, 8], { mode });
      expect(out.size).toEqual([7, 6, 8]);
      expect(out.components).toBe(2);
      expect(out.voxels.constructor).toBe(source.voxels.constructor);
      const [xs, ys, zs] = indices[mode];
      const expected = [0, 1].flatMap((c) =>
        zs.flatMap((z) => ys.flatMap((y) => xs.map((x) => voxelAt(source, [x, y, z], c)))),
      );
      expect([...out.voxels].map(Number)).toEqual(expected);
      applyAffine(out.affine, [2, 2, 2]).forEach((v, k) => {
        expect(v).toBeCloseTo(oblique[k * 4 + 3], 9);
      });
    }
  });

  it('mirrors one layer and two as numpy.pad does', () => {
    const layers = patterned([1, 2, 1], oblique, 'int16');
    layers.voxels.set([5, 8] as never);
    const found = (mode: 'edge' | 'reflect') => [
      ...cropOrPad(layers, [0, -2, -1], [1, 6, 2], { mode }).voxels,
    ];
    expect(found('reflect')).toEqual([5, 8, 5, 8, 5, 8, 5, 8, 5, 8, 5, 8]);
    expect(found('edge')).toEqual([5, 5, 5, 8, 8, 8, 5, 5, 5, 8, 8, 8]);
  });

  it('crops alone without filling, and fills with 0 by default', () => {
    const inner = cropOrPad(volume, [1, 1, 1], [3, 2, 2], { value: 9 });
    expect([...inner.voxels]).toEqual(
      [1, 2].flatMap((z) => [1, 2].flatMap((y) => [1, 2, 3].map((x) => voxelAt(volume, [x, y, z])))),
    );
    expect([...cropOrPad(volume, [4, 3, 2], [2, 2, 1]).voxels]).toEqual([
      voxelAt(volume, [4, 3, 2]),
      0,
      0,
      0,
    ]);
  });

  it.each(voxelTypes)('copies and fills every component of %s', (type) => {
    const source = patterned([4, 3, 2], oblique, type, 3);
    for (const [start, size] of [
      [
        [-1, -1, -1],
        [6, 5, 4],
      ],
      [
        [1, 0, 1],
        [2, 4, 3],
      ],
      [
        [3, 2, -1],
        [5, 1, 2],
      ],
    ] as [Size, Size][]) {
      const out = cropOrPad(source, start, size, { value: 77 });
      const expected: number[] = [];
      for (let c = 0; c < 3; c++)
        for (let z = 0; z < size[2]; z++)
          for (let y = 0; y < size[1]; y++)
            for (let x = 0; x < size[0]; x++) {
              const p = [x + start[0], y + start[1], z + start[2]] as const;
              const isIn = p.every((v, k) => v >= 0 && v < source.size[k]);
              expected.push(isIn ? voxelAt(source, p, c) : 77);
            }
      expect([...out.voxels].map(Number)).toEqual(expected);
    }
  });

  it('refuses sizes that cannot be', () => {
    expect(() => cropOrPad(volume, [0, 0, 0], [0, 1, 1])).toThrow(/at least 1/);
    expect(() => cropOrPad(volume, [0, 0, 0], [1, 1, 2 ** 31], { mode: 'edge' })).toThrow(/too large/);
  });
});

describe('moveVoxels()', () => {
  /** Target index t has what the source has at M t + o, written out voxel by voxel. */
  function expectMoved(size: Size, type: VoxelType, axcodes: string, start: Size, room?: Size): void {
    const source = patterned(size, oblique, type, 2);
    const turned = orientedGrid(source, axcodes);
    const to = room ?? turned.size;
    const grid = cropGrid(turned, start, to);
    const back = invert(source.affine);
    const out = moveVoxels(source, grid, voxelMove(source, grid)!, 77);
    const expected: number[] = [];
    for (let c = 0; c < 2; c++)
      for (let z = 0; z < to[2]; z++)
        for (let y = 0; y < to[1]; y++)
          for (let x = 0; x < to[0]; x++) {
            const p = applyAffine(back, applyAffine(grid.affine, [x, y, z])).map(Math.round);
            const isIn = p.every((v, k) => v >= 0 && v < size[k]);
            expected.push(isIn ? voxelAt(source, [p[0], p[1], p[2]], c) : 77);
          }
    expect(out.size).toEqual(to);
    expect(out.components).toBe(2);
    expect(out.affine).toEqual(grid.affine);
    expect([...out.voxels].map(Number)).toEqual(expected);
  }

  it.each(allOrientations)('moves, crops and pads at once in orientation %s', (axcodes) => {
    expectMoved([7, 5, 6], 'int16', axcodes, [-1, -2, 1], [9, 8, 4]);
    expectMoved([7, 5, 6], 'float64', axcodes, [2, 1, -3], [4, 3, 12]);
  });

  it.each(voxelTypes)('moves %s beyond the side of a tile', (type) => {
    for (const axcodes of ['SAR', 'PSL', 'LAS', 'AIR']) expectMoved([35, 3, 34], type, axcodes, [1, 0, -1]);
  });

  it('copies nothing from a volume that only touches the grid', () => {
    const volume = patterned([4, 3, 2], oblique, 'uint8');
    for (const axcodes of ['RAS', 'LPI', 'SAR']) {
      const turned = orientedGrid(volume, axcodes);
      for (const axis of [0, 1, 2]) {
        for (const start of [-turned.size[axis], turned.size[axis]]) {
          const grid = cropGrid(
            turned,
            [0, 1, 2].map((k) => (k === axis ? start : 0)) as unknown as Size,
            turned.size,
          );
          const out = moveVoxels(volume, grid, voxelMove(volume, grid)!, 200);
          expect(new Set(out.voxels as Uint8Array)).toEqual(new Set([200]));
        }
      }
    }
  });

  it('refuses a grid that cannot be', () => {
    const volume = patterned([4, 3, 2]);
    const move = voxelMove(volume, volume)!;
    expect(() => moveVoxels(volume, { ...volume, size: [0, 1, 1] }, move)).toThrow(/at least 1/);
  });
});

describe('asWords()', () => {
  it.each(voxelTypes)('sees the memory of %s', (type) => {
    const whole = createVoxels(type, 5);
    new Uint8Array(whole.buffer).forEach((_, i, bytes) => {
      bytes[i] = 17 * i + 3;
    });
    const part = whole.subarray(1, 4);
    const words = asWords(part);
    const width = Number(type.match(/\d+/)) / 8;
    expect(words.constructor).toBe(
      { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array, 8: BigUint64Array }[width],
    );
    expect(words.length).toBe(3);
    expect(words.buffer).toBe(whole.buffer);
    expect(words.byteOffset).toBe(width);
  });
});

describe('coversGrid()', () => {
  const from: Grid = { size: [7, 5, 6], affine: oblique };
  it.each(['RAS', 'LAS', 'SPR', 'ILA'])(
    'is true up to the last voxel on either side, not beyond: %s',
    (axcodes) => {
      const turned = orientedGrid(from, axcodes);
      const covers = (start: Size, size: Size) => {
        const grid = cropGrid(turned, start, size);
        return coversGrid(from, grid, voxelMove(from, grid)!);
      };
      expect(covers([0, 0, 0], turned.size)).toBe(true);
      expect(covers([1, 1, 1], [turned.size[0] - 1, turned.size[1] - 1, turned.size[2] - 1])).toBe(true);
      for (const axis of [0, 1, 2]) {
        const one = (value: number, others: number) =>
          [0, 1, 2].map((k) => (k === axis ? value : others)) as unknown as Size;
        const size = turned.size.map((n, k) => (k === axis ? n : n - 1)) as unknown as Size;
        expect(covers(one(-1, 0), size)).toBe(false);
        expect(covers(one(1, 0), size)).toBe(false);
        expect(covers(one(0, 0), size)).toBe(true);
        expect(covers(one(turned.size[axis] - 1, 0), one(1, 1))).toBe(true);
        expect(covers(one(turned.size[axis], 0), one(1, 1))).toBe(false);
      }
    },
  );
});

describe('movesNothing()', () => {
  const from: Grid = { size: [5, 5, 5], affine: oblique };
  const nothing = (to: Grid) => movesNothing(from, to, voxelMove(from, to)!);
  it('is true of the grid itself alone', () => {
    expect(nothing({ ...from })).toBe(true);
    for (const axcodes of allOrientations) {
      const to = orientedGrid(from, axcodes);
      // The frame of the tests is left-handed.
      expect(nothing(to), axcodes).toBe(axcodes === 'LAS');
    }
    for (const axis of [0, 1, 2]) {
      const one = (value: number, others: number) =>
        [0, 1, 2].map((k) => (k === axis ? value : others)) as unknown as Size;
      expect(nothing(cropGrid(from, one(1, 0), from.size))).toBe(false);
      expect(nothing(cropGrid(from, one(-1, 0), from.size))).toBe(false);
      expect(nothing(cropGrid(from, [0, 0, 0], one(4, 5)))).toBe(false);
      expect(nothing(cropGrid(from, [0, 0, 0], one(6, 5)))).toBe(false);
    }
    // Two axes change places: each runs forwards and begins where it did.
    const swapped = {
      ...from,
      affine: from.affine.map((_, i) => from.affine[i % 4 === 3 ? i : i - (i % 4) + [1, 0, 2][i % 4]]),
    };
    expect(nothing(swapped)).toBe(false);
  });
});

describe('flip()', () => {
  it('gives a volume back that has nothing to flip', () => {
    const volume = patterned([5, 4, 3]);
    expect(flip(volume, [])).toBe(volume);
    expect(reorient(volume, 'LAS')).toBe(volume);
  });

  it('reverses voxels and keeps their places', () => {
    const volume = patterned([5, 4, 3]);
    const out = flip(volume, ['y', 'z']);
    expect(voxelAt(out, [1, 0, 2])).toBe(voxelAt(volume, [1, 3, 0]));
    expect(restore(out, volume).voxels).toEqual(volume.voxels);
  });
});

describe('voxelMove()', () => {
  const grid = { size: [50, 40, 30] as const, affine: oblique };

  it('sees through the rounding of float32 headers', () => {
    const float32 = { ...grid, affine: oblique.map(Math.fround) };
    expect(voxelMove(grid, orientedGrid(float32, 'SPL'))).toBeDefined();
    expect(voxelMove(float32, cropGrid(grid, [3, -2, 1], [10, 10, 10]))?.offset).toEqual([3, -2, 1]);
  });

  it('takes no grid that lies between the voxels', () => {
    expect(voxelMove(grid, cropGrid(grid, [0.01, 0, 0], [10, 10, 10]))).toBeUndefined();
    const stretched = { ...grid, affine: oblique.map((v, i) => (i % 4 === 0 ? v * 1.001 : v)) };
    expect(voxelMove(grid, stretched)).toBeUndefined();
  });

  it('says which axis comes from which, and from where', () => {
    const from: Grid = { size: [7, 5, 6], affine: identity };
    // Axes of "PSL" run along −y, z and −x.
    expect(voxelMove(from, orientedGrid(from, 'PSL'))).toEqual({
      axis: [1, 2, 0],
      sign: [-1, 1, -1],
      offset: [6, 4, 0],
    });
    expect(voxelMove(from, cropGrid(orientedGrid(from, 'IRA'), [1, 2, -3], [1, 1, 1]))).toEqual({
      axis: [2, 0, 1],
      sign: [-1, 1, 1],
      offset: [2, -3, 4],
    });
  });

  it('allows a thousandth of a voxel at each corner of the target', () => {
    const size = [11, 9, 6] as const;
    for (const axis of [0, 1, 2]) {
      for (const sign of [1, -1]) {
        const shifted = (off: number) =>
          cropGrid(
            { size, affine: oblique },
            [0, 1, 2].map((k) => (k === axis ? sign * off : 0)) as unknown as Size,
            size,
          );
        expect(voxelMove({ size, affine: oblique }, shifted(0.00099))).toBeDefined();
        expect(voxelMove({ size, affine: oblique }, shifted(0.00101))).toBeUndefined();
        // A spacing that is off by so much a voxel shows at the last one.
        const spaced = (total: number) => ({
          size,
          affine: oblique.map((v, i) =>
            i < 12 && i % 4 === axis ? v * (1 + (sign * total) / (size[axis] - 1)) : v,
          ),
        });
        expect(voxelMove({ size, affine: oblique }, spaced(0.00099))).toBeDefined();
        expect(voxelMove({ size, affine: oblique }, spaced(0.00101))).toBeUndefined();
      }
    }
  });

  it.each([
    ['a spacing of two', [2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]],
    ['a spacing of minus two', [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, -2, 0, 0, 0, 0, 1]],
    ['a shear by whole voxels', [1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]],
    ['a shear backwards', [1, 0, 0, 0, 0, 1, 0, 0, -1, 0, 1, 0, 0, 0, 0, 1]],
    ['a turn by 45 degrees', [1, -1, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]],
    ['a fine axis', [0.3, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]],
  ])('takes no grid with %s, even of one voxel', (_, affine) => {
    const from: Grid = { size: [4, 4, 4], affine: identity };
    for (const size of [
      [4, 4, 4],
      [1, 1, 1],
    ] as Size[])
      expect(voxelMove(from, { size, affine })).toBeUndefined();
  });

  it('refuses a grid that is finer along one axis', () => {
    const from = { size: [7, 5, 6] as const, affine: oblique };
    for (const axis of [0, 1, 2]) {
      // 0.4 of a voxel, so that every step rounds to none.
      const affine = oblique.map((v, i) => (i < 12 && i % 4 === axis ? 0.4 * v : v));
      expect(voxelMove(from, { size: [7, 5, 6], affine })).toBeUndefined();
    }
  });
});

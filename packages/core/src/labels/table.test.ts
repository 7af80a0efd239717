import { describe, expect, it } from 'vitest';
import type { Volume } from '../volume.ts';
import { filterLabels, labelTransforms, mapLabels } from './table.ts';

const affine = [2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1];
const map: Volume & { voxels: Uint8Array } = {
  voxels: Uint8Array.from('1101000200222000'.split(''), Number),
  size: [16, 1, 1],
  components: 1,
  affine,
};
const context = { parameters: {}, log: () => undefined };

async function run(name: string, parameters: unknown, volume: Volume = map): Promise<Volume> {
  const transform = labelTransforms.find((t) => t.name === name)!;
  return transform.apply(volume, transform.parameters.parse(parameters), context);
}
const show = ({ voxels }: Volume) => Array.from(voxels as Uint8Array).join('');

describe('labelTransforms', () => {
  const cases: [name: string, parameters: unknown, result: string][] = [
    ['keepLargestConnectedComponent', {}, '1100000000222000'],
    ['keepLargestConnectedComponent', { appliedLabels: [1], connectivity: 1 }, '1100000200222000'],
    [
      'keepLargestConnectedComponent',
      { independent: false, connectivity: 6, numComponents: 2 },
      '1100000000222000',
    ],
    ['removeSmallObjects', { minSize: 2 }, '1100000000222000'],
    ['removeSmallObjects', { minVolumeMl: 0.024, appliedLabels: [1] }, '0000000200222000'],
    ['fillHoles', {}, '1101000200222000'],
    ['labelFilter', { appliedLabels: [2] }, '0000000200222000'],
    ['mapLabelValue', { origLabels: [1, 2], targetLabels: [2, 1] }, '2202000100111000'],
    ['mapLabelValue', { origLabels: [2, 0], targetLabels: [0, 5] }, '1151555055000555'],
    ['binaryClosing', { radiusMm: 2, appliedLabels: [1] }, '1111000200222000'],
    ['binaryOpening', { radiusMm: 2 }, '1100000000222000'],
    ['binaryDilation', { radiusMm: 2, appliedLabels: [2] }, '1101002222222200'],
    ['binaryErosion', { radiusMm: 2, appliedLabels: [2] }, '1101000000020000'],
  ];
  it.each(cases)('%s %j', async (name, parameters, result) => {
    expect(show(await run(name, parameters))).toBe(result);
    expect(show(map)).toBe('1101000200222000');
  });

  it('mapLabelValue keeps the type where it can and widens it where it must', async () => {
    expect((await run('mapLabelValue', { origLabels: [1], targetLabels: [255] })).voxels).toBeInstanceOf(
      Uint8Array,
    );
    const wide = (await run('mapLabelValue', { origLabels: [1], targetLabels: [1000] })).voxels;
    expect(wide).toBeInstanceOf(Uint16Array);
    expect([wide[0], wide[7]]).toEqual([1000, 2]);
    expect((await run('mapLabelValue', { origLabels: [1], targetLabels: [-1] })).voxels).toBeInstanceOf(
      Int16Array,
    );
    expect((await run('mapLabelValue', { origLabels: [1], targetLabels: [99999] })).voxels).toBeInstanceOf(
      Int32Array,
    );
  });

  /** Seven voxels in a row; then one that touches it by a face, an edge or a corner in turn, each alone in its volume. */
  const touching = (dx: number, dy: number, dz: number): Volume => {
    const voxels = new Uint8Array(9 * 4 * 3);
    voxels.fill(1, 0, 7);
    voxels[(dz * 4 + dy) * 9 + 6 + dx] = 1;
    return { voxels, size: [9, 4, 3], components: 1, affine };
  };
  it.each([
    [1, 6],
    [6, 6],
    [2, 18],
    [18, 18],
    [3, 26],
    [26, 26],
  ])('connectivity %i is that of %i neighbours', async (connectivity, neighbours) => {
    const stays = async (...to: [number, number, number]) => {
      const { voxels } = await run('keepLargestConnectedComponent', { connectivity }, touching(...to));
      const small = await run('removeSmallObjects', { connectivity, minSize: 8 }, touching(...to));
      const counts = [voxels, small.voxels].map((v) => (v as Uint8Array).reduce((n, value) => n + value, 0));
      expect(counts).toEqual(counts[0] === 8 ? [8, 8] : [7, 0]);
      return counts[0] === 8;
    };
    expect([await stays(1, 0, 0), await stays(1, 1, 0), await stays(1, 1, 1)]).toEqual([
      true,
      neighbours > 6,
      neighbours > 18,
    ]);
    // Holes are parted from outside by the other neighbours; the label of a cube's shell lacks one voxel.
    const shell = (gap: number): Volume => {
      const voxels = new Uint8Array(27).fill(1);
      voxels[13] = voxels[gap] = 0;
      return { voxels, size: [3, 3, 3], components: 1, affine };
    };
    // The gap in the middle of a face, of an edge, in a corner.
    const filled = await Promise.all(
      [4, 1, 0].map(async (gap) => (await run('fillHoles', { connectivity }, shell(gap))).voxels[13] === 1),
    );
    expect(filled).toEqual([false, neighbours < 18, neighbours < 26]);
  });

  it('fillHoles has connectivity 26 and fills the slices across an axis', async () => {
    // A tube along each axis is closed in the slices across it alone.
    for (const [along, axis] of (['x', 'y', 'z'] as const).entries()) {
      const tube = (isOpen: boolean): Volume => {
        const voxels = Uint8Array.from({ length: 27 }, (_, i) => {
          const place = [i % 3, Math.floor(i / 3) % 3, Math.floor(i / 9)];
          const across = place.filter((_, k) => k !== along);
          const isMiddle = across[0] === 1 && across[1] === 1;
          const isCorner = across[0] === 0 && across[1] === 0;
          return isMiddle || (isOpen && isCorner) ? 0 : 1;
        });
        return { voxels, size: [3, 3, 3], components: 1, affine };
      };
      for (const slicewise of ['x', 'y', 'z', undefined] as const) {
        const filled = (await run('fillHoles', { slicewise, connectivity: 6 }, tube(true))).voxels[13] === 1;
        expect(filled, `${axis} ${slicewise}`).toBe(slicewise === axis);
      }
      expect((await run('fillHoles', { slicewise: axis }, tube(false))).voxels[13]).toBe(1);
      expect((await run('fillHoles', { slicewise: axis }, tube(true))).voxels[13]).toBe(0);
    }
  });

  it('removeSmallObjects has connectivity 6 and parts labels by default', async () => {
    expect((await run('removeSmallObjects', { minSize: 8 }, touching(1, 1, 0))).voxels[0]).toBe(0);
    const pair: Volume = { voxels: Uint8Array.of(1, 1, 2, 0, 3), size: [5, 1, 1], components: 1, affine };
    expect(show(await run('removeSmallObjects', { minSize: 3 }, pair))).toBe('00000');
    expect(show(await run('removeSmallObjects', { minSize: 3, independent: false }, pair))).toBe('11200');
    const both = { minSize: 1, minVolumeMl: 0.016 };
    expect(show(await run('removeSmallObjects', both, pair))).toBe('11000');
    expect(show(await run('removeSmallObjects', { ...both, minSize: 3 }, pair))).toBe('00000');
  });

  it.each([
    ['labelFilter', { appliedLabels: [2, 5] }, [0, 1, 2, 5], [0, 2, 5]],
    ['mapLabelValue', { origLabels: [1, 2, 0], targetLabels: [7, 0, 9] }, [0, 1, 2, 5], [9, 7, 0, 5]],
  ])('%s says which values may follow', (name, parameters, before, after) => {
    const transform = labelTransforms.find((t) => t.name === name)!;
    expect(transform.valuesAfter!(before, transform.parameters.parse(parameters))).toEqual(after);
  });

  it.each([
    ['keepLargestConnectedComponent', { appliedLabels: [-2147483648, 2147483647] }],
    ['keepLargestConnectedComponent', { appliedLabels: Array.from({ length: 65536 }, (_, i) => i) }],
    ['removeSmallObjects', { minSize: 1, minVolumeMl: 1e-9 }],
    ['binaryDilation', { radiusMm: 1000 }],
  ])('%s takes the limits of its parameters', (name, parameters) => {
    expect(labelTransforms.find((t) => t.name === name)!.parameters.safeParse(parameters).success).toBe(true);
  });

  it.each([
    ['keepLargestConnectedComponent', { connectivity: 8 }],
    ['keepLargestConnectedComponent', { connectivity: 4 }],
    ['keepLargestConnectedComponent', { numComponents: 0 }],
    ['keepLargestConnectedComponent', { numComponents: 1.5 }],
    ['keepLargestConnectedComponent', { appliedLabels: [] }],
    ['keepLargestConnectedComponent', { appliedLabels: [0.5] }],
    ['keepLargestConnectedComponent', { appliedLabels: [2147483648] }],
    ['keepLargestConnectedComponent', { appliedLabels: [-2147483649] }],
    ['keepLargestConnectedComponent', { appliedLabels: Array.from({ length: 65537 }, () => 1) }],
    ['removeSmallObjects', { minSize: 0 }],
    ['removeSmallObjects', { minimum: 3 }],
    ['fillHoles', { axis: 'x' }],
    ['labelFilter', { appliedLabels: [1], more: 1 }],
    ['mapLabelValue', { origLabels: [1], targetLabels: [1], more: 1 }],
    ['binaryDilation', { radiusMm: 1000.5 }],
    ['binaryOpening', { radiusMm: 0 }],
    ['binaryOpening', { radiusMm: 1, more: 1 }],
    ['keepLargestConnectedComponent', { applied_labels: [1] }],
    ['removeSmallObjects', { minVolumeMl: 0 }],
    ['fillHoles', { slicewise: 'a' }],
    ['labelFilter', {}],
    ['mapLabelValue', { origLabels: [1, 2], targetLabels: [1] }],
    ['mapLabelValue', { origLabels: [1, 1], targetLabels: [1, 2] }],
    ['binaryClosing', {}],
    ['binaryErosion', { radiusMm: -1 }],
  ])('%s refuses %j', (name, parameters) => {
    expect(labelTransforms.find((t) => t.name === name)!.parameters.safeParse(parameters).success).toBe(
      false,
    );
  });

  it.each([
    [{ origLabels: [1, 2], targetLabels: [1] }, 'targetLabels', /as many/],
    [{ origLabels: [1, 1], targetLabels: [1, 2] }, 'origLabels', /once/],
  ])('mapLabelValue names the field at fault: %j', (parameters, field, message) => {
    const { error } = labelTransforms
      .find((t) => t.name === 'mapLabelValue')!
      .parameters.safeParse(parameters);
    expect(error?.issues).toMatchObject([{ path: [field], message: expect.stringMatching(message) }]);
  });
});

describe('filterLabels()', () => {
  it('keeps the labels and the type, in every order of values', () => {
    const voxels = BigInt64Array.of(3n, -1n, 3n, 3n, 0n, 5n, -1n, -1n, 5n);
    const volume: Volume = { voxels, size: [3, 3, 1], components: 1, affine };
    expect(filterLabels(volume, [3, -1])).toEqual({
      ...volume,
      voxels: BigInt64Array.of(3n, -1n, 3n, 3n, 0n, 0n, -1n, -1n, 0n),
    });
    expect(filterLabels(volume, []).voxels).toEqual(new BigInt64Array(9));
    expect(voxels[5]).toBe(5n);
  });
});

describe('mapLabels()', () => {
  const volumeOf = (voxels: Volume['voxels']): Volume => ({
    voxels,
    size: [voxels.length, 1, 1],
    components: 1,
    affine,
  });

  it.each([
    [Int16Array.of(0, 1, 1, 2), [1], [300], Int16Array.of(0, 300, 300, 2)],
    [Float32Array.of(0, 1, 1, 2), [1], [300], Float32Array.of(0, 300, 300, 2)],
    [BigUint64Array.of(0n, 1n, 2n), [2], [9], BigUint64Array.of(0n, 1n, 9n)],
    [BigUint64Array.of(0n, 1n, 2n), [2], [-9], Int16Array.of(0, 1, -9)],
    [Int8Array.of(0, -1, 2), [2], [128], Int16Array.of(0, -1, 128)],
    [Int8Array.of(0, 1, 2), [2], [128], Uint8Array.of(0, 1, 128)],
    [Uint16Array.of(0, 40000, 2), [2], [-1], Int32Array.of(0, 40000, -1)],
    [Uint8Array.of(4, 4, 0, 4, 0), [4, 0], [0, 4], Uint8Array.of(0, 0, 4, 0, 4)],
    [Uint8Array.of(4, 4, 0), [9], [256], Uint16Array.of(4, 4, 0)],
  ] as [Volume['voxels'], number[], number[], Volume['voxels']][])(
    'of %o, %j to %j',
    (voxels, from, to, expected) => {
      const before = voxels.slice();
      expect(mapLabels(volumeOf(voxels), from, to)).toEqual(volumeOf(expected));
      expect(voxels).toEqual(before);
    },
  );

  it('refuses lists of two lengths', () => {
    expect(() => mapLabels(volumeOf(Uint8Array.of(1)), [1, 2], [1])).toThrow(
      /2 labels cannot be mapped to 1/,
    );
  });
});

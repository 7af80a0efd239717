import { describe, expect, it } from 'vitest';
import { type Size, type Volume, voxelCount } from '../volume.ts';
import { affine, volumeOf } from './fixtures.ts';
import { estimateMemory, infer } from './inferer.ts';
import { sliceSession } from './slices.ts';
import { infererSchema, type NetworkSession, type SliceSpec } from './spec.ts';

type Axis = SliceSpec['axis'];
const size: Size = [5, 4, 6];
const input = volumeOf(size, 2);
const at = (volume: Volume, component: number, [x, y, z]: readonly number[]) =>
  Number(volume.voxels[component * voxelCount(volume) + (z * volume.size[1] + y) * volume.size[0] + x]);

const sliceOf = (spec: object): SliceSpec => {
  const parsed = infererSchema.parse({ type: 'slice', ...spec });
  if (parsed.type !== 'slice') throw new Error('not a slice');
  return parsed;
};

/** Scores by both channels, class, row and column: all of them matter. */
const scoreOf = (a: number, b: number, k: number, row: number, column: number) =>
  a * Math.cos(k + 1) - b / (k + 2) + Math.sin((7 * row + 3 * column) * (k + 2));

/** A 2-D network; `seen` are the dimensions that it was given. */
function flatNetwork(seen: (readonly number[])[] = [], inputDims?: (number | null)[]): NetworkSession {
  return {
    ...(inputDims && { inputDims }),
    async run({ data, dims }) {
      seen.push(dims);
      const [rows, columns] = dims.slice(-2);
      const n = rows * columns;
      const scores = Float32Array.from({ length: 3 * n }, (_, i) => {
        const pixel = i % n;
        const k = Math.floor(i / n);
        return scoreOf(data[pixel], data[n + pixel], k, Math.floor(pixel / columns), pixel % columns);
      });
      return { data: scores, dims: dims.length === 3 ? [3, rows, columns] : [1, 3, rows, columns] };
    },
  };
}

/** Row and column of a voxel in its slice, and the number of both: y and x across z, z and x across y, z and y across x. */
const places: Record<Axis, { row: number; column: number; across: number }> = {
  z: { row: 1, column: 0, across: 2 },
  y: { row: 2, column: 0, across: 1 },
  x: { row: 2, column: 1, across: 0 },
};

function forEachVoxel(each: (at: readonly [number, number, number]) => void) {
  for (let z = 0; z < size[2]; z++)
    for (let y = 0; y < size[1]; y++) for (let x = 0; x < size[0]; x++) each([x, y, z]);
}

async function scoresOf(session: NetworkSession, spec: SliceSpec): Promise<Volume> {
  const result = await infer(input, session, spec, { type: 'none' });
  if (!('scores' in result)) throw new Error('no scores');
  return result.scores;
}

describe('infer() with slices', () => {
  it.each<Axis>(['x', 'y', 'z'])('gives each pixel across %s its rows and columns', async (axis) => {
    const { row, column, across } = places[axis];
    const seen: number[][] = [];
    const scores = await scoresOf(flatNetwork(seen), sliceOf({ axis }));
    expect(seen).toEqual(new Array(size[across]).fill([1, 2, size[row], size[column]]));
    expect(scores).toMatchObject({ size, components: 3, affine });
    forEachVoxel((voxel) => {
      for (let k = 0; k < 3; k++) {
        const expected = scoreOf(at(input, 0, voxel), at(input, 1, voxel), k, voxel[row], voxel[column]);
        expect(at(scores, k, voxel)).toBeCloseTo(expected, 5);
      }
    });
  });

  it.each<Axis>(['x', 'y', 'z'])('blends windows within the slice across %s', async (axis) => {
    const { row, column, across } = places[axis];
    // In the order x, y, z: the column’s axis comes before the row’s. Half of 3 rounds down to steps of 1, half of 2 is 1.
    const spec = sliceOf({ axis, roiSize: [3, 2], overlap: 0.5 });
    const seen: number[][] = [];
    const scores = await scoresOf(flatNetwork(seen), spec);
    const starts = (length: number, roi: number) => Array.from({ length: length - roi + 1 }, (_, i) => i);
    const [columns, rows] = [starts(size[column], 3), starts(size[row], 2)];
    expect(seen).toEqual(new Array(size[across] * columns.length * rows.length).fill([1, 2, 2, 3]));
    forEachVoxel((voxel) => {
      for (let k = 0; k < 3; k++) {
        let [sum, count] = [0, 0];
        for (const r of rows)
          for (const c of columns) {
            const [inRow, inColumn] = [voxel[row] - r, voxel[column] - c];
            if (inRow < 0 || inRow > 1 || inColumn < 0 || inColumn > 2) continue;
            sum += scoreOf(at(input, 0, voxel), at(input, 1, voxel), k, inRow, inColumn);
            count++;
          }
        expect(at(scores, k, voxel)).toBeCloseTo(sum / count, 5);
      }
    });
  });

  it('averages over mirrorings within the slice', async () => {
    const scores = await scoresOf(flatNetwork(), sliceOf({ axis: 'y', mirrorAxes: ['z'] }));
    forEachVoxel((voxel) => {
      const [x, , z] = voxel;
      const score = (row: number) => scoreOf(at(input, 0, voxel), at(input, 1, voxel), 1, row, x);
      expect(at(scores, 1, voxel)).toBeCloseTo((score(z) + score(5 - z)) / 2, 5);
    });
  });

  it.each<Axis>(['x', 'y', 'z'])('reduces slice by slice to the labels of all scores (%s)', async (axis) => {
    for (const more of [{}, { roiSize: [2, 3], mode: 'gaussian' }]) {
      const spec = sliceOf({ axis, ...more });
      const scores = await scoresOf(flatNetwork(), spec);
      const labelled = async (reduction: Parameters<typeof infer>[3]) => {
        const result = await infer(input, flatNetwork(), spec, reduction);
        if (!('labels' in result)) throw new Error('no labels');
        expect(result.labels).toMatchObject({ size, components: 1, affine });
        return result.labels;
      };
      const best = await labelled({ type: 'argmax' });
      const above = await labelled({ type: 'threshold', channel: 2, above: 0.3 });
      const rules = [
        { channel: 0, above: 0, value: 300 },
        { channel: 1, above: 0.2, value: 4 },
      ];
      const composed = await labelled({ type: 'compose', rules });
      expect(composed.voxels).toBeInstanceOf(Uint16Array);
      forEachVoxel((voxel) => {
        const values = [0, 1, 2].map((k) => at(scores, k, voxel));
        expect(at(best, 0, voxel)).toBe(values.indexOf(Math.max(...values)));
        expect(at(above, 0, voxel)).toBe(Number(values[2] > 0.3));
        expect(at(composed, 0, voxel)).toBe(values[1] > 0.2 ? 4 : values[0] > 0 ? 300 : 0);
      });
    }
  });

  it('takes label values, in two bytes once a slice needs them', async () => {
    const asked: string[] = [];
    let index = 0;
    const session: NetworkSession = {
      run: () => Promise.reject(new Error('asked for scores')),
      async runLabels({ dims }) {
        asked.push(dims.join());
        const value = [7, 9, 400, 1, 2, 3][index++];
        const Type = value > 255 ? Uint16Array : Uint8Array;
        return { data: new Type(20).fill(value), dims: [1, 1, 4, 5], integer: true };
      },
    };
    const result = await infer(input, session, sliceOf({}), { type: 'argmax' });
    if (!('labels' in result)) throw new Error('no labels');
    expect(asked).toEqual(new Array(6).fill('1,2,4,5'));
    expect(result.labels.voxels).toBeInstanceOf(Uint16Array);
    forEachVoxel((voxel) => {
      expect(at(result.labels, 0, voxel)).toBe([7, 9, 400, 1, 2, 3][voxel[2]]);
    });
  });

  it('takes a network without a batch dimension', async () => {
    const seen: number[][] = [];
    const session = flatNetwork(seen, [2, null, null]);
    const scores = await scoresOf(session, sliceOf({ axis: 'x' }));
    expect(seen).toEqual(new Array(5).fill([2, 6, 4]));
    expect(scores).toEqual(await scoresOf(flatNetwork(), sliceOf({ axis: 'x' })));
  });

  it('reports progress window by window, and stops between slices', async () => {
    const controller = new AbortController();
    const seen: number[] = [];
    let runs = 0;
    const network = flatNetwork();
    const session: NetworkSession = {
      run(tensor) {
        if (++runs === 9) controller.abort();
        return network.run(tensor);
      },
    };
    const options = { signal: controller.signal, onProgress: (fraction: number) => seen.push(fraction) };
    const spec = sliceOf({ roiSize: [5, 2], overlap: 0 });
    await expect(infer(input, session, spec, { type: 'argmax' }, options)).rejects.toMatchObject({
      code: 'CANCELED',
    });
    // Two windows in each of six slices; the ninth one ends in the middle of the fifth slice.
    expect(runs).toBe(9);
    expect(seen).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9].map((done) => expect.closeTo(done / 12, 9)));
  });

  const one = (dims: number[]): NetworkSession => ({
    run: async () => ({ data: new Float32Array(dims.reduce((a, b) => a * b)), dims }),
  });
  it.each<[string, NetworkSession, SliceSpec, string, string]>([
    [
      'a 3-D network',
      { ...one([1]), inputDims: [1, 2, null, null, null] },
      sliceOf({}),
      'BAD_MANIFEST',
      '2-D network',
    ],
    ['a fixed size', flatNetwork([], [1, 2, 4, 8]), sliceOf({}), 'BAD_MANIFEST', '1 × 2 × 1 × 4 × 8'],
    ['one answer', one([1, 3]), sliceOf({}), 'BAD_MANIFEST', 'one answer for a whole slice'],
    ['one answer with axes', one([1, 3, 1, 1]), sliceOf({}), 'BAD_MANIFEST', 'one answer for a whole slice'],
    ['another size', one([1, 3, 5, 4]), sliceOf({}), 'APP_OUTPUT', 'the size of its input'],
  ])('refuses %s', async (_what, session, spec, code, message) => {
    await expect(infer(input, session, spec, { type: 'argmax' })).rejects.toMatchObject({
      code,
      message: expect.stringContaining(message),
    });
  });

  it('refuses classes that change between slices, and an empty volume', async () => {
    let classes = 2;
    const session: NetworkSession = {
      run: async () => ({ data: new Float32Array(20 * ++classes), dims: [1, classes, 4, 5] }),
    };
    await expect(infer(input, session, sliceOf({}), { type: 'none' })).rejects.toMatchObject({
      code: 'APP_OUTPUT',
      message: expect.stringContaining('3 classes for one slice and 4'),
    });
    const empty: Volume = { voxels: new Float32Array(0), size: [5, 4, 0], components: 1, affine };
    await expect(infer(empty, session, sliceOf({}), { type: 'none' })).rejects.toMatchObject({
      code: 'BAD_INPUT',
    });
  });
});

describe('infererSchema', () => {
  it('takes slices across z by default, and refuses what is not within one', () => {
    expect(sliceOf({})).toMatchObject({ axis: 'z', overlap: 0.25, mode: 'constant' });
    const refused = (spec: object) => infererSchema.safeParse({ type: 'slice', ...spec }).error?.issues[0];
    expect(refused({ axis: 'y', mirrorAxes: ['x', 'y'] })).toMatchObject({
      path: ['mirrorAxes'],
      message: expect.stringContaining('within the slice'),
    });
    expect(refused({ roiSize: [4, 4, 4] })?.path).toEqual(['roiSize']);
    expect(refused({ axis: 'w' })?.path).toEqual(['axis']);
  });
});

describe('sliceSession()', () => {
  it.each<[Axis, (number | null)[], (number | null)[]]>([
    ['z', [1, 2, 8, null], [1, 2, 1, 8, null]],
    ['y', [1, 2, 8, null], [1, 2, 8, 1, null]],
    ['x', [null, 2, 8, 7], [null, 2, 8, 7, 1]],
    ['y', [2, 8, 7], [1, 2, 8, 1, 7]],
  ])('across %s has the input %j as that of a volume', (axis, inputDims, expected) => {
    expect(sliceSession(flatNetwork([], inputDims), axis).inputDims).toEqual(expected);
  });
});

describe('estimateMemory() of slices', () => {
  it('counts the volume, the labels and one slice of scores', () => {
    const [components, classes] = [2, 10];
    const volume: Size = [100, 80, 60];
    const count = 480_000;
    // The slice as input, its scores, its labels; the volume as input, its labels.
    const expected = (pixels: number) =>
      pixels * (4 * components + 4 * classes + 1) + count * (4 * components + 1);
    const of = (axis: Axis) => estimateMemory(sliceOf({ axis }), volume, components, classes);
    expect(of('z')).toBe(expected(8000));
    expect(of('y')).toBe(expected(6000));
    expect(of('x')).toBe(expected(4800));
    const windows = estimateMemory(sliceOf({ roiSize: [32, 32] }), volume, components, classes);
    expect(windows).toBeLessThan(estimateMemory({ type: 'simple' }, volume, components, classes) / 3);
  });
});

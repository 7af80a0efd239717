import { describe, expect, it } from 'vitest';
import { bytesPerVoxel, createVoxels, machineIsBigEndian, type Size, type VoxelType } from '../volume.ts';
import type { ParsedHeader, StoredAxis } from './header.ts';
import { readVolume, sourceFromBytes } from './volume-file.ts';
import { createVoxelSink, scaledType, swapBytes, textToBytes } from './voxel-sink.ts';
import { webPlatform } from './web-platform.ts';

/*
 * A float32 has 24 bits: a value of up to M is off by M / 2^24 at most. That is a sixteenth of a step of |slope| for M up to
 * |slope| × 2^20.
 */
describe('scaledType()', () => {
  const limit = 2 ** 20;
  it.each([
    // type, slope, the intercept that brings its largest magnitude to slope × 2^20, and the direction beyond it
    ['int16', 1, limit - 32767, 1],
    ['int16', 1, -limit + 32768, -1],
    ['int16', -1, limit - 32768, 1],
    ['int16', -1, -limit + 32767, -1],
    ['int16', 2 ** -10, 2 ** 10 - 32767 / 1024, 1 / 1024],
    ['uint16', 1, limit - 65535, 1],
    ['uint16', 1, -limit, -1],
    ['uint16', 4, 4 * limit - 4 * 65535, 4],
    ['uint8', 1, limit - 255, 1],
    ['uint8', -1, -limit + 255, -1],
    ['int8', 1, limit - 127, 1],
    ['int8', 1, -limit + 128, -1],
  ] as const)(
    '%s, slope %d: float32 up to intercept %d, float64 beyond',
    (type, slope, intercept, beyond) => {
      expect(scaledType(type, slope, intercept)).toBe('float32');
      expect(scaledType(type, slope, intercept + beyond)).toBe('float64');
    },
  );

  it.each([
    ['int32', 1, -1024, 'float64'],
    ['uint32', 2, 0, 'float64'],
    ['int64', 1, 1, 'float64'],
    ['uint64', 1, 1, 'float64'],
    ['float64', 0.5, 0, 'float64'],
    ['float32', 0.5, -1024, 'float32'],
    ['float32', 2 ** 64, 0, 'float64'],
    ['float32', -(2 ** 64), 0, 'float64'],
    ['float32', 1, -(2 ** 64), 'float64'],
    // Numbers beyond the range of float32, at either end.
    ['uint8', 1e37, 0, 'float64'],
    ['int16', 1e-31, 0, 'float64'],
  ] as const)('%s, slope %d, intercept %d: %s', (type, slope, intercept, expected) => {
    expect(scaledType(type, slope, intercept)).toBe(expected);
  });
});

describe('readVolume() of scaled voxels', () => {
  const types: readonly [VoxelType, code: number, stored: readonly number[]][] = [
    ['int16', 4, [-32768, -32767, -1, 0, 32766, 32767]],
    ['uint16', 512, [0, 1, 2, 32767, 65534, 65535]],
    ['uint8', 2, [0, 1, 2, 127, 254, 255]],
    ['int8', 256, [-128, -127, -1, 0, 126, 127]],
  ];
  const huge = [2 ** 20, 2 ** 21, 2 ** 23, 2 ** 24, 2 ** 26, 2 ** 40, -(2 ** 21), -(2 ** 26), 0, -1024];

  it.each(types)('keeps the steps of %s apart under any intercept', async (type, code, stored) => {
    for (const slope of [1, -1, 0.5, 2 ** -12]) {
      for (const intercept of huge) {
        const voxels = createVoxels(type, 6) as Int16Array;
        voxels.set(stored);
        const bytes = new Uint8Array(352 + voxels.byteLength);
        const view = new DataView(bytes.buffer);
        view.setInt32(0, 348, true);
        for (const [i, n] of [3, 3, 2, 1, 1, 1, 1, 1].entries()) view.setInt16(40 + 2 * i, n, true);
        view.setInt16(70, code, true);
        for (const [i, mm] of [1, 2, 3, 4].entries()) view.setFloat32(76 + 4 * i, mm, true);
        view.setFloat32(108, 352, true);
        view.setFloat32(112, slope, true);
        view.setFloat32(116, intercept, true);
        bytes.set([0x6e, 0x2b, 0x31, 0], 344);
        bytes.set(new Uint8Array(voxels.buffer), 352);
        const { volume } = await readVolume([sourceFromBytes('a.nii', bytes)], webPlatform);
        for (const [i, value] of stored.entries()) {
          const off = Math.abs(Number(volume.voxels[i]) - (value * slope + intercept)) / Math.abs(slope);
          expect(off, `${slope} × ${value} + ${intercept}`).toBeLessThanOrEqual(1 / 16);
        }
      }
    }
  });
});

type Axes = ParsedHeader['layout']['inner'];
interface SinkOptions {
  type?: VoxelType;
  size?: Size;
  components?: number;
  frames?: number;
  inner?: Axes;
  outer?: Axes;
  order?: readonly StoredAxis[];
  bigEndian?: boolean;
  encoding?: 'raw' | 'text';
  scale?: { slope: number; intercept: number };
  frame?: number | 'all';
}

function sinkOf({
  type = 'uint8',
  size = [3, 2, 2],
  components = 1,
  frames = 1,
  inner = [],
  outer = [],
  order,
  bigEndian = machineIsBigEndian,
  encoding = 'raw',
  scale,
  frame = 0,
}: SinkOptions) {
  const header = { size, voxelType: type, components, frames, scale } as ParsedHeader['header'];
  const layout = { inner, outer, order, bigEndian, encoding } as unknown as ParsedHeader['layout'];
  return createVoxelSink({ header, layout }, frame);
}

/** What the sink makes of the bytes, given in pieces. */
function sunk(bytes: Uint8Array, pieceLength: number, options: SinkOptions) {
  const sink = sinkOf(options);
  for (let at = 0; at < bytes.length; at += pieceLength) sink.push(bytes.subarray(at, at + pieceLength));
  sink.finish();
  return sink;
}

describe('createVoxelSink()', () => {
  const component = (count: number) => ({ role: 'component', count }) as const;
  const frame = (count: number) => ({ role: 'frame', count }) as const;
  const space = (count: number) => ({ role: 'space', count }) as const;

  /*
   * Axes, fastest first, of arrays of 3 × 2 × 4 voxels. The value stored at a place is its number there, so that what a voxel
   * holds says where it came from.
   */
  const size: Size = [3, 2, 4];
  const arrays: [string, inner: Axes, outer: Axes][] = [
    ['one volume', [], []],
    ['components first', [component(2)], []],
    ['components last', [], [component(2)]],
    ['frames first', [frame(3)], []],
    ['frames last', [], [frame(3)]],
    ['components and frames first', [component(2), frame(3)], []],
    ['frames and components first', [frame(3), component(2)], []],
    ['components and frames last', [], [component(2), frame(3)]],
    ['frames and components last', [], [frame(3), component(2)]],
    ['components first, frames last', [component(2)], [frame(3)]],
    ['frames first, components last', [frame(3)], [component(2)]],
    ['axes of one', [component(1), frame(3)], [frame(1), component(2)]],
  ];

  /** The place of a voxel in the stored array: the sum over all axes, fastest first, of index × step. */
  function storedPlace(axes: readonly StoredAxis[], at: readonly number[], c: number, t: number): number {
    let [place, step, spatial] = [0, 1, 0];
    for (const { role, count } of axes) {
      const index = role === 'space' ? at[spatial++] : count === 1 ? 0 : role === 'frame' ? t : c;
      place += index * step;
      step *= count;
    }
    return place;
  }
  function expectPlaced(axes: readonly StoredAxis[], options: SinkOptions, pieces: readonly number[]) {
    const countOf = (role: string) => axes.reduce((n, axis) => (axis.role === role ? n * axis.count : n), 1);
    const [components, frames] = [countOf('component'), countOf('frame')];
    const total = 24 * components * frames;
    const bytes = new Uint8Array(Uint16Array.from({ length: total }, (_, i) => i + 7).buffer);
    for (const chosen of ['all', ...Array(frames).keys()] as const)
      for (const pieceLength of pieces) {
        const sink = sunk(bytes, pieceLength, {
          ...options,
          type: 'uint16',
          size,
          components,
          frames,
          frame: chosen,
        });
        const expected: number[] = [];
        for (const t of chosen === 'all' ? Array(frames).keys() : [chosen])
          for (let c = 0; c < components; c++)
            for (let z = 0; z < 4; z++)
              for (let y = 0; y < 2; y++)
                for (let x = 0; x < 3; x++) expected.push(storedPlace(axes, [x, y, z], c, t) + 7);
        expect([...(sink.voxels as Uint16Array)], `frame ${chosen}`).toEqual(expected);
        expect(sink.components).toBe(components * (chosen === 'all' ? frames : 1));
      }
  }

  it.each(arrays)('puts voxels in their places: %s', (_name, inner, outer) => {
    expectPlaced([...inner, space(3), space(2), space(4), ...outer], { inner, outer }, [1, 2, 7, 48, 1000]);
  });

  it.each<[string, StoredAxis[]]>([
    ['frames second', [space(3), frame(3), space(2), space(4)]],
    ['frames third', [space(3), space(2), frame(3), space(4)]],
    ['components second', [space(3), component(2), space(2), space(4)]],
    ['components first, frames second', [component(2), space(3), frame(3), space(2), space(4)]],
    ['frames second, components third', [space(3), frame(3), space(2), component(2), space(4)]],
    ['an axis of one frame besides', [space(3), frame(3), space(2), space(4), frame(1)]],
  ])('puts voxels in their places: %s', (_name, order) => {
    expectPlaced(order, { order }, [1, 5, 1000]);
  });

  it('accepts more values than its buffer holds', () => {
    // 3 × 150 × 151 voxels are more than 65536 values.
    const count = 3 * 150 * 151;
    for (const [type, array] of [
      ['uint32', Uint32Array],
      ['float64', Float64Array],
    ] as const) {
      const values = new array(count * 2);
      for (let i = 0; i < values.length; i++) values[i] = i;
      const bytes = new Uint8Array(values.buffer);
      for (const pieceLength of [100_003, bytes.length]) {
        const options = { type, size: [3, 150, 151] as const, components: 2 };
        const first = sunk(bytes, pieceLength, { ...options, inner: [component(2)] });
        const order = [space(3), component(2), space(150), space(151)];
        const second = sunk(bytes, pieceLength, { ...options, order });
        for (const at of [0, 1, 2, 3, 32_767, 32_768, 32_769, 65_535, 65_536, count - 1]) {
          expect([first.voxels[at], first.voxels[count + at]]).toEqual([2 * at, 2 * at + 1]);
          const [x, rest] = [at % 3, Math.floor(at / 3)];
          expect([second.voxels[at], second.voxels[count + at]]).toEqual([6 * rest + x, 6 * rest + x + 3]);
        }
      }
    }
  });

  it('accepts more components than values in its buffer', () => {
    const count = 70_000;
    const bytes = new Uint8Array(Uint16Array.from({ length: count * 2 }, (_, i) => i).buffer);
    const { voxels } = sunk(bytes, 9999, {
      type: 'uint16',
      size: [2, 1, 1],
      components: count,
      inner: [component(count)],
    });
    for (const c of [0, 1, 40_000, count - 1])
      expect([voxels[2 * c], voxels[2 * c + 1]]).toEqual([c & 65_535, (c + count) & 65_535]);
  });

  it.each([
    ['int16', [0x0102, 0x0304, -2]],
    ['float32', [1.5, -2.25, 3e7]],
    ['uint32', [0x01020304, 0xfffefdfc, 5]],
    ['float64', [1.5, -2.25, 3e77]],
    ['int8', [1, -2, 3]],
  ] as const)('reads %s of the other byte order, and the machine’s as it is', (type, values) => {
    const array = createVoxels(type, 3) as Float64Array;
    array.set(values);
    const own = new Uint8Array(array.buffer);
    const width = own.length / 3;
    const other = own.map((_, i) => own[i - (i % width) + width - 1 - (i % width)]);
    const more = { type, size: [3, 1, 1] as const };
    for (const options of [
      {},
      { components: 1, order: [space(3), frame(1), space(1), space(1)] },
      { scale: { slope: 2, intercept: 0 } },
    ]) {
      const factor = options.scale?.slope ?? 1;
      const expected = values.map((v) => v * factor);
      for (const [bytes, bigEndian] of [
        [own, machineIsBigEndian],
        [other, !machineIsBigEndian],
      ] as const)
        expect([...(sunk(bytes, 2, { ...more, ...options, bigEndian }).voxels as Int16Array)]).toEqual(
          expected,
        );
      const text = sunk(own, 2, { ...more, ...options, bigEndian: !machineIsBigEndian, encoding: 'text' });
      expect([...(text.voxels as Int16Array)]).toEqual(expected);
    }
  });

  it('scales integers of 64 bits, and keeps the bits of NaN', () => {
    const longs = new Uint8Array(BigInt64Array.of(-(2n ** 40n), 5n, 2n ** 62n).buffer);
    const scaled = sunk(longs, 5, { type: 'int64', size: [3, 1, 1], scale: { slope: 0.5, intercept: 3 } });
    expect([...(scaled.voxels as Float64Array)]).toEqual([3 - 2 ** 39, 5.5, 3 + 2 ** 61]);
    const unsigned = new Uint8Array(BigUint64Array.of(2n ** 63n, 6n).buffer);
    const more = sunk(unsigned, 16, { type: 'uint64', size: [2, 1, 1], scale: { slope: 2, intercept: -1 } });
    expect([...(more.voxels as Float64Array)]).toEqual([2 ** 64, 11]);
    const nan = new Uint8Array(Uint32Array.of(0x7fa00001, 0xffc01234).buffer);
    const kept = sunk(nan, 8, { type: 'float32', size: [1, 1, 1], components: 2, inner: [component(2)] });
    expect(new Uint8Array(kept.voxels.buffer)).toEqual(nan);
  });

  it('refuses voxels that do not fit into memory', () => {
    expect(() => sinkOf({ size: [2 ** 20, 2 ** 20, 2 ** 20] })).toThrow(
      expect.objectContaining({ code: 'TOO_MANY_VOXELS', cause: expect.any(RangeError) }),
    );
  });
});

describe('swapBytes()', () => {
  it.each([
    [1, [1, 2, 3, 4, 5, 6, 7, 8]],
    [2, [2, 1, 4, 3, 6, 5, 8, 7]],
    [4, [4, 3, 2, 1, 8, 7, 6, 5]],
    [8, [8, 7, 6, 5, 4, 3, 2, 1]],
  ])('turns round values of %i bytes, within the given bytes alone', (width, expected) => {
    const all = Uint8Array.from({ length: 32 }, (_, i) => i - 7);
    const offset = 8;
    const before = all.slice();
    swapBytes(all.subarray(offset, offset + 8), width);
    expect([...all.subarray(offset, offset + 8)]).toEqual(expected);
    expect(all.subarray(0, offset)).toEqual(before.subarray(0, offset));
    expect(all.subarray(offset + 8)).toEqual(before.subarray(offset + 8));
    const high = Uint8Array.from({ length: 16 }, (_, i) => 255 - i);
    const reversed = [...high].map((_, i) => high[i - (i % width) + width - 1 - (i % width)]);
    swapBytes(high, width);
    expect([...high]).toEqual(reversed);
  });
});

describe('textToBytes()', () => {
  async function read(type: VoxelType, ...texts: string[]) {
    async function* source() {
      for (const text of texts) yield new Uint8Array(Buffer.from(text, 'latin1'));
    }
    const chunks: Uint8Array[] = [];
    for await (const chunk of textToBytes(source(), type)) chunks.push(chunk);
    const bytes = new Uint8Array(Buffer.concat(chunks));
    return [...(createVoxels(type, bytes.length / bytesPerVoxel(type), bytes.buffer) as Float64Array)];
  }

  it.each([
    ['uint8', '0', '255', '-1', '256'],
    ['int8', '-128', '127', '-129', '128'],
    ['uint16', '0', '65535', '-1', '65536'],
    ['int16', '-32768', '32767', '-32769', '32768'],
    ['uint32', '0', '4294967295', '-1', '4294967296'],
    ['int32', '-2147483648', '2147483647', '-2147483649', '2147483648'],
    ['uint64', '0', '18446744073709551615', '-1', '18446744073709551616'],
    ['int64', '-9223372036854775808', '9223372036854775807', '-9223372036854775809', '9223372036854775808'],
  ] as const)('reads %s from %s to %s, and refuses %s and %s', async (type, least, most, below, above) => {
    const numbers = (await read(type, `${least} ${most}`)).map(String);
    expect(numbers).toEqual([least, most]);
    for (const word of [below, above])
      await expect(read(type, word)).rejects.toMatchObject({
        code: 'BAD_VOXELS',
        message: expect.stringContaining(`"${word}", which is not a valid ${type}`),
      });
  });

  it('takes blanks, line ends and commas between numbers, in pieces', async () => {
    expect(await read('int16', '1,2\t3\r\n +4  -5,', '\n6')).toEqual([1, 2, 3, 4, -5, 6]);
    expect(await read('int16', '1', '2', ' 3', '4', '', '5')).toEqual([12, 345]);
    expect(await read('int16', ' ')).toEqual([]);
    expect(await read('uint8')).toEqual([]);
  });

  it.each(['1.5', '1e2', '0x10', 'nan', '--1', '1-', '+', 'one'])(
    'refuses %s as an integer',
    async (word) => {
      for (const type of ['uint8', 'int64'] as const)
        await expect(read(type, word)).rejects.toMatchObject({ code: 'BAD_VOXELS' });
    },
  );

  it('reads floats, infinities and NaN in any case', async () => {
    expect(await read('float64', '0.1 -2.5e-3 +7 1E2 .5 5.')).toEqual([0.1, -0.0025, 7, 100, 0.5, 5]);
    const { POSITIVE_INFINITY: infinite } = Number;
    expect(await read('float32', 'inf +INF -inf Infinity -infinity')).toEqual([
      infinite,
      infinite,
      -infinite,
      infinite,
      -infinite,
    ]);
    expect(await read('float64', 'nan NaN -nan +NAN -nan(ind) nan() -1.#QNAN')).toEqual(
      Array(7).fill(Number.NaN),
    );
  });

  it.each(['nanx', 'banana', 'nan(1', 'infinit', 'in', '1.2.3', '0x1', 'e5'])(
    'refuses %s as a float',
    async (word) => {
      await expect(read('float32', word)).rejects.toMatchObject({ code: 'BAD_VOXELS' });
    },
  );

  it('takes numbers of 64 characters, no longer ones', async () => {
    const digits = (count: number) => '7'.padStart(count, '0');
    expect(await read('int16', digits(64))).toEqual([7]);
    await expect(read('int16', digits(65))).rejects.toMatchObject({ code: 'BAD_VOXELS' });
    expect(await read('float32', digits(64))).toEqual([7]);
    await expect(read('float32', digits(65))).rejects.toMatchObject({ code: 'BAD_VOXELS' });
  });

  it.each([
    [1000, 2],
    [1001, 1],
  ])('gives up a word of %i characters after %i pieces', async (length, expected) => {
    let pieces = 0;
    async function* source() {
      for (pieces = 1; ; pieces++) yield new Uint8Array(pieces === 1 ? length : 1).fill(48);
    }
    await expect(async () => {
      for await (const _ of textToBytes(source(), 'uint8'));
    }).rejects.toMatchObject({ code: 'BAD_VOXELS' });
    expect(pieces).toBe(expected);
  });
});

import { describe, expect, it } from 'vitest';
import { TomaatError } from '../errors.ts';
import type { Volume } from '../volume.ts';
import {
  accept,
  acceptanceSchema,
  acceptShape,
  checkResult,
  checkShape,
  checkVolume,
  resultCheckSchema,
} from './acceptance.ts';

/** 4 × 3 × 2 voxels of 2 × 3 × 5 mm, left-handed. */
const volume: Volume = {
  voxels: Int16Array.from({ length: 24 }, (_, i) => i * 10 - 100),
  size: [4, 3, 2],
  components: 1,
  affine: [-2, 0, 0, 7, 0, 3, 0, 1, 0, 0, 5, -4, 0, 0, 0, 1],
};
const rule = (value: unknown) => acceptanceSchema.parse(value);
const faultyPaths = (schema: typeof acceptanceSchema | typeof resultCheckSchema, value: unknown) =>
  (schema.safeParse(value).error?.issues ?? []).map(({ path }) => path.join('.'));

describe('acceptanceSchema', () => {
  it.each([
    {},
    { components: 1, message: 'm'.repeat(400) },
    { intensity: { minimumBelow: -500, maximumAbove: 100, constant: false, minimumCorrelation: -1 } },
    { intensity: { minimumCorrelation: 1 } },
  ])('takes %j and adds nothing', (value) => {
    expect(rule(value)).toEqual(value);
  });

  it.each<[object, string]>([
    [{ components: 0 }, 'components'],
    [{ components: 1.5 }, 'components'],
    [{ message: 'm'.repeat(401) }, 'message'],
    [{ intensity: { minimumCorrelation: -1.01 } }, 'intensity.minimumCorrelation'],
    [{ intensity: { minimumCorrelation: 1.01 } }, 'intensity.minimumCorrelation'],
    [{ intensity: { minimum: 0 } }, 'intensity'],
    [{ size: { minimum: '1' } }, 'size.minimum'],
    [{ size: { least: 1 } }, 'size'],
    [{ spacing: { minimum: 1 } }, ''],
  ])('refuses %j at "%s"', (value, path) => {
    expect(faultyPaths(acceptanceSchema, value)).toEqual([path]);
  });
});

describe('resultCheckSchema', () => {
  const message = 'm'.repeat(400);

  it.each([
    { message },
    { message, labels: [1, 70_000], minimumMl: -1, maximumMl: 1e6 },
    { message, minimumShare: 0, maximumShare: 0 },
    { message, minimumShare: 1, maximumShare: 1 },
  ])('takes %j and adds nothing', (value) => {
    expect(resultCheckSchema.parse(value)).toEqual(value);
  });

  it.each<[object, string]>([
    [{}, 'message'],
    [{ message: `${message}m` }, 'message'],
    [{ message, labels: [0] }, 'labels.0'],
    [{ message, labels: [1.5] }, 'labels.0'],
    [{ message, minimumShare: -0.01 }, 'minimumShare'],
    [{ message, minimumShare: 1.01 }, 'minimumShare'],
    [{ message, maximumShare: -0.01 }, 'maximumShare'],
    [{ message, maximumShare: 1.01 }, 'maximumShare'],
    [{ message, share: 1 }, ''],
  ])('refuses %j at "%s"', (value, path) => {
    expect(faultyPaths(resultCheckSchema, value)).toEqual([path]);
  });
});

describe('checkShape()', () => {
  it.each([
    [
      {
        size: { minimum: 2, maximum: 4 },
        extentMm: { minimum: 8, maximum: 10 },
        spacingMm: { minimum: 2, maximum: 5 },
      },
      0,
    ],
    [{ size: { minimum: 3 } }, 1],
    [{ extentMm: { minimum: 9 } }, 1],
    [{ spacingMm: { maximum: 4 } }, 1],
    [{ components: 3, size: { maximum: 3 } }, 2],
  ])('%o finds %i faults', (value, count) => {
    expect(checkShape(rule(value), volume)).toHaveLength(count);
  });

  it.each<[object, string[]]>([
    [{ size: { minimum: 3 } }, ['2 voxels', '3 voxels']],
    [{ size: { maximum: 3 } }, ['4 voxels', '3 voxels']],
    [{ extentMm: { minimum: 8.5 } }, ['8 mm', '8.5 mm']],
    [{ extentMm: { maximum: 9.5 } }, ['10 mm', '9.5 mm']],
    [{ spacingMm: { minimum: 2.5 } }, ['2 mm', '2.5 mm']],
    [{ spacingMm: { maximum: 4.5 } }, ['5 mm', '4.5 mm']],
    [{ components: 3 }, ['1', '3']],
  ])('reports for %j what is present and what is required', (value, numbers) => {
    const faults = checkShape(rule(value), volume);
    expect(faults).toHaveLength(1);
    expect(faults[0].match(/[\d.]+( voxels| mm)?/g)).toEqual(numbers);
  });

  it('takes the spacing along the oblique axes of the volume', () => {
    // x is 2 mm along (0.6, 0.8, 0), y 3 mm along (-0.8, 0.6, 0), z 5 mm.
    const oblique = { ...volume, affine: [1.2, -2.4, 0, 0, 1.6, 1.8, 0, 0, 0, 0, 5, 0, 0, 0, 0, 1] };
    const [fault] = checkShape(rule({ spacingMm: { minimum: 2.01 }, extentMm: { minimum: 7.9 } }), oblique);
    expect(fault).toContain('spacing is 2 mm');
    expect(checkShape(rule({ extentMm: { minimum: 7.9, maximum: 10.1 } }), oblique)).toEqual([]);
  });
});

describe('checkVolume()', () => {
  it('looks at the finite voxels', () => {
    expect(checkVolume(rule({ intensity: { minimumBelow: -99, maximumAbove: 129 } }), volume)).toEqual([]);
    expect(checkVolume(rule({ intensity: { minimumBelow: -100 } }), volume)[0]).toContain('-100');
    const holes = { ...volume, voxels: Float32Array.from({ length: 24 }, (_, i) => (i ? Number.NaN : 5)) };
    expect(checkVolume(rule({ intensity: { constant: false } }), holes)[0]).toContain('5');
    const none = { ...volume, voxels: new Float32Array(24).fill(Number.NaN) };
    expect(checkVolume(rule({ intensity: { constant: false } }), none)[0]).toContain('no finite value');
  });

  /** The faults of voxels that stand in a row, against a rule on intensities. */
  const faultsOf = (values: number[], intensity: object, components = 1) =>
    checkVolume(rule({ intensity }), {
      ...volume,
      size: [values.length / components, 1, 1],
      components,
      voxels: Float64Array.from(values),
    });
  /** What the messages say of the lowest and the highest value. */
  const extremaOf = (values: number[], components = 1) =>
    faultsOf(values, { minimumBelow: -1e6, maximumAbove: 1e6 }, components).map(
      (fault) => /value is ([^,]+),/.exec(fault)?.[1],
    );

  it.each([
    { values: [3, Infinity, 7, Number.NaN, -5, -Infinity, 2], extrema: ['-5', '7'] },
    { values: [-5, 0, 7], extrema: ['-5', '7'] },
    { values: [7, 0, -5], extrema: ['-5', '7'] },
    { values: [1.046, 2.345, -123.456], extrema: ['-123.46', '2.35'] },
    { values: [-0.04567, 0.04567], extrema: ['-0.046', '0.046'] },
    { values: [0, 0.1], extrema: ['0', '0.1'] },
    { values: [-1.046, -0.0999], extrema: ['-1.05', '-0.1'] },
  ])('finds the extrema $extrema of $values', ({ values, extrema }) => {
    expect(extremaOf(values)).toEqual(extrema);
  });

  it('looks at the first component', () => {
    expect(extremaOf([1, 2, 3, 4, -50, 0, 50, 9], 2)).toEqual(['1', '4']);
  });

  it('wants a value beyond each bound, not on it', () => {
    expect(faultsOf([-5, 7], { minimumBelow: -4.99, maximumAbove: 6.99 })).toEqual([]);
    expect(faultsOf([-5, 7], { minimumBelow: -5 })).toEqual([expect.stringContaining('below -5')]);
    expect(faultsOf([-5, 7], { maximumAbove: 7 })).toEqual([expect.stringContaining('above 7')]);
  });

  it('refuses one single value where constant is false alone', () => {
    expect(faultsOf([5, 5], { constant: false, minimumCorrelation: 1 })).toEqual([
      expect.stringMatching(/the value 5$/),
    ]);
    expect(faultsOf([5, 5], { constant: true })).toEqual([]);
    expect(faultsOf([5, 5], {})).toEqual([]);
    expect(faultsOf([5, 6], { constant: false })).toEqual([]);
  });

  it('lists the faults of the shape first', () => {
    const faults = checkVolume(rule({ size: { minimum: 9 }, intensity: { maximumAbove: 1e6 } }), volume);
    expect(faults).toEqual([expect.stringContaining('size'), expect.stringContaining('highest')]);
    expect(checkVolume(rule({ size: { minimum: 9 } }), volume)).toHaveLength(1);
  });

  describe('correlation', () => {
    it.each([
      // Pairs (0, 1), (1, 1), (1, 3): covariance 2/3, variances 2/3 and 8/3.
      [[0, 1, 1, 3], 0.5],
      [[0, 0.1, 0.1, 0.3], 0.5],
      [[4, 7, 10, 13], 1],
    ])('of %j is %f', (values, expected) => {
      expect(faultsOf(values, { minimumCorrelation: expected - 1e-9 })).toEqual([]);
      expect(faultsOf([...values].reverse(), { minimumCorrelation: expected - 1e-9 })).toEqual([]);
      if (expected < 1)
        expect(faultsOf(values, { minimumCorrelation: expected + 1e-9 })[0]).toContain('correlate by 0.5,');
    });

    it('may be just as high as is needed', () => {
      expect(faultsOf([4, 7, 10, 13], { minimumCorrelation: 1 })).toEqual([]);
    });

    it.each([
      ['a single voxel', [5]],
      ['one single value', [5, 5, 5]],
    ])('is 0 for %s', (_what, values) => {
      expect(faultsOf(values, { minimumCorrelation: 0.1 })[0]).toContain('correlate by 0,');
      expect(faultsOf(values, { minimumCorrelation: 0 })).toEqual([]);
    });

    it('leaves out values that are not finite', () => {
      const values = [0, Infinity, 0, 1, 1, 3, Number.NaN, 9, -Infinity];
      expect(faultsOf(values, { minimumCorrelation: 0.501 })[0]).toContain('correlate by 0.5,');
      expect(faultsOf(values, { minimumCorrelation: 0.499 })).toEqual([]);
    });

    // Along the rows' axis 0.69657 by statistics.correlation() of Python, along the others below 0.
    const rows = [
      [-1, 1, -2, 0, 1, 0],
      [0, 1, 0, 3, -1, 1],
      [-3, -1, 2, 1, 2, -3],
      [-5, -1, 2, 1, 5, -3],
      [-3, -6, 2, 2, 6, -5],
    ];
    const at = (row: number, b: number, c: number) => rows[row][b * 2 + c];
    it.each<[string, [number, number, number], (x: number, y: number, z: number) => number]>([
      ['x', [5, 3, 2], (x, y, z) => at(x, y, z)],
      ['y', [2, 5, 3], (x, y, z) => at(y, z, x)],
      ['z', [3, 2, 5], (x, y, z) => at(z, x, y)],
    ])('counts along %s', (_axis, size, valueAt) => {
      const voxels = Int16Array.from({ length: 30 }, (_, i) =>
        valueAt(i % size[0], Math.floor(i / size[0]) % size[1], Math.floor(i / size[0] / size[1])),
      );
      const faultsAt = (minimumCorrelation: number) =>
        checkVolume(rule({ intensity: { minimumCorrelation } }), { ...volume, size, voxels });
      expect(faultsAt(0.6965)).toEqual([]);
      expect(faultsAt(0.6966)).toEqual([expect.stringContaining('correlate by 0.7, but at least 0.6966')]);
    });
  });
});

describe('acceptShape()', () => {
  it('agrees with accept() for a header, except for rules on intensities', () => {
    const rules = [
      { input: 't1', size: { minimum: 8 }, intensity: { minimumBelow: -1e9 }, message: 'Bigger.' },
    ];
    const shape = {
      size: [9, 8, 7] as const,
      affine: [0, 0, 5, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1],
      components: 1,
    };
    expect(() => acceptShape(rules, 't1', shape)).toThrow(
      'Bigger. The app does not accept this volume: its size is 7 voxels, but at least 8 voxels is required.',
    );
    expect(() => acceptShape(rules, 't2', shape)).not.toThrow();
    expect(() => acceptShape(rules, 't1', { ...shape, size: [9, 8, 8] })).not.toThrow();
  });
});

describe('minimumCorrelation', () => {
  const size = [9, 8, 7] as const;
  const made = (valueAt: (x: number, y: number, z: number) => number) => ({
    ...volume,
    size,
    voxels: Float32Array.from({ length: 9 * 8 * 7 }, (_, i) =>
      valueAt(i % 9, Math.floor(i / 9) % 8, Math.floor(i / 72)),
    ),
  });
  const faults = (scan: Parameters<typeof checkVolume>[1]) =>
    checkVolume(rule({ intensity: { minimumCorrelation: 0.5, constant: false } }), scan);

  it('refuses noise and accepts volumes smooth along only one axis', () => {
    const noise = (x: number, y: number, z: number) =>
      Math.abs(Math.sin(x * 12.9 + y * 78.2 + z * 37.7) * 43_758.5) % 1;
    expect(faults(made(noise))).toEqual([expect.stringMatching(/correlate by -?0\.\d+, .*noise$/)]);
    expect(faults(made((x, y, z) => z + noise(x, y, 0)))).toEqual([]);
    expect(faults(made((x, y, z) => (x === 4 && y === 4 ? Number.NaN : y + 0.1 * noise(x, y, z))))).toEqual(
      [],
    );
    expect(faults(made(() => 5))).toEqual(['all its voxels have the value 5']);
  });
});

describe('accept()', () => {
  it('names input, rule and message', () => {
    const rules = [
      rule({ input: 'flair', size: { minimum: 99 } }),
      rule({ extentMm: { minimum: 100 }, message: 'This is no head.' }),
    ];
    expect(() => accept(rules, 't1', volume)).toThrow(
      /^This is no head\. .*field of view is 8 mm, but at least 100 mm/,
    );
    expect(() => accept(rules.slice(0, 1), 't1', volume)).not.toThrow();
    expect(() => accept(rules.slice(0, 1), 'flair', volume)).toThrow(/^The app does not accept/);
  });

  it('tries every rule, names the field, and looks at the voxels', () => {
    const rules = [
      rule({ size: { minimum: 1 } }),
      rule({ input: 't1', components: 2, intensity: { minimumBelow: -200 } }),
    ];
    expect(() => accept(rules, 't1', volume)).toThrow(
      expect.objectContaining({
        code: 'NOT_ACCEPTED',
        field: 't1',
        message: expect.stringMatching(/1 components.*; .*-100/),
      }),
    );
    expect(() => acceptShape(rules.slice(0, 1), 't1', volume)).not.toThrow();
  });
});

describe('checkResult()', () => {
  it('counts ml of the labels that it names', () => {
    const labels = {
      ...volume,
      voxels: Uint8Array.from({ length: 24 }, (_, i) => (i < 10 ? 1 : i < 12 ? 2 : 0)),
    };
    const message = 'Too little.';
    expect(() => checkResult({ minimumMl: 0.3, message }, labels)).not.toThrow();
    expect(() => checkResult({ minimumMl: 0.3, labels: [1], message }, labels)).not.toThrow();
    expect(() => checkResult({ minimumMl: 0.3, labels: [2], message }, labels)).toThrow(TomaatError);
    expect(() => checkResult({ maximumMl: 0.35, message }, labels)).toThrow('0.36 ml');
  });

  it('counts the share that its labels have of all that is labelled', () => {
    const labels = {
      ...volume,
      voxels: Uint8Array.from({ length: 24 }, (_, i) => (i < 9 ? 1 : i < 12 ? 2 : 0)),
    };
    const check = { labels: [2], message: 'Not in proportion.' };
    expect(() => checkResult({ ...check, minimumShare: 0.25, maximumShare: 0.25 }, labels)).not.toThrow();
    expect(() => checkResult({ ...check, minimumShare: 0.26 }, labels)).toThrow('(25 % of the result.)');
    expect(() => checkResult({ ...check, maximumShare: 0.24 }, labels)).toThrow('(25 % of the result.)');
    const empty = { ...volume, voxels: new Uint8Array(24) };
    expect(() => checkResult({ ...check, minimumShare: 0.01 }, empty)).toThrow('(0 % of the result.)');
  });

  it('takes a result that lies on its bounds', () => {
    // One voxel is 30 mm³.
    const labels = { ...volume, voxels: Uint8Array.from({ length: 24 }, (_, i) => (i % 2 ? 3 : 0)) };
    const message = 'Out of bounds.';
    expect(() => checkResult({ minimumMl: 0.36, maximumMl: 0.36, message }, labels)).not.toThrow();
    expect(() => checkResult({ minimumShare: 1, maximumShare: 1, message }, labels)).not.toThrow();
    expect(() => checkResult({ labels: [1], maximumMl: 0, maximumShare: 0, message }, labels)).not.toThrow();
    for (const out of [{ minimumMl: 0.361 }, { maximumMl: 0.359 }])
      expect(() => checkResult({ ...out, message }, labels)).toThrow(
        expect.objectContaining({ code: 'NOT_ACCEPTED', message: 'Out of bounds. (0.36 ml were found.)' }),
      );
    expect(() => checkResult({ labels: [1], minimumShare: 0.1, message }, labels)).toThrow(
      expect.objectContaining({ code: 'NOT_ACCEPTED', message: expect.stringContaining('(0 %') }),
    );
  });

  it('counts every label other than 0, of 64 bits too', () => {
    const voxels = BigInt64Array.from({ length: 24 }, (_, i) => [0n, 2n, -1n, 70_000n][i % 4]);
    const found = { minimumMl: 0.54, maximumMl: 0.54, message: 'Wrong.' };
    expect(() => checkResult(found, { ...volume, voxels })).not.toThrow();
    const listed = { labels: [2, 70_000], minimumMl: 0.36, maximumMl: 0.36, message: 'Wrong.' };
    expect(() => checkResult(listed, { ...volume, voxels })).not.toThrow();
  });

  it('finds 0 ml and no share in an empty label map', () => {
    const empty = { ...volume, voxels: new Uint8Array(24) };
    expect(() =>
      checkResult({ minimumMl: 0, maximumMl: 0, maximumShare: 0, message: 'Empty.' }, empty),
    ).not.toThrow();
  });
});

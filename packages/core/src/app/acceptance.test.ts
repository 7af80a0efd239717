import { describe, expect, it } from 'vitest';
import { TomaatError } from '../errors.ts';
import type { Volume } from '../volume.ts';
import { accept, acceptanceSchema, acceptShape, checkResult, checkShape, checkVolume } from './acceptance.ts';

/** 4 × 3 × 2 voxels of 2 × 3 × 5 mm, left-handed. */
const volume: Volume = {
  voxels: Int16Array.from({ length: 24 }, (_, i) => i * 10 - 100),
  size: [4, 3, 2],
  components: 1,
  affine: [-2, 0, 0, 7, 0, 3, 0, 1, 0, 0, 5, -4, 0, 0, 0, 1],
};
const rule = (value: unknown) => acceptanceSchema.parse(value);

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
});

describe('acceptShape()', () => {
  it('says of a header what accept() says of the volume, and leaves the rules on intensities out', () => {
    const rules = [
      { input: 't1', size: { minimum: 8 }, intensity: { minimumBelow: -1e9 }, message: 'Bigger.' },
    ];
    const shape = {
      size: [9, 8, 7] as const,
      affine: [0, 0, 5, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1],
      components: 1,
    };
    expect(() => acceptShape(rules, 't1', shape)).toThrow(
      'Bigger. The app does not accept this volume: its size is 7 voxels, at least 8 voxels is needed.',
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

  it('refuses noise and takes what is smooth along one axis alone', () => {
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
      /^This is no head\. .*field of view is 8 mm, at least 100 mm/,
    );
    expect(() => accept(rules.slice(0, 1), 't1', volume)).not.toThrow();
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
});

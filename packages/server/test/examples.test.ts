import { existsSync, readdirSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  applyAffine,
  composeAffine,
  determinant,
  dice,
  type ErrorCode,
  identity,
  invert,
  type LabelMeasurement,
  multiply,
  numericVoxels,
  parsePoints,
  readMesh,
  readTransform,
  type SpatialTransform,
  sourceFromBytes,
  TomaatError,
  type Vec3,
  type Volume,
  writeTransformMat,
} from '@tomaat/core';
import { describe, expect, it } from 'vitest';
import { makeModel, makeSample } from '../../../examples/onnx-smooth/make-model.ts';
import { findPython } from '../../../test/programs.ts';
import { openApp } from '../src/apps.ts';
import { checkApp } from '../src/check-app.ts';
import { nodePlatform } from '../src/node-platform.ts';
import { encode, obliqueAffine, phantom } from './phantom.ts';
import { decode, type FileRun, type FileRunOptions, runFiles } from './run-files.ts';
import { appFolder, repository } from './test-server.ts';

/** The phantom's blocks: [first, one past the last] voxel along x, y, z. */
const large = [
  [3, 9],
  [2, 8],
  [1, 5],
];
const small = [
  [14, 17],
  [11, 15],
  [7, 10],
];
const middleOf = (block: number[][]): Vec3 => block.map(([a, b]) => (a + b - 1) / 2) as unknown as Vec3;
const world = (index: Vec3) => applyAffine(obliqueAffine, index);

const volumeFile = async (volume: Volume = phantom()) =>
  ['scan.nii.gz', await encode(volume, 'nii.gz')] as const;
const run = async (example: string, options: FileRunOptions = {}, volume?: Volume): Promise<FileRun> =>
  runFiles(appFolder(`examples/${example}`), { volume: await volumeFile(volume) }, options);

function expectClose(found: readonly number[], expected: readonly number[], digits: number): void {
  expect(found).toHaveLength(expected.length);
  for (const [i, v] of expected.entries()) expect(found[i]).toBeCloseTo(v, digits);
}

function expectPoint(found: readonly number[], expected: readonly number[], digits = 3): void {
  expect(found).toHaveLength(3);
  expectClose(found, expected, digits);
}

async function expectLabels(bytes: Uint8Array, of: (intensity: number) => boolean): Promise<void> {
  const labels = await decode(bytes);
  const source = phantom();
  expect(labels.size).toEqual(source.size);
  expectClose(labels.affine, obliqueAffine, 4);
  expect(Array.from(numericVoxels(labels.voxels))).toEqual(
    Array.from(source.voxels as Int16Array, (v) => (of(v) ? 1 : 0)),
  );
}

async function expectError(work: Promise<unknown>, code: ErrorCode): Promise<TomaatError> {
  const error = await work.then(
    () => new Error('it did not fail'),
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(TomaatError);
  expect((error as TomaatError).code, (error as TomaatError).message).toBe(code);
  return error as TomaatError;
}

describe('examples/image', () => {
  it('keeps the largest piece, with its mesh and volume in RAS mm', async () => {
    const { outputs, types } = await run('image', { parameters: { smoothing: 0, level: 0.2 } });
    expect(types).toEqual({ segmentation: 'LabelVolume', mesh: 'VTKMesh', volumes: 'Measurements' });
    await expectLabels(outputs.segmentation, (v) => v === 400);
    const { labels } = JSON.parse(outputs.volumes.toString()) as { labels: LabelMeasurement[] };
    expect(labels).toHaveLength(1);
    expect(labels[0]).toMatchObject({ value: 1, name: 'bright', voxels: 144 });
    expectPoint(labels[0].centroidMm!, world(middleOf(large)));
    const { positions } = readMesh(outputs.mesh);
    const mean = [0, 1, 2].map(
      (c) => positions.reduce((sum, v, i) => (i % 3 === c ? sum + v : sum), 0) / (positions.length / 3),
    );
    for (const [i, v] of world(middleOf(large)).entries()) expect(Math.abs(mean[i] - v)).toBeLessThan(0.5);
  });

  it('leaves every piece when a condition of a step is not met', async () => {
    const { outputs } = await run('image', { parameters: { smoothing: 0, level: 0.2, largest: false } });
    await expectLabels(outputs.segmentation, (v) => v > 10);
  });

  it('smooths by the millimetres that the caller chose', async () => {
    const { outputs } = await run('image', { parameters: { smoothing: 3, level: 0.2, largest: false } });
    const labels = await decode(outputs.segmentation);
    const inside = (labels.voxels as Uint8Array).reduce((a, b) => a + b, 0);
    // The blocks lose their corners: fewer voxels than unsmoothed, but not none.
    expect(inside).toBeGreaterThan(50);
    expect(Array.from(numericVoxels(labels.voxels))).not.toEqual(
      Array.from(phantom().voxels as Int16Array, (v) => (v > 10 ? 1 : 0)),
    );
  });
});

describe('examples/points', () => {
  it('moves points to the brightest voxels, RAS mm in and out', async () => {
    const seeds = [world([15.1, 12.95, 8.05]), world([9.5, 5, 3])];
    const { outputs } = await run('points', {
      parameters: { seeds: seeds.map((p) => p.join(',')).join(';'), radius: 4 },
    });
    const points = parsePoints(outputs.points.toString());
    expect(points).toHaveLength(2);
    expectPoint(points[0], world([15, 13, 8]));
    expectPoint(points[1], world([8, 5, 3]));
  });

  it('says which point lies outside', async () => {
    const seeds = [world([5, 5, 3]), [900, 0, 0]];
    const error = await expectError(run('points', { parameters: { seeds } }), 'BAD_INPUT');
    expect(error.message).toMatch(/^Point 2 has no voxel within 10 mm/);
    expect(error.field).toBe('seeds');
  });
});

describe('examples with NaN and infinite voxels', () => {
  /** The phantom with a corner of values that are no measurements; with all voxels so. */
  const spoiled = (count: number) => {
    const voxels = Float32Array.from(phantom().voxels as Int16Array);
    const strange = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
    for (let i = 0; i < count; i++) voxels[i] = strange[i % 3];
    return { ...phantom(), voxels };
  };

  it('points go to the brightest finite voxel', async () => {
    const parameters = { seeds: world([1, 1, 1]).join(','), radius: 30 };
    const { outputs } = await run('points', { parameters }, spoiled(40));
    const clean = await run('points', { parameters });
    expect(outputs.points).toEqual(clean.outputs.points);
  });

  it('a transform leaves them out of the centre of mass', async () => {
    const [linear, clean] = await Promise.all(
      [spoiled(0), spoiled(3)].map(async (volume) => {
        const { outputs } = await run('transform', {}, volume);
        return transformOf(outputs.matrix);
      }),
    );
    if (linear.kind !== 'linear' || clean.kind !== 'linear') throw new Error('not linear');
    const places = [linear, clean].map(({ matrix }) => applyAffine(matrix, [0, 0, 0]));
    for (const [axis, value] of places[0].entries())
      expect(Math.abs(places[1][axis] - value)).toBeLessThan(0.05);
  });

  it('a text says that none is finite', async () => {
    const volume = spoiled(phantom().voxels.length);
    const { outputs } = await run('text', {}, volume);
    expect(outputs.report.toString()).toContain('Intensities: none that is a finite number');
  });
});

describe('examples/mesh', () => {
  it('gives a closed surface around the blocks, in RAS mm, outside out', async () => {
    const { outputs } = await run('mesh', { parameters: { level: 0.2, smooth: false } });
    const text = outputs.surface.toString('latin1', 0, 200).split('\n');
    expect(text[1]).toContain('SPACE=RAS');
    expect(text[2]).toBe('ASCII');
    const { positions, triangles } = readMesh(outputs.surface);
    const toIndex = invert(obliqueAffine);
    const at = (i: number): Vec3 => [positions[3 * i], positions[3 * i + 1], positions[3 * i + 2]];
    const indices = Array.from({ length: positions.length / 3 }, (_, i) => applyAffine(toIndex, at(i)));
    for (let axis = 0; axis < 3; axis++) {
      const along = indices.map((p) => p[axis]);
      expect(Math.abs(Math.min(...along) - (large[axis][0] - 0.5))).toBeLessThan(0.35);
      expect(Math.abs(Math.max(...along) - (small[axis][1] - 0.5))).toBeLessThan(0.35);
    }
    let volume = 0;
    for (let t = 0; t < triangles.length; t += 3) {
      const [a, b, c] = [at(triangles[t]), at(triangles[t + 1]), at(triangles[t + 2])];
      volume +=
        (a[0] * (b[1] * c[2] - b[2] * c[1]) -
          a[1] * (b[0] * c[2] - b[2] * c[0]) +
          a[2] * (b[0] * c[1] - b[1] * c[0])) /
        6;
    }
    const voxelMm3 = Math.abs(determinant(obliqueAffine));
    const ratio = volume / (180 * voxelMm3);
    expect(ratio).toBeGreaterThan(0.75);
    expect(ratio).toBeLessThan(1.01);
  });

  it('is available as STL too, and reports an empty surface', async () => {
    const { outputs } = await run('mesh', { parameters: { level: 0.2 }, formats: { surface: 'stl' } });
    expect(outputs.surface.length).toBe(84 + 50 * outputs.surface.readUInt32LE(80));
    expect((await expectError(run('mesh', { parameters: { level: 1 } }), 'BAD_INPUT')).field).toBe('level');
  });
});

describe('examples/text', () => {
  it('says what the volume is', async () => {
    const { outputs } = await run('text');
    const centre = world([11, 8, 5]).map((v) => Number(v.toFixed(2)));
    expect(outputs.report.toString()).toBe(
      [
        'Size: 23 × 17 × 11 voxels, int16',
        'Spacing: 1.47 × 1.96 × 2.86 mm',
        'Axes point to: LAS',
        `Centre (R, A, S): ${centre.join(', ')} mm`,
        'Intensities: 10 to 900, mean 30.51',
        '',
      ].join('\n'),
    );
  });
});

const transformOf = (bytes: Uint8Array): Promise<SpatialTransform> =>
  readTransform(sourceFromBytes('transform', bytes), nodePlatform);

describe('examples/transform', () => {
  /** Both blocks, weighted with what is above the mean. */
  const centre = (() => {
    const { voxels, size } = phantom();
    const mean = (voxels as Int16Array).reduce((a, b) => a + b, 0) / voxels.length;
    const sum = [0, 0, 0];
    let mass = 0;
    (voxels as Int16Array).forEach((v, i) => {
      if (v <= mean) return;
      const at = world([i % size[0], Math.floor(i / size[0]) % size[1], Math.floor(i / (size[0] * size[1]))]);
      for (let c = 0; c < 3; c++) sum[c] += (v - mean) * at[c];
      mass += v - mean;
    });
    return sum.map((s) => s / mass);
  })();

  it('gives a matrix from origin to centre of mass, and equal displacements', async () => {
    const { outputs, formats } = await run('transform');
    expect(formats).toEqual({ matrix: 'mat', grid: 'nii.gz' });
    const linear = await transformOf(outputs.matrix);
    if (linear.kind !== 'linear') throw new Error(linear.kind);
    expectPoint(applyAffine(linear.matrix, [0, 0, 0]), centre);
    const grid = await transformOf(outputs.grid);
    if (grid.kind !== 'grid') throw new Error(grid.kind);
    const n = 8 ** 3;
    expect(grid.displacement.voxels).toHaveLength(3 * n);
    for (let c = 0; c < 3; c++) {
      for (const i of [0, 77, n - 1])
        expect(Number(grid.displacement.voxels[c * n + i])).toBeCloseTo(centre[c], 3);
    }
    // It lies where the result lies: the volume's field of view, moved back.
    const [x, y, z] = applyAffine(grid.displacement.affine, [3.5, 3.5, 3.5]);
    expectPoint([x + centre[0], y + centre[1], z + centre[2]], world([11, 8, 5]), 2);
  });

  it('continues from a linear transform in a .mat file', async () => {
    const initial = composeAffine([1.1, 0.9, 1], [0, -1, 0, 1, 0, 0, 0, 0, 1], [5, -7, 11]);
    const { outputs } = await runFiles(appFolder('examples/transform'), {
      volume: await volumeFile(),
      initial: ['initial.mat', writeTransformMat(initial)],
    });
    const linear = await transformOf(outputs.matrix);
    if (linear.kind !== 'linear') throw new Error(linear.kind);
    expectPoint(applyAffine(linear.matrix, [0, 0, 0]), centre);
    // Only a translation was put before the one that was given.
    const before = multiply(invert(initial), linear.matrix);
    const linearPart = (a: readonly number[]) => a.filter((_, i) => i % 4 < 3);
    expectClose(linearPart(before), linearPart(identity), 6);
  });

  it('refuses a transform of the wrong kind', async () => {
    const work = runFiles(appFolder('examples/transform'), {
      volume: await volumeFile(),
      initial: ['initial.h5', hdf5],
    });
    expect((await expectError(work, 'BAD_INPUT')).field).toBe('initial');
  });
});

const hdf5 = Buffer.concat([
  Buffer.from('894844460d0a1a0a', 'hex'),
  Buffer.from(Array.from({ length: 999 }, (_, i) => (i * 7) % 256)),
]);

describe('examples/bspline', () => {
  it('hands on every byte', async () => {
    const { outputs, formats } = await runFiles(appFolder('examples/bspline'), { warp: ['warp.h5', hdf5] });
    expect(formats).toEqual({ 'warp-out': 'h5' });
    expect(outputs['warp-out'].equals(hdf5)).toBe(true);
  });
});

describe.skipIf(!findPython())('examples/command-python', () => {
  it.each([
    ['int16', Int16Array],
    ['float32', Float32Array],
    ['uint16', Uint16Array],
  ] as const)('finds the level of %s voxels', async (_, Type) => {
    const volume = { ...phantom(), voxels: Type.from(phantom().voxels as Int16Array) };
    const { outputs, log, types } = await run('command-python', {}, volume);
    await expectLabels(outputs.segmentation, (v) => v > 10);
    expect(types.threshold).toBe('PlainText');
    expect(outputs.threshold.toString()).toMatch(/^Otsu's threshold is 1[0-9]\.[0-9]+\.\n$/);
    const { labels } = JSON.parse(outputs.volumes.toString()) as { labels: LabelMeasurement[] };
    expect(labels[0]).toMatchObject({ name: 'foreground', voxels: 180 });
    // What is no progress line is in the log, and so is the name of each part of the work.
    expect(log.some((line) => line.startsWith('threshold 1'))).toBe(true);
    expect(log).toContain('finding the threshold');
  });

  it.each([Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])(
    'leaves out voxels of the value %d, and marks none of them',
    async (value) => {
      const volume = { ...phantom(), voxels: Float32Array.from(phantom().voxels as Int16Array) };
      const clean = await run('command-python', {}, volume);
      volume.voxels.fill(value, 0, 40);
      for (const invert of [false, true]) {
        const { outputs } = await run('command-python', { parameters: { invert } }, volume);
        expect(outputs.threshold).toEqual(clean.outputs.threshold);
        const { voxels } = await decode(outputs.segmentation);
        expect(Array.from(voxels as Uint8Array)).toEqual(
          Array.from(volume.voxels, (v) => Number(Number.isFinite(v) && v > 10 !== invert)),
        );
      }
    },
  );

  it('refuses a volume without a finite voxel', async () => {
    const volume = phantom();
    const voxels = new Float32Array(volume.voxels.length).fill(Number.NaN);
    const error = await expectError(run('command-python', {}, { ...volume, voxels }), 'BAD_INPUT');
    expect(error.message).toContain('No voxel has a finite value');
  });

  it('takes a checkbox', async () => {
    const { outputs } = await run('command-python', { parameters: { invert: true } });
    await expectLabels(outputs.segmentation, (v) => v === 10);
  });

  it('exits with code 2 and its own message for a constant volume', async () => {
    const volume = phantom();
    const error = await expectError(
      run('command-python', {}, { ...volume, voxels: new Int16Array(volume.voxels.length).fill(7) }),
      'BAD_INPUT',
    );
    expect(error.message).toBe(
      'All finite voxels have the value 7, so there is nothing to separate. Send a volume with contrast.',
    );
  });
});

describe('examples/command-shell', () => {
  it('reads the header: words, and the first voxel in RAS mm', async () => {
    const { outputs, log } = await run('command-shell', { parameters: { greeting: 'Guten Tag' } });
    expect(outputs.report.toString()).toBe('Guten Tag! The volume has 23 x 17 x 11 voxels.\n');
    expectPoint(parsePoints(outputs.corner.toString())[0], [30, -40, 12]);
    expect(log).toContain('size 23 17 11');
  });
});

describe('examples/onnx-smooth', () => {
  const folder = appFolder('examples/onnx-smooth');

  it('holds the network and the sample that make-model.ts makes', async () => {
    expect(Buffer.from(makeModel()).equals(await readFile(join(folder, 'smooth.onnx')))).toBe(true);
    const sample = await decode(await readFile(join(folder, 'sample.nii.gz')));
    expect(
      Buffer.from(sample.voxels.buffer, sample.voxels.byteOffset, sample.voxels.byteLength).equals(
        Buffer.from(makeSample().voxels.buffer),
      ),
    ).toBe(true);
  });

  it('passes its own check', async () => {
    const results: string[] = [];
    for await (const { name, ok, detail } of checkApp(folder, new AbortController().signal)) {
      results.push(ok ? name : `${name}: ${detail}`);
    }
    expect(results).toEqual(['manifest and weights', 'model', 'self-test', 'geometry']);
  });
});

/** Every folder with a manifest. */
function appsIn(folder: string): string[] {
  const names = readdirSync(join(repository, folder)).sort();
  return names
    .map((name) => `${folder}/${name}`)
    .filter((path) => existsSync(join(repository, path, 'tomaat.yaml')));
}
const inTheBox = appsIn('apps');

describe('every app', () => {
  it.each([...inTheBox, ...appsIn('examples')])('%s can be opened', async (path) => {
    const { manifest } = await openApp(join(repository, path));
    expect(Object.keys(manifest.outputs).length).toBeGreaterThan(0);
  });

  it.each(inTheBox)(
    '%s gives every output that its manifest names, and its own sample right',
    async (path) => {
      const app = await openApp(join(repository, path));
      const { sample, selftest, outputs, inputs } = app.manifest;
      const source = selftest?.[0].inputs.volume ?? sample;
      // An app without a sample gets that of the lungs: a CT.
      const file = source ? join(app.folder, source) : join(repository, 'apps/ct-lung/sample.nii.gz');
      expect(Object.keys(inputs)).toContain('volume');
      const result = await runFiles(
        app,
        { volume: ['scan.nii.gz', await readFile(file)] },
        { parameters: selftest?.[0].parameters },
      );
      expect(Object.keys(result.outputs)).toEqual(Object.keys(outputs));
      const scan = await decode(await readFile(file));
      const labels = await decode(result.outputs.segmentation);
      expect(labels.size).toEqual(scan.size);
      expectClose(labels.affine, scan.affine, 3);
      if (selftest) {
        const expected = await decode(await readFile(join(app.folder, selftest[0].expected)));
        expect(dice(labels, expected)).toBeGreaterThanOrEqual(selftest[0].dice);
      }
      for (const [name, output] of Object.entries(outputs)) {
        const bytes = result.outputs[name];
        if (output.type === 'Measurements') {
          const rows = (JSON.parse(bytes.toString()) as { labels: LabelMeasurement[] }).labels;
          const counted = rows.reduce((sum, row) => sum + row.voxels, 0);
          let labelled = 0;
          for (const v of numericVoxels(labels.voxels)) if (v !== 0) labelled++;
          expect(counted).toBe(labelled);
          expect(labelled).toBeGreaterThan(0);
        } else if (output.type === 'VTKMesh') {
          expect(readMesh(bytes).triangles.length).toBeGreaterThan(0);
        } else if (output.type === 'PlainText') {
          expect(bytes.toString()).toContain('Volume (ml)');
        }
      }
    },
    180_000,
  );
});

import { describe, expect, it } from 'vitest';
import { spacingOf } from '../geometry/affine.ts';
import { estimateMemory } from '../inferers/inferer.ts';
import type { InfererSpec } from '../inferers/spec.ts';
import type { Grid, Size } from '../volume.ts';
import { estimatePrediction, largestThatFits, type VolumeFactsOf } from './estimate.ts';
import { parseManifest } from './parse-manifest.ts';
import { gridAfter } from './steps.ts';

const manifestOf = (more: object) =>
  parseManifest(
    JSON.stringify({
      schemaVersion: 1,
      id: 'app',
      name: 'app',
      description: 'Made for a test.',
      version: '1',
      modality: 'any',
      anatomy: 'any',
      task: 'test',
      authors: ['Nobody'],
      licence: 'Apache-2.0',
      intendedUse: 'Tests.',
      inputs: { volume: { type: 'volume' } },
      outputs: { segmentation: { type: 'LabelVolume' } },
      ...more,
    }),
  );
const plain = manifestOf({ model: { runtime: 'module', file: 'app.js' } });
const sliding = manifestOf({
  model: {
    runtime: 'onnx',
    file: 'net.onnx',
    sha256: '0'.repeat(64),
    inferer: { type: 'slidingWindow', roiSize: [16, 16, 16], overlap: 0.9 },
  },
  postprocess: ['argmax', 'restore'],
});
const shape = (
  size: Size,
  voxelType: VolumeFactsOf['voxelType'] = 'int16',
): Record<string, VolumeFactsOf> => ({
  volume: { size, affine: [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1], components: 1, voxelType },
});
const mbOf = (manifest: typeof plain, size: Size, type?: VolumeFactsOf['voxelType']) =>
  estimatePrediction(manifest, shape(size, type), {}).neededBytes / 1e6;

describe('estimatePrediction()', () => {
  // Peak resident memory of the bundled modules on 512 × 512 × 256 voxels: 372 to 607 MB of int16, 717 to 1009 of float64.
  it('is above what modules were measured with, by less than a third', () => {
    const size: Size = [512, 512, 256];
    for (const [type, measuredMb] of [
      ['int16', 607],
      ['float64', 1008],
      ['uint64', 1009],
    ] as const) {
      expect(mbOf(plain, size, type)).toBeGreaterThan(measuredMb);
      expect(mbOf(plain, size, type)).toBeLessThan(1.33 * measuredMb);
    }
  });

  it('counts the windows of a billion voxels at once', () => {
    const startMs = performance.now();
    const { windows } = estimatePrediction(sliding, shape([2 ** 30, 1, 1]), {});
    expect(windows).toBe(2 ** 30 - 15);
    expect(performance.now() - startMs).toBeLessThan(2000);
  });
});

describe('estimatePrediction(): bytes', () => {
  const size: Size = [10, 8, 6];
  const base = 150e6;
  const module = { model: { runtime: 'module', file: 'app.js' } };
  const network = (more: object = {}) => ({
    model: { runtime: 'onnx', file: 'net.onnx', sha256: '0'.repeat(64), ...more },
    postprocess: ['argmax'],
  });
  const twoVolumes = { inputs: { a: { type: 'volume' }, b: { type: 'volume' } } };
  const facts = (given: Size, voxelType: VolumeFactsOf['voxelType'] = 'int16', components = 1) => ({
    ...shape(given, voxelType).volume,
    components,
  });
  const bytesOf = (manifest: object, volumes: Record<string, VolumeFactsOf>, modelBytes?: number) =>
    estimatePrediction(manifestOf(manifest), volumes, {}, modelBytes).neededBytes - base;

  // Per voxel: the file's, then 4 of float32 for each component and 2 for the restored labels.
  it.each<[VolumeFactsOf['voxelType'], number, number]>([
    ['uint8', 1, 1 + 4 + 2],
    ['int16', 1, 2 + 4 + 2],
    ['uint64', 3, 24 + 12 + 2],
  ])('of a module on %s with %i components are %i a voxel', (type, components, perVoxel) => {
    expect(bytesOf(module, { volume: facts(size, type, components) })).toBe(480 * perVoxel);
  });

  it('hold what every volume stores, and the largest one restored', () => {
    const [large, small] = [facts(size), facts([4, 4, 4], 'float64')];
    const expected = 480 * 2 + 64 * 8 + 480 * 2 * 4 + 480 * 2;
    expect(bytesOf({ ...module, ...twoVolumes }, { a: large, b: small })).toBe(expected);
    expect(bytesOf({ ...module, ...twoVolumes }, { a: small, b: large })).toBe(expected);
  });

  it('hold two float32 copies of the largest grid that a step makes', () => {
    const preprocess = [{ spacing: { pixdim: [0.5, 0, 0] } }, { centerSpatialCrop: { roiSize: [4, 3, 2] } }];
    const manifest = manifestOf({ ...module, preprocess });
    expect(estimatePrediction(manifest, { volume: facts(size, 'int16', 3) }, {})).toEqual({
      networkBytes: 0,
      neededBytes: base + 3 * (480 * 2 + 19 * 8 * 6 * 4 * 2),
      modelSize: [4, 3, 2],
      windows: 1,
    });
  });

  it('hold the largest grid that a step of one input makes, where it applies', () => {
    const preprocess = [{ resize: { size: [30, 8, 6] }, when: { mode: 'a' } }];
    const manifest = manifestOf({
      ...module,
      inputs: {
        a: { type: 'volume' },
        b: { type: 'volume', preprocess },
        mode: { type: 'radiobutton', options: ['a', 'b'] },
      },
    });
    const volumes = { a: facts(size), b: facts([4, 4, 4]) };
    const of = (mode: string) => estimatePrediction(manifest, volumes, { mode });
    expect(of('a').modelSize).toEqual([30, 8, 6]);
    // Two components of 30 × 8 × 6, each read and written as float32.
    expect(of('a').neededBytes).toBe(base + (480 + 64) * 2 + 1440 * 2 * 4 * 2);
    expect(of('b')).toEqual({
      networkBytes: 0,
      neededBytes: base + (480 + 64) * 2 + 480 * (2 * 4 + 2),
      modelSize: size,
      windows: 1,
    });
  });

  it.each([
    ['slices across y', { axis: 'y' }, 8, 10 * 6],
    ['windows of slices across z', { axis: 'z', roiSize: [5, 4], overlap: 0 }, 6 * 2 * 2, 5 * 4],
  ])('of %s are those of one, and as many windows', (_what, more, windows, pixels) => {
    const model = { ...network().model, inferer: { type: 'slice', ...more } };
    const estimate = estimatePrediction(manifestOf({ model }), { volume: facts(size) }, {});
    expect(estimate).toMatchObject({ modelSize: size, windows });
    // Input and labels of the volume, restored labels; of a slice at least its input, two classes, and the inside.
    const volumes = base + 480 * (2 + 4 + 1 + 2);
    expect(estimate.neededBytes).toBeGreaterThanOrEqual(volumes + pixels * (4 + 2 * 4 + 192));
    expect(estimate.neededBytes).toBeLessThan(base + 480 * (2 + 205 + 2));
  });

  it('hold a third copy where a spline or a fit is between', () => {
    const peakOf = (...preprocess: object[]) =>
      bytesOf({ ...module, preprocess }, { volume: facts(size) }) - 480 * 2;
    const pixdim = [0.5, 0, 0];
    // 10 · 1 / 0.5 = 20 voxels along x with fit, 19 without.
    expect(peakOf({ spacing: { pixdim, fit: true } })).toBe(20 * 8 * 6 * 4 * 3);
    expect(peakOf({ spacing: { pixdim, fit: true, mode: 'cubic', separate: 'z' } })).toBe(20 * 8 * 6 * 4 * 3);
    expect(peakOf({ spacing: { pixdim, fit: true, mode: 'nearest' } })).toBe(20 * 8 * 6 * 4 * 2);
    expect(peakOf({ resize: { size: [20, 0, 0], mode: 'cubic' } })).toBe(20 * 8 * 6 * 4 * 3);
    expect(peakOf({ spacing: { pixdim } }, 'scaleIntensity' as never)).toBe(19 * 8 * 6 * 4 * 2);
    // As large as what the step is given, where that is larger than what it makes.
    expect(peakOf({ resize: { size: [30, 0, 0] } }, { resize: { size: [10, 0, 0], mode: 'cubic' } })).toBe(
      30 * 8 * 6 * 4 * 3,
    );
  });

  it('go by the steps and the model that the parameters choose', () => {
    const manifest = manifestOf({
      inputs: { volume: { type: 'volume' }, mode: { type: 'radiobutton', options: ['a', 'b', 'c'] } },
      preprocess: [{ resize: { size: [20, 8, 6] }, when: { mode: 'a' } }],
      model: [
        { ...network().model, when: { mode: 'a' } },
        { ...module.model, when: { mode: 'b' } },
      ],
    });
    const of = (mode: string) => estimatePrediction(manifest, { volume: facts(size) }, { mode });
    expect(of('a').modelSize).toEqual([20, 8, 6]);
    expect(of('b')).toEqual({ networkBytes: 0, neededBytes: base + 480 * 8, modelSize: size, windows: 1 });
    // Nothing is meant for c: the first one stands for it.
    expect(of('c').neededBytes).toBe(base + 480 * (2 + 205 + 2));
  });

  // Per voxel: float32 in, float32 scores, the label, and 48 float32 channels inside.
  it.each<[string, object, number]>([
    ['two classes', {}, 4 + 2 * 4 + 1 + 192],
    ['one label', { labels: [{ value: 1, name: 'one' }] }, 4 + 2 * 4 + 1 + 192],
    [
      'seven labels',
      {
        labels: [
          { value: 7, name: 'g' },
          { value: 3, name: 'c' },
        ],
      },
      4 + 8 * 4 + 1 + 192,
    ],
    ['labels of 16 bits', { labels: [{ value: 300, name: 'x' }] }, 4 + 301 * 4 + 2 + 192],
    [
      'one channel above a threshold, whatever its value',
      {
        labels: [{ value: 300, name: 'x' }],
        postprocess: [{ threshold: { channel: 2, value: 300 } }],
      },
      4 + 3 * 4 + 1 + 192,
    ],
    [
      'two classes that become other values',
      {
        labels: [{ value: 2035, name: 'x' }],
        postprocess: ['argmax', { mapLabelValue: { origLabels: [1], targetLabels: [2035] } }],
      },
      4 + 2 * 4 + 1 + 192,
    ],
    ['scores that are restored', { postprocess: ['restore', 'argmax'] }, 4 + 2 * 4 + 192],
  ])('of a network with %s', (_, more, perVoxel) => {
    const manifest = { ...network(), ...more };
    // The model is held twice; 2 bytes are stored and 2 restored.
    expect(bytesOf(manifest, { volume: facts(size) }, 1000)).toBe(2000 + 480 * (2 + perVoxel + 2));
    expect(bytesOf(manifest, { volume: facts(size) })).toBe(480 * (2 + perVoxel + 2));
  });

  it('count the channels of a network, and no other volume', () => {
    const volumes = { b: facts(size), a: facts([4, 4, 4]) };
    const both = network({ channels: ['a', 'b'] });
    expect(bytesOf({ ...twoVolumes, ...both }, volumes)).toBe(544 * 2 + 480 * (2 * 4 + 8 + 1 + 192 + 2));
    expect(bytesOf({ ...twoVolumes, ...network() }, volumes)).toBe(544 * 2 + 64 * (4 + 8 + 1 + 192 + 2));
    // Where the channel has not come, what came stands for it.
    const first = network({ channels: ['a'] });
    expect(bytesOf({ ...twoVolumes, ...first }, { b: volumes.b })).toBe(480 * (2 + 205 + 2));
  });

  it('go by the first of volumes of one size', () => {
    const volumes = { a: facts([10, 8, 6]), b: facts([6, 8, 10]) };
    const manifest = manifestOf({ ...module, ...twoVolumes });
    expect(estimatePrediction(manifest, volumes, {}).modelSize).toEqual([10, 8, 6]);
  });

  it('are those of the preprocessing where it needs more than the network', () => {
    const preprocess = [{ centerSpatialCrop: { roiSize: [1, 1, 1] } }];
    const wide = { ...network(), preprocess };
    expect(bytesOf(wide, { volume: facts(size) })).toBe(480 * 2 + 480 * 8);
  });

  it('of sliding windows hold what is inside the network for one window', () => {
    const spec: InfererSpec = {
      type: 'slidingWindow',
      roiSize: [4, 5, 3],
      overlap: 0.5,
      mode: 'constant',
      sigmaScale: 0.125,
      paddingMode: 'constant',
      paddingValue: 0,
      stepping: 'monai',
    };
    const manifest = network({ inferer: spec });
    const own = estimateMemory(spec, size, 1, 2, 'argmax');
    expect(bytesOf(manifest, { volume: facts(size) })).toBe(480 * 2 + own + 60 * 192 + 480 * 2);
  });

  it('are those of process and model without a known volume', () => {
    const nothing = (networkBytes: number) => ({ modelSize: [1, 1, 1], windows: 1, networkBytes });
    expect(estimatePrediction(plain, {}, {}, 1000)).toEqual({ neededBytes: base + 1000, ...nothing(1000) });
    expect(estimatePrediction(plain, {}, {})).toEqual({ neededBytes: base, ...nothing(0) });
  });
});

describe('estimatePrediction(): windows', () => {
  // Of 10 × 8 × 6 voxels by 4 × 4 × 4: what is beyond the first window, over the step, rounded up, and the first.
  it.each<[object, number]>([
    [{ overlap: [0, 0.5, 0.25] }, (2 + 1) * (2 + 1) * (1 + 1)],
    [{ overlap: 0.5 }, (3 + 1) * (2 + 1) * (1 + 1)],
    [{ overlap: [0.5, 0, 0], stepping: 'nnunet' }, (3 + 1) * (1 + 1) * (1 + 1)],
    [{ roiSize: [10, 4, 6], overlap: 0 }, 2],
    [{ roiSize: [32, 32, 32] }, 1],
  ])('of %j are %i', (more, windows) => {
    const inferer = { type: 'slidingWindow', roiSize: [4, 4, 4], ...more };
    const model = { runtime: 'onnx', file: 'net.onnx', sha256: '0'.repeat(64), inferer };
    const manifest = manifestOf({ model, postprocess: ['argmax'] });
    expect(estimatePrediction(manifest, shape([10, 8, 6]), {}).windows).toBe(windows);
  });

  it('are one of a network that takes the whole volume', () => {
    const model = { runtime: 'onnx', file: 'net.onnx', sha256: '0'.repeat(64) };
    const manifest = manifestOf({ model, postprocess: ['argmax'] });
    expect(estimatePrediction(manifest, shape([10, 8, 6]), {}).windows).toBe(1);
  });
});

describe('gridAfter()', () => {
  /** x to the feet by 2 mm, y to the left by 3 mm, z to the front by 4 mm. */
  const grid: Grid = {
    size: [10, 8, 6],
    affine: [...[0, -3, 0, 50], ...[0, 0, 4, -20], ...[-2, 0, 0, 7], ...[0, 0, 0, 1]],
  };
  const after = (name: string, parameters: Record<string, unknown>) =>
    gridAfter(grid, { name, parameters }, { mm: 1 });

  it.each<[string, Record<string, unknown>, Size]>([
    ['orientation', { axcodes: 'RAS' }, [8, 6, 10]],
    ['orientation', { axcodes: 'ILA' }, [10, 8, 6]],
    ['spacing', { pixdim: [1, 0, 8] }, [19, 8, 4]],
    ['spacing', { pixdim: ['$mm', -1, 0] }, [19, 8, 6]],
    ['spacing', { pixdim: [1, 0, 8], scaleExtent: true }, [20, 8, 3]],
    ['spacing', { pixdim: [1, 0, 8], scaleExtent: false }, [19, 8, 4]],
    ['resize', { size: [5, 0, -1] }, [5, 8, 6]],
    ['resize', { size: [0, 1, 12] }, [10, 1, 12]],
    ['centerSpatialCrop', { roiSize: [4, 0, 99] }, [4, 8, 6]],
    ['spatialPad', { size: [12, -1, 4] }, [12, 8, 6]],
    ['resizeWithPadOrCrop', { size: [12, 0, 3] }, [12, 8, 3]],
    ['divisiblePad', { k: 4 }, [12, 8, 8]],
    ['divisiblePad', { k: [3, 5, 7] }, [12, 10, 7]],
    ['cropForeground', {}, [10, 8, 6]],
    ['normalizeIntensity', {}, [10, 8, 6]],
  ])('of %s %j has the size %j', (name, parameters, expected) => {
    expect(after(name, parameters).size).toEqual(expected);
  });

  it('has the spacing that the next step goes by', () => {
    expect(spacingOf(after('orientation', { axcodes: 'RAS' }).affine)).toEqual([3, 4, 2]);
    expect(spacingOf(after('spacing', { pixdim: [1, 0, 8] }).affine)).toEqual([1, 3, 8]);
    expect(spacingOf(after('resize', { size: [5, 16, 6] }).affine)).toEqual([4, 1.5, 4]);
    expect(spacingOf(after('spatialPad', { size: [12, 9, 7] }).affine)).toEqual([2, 3, 4]);
    expect(spacingOf(after('divisiblePad', { k: 4 }).affine)).toEqual([2, 3, 4]);
    expect(after('normalizeIntensity', {})).toBe(grid);
  });
});

describe('largestThatFits()', () => {
  it('keeps the proportions and uses what is allowed', () => {
    const allowedBytes = 500e6;
    const found = largestThatFits(plain, shape([1000, 500, 250]), {}, { allowedBytes })!.volume;
    expect(mbOf(plain, found)).toBeLessThanOrEqual(500);
    expect(mbOf(plain, found)).toBeGreaterThan(480);
    expect(found[0] / found[1]).toBeCloseTo(2, 1);
    expect(found[1] / found[2]).toBeCloseTo(2, 1);
  });

  // A module takes 150 MB and 8 bytes for each voxel of int16.
  it('finds the size to a millionth', () => {
    const found = (voxels: number) =>
      largestThatFits(plain, shape([2 ** 30, 1, 1]), {}, { allowedBytes: 150e6 + 8 * voxels });
    expect(found(11 * 1024)).toEqual({ volume: [11 * 1024, 1, 1] });
    expect(found(11 * 1024 + 1000)).toEqual({ volume: [11 * 1024, 1, 1] });
    expect(found(11 * 1024 - 1)).toEqual({ volume: [10 * 1024, 1, 1] });
  });

  it('keeps the network within the memory of its device', () => {
    const manifest = manifestOf({
      model: { runtime: 'onnx', file: 'net.onnx', sha256: '0'.repeat(64) },
      postprocess: ['argmax'],
    });
    // On the device: the weights, and for each voxel 48 + 1 + 2 numbers of 4 bytes.
    const { networkBytes } = estimatePrediction(manifest, shape([100, 50, 20]), {}, 1e6);
    expect(networkBytes).toBe(1e6 + 100_000 * 51 * 4);
    const deviceBytes = 1e6 + 800_000 * 51 * 4;
    const found = largestThatFits(manifest, shape([400, 200, 80]), {}, { modelBytes: 1e6, deviceBytes })!;
    expect(found.volume).toEqual([200, 100, 40]);
    expect(
      largestThatFits(manifest, shape([4, 4, 4]), {}, { modelBytes: 2e6, deviceBytes: 2e6 }),
    ).toBeUndefined();
    expect(estimatePrediction(plain, shape([100, 50, 20]), {}).networkBytes).toBe(0);
  });

  it('scales every volume', () => {
    const manifest = manifestOf({
      inputs: { a: { type: 'volume' }, b: { type: 'volume' } },
      model: { runtime: 'module', file: 'app.js' },
    });
    const volumes = { a: shape([1000, 500, 3]).volume, b: shape([200, 100, 1]).volume };
    const found = largestThatFits(manifest, volumes, {}, { allowedBytes: 160e6 })!;
    expect(found.a[0] / found.b[0]).toBeCloseTo(5, 1);
    expect(found.a[1] / found.b[1]).toBeCloseTo(5, 0);
    expect([found.a[2], found.b[2]]).toEqual([2, 1]);
  });

  it('counts the model', () => {
    const manifest = manifestOf({
      model: { runtime: 'onnx', file: 'net.onnx', sha256: '0'.repeat(64) },
      postprocess: ['argmax'],
    });
    // A voxel: 2 bytes stored, 205 for the network, 2 restored.
    const one = 150e6 + 209;
    const found = (allowedBytes: number, modelBytes?: number) =>
      largestThatFits(manifest, shape([30, 20, 10]), {}, { allowedBytes, modelBytes });
    expect(found(one)).toEqual({ volume: [1, 1, 1] });
    expect(found(one - 1)).toBeUndefined();
    expect(found(one + 2000, 1000)).toEqual({ volume: [1, 1, 1] });
    expect(found(one + 1999, 1000)).toBeUndefined();
  });

  it('goes by what a run was measured to take', () => {
    const manifest = manifestOf({
      model: { runtime: 'onnx', file: 'net.onnx', sha256: '0'.repeat(64) },
      postprocess: ['argmax'],
    });
    const runBytesOf = () => 1000;
    // A voxel: 2 bytes stored, 4 of input, 8 of scores, 1 of labels, 2 restored, and the 1000.
    const allowedBytes = 150e6 + 8000 * 1017;
    expect(estimatePrediction(manifest, shape([20, 20, 20]), {}, 0, runBytesOf).neededBytes).toBe(
      allowedBytes,
    );
    expect(largestThatFits(manifest, shape([40, 40, 40]), {}, { runBytesOf, allowedBytes })).toEqual({
      volume: [20, 20, 20],
    });
  });

  it('is undefined where not even a voxel fits', () => {
    expect(largestThatFits(plain, shape([1000, 500, 250]), {}, { allowedBytes: 1e6 })).toBeUndefined();
  });

  it('takes no time, however large the volume and small the windows', () => {
    const startMs = performance.now();
    expect(largestThatFits(sliding, shape([2 ** 30, 1, 1]), {}, { allowedBytes: 400e6 })).toBeDefined();
    expect(performance.now() - startMs).toBeLessThan(3000);
  });
});

describe('estimatePrediction() of several networks', () => {
  const net = (roi: number, more: object = {}) => ({
    runtime: 'onnx',
    file: 'net.onnx',
    sha256: '0'.repeat(64),
    inferer: { type: 'slidingWindow', roiSize: [roi, roi, roi], overlap: 0 },
    ...more,
  });
  const merge = [{ from: 1, to: 1 }];
  const estimate = (model: unknown, modelBytes = 0, parameters = {}) =>
    estimatePrediction(
      manifestOf({
        model,
        inputs: { volume: { type: 'volume' }, fine: { type: 'checkbox' } },
        postprocess: ['argmax'],
      }),
      shape([64, 64, 64]),
      parameters,
      modelBytes,
    );
  const n = 64 ** 3;

  it('is that of the largest, with the merged labels and the shared volume; windows add up', () => {
    const [small, large] = [estimate(net(16, { merge })), estimate(net(32, { merge }))];
    expect([small.windows, large.windows]).toEqual([64, 8]);
    const both = estimate([net(16, { merge }), net(32, { merge })]);
    expect(both.windows).toBe(72);
    expect(both.neededBytes).toBe(Math.max(small.neededBytes, large.neededBytes) + 2 * n + 4 * n);
    const files = estimate([net(16, { merge }), net(32, { merge })], 1e8);
    expect(files.neededBytes - both.neededBytes).toBe(2e8);
  });

  it('counts labels that others take, and the masks they become', () => {
    const low = net(16, { id: 'low' });
    const masks = { labelsOf: 'low', values: [1, 2] };
    const [alone, masked] = [estimate([low, net(32, { channels: ['volume', masks] })]), estimate(net(32))];
    expect(alone.windows).toBe(72);
    // Two more components in the input, and in a window of 32 voxels.
    const more = 2 * 4 * n + 2 * 4 * 32 ** 3;
    expect(alone.neededBytes - masked.neededBytes).toBe(more + 2 * n + 4 * n);
  });

  it('leaves out those that do not run', () => {
    const model = [net(16, { merge }), net(32, { merge, when: { fine: true } })];
    expect(estimate(model, 0, { fine: false })).toEqual(estimate(net(16, { merge })));
    expect(estimate(model, 0, { fine: true }).windows).toBe(72);
  });

  it('sees the largest of what their own steps make', () => {
    const own = { preprocess: [{ spatialPad: { size: [80, 96, 112] } }] };
    const { modelSize } = estimate([net(16, { merge, ...own }), net(16, { merge })]);
    expect(modelSize).toEqual([80, 96, 112]);
  });
});

import { describe, expect, it } from 'vitest';
import { readTransform } from '../formats/transform-file.ts';
import { readVolume, sourceFromBytes, type VolumeExtension } from '../formats/volume-file.ts';
import { webPlatform } from '../formats/web-platform.ts';
import { type Affine, applyAffine, type Vec3 } from '../geometry/affine.ts';
import { oblique, patterned, voxelAt } from '../geometry/fixtures.ts';
import type { Tensor } from '../tensor.ts';
import type { Volume, Voxels } from '../volume.ts';
import {
  answer,
  app,
  fileOf,
  forEachVoxel,
  labelled,
  level,
  levels,
  network,
  networkOf,
  type Output,
  onnx,
  program,
  programOf,
  run,
  scan,
  scanFiles,
  size,
  textIn,
  volumeIn,
} from './fixtures.ts';

/** The labels lie on the grid of the input, each of them where the value is that it stands for. */
async function expectLabels(output: Output, labelOf: (value: number, at: Vec3) => number, source = scan) {
  const labels = await volumeIn(output);
  expect(labels.size).toEqual(source.size);
  labels.affine.forEach((v, i) => void expect(v).toBeCloseTo(source.affine[i], 4));
  forEachVoxel(source.size, (at) => void expect(voxelAt(labels, at)).toBe(labelOf(voxelAt(source, at), at)));
}

import type { NetworkSession } from '../inferers/spec.ts';
import { stepsOfResult } from './networks.ts';
import { reductionOf } from './postprocess.ts';

describe('predict(): networks', () => {
  it.each<VolumeExtension>(['nii', 'mha', 'nrrd'])(
    'gives the labels on the grid of the input, as %s',
    async (extension) => {
      const seen: Tensor[] = [];
      const manifest = networkOf({
        preprocess: [{ orientation: { axcodes: 'PIR' } }, { divisiblePad: { k: 4 } }],
      });
      const spy = network(([v]) => [0, 1, 2].map((k) => Number(level(v) === k)), seen);
      const { outputs } = await run(manifest, spy, { files: await scanFiles(extension) });
      // RAS of the fixture: x to the left, y to the front, z up; P, I, R are y, z and x backwards.
      expect(seen[0].dims).toEqual([1, 1, 8, 4, 4]);
      expect(outputs.segmentation.format).toBe(extension);
      await expectLabels(outputs.segmentation, level);
      expect((await volumeIn(outputs.segmentation)).voxels).toBeInstanceOf(Uint8Array);
    },
  );

  it('stacks the channels on the grid of the first one', async () => {
    const inputs = Object.fromEntries(['a', 'b', 'c'].map((name) => [name, { type: 'volume' }]));
    const field = ([r, a, s]: Vec3) => 2 * r - a + 0.5 * s;
    const other: Volume = {
      size: [12, 8, 16],
      affine: [2, 0, 0, -2, 0, 3, 0, -32, 0, 0, 1.5, 18, 0, 0, 0, 1],
      components: 1,
      voxels: new Float32Array(12 * 8 * 16),
    };
    let i = 0;
    forEachVoxel(other.size, (at) => void (other.voxels[i++] = field(applyAffine(other.affine, at))));
    const double = { ...scan, voxels: Float64Array.from(scan.voxels as Int16Array, (v) => v * 2 + 0.25) };
    const files = { a: [await fileOf(scan)], b: [await fileOf(other)], c: [await fileOf(double)] };
    const seen: Tensor[] = [];
    const spy = network(([v]) => [15, v], seen);
    const model = { ...onnx, channels: ['a', 'b', 'c'] };
    await run(networkOf({ inputs, model }), spy, { files });
    expect(seen[0].dims).toEqual([1, 3, 3, 4, 5]);
    expect([...seen[0].data.subarray(0, 60)]).toEqual([...(scan.voxels as Int16Array)]);
    expect([...seen[0].data.subarray(120)]).toEqual([...double.voxels]);
    let at = 60;
    forEachVoxel(size, (index) => {
      expect(seen[0].data[at++]).toBeCloseTo(field(applyAffine(oblique, index)), 3);
    });

    // In another order the network works on another grid, and the labels go back to that of the first input.
    const reversed = { ...onnx, channels: ['b', 'a'] };
    const { outputs } = await run(networkOf({ inputs, model: reversed }), spy, { files });
    expect(seen[1].dims).toEqual([1, 2, 16, 8, 12]);
    expect((await volumeIn(outputs.segmentation)).size).toEqual(size);
  });

  it('takes the first volume where the manifest names no channels', async () => {
    const inputs = {
      flag: { type: 'checkbox' },
      b: { type: 'volume' },
      a: { type: 'volume', optional: true },
    };
    const seen: Tensor[] = [];
    const files = { a: [await fileOf(patterned([2, 2, 2]))], b: [await fileOf(scan)] };
    await run(
      networkOf({ inputs }),
      network(([v]) => [v, 15], seen),
      { files },
    );
    expect(seen[0].dims).toEqual([1, 1, 3, 4, 5]);
    expect([...seen[0].data]).toEqual([...(scan.voxels as Int16Array)]);
  });

  it('names the channel that is missing', async () => {
    const inputs = { a: { type: 'volume' }, b: { type: 'volume', optional: true } };
    const manifest = networkOf({ inputs, model: { ...onnx, channels: ['a', 'b'] } });
    await expect(run(manifest, levels, { files: { a: [await fileOf(scan)] } })).rejects.toMatchObject({
      code: 'INPUTS_MISSING',
      field: 'b',
      detail: { missing: ['b'] },
    });
  });

  it('takes several components from one volume alone', async () => {
    const inputs = { a: { type: 'volume' }, b: { type: 'volume' } };
    const rgb = patterned(size, oblique, 'uint8', 3);
    const files = { a: [await fileOf(rgb, 'nrrd')], b: [await fileOf(scan)] };
    const seen: Tensor[] = [];
    await run(
      networkOf({ inputs }),
      network(([v]) => [v, 15], seen),
      { files },
    );
    expect(seen[0].dims).toEqual([1, 3, 3, 4, 5]);
    for (const channels of [
      ['a', 'b'],
      ['b', 'a'],
    ]) {
      const manifest = networkOf({ inputs, model: { ...onnx, channels } });
      await expect(run(manifest, levels, { files })).rejects.toMatchObject({
        code: 'BAD_INPUT',
        message: expect.stringContaining('one component'),
      });
    }
  });

  it('compares a channel with the threshold that the caller gives', async () => {
    const manifest = networkOf({
      inputs: { ...app.inputs, limit: { type: 'slider', minimum: 0, maximum: 30 } },
      postprocess: [{ threshold: { channel: 1, above: '$limit', value: 7 } }],
    });
    const twice = network(([v]) => [30 - v, v]);
    const { outputs } = await run(manifest, twice, { parameters: { limit: 12 } });
    await expectLabels(outputs.segmentation, (v) => (v > 12 ? 7 : 0));
    const plain = networkOf({ postprocess: [{ threshold: { above: 12 } }] });
    const first = await run(plain, twice);
    await expectLabels(first.outputs.segmentation, (v) => Number(30 - v > 12));
    expect((await volumeIn(first.outputs.segmentation)).voxels).toBeInstanceOf(Uint8Array);
  });

  // The network works on every second voxel along x; between them the scores are interpolated, not the labels.
  it.each([
    ['argmax', (v: number) => [0, v - 10.5]],
    [{ threshold: { channel: 1, above: 10.5, value: 3 } }, (v: number) => [99, v]],
    [
      {
        compose: [
          { channel: 0, above: 98, value: 8 },
          { channel: 0, above: 50, value: 0 },
          { channel: 1, above: 10.5, value: 3 },
        ],
      },
      (v: number) => [99, v],
    ],
    [{ argmax: { backgroundAtMost: 10.5 } }, (v: number) => [-50, -60, v]],
  ])('restores the scores before %o', async (reduce, scores) => {
    const ramp = { ...scan, voxels: Int16Array.from(scan.voxels as Int16Array, (_, i) => (i % 5) * 6) };
    const files = { volume: [await fileOf(ramp)] };
    const manifest = networkOf({
      preprocess: [{ spacing: { pixdim: [4.8, 0, 0] } }],
      postprocess: ['restore', reduce],
    });
    const seen: Tensor[] = [];
    const { outputs } = await run(
      manifest,
      network(([v]) => scores(v), seen),
      { files },
    );
    expect(seen[0].dims).toEqual([1, 1, 3, 4, 2]);
    // Scores of 0 at x = 0 and 24 at x = 4: above 10.5 from x = 2 on, where the nearest label would begin at 2 or 3.
    const value = reduce === 'argmax' ? 1 : 3; // Of backgroundAtMost it is the third channel.
    await expectLabels(outputs.segmentation, (_, [x]) => (x >= 2 ? value : 0), ramp);
  });

  it('runs steps after the labels on the network’s grid, then restores', async () => {
    const manifest = networkOf({
      inputs: { ...app.inputs, merge: { type: 'checkbox' } },
      preprocess: [{ orientation: { axcodes: 'SRA' } }],
      postprocess: [
        'argmax',
        { mapLabelValue: { origLabels: [1], targetLabels: [9] } },
        { mapLabelValue: { origLabels: [2], targetLabels: [9] }, when: { merge: true } },
        'restore',
        { labelFilter: { appliedLabels: [9, 2] } },
      ],
    });
    const apart = await run(manifest, levels);
    await expectLabels(apart.outputs.segmentation, (v) => [0, 9, 2][level(v)]);
    const merged = await run(manifest, levels, { parameters: { merge: true } });
    await expectLabels(merged.outputs.segmentation, (v) => [0, 9, 9][level(v)]);
  });

  it('does the steps after restore on the grid of the input', async () => {
    // 12 voxels of the network, 36 of the input. Axes at right angles to the last bit: spacing keeps the first voxel.
    const affine: Affine = [0, 0.8, 0, 10, -1.2, 0, 0, -20, 0, 0, 2.5, 30, 0, 0, 0, 1];
    const voxels = Int16Array.from(scan.voxels as Int16Array, (_, i) => (i % 5) * 6);
    const ramp = { ...scan, affine, voxels };
    const manifest = networkOf({
      preprocess: [{ spacing: { pixdim: [4.8, 0, 0] } }],
      postprocess: ['argmax', 'restore', { removeSmallObjects: { minSize: 20 } }],
    });
    const half = network(([v]) => [10, v]);
    const { outputs } = await run(manifest, half, { files: { volume: [await fileOf(ramp)] } });
    await expectLabels(outputs.segmentation, (_, [x]) => Number(x >= 2), ramp);
  });

  it('takes the labels of a network that decides by itself', async () => {
    const session: NetworkSession = {
      run: async ({ data, dims: [, , ...space] }) => ({
        data: Uint8Array.from(data, level),
        dims: [1, 1, ...space],
        integer: true,
      }),
    };
    const { outputs } = await run(networkOf({ postprocess: [] }), { kind: 'network', session });
    await expectLabels(outputs.segmentation, level);
  });

  it('refuses manifests that leave the scores without a use', async () => {
    const bad = (field: string) => expect.objectContaining({ code: 'BAD_MANIFEST', field });
    const early = ['restore', { labelFilter: { appliedLabels: [1] } }, 'argmax'];
    await expect(run(networkOf({ postprocess: early }), levels)).rejects.toEqual(bad('postprocess'));
    const mesh = networkOf({ outputs: { mesh: { type: 'VTKMesh' } } });
    await expect(run(mesh, levels)).rejects.toEqual(bad('outputs'));
    const two = networkOf({ outputs: { ...app.outputs, second: { type: 'LabelVolume' } } });
    await expect(run(two, levels)).rejects.toMatchObject({ code: 'APP_OUTPUT', field: 'second' });
  });
});

describe('reductionOf()', () => {
  const threshold = { threshold: { channel: 2, above: 0.25 } };
  it.each<[unknown[], object]>([
    [[], { type: 'argmax' }],
    [['argmax'], { type: 'argmax' }],
    [['argmax', 'restore'], { type: 'argmax' }],
    [['restore', 'argmax'], { type: 'none' }],
    [[{ labelFilter: { appliedLabels: [1] } }, 'argmax'], { type: 'argmax' }],
    [[threshold], { type: 'threshold', channel: 2, above: 0.25 }],
    [['threshold'], { type: 'threshold', channel: 0, above: 0.5 }],
    [['restore', threshold], { type: 'none' }],
    [['restore', { compose: [{ channel: 1, value: 2 }] }], { type: 'none' }],
    [
      [{ compose: [{ channel: 1, value: 2 }] }, 'restore'],
      { type: 'compose', rules: [{ channel: 1, above: 0.5, value: 2 }] },
    ],
    [[{ argmax: { backgroundAtMost: 0 } }], { type: 'foreground', atMost: 0 }],
    [['restore'], { type: 'argmax' }],
    [['softmax', 'argmax', 'restore'], { type: 'argmax' }],
    [['softmax', threshold, 'restore'], { type: 'none' }],
    [['sigmoid', 'argmax', 'restore'], { type: 'none' }],
    [[{ sigmoid: {}, when: { fast: true } }, threshold], { type: 'threshold', channel: 2, above: 0.25 }],
    [[{ restore: {}, when: { fast: true } }, 'argmax'], { type: 'argmax' }],
    [[{ restore: {}, when: { fast: false } }, 'argmax'], { type: 'none' }],
    [[{ argmax: {}, when: { fast: true } }, 'restore'], { type: 'argmax' }],
  ])('of %j is %j', (postprocess, expected) => {
    const inputs = { ...app.inputs, fast: { type: 'checkbox' } };
    const manifest = networkOf({ inputs, postprocess });
    const steps = stepsOfResult(manifest, manifest.model[0], { fast: false });
    expect(reductionOf(steps, { fast: false })).toEqual(expected);
  });
});

describe('predict(): results of programs', () => {
  const elsewhere: Affine = [1, 0, 0, 500, 0, 1, 0, 500, 0, 0, 1, 500, 0, 0, 0, 1];
  const far = (value: number): Volume => ({
    size: [2, 3, 2],
    affine: elsewhere,
    components: 1,
    voxels: new Uint8Array(12).fill(value),
  });
  const result = (more: Record<string, unknown>) => program(() => more);

  it('takes labels of any numeric type, on the grid of the input', async () => {
    for (const voxels of [new Float32Array(60), new Int32Array(60)] satisfies Voxels[]) {
      const floats = program(({ volume }) => {
        (volume as Volume).voxels.forEach((v, i) => void (voxels[i] = level(Number(v))));
        return { segmentation: { ...(volume as Volume), voxels } };
      });
      const { outputs } = await run(programOf(), floats);
      await expectLabels(outputs.segmentation, level);
    }
  });

  it('takes labels on the preprocessed grid, or on that of the input', async () => {
    const manifest = programOf({
      preprocess: [{ centerSpatialCrop: { roiSize: [3, 4, 3] } }, { orientation: { axcodes: 'ASR' } }],
    });
    const cropped = await run(manifest, program(answer));
    await expectLabels(cropped.outputs.segmentation, (v, [x]) => (x > 0 && x < 4 ? level(v) : 0));
    const { volume } = await readVolume((await scanFiles()).volume, webPlatform).then((read) => read);
    const whole = await run(manifest, result({ segmentation: labelled(volume, level) }));
    await expectLabels(whole.outputs.segmentation, level);
  });

  it('refuses labels whose affine was lost', async () => {
    const identity = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1];
    const lost = { ...labelled(scan, level), affine: identity };
    const outputs = { ...app.outputs, organs: { type: 'LabelVolume' } };
    await expect(run(programOf(), result({ segmentation: lost }))).rejects.toMatchObject({
      code: 'APP_OUTPUT',
      field: 'segmentation',
      message: expect.stringContaining('5 × 4 × 3'),
    });
    const second = result({ segmentation: labelled(scan, level), organs: lost });
    await expect(run(programOf({ outputs }), second)).rejects.toMatchObject({ field: 'organs' });
  });

  it('refuses labels that all lie outside the volume', async () => {
    await expect(run(programOf(), result({ segmentation: far(1) }))).rejects.toMatchObject({
      code: 'APP_OUTPUT',
      field: 'segmentation',
      message: expect.stringContaining('inside'),
    });
    const { outputs } = await run(programOf(), result({ segmentation: far(0) }));
    await expectLabels(outputs.segmentation, () => 0);
    // A step may have removed them.
    const filtered = programOf({ postprocess: [{ labelFilter: { appliedLabels: [5] } }] });
    const empty = await run(filtered, result({ segmentation: labelled(scan, level) }));
    await expectLabels(empty.outputs.segmentation, () => 0);
  });

  it('refuses values that are not labels, also after postprocessing', async () => {
    const negative = programOf({ postprocess: [{ mapLabelValue: { origLabels: [1], targetLabels: [-1] } }] });
    for (const [manifest, value] of [
      [programOf(), { ...scan, voxels: new Float32Array(60).fill(0.5) }],
      [negative, labelled(scan, level)],
    ] as const) {
      await expect(run(manifest, result({ segmentation: value }))).rejects.toMatchObject({
        code: 'APP_OUTPUT',
        field: 'segmentation',
        message: expect.stringMatching(/-1|0\.5/),
      });
    }
  });

  it.each(['extra', 'toString', 'volume'])('refuses the output %s that no manifest lists', async (name) => {
    const both = result({ segmentation: labelled(scan, level), [name]: 'more' });
    await expect(run(programOf(), both)).rejects.toMatchObject({ code: 'APP_OUTPUT', field: name });
  });

  it('refuses outputs of another type, and ones that it cannot derive', async () => {
    const field = (name: string) => expect.objectContaining({ code: 'APP_OUTPUT', field: name });
    const withMesh = programOf({ outputs: { ...app.outputs, mesh: { type: 'VTKMesh' } } });
    const segmentation = labelled(scan, level);
    await expect(run(withMesh, result({ segmentation, mesh: 'words' }))).rejects.toEqual(field('mesh'));
    await expect(run(withMesh, result({ segmentation, mesh: null }))).rejects.toEqual(field('mesh'));
    const withText = programOf({ outputs: { ...app.outputs, note: { type: 'PlainText' } } });
    await expect(run(withText, result({ segmentation }))).rejects.toEqual(field('note'));
    const noMap = programOf({ outputs: { note: { type: 'PlainText' }, points: { type: 'Fiducials' } } });
    await expect(run(noMap, result({ note: 'words' }))).rejects.toEqual(field('points'));
    await expect(run(noMap, result({ note: 'words' }))).rejects.toThrow(
      /returned nothing for its output points/,
    );
  });

  it('runs restore only where there is a volume to go back to', async () => {
    const inputs = { fast: { type: 'checkbox' } };
    const value = result({ segmentation: far(3) });
    await expect(
      run(programOf({ inputs, postprocess: ['restore'] }), value, { files: {} }),
    ).rejects.toMatchObject({
      code: 'BAD_MANIFEST',
      field: 'postprocess',
    });
    const { outputs } = await run(programOf({ inputs }), value, { files: {} });
    expect(outputs.segmentation).toMatchObject({ format: 'nii.gz', geometry: undefined });
    await expectLabels(outputs.segmentation, () => 3, far(3));
  });

  it('checks each label map by its own rules', async () => {
    // Of 60 voxels of 2.4 µl: 0.144 ml.
    const outputs = { ...app.outputs, organs: { type: 'LabelVolume' } };
    const values = {
      segmentation: labelled(scan, () => 1),
      organs: labelled(scan, (v) => Number(v > 20)),
    };
    const check = (resultChecks: object[], more: object = {}, parameters = {}) =>
      run(programOf({ outputs, resultChecks, ...more }), result(values), { parameters });
    const rule = { minimumMl: 0.143, maximumMl: 0.145, message: 'Out of bounds.' };
    await check([rule]);
    await check([{ ...rule, output: 'segmentation' }]);
    const refused = expect.objectContaining({ code: 'NOT_ACCEPTED' });
    await expect(check([{ ...rule, output: 'organs' }])).rejects.toEqual(refused);
    await expect(check([{ ...rule, minimumMl: 0.145, maximumMl: 1 }])).rejects.toEqual(refused);

    // As a step it counts what is there at that place, and no more at the end.
    const inputs = { ...app.inputs, early: { type: 'checkbox' } };
    const keep = { labelFilter: { appliedLabels: [7] } };
    const steps = { inputs, postprocess: [{ check: {}, when: { early: true } }, keep] };
    await check([rule], steps, { early: true });
    await expect(check([rule], steps, { early: false })).rejects.toEqual(refused);
    const late = { inputs, postprocess: [keep, { check: {}, when: { early: true } }] };
    await expect(check([rule], late, { early: true })).rejects.toEqual(refused);
  });
});

describe('predict(): outputs', () => {
  const outputs = {
    mesh: { type: 'VTKMesh', from: 'organs' },
    segmentation: { type: 'LabelVolume', label: 'Lesions' },
    organs: { type: 'LabelVolume' },
    centres: { type: 'Fiducials' },
    table: { type: 'Measurements', from: 'organs' },
    report: { type: 'PlainText', report: 'volumes' },
    warp: { type: 'TransformLinear' },
  };
  const matrix: Affine = [0.9, 0.2, 0, 5, -0.1, 1.1, 0, -7, 0, 0, 1.5, 3, 0, 0, 0, 1];
  const manifest = programOf({
    inputs: { ...app.inputs, detail: { type: 'radiobutton', options: ['mask', 'parts'] } },
    outputs,
    labels: [
      { value: 1, name: 'lesion', color: '#e6194b' },
      { value: 4, name: 'liver', when: { detail: 'parts' } },
      { value: 5, name: 'spleen', when: { detail: 'mask' } },
    ],
  });
  /** One voxel of 1 among the lesions; the organ 4 where the value is above 20. */
  const lesion = labelled(scan, () => 0);
  lesion.voxels[3 + 5 * (2 + 4 * 1)] = 1;
  const maps = { segmentation: lesion, organs: labelled(scan, (v) => (v > 20 ? 4 : 0)) };
  const give = (more: Record<string, unknown> = {}) =>
    program(() => ({ ...maps, warp: { kind: 'linear', matrix }, ...more }));
  const parameters = { detail: 'parts' };

  it('writes all outputs in the order of the manifest', async () => {
    const { written } = await run(manifest, give(), { parameters });
    expect(
      written.map(({ name, type, label, primary, format }) => [name, type, label, primary, format]),
    ).toEqual([
      ['mesh', 'VTKMesh', 'mesh', false, 'vtk'],
      ['segmentation', 'LabelVolume', 'Lesions', true, 'nii'],
      ['organs', 'LabelVolume', 'organs', false, 'nii'],
      ['centres', 'Fiducials', 'centres', false, 'json'],
      ['table', 'Measurements', 'table', false, 'json'],
      ['report', 'PlainText', 'report', false, 'txt'],
      ['warp', 'TransformLinear', 'warp', false, 'mat'],
    ]);
    for (const { type, geometry } of written)
      expect(geometry?.format).toBe(type === 'LabelVolume' ? 'nifti' : undefined);
  });

  it('makes meshes, points, tables and reports from label maps', async () => {
    const { outputs: made } = await run(manifest, give(), { parameters });
    await expectLabels(made.segmentation, (_, at) => Number(String(at) === '3,2,1'));
    await expectLabels(made.organs, (v) => (v > 20 ? 4 : 0));
    const [[centre], expected] = [JSON.parse(textIn(made.centres)), applyAffine(oblique, [3, 2, 1])];
    for (const k of [0, 1, 2]) expect(centre[k]).toBeCloseTo(expected[k], 4);
    const voxels = (scan.voxels as Int16Array).filter((v) => v > 20).length;
    const { labels } = JSON.parse(textIn(made.table));
    expect(labels).toMatchObject([
      { value: 1, name: 'lesion', voxels: 0 },
      { value: 4, name: 'liver', voxels },
    ]);
    expect(labels[1].volumeMl).toBeCloseTo(voxels * 0.0024, 6);
    expect(textIn(made.report)).toMatch(/^lesion +1 +1 /m);
    expect(textIn(made.report)).toContain('Not found: liver');
    expect(textIn(made.mesh)).toMatch(/LOOKUP_TABLE default\n4\n/);
    const warp = await readTransform(sourceFromBytes('w.mat', made.warp.data), webPlatform);
    (warp as { matrix: Affine }).matrix.forEach((v, i) => void expect(v).toBeCloseTo(matrix[i], 9));
  });

  it('hands on what the program made itself', async () => {
    const row = { value: 8, name: 'own', voxels: 3, volumeMl: 1.5 };
    const own = { centres: [[1, 2.5, -3]], report: 'own words', table: [row] };
    const { outputs: made } = await run(manifest, give(own), { parameters });
    expect(JSON.parse(textIn(made.centres))).toEqual([[1, 2.5, -3]]);
    expect(textIn(made.report)).toBe('own words');
    expect(JSON.parse(textIn(made.table))).toEqual({ labels: [row] });
  });

  it('names the labels that the parameters allow', async () => {
    const formats = { segmentation: 'nrrd', table: 'csv' } as const;
    for (const [detail, name, other] of [
      ['parts', 'liver', 'spleen'],
      ['mask', 'spleen', 'liver'],
    ]) {
      const { outputs: made } = await run(manifest, give(), { parameters: { detail }, formats });
      expect(made.segmentation.format).toBe('nrrd');
      for (const text of [textIn(made.segmentation), textIn(made.table)]) {
        expect(text).toContain(name);
        expect(text).not.toContain(other);
      }
      await expectLabels(made.segmentation, (_, at) => Number(String(at) === '3,2,1'));
    }
  });

  it('refuses a format that the output cannot have', async () => {
    await expect(run(manifest, give(), { parameters, formats: { table: 'stl' } })).rejects.toMatchObject({
      code: 'NOT_ACCEPTABLE',
      field: 'format',
      message: expect.stringMatching(/^table .*stl.*json, csv/),
    });
  });
});

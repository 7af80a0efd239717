import { createHash } from 'node:crypto';
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { predict } from '../packages/core/src/app/predict.ts';
import { traceStages } from '../packages/core/src/app/trace.ts';
import { collectBytes, readVolume, writeVolume } from '../packages/core/src/formats/volume-file.ts';
import { deriveCase, deriveGrids } from '../packages/core/src/geometry/derive-cases.ts';
import type { Volume } from '../packages/core/src/volume.ts';
import {
  type AuthorCase,
  type AuthorDump,
  type Proof,
  proveApp,
} from '../packages/server/src/import/prove.ts';
import { nodePlatform } from '../packages/server/src/node-platform.ts';
import { openOnnxSession } from '../packages/server/src/runtimes/onnx.ts';
import { fileSource } from '../packages/server/test/run-files.ts';
import { type App, abdomen, brats, manifestOf, spleen, textOf } from './import-apps.ts';
import { importFolder } from './real-data.ts';

/*
 * The proof of an import finds wrong translations. The expected label maps are those of the authors' own software. The volumes between
 * the steps are not among the fixtures: here they are those of the right manifest, whose label maps are the author's to the voxel
 * (import-fixtures.test.ts).
 */

const folder = importFolder();
if (!folder) console.log('import-proof: skipped, the authors’ folders are not here (TOMAAT_TEST_IMPORT).');

const work = await mkdtemp(join(tmpdir(), 'tomaat-proof-'));
afterAll(() => rm(work, { recursive: true, force: true }));
let made = 0;

/** A folder with this app, as an import writes it. */
async function folderOf(app: App): Promise<string> {
  const target = join(work, `app-${made++}`);
  await mkdir(target);
  const network = join(folder!, app.name, 'exported/model.onnx');
  await copyFile(network, join(target, 'model.onnx'));
  const sha256 = createHash('sha256')
    .update(await readFile(network))
    .digest('hex');
  await writeFile(join(target, 'tomaat.yaml'), textOf(app, sha256));
  return target;
}

const caseOf = (app: App, name: string, files: Readonly<Record<string, string>>): AuthorCase => {
  const path = (file: string) => join(folder!, app.name, 'cases', file);
  const inputs = Object.fromEntries(Object.entries(files).map(([input, file]) => [input, path(file)]));
  return { name, inputs, expected: path(`${name}_expected.nii.gz`) };
};
const spleenCase = (name: string) => caseOf(spleen, name, { volume: `${name}_image.nii.gz` });
const bratsCase = caseOf(
  brats,
  'case',
  Object.fromEntries(brats.channels!.map((name) => [name, `case_${name}.nii.gz`])),
);
const abdomenCase = caseOf(abdomen(), 'case_fold0_float32accumulators', { volume: 'case_0000.nii.gz' });

/** What the author's exporter would write of a case: the stages of the right manifest. */
async function dumpsOf(app: App, { inputs }: AuthorCase, stages: readonly string[]): Promise<AuthorDump[]> {
  const session = await openOnnxSession(join(folder!, app.name, 'exported/model.onnx'));
  const dumps: AuthorDump[] = [];
  const files = Object.fromEntries(Object.entries(inputs).map(([name, path]) => [name, [fileSource(path)]]));
  await predict(
    manifestOf(app),
    { files, parameters: {} },
    {
      platform: nodePlatform,
      load: async () => ({ kind: 'network', session }),
      write: async () => {},
      trace: {
        stages,
        async take(stage, { voxels, size: [x, y, z], components, affine }) {
          const file = join(work, `dump-${made++}.f32`);
          await writeFile(file, Buffer.from(Float32Array.from(voxels as Float32Array).buffer));
          const placed = stage === 'window' ? {} : { affine };
          dumps.push({ stage, file, dims: [components, z, y, x], ...placed });
        },
      },
    },
  );
  await session.close();
  return dumps;
}

async function write(volume: Volume, name: string): Promise<string> {
  const path = join(work, `${made++}-${name}`);
  await writeFile(path, await collectBytes(writeVolume(volume, 'nii', nodePlatform)));
  return path;
}

const dumped = new Map<AuthorCase, Promise<AuthorDump[]>>();

/** The proof of a wrong app on a case of the right one, with the author's volumes of the stages that both have. */
async function proveWrong(right: App, wrong: Partial<App>, given: AuthorCase): Promise<Proof> {
  const app = { ...right, ...wrong };
  const dumps = async () => {
    const all = dumped.get(given) ?? dumpsOf(right, given, traceStages(manifestOf(right)));
    dumped.set(given, all);
    return (await all).filter(({ stage }) => traceStages(manifestOf(app)).includes(stage));
  };
  return proveApp({ appFolder: await folderOf(app), cases: [{ ...given, dumps }] });
}

describe.skipIf(!folder)('proveApp()', () => {
  it('finds an import exact on two geometries, without asking for dumps', async () => {
    const dumps = () => Promise.reject(new Error('nothing differs'));
    const cases = ['lps', 'oblique'].map((name) => ({ ...spleenCase(name), dumps }));
    const names: string[] = [];
    const proof = await proveApp({
      appFolder: await folderOf(spleen),
      cases,
      versions: { monai: '1.6.1' },
      onCase: ({ name }) => names.push(name),
    });
    expect(proof.parity).toEqual({
      verdict: 'exact',
      agree: 1,
      cases: 2,
      tool: expect.stringMatching(/^tomaat \d/),
      versions: { monai: '1.6.1' },
    });
    expect(names).toEqual(['lps', 'oblique']);
    // Counts of the author's label maps: expected.json of the fixture.
    expect(proof.cases.map(({ labels }) => labels[0])).toMatchObject([
      { value: 1, expected: 116_323, found: 116_323, dice: 1, judged: true },
      { value: 1, expected: 119_354, found: 119_354, dice: 1, judged: true },
    ]);
  });

  it('finds a missing softmax on an oblique case, and not on a commensurate one', async () => {
    const wrong = { postprocess: ['restore', 'argmax'] };
    const plain = await proveWrong(spleen, wrong, spleenCase('abdomen'));
    expect(plain.parity.verdict).toBe('exact');
    const { parity, cases } = await proveWrong(spleen, wrong, spleenCase('oblique'));
    expect(parity.verdict).toBe('close');
    expect(cases[0].differ).toBeGreaterThan(100);
    expect(cases[0].where.join()).toContain('at borders of labels');
    expect(cases[0].bisection!.first).toBe('activation');
    expect(cases[0].bisection!.stages.filter(({ agrees }) => agrees).map(({ stage }) => stage)).toEqual([
      'preprocess[0]',
      'preprocess[1]',
      'preprocess[2]',
      'input',
      'window',
      'scores',
    ]);
  });

  it('finds a missing softmax on the cases that are derived from a commensurate one', async () => {
    const plain = spleenCase('abdomen');
    const scan = (await readVolume([fileSource(plain.inputs.volume)], nodePlatform)).volume;
    const cases: AuthorCase[] = [];
    for (const { name, grid } of deriveGrids(scan, { spacingMm: [1.5, 1.5, 2], maxBytes: 250_000 })) {
      const volume = await write(deriveCase(scan, grid), `${name}.nii`);
      // The author's label map is that of the right manifest.
      const [labels] = await dumpsOf(spleen, { ...plain, inputs: { volume } }, ['labels']);
      const [, z, y, x] = labels.dims;
      const values = new Float32Array(new Uint8Array(await readFile(labels.file)).buffer);
      const map = { voxels: values, size: [x, y, z], components: 1, affine: labels.affine! } as const;
      cases.push({ name, inputs: { volume }, expected: await write(map, `${name}-labels.nii`) });
    }
    const right = await proveApp({ appFolder: await folderOf(spleen), cases });
    expect(right.parity.verdict).toBe('exact');
    const wrong = await folderOf({ ...spleen, postprocess: ['restore', 'argmax'] });
    const { cases: found } = await proveApp({ appFolder: wrong, cases });
    expect(found.map(({ name }) => name)).toEqual(['axes', 'oblique']);
    for (const { differ, verdict } of found) {
      expect(differ).toBeGreaterThan(0);
      expect(verdict).not.toBe('exact');
    }
  });

  it('finds nnU-Net’s spacing without fit, and names the step', async () => {
    const [scale] = abdomen().preprocess;
    const preprocess = [scale, { spacing: { pixdim: [3, 3, 3.5], mode: 'cubic' } }];
    const { parity, cases } = await proveWrong(abdomen(), { preprocess }, abdomenCase);
    expect(parity.verdict).toBe('differs');
    expect(cases[0].bisection!.first).toBe('preprocess[1]');
  });

  it('finds overlapping labels in a wrong order, and names the step', async () => {
    const rules = (brats.postprocess[2] as { compose: object[] }).compose;
    const wrong = { postprocess: ['sigmoid', 'restore', { compose: [rules[1], rules[0], rules[2]] }] };
    const { parity, cases } = await proveWrong(brats, wrong, bratsCase);
    expect(parity.verdict).toBe('differs');
    expect(cases[0].differ).toBe(43_667);
    expect(cases[0].bisection!.first).toBe('postprocess[2]');
  });

  it('finds wrong weights of the windows, and names the blending', async () => {
    const { parity, cases } = await proveWrong(abdomen(), abdomen({ sigmaScale: 0.25 }), abdomenCase);
    expect(parity.verdict).not.toBe('exact');
    expect(cases[0].differ).toBeGreaterThan(1000);
    expect(cases[0].bisection!.first).toBe('scores');
  });

  it('counts the author’s own noise: nnU-Net with sums in float16 and in float32', async () => {
    const half = caseOf(abdomen(), 'case_fold0', { volume: 'case_0000.nii.gz' });
    const { parity, cases } = await proveApp({
      appFolder: await folderOf(abdomen()),
      cases: [half],
      noise: { case_fold0: abdomenCase.expected },
    });
    expect(cases[0].noise).toBe(308);
    expect(parity.verdict).toBe('within noise');
    expect(parity.agree).toBeLessThan(1);
  });

  it('names the case in an error, and the stages there are', async () => {
    const appFolder = await folderOf(spleen);
    const given = spleenCase('lps');
    const missing = { ...given, inputs: { volume: join(work, 'none.nii') } };
    await expect(proveApp({ appFolder, cases: [missing] })).rejects.toMatchObject({
      code: 'BAD_INPUT',
      message: expect.stringMatching(/^In the case lps: .*none\.nii cannot be read/),
    });
    await expect(proveApp({ appFolder, cases: [] })).rejects.toThrow('There is no case');
  });
});

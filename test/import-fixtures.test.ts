import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { predict } from '../packages/core/src/app/predict.ts';
import { collectBytes, readVolume, sourceFromBytes } from '../packages/core/src/formats/volume-file.ts';
import { sameGrid } from '../packages/core/src/geometry/grid.ts';
import { numericVoxels, type Volume } from '../packages/core/src/volume.ts';
import { nodePlatform } from '../packages/server/src/node-platform.ts';
import { type OnnxSession, openOnnxSession } from '../packages/server/src/runtimes/onnx.ts';
import { fileSource } from '../packages/server/test/run-files.ts';
import { type App, abdomen, brats, manifestOf, prostate, spleen, wholeBody } from './import-apps.ts';
import { importFolder } from './real-data.ts';

/*
 * Networks as their authors run them: bundles of the MONAI model zoo and a folder of nnU-Net, exported to ONNX, against the
 * label maps that MONAI 1.6.1 and nnunetv2 2.8.1 wrote for the same files. Every voxel is compared.
 */

const folder = importFolder();
if (!folder) console.log('import-fixtures: skipped, the authors’ folders are not here (TOMAAT_TEST_IMPORT).');

const sessions = new Map<string, Promise<OnnxSession>>();
afterAll(async () => {
  for (const session of sessions.values()) await (await session).close();
});

/** The network of a fixture, opened once. */
function networkOf(name: string): Promise<OnnxSession> {
  const session = sessions.get(name) ?? openOnnxSession(join(folder!, name, 'exported/model.onnx'));
  sessions.set(name, session);
  return session;
}

const caseFile = (name: string, file: string) => join(folder!, name, 'cases', file);
const read = async (path: string): Promise<Volume> =>
  (await readVolume([fileSource(path)], nodePlatform)).volume;

/** The label map of an app for files of its fixture, by the names of inputs. */
async function segment(app: App, files: Readonly<Record<string, string>>): Promise<Volume> {
  let result: Uint8Array | undefined;
  const sources = Object.entries(files).map(([input, file]) => [
    input,
    [fileSource(caseFile(app.name, file))],
  ]);
  await predict(
    manifestOf(app),
    { files: Object.fromEntries(sources), parameters: {}, formats: { segmentation: 'nii' } },
    {
      platform: nodePlatform,
      load: async () => ({ kind: 'network', session: await networkOf(app.name) }),
      async write({ bytes }) {
        result = await collectBytes(bytes);
      },
    },
  );
  return (await readVolume([sourceFromBytes('result.nii', result!)], nodePlatform)).volume;
}

/** How many voxels of a label map differ from the author's, which lies on the same grid. */
async function differences(found: Volume, app: App, expected: string): Promise<number> {
  const author = await read(caseFile(app.name, expected));
  expect(sameGrid(found, author)).toBe(true);
  const [a, b] = [numericVoxels(found.voxels), numericVoxels(author.voxels)];
  let count = 0;
  for (let i = 0; i < b.length; i++) if (a[i] !== b[i]) count++;
  return count;
}

describe.skipIf(!folder)('a bundle of MONAI', () => {
  it.each(['abdomen', 'lps', 'oblique'])('gives its author’s spleen, case %s', async (name) => {
    const found = await segment(spleen, { volume: `${name}_image.nii.gz` });
    expect(await differences(found, spleen, `${name}_expected.nii.gz`)).toBe(0);
  });

  it('gives its author’s overlapping parts of a tumour, the later rule last', async () => {
    const files = Object.fromEntries(brats.channels!.map((name) => [name, `case_${name}.nii.gz`]));
    const expected = 'case_expected.nii.gz';
    const found = await segment(brats, files);
    expect(await differences(found, brats, expected)).toBe(0);
    // In the order of the channels, 43,667 voxels of the core become whole tumour.
    const rules = (brats.postprocess[2] as { compose: object[] }).compose;
    const wrong = {
      ...brats,
      postprocess: ['sigmoid', 'restore', { compose: [rules[1], rules[0], rules[2]] }],
    };
    expect(await differences(await segment(wrong, files), wrong, expected)).toBe(43_667);
  });

  it('gives its author’s seven organs of the whole body', async () => {
    const found = await segment(wholeBody, { volume: 'lps_image.nii.gz' });
    expect(await differences(found, wholeBody, 'lps_expected.nii.gz')).toBe(0);
  });

  // On a grid of 1 mm the author's linear interpolation of label numbers is the nearest one; on others it has fractions.
  it('gives its author’s prostate, labels by the nearest voxel', async () => {
    const found = await segment(prostate, { volume: 't2_image.nii.gz' });
    expect(await differences(found, prostate, 't2_expected.nii.gz')).toBe(0);
  });
});

describe.skipIf(!folder)('a folder of nnU-Net', () => {
  const files = { volume: 'case_0000.nii.gz' };
  /** Voxels that differ between nnU-Net with sums in float16, as it is, and with sums in float32. */
  const ownNoise = 308;

  it('gives its author’s organs, up to the rounding of nnU-Net itself', async () => {
    const app = abdomen();
    const found = await segment(app, files);
    const [half, single] = ['case_fold0', 'case_fold0_float32accumulators'];
    expect(await differences(found, app, `${single}_expected.nii.gz`)).toBeLessThanOrEqual(20);
    expect(await differences(found, app, `${half}_expected.nii.gz`)).toBeLessThanOrEqual(1.5 * ownNoise);
    expect(
      await differences(
        await read(caseFile(app.name, `${half}_expected.nii.gz`)),
        app,
        `${single}_expected.nii.gz`,
      ),
    ).toBe(ownNoise);
  });

  it('gives its author’s organs with mirrored windows', async () => {
    const app = abdomen({ mirrorAxes: ['x', 'y', 'z'] });
    const found = await segment(app, files);
    expect(await differences(found, app, 'case_fold0_mirror_expected.nii.gz')).toBeLessThanOrEqual(
      1.5 * ownNoise,
    );
  });
});

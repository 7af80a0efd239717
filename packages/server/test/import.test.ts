import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { importFolder } from '../../../test/real-data.ts';
import { openApp } from '../src/apps.ts';
import { tomaat } from './cli-fixture.ts';
import { type FakeAuthor, fakePython } from './fake-author.ts';

/*
 * `tomaat import` of a bundle of MONAI, from the folder to the proven app. The author's side was recorded with torch 2.15.0 and
 * monai 1.6.1: the plan, and the label maps of the two derived cases. Everything else runs here.
 */

const authors = importFolder();
if (!authors) console.log('import: skipped, the authors’ folders are not here (TOMAAT_TEST_IMPORT).');

const recorded = (name: string) => fileURLToPath(new URL(`./import-plans/${name}`, import.meta.url));
const plan = JSON.parse(readFileSync(recorded('spleen.json'), 'utf8'));

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tomaat-import-test-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function bundle(): string {
  const path = join(folder, 'bundle');
  mkdirSync(join(path, 'configs'), { recursive: true });
  for (const name of ['metadata.json', 'inference.json']) writeFileSync(join(path, 'configs', name), '{}');
  writeFileSync(join(path, 'LICENSE'), 'Apache License\nVersion 2.0');
  return path;
}

/** Runs the command in `folder`, on a bundle whose Python answers as recorded. */
function runImport(author: FakeAuthor, files: readonly string[], ...flags: string[]) {
  const python = fakePython(folder, author);
  return tomaat(['import', bundle(), '--case', ...files, '--python', python, ...flags], { cwd: folder });
}

describe.skipIf(!authors)('tomaat import', () => {
  const spleen = (name: string) => join(authors!, 'monai-spleen-ct', name);
  const image = spleen('cases/abdomen_image.nii.gz');
  const author: FakeAuthor = {
    plan,
    network: spleen('exported/model.onnx'),
    results: {
      'abdomen_image.nii.gz': spleen('cases/abdomen_expected.nii.gz'),
      'axes-0.nii.gz': recorded('spleen-axes.nii.gz'),
      'oblique-0.nii.gz': recorded('spleen-oblique.nii.gz'),
    },
  };

  it('makes an app that gives its author’s labels, on derived cases too', async () => {
    const { code, stdout, stderr } = await runImport(
      { ...author, fractional: 7, notes: ['The network is models/model.ts.'] },
      [image],
      '--anatomy',
      'spleen',
      '--keep-case',
      '--json',
    );
    expect({ code, stderr }).toMatchObject({ code: 0 });
    const result = JSON.parse(stdout);
    expect(result).toMatchObject({ written: true, parity: { verdict: 'exact', agree: 1, cases: 3 } });
    expect(result.cases[0].warnings).toEqual([
      expect.stringMatching(/^in 7 of \d+ voxels .* not a whole label number/),
    ]);
    const app = join(folder, 'spleen-ct-segmentation');
    expect(statSync(app).mode & 0o777).toBe(0o777 & ~process.umask());
    expect(readdirSync(app).sort()).toEqual(
      ['LICENSE', 'cases', 'import.json', 'model.onnx', 'parity.json', 'parity.md', 'tomaat.yaml'].sort(),
    );
    const { manifest } = await openApp(app);
    expect(manifest).toMatchObject({
      id: 'spleen-ct-segmentation',
      name: 'Spleen CT segmentation',
      version: '0.5.9',
      modality: 'CT',
      anatomy: 'spleen',
      task: 'segmentation',
      authors: ['MONAI team'],
      licence: 'Apache-2.0',
      labels: [{ value: 1, name: 'spleen', code: { scheme: 'SCT', value: '78961009' } }],
      selftest: [
        {
          inputs: { volume: 'cases/1-volume.nii.gz' },
          expected: 'cases/1-expected.nii.gz',
          dice: 0.99,
          agree: 0.999,
        },
      ],
      parity: { verdict: 'exact', versions: { monai: '1.6.1' } },
    });
    const record = readFileSync(join(app, 'import.json'), 'utf8');
    expect(record).not.toContain(folder);
    expect(readFileSync(join(app, 'parity.md'), 'utf8')).toContain('- The network is models/model.ts.');
    // The network was compared with torch's on a window of the case.
    expect(JSON.parse(record).network.compared).toMatchObject([{ of: 'abdomen_image.nii.gz' }]);
  });

  it('writes no app whose results differ, and says where: 1', async () => {
    const wholeBody = (name: string) => join(authors!, 'monai-wholebody-ct', name);
    const expected = wholeBody('cases/lps_expected.nii.gz');
    const plan = JSON.parse(readFileSync(recorded('whole-body.json'), 'utf8'));
    plan.preprocessing[6].arguments.maxv = 0.5;
    const { code, stdout, stderr } = await runImport(
      {
        plan,
        network: wholeBody('exported/model.onnx'),
        results: { 'lps_image.nii.gz': expected, 'axes-0.nii.gz': expected, 'oblique-0.nii.gz': expected },
      },
      [wholeBody('cases/lps_image.nii.gz')],
      '--anatomy',
      'whole-body',
    );
    expect(code).toBe(1);
    expect(stdout).toBe('');
    expect(stderr).toMatch(/Case lps_image: differs, \d+ of 76560 voxels differ/);
    expect(stderr).toContain('--accept-differences');
    expect(readdirSync(folder).sort()).toEqual(['bundle', 'python']);
  });
});

describe('tomaat import, refusals', () => {
  const image = fileURLToPath(new URL('../../../apps/brain/sample.nii.gz', import.meta.url));

  it('what no manifest can say: 1, with each place in the config', async () => {
    const own = structuredClone(plan);
    own.preprocessing[3].target = 'scripts.own.Shift';
    own.inferer.target = 'scripts.own.Inferer';
    const { code, stderr } = await runImport({ plan: own }, [image], '--anatomy', 'spleen');
    expect(code).toBe(1);
    expect(stderr).toMatch(/preprocessing#transforms#3: scripts.own.Shift is own code/);
    expect(stderr).toMatch(/inferer: Inferer has no inferer/);
    expect(stderr).toContain('give the same command with --command');
  });

  it('a missing card, case, folder or Python, and a target that is not empty: 2', async () => {
    expect(await runImport({ plan }, [image])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('--anatomy'),
    });
    const python = fakePython(folder, { plan });
    const call = (...args: string[]) => tomaat(['import', ...args, '--anatomy', 'a', '--python', python]);
    expect(await call(bundle())).toMatchObject({ code: 2, stderr: expect.stringContaining('--case') });
    const other = join(folder, 'other');
    mkdirSync(other);
    writeFileSync(join(other, 'notes.txt'), '');
    expect(await call(other, '--case', image, '-o', join(folder, 'x'))).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('neither a MONAI bundle'),
    });
    expect(await call(bundle(), '--case', image, '-o', other)).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('is not empty'),
    });
    const own: [out: string, text: string][] = [
      [bundle(), 'is the author’s own folder'],
      [join(bundle(), 'new', 'app'), 'lies inside the author’s own folder'],
      [folder, 'holds the author’s own folder'],
    ];
    for (const [out, text] of own)
      expect(await call(bundle(), '--case', image, '--force', '-o', out)).toMatchObject({
        code: 2,
        stderr: expect.stringContaining(text),
      });
    const inside = ['import', '.', '--case', image, '--anatomy', 'a', '--python', python];
    expect(await tomaat(inside, { cwd: bundle() })).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('spleen-ct-segmentation lies inside'),
    });
    expect(await call(bundle(), '--case', image, '--orientation', 'RAR')).toMatchObject({ code: 2 });
  });

  it('words that no address can have, before the author’s pipeline runs: 2', async () => {
    const flags: [text: string, ...flags: string[]][] = [
      ['--task “api” is invalid', '--anatomy', 'spleen', '--task', 'api'],
      ['--anatomy “!” has no letter', '--anatomy', '!'],
      ['--author “” is invalid', '--anatomy', 'spleen', '--author', ''],
      [`--modality “${'m'.repeat(41)}” is invalid`, '--anatomy', 'spleen', '--modality', 'm'.repeat(41)],
    ];
    // Without a network: the stand-in would fail to export one.
    for (const [text, ...given] of flags)
      expect(await runImport({ plan }, [image], ...given)).toMatchObject({
        code: 2,
        stderr: expect.stringContaining(text),
      });
  });

  it('a case that is no volume, before the author’s pipeline runs: 2', async () => {
    const text = join(folder, 'text.nii.gz');
    writeFileSync(text, 'not a volume');
    const { code, stderr } = await runImport({ plan }, [image, text], '--anatomy', 'spleen');
    expect(code).toBe(2);
    expect(stderr).toContain(`${text} cannot be a case: `);
    expect(stderr).not.toContain('Exporting');
    expect(readdirSync(folder).filter((name) => name.startsWith('.tomaat'))).toEqual([]);
  });

  it('a number of files that is not that of the channels: 2', async () => {
    const brats = JSON.parse(readFileSync(recorded('brats.json'), 'utf8'));
    const { code, stderr } = await runImport({ plan: brats }, [image, image], '--anatomy', 'brain');
    expect(code).toBe(2);
    expect(stderr).toContain('4 volumes (t1c, t1, t2, flair), and 2 were given');
  });
});

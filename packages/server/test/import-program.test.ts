import { execFileSync, spawn } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { applyAffine, reorient, type Volume } from '@tomaat/core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { findPython } from '../../../test/programs.ts';
import { openApp } from '../src/apps.ts';
import { readCase } from '../src/import/cases.ts';
import { tomaat } from './cli-fixture.ts';
import { makeEnvironment, writeTrained } from './fake-nnunet.ts';
import { encode, phantom } from './phantom.ts';

/*
 * `tomaat import --command`: an app whose program is the author's own pipeline. The programs, the environment and its lock are real;
 * in the place of nnU-Net there is a stand-in of a few lines (fake-nnunet/), since no test has torch.
 */

const python = findPython('nibabel', 'venv');

let environment: string;
let folder: string;
let trained: string;
let image: string;
/** The result of one import, whose app tests copy, and the folder in which it lies. */
let made: Awaited<ReturnType<typeof tomaat>>;
let madeIn: string;

async function writeFolders(): Promise<void> {
  folder = mkdtempSync(join(tmpdir(), 'tomaat-import-test-'));
  trained = writeTrained(join(folder, 'Dataset902_Blocks'), '3d_fullres', 200);
  // The case lies in the author's folder, as it may: it is no part of the model.
  image = join(trained, 'case_0000.nii.gz');
  writeFileSync(image, await encode(phantom(), 'nii.gz'));
}
beforeEach(writeFolders);
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** A copy of the app in the folder of the test. */
function copyApp(): string {
  const app = join(folder, 'app');
  cpSync(join(madeIn, 'app'), app, { recursive: true, verbatimSymlinks: true });
  return app;
}

const lines = (file: string) => readFileSync(file, 'utf8').trim().split('\n');

function runImport(...flags: string[]) {
  const given = ['--anatomy', 'blocks', '--licence', 'CC-BY-4.0', '--author', 'Me', '--case', image];
  const args = ['import', join(folder, 'Dataset902_Blocks'), '--command', ...given, '-o', 'app', ...flags];
  const env = { FAKE_NNUNET_LOG: join(folder, 'calls') };
  return tomaat([...args, '--python', join(environment, 'bin', 'python3')], { cwd: folder, env });
}

beforeAll(async () => {
  environment = mkdtempSync(join(tmpdir(), 'tomaat-environment-'));
  if (!python) return;
  makeEnvironment(environment, python, [
    {
      name: 'own_tool',
      version: '0.1',
      origin: {
        url: 'https://me:secret@git.example/own',
        vcs_info: { vcs: 'git', commit_id: 'c0ffee' },
      },
    },
    { name: 'local.thing', version: '3', origin: { url: 'file:///home/me/thing', dir_info: {} } },
  ]);
  await writeFolders();
  madeIn = folder;
  made = await runImport('--json', '--keep-case');
});
afterAll(() => {
  for (const path of [environment, madeIn]) if (path) rmSync(path, { recursive: true, force: true });
});

describe.skipIf(!python)('tomaat import --command', () => {
  it('makes an app that runs the author’s pipeline in one process, and gives its labels', async () => {
    const { code, stdout, stderr } = made;
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const result = JSON.parse(stdout);
    expect(result).toMatchObject({ written: true, parity: { verdict: 'exact', agree: 1, cases: 3 } });
    expect(result.warnings).toEqual([]);

    const app = join(madeIn, 'app');
    expect(readdirSync(app).sort()).toEqual(
      [
        '.gitignore',
        'README.md',
        'cases',
        'import.json',
        'model',
        'parity.json',
        'parity.md',
        'requirements.lock',
      ]
        .concat(
          'serve.py',
          'tomaat.yaml',
          'tomaat_bundle.py',
          'tomaat_nnunet.py',
          'tomaat_pipeline.py',
          'venv',
        )
        .sort(),
    );
    expect(readlinkSync(join(app, 'venv'))).toBe(environment);
    const { manifest } = await openApp(app);
    expect(manifest).toMatchObject({
      id: 'blocks',
      preprocess: [{ name: 'orientation', parameters: { axcodes: 'LAS' } }],
      postprocess: [],
      labels: [
        { value: 1, name: 'low' },
        { value: 2, name: 'high' },
      ],
      model: [
        {
          runtime: 'command',
          serve: true,
          command: expect.arrayContaining(['--folds', '0,1']),
        },
      ],
      selftest: [{ dice: 0.99, agree: 0.999 }],
      parity: { verdict: 'exact', versions: { nnunetv2: '2.8.1' } },
    });
    const model = join(app, 'model', 'nnUNetTrainer__nnUNetPlans__3d_fullres');
    expect(readdirSync(model, { recursive: true }).map(String).sort()).toEqual([
      'dataset.json',
      'fold_0',
      'fold_0/checkpoint_final.pth',
      'fold_1',
      'fold_1/checkpoint_final.pth',
      'plans.json',
    ]);
    for (const name of [
      'import.json',
      'parity.json',
      'parity.md',
      'README.md',
      'tomaat.yaml',
      'requirements.lock',
    ]) {
      const text = readFileSync(join(app, name), 'utf8');
      for (const own of [madeIn, environment, '/home/me', 'secret']) expect(text).not.toContain(own);
    }
    // Three cases by the author's pipeline, and three by the program, which is one process.
    const calls = lines(join(madeIn, 'calls')).map((line) => line.split(' '));
    expect(calls.map(([, count]) => count)).toEqual(['1', '2', '3', '1', '2', '3']);
    expect(new Set(calls.map(([pid]) => pid)).size).toBe(2);

    expect(await tomaat(['check', app])).toMatchObject({ code: 0 });
  });

  it('locks the environment: versions, what comes from elsewhere, what pip cannot install', () => {
    const lock = lines(join(madeIn, 'app', 'requirements.lock'));
    expect(lock[0]).toMatch(/^# Python 3\.\d+\.\d+.*, Linux /);
    expect(lock).toContain('--extra-index-url https://download.pytorch.org/whl/cpu');
    expect(lock).toContain('torch==2.4.0+cpu');
    expect(lock).toContain('own_tool @ git+https://git.example/own@c0ffee');
    expect(lock).toContainEqual(
      expect.stringMatching(/^# local.thing 3 was installed from a file or folder/),
    );
    expect(lock).toContainEqual(expect.stringMatching(/^nibabel==\d/));
    const readme = readFileSync(join(madeIn, 'app', 'README.md'), 'utf8');
    expect(readme).toContain('local.thing 3');
    expect(readme).toContain('venv/bin/python3 -m pip install -r requirements.lock');
  });

  it('takes a cascade with the stage before it, in whose place the translation only has a fault', async () => {
    const dataset = join(folder, 'Dataset902_Blocks');
    writeTrained(dataset, '3d_lowres', 500);
    writeTrained(dataset, '3d_cascade_fullres', 200);
    const { code, stdout } = await runImport('--config', '3d_cascade_fullres', '--folds', '0', '--json');
    expect(code).toBe(0);
    expect(JSON.parse(stdout).parity).toMatchObject({ verdict: 'exact', cases: 3 });
    const model = join(folder, 'app', 'model');
    expect(
      readdirSync(model, { recursive: true })
        .filter((path) => String(path).endsWith('.pth'))
        .sort(),
    ).toEqual([
      'nnUNetTrainer__nnUNetPlans__3d_cascade_fullres/fold_0/checkpoint_final.pth',
      'nnUNetTrainer__nnUNetPlans__3d_lowres/fold_0/checkpoint_final.pth',
    ]);
    // 3 is no label of dataset.json; the voxels are those that the first stage marked.
    const { manifest } = await openApp(join(folder, 'app'));
    expect(manifest.labels.map(({ value }) => value)).toEqual([1, 2, 3]);
    expect(manifest.labels[2].name).toBe('label 3');
  });

  it('names the missing stage of a cascade: 2', async () => {
    writeTrained(join(folder, 'Dataset902_Blocks'), '3d_cascade_fullres', 200);
    const { code, stderr } = await runImport('--config', '3d_cascade_fullres');
    expect(code).toBe(2);
    expect(stderr).toContain('needs the result of 3d_lowres, whose folder is not beside it');
    expect(existsSync(join(folder, 'app'))).toBe(false);
  });

  it('a missing environment: check, run and serve say how to make it', async () => {
    const app = copyApp();
    const remedy =
      'rm -rf venv && python3 -m venv venv && venv/bin/python3 -m pip install -r requirements.lock';
    rmSync(join(app, 'venv'));
    expect((await tomaat(['check', app])).stdout).toContain(remedy.replace('rm -rf venv && ', ''));
    execFileSync('ln', ['-s', join(folder, 'gone'), join(app, 'venv')]);
    const checked = await tomaat(['check', app]);
    expect(checked.code).toBe(1);
    expect(checked.stdout).toContain(remedy);
    const ran = await tomaat(['run', app, '--volume', image, '-o', join(folder, 'labels.nii.gz')]);
    expect(ran).toMatchObject({ code: 1, stderr: expect.stringContaining(remedy) });
    const served = await tomaat([
      'serve',
      app,
      '--port',
      '0',
      '--tls-port',
      '0',
      '--data',
      join(folder, 'data'),
    ]);
    expect(served).toMatchObject({ code: 1, stderr: expect.stringContaining(remedy) });
  });

  it('another version of what decides the result is refused; another build of it is not', async () => {
    const app = copyApp();
    const lock = join(app, 'requirements.lock');
    const text = readFileSync(lock, 'utf8');
    const run = () => tomaat(['run', app, '--volume', image, '-o', join(folder, 'labels.nii.gz'), '--force']);
    writeFileSync(
      lock,
      text.replace('torch==2.4.0+cpu', 'torch==2.4.0+cu121').replace(/^packaging==.*$/m, 'packaging==0.1'),
    );
    expect(await run()).toMatchObject({ code: 0 });
    writeFileSync(lock, text.replace('torch==2.4.0+cpu', 'torch==2.3.1'));
    const { code, stderr } = await run();
    expect(code).toBe(1);
    expect(stderr).toContain('torch 2.4.0+cpu instead of 2.3.1');
    expect(stderr).toContain('pip install -r requirements.lock');
  });

  it('turns volumes that are stored otherwise to the axes of the case, and the labels back', async () => {
    const app = copyApp();
    const labelsOf = async (name: string, volume: Volume) => {
      const [file, out] = [join(folder, `${name}.nii.gz`), join(folder, `${name}-labels.nii.gz`)];
      writeFileSync(file, await encode(volume, 'nii.gz'));
      const { code, stderr } = await tomaat(['run', app, '--volume', file, '-o', out]);
      expect({ code, stderr }).toMatchObject({ code: 0 });
      return readCase(out);
    };
    const stored = await labelsOf('stored', phantom());
    const turned = await labelsOf('turned', reorient(phantom(), 'PIR'));
    expect(turned.size).not.toEqual(stored.size);
    expect(positions(turned)).toEqual(positions(stored));
    // Both of the stand-in's labels are there, one in each half of the array.
    expect(new Set(positions(stored).map((line) => line.split(' ')[0]))).toEqual(new Set(['1', '2']));
  });

  it('on Ctrl-C while the author’s pipeline runs nothing is left', async () => {
    writeFileSync(join(trained, 'fold_0', 'checkpoint_final.pth'), '{"threshold": 200, "sleep": 60}');
    const given = ['--anatomy', 'b', '--licence', 'MIT', '--author', 'Me', '--case', image, '-o', 'app'];
    const args = [
      'import',
      trained,
      '--command',
      '--folds',
      '0',
      '--python',
      join(environment, 'bin', 'python3'),
    ];
    const { code } = await tomaat([...args, ...given], {
      cwd: folder,
      onStderr: (text, kill) => {
        if (text.includes('Running nnU-Net')) kill('SIGINT');
      },
    });
    expect(code).toBe(130);
    expect(readdirSync(folder)).toEqual(['Dataset902_Blocks']);
  });
});

/** Label and place in the world, to a hundredth of a millimetre, of each voxel that has a label. */
function positions(volume: Volume): string[] {
  const [nx, ny] = volume.size;
  const found: string[] = [];
  for (const [i, value] of volume.voxels.entries()) {
    if (value === 0) continue;
    const index: [number, number, number] = [i % nx, Math.floor(i / nx) % ny, Math.floor(i / (nx * ny))];
    const at = applyAffine(volume.affine, index).map((mm) => (mm + 0).toFixed(2));
    found.push(`${value} ${at.join(' ')}`);
  }
  return found.sort();
}

describe.skipIf(!python)('serve.py', () => {
  /** The program by itself, on the trained folder. */
  function start(environmentVariables: Record<string, string>, ...paths: string[]) {
    const source = new URL('../python/', import.meta.url);
    const program = join(folder, 'program');
    mkdirSync(program);
    for (const name of ['serve.py', 'tomaat_pipeline.py', 'tomaat_bundle.py', 'tomaat_nnunet.py'])
      writeFileSync(join(program, name), readFileSync(new URL(name, source)));
    const args = ['serve.py', '--kind', 'nnunet', '--folder', trained, '--folds', '0', '--inputs', 'volume'];
    const child = spawn(join(environment, 'bin', 'python3'), [...args, '--output', 'labels', ...paths], {
      cwd: program,
      env: { ...process.env, ...environmentVariables },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    let stderr = '';
    child.stderr.on('data', (chunk) => {
      stderr += chunk;
    });
    const said = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
    return {
      ask: (line: object) => child.stdin.write(`${JSON.stringify(line)}\n`),
      next: async () => JSON.parse((await said.next()).value as string),
      end: () => child.stdin.end(),
      kill: () => child.kill('SIGTERM'),
      ended,
      stderr: () => stderr,
    };
  }

  async function request(id: number, volume: Volume | undefined) {
    const [input, output] = [join(folder, `in-${id}`), join(folder, `out-${id}`)];
    mkdirSync(input);
    mkdirSync(output);
    if (volume) writeFileSync(join(input, 'volume.nii.gz'), await encode(volume, 'nii.gz'));
    return { id, input, output, params: join(folder, 'params.json') };
  }

  it('answers one request after another; one that fails does not end it; only the protocol is on stdout', async () => {
    const program = start({ TOMAAT_SERVE: '1' });
    expect(await program.next()).toEqual({ ready: true });
    const answerOf = async (line: object) => {
      program.ask(line);
      expect(await program.next()).toEqual({ fraction: 0, stage: 'Running the author’s pipeline' });
      return program.next();
    };
    const empty = { ...phantom(), voxels: new Int16Array(23 * 17 * 11) };
    expect(await answerOf(await request(1, phantom()))).toEqual({ id: 1, ok: true });
    expect(await answerOf(await request(2, undefined))).toEqual({
      id: 2,
      error: 'volume: The volume is missing. Send it.',
      fault: 'input',
    });
    expect(await answerOf(await request(3, empty))).toEqual({
      id: 3,
      error: 'ValueError: the volume is empty',
      fault: 'app',
    });
    const broken = await request(4, undefined);
    writeFileSync(join(broken.input, 'volume.nii.gz'), 'no volume');
    expect(await answerOf(broken)).toMatchObject({
      id: 4,
      fault: 'input',
      error: expect.stringContaining('cannot read'),
    });
    expect(await answerOf(await request(5, phantom()))).toEqual({ id: 5, ok: true });
    program.end();
    expect(await program.ended).toBe(0);
    expect(program.stderr()).toContain('nnU-Net prints on stdout');
    expect(program.stderr()).toContain('so does what it starts');
    // Nothing beside the result.
    expect(readdirSync(join(folder, 'out-5'))).toEqual(['labels.nii.gz']);
    expect(readFileSync(join(folder, 'out-5', 'labels.nii.gz')).length).toBeGreaterThan(100);
  });

  it('without TOMAAT_SERVE predicts once: 0, 2 where the input is at fault, 1', async () => {
    const codeOf = async (volume: Volume | undefined) => {
      const { id, input, output, params } = await request(0, volume);
      const program = start({ TOMAAT_SERVE: '' }, input, output, params);
      const code = await program.ended;
      for (const name of [`in-${id}`, `out-${id}`, 'program'])
        rmSync(join(folder, name), { recursive: true });
      return [code, program.stderr().trim().split('\n').at(-1)];
    };
    expect((await codeOf(phantom()))[0]).toBe(0);
    expect(await codeOf(undefined)).toEqual([2, 'volume: The volume is missing. Send it.']);
    const empty = { ...phantom(), voxels: new Int16Array(23 * 17 * 11) };
    expect(await codeOf(empty)).toEqual([1, 'ValueError: the volume is empty']);
  });

  it('ends by SIGTERM while it waits', async () => {
    const program = start({ TOMAAT_SERVE: '1' });
    await program.next();
    program.kill();
    expect(await program.ended).toBe(143);
  });
});

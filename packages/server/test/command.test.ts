import { existsSync } from 'node:fs';
import { chmod, mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  type Affine,
  dice,
  type ErrorCode,
  identity,
  multiply,
  numericVoxels,
  reorient,
  restore,
  TomaatError,
  type Volume,
} from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { encode, obliqueAffine, phantom } from './phantom.ts';
import { decode, type FileRun, type FileRunOptions, runFiles } from './run-files.ts';
import { temporaryFolder } from './test-server.ts';

/** Programs as apps, with every way to go wrong that a program has. */

let work: string;
beforeAll(async () => {
  work = await temporaryFolder();
});
afterAll(() => rm(work, { recursive: true, force: true }));

interface Program {
  script: string;
  command?: string[];
  outputs?: object;
  files?: Readonly<Record<string, Uint8Array>>;
  extra?: object;
}

const labelMap = { segmentation: { type: 'LabelVolume' } };
let made = 0;

/** An app folder with a shell script. */
async function makeApp({
  script,
  command = ['sh', './app.sh'],
  outputs = labelMap,
  files = {},
  extra,
}: Program): Promise<string> {
  const folder = join(work, `app-${made++}`);
  await mkdir(folder);
  for (const [name, bytes] of Object.entries(files)) await writeFile(join(folder, name), bytes);
  await writeFile(join(folder, 'app.sh'), `set -eu\n${script}\n`);
  const manifest = {
    schemaVersion: 1,
    id: `program-${made}`,
    name: 'A program',
    description: 'A program.',
    version: '1',
    modality: 'any',
    anatomy: 'any',
    task: 'test',
    authors: ['Nobody'],
    licence: 'Apache-2.0',
    intendedUse: 'Tests.',
    inputs: { volume: { type: 'volume' } },
    model: { runtime: 'command', command },
    outputs,
    ...extra,
  };
  await writeFile(join(folder, 'tomaat.yaml'), JSON.stringify(manifest)); // JSON is YAML.
  return folder;
}

async function run(program: Program, options: FileRunOptions = {}): Promise<FileRun> {
  return runFiles(
    await makeApp(program),
    { volume: ['scan.nii.gz', await encode(phantom(), 'nii.gz')] },
    options,
  );
}

async function failure(
  program: Program,
  code: ErrorCode,
  options: FileRunOptions = {},
): Promise<TomaatError> {
  const error = await run(program, options).then(
    () => new Error('it did not fail'),
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(TomaatError);
  expect((error as TomaatError).code, (error as TomaatError).message).toBe(code);
  return error as TomaatError;
}

/** The phantom's blocks as a label map on its grid. */
function labelsOfPhantom(): Volume {
  const source = phantom();
  return { ...source, voxels: Uint8Array.from(source.voxels as Int16Array, (v) => (v > 10 ? 1 : 0)) };
}

const copy = 'cp labels.nii.gz "$TOMAAT_OUTPUT/segmentation.nii.gz"';
const copying = async (volume: Volume): Promise<Program> => ({
  script: copy,
  files: { 'labels.nii.gz': await encode(volume, 'nii.gz') },
});

const isAlive = (pid: number) => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

/** The pids that a program printed as lines `pid 123`. */
const pidsIn = (log: readonly string[]) =>
  log.flatMap((line) => /^pid (\d+)$/.exec(line)?.[1] ?? []).map(Number);

describe('command apps', () => {
  it('get files by name and environment, parameters as JSON, no server settings', async () => {
    process.env.TOMAAT_SECRET = 'of the server';
    const { outputs } = await run(
      {
        script: `
          [ "$1" = first ] && [ "$2" = "$TOMAAT_INPUT" ] && [ "$3" = "$TOMAAT_OUTPUT" ] && [ "$4" = "$TOMAAT_PARAMS" ]
          ls "$2" > "$3/files.txt"
          cat "$4" > "$3/parameters.txt"
          env | grep -c TOMAAT_SECRET && exit 3
          printf %s "$COLOUR" > "$3/environment.txt"`,
        command: ['sh', './app.sh', 'first'],
        outputs: {
          files: { type: 'PlainText' },
          parameters: { type: 'PlainText' },
          environment: { type: 'PlainText' },
        },
        extra: {
          inputs: {
            volume: { type: 'volume' },
            other: { type: 'volume', optional: true },
            level: { type: 'slider', minimum: 0, maximum: 9 },
            points: { type: 'fiducials' },
          },
          model: {
            runtime: 'command',
            command: ['sh', './app.sh', 'first'],
            environment: { COLOUR: 'green' },
          },
        },
      },
      { parameters: { level: '3.5', points: '1,2,3;-4,5,6' } },
    );
    expect(outputs.files.toString()).toBe('volume.nii.gz\n');
    expect(JSON.parse(outputs.parameters.toString())).toEqual({
      level: 3.5,
      points: [
        [1, 2, 3],
        [-4, 5, 6],
      ],
    });
    expect(outputs.environment.toString()).toBe('green');
  });

  it('say how far they are', async () => {
    const { progress, log } = await run({
      ...(await copying(labelsOfPhantom())),
      script: `
        sleep 0.15; echo '{"fraction": 0.25, "stage": "loading"}'
        sleep 0.15; echo '{"fraction": 0.75}'
        echo '{"fraction": 7}'; echo '{"fraction": "x"'; echo '{}'; sleep 0.15; ${copy}`,
    });
    const inferring = progress
      .filter(({ stage }) => stage === 'infer')
      .map(({ fraction }) => Number(fraction.toFixed(3)));
    expect(inferring).toContain(0.3);
    expect(inferring).toContain(0.7);
    const fractions = progress.map(({ fraction }) => fraction);
    expect(fractions).toEqual([...fractions].sort((a, b) => a - b));
    expect(log).toContain('loading');
    expect(log).toContain('{"fraction": 7}');
  });

  it('show the last line of stderr to the caller when they end with 2', async () => {
    const error = await failure(
      { script: 'echo first >&2; printf "Turn the patient round.\\n\\n" >&2; exit 2' },
      'BAD_INPUT',
    );
    expect(error.message).toBe('Turn the patient round.');
  });

  it('fail with their last words when they end with another code', async () => {
    const error = await failure({ script: 'echo "Traceback: no GPU" >&2; exit 3' }, 'APP_FAILED');
    expect(error.message).toBe('The app’s program ended with exit code 3: Traceback: no GPU');
    expect((await failure({ script: 'kill -SEGV $$; sleep 5' }, 'APP_FAILED')).message).toContain(
      'ended by SIGSEGV',
    );
    expect((await failure({ script: 'kill -KILL $$; sleep 5' }, 'OUT_OF_MEMORY')).message).toContain(
      'memory',
    );
  });

  it('fail with a hint when they cannot be started', async () => {
    const missing = await failure({ script: '', command: ['no-such-program-here'] }, 'APP_FAILED');
    expect(missing.message).toContain(
      'no-such-program-here of the app cannot be started: it is not installed here',
    );
    const folder = await makeApp({ script: '', command: ['./app.sh'] });
    await chmod(join(folder, 'app.sh'), 0o644);
    const work = runFiles(folder, { volume: ['scan.nii.gz', await encode(phantom(), 'nii.gz')] });
    await expect(work).rejects.toMatchObject({
      code: 'APP_FAILED',
      message: expect.stringContaining('chmod +x'),
    });
  });

  it('get SIGTERM on cancel, with time to clean up', async () => {
    const flag = join(work, 'cleaned-up');
    const cancel = new AbortController();
    const started = performance.now();
    await failure(
      {
        script: `trap 'touch "${flag}"; exit 0' TERM; echo running; while :; do sleep 0.05; done`,
      },
      'CANCELED',
      {
        signal: cancel.signal,
        onLog: (line) =>
          line === 'running' && cancel.abort(new TomaatError('CANCELED', 'The job was cancelled.')),
      },
    );
    expect(performance.now() - started).toBeLessThan(5000);
    expect(existsSync(flag)).toBe(true);
  });

  it('are stopped at the time limit', async () => {
    const error = await failure({ script: 'sleep 60', extra: { limits: { seconds: 1 } } }, 'TIMEOUT');
    expect(error.message).toContain('longer than the 1 s');
  });

  it('are killed, with all that they started, when they ignore SIGTERM', async () => {
    const cancel = new AbortController();
    const log: string[] = [];
    await failure(
      {
        script: `trap '' TERM; sleep 300 & echo "pid $!"; echo "pid $$"; echo running; while :; do sleep 0.05; done`,
      },
      'CANCELED',
      {
        signal: cancel.signal,
        onLog: (line) => {
          log.push(line);
          if (line === 'running') cancel.abort(new TomaatError('CANCELED', 'The job was cancelled.'));
        },
      },
    );
    const pids = pidsIn(log);
    expect(pids).toHaveLength(2);
    await expect.poll(() => pids.filter(isAlive), { timeout: 10_000 }).toEqual([]);
  });

  it('are done when they end, whatever they leave running', async () => {
    const started = performance.now();
    const { log } = await run({
      ...(await copying(labelsOfPhantom())),
      script: `sleep 300 & echo "pid $!"; ${copy}`,
    });
    expect(performance.now() - started).toBeLessThan(20_000);
    const [pid] = pidsIn(log);
    await expect.poll(() => isAlive(pid), { timeout: 20_000 }).toBe(false);
  });

  it('may print without end and without sense', async () => {
    const { log, outputs } = await run({
      ...(await copying(labelsOfPhantom())),
      script: `head -c 3000000 /dev/urandom | tr '\\n' x; echo; yes line | head -n 30000; head -c 3000000 /dev/zero >&2; ${copy}`,
    });
    expect(Object.keys(outputs)).toEqual(['segmentation']);
    expect(log.length).toBeLessThan(10_100);
    expect(Math.max(...log.map((line) => line.length))).toBeLessThanOrEqual(2000);
    expect(log.some((line) => line.includes('the rest is omitted'))).toBe(true);
  });

  it('fail when they write nothing, or what cannot be read', async () => {
    expect((await failure({ script: 'true' }, 'APP_OUTPUT')).message).toContain(
      'nothing for its output segmentation',
    );
    const garbage = await failure(
      { script: 'echo no volume > "$TOMAAT_OUTPUT/segmentation.nii.gz"' },
      'APP_OUTPUT',
    );
    expect(garbage.message).toContain('wrote segmentation.nii.gz, which cannot be read');
    const folder = await failure({ script: 'mkdir "$TOMAAT_OUTPUT/segmentation.nii.gz"' }, 'APP_OUTPUT');
    expect(folder.message).toContain('cannot be read');
    const rows = await failure(
      { script: 'echo "[1, 2]" > "$TOMAAT_OUTPUT/rows.json"', outputs: { rows: { type: 'Measurements' } } },
      'APP_OUTPUT',
    );
    expect(rows.message).toContain('Measurements');
  });

  it('fail when their labels are invalid', async () => {
    const half = await copying({
      ...labelsOfPhantom(),
      voxels: Float32Array.from(labelsOfPhantom().voxels as Uint8Array, (v) => v / 2),
    });
    expect((await failure(half, 'APP_OUTPUT')).message).toContain('0.5');
    const negative = await copying({
      ...labelsOfPhantom(),
      voxels: Int16Array.from(labelsOfPhantom().voxels as Uint8Array, (v) => -v),
    });
    expect((await failure(negative, 'APP_OUTPUT')).message).toContain('-1');
  });

  it('may give labels as floats, as many programs do', async () => {
    const floats = {
      ...labelsOfPhantom(),
      voxels: Float32Array.from(labelsOfPhantom().voxels as Uint8Array),
    };
    const labels = await decode((await run(await copying(floats))).outputs.segmentation);
    expect(labels.voxels).toEqual(labelsOfPhantom().voxels);
  });
});

describe('a label map on another grid', () => {
  it('is refused when its affine was lost', async () => {
    const error = await failure(await copying({ ...labelsOfPhantom(), affine: identity }), 'APP_OUTPUT');
    expect(error.message).toContain('its affine was lost or changed');
    const flipped = multiply(obliqueAffine, [-1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]);
    await failure(await copying({ ...labelsOfPhantom(), affine: flipped }), 'APP_OUTPUT');
  });

  it('is accepted on the program’s own grid around the centre, even if equal-sized', async () => {
    const expected = labelsOfPhantom();
    const [nx, ny, nz] = expected.size;
    // Voxels a fifth larger, turned a little: its outermost ones lie outside the input.
    const about: Affine = [
      1,
      0,
      0,
      -(nx - 1) / 2,
      0,
      1,
      0,
      -(ny - 1) / 2,
      0,
      0,
      1,
      -(nz - 1) / 2,
      0,
      0,
      0,
      1,
    ];
    const back: Affine = about.map((v, i) => (i % 4 === 3 && i < 12 ? -v : v));
    const turn: Affine = [1.2, 0.02, 0, 0, -0.02, 1.2, 0, 0, 0, 0, 1.2, 0, 0, 0, 0, 1];
    const affine = multiply(obliqueAffine, multiply(back, multiply(turn, about)));
    const own = restore(expected, { size: expected.size, affine });
    const labels = await decode((await run(await copying(own))).outputs.segmentation);
    expect(labels.size).toEqual(expected.size);
    expect(dice(labels, expected, 1)).toBeGreaterThan(0.8);
  });

  it('is refused when none of its labels lie in the volume', async () => {
    const far: Affine = [1, 0, 0, 900, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1];
    const error = await failure(
      await copying({ size: [5, 6, 7], components: 1, voxels: new Uint8Array(210).fill(1), affine: far }),
      'APP_OUTPUT',
    );
    expect(error.message).toContain('None of the labels');
  });

  it('returns to the input’s grid when reordered and twice as fine', async () => {
    const expected = labelsOfPhantom();
    const reordered = reorient(expected, 'SAR');
    expect(reordered.size).not.toEqual(expected.size);
    const first = await decode((await run(await copying(reordered))).outputs.segmentation);
    expect(first.size).toEqual(expected.size);
    expect(first.voxels).toEqual(expected.voxels);

    const [nx, ny, nz] = expected.size;
    const size = [nx * 2, ny * 2, nz * 2] as const;
    const source = numericVoxels(expected.voxels);
    const voxels = Uint8Array.from({ length: size[0] * size[1] * size[2] }, (_, i) => {
      const [x, y, z] = [i % size[0], Math.floor(i / size[0]) % size[1], Math.floor(i / (size[0] * size[1]))];
      return source[(x >> 1) + nx * ((y >> 1) + ny * (z >> 1))];
    });
    const affine = multiply(
      obliqueAffine,
      [0.5, 0, 0, -0.25, 0, 0.5, 0, -0.25, 0, 0, 0.5, -0.25, 0, 0, 0, 1],
    );
    const second = await decode(
      (await run(await copying({ voxels, size, components: 1, affine }))).outputs.segmentation,
    );
    expect(second.size).toEqual(expected.size);
    expect(second.voxels).toEqual(expected.voxels);
  });
});

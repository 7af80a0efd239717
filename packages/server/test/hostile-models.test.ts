import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { link, mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { beforeAll, expect, it } from 'vitest';
import { goodFile } from '../../core/test/bad-files.ts';
import { checkApp } from '../src/check-app.ts';
import { bytesField, integerField, joinParts, type Parts } from '../src/runtimes/protobuf.ts';
import { ownNodeOptions } from '../src/source.ts';
import { writeApp } from './app-fixture.ts';
import { hasStrace, parseCalls } from './hostile.ts';
import { encodeModel, type ModelSpec, thresholdNetwork } from './onnx-fixture.ts';
import { temporaryFolder } from './test-server.ts';

/*
 * ONNX files made to do harm: they are loaded in a child with bounded memory and time, the check fails in words, and no
 * file outside the app's folder is opened.
 */

const image = { name: 'image', dims: [1, 1, 'z', 'y', 'x'] } as const;
const scores = { name: 'scores', dims: [1, 2, 'z', 'y', 'x'] } as const;
const limits = { memoryMb: 1200, seconds: 20 };

let folder: string;
let secret: string;
let volume: Uint8Array;
beforeAll(async () => {
  folder = await temporaryFolder();
  secret = join(folder, 'tomaat-secret.bin');
  await writeFile(secret, Buffer.alloc(64, 7));
  volume = await goodFile('nii.gz');
});

const adding = (more: Partial<ModelSpec>) =>
  encodeModel({
    nodes: [{ op: 'Add', inputs: ['image', 'w'], outputs: ['scores'] }],
    inputs: [image],
    outputs: [scores],
    ...more,
  });
const external = (location: string) =>
  adding({ initializers: [{ name: 'w', dims: [1], external: { location, length: 4 } }] });
/** An initializer that claims these sizes and holds four bytes. */
const huge = (dims: readonly number[]) =>
  adding({ initializers: [{ name: 'w', dims, data: new Float32Array(1) }] });
const shapeOf = (dims: readonly bigint[]) => ({
  name: 'shape',
  dims: [dims.length],
  data: BigInt64Array.from(dims),
});
const deep = (levels: number) => {
  let graph: Parts = bytesField(2, 'g');
  for (let i = 0; i < levels; i++)
    graph = [
      joinParts(
        bytesField(1, bytesField(5, [...bytesField(1, 'body'), ...bytesField(6, [joinParts(graph)])])),
      ),
    ];
  return joinParts([...integerField(1, 8), ...bytesField(7, graph)]);
};
const chain = (count: number) => ({
  nodes: Array.from({ length: count }, (_, i) => ({
    op: 'Relu',
    inputs: [i === 0 ? 'image' : `n${i}`],
    outputs: [i === count - 1 ? 'scores' : `n${i + 1}`],
  })),
  inputs: [image],
  outputs: [scores],
});

type Make = (appFolder: string) => Promise<Uint8Array> | Uint8Array;

const models: [what: string, make: Make, message: RegExp][] = [
  ['weights in ../', () => external('../tomaat-secret.bin'), /outside its folder/],
  ['weights at an absolute path', () => external(secret), /not next to it|outside its folder/],
  [
    'weights in /etc/passwd by way of the folder',
    () => external('../../../../../../etc/passwd'),
    /outside its folder|not next to it/,
  ],
  [
    'weights behind a symbolic link',
    async (path) => {
      await symlink(secret, join(path, 'w.bin'));
      return external('w.bin');
    },
    /outside its folder/,
  ],
  [
    'weights behind a hard link',
    async (path) => {
      await link(secret, join(path, 'w.bin'));
      return external('w.bin');
    },
    /hard link|more than one name/,
  ],
  ['weights that are not there', () => external('nowhere.bin'), /not next to it/],
  ['an initializer of 10^12 numbers', () => huge([10 ** 6, 10 ** 6]), /cannot load|memory/],
  ['an initializer whose size overflows', () => huge([2 ** 32, 2 ** 32, 16]), /cannot load|memory/],
  ['an initializer of size -1', () => huge([-1, -1]), /cannot load|memory/],
  [
    'a constant of 10^12 numbers',
    () =>
      encodeModel({
        nodes: [
          { op: 'ConstantOfShape', inputs: ['shape'], outputs: ['w'] },
          { op: 'ReduceSum', inputs: ['w'], outputs: ['s'] },
          { op: 'Add', inputs: ['image', 's'], outputs: ['scores'] },
        ],
        initializers: [shapeOf([10_000n, 10_000n, 10_000n])],
        inputs: [image],
        outputs: [scores],
      }),
    /memory|cannot load|failed/i,
  ],
  ['graphs 5000 deep', () => deep(5000), /graphs inside graphs/],
  ['garbage', () => Uint8Array.from({ length: 5000 }, (_, i) => (i * 131 + 7) % 256), /not an ONNX model/],
  ['a file cut off', () => thresholdNetwork(1).subarray(0, 80), /truncated|cannot load/],
  ['an unknown opset', () => encodeModel({ ...chain(1), opset: 9999 }), /cannot load/],
  [
    'an operator of its own',
    () =>
      encodeModel({
        nodes: [{ op: 'Exec', inputs: ['image'], outputs: ['scores'] }],
        inputs: [image],
        outputs: [scores],
      }),
    /cannot load.*Exec|Exec/s,
  ],
  [
    'a circle',
    () =>
      encodeModel({
        nodes: [
          { op: 'Add', inputs: ['image', 'b'], outputs: ['a'] },
          { op: 'Relu', inputs: ['a'], outputs: ['b'] },
          { op: 'Relu', inputs: ['b'], outputs: ['scores'] },
        ],
        inputs: [image],
        outputs: [scores],
      }),
    /cannot load/,
  ],
  [
    'two graphs',
    () => joinParts([thresholdNetwork(1), joinParts(bytesField(7, bytesField(2, 'again')))]),
    /2 graphs|cannot load/,
  ],
];

async function appWith(id: string, make: Make): Promise<string> {
  const path = join(folder, id);
  await mkdir(path, { recursive: true });
  const bytes = await make(path);
  await writeFile(join(path, 'model.onnx'), bytes);
  await writeFile(join(path, 'a.nii.gz'), volume);
  return writeApp(folder, id, {
    model: {
      runtime: 'onnx',
      file: 'model.onnx',
      sha256: createHash('sha256').update(bytes).digest('hex'),
      inferer: { type: 'simple' },
    },
    limits,
    selftest: { inputs: { volume: 'a.nii.gz' }, expected: 'a.nii.gz', dice: 0.5 },
  });
}

it.each(models.map((model, i) => [...model, i] as const))(
  'tomaat check fails in words on a model with %s',
  async (_what, make, message, i) => {
    const path = await appWith(`hostile-${i}`, make);
    const start = performance.now();
    const results = [];
    for await (const result of checkApp(path, AbortSignal.timeout(60_000))) results.push(result);
    const failed = results.find(({ ok }) => !ok);
    expect(failed?.detail).toMatch(message);
    expect(failed?.detail).not.toMatch(/\n\s+at /);
    expect(performance.now() - start).toBeLessThan((limits.seconds + 20) * 1000);
  },
);

it.skipIf(!hasStrace)('no file outside the app is opened for its weights', async () => {
  const script = `import { openOnnxSession } from ${JSON.stringify(new URL('../src/runtimes/onnx.ts', import.meta.url).href)};
for (const file of process.argv.slice(1)) await openOnnxSession(file).catch(() => {});`;
  const bad = models.slice(0, 5).map((_, i) => join(folder, `hostile-${i}`, 'model.onnx'));
  const calls = join(folder, 'calls');
  await promisify(execFile)('strace', [
    '-f',
    '-qq',
    '-s',
    '4096',
    '-e',
    'trace=openat,open,link,symlink,unlink,rename,creat',
    '-o',
    calls,
    process.execPath,
    ...ownNodeOptions,
    '--input-type=module',
    '-e',
    script,
    ...bad,
  ]);
  const { readFile } = await import('node:fs/promises');
  const opened = parseCalls(await readFile(calls, 'latin1'));
  expect(opened.some(({ paths }) => paths.some((path) => path.endsWith('model.onnx')))).toBe(true);
  const strangers = opened.filter(({ paths }) =>
    paths.some((path) => /tomaat-secret|etc\/passwd|w\.bin/.test(path)),
  );
  expect(strangers.map(({ line }) => line)).toEqual([]);
});

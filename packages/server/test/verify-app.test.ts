import { createHash } from 'node:crypto';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { inferBright, writeApp } from './app-fixture.ts';
import { tomaat } from './cli-fixture.ts';
import { pointwiseNetwork } from './onnx-fixture.ts';
import { encode, phantom } from './phantom.ts';
import { startTestServer, temporaryFolder } from './test-server.ts';

/* Apps that are broken in ways that their manifest does not show: found before they are served, or told for what they are. */

let folder: string;
beforeAll(async () => {
  folder = await temporaryFolder();
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const weights = (classes: number, components = 1) =>
  pointwiseNetwork({
    weights: Array.from({ length: classes }, (_, k) => Array.from({ length: components }, () => k / 100)),
    bias: Array.from({ length: classes }, (_, k) => -k),
  });

async function writeOnnxApp(id: string, bytes: Uint8Array, more: Record<string, unknown> = {}) {
  await mkdir(join(folder, id), { recursive: true });
  await writeFile(join(folder, id, 'net.onnx'), bytes);
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  return writeApp(folder, id, {
    model: { runtime: 'onnx', file: 'net.onnx', sha256 },
    labels: [{ value: 1, name: 'one' }],
    ...more,
  });
}

/** Broken apps, and what is said of each. */
const broken: [id: string, write: (id: string) => Promise<string>, fault: RegExp][] = [
  [
    'not-onnx',
    (id) => writeOnnxApp(id, Buffer.from('weights')),
    /net\.onnx: .*not.*ONNX|is not an ONNX model/,
  ],
  ['three-classes', (id) => writeOnnxApp(id, weights(3)), /gives 3 classes, and labels names 1 value/],
  ['two-components', (id) => writeOnnxApp(id, weights(2, 2)), /takes 2 components/],
  [
    'enum',
    async (id) => {
      const app = await writeApp(folder, id, { model: { runtime: 'module', file: 'app.ts' } });
      await writeFile(
        join(app, 'app.ts'),
        'enum A { B }\nexport const infer = () => ({ segmentation: A.B });\n',
      );
      return app;
    },
    /app\.ts: .*enum/,
  ],
  [
    'no-infer',
    async (id) => {
      const app = await writeApp(folder, id, { infer: '' });
      await writeFile(join(app, 'app.js'), 'export const predict = () => ({});\n');
      return app;
    },
    /app\.js: .*function infer/,
  ],
  [
    'dies',
    async (id) => {
      const app = await writeApp(folder, id, { infer: '' });
      await writeFile(join(app, 'app.js'), 'console.error("out of luck");\nprocess.exit(3);\n');
      return app;
    },
    /exit code 3: out of luck/,
  ],
  [
    'no-program',
    (id) => writeApp(folder, id, { model: { runtime: 'command', command: ['no-such-program-here'] } }),
    /no-such-program-here is not on the PATH/,
  ],
];

describe('tomaat check', () => {
  it.each(broken)('finds what is wrong with the app %s', async (id, write, fault) => {
    const { code, stdout } = await tomaat(['check', await write(id)]);
    expect(stdout).toMatch(/ok +manifest/);
    expect(stdout).toMatch(/WRONG +model/);
    expect(stdout).toMatch(fault);
    expect(stdout).not.toContain('ready to be served');
    expect(code).toBe(1);
  });

  it('says what a network takes and gives', async () => {
    const { code, stdout } = await tomaat(['check', await writeOnnxApp('fine', weights(2))]);
    expect(stdout).toContain('net.onnx: 1 × 1 × 32 × 32 × 32 → 2 classes');
    expect(code).toBe(0);
  });

  it('runs every self-test, and says how many voxels differ', async () => {
    const scan = phantom();
    const voxels = Uint8Array.from(scan.voxels as Int16Array, (v) => (v === 10 ? 0 : 1));
    const near = voxels.slice();
    // Five voxels of the first row, which is background.
    near.fill(1, 4, 9);
    const inputs = { volume: 'scan.nii' };
    const app = await writeApp(folder, 'self-tests', {
      infer: inferBright,
      selftest: [
        { inputs, expected: 'exact.nii', agree: 1 },
        { inputs, expected: 'near.nii', dice: 0.98, agree: 0.998 },
        { inputs, expected: 'near.nii', dice: 0.98, agree: 1 },
        { inputs, expected: 'near.nii', agree: 0 },
      ],
    });
    for (const [name, volume] of [
      ['scan', scan],
      ['exact', { ...scan, voxels }],
      ['near', { ...scan, voxels: near }],
    ] as const)
      await writeFile(join(app, `${name}.nii`), await encode(volume, 'nii'));
    const { code, stdout } = await tomaat(['check', app]);
    expect(stdout).toMatch(/^ {2}ok {5}self-test 1 of 4: all 4301 voxels agree; /m);
    expect(stdout).toMatch(
      /^ {2}ok {5}self-test 2 of 4: 5 of 4301 voxels differ \(99\.883 % agree\), a Dice of at least 0\.9863; /m,
    );
    expect(stdout).toMatch(
      /^ {2}WRONG {2}self-test 3 of 4: 5 of 4301 voxels differ \(99\.883 % agree\), and the manifest requires 100 %, with near\.nii; .*100 % in the outermost layer/m,
    );
    // 2 · 180 / (180 + 185).
    expect(stdout).toMatch(
      /^ {2}WRONG {2}self-test 4 of 4: label 1 reaches a Dice of 0\.9863, and the manifest requires 0\.99, /m,
    );
    expect(stdout).toMatch(/^ {2}ok {5}geometry: /m);
    expect(stdout).toContain('has 2 faults');
    expect(code).toBe(1);
  });
});

describe('the card of a service', () => {
  it('states how its results agree with those of its authors’ pipeline', async () => {
    const parity = {
      verdict: 'within noise',
      agree: 0.99942,
      cases: 3,
      tool: 'tomaat 0.2.0',
      versions: { nnunetv2: '2.8.1' },
    };
    const app = await writeApp(folder, 'agrees', { infer: inferBright, parity });
    await using server = await startTestServer([app]);
    const response = await fetch(`${server.url}/api/services/agrees`);
    expect(await response.json()).toMatchObject({ id: 'agrees', parity });
  });
});

describe('tomaat serve', () => {
  it('does not serve apps that are broken, and names the faults of all', async () => {
    const [first, , second] = await Promise.all(
      broken.slice(0, 3).map(([id, write]) => write(`${id}-served`)),
    );
    const good = await writeApp(folder, 'good', { infer: inferBright });
    const { code, stdout, stderr } = await tomaat([
      'serve',
      first,
      good,
      second,
      '--data',
      join(folder, 'data'),
      '--port',
      '0',
      '--tls-port',
      '0',
    ]);
    expect(stderr).toContain('The app not-onnx-served cannot be served');
    expect(stderr).toContain('The app two-components-served cannot be served');
    expect(stderr).not.toContain('The app good');
    expect(stdout).toBe('');
    expect(code).toBe(1);
  });
});

describe('a service that broke after the start', () => {
  it('is called broken, and the scan is not', async () => {
    const app = await writeOnnxApp('breaks', weights(2));
    await using server = await startTestServer([app]);
    await writeFile(join(app, 'net.onnx'), 'damaged');
    const response = await fetch(`${server.url}/breaks/any`, {
      method: 'POST',
      headers: { 'content-type': 'application/octet-stream' },
      body: new Uint8Array(await encode(phantom(), 'nii.gz')),
    });
    const problem = (await response.json()) as { code: string; detail: string };
    expect(response.status).toBe(422);
    expect(problem.code).toBe('BAD_MANIFEST');
    expect(problem.detail).toMatch(
      /^The fault is in this service, not in your scan\. Report it to the operator: .*sha256/,
    );
  });
});

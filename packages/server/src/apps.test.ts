import { createHash } from 'node:crypto';
import { mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { writeApp } from '../test/app-fixture.ts';
import { tomaat } from '../test/cli-fixture.ts';
import { thresholdNetwork } from '../test/onnx-fixture.ts';
import { encode, phantom } from '../test/phantom.ts';
import { openApp } from './apps.ts';
import { runApp } from './worker/run-app.ts';

const weights = thresholdNetwork(10);
const moduleText = 'export const infer = async ({ volume }) => ({ segmentation: volume });\n';
const hashOf = (bytes: Uint8Array | string) => createHash('sha256').update(bytes).digest('hex');

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-apps-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const network = (more: object = {}) => ({
  runtime: 'onnx',
  file: 'net.onnx',
  sha256: hashOf(weights),
  inferer: { type: 'simple' },
  threads: 1,
  ...more,
});

/** An app folder whose files are as the manifest says. */
async function makeApp(model: object | readonly object[] = network()): Promise<string> {
  const postprocess = [model].flat().some((one) => 'inferer' in one) ? ['restore', 'argmax'] : [];
  const path = await writeApp(folder, 'app', { model, postprocess, labels: [{ value: 1, name: 'bright' }] });
  for (const name of ['net.onnx', 'second.onnx']) await writeFile(join(path, name), weights);
  await writeFile(join(path, 'app.mjs'), moduleText);
  return path;
}

/** Changes one bit of a file. */
async function changeByte(path: string, at: number): Promise<void> {
  await using file = await open(path, 'r+');
  const byte = Buffer.alloc(1);
  await file.read(byte, 0, 1, at);
  byte[0] ^= 1;
  await file.write(byte, 0, 1, at);
}

describe('openApp()', () => {
  it('takes weights with the hash of the manifest', async () => {
    expect((await openApp(await makeApp())).manifest.id).toBe('app');
  });

  it('says once what is wrong with a file that several models have', async () => {
    const app = await makeApp([
      network({ merge: [{ from: 1, to: 1 }] }),
      network({ merge: [{ from: 1, to: 1 }] }),
    ]);
    await rm(join(app, 'net.onnx'));
    const message = await openApp(app).then(
      () => '',
      (error: Error) => error.message,
    );
    expect(message.match(/net\.onnx/g)).toHaveLength(1);
  });

  it.each([0, weights.length >> 1, weights.length - 1])(
    'refuses weights with one bit changed at byte %d',
    async (at) => {
      const app = await makeApp();
      await changeByte(join(app, 'net.onnx'), at);
      await expect(openApp(app)).rejects.toMatchObject({
        code: 'BAD_MANIFEST',
        field: 'model.sha256',
        message: expect.stringContaining(`not ${hashOf(weights)}`),
      });
    },
  );

  it('refuses files with another content, truncated files and longer ones', async () => {
    for (const bytes of [
      Buffer.alloc(weights.length),
      weights.subarray(0, -1),
      Buffer.concat([weights, Buffer.alloc(1)]),
      Buffer.alloc(0),
    ]) {
      const app = await makeApp();
      await writeFile(join(app, 'net.onnx'), bytes);
      await expect(openApp(app)).rejects.toMatchObject({ code: 'BAD_MANIFEST', field: 'model.sha256' });
    }
  });

  it('checks every model of a list', async () => {
    const when = (value: boolean) => ({ fast: value });
    const models = [network({ when: when(true) }), network({ when: when(false), file: 'second.onnx' })];
    const app = await writeApp(folder, 'list', {
      model: models,
      inputs: { volume: { type: 'volume' }, fast: { type: 'checkbox', default: true } },
      postprocess: ['restore', 'argmax'],
    });
    for (const name of ['net.onnx', 'second.onnx']) await writeFile(join(app, name), weights);
    await openApp(app);
    await changeByte(join(app, 'second.onnx'), 50);
    await expect(openApp(app)).rejects.toMatchObject({ code: 'BAD_MANIFEST', field: 'model.sha256' });
  });

  it('checks a module that has a hash', async () => {
    const app = await makeApp({ runtime: 'module', file: 'app.mjs', sha256: hashOf(moduleText) });
    await openApp(app);
    await changeByte(join(app, 'app.mjs'), 3);
    await expect(openApp(app)).rejects.toMatchObject({ code: 'BAD_MANIFEST', field: 'model.sha256' });
  });
});

describe('weights that change', () => {
  it('after the app was opened are not loaded by a child', async () => {
    const app = await openApp(await makeApp());
    const scan = join(folder, 'scan.nii');
    const bytes = await encode(phantom(), 'nii');
    await writeFile(scan, bytes);
    const run = () =>
      runApp({ app, files: { volume: [{ path: scan, sizeBytes: bytes.length }] }, parameters: {} });
    {
      await using result = await run();
      expect(result.outputs).toHaveLength(1);
    }
    await changeByte(join(app.folder, 'net.onnx'), 40);
    await expect(run()).rejects.toMatchObject({ code: 'BAD_MANIFEST' });
  });

  it.each(['check', 'serve'])('are refused by tomaat %s with words', async (command) => {
    const app = await makeApp();
    await changeByte(join(app, 'net.onnx'), 40);
    const data =
      command === 'serve' ? ['--data', join(folder, 'data'), '--port', '0', '--tls-port', '0'] : [];
    const { code, stdout, stderr } = await tomaat([command, app, ...data]);
    expect(code).not.toBe(0);
    expect(stdout + stderr).toContain('net.onnx');
    expect(stdout + stderr).toContain('sha256');
  });
});

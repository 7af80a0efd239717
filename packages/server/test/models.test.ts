import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createClient } from '@tomaat/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { writeApp } from './app-fixture.ts';
import { encode, phantom } from './phantom.ts';
import { readAudit } from './support/tested-database.ts';
import { appFolder, startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

/** The lines of the audit log so far. */
const linesIn = async (dataFolder: string): Promise<{ event: string }[]> =>
  (await readAudit(dataFolder))
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));

/* Models that leave a server: where author and operator allow it, whole or in parts, recorded. */

const file = await readFile(join(appFolder('ct-bone'), 'smooth.onnx'));
const sha256 = createHash('sha256').update(file).digest('hex');
const network = { runtime: 'onnx', file: 'net.onnx', sha256, inferer: { type: 'simple' } };

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer(['ct-bone', 'threshold'], { workers: 0 });
});
afterAll(() => server?.close());

const modelUrl = (query = '') => `${server.url}/api/services/ct-bone/model${query}`;

describe('GET /api/services/{id}/model', () => {
  it('sends the file with its digest, and writes into the audit log who fetched it', async () => {
    const answer = await fetch(modelUrl(`?sha256=${sha256}`));
    expect(answer.status).toBe(200);
    expect(answer.headers.get('content-length')).toBe(String(file.length));
    expect(answer.headers.get('etag')).toBe(`"sha256:${sha256}"`);
    expect(Buffer.from(await answer.arrayBuffer())).toEqual(file);
    await expect
      .poll(async () => (await linesIn(server.dataFolder)).filter(({ event }) => event === 'model.read'))
      .toMatchObject([
        {
          who: 'anonymous',
          service: 'ct-bone',
          version: '1.0.0',
          digest: `sha256:${sha256}`,
          outcome: 'whole',
        },
      ]);
  });

  it('sends a range, nothing that is there already, and no body to HEAD', async () => {
    const part = await fetch(modelUrl(), { headers: { range: 'bytes=10-29' } });
    expect(part.status).toBe(206);
    expect(part.headers.get('content-range')).toBe(`bytes 10-29/${file.length}`);
    expect(Buffer.from(await part.arrayBuffer())).toEqual(file.subarray(10, 30));
    const known = await fetch(modelUrl(), { headers: { 'if-none-match': `"sha256:${sha256}"` } });
    expect(known.status).toBe(304);
    const head = await fetch(modelUrl(), { method: 'HEAD' });
    expect([head.status, head.headers.get('content-length')]).toEqual([200, String(file.length)]);
    const beyond = await fetch(modelUrl(), { headers: { range: `bytes=${file.length}-` } });
    expect([beyond.status, beyond.headers.get('content-range')]).toEqual([416, `bytes */${file.length}`]);
  });

  it('refuses another digest, and names those that there are', async () => {
    const answer = await fetch(modelUrl(`?sha256=${'0'.repeat(64)}`));
    expect(answer.status).toBe(404);
    expect(await answer.json()).toMatchObject({ code: 'NOT_FOUND', detail: expect.stringContaining(sha256) });
  });

  it('gives nothing of a service whose author did not allow it', async () => {
    for (const path of ['model', 'manifest']) {
      const answer = await fetch(`${server.url}/api/services/threshold/${path}`);
      expect(answer.status).toBe(403);
      expect(await answer.json()).toMatchObject({
        detail:
          'The service threshold is computed by this server alone: its models do not leave it. Send it a volume instead.',
      });
    }
  });
});

describe('createClient()', () => {
  it('manifest() and model() give what the app’s folder has', async () => {
    const client = createClient({ baseUrl: server.url });
    const path = join(appFolder('ct-bone'), 'tomaat.yaml');
    expect(await client.manifest('ct-bone')).toBe(await readFile(path, 'utf8'));
    const model = await client.model('ct-bone', { sha256 });
    expect(model.fileName).toBe('smooth.onnx');
    expect(Buffer.from(await model.bytes())).toEqual(file);
    await expect(client.model('threshold')).rejects.toMatchObject({ code: 'FORBIDDEN' });
    expect((await client.service('ct-bone')).compute).toBe('anywhere');
    expect((await client.service('threshold')).compute).toBe('server');
  });
});

describe('withholdModels', () => {
  it('keeps models whose authors give them away, and says so on the card', async () => {
    await using kept = await startTestServer(['ct-bone'], { workers: 0, withholdModels: true });
    expect((await fetch(`${kept.url}/api/services/ct-bone/model`)).status).toBe(403);
    expect(await (await fetch(`${kept.url}/api/services/ct-bone`)).json()).toMatchObject({
      compute: 'server',
    });
  });
});

describe('compute: caller', () => {
  it('takes no scan, gives the model, and does not start where models are withheld', async () => {
    const folder = await temporaryFolder();
    const path = await writeApp(folder, 'own', {
      model: network,
      postprocess: [{ threshold: { channel: 0, above: 1 } }],
      compute: 'caller',
    });
    await writeFile(join(path, 'net.onnx'), file);
    await expect(startTestServer([path], { workers: 0, withholdModels: true })).rejects.toThrow(
      'The app own runs on its callers’ computers alone (compute: caller), and --withhold-models (withholdModels) keeps its models here. Leave out one of the two.',
    );
    await using own = await startTestServer([path], { workers: 0 });
    const body = Buffer.from(await encode(phantom(), 'nii.gz'));
    for (const address of ['/api/services/own/predictions', '/own/any']) {
      const headers = { 'content-type': 'application/octet-stream' };
      const refused = await fetch(`${own.url}${address}`, { method: 'POST', headers, body });
      expect(refused.status).toBe(403);
      expect(await refused.json()).toMatchObject({
        code: 'FORBIDDEN',
        detail: expect.stringContaining('runs on its callers’ own computers alone'),
      });
    }
    expect((await fetch(`${own.url}/api/services/own/model`)).status).toBe(200);
  });
});

import { rm } from 'node:fs/promises';
import type { Job } from '@tomaat/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { goodFile } from '../../core/test/bad-files.ts';
import { inferBright, writeApp } from './app-fixture.ts';
import { type RealServer, startRealServer } from './real-server.ts';
import { temporaryFolder } from './test-server.ts';

/* Apps that die, hang, grow or throw take down one job, with its reason; a server that is killed loses none. */

let folder: string;
let bytes: Uint8Array<ArrayBuffer>;
beforeAll(async () => {
  folder = await temporaryFolder();
  bytes = Uint8Array.from(await goodFile('nii.gz'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const headers = { 'content-type': 'application/octet-stream' };
const post = (server: RealServer, path: string, more: Record<string, string> = {}) =>
  fetch(`${server.url}${path}`, { method: 'POST', body: bytes, headers: { ...headers, ...more } });

describe('an app that', () => {
  const faults: [
    what: string,
    app: Record<string, unknown>,
    status: number,
    code: string,
    message: RegExp,
  ][] = [
    ['aborts', { infer: 'process.abort();' }, 503, 'WORKER_DIED', /ended by SIGABRT.*Try again/],
    ['ends its process', { infer: 'process.exit(7);' }, 503, 'WORKER_DIED', /exit code 7.*Try again/],
    [
      'is killed',
      { infer: "process.kill(process.pid, 'SIGSEGV'); await sleep(5000);" },
      503,
      'WORKER_DIED',
      /SIGSEGV/,
    ],
    [
      'fills the heap',
      { infer: 'const all = []; for (;;) all.push(new Array(1e5).fill(volume));', limits: { memoryMb: 800 } },
      422,
      'OUT_OF_MEMORY',
      /800 MB.*smaller volume/,
    ],
    [
      'allocates without end',
      { infer: 'const all = []; for (;;) all.push(new Uint8Array(5e7).fill(1));', limits: { memoryMb: 800 } },
      422,
      'OUT_OF_MEMORY',
      /800 MB.*smaller volume/,
    ],
    ['never returns', { infer: 'for (;;);', limits: { seconds: 2 } }, 422, 'TIMEOUT', /longer than the 2 s/],
    [
      'waits for ever',
      { infer: 'await sleep(1e9);', limits: { seconds: 2 } },
      422,
      'TIMEOUT',
      /longer than the 2 s/,
    ],
    ['throws', { infer: "throw new Error('no such layer');" }, 422, 'APP_FAILED', /no such layer/],
    ['throws nothing', { infer: 'throw undefined;' }, 422, 'APP_FAILED', /failed/],
    [
      'throws behind its back',
      { infer: "setTimeout(() => { throw new Error('too late'); }, 50); await sleep(5000);" },
      503,
      'WORKER_DIED',
      /exit code/,
    ],
    ['returns nothing', { infer: 'return;' }, 422, 'APP_OUTPUT', /return/],
    [
      'returns another size',
      { infer: 'return { segmentation: { ...bright(volume), voxels: new Uint8Array(7) } };' },
      422,
      'APP_OUTPUT',
      /./,
    ],
    [
      'returns labels that are no whole numbers',
      {
        infer:
          'return { segmentation: { ...volume, voxels: new Float32Array(volume.voxels.length).fill(0.5) } };',
      },
      422,
      'APP_OUTPUT',
      /0\.5/,
    ],
  ];
  let server: RealServer;
  beforeAll(async () => {
    const apps = await Promise.all(faults.map(([, app], i) => writeApp(folder, `fault-${i}`, app)));
    server = await startRealServer([...apps, await writeApp(folder, 'good', { infer: inferBright })]);
  });
  afterAll(() => server?.[Symbol.asyncDispose]());

  it.each(faults.map((fault, i) => [...fault, i] as const))(
    '%s fails its job alone',
    async (_what, app, status, code, message, i) => {
      const start = performance.now();
      const answer = await post(server, `/fault-${i}/any`);
      const problem = await answer.json();
      expect(problem).toMatchObject({ status, code, detail: expect.stringMatching(message) });
      expect(answer.status).toBe(status);
      if (code === 'TIMEOUT')
        expect(performance.now() - start).toBeLessThan(
          ((app.limits as { seconds: number }).seconds + 5) * 1000,
        );
      const next = await post(server, '/good/any');
      expect(next.status).toBe(200);
      await next.arrayBuffer();
      await expect.poll(() => server.files(), { timeout: 20_000, interval: 20 }).toEqual([]);
    },
  );
});

it('a server killed in mid-job reruns it after restart, five of five times', {
  timeout: 240_000,
}, async () => {
  const dataFolder = await temporaryFolder();
  const app = await writeApp(folder, 'steady', { infer: `await sleep(400); ${inferBright}` });
  try {
    for (let round = 0; round < 5; round++) {
      let id: string;
      {
        await using server = await startRealServer([app], { dataFolder });
        const created = await post(server, '/api/services/steady/predictions', {
          'Idempotency-Key': `round-${round}`,
        });
        expect(created.status).toBe(202);
        ({ id } = await created.json());
        const state = async () => ((await (await fetch(`${server.url}/api/jobs/${id}`)).json()) as Job).state;
        await expect.poll(state, { timeout: 20_000, interval: 20 }).toBe('running');
        await server.kill('SIGKILL');
      }
      await using server = await startRealServer([app], { dataFolder });
      const job = async () => (await (await fetch(`${server.url}/api/jobs/${id}`)).json()) as Job;
      await expect.poll(async () => (await job()).state, { timeout: 20_000, interval: 50 }).toBe('succeeded');
      expect((await job()).attempt).toBe(2);
      const same = await post(server, '/api/services/steady/predictions', {
        'Idempotency-Key': `round-${round}`,
      });
      expect(((await same.json()) as Job).id).toBe(id);
      const output = await fetch(`${server.url}/api/jobs/${id}/outputs/segmentation`);
      expect(output.headers.get('content-length')).toBe(String((await output.arrayBuffer()).byteLength));
      // The input goes with the settling: what is left is the one output.
      await expect.poll(async () => (await server.files()).length, { timeout: 20_000, interval: 20 }).toBe(1);
      expect((await fetch(`${server.url}/api/jobs/${id}`, { method: 'DELETE' })).status).toBe(204);
      await expect.poll(() => server.files(), { timeout: 20_000, interval: 20 }).toEqual([]);
    }
  } finally {
    await rm(dataFolder, { recursive: true, force: true });
  }
});

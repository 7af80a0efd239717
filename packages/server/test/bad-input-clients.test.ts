import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { open, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { collectBytes, type Volume, writeVolume } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findCurl, findPython } from '../../../test/programs.ts';
import { nodePlatform } from '../src/node-platform.ts';
import { inferBright, writeApp } from './app-fixture.ts';
import { multipart, multipartType, type RealServer, startRealServer } from './real-server.ts';
import { temporaryFolder } from './test-server.ts';

/* Clients as people have them: that wait long, that are refused in mid-upload, that go away. */

const python = findPython('requests');
const curl = findCurl();
// No proxy and no list of certificates from the surroundings.
const environment = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !/proxy|CA_BUNDLE/i.test(name)),
);

let server: RealServer;
let folder: string;
let file: string;
/** Uint8 zeros and ones: an app may give it back as its label map. */
let bytes: Uint8Array<ArrayBuffer>;
const slowSeconds = 12;

beforeAll(async () => {
  folder = await temporaryFolder();
  const copies = (seconds: number) => ({
    model: {
      runtime: 'command',
      command: [
        '/bin/sh',
        '-c',
        `echo $$ > running.pid; sleep ${seconds}; cp "$1/volume.nii.gz" "$2/segmentation.nii.gz"`,
        'sh',
      ],
    },
  });
  const apps = [
    await writeApp(folder, 'slow', copies(slowSeconds)),
    await writeApp(folder, 'endless', copies(600)),
    await writeApp(folder, 'busy', { infer: 'for (;;);' }),
    await writeApp(folder, 'bright', { infer: inferBright }),
  ];
  server = await startRealServer(apps, {
    workers: 4,
    interimAfterMs: [4000, 8000, 12_000, 16_000],
    v1DelayMs: 60_000,
    defaultService: 'endless',
  });
  const voxels = Uint8Array.from({ length: 5 * 4 * 3 }, (_, i) => Number(i % 3 === 0));
  const volume: Volume = {
    voxels,
    size: [5, 4, 3],
    components: 1,
    affine: [2, 0, 0, 7, 0, 3, 0, 8, 0, 0, 4, 9, 0, 0, 0, 1],
  };
  bytes = Uint8Array.from(await collectBytes(writeVolume(volume, 'nii.gz', nodePlatform)));
  file = join(folder, 'patient_001.nii.gz');
  await writeFile(file, bytes);
});
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

function run(
  program: string,
  args: readonly string[],
): Promise<{ code: number | null; out: Buffer; err: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { env: environment, stdio: ['ignore', 'pipe', 'pipe'] });
    const out: Buffer[] = [];
    let err = '';
    child.stdout.on('data', (chunk) => out.push(chunk));
    child.stderr.on('data', (chunk) => {
      err += chunk;
    });
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, out: Buffer.concat(out), err }));
  });
}

const isGzip = (data: Uint8Array) => data[0] === 0x1f && data[1] === 0x8b;
const header = { 'content-type': 'application/octet-stream' };
const post = (path: string, init: RequestInit = {}) =>
  fetch(`${server.url}${path}`, { method: 'POST', body: bytes, headers: header, ...init });

describe.concurrent(`a prediction of ${slowSeconds} s`, () => {
  it.skipIf(!python)('reaches the five lines of Python despite their 7 s read timeout', async () => {
    const script = `
import requests, sys
with open(${JSON.stringify(file)}, "rb") as f:
    response = requests.post("${server.url}/slow/any", files={"volume": f}, timeout=7)
sys.stdout.buffer.write(response.content)
sys.exit(0 if response.status_code == 200 else 1)`;
    const { code, out, err } = await run(python!, ['-c', script]);
    expect(code, err + out).toBe(0);
    expect(isGzip(out)).toBe(true);
  });

  it.skipIf(!curl)('reaches curl', async () => {
    const { code, out, err } = await run(curl!, [
      '-sS',
      '--fail',
      '-F',
      `volume=@${file}`,
      `${server.url}/slow/any`,
    ]);
    expect(code, err).toBe(0);
    expect(isGzip(out)).toBe(true);
  });

  it('reaches fetch', async () => {
    const response = await post('/slow/any');
    expect(response.status).toBe(200);
    expect(isGzip(new Uint8Array(await response.arrayBuffer()))).toBe(true);
  });
});

describe('a refusal in mid-upload', () => {
  let jpeg: string;
  const sizeBytes = 300e6;
  beforeAll(async () => {
    jpeg = join(folder, 'photo.jpg');
    await writeFile(jpeg, Uint8Array.of(0xff, 0xd8, 0xff, 0xe0));
    await truncate(jpeg, sizeBytes);
  });

  it.skipIf(!python)('is read by requests', async () => {
    const script = `
import requests
with open(${JSON.stringify(jpeg)}, "rb") as f:
    response = requests.post("${server.url}/bright/any", data=f, headers={"Content-Type": "application/octet-stream"}, timeout=20)
print(response.status_code, response.json()["code"])`;
    const { out, err } = await run(python!, ['-c', script]);
    expect(out.toString().trim(), err).toBe('415 UNSUPPORTED_FORMAT');
  });

  it.skipIf(!curl)('is read by curl', async () => {
    const { out, err } = await run(curl!, ['-sS', '-F', `volume=@${jpeg}`, `${server.url}/bright/any`]);
    expect(out.toString(), err).toContain('JPEG picture');
  });

  it('is read by fetch', async () => {
    await using handle = await open(jpeg);
    const response = await post('/bright/any', {
      body: handle.readableWebStream() as ReadableStream,
      duplex: 'half',
    } as RequestInit);
    expect(response.status).toBe(415);
    expect((await response.json()).code).toBe('UNSUPPORTED_FORMAT');
  });
});

describe('a client that goes away', () => {
  const pidFile = () => join(folder, 'endless', 'running.pid');
  const isAlive = (pid: number) => {
    try {
      return process.kill(pid, 0);
    } catch {
      return false;
    }
  };
  /** The id of the process that computes, once it does. */
  async function running(): Promise<number> {
    await expect.poll(() => existsSync(pidFile()), { timeout: 20_000 }).toBe(true);
    await expect.poll(async () => Number(await readFile(pidFile(), 'utf8'))).toBeGreaterThan(0);
    return Number(await readFile(pidFile(), 'utf8'));
  }
  const jobsRunning = async () =>
    Number(
      /tomaat_jobs\{state="running"\} (\d+)/.exec(await (await fetch(`${server.url}/metrics`)).text())?.[1],
    );
  const forget = () => rm(pidFile(), { force: true });

  it('from the promise ends its job and leaves nothing', async () => {
    await forget();
    const gone = new AbortController();
    const answer = post('/endless/any', { signal: gone.signal }).catch(() => undefined);
    const pid = await running();
    expect((await server.files()).length).toBeGreaterThan(0);
    gone.abort();
    await expect.poll(() => isAlive(pid), { timeout: 20_000, interval: 20 }).toBe(false);
    await expect.poll(() => server.files(), { timeout: 20_000, interval: 20 }).toEqual([]);
    expect(await jobsRunning()).toBe(0);
    await answer;
    expect((await post('/bright/any')).status).toBe(200);
  });

  it('from the promise ends a computation that does not listen', async () => {
    const gone = new AbortController();
    const answer = post('/busy/any', { signal: gone.signal }).catch(() => undefined);
    await expect.poll(jobsRunning, { timeout: 20_000 }).toBe(1);
    gone.abort();
    await expect.poll(() => server.files(), { timeout: 20_000, interval: 20 }).toEqual([]);
    expect(await jobsRunning()).toBe(0);
    await answer;
  });

  it('from “Prefer: wait” leaves its job, which can be cancelled', async () => {
    await forget();
    const gone = new AbortController();
    const created = post('/api/services/endless/predictions', {
      signal: gone.signal,
      headers: { ...header, Prefer: 'wait=60', 'Idempotency-Key': 'left' },
    }).catch(() => undefined);
    const pid = await running();
    gone.abort();
    await created;
    const again = await post('/api/services/endless/predictions', {
      headers: { ...header, 'Idempotency-Key': 'left' },
    });
    const { id, state } = await again.json();
    expect(state).toBe('running');
    expect(isAlive(pid)).toBe(true);
    const deleted = await fetch(`${server.url}/api/jobs/${id}`, { method: 'DELETE' });
    expect((await deleted.json()).state).toBe('canceled');
    await expect.poll(() => isAlive(pid), { timeout: 20_000, interval: 20 }).toBe(false);
    await expect.poll(() => server.files(), { timeout: 20_000, interval: 20 }).toEqual([]);
  });

  it('from TOMAAT v1, before any answer, takes its job with it', async () => {
    await forget();
    const gone = new AbortController();
    const init = {
      signal: gone.signal,
      body: multipart([['volume', bytes]]) as unknown as BodyInit,
      headers: { 'content-type': multipartType },
    };
    const answer = post('/predict', init).catch(() => undefined);
    const pid = await running();
    gone.abort();
    await answer;
    await expect.poll(() => isAlive(pid), { timeout: 20_000, interval: 20 }).toBe(false);
    await expect.poll(jobsRunning, { timeout: 20_000, interval: 20 }).toBe(0);
    await expect.poll(() => server.files(), { timeout: 20_000, interval: 20 }).toEqual([]);
  });
});

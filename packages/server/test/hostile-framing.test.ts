import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pino from 'pino';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { goodFile } from '../../core/test/bad-files.ts';
import { startRegistry } from '../src/registry/start.ts';
import { filesIn, smugglingVectors, watchMemory } from './hostile.ts';
import { multipart, multipartType, type RealServer, startRealServer } from './real-server.ts';
import { appFolder } from './test-server.ts';

/* Requests that two programs in a row may read differently, and bodies in crumbs: refused, the connection closed, nothing done. */

/** All that is answered until the other side closes; `closed` is false where it does not. */
function exchange(
  port: number,
  bytes: Uint8Array,
  limitMs = 8000,
): Promise<{ text: string; closed: boolean }> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    let text = '';
    let closed = false;
    const timer = setTimeout(() => socket.destroy(), limitMs);
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1');
    });
    socket.on('end', () => {
      closed = true;
    });
    socket.on('error', () => {
      closed = true;
    });
    socket.on('close', () => {
      clearTimeout(timer);
      resolve({ text, closed });
    });
    socket.write(bytes);
  });
}

/** What a process has used of the processor; 0 where that is not told (only Linux tells). */
function cpuSeconds(pid: number): number {
  if (process.platform !== 'linux') return 0;
  // The name, in brackets, may have spaces.
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1].split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

const statusesOf = (text: string) =>
  [...text.matchAll(/HTTP\/1\.[01] (\d{3})/g)].map(([, status]) => Number(status));

describe('the server', () => {
  let server: RealServer;
  let volume: Uint8Array;
  beforeAll(async () => {
    server = await startRealServer([appFolder('threshold')]);
    volume = await goodFile('nii.gz');
    // The child is there, and the work of the first prediction done.
    const first = await fetch(`${server.url}/threshold/any`, {
      method: 'POST',
      headers: { 'content-type': 'application/octet-stream' },
      body: Buffer.from(volume),
    });
    expect(first.status).toBe(200);
    await first.arrayBuffer();
    // Its job is deleted then.
    await vi.waitFor(async () => expect(await server.files()).toEqual([]), 20_000);
  });
  afterAll(() => server?.[Symbol.asyncDispose]());

  const jobs = async () =>
    [
      ...(await (await fetch(`${server.url}/metrics`)).text()).matchAll(
        /^tomaat_jobs\{state="(\w+)"\} (\d+)/gm,
      ),
    ]
      .map(([, state, count]) => `${state} ${count}`)
      .join();

  describe.each(['/threshold/any', '/api/services/threshold/predictions', '/predict'])('%s', (path) => {
    it.each(smugglingVectors)('refuses $what', async ({ bytes, statuses }) => {
      const before = await jobs();
      const body = multipart([['volume', volume, 'a.nii.gz']]);
      const { text, closed } = await exchange(server.port, bytes(path, Buffer.from(body), multipartType));
      const found = statusesOf(text).filter((status) => status !== 100);
      // v1 says no with status 200 and an element.
      const first = found[0] === 200 && /"label":"Error!"/.test(text) ? 400 : found[0];
      expect(statuses, text.slice(0, 300)).toContain(first);
      expect(found.length, 'what was smuggled is not answered').toBe(1);
      expect(closed, 'the connection is closed').toBe(true);
      expect(text.slice(text.indexOf('\r\n\r\n'))).toMatch(/Send|send/);
      await expect.poll(() => server.files(), { timeout: 20_000, interval: 20 }).toEqual([]);
      expect(await jobs()).toBe(before);
    });
  });

  it('a million chunks of one byte are refused after some thousand, within bounds', async () => {
    const memory = watchMemory(server.pid);
    const head = Buffer.from(
      `POST /threshold/any HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n`,
    );
    const chunks = Buffer.from('1\r\n\x1f\r\n'.repeat(1_000_000), 'latin1');
    const before = cpuSeconds(server.pid);
    for (let round = 0; round < 3; round++) {
      const { text } = await exchange(server.port, Buffer.concat([head, chunks]), 20_000);
      expect(statusesOf(text).filter((status) => status !== 100)).toEqual([400]);
      expect(text).toContain('too many tiny chunks');
    }
    // A million objects, were they made, would take a second and 50 MB a round.
    expect(memory.growthBytes()).toBeLessThan(64e6);
    expect(cpuSeconds(server.pid) - before).toBeLessThan(2);
    await expect.poll(() => server.files(), { timeout: 20_000, interval: 20 }).toEqual([]);
  });
});

describe('the registry', () => {
  let registry: Awaited<ReturnType<typeof startRegistry>>;
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tomaat-framing-'));
    registry = await startRegistry({
      host: '127.0.0.1',
      dataFolder: folder,
      port: 0,
      logger: pino({ level: 'silent' }),
    });
  });
  afterAll(async () => {
    await registry?.close();
    await rm(folder, { recursive: true, force: true });
  });

  it.each(smugglingVectors)('refuses $what', async ({ bytes, statuses }) => {
    const before = (await filesIn(folder)).sort();
    const body = Buffer.from(JSON.stringify({ api_key: 'x', name: 'x' }));
    const port = Number(new URL(registry.url).port);
    const { text, closed } = await exchange(port, bytes('/announce', body, 'application/json'));
    const found = statusesOf(text).filter((status) => status !== 100);
    expect(statuses, text.slice(0, 300)).toContain(found[0]);
    expect(found.length, 'what was smuggled is not answered').toBe(1);
    expect(closed, 'the connection is closed').toBe(true);
    const found2 = await (await fetch(`${registry.url}/discover`)).json();
    expect(found2).toEqual([]);
    expect((await filesIn(folder)).sort()).toEqual(before);
  });
});

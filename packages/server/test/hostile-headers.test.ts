import { createHash } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { goodFile, type Kind } from '../../core/test/bad-files.ts';
import { type HeaderLie, headerLies, watchMemory } from './hostile.ts';
import {
  multipart,
  multipartType,
  type RealServer,
  rawRequest,
  sendRaw,
  startRealServer,
} from './real-server.ts';
import { onPostgres } from './support/tested-database.ts';
import { appFolder } from './test-server.ts';

/*
 * Headers whose numbers cannot be, contradict each other, or contradict the file: refused with a typed 4xx while the body
 * comes, in memory that does not depend on what they claim. A field on which nothing depends changes nothing.
 */

const limitMs = 1000;
/** With PostgreSQL, its driver's code and buffers are among what the first hundreds of requests take; the next thousand take 6 MB. */
const limitBytes = onPostgres ? 128e6 : 64e6;

let server: RealServer;
let lies: HeaderLie[];
beforeAll(async () => {
  lies = await headerLies();
  server = await startRealServer([appFolder('threshold')], { maxUploadBytes: 64 * 2 ** 20 });
  for (let i = 0; i < 60; i++) await ways[i % ways.length](await goodFile('nii'), 'a.nii');
  await vi.waitFor(async () => expect(await server.files()).toEqual([]), 20_000);
});
afterAll(() => server?.[Symbol.asyncDispose]());

interface Answer {
  status: number;
  code?: string;
  field?: string;
  message?: string;
  digest?: string;
}

async function post(path: string, type: string, body: Uint8Array): Promise<Answer> {
  const headers = { 'Content-Type': type, Prefer: 'wait=20' };
  const answer = await sendRaw(server.port, rawRequest('POST', path, headers, body));
  if (!answer) throw new Error('the connection ended without an answer');
  const digest = createHash('sha256').update(answer.body).digest('hex');
  if (answer.headers['content-type'] !== 'application/problem+json') return { status: answer.status, digest };
  const { code, field, detail } = JSON.parse(answer.body.toString());
  return { status: answer.status, code, field, message: detail };
}

const ways: ((file: Uint8Array, name: string) => Promise<Answer>)[] = [
  (file) => post('/threshold/any', 'application/octet-stream', file),
  (file, name) => post('/threshold/any', multipartType, multipart([['volume', file, name]])),
];

it('more than 300 false headers are refused precisely, each by two ways', async () => {
  expect(lies.length).toBeGreaterThan(300);
  const right = new Map<Kind, string | undefined>();
  for (const kind of ['nii', 'nifti2', 'mha raw', 'nrrd raw'] as const)
    right.set(kind, (await ways[0](await goodFile(kind), 'a.nii')).digest);
  const memory = watchMemory(server.pid);
  const faults: string[] = [];
  const times: number[] = [];
  for (const { kind, what, file, harmless } of lies) {
    const name = `a.${kind === 'nifti2' ? 'nii' : kind.split(' ')[0]}`;
    for (const way of ways) {
      let answer: Answer;
      let tookMs: number;
      for (let attempt = 0; ; attempt++) {
        const start = performance.now();
        answer = await way(file, name);
        tookMs = performance.now() - start;
        // Again where the machine was busy with something else.
        if (tookMs < limitMs || attempt === 2) break;
      }
      times.push(tookMs);
      const told = `${kind} with ${what}: ${JSON.stringify(answer)}, ${Math.round(tookMs)} ms`;
      const isRefused =
        answer.status >= 400 &&
        answer.status < 500 &&
        answer.code !== undefined &&
        answer.field === 'volume' &&
        /send|write|convert|crop|split|choose|unpack/i.test(answer.message ?? '');
      if (harmless ? answer.status !== 200 || answer.digest !== right.get(kind) : !isRefused)
        faults.push(told);
      else if (tookMs > limitMs) faults.push(told);
    }
  }
  expect(faults).toEqual([]);
  expect(memory.growthBytes(), 'growth of the memory').toBeLessThan(limitBytes);
  await expect.poll(() => server.files(), { timeout: 20_000, interval: 20 }).toEqual([]);
  times.sort((a, b) => a - b);
  console.log(
    `${lies.length} lies × ${ways.length} ways: median ${times[times.length >> 1].toFixed(1)} ms, ` +
      `99 % ${times[Math.floor(times.length * 0.99)].toFixed(0)} ms, memory +${Math.round(memory.growthBytes() / 1e6)} MB`,
  );
});

describe('a Content-Length that lies', () => {
  const lengths: [length: string, statuses: number[]][] = [
    ['10000000000000', [413]],
    ['9007199254740993', [400, 413]],
    ['18446744073709551616', [400, 413]],
    ['-1', [400]],
    ['NaN', [400]],
    ['1e9', [400]],
    ['0x7fffffff', [400]],
    ['', [400]],
    ['67174401', [413]],
  ];
  const paths = ['/threshold/any', '/api/services/threshold/predictions', '/api/services/threshold/fit'];
  it.each(lengths)('of "%s" is refused before a byte of the body', async (length, statuses) => {
    const memory = watchMemory(server.pid);
    for (const path of paths) {
      const head = rawRequest('POST', path, {
        'Content-Type': 'application/octet-stream',
        'Content-Length': length,
      });
      const start = performance.now();
      const answer = await sendRaw(server.port, head);
      expect(performance.now() - start).toBeLessThan(limitMs);
      expect(statuses, `${path}: ${answer?.status}`).toContain(answer?.status);
      expect(JSON.parse(answer!.body.toString()).field).toBe('Content-Length');
    }
    expect(memory.growthBytes(), 'growth of the memory').toBeLessThan(8e6);
    expect(await server.files()).toEqual([]);
  });
});

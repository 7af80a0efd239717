import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { sourceFromBytes } from '@tomaat/core';
import { describe, expect, it } from 'vitest';
import { findChromium } from '../../../test/programs.ts';
import { dicomFile, sliceElements } from '../../core/test/dicom-files.ts';
import { bundleSdk, rolldown } from '../test/sdk-bundle.ts';
import { openDicomInput } from './dicom-input.ts';

const browserFile = findChromium();

const key = Uint8Array.from({ length: 32 }, (_, i) => 255 - i);
/** 18 MB, more than goes in one request. */
const files = Array.from({ length: 36 }, (_, i) =>
  dicomFile(
    sliceElements({
      orientation: [1, 0, 0, 0, 1, 0],
      position: [0, 0, 2 * i],
      instance: i + 1,
      rows: 512,
      columns: 512,
      values: Array.from({ length: 512 * 512 }, (_, at) => (at * 7 + i) % 4096),
      more: { 1048592: ['PN', 'Canary^Name'] },
    }),
  ),
);

async function bytesInNode(): Promise<Buffer> {
  const sources = files.map((bytes, i) => sourceFromBytes(`IM${i}`, bytes));
  const prepared = await (await openDicomInput(sources)).choose().prepare({ deidentify: { key } });
  const parts: Uint8Array[] = [];
  for await (const part of prepared.stream() as AsyncIterable<Uint8Array>) parts.push(part);
  return Buffer.concat(parts);
}

const problemType = { 'content-type': 'application/problem+json' };
const conflict = JSON.stringify({
  type: 'x',
  title: 'x',
  status: 409,
  detail: 'The offset is another one.',
  code: 'CONFLICT',
  retryable: false,
});

/** A page, the files, and as much of a server as an upload needs. The first part breaks off after 4 MB. */
function startServer() {
  let stored = Buffer.alloc(0);
  let total = 0;
  let patches = 0;
  const named: unknown[] = [];
  const server = createServer(async (request, response) => {
    const { method, url = '/', headers, socket } = request;
    const answer = (status: number, more: Record<string, string | number> = {}, body = '') =>
      response.writeHead(status, { 'content-type': 'application/json', ...more }).end(body);
    if (url === '/') return answer(200, { 'content-type': 'text/html' }, '<!doctype html><title>t</title>');
    if (url.startsWith('/files/')) {
      response.writeHead(200);
      return response.end(files[Number(url.slice(7))]);
    }
    if (method === 'GET' || url.startsWith('/api/blobs')) return answer(404);
    if (method === 'HEAD') return answer(200, { 'upload-offset': stored.length, 'upload-length': total });
    if (method === 'PATCH') {
      const parts: Buffer[] = [];
      let length = 0;
      const isFirst = patches++ === 0;
      for await (const chunk of request) {
        parts.push(chunk as Buffer);
        length += (chunk as Buffer).length;
        if (isFirst && length > 4_000_000) break;
      }
      // A browser may repeat a request by itself when its connection broke.
      if (Number(headers['upload-offset']) !== stored.length) return answer(409, problemType, conflict);
      stored = Buffer.concat([stored, ...parts]);
      if (isFirst) return socket.destroy();
      return answer(204, { 'upload-offset': stored.length });
    }
    const body: Buffer[] = [];
    for await (const chunk of request) body.push(chunk as Buffer);
    if (url === '/api/uploads') {
      total = Number(headers['upload-length']);
      return answer(201, { location: '/api/uploads/u1' });
    }
    named.push(JSON.parse(Buffer.concat(body).toString()));
    const job = {
      id: 'j',
      service: 's',
      state: 'queued',
      attempt: 1,
      createdTime: '',
      parameters: {},
      outputs: [],
    };
    return answer(202, {}, JSON.stringify(job));
  });
  return { server, named, stored: () => stored, patches: () => patches };
}

describe('openDicomInput() in a browser', () => {
  it.skipIf(!rolldown || !browserFile)(
    'sends the same bytes as Node, in parts that resume after a break',
    async () => {
      const code = await bundleSdk();
      const { server, named, stored, patches } = startServer();
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      const { chromium } = await import('playwright-core');
      const browser = await chromium.launch({ executablePath: browserFile, args: ['--no-sandbox'] });
      try {
        const page = await browser.newPage();
        await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
        await page.addScriptTag({ content: code });
        const seen = await page.evaluate(
          async ({ count, key }) => {
            const sdk = (globalThis as unknown as { tomaat: typeof import('./index.ts') }).tomaat;
            const blobs = await Promise.all(
              Array.from({ length: count }, async (_, i) => (await fetch(`/files/${i}`)).blob()),
            );
            const chosen = (await sdk.openDicomInput(blobs)).choose();
            const prepared = await chosen.prepare({ deidentify: { key: Uint8Array.from(key) } });
            const progress: number[] = [];
            const job = await sdk.createClient({ baseUrl: '/' }).predict('s', {
              volumes: { volume: prepared },
              resumableAboveBytes: 1_000_000,
              onUpload: ({ sentBytes, totalBytes }) => progress.push(sentBytes / totalBytes),
            });
            return { state: job.state, progress, sizeBytes: prepared.sizeBytes };
          },
          { count: files.length, key: [...key] },
        );
        const expected = await bytesInNode();
        expect(seen).toMatchObject({ state: 'queued', sizeBytes: expected.length });
        expect(seen.progress.at(-1)).toBe(1);
        expect(stored().equals(expected)).toBe(true);
        expect(stored().includes('Canary')).toBe(false);
        expect(patches()).toBeGreaterThan(2);
        expect(named).toEqual([expect.objectContaining({ inputs: { volume: [{ upload: 'u1' }] } })]);
      } finally {
        await browser.close();
        server.closeAllConnections();
        server.close();
      }
    },
    60_000,
  );
});

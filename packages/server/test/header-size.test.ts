import { rm } from 'node:fs/promises';
import { request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { buffer } from 'node:stream/consumers';
import { verifyReceipt } from '@tomaat/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findNginx } from '../../../test/programs.ts';
import { plainNginx } from '../../../test/proxies.ts';
import { inferBright, writeApp } from './app-fixture.ts';
import { leftFiles } from './left-files.ts';
import { encode, phantom } from './phantom.ts';
import { announce, announcementOf, createCleanup, openTestRegistry } from './registry-helpers.ts';
import { startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

/* The header of an answer, as nginx with its defaults takes it: 4096 bytes in all, or the answer is a 502. */

const origin = 'https://viewer.hospital.example';
/** As long as a name may be here, in letters of three and of four bytes; the last one is cut in two if halves are counted. */
const names = ['scan', `${'肺'.repeat(79)}𠀀`, '𠀀'.repeat(100)];

interface Answer {
  status: number;
  headerBytes: number;
  headers: Record<string, string | string[] | undefined>;
  bytes: number;
}

describe('an answer of the promise', () => {
  const cleanup = createCleanup();
  let folder: string;
  let server: TestServer;
  let registryUrl: string;
  let scan: Buffer;

  beforeAll(async () => {
    folder = await temporaryFolder();
    const sliders = (count: number) =>
      Object.fromEntries(
        Array.from({ length: count }, (_, i) => [
          `parameter_${i}`,
          { type: 'slider', minimum: 0, maximum: 1, default: 0.123456 },
        ]),
      );
    const apps = [];
    for (const count of [0, 30, 40, 50, 120])
      apps.push(
        await writeApp(folder, `app-${count}`, {
          infer: inferBright,
          inputs: { volume: { type: 'volume' }, ...sliders(count) },
        }),
      );
    server = await startTestServer([], { appFolders: apps, allowOrigin: [origin] });
    const registry = await openTestRegistry(cleanup, { hosts: { allowOrigin: [origin] } });
    await registry.app.listen({ host: '127.0.0.1', port: 0 });
    registryUrl = `http://127.0.0.1:${(registry.app.server.address() as AddressInfo).port}`;
    const key = await registry.key();
    for (const { serviceId, task } of server.announcements()) {
      const put = await announce(
        registry,
        key,
        'a',
        announcementOf(server.url, { serviceId, task, anatomy: 'any' }),
      );
      expect(put.statusCode, put.payload).toBe(200);
    }
    scan = Buffer.from(await encode(phantom(), 'nii.gz'));
  });
  afterAll(async () => {
    await cleanup.run();
    await server?.[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });

  async function ask(base: string, app: string, name: string, more: Record<string, string>): Promise<Answer> {
    const body = new FormData();
    body.set('volume', new Blob([Uint8Array.from(scan)]), `${name}.nii.gz`);
    const form = new Response(body);
    const payload = Buffer.from(await form.arrayBuffer());
    return new Promise((resolve, reject) => {
      const sent = request(
        `${base}/${app}/any`,
        {
          method: 'POST',
          agent: false,
          headers: {
            'content-type': form.headers.get('content-type')!,
            'content-length': payload.length,
            ...more,
          },
        },
        async (answer) => {
          const lines = answer.rawHeaders.reduce(
            (sum, text) => sum + Buffer.byteLength(text, 'latin1') + 2,
            0,
          );
          const first = `HTTP/1.1 ${answer.statusCode} ${answer.statusMessage}\r\n\r\n`.length;
          const { length: bytes } = await buffer(answer);
          resolve({ status: answer.statusCode!, headerBytes: lines + first, headers: answer.headers, bytes });
        },
      );
      sent.on('error', reject);
      sent.end(payload);
    });
  }

  const receiptOf = (answer: Answer) => ({
    inHeader: answer.headers['tomaat-receipt'] as string | undefined,
    link: /^<([^>]+)>; rel="tomaat-receipt"/.exec(String(answer.headers.link ?? ''))?.[1],
  });

  for (const through of ['the server', 'a registry'] as const) {
    it(`stays below 4 kB from ${through}, with the receipt available`, async () => {
      const base = through === 'the server' ? server.url : registryUrl;
      let linked = 0;
      for (const app of ['app-0', 'app-30', 'app-40', 'app-50', 'app-120']) {
        for (const name of names) {
          for (const headers of [{}, { origin }]) {
            const answer = await ask(base, app, name, headers as Record<string, string>);
            const what = `${app} ${name} ${JSON.stringify(headers)}`;
            expect(answer.status, what).toBe(200);
            expect(answer.headerBytes, what).toBeLessThan(4096);
            expect(answer.headers['content-disposition'], what).toContain("filename*=UTF-8''");
            const { inHeader, link } = receiptOf(answer);
            expect([inHeader, link].filter(Boolean), what).toHaveLength(1);
            if (link === undefined) continue;
            linked++;
            const fetched = await fetch(new URL(link, `${base}/${app}/any`));
            expect(fetched.status, `${what} ${link}`).toBe(200);
            const receipt = await verifyReceipt(await fetched.text());
            expect(receipt.receipt.service.id).toBe(app);
            const jobUrl = new URL(link.replace('/receipt', ''), server.url);
            // The results themselves go once the answer is written.
            await expect.poll(async () => (await (await fetch(jobUrl)).json()).outputs).toEqual([]);
          }
        }
      }
      expect(linked).toBeGreaterThan(5);
    });
  }

  it('leaves no file when its receipt remains', async () => {
    await expect.poll(() => leftFiles(server.dataFolder, ['blobs'])).toEqual([]);
  });

  it.skipIf(!findNginx())(
    'passes an nginx with its defaults, and so do long metadata of an upload',
    async () => {
      await using nginx = await plainNginx(server.url);
      await using before = await plainNginx(registryUrl);
      for (const proxy of [nginx, before]) {
        for (const app of ['app-30', 'app-40', 'app-50'])
          for (const name of names) {
            const answer = await ask(proxy.url, app, name, { host: 'localhost' });
            expect(answer.status, `${app} ${name} ${await proxy.log()}`).toBe(200);
          }
      }
      const tus = { 'tus-resumable': '1.0.0', origin };
      const begin = (bytes: number) =>
        fetch(`${server.url}/api/uploads`, {
          method: 'POST',
          headers: {
            ...tus,
            'upload-length': '10',
            'upload-metadata': `filename ${Buffer.alloc(bytes, 'x').toString('base64')}`,
          },
        });
      // A name of 255 letters with a path, of four bytes each, has room.
      const begun = await begin(255 * 4 * 1.5);
      expect(begun.status).toBe(201);
      const head = await fetch(new URL(begun.headers.get('location')!, nginx.url), {
        method: 'HEAD',
        headers: tus,
      });
      expect(head.status).toBe(200);
      const refused = await begin(3000);
      expect(refused.status).toBe(400);
      expect((await refused.json()).field).toBe('Upload-Metadata');
    },
  );
});

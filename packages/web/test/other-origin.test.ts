import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type * as Client from '@tomaat/client';
import pino from 'pino';
import type { Browser, Page } from 'playwright-core';
import { build } from 'vite';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findChromium } from '../../../test/programs.ts';
import { startAnnouncer } from '../../server/src/registry/announcer.ts';
import { startRegistry } from '../../server/src/registry/start.ts';
import { encode, phantom } from '../../server/test/phantom.ts';
import { launchBrowser, openSite, type Site, slowApp } from './support/site.ts';

/*
 * What a viewer or a lab's page on another origin, which the operator allowed, does with a server: with our client, with
 * tus-js-client, and by itself.
 */

const tusFile = createRequire(import.meta.url).resolve('tus-js-client/dist/tus.min.js');
const clientFile = fileURLToPath(new URL('../../client/src/index.ts', import.meta.url));

/** What the page has: the two libraries, and a scan. */
declare global {
  var tomaat: typeof Client;
  var tus: typeof import('tus-js-client');
  var scan: File;
}

describe.skipIf(findChromium() === undefined)('a page of another origin', () => {
  let folder: string;
  let browser: Browser;
  let elsewhere: Server;
  let site: Site;
  let strict: Site;
  let page: Page;
  let origin: string;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tomaat-origin-'));
    await build({
      configFile: false,
      logLevel: 'error',
      resolve: { conditions: ['tomaat-source', 'browser', 'import', 'default'] },
      build: {
        outDir: folder,
        lib: { entry: clientFile, formats: ['es'], fileName: 'client' },
        minify: false,
      },
    });
    const files: Record<string, Buffer> = {
      '/client.js': await readFile(join(folder, 'client.js')),
      '/tus.js': await readFile(tusFile),
      '/scan.nii.gz': Buffer.from(await encode(phantom(), 'nii.gz')),
    };
    elsewhere = createServer((request, response) => {
      const file = files[request.url ?? ''];
      response.setHeader('content-type', file ? 'text/javascript' : 'text/html');
      response.end(
        file ??
          '<!doctype html><title>viewer</title><script src="/tus.js"></script><script type="module">import * as client from "/client.js"; globalThis.tomaat = client;</script>',
      );
    });
    await new Promise<void>((resolve) => elsewhere.listen(0, '127.0.0.1', resolve));
    origin = `http://127.0.0.1:${(elsewhere.address() as AddressInfo).port}`;
    [browser, site, strict] = await Promise.all([
      launchBrowser(),
      openSite(folder, { appFolders: [slowApp], allowOrigin: [origin] }),
      openSite(folder, { appFolders: [slowApp] }),
    ]);
    page = await browser.newPage();
    await page.goto(origin);
    await page.waitForFunction(() => globalThis.tomaat !== undefined);
    await page.evaluate(async () => {
      globalThis.scan = new File([await (await fetch('/scan.nii.gz')).blob()], 'Schädel Müller.nii.gz');
    });
  }, 120_000);
  afterAll(async () => {
    await browser?.close();
    await site?.stop();
    await strict?.stop();
    elsewhere?.close();
    await rm(folder, { recursive: true, force: true });
  });

  it('receives every change of a job as it happens', async () => {
    const told = await page.evaluate(async (baseUrl) => {
      const client = tomaat.createClient({ baseUrl });
      const { id } = await client.predict('slow', { volumes: { volume: scan }, values: { seconds: 2 } });
      const events = new EventSource(`${baseUrl}/api/jobs/${id}/events`);
      const jobs: { state: string; fraction?: number }[] = [];
      await new Promise<void>((resolve, reject) => {
        events.onerror = () => reject(new Error('no events'));
        events.addEventListener('job', ({ data }) => {
          jobs.push(JSON.parse(data));
          if (jobs.at(-1)!.state === 'succeeded') resolve();
        });
      });
      events.close();
      const settledMs = Date.parse((await client.job(id)).settledTime!);
      return { states: jobs.map(({ state }) => state), late: Date.now() - settledMs };
    }, site.address);
    expect(told.states.at(-1)).toBe('succeeded');
    expect(told.states.filter((state) => state === 'running').length).toBeGreaterThan(2);
  });

  it('follows a job by one event stream, and reads its file names', async () => {
    const asked: string[] = [];
    const note = (request: { url(): string }) => asked.push(new URL(request.url()).pathname);
    page.on('request', note);
    const made = await page.evaluate(async (baseUrl) => {
      const client = tomaat.createClient({ baseUrl });
      const job = await client.predict('slow', { volumes: { volume: scan }, values: { seconds: 1 } });
      const settled = await client.wait(job.id);
      const output = await client.output(job.id, 'mask', { format: 'nrrd' });
      return {
        id: job.id,
        state: settled.state,
        name: output.fileName,
        expected: settled.outputs[0].fileName,
      };
    }, site.address);
    page.off('request', note);
    expect(made.state).toBe('succeeded');
    expect(made.name).toBe(made.expected.replace('.nii.gz', '.nrrd'));
    expect(asked.filter((path) => path === `/api/jobs/${made.id}/events`)).toHaveLength(1);
    // Nothing was polled.
    expect(asked).not.toContain(`/api/jobs/${made.id}`);
  });

  it('resumes an upload with tus-js-client', async () => {
    const ended = await page.evaluate(async (baseUrl) => {
      const upload = (file: File, more: object) =>
        new Promise<string>((resolve) => {
          const one: import('tus-js-client').Upload = new tus.Upload(file, {
            endpoint: `${baseUrl}/api/uploads`,
            chunkSize: 50_000,
            retryDelays: null,
            storeFingerprintForResuming: false,
            metadata: { filename: file.name },
            onError: (error) => resolve(String(error)),
            onSuccess: () => resolve(`success ${one.url}`),
            onChunkComplete: (_size, sentBytes) => {
              if (!('cut' in more) || sentBytes < 100_000) return;
              void one.abort();
              resolve(one.url!);
            },
            ...more,
          });
          one.start();
        });
      const file = new File([new Uint8Array(300_000)], 'ä.nii.gz');
      const url = await upload(file, { cut: true });
      const resumed = await upload(file, { uploadUrl: url });
      const head = await fetch(url, { method: 'HEAD', headers: { 'tus-resumable': '1.0.0' } });
      return { resumed, url, headers: [...head.headers.keys()] };
    }, site.address);
    expect(ended.resumed).toBe(`success ${ended.url}`);
    expect(ended.headers).toEqual(
      expect.arrayContaining([
        ...[
          'upload-length',
          'upload-offset',
          'upload-expires',
          'upload-metadata',
          'tus-resumable',
          'tomaat-digest',
        ],
      ]),
    );
  });

  it('uploads where a network lets no PATCH through', async () => {
    const ended = await page.evaluate(
      (baseUrl) =>
        new Promise<string>((resolve) => {
          new tus.Upload(new File([new Uint8Array(120_000)], 'a.nii'), {
            endpoint: `${baseUrl}/api/uploads`,
            overridePatchMethod: true,
            retryDelays: null,
            chunkSize: 50_000,
            onError: (error) => resolve(String(error)),
            onSuccess: () => resolve('success'),
          }).start();
        }),
      site.address,
    );
    expect(ended).toBe('success');
  });

  it('reads receipt and name from a promise’s answer, through registries too', async () => {
    const registry = await startRegistry({
      host: '127.0.0.1',
      port: 0,
      dataFolder: join(folder, 'registry'),
      logger: false,
      allowOrigin: [origin],
    });
    const announcer = startAnnouncer({
      registryUrl: registry.url,
      apiKey: await registry.apiKey('test'),
      services: () => site.announcements(),
      signer: site.signer,
      logger: pino({ level: 'silent' }),
    });
    try {
      await announcer.firstRound;
      for (const [baseUrl, server] of [
        [site.address, null],
        [registry.url, site.address],
      ] as const) {
        const answer = await page.evaluate(async (baseUrl) => {
          const body = new FormData();
          body.set('volume', scan);
          body.set('seconds', '0');
          const response = await fetch(`${baseUrl}/segmentation/brain`, { method: 'POST', body });
          const header = (name: string) => response.headers.get(name);
          return {
            status: response.status,
            receipt: header('tomaat-receipt') ?? header('link'),
            service: header('tomaat-service'),
            server: header('tomaat-server'),
            name: header('content-disposition'),
          };
        }, baseUrl);
        expect(answer).toMatchObject({ status: 200, service: 'slow', server });
        expect(answer.receipt).toMatch(/^eyJ|tomaat-receipt/);
        expect(decodeURIComponent(answer.name!)).toContain('Schädel_Müller_mask.nii.gz');
      }
    } finally {
      await announcer.close();
      await registry.close();
    }
  });

  it('reads what is wrong with a request, whatever refuses it', async () => {
    const answers = await page.evaluate(async (baseUrl) => {
      const said = async (path: string, init?: RequestInit) => {
        const answer = await fetch(baseUrl + path, init);
        return [answer.status, (await answer.json()).code];
      };
      return [
        await said('/api/jobs/none'),
        await said('/api/jobs/none/events'),
        await said('/nothing'),
        await said('/%zz'),
        await said(`/api/jobs/${'x'.repeat(300)}`),
        await said('/segmentation/brain', {
          method: 'POST',
          body: 'x',
          headers: { 'content-encoding': 'br' },
        }),
        await said('/api/services', { method: 'PUT', body: 'x' }),
      ];
    }, site.address);
    expect(answers).toEqual([
      [404, 'NOT_FOUND'],
      [404, 'NOT_FOUND'],
      [404, 'NOT_FOUND'],
      [400, 'BAD_REQUEST'],
      [400, 'BAD_REQUEST'],
      [415, 'UNSUPPORTED_MEDIA'],
      [405, 'METHOD_NOT_ALLOWED'],
    ]);
  });

  it('learns of --allow-origin where it is not admitted', async () => {
    for (const [baseUrl, isUpload] of [
      [strict.address, false],
      [strict.address, true],
    ] as const) {
      const message = await page.evaluate(
        async ({ baseUrl, isUpload }) => {
          const client = tomaat.createClient({ baseUrl, retries: 0 });
          const asked = isUpload ? client.predict('slow', { volumes: { volume: scan } }) : client.services();
          return asked.then(
            () => 'let in',
            (error: Error) => error.message,
          );
        },
        { baseUrl, isUpload },
      );
      expect(message).toContain(`--allow-origin ${origin}`);
      expect(message).toContain('cannot be reached, or');
    }
  });
});

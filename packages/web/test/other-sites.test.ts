import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pino from 'pino';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findChromium } from '../../../test/programs.ts';
import { createRegistryApp, type RegistryApp } from '../../server/src/registry/start.ts';
import { type RunningServer, startServer } from '../../server/src/server.ts';
import { boxedApp, launchBrowser } from './support/site.ts';

/*
 * What a page of another site can do to a server on this machine that is open to everyone here, in a real browser: by a
 * name of its own that leads to 127.0.0.1 (DNS rebinding), and by the server's address (CSRF).
 */

const browserMissing = findChromium() === undefined;

describe.skipIf(browserMissing)('pages of other sites', () => {
  let folder: string;
  let server: RunningServer;
  let registry: RegistryApp;
  let registryPort: number;
  let elsewhere: Server;
  let browser: Browser;
  let port: number;
  let job: string;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tomaat-sites-'));
    await writeFile(join(folder, 'index.html'), '<!doctype html><title>TOMAAT</title><p id="ours">ours</p>');
    const logger = pino({ level: 'silent' });
    const apps = { appFolders: [boxedApp('threshold')], workers: 0, page: folder };
    server = await startServer({ ...apps, port: 0, tlsPort: 0, dataFolder: join(folder, 'data'), logger });
    port = Number(new URL(server.url!).port);
    registry = await createRegistryApp({ dataFolder: join(folder, 'data'), logger, page: folder });
    await registry.app.listen({ host: '127.0.0.1', port: 0 });
    registryPort = (registry.app.server.address() as AddressInfo).port;
    job = await startJob();
    // The other site's own server, with a page that tries what it is asked to.
    elsewhere = createServer((_request, response) =>
      response.setHeader('content-type', 'text/html').end('<!doctype html><title>elsewhere</title>'),
    );
    await new Promise<void>((resolve) => elsewhere.listen(0, '127.0.0.1', resolve));
    browser = await launchBrowser(['--host-resolver-rules=MAP *.example 127.0.0.1']);
  }, 120_000);
  afterAll(async () => {
    await browser?.close();
    elsewhere?.close();
    await registry?.close();
    await server?.close();
    await rm(folder, { recursive: true, force: true });
  });

  /** A job of this machine's user, which the other page would like to see or to delete. */
  async function startJob(): Promise<string> {
    const { encode, phantom } = await import('../../server/test/phantom.ts');
    const answer = await server.app.inject({
      method: 'POST',
      url: '/api/services/threshold/predictions',
      headers: { 'content-type': 'application/octet-stream' },
      payload: Buffer.from(await encode(phantom(), 'nii.gz')),
    });
    expect(answer.statusCode).toBe(202);
    return answer.json().id;
  }

  async function openAt(address: string, fulfil = false): Promise<Page> {
    const page = await browser.newPage();
    // The page was loaded before its name began to lead elsewhere.
    if (fulfil)
      await page.route(address, (route) =>
        route.fulfill({ contentType: 'text/html', body: '<!doctype html><title>elsewhere</title>' }),
      );
    await page.goto(address);
    return page;
  }

  /** Everything that a page can send to `base`; gives what it could read. */
  const attempts = (page: Page, base: string, id: string) =>
    page.evaluate(
      async ({ base, id }) => {
        const read: string[] = [];
        const paths = ['/api/services', `/api/jobs/${id}`, '/interface', '/metrics', '/health/live', '/'];
        const look = async (what: string, request: () => Promise<Response>) => {
          try {
            const answer = await request();
            if (answer.ok) read.push(`${what}: ${answer.status} ${(await answer.text()).slice(0, 60)}`);
          } catch {}
        };
        for (const path of paths) await look(`GET ${path}`, () => fetch(base + path));
        const types = ['text/plain', 'application/x-www-form-urlencoded', 'application/octet-stream'];
        for (const type of types) {
          const headers = { 'content-type': type };
          for (const mode of ['cors', 'no-cors'] as const) {
            for (const path of ['/predict', '/threshold/any', '/api/services/threshold/predictions'])
              await look(`POST ${path}`, () =>
                fetch(base + path, { method: 'POST', mode, headers, body: 'volume=x' }),
              );
          }
        }
        for (const method of ['DELETE', 'PUT', 'PATCH'])
          await look(method, () => fetch(`${base}/api/jobs/${id}`, { method }));
        await look('upload', () =>
          fetch(`${base}/api/uploads`, {
            method: 'POST',
            headers: { 'tus-resumable': '1.0.0', 'upload-length': '9' },
          }),
        );
        const events = new EventSource(`${base}/api/jobs/${id}/events`);
        await new Promise<void>((resolve) => {
          events.onerror = () => resolve();
          events.addEventListener('job', () => {
            read.push('events');
            resolve();
          });
        });
        events.close();
        navigator.sendBeacon(`${base}/threshold/any`, 'x');
        return read;
      },
      { base, id },
    );

  const state = async () => ({
    job: (await server.app.inject(`/api/jobs/${job}`)).json().state,
    jobs: /tomaat_jobs\{state="queued"\} (\d+)/.exec((await server.app.inject('/metrics')).payload)?.[1],
  });

  it('read and change nothing by their own name for this machine', async () => {
    for (const [name, at] of [
      ['server', port],
      ['registry', registryPort],
    ] as const) {
      const base = `http://rebound.example:${at}`;
      // As it is, the name is not answered to.
      const direct = await browser.newPage();
      expect((await direct.goto(`${base}/`))?.status(), name).toBe(421);
      await direct.close();
      const page = await openAt(`${base}/trap`, true);
      expect(await attempts(page, base, job)).toEqual([]);
      await page.close();
    }
    expect(await state()).toEqual({ job: 'queued', jobs: '1' });
  }, 60_000);

  it('read and change nothing by its address, through forms, frames or scripts', async () => {
    const page = await openAt(`http://other.example:${(elsewhere.address() as AddressInfo).port}/`);
    for (const host of ['127.0.0.1', 'localhost']) {
      const base = `http://${host}:${port}`;
      expect(await attempts(page, base, job)).toEqual([]);
      const sent: (number | undefined)[] = [];
      for (const path of ['/predict', '/threshold/any', '/api/services/threshold/predictions']) {
        const form = await openAt(page.url());
        const answer = form.waitForResponse((response) => response.url() === base + path);
        await form.evaluate((action) => {
          const element = document.createElement('form');
          Object.assign(element, { action, method: 'post', enctype: 'multipart/form-data' });
          document.body.append(element);
          element.submit();
        }, base + path);
        sent.push((await answer).status());
        await form.close();
      }
      expect(sent).toEqual([403, 403, 403]);
      const embedded = page.waitForResponse((response) => response.url() === `${base}/`);
      await page.evaluate((src) => {
        const frame = document.createElement('iframe');
        frame.src = `${src}/`;
        document.body.append(frame);
      }, base);
      expect((await embedded).status()).toBe(403);
    }
    expect(await state()).toEqual({ job: 'queued', jobs: '1' });
  }, 60_000);

  it('may lead to the page by a link: the registry’s does, to its servers', async () => {
    const page = await openAt(`http://127.0.0.1:${registryPort}/`);
    for (const target of [
      `${server.url}/services/threshold`,
      `${server.url}/`,
      `${server.url}/jobs/${job}`,
    ]) {
      const arrived = page.waitForResponse((response) => response.url() === target);
      await page.evaluate((href) => {
        const link = document.createElement('a');
        link.href = href;
        document.body.append(link);
        link.click();
      }, target);
      expect((await arrived).status()).toBe(200);
      await page.locator('#ours').waitFor();
      // Once there, the page is at home.
      expect(await page.evaluate(async () => (await fetch('/api/services')).status)).toBe(200);
      await page.goto(`http://127.0.0.1:${registryPort}/`);
    }
    const api = page.waitForResponse((response) => response.url() === `${server.url}/api/services`);
    await page.evaluate((href) => {
      location.href = href;
    }, `${server.url}/api/services`);
    expect((await api).status()).toBe(403);
  }, 60_000);

  it('tried what works from the page itself', async () => {
    const page = await openAt(`${server.url}/`);
    const own = await startJob();
    const read = (await attempts(page, server.url!, own)).join('\n');
    for (const what of [
      'GET /api/services: 200',
      `GET /api/jobs/${own}: 200`,
      'GET /metrics: 200',
      'POST /predict: 200',
      'DELETE: 200',
      'upload: 201',
      'events',
    ])
      expect(read).toContain(what);
    const upload = await page.evaluate(async () => {
      const tus = { 'tus-resumable': '1.0.0' };
      const begun = await fetch('/api/uploads', {
        method: 'POST',
        headers: { ...tus, 'upload-length': '9' },
      });
      const at = begun.headers.get('location')!;
      const headers = { ...tus, 'upload-offset': '0', 'content-type': 'application/offset+octet-stream' };
      const statuses = [begun.status];
      for (const request of [
        { method: 'PATCH', headers, body: '123' },
        { method: 'HEAD' },
        { method: 'DELETE' },
      ])
        statuses.push((await fetch(at, { headers: tus, ...request })).status);
      return statuses;
    });
    expect(upload).toEqual([201, 204, 200, 204]);
  }, 120_000);
});

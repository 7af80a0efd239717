import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { createKey, listKeys, revokeKey } from '../src/access/keys.ts';
import { type AnnouncedService, type AnnouncerOptions, startAnnouncer } from '../src/registry/announcer.ts';
import { startRegistry } from '../src/registry/start.ts';
import { openCertificate } from '../src/tls.ts';
import {
  announcementOf,
  createCleanup,
  identityOf,
  openFolder,
  openServer,
  openTestRegistry,
  signerOf,
} from './registry-helpers.ts';
import { databaseOf } from './support/tested-database.ts';

const { thumbprint } = await identityOf('server');
const cleanup = createCleanup();
afterEach(async () => {
  await cleanup.run();
  now = Date.now;
});
/** The clock of the server that announces: that of the registry that listens. */
let now: () => number = Date.now;

const serviceOf = (id: string): AnnouncedService => ({
  id: `${thumbprint}.${id}`,
  ...announcementOf('http://127.0.0.1:9000', { serviceId: id, name: id }),
});

function createLog() {
  const lines: string[] = [];
  const add = (level: string) => (facts: unknown, text?: string) => {
    lines.push(`${level} ${text ?? String(facts)}`);
  };
  return { lines, logger: { info: add('info'), warn: add('warn'), error: add('error') } };
}

function start(
  options: Pick<AnnouncerOptions, 'registryUrl' | 'apiKey' | 'services'> & Partial<AnnouncerOptions>,
) {
  const log = createLog();
  const signer = signerOf('server', () => now());
  const announcer = startAnnouncer({ renewMs: 50, retryMs: 10, logger: log.logger, signer, ...options });
  cleanup.add(() => announcer.close());
  return { announcer, lines: log.lines };
}

async function listen(registry: Awaited<ReturnType<typeof openTestRegistry>>, port = 0) {
  // Before the port is open: the announcer may be there at once.
  now = () => registry.clock.ms;
  await registry.app.listen({ host: '127.0.0.1', port });
  return `http://127.0.0.1:${(registry.app.server.address() as AddressInfo).port}`;
}

const idsOf = async (registry: Awaited<ReturnType<typeof openTestRegistry>>, live?: boolean) =>
  (await registry.entries.search({ live })).map(({ serviceId }) => serviceId);

describe('startAnnouncer()', () => {
  it('announces at once, renews, follows the list of services, withdraws on close()', async () => {
    const registry = await openTestRegistry(cleanup);
    const registryUrl = await listen(registry);
    let services = [serviceOf('a'), serviceOf('b')];
    const { announcer, lines } = start({
      registryUrl,
      apiKey: await registry.key(),
      services: () => services,
    });
    await announcer.firstRound;
    expect(await idsOf(registry)).toEqual(['a', 'b']);
    expect(announcer.state()).toEqual({ face: 'api', announced: 2, error: undefined });
    registry.clock.ms += 80_000;
    await expect
      .poll(async () => (await registry.entries.search({})).map((entry) => Date.parse(entry.announcedTime)))
      .toEqual([registry.clock.ms, registry.clock.ms]);
    services = [serviceOf('b'), serviceOf('c')];
    announcer.refresh();
    await expect.poll(() => idsOf(registry)).toEqual(['b', 'c']);
    await announcer.close();
    expect(await idsOf(registry)).toEqual([]);
    expect(lines).toEqual([]);
  });

  it('survives a registry outage, reports it once, and is listed again', async () => {
    const dataFolder = await openFolder(cleanup);
    const first = await openTestRegistry(cleanup, { dataFolder });
    const registryUrl = await listen(first);
    const apiKey = await first.key();
    const { announcer, lines } = start({ registryUrl, apiKey, services: () => [serviceOf('a')] });
    await announcer.firstRound;
    const [before] = await first.entries.search({});
    await first.close();
    // As long as it closes, it may say so itself.
    const away = () => lines.filter((line) => /cannot be reached \((ECONNREFUSED|ECONNRESET)\)/.test(line));
    await expect.poll(away).toEqual([expect.stringMatching(/^warn /)]);
    expect(announcer.state()).toMatchObject({ announced: 0, error: expect.any(String) });
    const second = await openTestRegistry(cleanup, { dataFolder });
    second.clock.ms += 3_600_000;
    expect(await idsOf(second, true)).toEqual([]);
    await listen(second, Number(new URL(registryUrl).port));
    await expect.poll(() => idsOf(second, true), { timeout: 20_000 }).toEqual(['a']);
    expect((await second.entries.search({}))[0].sid).toBe(before.sid);
    await expect.poll(() => lines.at(-1)).toMatch(/^info .*again/);
    expect(away()).toHaveLength(1);
    expect(lines.length).toBeLessThanOrEqual(3);
  });

  it('starts before the registry does', async () => {
    const registry = await openTestRegistry(cleanup);
    const { url, server } = await openServer(cleanup, () => {});
    server.close();
    await once(server, 'close');
    const { announcer } = start({
      registryUrl: url,
      apiKey: await registry.key(),
      services: () => [serviceOf('a')],
    });
    await announcer.firstRound;
    expect(announcer.state().face).toBeUndefined();
    await listen(registry, Number(new URL(url).port));
    await expect.poll(() => idsOf(registry), { timeout: 20_000 }).toEqual(['a']);
  });

  it('says why it is refused, and announces the others all the same', async () => {
    const registry = await openTestRegistry(cleanup);
    const registryUrl = await listen(registry);
    const wrong = { ...serviceOf('wrong'), anatomy: 'Not A Slug' };
    const one = start({ registryUrl, apiKey: await registry.key(), services: () => [wrong, serviceOf('a')] });
    await one.announcer.firstRound;
    expect(await idsOf(registry)).toEqual(['a']);
    expect(one.announcer.state().error).toContain('anatomy');
    const revoked = await createKey(registry.entries.db, { label: 'r', scopes: ['announce'] });
    await revokeKey(registry.entries.db, revoked.id);
    const two = start({ registryUrl, apiKey: revoked.key, services: () => [serviceOf('b')] });
    await two.announcer.firstRound;
    expect(two.lines).toEqual([expect.stringMatching(/^warn .*revoked/)]);
    expect(two.lines[0]).not.toContain(revoked.key);
  });

  it('announces by v1 where the registry knows nothing else', async () => {
    const bodies: { body: unknown; headers: IncomingMessage['headers'] }[] = [];
    const { url } = await openServer(cleanup, async (request, response) => {
      let text = '';
      for await (const chunk of request) text += chunk;
      if (request.url !== '/announce')
        return response.writeHead(404, { 'content-type': 'text/html' }).end('<html>');
      bodies.push({ body: JSON.parse(text), headers: request.headers });
      response.end('{"status": 0, "error": ""}');
    });
    const { announcer } = start({ registryUrl: url, apiKey: 'old key', services: () => [serviceOf('a')] });
    await announcer.firstRound;
    expect(announcer.state()).toMatchObject({ face: 'v1', announced: 1 });
    const { name, modality, anatomy, task, description, predictionUrl, interfaceUrl } = serviceOf('a');
    expect(bodies.map(({ body }) => body)).toEqual([
      {
        api_key: 'old key',
        prediction_url: predictionUrl,
        interface_url: interfaceUrl,
        name,
        modality,
        anatomy,
        task,
        description,
      },
    ]);
    expect(bodies[0].headers.authorization).toBeUndefined();
  });

  it('close() ends within 3 s though the registry hangs', async () => {
    const server = createServer(() => {}).listen(0, '127.0.0.1');
    await once(server, 'listening');
    cleanup.add(() => {
      server.closeAllConnections();
      server.close();
    });
    const registryUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const { announcer } = start({ registryUrl, apiKey: 'x', services: () => [serviceOf('a')] });
    await once(server, 'request');
    const begin = performance.now();
    await announcer.close();
    expect(performance.now() - begin).toBeLessThan(3000);
  });

  it('refuses an invalid address', () => {
    for (const registryUrl of ['', 'registry', 'ftp://registry/', 'http://user:secret@registry/']) {
      expect(() => start({ registryUrl, apiKey: 'x', services: () => [] })).toThrow(/address of a registry/);
    }
  });
});

describe('startRegistry()', () => {
  it('serves HTTP and the page on loopback, by default avoiding taken ports', async () => {
    const page = await openFolder(cleanup);
    await writeFile(join(page, 'index.html'), '<title>TOMAAT</title>');
    const first = await startRegistry({
      host: '127.0.0.1',
      port: 0,
      dataFolder: await openFolder(cleanup),
      logger: false,
      page,
    });
    cleanup.add(() => first.close());
    expect(first.url).toBe(`http://127.0.0.1:${first.port}`);
    expect(await (await fetch(first.url)).text()).toBe('<title>TOMAAT</title>');
    expect((await fetch(`${first.url}/nothing`)).status).toBe(404);
    expect(await (await fetch(`${first.url}/discover`)).json()).toEqual([]);
    expect(await (await fetch(`${first.url}/health/ready`)).json()).toEqual({ status: 'ready', services: 0 });
    expect(await (await fetch(`${first.url}/health/live`)).json()).toEqual({ status: 'live' });
    const metrics = await fetch(`${first.url}/metrics`);
    expect(metrics.headers.get('content-type')).toContain('text/plain');
    expect(await metrics.text()).toContain('tomaat_registry_entries{face="api",live="true"} 0');
    const { paths } = (await (await fetch(`${first.url}/api/openapi.json`)).json()) as {
      paths: Record<string, unknown>;
    };
    expect(Object.keys(paths)).toContain('/api/announcements/{id}');
    expect(Object.keys(paths)).not.toContain('/predict');
    const taken = {
      host: '127.0.0.1',
      port: first.port,
      dataFolder: await openFolder(cleanup),
      logger: false as const,
    };
    const second = await startRegistry(taken);
    cleanup.add(() => second.close());
    expect(second.port).toBeGreaterThan(first.port);
    await expect(
      startRegistry({ ...taken, dataFolder: await openFolder(cleanup), strictPort: true }),
    ).rejects.toMatchObject({ code: 'CONFLICT' });
  });

  it('serves only HTTPS elsewhere, with a certificate that announcers can trust', async () => {
    const dataFolder = await openFolder(cleanup);
    const registry = await startRegistry({
      host: '0.0.0.0',
      port: 0,
      dataFolder,
      logger: false,
      login: true,
      tlsSelfMade: true,
    });
    cleanup.add(() => registry.close());
    expect(registry.url).toMatch(/^https:/);
    const apiKey = await registry.apiKey('this machine');
    const { cert } = await openCertificate(dataFolder);
    const registryUrl = `https://127.0.0.1:${registry.port}`;
    const { announcer } = start({ registryUrl, apiKey, services: () => [serviceOf('a')], trust: cert });
    await announcer.firstRound;
    expect(announcer.state()).toEqual({ face: 'api', announced: 1, error: undefined });
    const without = start({ registryUrl, apiKey, services: () => [serviceOf('a')] });
    await without.announcer.firstRound;
    expect(without.announcer.state().error).toContain('certificate is not trusted');
    const plain = await fetch(`http://127.0.0.1:${registry.port}/discover`);
    expect(plain.status).toBe(400);
    expect(await plain.text()).toContain('https://');
  });

  it('an announcer takes the pinned certificate under any name, and no other', async () => {
    const [dataFolder, otherFolder] = [await openFolder(cleanup), await openFolder(cleanup)];
    const registry = await startRegistry({
      host: '0.0.0.0',
      port: 0,
      dataFolder,
      logger: false,
      login: true,
      tlsSelfMade: true,
    });
    cleanup.add(() => registry.close());
    const { cert } = await openCertificate(dataFolder);
    const { cert: other } = await openCertificate(otherFolder);
    const apiKey = await registry.apiKey('this machine');
    expect(registry.localUrl).toBe(`https://127.0.0.1:${registry.port}`);
    // 127.0.0.9 is not among the names of the certificate.
    const registryUrl = registry.localUrl.replace('127.0.0.1', '127.0.0.9');
    const about = { registryUrl, audience: registry.url, apiKey, services: () => [serviceOf('a')] };
    const pinned = start({ ...about, pinned: cert });
    await pinned.announcer.firstRound;
    expect(pinned.announcer.state()).toMatchObject({ announced: 1, error: undefined });
    for (const wrong of [{ pinned: other }, { trust: cert }]) {
      const { announcer } = start({ ...about, ...wrong });
      await announcer.firstRound;
      expect(announcer.state().error).toContain('--ca');
    }
  });

  it('apiKey() keeps the key’s id over a restart and ends the earlier secret', async () => {
    const dataFolder = await openFolder(cleanup);
    const database = await databaseOf(dataFolder);
    const options = { host: '127.0.0.1', port: 0, dataFolder, database, logger: false as const };
    const first = await startRegistry(options);
    const old = await first.apiKey('this machine');
    const other = await first.apiKey('another use');
    expect(other.split('_')[1]).not.toBe(old.split('_')[1]);
    await first.close();
    const second = await startRegistry(options);
    cleanup.add(() => second.close());
    const fresh = await second.apiKey('this machine');
    expect(fresh).not.toBe(old);
    expect(fresh.split('_')[1]).toBe(old.split('_')[1]);
    const registry = await openTestRegistry(cleanup, { dataFolder });
    expect(await listKeys(registry.entries.db)).toHaveLength(2);
  });
});

describe('startAnnouncer() at a registry of 2018', () => {
  /** As the original: one entry for each key, a later one replaces it, and all are accepted. */
  async function openOldRegistry(perKey: boolean) {
    const entries = new Map<string, Record<string, unknown>>();
    const asked: string[] = [];
    const { url } = await openServer(cleanup, async (request, response) => {
      asked.push(`${request.method} ${request.url}`);
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk as Buffer);
      if (request.url === '/announce') {
        const entry = JSON.parse(Buffer.concat(chunks).toString());
        entries.set(perKey ? entry.api_key : entry.prediction_url, { ...entry, api_key: '' });
        return response.end(JSON.stringify({ status: 0, error: '' }));
      }
      if (request.url === '/discover') return response.end(JSON.stringify([...entries.values()]));
      return response.writeHead(404, { 'content-type': 'text/html' }).end('No Such Resource');
    });
    return { url, asked };
  }

  it('warns once that it keeps one service per key', async () => {
    const { url, asked } = await openOldRegistry(true);
    const services = ['one', 'two', 'three'].map(serviceOf);
    const { announcer, lines } = start({ registryUrl: url, apiKey: 'k', services: () => services });
    await announcer.firstRound;
    expect(announcer.state()).toMatchObject({ face: 'v1', announced: 1 });
    announcer.refresh();
    await expect.poll(() => asked.filter((line) => line === 'GET /discover').length).toBe(2);
    const warnings = lines.filter((line) => line.startsWith('warn'));
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toMatch(
      /keeps one service per key: it accepted 3 and lists 1\. Give each service its own/,
    );
  });

  it('says nothing where all are listed, or there is one', async () => {
    for (const [perKey, ids] of [
      [false, ['one', 'two']],
      [true, ['one']],
    ] as const) {
      const { url } = await openOldRegistry(perKey);
      const services = ids.map(serviceOf);
      const { announcer, lines } = start({ registryUrl: url, apiKey: 'k', services: () => services });
      await announcer.firstRound;
      expect(announcer.state()).toMatchObject({ face: 'v1', announced: ids.length });
      expect(lines.filter((line) => line.startsWith('warn'))).toEqual([]);
    }
  });
});

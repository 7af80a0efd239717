import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { exposedHeaders } from '@tomaat/client';
import type { InjectOptions } from 'fastify';
import { afterEach, describe, expect, it } from 'vitest';
import { encode, phantom } from './phantom.ts';
import { announce, announcementOf, createCleanup, openTestRegistry } from './registry-helpers.ts';
import { startTestServer } from './test-server.ts';

const cleanup = createCleanup();
afterEach(() => cleanup.run());

/** What says nothing to a page, or what it may read anyway. */
const undeclared = new RegExp(
  `^(${[
    ...['connection', 'keep-alive', 'date', 'transfer-encoding', 'vary', 'set-cookie', 'access-control-.*'],
    ...['content-type', 'content-length', 'cache-control', 'last-modified'],
    ...[
      'content-security-policy',
      'cross-origin-.*',
      'x-content-type-options',
      'referrer-policy',
      'x-accel-buffering',
    ],
  ].join('|')})$`,
);
const isUnknown = (name: string) => !undeclared.test(name) && !exposedHeaders.includes(name);

describe('exposedHeaders', () => {
  it('holds every header that the sources set', async () => {
    const folder = join(import.meta.dirname, '../src');
    const files = (await readdir(folder, { recursive: true })).filter((name) => name.endsWith('.ts'));
    const set = new Set<string>();
    for (const file of files) {
      const text = await readFile(join(folder, file), 'utf8');
      for (const [, name] of text.matchAll(/\.header\(\s*'([\w-]+)'/g)) set.add(name.toLowerCase());
    }
    expect(set.size).toBeGreaterThan(15);
    expect([...set].filter(isUnknown)).toEqual([]);
  });

  it('holds every header of real answers, through a registry too', async () => {
    await using server = await startTestServer(['threshold', 'ct-lung'], { maxUploadBytes: 1_000_000 });
    const registry = await openTestRegistry(cleanup);
    const change = { task: 'threshold', anatomy: 'any', serviceId: 'threshold' };
    await announce(registry, await registry.key(), 'a', announcementOf(server.url, change));
    const found = new Set<string>();
    const ask = async (options: InjectOptions, app = server.app) => {
      const answer = await app.inject(options);
      for (const name of Object.keys(answer.headers)) found.add(name);
      return answer;
    };
    const payload = Buffer.from(await encode(phantom(), 'nii.gz'));
    const raw = { 'content-type': 'application/octet-stream' };
    const tus = { 'tus-resumable': '1.0.0' };

    const created = await ask({
      method: 'POST',
      url: '/api/services/threshold/predictions',
      headers: { ...raw, prefer: 'wait=60' },
      payload,
    });
    const job = created.json();
    expect(job.state).toBe('succeeded');
    for (const { url } of job.outputs) await ask({ url, headers: { range: 'bytes=0-9' } });
    for (const url of [
      '/',
      '/api/services',
      '/api/services/ct-lung/sample',
      '/api/services/ct-lung/picture',
      `/api/jobs/${job.id}`,
      `/api/jobs/${job.id}/receipt`,
      '/health/ready',
      '/metrics',
      '/interface',
      '/auth/me',
      '/nothing',
      '/api/openapi.json',
    ])
      await ask({ url });
    await ask({ method: 'PUT', url: '/api/services' });
    await ask({ method: 'OPTIONS', url: '/api/uploads' });
    await ask({ method: 'POST', url: '/api/uploads' });
    const begun = await ask({
      method: 'POST',
      url: '/api/uploads',
      headers: { ...tus, 'upload-length': String(payload.length), 'upload-metadata': 'filename YS5uaWk=' },
    });
    const url = String(begun.headers.location);
    const patch = { ...tus, 'upload-offset': '0', 'content-type': 'application/offset+octet-stream' };
    expect((await ask({ method: 'PATCH', url, headers: patch, payload })).statusCode).toBe(204);
    expect((await ask({ method: 'HEAD', url, headers: tus })).headers).toHaveProperty('upload-metadata');
    await ask({ method: 'DELETE', url, headers: tus });
    for (const app of [server.app, registry.app]) {
      const answer = await ask({ method: 'POST', url: '/threshold/any', headers: raw, payload }, app);
      expect(answer.statusCode, answer.body).toBe(200);
    }
    expect(found.size).toBeGreaterThan(20);
    expect([...found].filter(isUnknown)).toEqual([]);
  });
});

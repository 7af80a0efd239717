import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createGatewayClient } from '@tomaat/client';
import { TomaatError } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findKey } from '../src/access/keys.ts';
import { sha256Of } from './audit-lines.ts';
import './check-answers.ts';
import { makeKey } from './access-fixture.ts';
import { createBrowserLike } from './browser-like.ts';
import { tomaat } from './cli-fixture.ts';
import { hookSecret, startTestGateway, type TestGateway, testConfig } from './gateway-fixture.ts';

/* The HTTP of a gateway: the hook of Orthanc, the API of the page, health, metrics, keys, and what its audit log says. */

let root: string;
let open: TestGateway;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'tomaat-gateway-server-'));
  open = await startTestGateway({ dataFolder: join(root, 'open') });
});
afterAll(async () => {
  await open?.close();
  await rm(root, { recursive: true, force: true });
});

const linesOf = (dataFolder: string): Record<string, unknown>[] =>
  readFileSync(join(dataFolder, 'gateway', 'audit.jsonl'), 'utf8')
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line));

describe('POST /hooks/orthanc/{source}', () => {
  const told = { study: '1.2.840.1', series: '1.2.840.1.7', modality: 'CT', instances: 20 };
  const tell = (
    payload: unknown,
    { source = 'door', secret = hookSecret as string | null, type = 'application/json' } = {},
  ) =>
    open.app.inject({
      method: 'POST',
      url: `/hooks/orthanc/${source}`,
      headers: { 'content-type': type, ...(secret && { authorization: `Bearer ${secret}` }) },
      payload: typeof payload === 'string' ? payload : JSON.stringify(payload),
      remoteAddress: '192.0.2.1',
    });

  it('hands a stable series on, without the texts that are empty', async () => {
    const answer = await tell({
      ...told,
      bodyPart: '',
      description: '  Thorax 1.0 ',
      studyDescription: '',
      callingAet: 'CT01',
    });
    expect({ status: answer.statusCode, body: answer.json() }).toEqual({
      status: 200,
      body: { taken: true },
    });
    expect(open.gateway.seen.at(-1)).toEqual({
      source: 'door',
      study: '1.2.840.1',
      series: '1.2.840.1.7',
      modality: 'CT',
      description: 'Thorax 1.0',
      callingAet: 'CT01',
      instances: 20,
      isStable: true,
    });
    // Orthanc says of a script's request what it likes.
    expect((await tell(told, { type: 'text/plain' })).statusCode).toBe(200);
    expect((await tell({ study: '1.2', series: '1.2.3' })).statusCode).toBe(200);
    expect(open.gateway.seen.at(-1)).toEqual({
      source: 'door',
      study: '1.2',
      series: '1.2.3',
      instances: 0,
      isStable: true,
    });
  });

  it.each([
    ['no UID', { ...told, series: 'abc' }, 'series'],
    ['a way out of a folder', { ...told, study: '..' }, 'study'],
    ['dots without numbers', { ...told, study: '1..2' }, 'study'],
    ['a UID of 65 characters', { ...told, study: `1.${'2'.repeat(63)}` }, 'study'],
    ['no study', { series: '1.2' }, 'study'],
    ['a number as text', { ...told, modality: 7 }, 'modality'],
    ['fewer than no instances', { ...told, instances: -1 }, 'instances'],
    ['a text of 1025 characters', { ...told, description: 'x'.repeat(1025) }, 'description'],
    ['a name, which nobody asked for', { ...told, patientName: 'DOE^JANE' }, undefined],
    ['a list', [told], undefined],
    ['no JSON', 'study=1.2', undefined],
  ])('refuses %s and names the field', async (_what, body, field) => {
    const before = open.gateway.seen.length;
    const answer = await tell(body);
    expect(answer.json()).toMatchObject({ status: 400, code: 'BAD_REQUEST' });
    expect(answer.json().field).toBe(field);
    expect(answer.json().detail).toContain('Send {"study", "series"}');
    expect(answer.body).not.toContain('DOE');
    expect(open.gateway.seen).toHaveLength(before);
  });

  it('refuses more than 16 KiB', async () => {
    const answer = await tell({ ...told, description: 'x'.repeat(17_000) });
    expect(answer.json()).toMatchObject({ status: 413, code: 'UPLOAD_TOO_LARGE' });
  });

  it('refuses who lacks the secret of this source, whatever the source', async () => {
    const before = open.gateway.seen.length;
    for (const secret of [null, 'wrong', hookSecret.slice(0, -1), `${hookSecret} `.repeat(2), 'undefined'])
      for (const source of ['door', 'archive', 'nowhere', '..%2Fdoor', '__proto__']) {
        const answer = await tell(told, { source, secret });
        expect({ secret, source, status: answer.statusCode }).toEqual({ secret, source, status: 401 });
        expect(answer.headers['www-authenticate']).toBe('Bearer realm="TOMAAT gateway"');
        expect(answer.json().detail).toMatch(/secret of the hook is missing or wrong\. Send the header/);
      }
    const { headers } = await makeKey(open.dataFolder, ['admin']);
    const keyed = await open.app.inject({
      method: 'POST',
      url: '/hooks/orthanc/door',
      headers,
      payload: '{}',
    });
    expect(keyed.statusCode).toBe(401);
    expect(open.gateway.seen).toHaveLength(before);
  });

  it('tells who has a secret which address is right', async () => {
    for (const source of ['nowhere', 'archive']) {
      const answer = await tell(told, { source });
      expect(answer.json()).toMatchObject({ status: 404, code: 'NOT_FOUND', field: 'source' });
      expect(answer.json().detail).toContain('Send to /hooks/orthanc/door.');
    }
  });

  it('limits wrong secrets of an address, and lets the right one through', async () => {
    const at = (remoteAddress: string, secret: string) =>
      open.app.inject({
        method: 'POST',
        url: '/hooks/orthanc/door',
        headers: { authorization: `Bearer ${secret}` },
        payload: JSON.stringify(told),
        remoteAddress,
      });
    const statuses: number[] = [];
    for (let i = 0; i < 100; i++) statuses.push((await at('192.0.2.9', `wrong ${i}`)).statusCode);
    expect(statuses.slice(0, 60).every((status) => status === 401)).toBe(true);
    expect(statuses.at(-1)).toBe(429);
    expect((await at('192.0.2.9', hookSecret)).statusCode).toBe(200);
    expect((await at('192.0.2.10', 'wrong')).statusCode).toBe(401);
  });

  it('has Orthanc try again when the row cannot be stored', async () => {
    open.gateway.fault = new TomaatError('DISK_FULL', 'The disk is full. Free some space and try again');
    try {
      const answer = await tell(told);
      expect(answer.json()).toMatchObject({ code: 'DISK_FULL', retryable: true });
      expect(answer.statusCode).toBeGreaterThanOrEqual(500);
    } finally {
      open.gateway.fault = undefined;
    }
  });
});

describe('the API of the page', () => {
  it('lists rows newest first, by pages, state and rule', async () => {
    await using own = await startTestGateway();
    const client = createGatewayClient({ baseUrl: own.url });
    for (let i = 0; i < 7; i++)
      own.gateway.add({
        seenAt: 1_000_000 * i,
        rule: i % 2 ? 'brains' : 'lungs',
        state: i < 3 ? 'failed' : 'waiting',
        reason: i < 3 ? { code: 'BAD_VOLUME', message: 'A slice is missing.' } : undefined,
        endedAt: i < 3 ? 1_000_000 * i + 5 : undefined,
      });
    const ids = async (options: Parameters<typeof client.series>[0]) => {
      const { series, next } = await client.series(options);
      return [series.map(({ id }) => id.replace('row000', '')).join(''), next];
    };
    expect(await ids({})).toEqual(['7654321', undefined]);
    expect(await ids({ limit: 3 })).toEqual(['765', 'row0005']);
    expect(await ids({ limit: 3, before: 'row0005' })).toEqual(['432', 'row0002']);
    expect(await ids({ limit: 3, before: 'row0002' })).toEqual(['1', undefined]);
    expect(await ids({ limit: 7 })).toEqual(['7654321', undefined]);
    expect(await ids({ state: 'failed' })).toEqual(['321', undefined]);
    expect(await ids({ state: 'waiting', rule: 'brains' })).toEqual(['64', undefined]);
    const row = await client.find('row0003');
    expect(row).toMatchObject({
      state: 'failed',
      reason: { code: 'BAD_VOLUME', message: 'A slice is missing.' },
      seenTime: new Date(2_000_000).toISOString(),
      endedTime: new Date(2_000_005).toISOString(),
    });
    expect(row.dueTime).toBeUndefined();
    // What only the gateway needs is not told.
    expect(await (await fetch(`${own.url}/api/gateway/series`)).text()).not.toContain('is not told');
    for (const query of ['state=lost', 'limit=0', 'limit=201', 'limit=x']) {
      const answer = await fetch(`${own.url}/api/gateway/series?${query}`);
      const [field] = query.split('=');
      expect(await answer.json()).toMatchObject({ status: 400, code: 'BAD_REQUEST', field });
    }
    await expect(client.find('nothing')).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });

  it('sums up what is there, and notices a change at once', async () => {
    await using own = await startTestGateway();
    const client = createGatewayClient({ baseUrl: own.url });
    const { id } = own.gateway.add({ seenAt: 5_000, state: 'failed', endedAt: 6_000 });
    own.gateway.add({ seenAt: 9_000, rule: 'brains' });
    own.gateway.health.sources[1] = {
      name: 'archive',
      fault: { code: 'UNREACHABLE', message: '127.0.0.1:8080 does not answer.', since: 7_000 },
    };
    const { rules, counts, sources, oldestWaitingTime } = await client.summary();
    expect(rules.map((rule) => rule.id)).toEqual(['lungs', 'brains']);
    expect(counts).toEqual([
      { rule: 'lungs', state: 'failed', count: 1 },
      { rule: 'brains', state: 'waiting', count: 1 },
    ]);
    expect(sources[0].fault).toBeUndefined();
    expect(sources[1]).toEqual({
      name: 'archive',
      fault: {
        code: 'UNREACHABLE',
        message: '127.0.0.1:8080 does not answer.',
        sinceTime: new Date(7_000).toISOString(),
      },
    });
    expect(oldestWaitingTime).toBe(new Date(9_000).toISOString());
    expect((await client.retry(id)).state).toBe('queued');
    expect((await client.summary()).counts).toContainEqual({ rule: 'lungs', state: 'queued', count: 1 });
    expect((await client.drop(id)).state).toBe('dropped');
    await expect(client.drop(id)).rejects.toMatchObject({ code: 'CONFLICT' });
  });
});

describe('health and metrics', () => {
  it('is ready while a source is away, and not while the database is', async () => {
    await using own = await startTestGateway();
    own.gateway.health.sources[0] = {
      name: 'door',
      fault: { code: 'UNREACHABLE', message: 'It does not answer.', since: 7_000 },
    };
    expect((await own.app.inject('/health/live')).json()).toEqual({ status: 'live' });
    const ready = await own.app.inject('/health/ready');
    expect(ready.statusCode).toBe(200);
    expect(ready.json()).toEqual({ status: 'ready', away: { sources: 1, destinations: 0 } });
    own.gateway.fault = new TomaatError('DISK_FULL', 'The disk with /secret/place is full');
    const isReady = async () => (await own.app.inject('/health/ready')).statusCode;
    await expect.poll(isReady).toBe(503);
    const answer = await own.app.inject('/health/ready');
    expect(answer.headers['retry-after']).toBe('5');
    // Anyone may ask: no path of this machine.
    expect(answer.json()).toEqual({
      status: 'not ready',
      reason: 'the database cannot be written (DISK_FULL)',
    });
    expect((await own.app.inject('/api/gateway/summary')).json().databaseFault.code).toBe('DISK_FULL');
    expect((await own.app.inject('/metrics')).statusCode).toBe(200);
    own.gateway.fault = undefined;
    await expect.poll(isReady).toBe(200);
  });

  it('measures by names of the file of rules, without a UID', async () => {
    await using own = await startTestGateway();
    own.gateway.add({ study: '1.2.840.99', series: '1.2.840.99.1', seenAt: 7_000, description: 'Thorax' });
    own.gateway.health.sources[1] = {
      name: 'archive',
      lastOkAt: 3_000,
      fault: { code: 'UNREACHABLE', message: 'It does not answer.', since: 7_000 },
    };
    const { meter } = own.gateway.tools!;
    meter.stepEnded('lungs', 'fetch', 2);
    meter.stepFailed('lungs', 'predict', 'BUSY');
    const text = (await own.app.inject('/metrics')).body;
    for (const line of [
      'tomaat_gateway_series{rule="lungs",state="waiting"} 1',
      'tomaat_gateway_series{rule="brains",state="failed"} 0',
      'tomaat_gateway_oldest_waiting_timestamp_seconds 7',
      'tomaat_gateway_source_up{source="door"} 1',
      'tomaat_gateway_source_up{source="archive"} 0',
      'tomaat_gateway_source_last_contact_timestamp_seconds{source="archive"} 3',
      'tomaat_gateway_destination_up{destination="pacs"} 1',
      'tomaat_gateway_step_seconds_count{rule="lungs",step="fetch"} 1',
      'tomaat_gateway_step_faults_total{rule="lungs",step="predict",code="BUSY"} 1',
    ])
      expect(text).toContain(line);
    expect(text).not.toMatch(/1\.2\.840|Thorax/);
  });
});

describe('keys', () => {
  it('made before the gateway work in it, and revoked ones do not', async () => {
    const dataFolder = join(root, 'keys');
    const early = await makeKey(dataFolder, ['admin']);
    const revoked = await makeKey(dataFolder, ['admin'], { revoked: true });
    expect(existsSync(join(dataFolder, 'gateway.db'))).toBe(false);
    await using own = await startTestGateway({ dataFolder, login: true });
    const db = own.gateway.tools!.database.db;
    expect((await findKey(db, early.key))?.id).toBe(early.id);
    const status = async ({ headers }: { headers: Record<string, string> }) =>
      (await own.app.inject({ url: '/api/gateway/summary', headers })).statusCode;
    expect(await status(early)).toBe(200);
    expect(await status(revoked)).toBe(401);

    const made = await tomaat([
      'keys',
      'create',
      '--label',
      'ward 3',
      '--scope',
      'admin',
      '--json',
      '--data',
      dataFolder,
    ]);
    const { key, id } = JSON.parse(made.stdout);
    const headers = { authorization: `Bearer ${key}` };
    expect(await status({ headers })).toBe(200);
    const gone = await tomaat(['keys', 'revoke', id, '--data', dataFolder]);
    expect(gone.code).toBe(0);
    expect(await status({ headers })).toBe(401);
    // The gateway's log has them too.
    await expect
      .poll(() =>
        linesOf(dataFolder)
          .filter((line) => line.keyId === id)
          .map((line) => line.event),
      )
      .toEqual(['key.created', 'key.revoked']);
  });

  it('with the scope admin open a session, others do not', async () => {
    await using own = await startTestGateway({ login: true });
    const browser = createBrowserLike();
    const ask = async (path: string, init?: RequestInit) =>
      (await browser.fetch(own.url + path, `${own.url}/`, init)).status;
    const logIn = (key: string) =>
      ask('/auth/session', {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ key }),
      });
    expect(await logIn((await makeKey(own.dataFolder, ['predict'])).key)).toBe(403);
    expect(await ask('/api/gateway/summary')).toBe(401);
    expect(await logIn((await makeKey(own.dataFolder, ['admin'])).key)).toBe(204);
    expect(await ask('/api/gateway/summary')).toBe(200);
  });
});

describe('the audit log of a gateway', () => {
  it('says who did what to which series, by digests', async () => {
    const dataFolder = join(root, 'audited');
    const own = await startTestGateway({ dataFolder, login: true });
    const { headers, id: keyId } = await makeKey(dataFolder, ['admin']);
    const { id } = own.gateway.add({ state: 'failed', study: '1.2.840.5', series: '1.2.840.5.1' });
    const send = (method: 'POST' | 'DELETE', url: string) => own.app.inject({ method, url, headers });
    expect((await send('POST', `/api/gateway/series/${id}/retry`)).statusCode).toBe(200);
    expect((await send('DELETE', `/api/gateway/series/${id}`)).statusCode).toBe(200);
    expect((await send('DELETE', `/api/gateway/series/${id}`)).statusCode).toBe(409);
    await own.close();
    expect(own.gateway.isClosed).toBe(true);
    const lines = linesOf(dataFolder).filter(({ event }) => event !== 'key.created');
    const about = {
      who: `key:${keyId}`,
      keyId,
      rule: 'lungs',
      source: 'door',
      study: `sha256:${sha256Of('1.2.840.5')}`,
      series: `sha256:${sha256Of('1.2.840.5.1')}`,
    };
    expect(lines).toMatchObject([
      { event: 'gateway.started', count: testConfig.rules.length },
      { event: 'series.retried', ...about },
      { event: 'series.dropped', ...about },
      { event: 'gateway.stopped' },
    ]);
    expect(JSON.stringify(lines)).not.toContain('1.2.840');
  });
});

describe('startGatewayServer()', () => {
  it('refuses a second gateway in a data folder, and lets a server in', async () => {
    await expect(startTestGateway({ dataFolder: open.dataFolder })).rejects.toMatchObject({
      code: 'CONFLICT',
      message: expect.stringContaining(`${open.dataFolder}/gateway is in use`),
    });
    const { startTestServer } = await import('./test-server.ts');
    await using server = await startTestServer(['threshold'], { workers: 0, dataFolder: open.dataFolder });
    expect((await fetch(`${server.url}/health/ready`)).status).toBe(200);
    expect((await fetch(`${open.url}/health/ready`)).status).toBe(200);
  });

  it('speaks HTTPS alone beyond this machine, and wants a login there', async () => {
    await expect(startTestGateway({ host: '0.0.0.0' })).rejects.toThrow(/login/i);
    await using own = await startTestGateway({ host: '0.0.0.0', login: true, tlsSelfMade: true });
    expect(own.localUrl).toMatch(/^https:/);
    const plain = await fetch(own.localUrl.replace('https:', 'http:')).catch(() => undefined);
    expect(plain?.ok ?? false).toBe(false);
  });
});

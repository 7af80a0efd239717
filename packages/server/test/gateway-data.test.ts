import { existsSync, lstatSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findKey, listKeys } from '../src/access/keys.ts';
import { verifyAudit } from '../src/audit/verify-audit.ts';
import { createKnownSeries } from '../src/gateway/known-series.ts';
import { createSeriesAdmin } from '../src/gateway/series-admin.ts';
import { createSeriesStore } from '../src/gateway/series-store.ts';
import type { Database } from '../src/store/database/database.ts';
import { openGatewayDatabase } from '../src/store/database/gateway-database.ts';
import type { SeriesSchema } from '../src/store/database/series-schema.ts';
import { makeKey } from './access-fixture.ts';
import { createBrowserLike } from './browser-like.ts';
import { tomaat } from './cli-fixture.ts';
import { startTestGateway } from './gateway-fixture.ts';
import { startTestServer } from './test-server.ts';

/* What the commands for a data folder do with the part of a gateway in it: backup, restore, erase, audit. */

let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'tomaat-gateway-data-'));
});
afterAll(() => rm(root, { recursive: true, force: true }));

const json = async (args: readonly string[]) => {
  const { code, stdout, stderr } = await tomaat([...args, '--json']);
  expect(stderr).toBe('');
  return { code, ...JSON.parse(stdout) };
};
/** Adds a row and a hash, as a gateway does; returns how many of both there are. */
async function withRow(dataFolder: string, act?: 'add'): Promise<number> {
  await using database = await openGatewayDatabase(dataFolder);
  const tables = database as unknown as Database<SeriesSchema>;
  const known = createKnownSeries(new Uint8Array(32), () => 1);
  const seen = { source: 'pacs', study: '1.2.840.76', series: '1.2.840.77', instances: 3 };
  const times = { nowMs: Date.now(), quietMs: 1000 };
  if (act) {
    await createSeriesStore(tables, known).see(seen, { id: 'liver', urgency: 3 }, times);
    await known.addOwn(tables.db, 'pacs', '1.2.840.78', times.nowMs);
  }
  const rows = await createSeriesAdmin(tables).list({ limit: 10 });
  const isKnown = await known.isOwn(tables.db, 'pacs', '1.2.840.78', times.nowMs);
  return rows.length + Number(isKnown);
}

describe('tomaat backup and restore', () => {
  it('bring keys, series and audit log of a running gateway to another folder', async () => {
    const [from, to, copy] = ['from', 'to', 'copy'].map((name) => join(root, name));
    await using gateway = await startTestGateway({ dataFolder: from, login: true });
    const { key, headers } = await makeKey(from, ['admin']);
    await withRow(from, 'add');
    const { id } = gateway.gateway.add({ state: 'failed' });
    await gateway.app.inject({ method: 'DELETE', url: `/api/gateway/series/${id}`, headers });
    expect((await tomaat(['backup', copy, '--data', from])).code).toBe(0);
    expect(readdirSync(join(copy, 'gateway')).sort()).toEqual(
      expect.arrayContaining(['audit.head', 'audit.jsonl']),
    );
    for (const name of ['lock.db', 'lock.pid', 'work', 'control'])
      expect(existsSync(join(copy, 'gateway', name)), name).toBe(false);
    for (const path of ['gateway.db', 'gateway/audit.jsonl'])
      expect(lstatSync(join(copy, path)).mode & 0o777, path).toBe(0o600);

    const restored = await json(['restore', copy, '--data', to]);
    expect(restored).toMatchObject({ code: 0, ok: true });
    expect(await withRow(to)).toBe(2);
    const events = (await verifyAudit(join(to, 'gateway'))).events;
    expect(events).toMatchObject({ 'gateway.started': 1, 'series.dropped': 1 });
    await using again = await startTestGateway({ dataFolder: to, login: true });
    expect((await findKey(again.gateway.tools!.database.db, key))?.label).toBe('admin');
    const lines = readFileSync(join(to, 'gateway', 'audit.jsonl'), 'utf8');
    expect(lines).toContain('"event":"backup.made"');
    await expect
      .poll(() => readFileSync(join(to, 'gateway', 'audit.jsonl'), 'utf8'))
      .toContain('"event":"backup.restored"');
    // A gateway that runs in the folder is in the way, even where no server is.
    const refused = await tomaat(['restore', copy, '--data', to, '--force']);
    expect(refused.code).toBe(2);
    expect(refused.stderr).toContain(`${to}/gateway is in use`);
  });

  it('leave series out with --no-jobs, with every byte of them', async () => {
    const [from, copy] = [join(root, 'lean'), join(root, 'lean.tar')];
    const { id } = await makeKey(from, ['admin']);
    await using _gateway = await startTestGateway({ dataFolder: from });
    await withRow(from, 'add');
    expect((await tomaat(['backup', copy, '--no-jobs', '--data', from])).code).toBe(0);
    expect(readFileSync(copy).includes('1.2.840.77')).toBe(false);
    const to = join(root, 'lean-restored');
    expect((await tomaat(['restore', copy, '--data', to])).code).toBe(0);
    expect(await withRow(to)).toBe(0);
    await using database = await openGatewayDatabase(to);
    expect((await listKeys(database.db as never)).map((key) => key.id)).toEqual([id]);
  });

  it('of a folder without a gateway leave no series of the one that was replaced', async () => {
    const [from, copy, to] = ['without', 'without-copy', 'with'].map((name) => join(root, name));
    {
      await using _server = await startTestServer(['threshold'], { dataFolder: from });
    }
    expect((await tomaat(['backup', copy, '--data', from])).code).toBe(0);
    {
      await using _gateway = await startTestGateway({ dataFolder: to });
      await withRow(to, 'add');
    }
    const restored = await tomaat(['restore', copy, '--data', to, '--force']);
    expect(restored.code, restored.stderr).toBe(0);
    await using _again = await startTestGateway({ dataFolder: to });
    expect(await withRow(to)).toBe(0);
  });
});

describe('tomaat erase', () => {
  it('ends sessions at the gateway, too, and clears the label of a revoked key', async () => {
    const dataFolder = join(root, 'erased');
    await using gateway = await startTestGateway({ dataFolder, login: true });
    const { key, id } = await makeKey(dataFolder, ['admin'], { label: 'Dr. Bianchi' });
    const browser = createBrowserLike();
    const ask = async (path: string, init?: RequestInit) =>
      (await browser.fetch(gateway.url + path, `${gateway.url}/`, init)).status;
    const body = JSON.stringify({ key });
    expect(
      await ask('/auth/session', { method: 'POST', headers: { 'content-type': 'application/json' }, body }),
    ).toBe(204);
    expect(await ask('/api/gateway/summary')).toBe(200);
    const erased = await json(['erase', '--key', id, '--revoke', '--yes', '--data', dataFolder]);
    expect(erased).toMatchObject({ code: 0, sessions: 1 });
    expect(await ask('/api/gateway/summary')).toBe(401);
    const files = readdirSync(dataFolder).filter((name) => name.startsWith('gateway.db'));
    for (const name of files)
      expect(readFileSync(join(dataFolder, name)).includes('Dr. Bianchi'), name).toBe(false);
  });
});

describe('tomaat audit', () => {
  it('verifies and rotates both logs of a folder, or one', async () => {
    const dataFolder = join(root, 'both');
    const server = await startTestServer(['threshold'], { workers: 0, dataFolder });
    const gateway = await startTestGateway({ dataFolder });
    const verify = (...more: string[]) => json(['audit', 'verify', '--data', dataFolder, ...more]);
    const whole = await verify();
    expect(whole).toMatchObject({
      code: 0,
      ok: true,
      events: { 'server.started': 1 },
      gateway: { signerChecked: true, events: { 'gateway.started': 1 } },
    });
    const own = await verify('--log', 'gateway');
    expect(own).toMatchObject({ code: 0, events: { 'gateway.started': 1 } });
    expect(own.gateway).toBeUndefined();
    expect((await verify('--log', 'server')).gateway).toBeUndefined();
    // The gateway that runs does it itself, and goes on.
    const rotated = await json(['audit', 'rotate', '--data', dataFolder]);
    expect(rotated.closed).toMatch(/\/both\/audit-\d+\.jsonl$/);
    expect(rotated.gateway.closed).toMatch(/\/both\/gateway\/audit-\d+\.jsonl$/);
    await gateway.close();
    await server.close();
    expect(await verify()).toMatchObject({
      ok: true,
      files: 2,
      gateway: { files: 2, events: { 'log.continued': 1, 'gateway.stopped': 1 } },
    });
    expect((await json(['audit', 'rotate', '--log', 'gateway', '--data', dataFolder])).closed).toMatch(
      /\/both\/gateway\/audit-/,
    );

    const said = await tomaat(['audit', 'verify', '--data', dataFolder]);
    expect(said.stdout).toMatch(/^The audit log is intact: .*[\s\S]*^The gateway’s audit log is intact: /m);
    const [file] = readdirSync(join(dataFolder, 'gateway')).filter((name) => /^audit-\d/.test(name));
    const path = join(dataFolder, 'gateway', file);
    writeFileSync(path, readFileSync(path, 'utf8').replace('gateway.started', 'gateway.stopped'));
    const broken = await tomaat(['audit', 'verify', '--data', dataFolder]);
    expect(broken.code).toBe(1);
    expect(broken.stderr).toMatch(
      /The gateway’s audit log is broken: line 1 of audit-\d+\.jsonl was changed/,
    );
    expect((await tomaat(['audit', 'verify', '--log', 'server', '--data', dataFolder])).code).toBe(0);
  });

  it('verifies the log of a folder that only a gateway has', async () => {
    const dataFolder = join(root, 'alone');
    await (await startTestGateway({ dataFolder })).close();
    expect(await json(['audit', 'verify', '--data', dataFolder])).toMatchObject({
      code: 0,
      ok: true,
      events: { 'gateway.started': 1, 'gateway.stopped': 1 },
    });
  });
});

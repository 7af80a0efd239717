import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openGatewayDatabase } from '../store/database/gateway-database.ts';
import { createKnownSeries } from './known-series.ts';
import type { SeenSeries } from './series.ts';
import { createSeriesAdmin } from './series-admin.ts';
import { createSeriesStore } from './series-store.ts';

let folder: string;
let database: Awaited<ReturnType<typeof openGatewayDatabase>>;
let store: ReturnType<typeof createSeriesStore>;
let admin: ReturnType<typeof createSeriesAdmin>;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-series-'));
  database = await openGatewayDatabase(folder);
  const known = createKnownSeries(new Uint8Array(32), () => 3);
  store = createSeriesStore(database as never, known);
  admin = createSeriesAdmin(database as never, () => 1000);
});
afterEach(async () => {
  await database.close();
  await rm(folder, { recursive: true, force: true });
});

const rule = { id: 'liver', urgency: 3 };
const seen = (more: Partial<SeenSeries> = {}): SeenSeries => ({
  source: 'pacs',
  study: '1.2',
  series: '1.2.3',
  instances: 10,
  isStable: true,
  ...more,
});
const times = { nowMs: 1000, quietMs: 60 };

describe('createSeriesStore()', () => {
  it('see() commits one row when many see the same series at once', async () => {
    const sources = ['pacs', 'second', 'pacs', 'second'];
    const found = await Promise.all(sources.map((source) => store.see(seen({ source }), rule, times)));
    expect(found.filter((change) => change !== undefined)).toHaveLength(1);
    expect(await admin.list({ limit: 9 })).toHaveLength(1);
  });

  it('an earlier attempt changes nothing once the row was claimed again', async () => {
    await store.see(seen(), rule, times);
    const first = (await store.claim(1, 1000))!;
    expect(await store.claim(1, 1000)).toBeUndefined();
    await admin.drop('1');
    await admin.retry('1');
    const second = (await store.claim(1, 1000))!;
    await expect(store.save(first, { step: 'store' }, 1000)).rejects.toMatchObject({ code: 'CANCELED' });
    await store.putBack(first, { nowMs: 1000, dueMs: 1 });
    expect(await store.finish(first, { state: 'done' }, times)).toBeUndefined();
    expect(await store.identify(first, { digest: 'x', instances: 10, nowMs: 1000 })).toBe('lost');
    expect(await store.ended([first, second])).toEqual([first]);
    expect(await admin.find('1')).toMatchObject({ state: 'running', step: 'fetch' });
    expect(await store.finish(second, { state: 'done' }, times)).toMatchObject({ state: 'done' });
  });

  it('a row during whose attempts the process ended ten times fails', async () => {
    await store.see(seen(), rule, times);
    const pauses: number[] = [];
    for (let losses = 1; losses <= 10; losses++) {
      await store.claim(1, 1000);
      await store.recover(1000, (count) => {
        pauses.push(count);
        return count;
      });
    }
    expect(pauses).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(await admin.find('1')).toMatchObject({ state: 'failed', reason: { code: 'WORKER_DIED' } });
    await admin.retry('1');
    await store.claim(1, 1000);
    await store.recover(1000, () => 0);
    expect((await admin.find('1'))?.state).toBe('queued');
  });

  it('rows are taken by urgency, then by time', async () => {
    const urgencies = [5, 0, 7, 0, 3];
    for (const [index, urgency] of urgencies.entries()) {
      await store.see(
        seen({ series: `1.2.${index}` }),
        { id: 'r', urgency },
        { ...times, nowMs: 900 - index },
      );
    }
    expect(await store.due('queued', 1000, 9)).toEqual([4, 2, 5, 1, 3]);
    expect(await store.due('queued', 1000, 2)).toEqual([4, 2]);
    expect(await store.due('queued', 896, 9)).toEqual([5]);
  });

  it('retry() refuses a row whose series is processed in a later row', async () => {
    await store.see(seen(), rule, times);
    await admin.drop('1');
    await store.see(seen({ instances: 12 }), rule, times);
    await expect(admin.retry('1')).rejects.toMatchObject({
      code: 'CONFLICT',
      message: expect.stringContaining('processed as 2'),
    });
  });

  it('list() pages from the newest, by state and rule', async () => {
    for (const series of ['1.1', '1.2', '1.3']) {
      await store.see(seen({ series }), { id: 'a', urgency: 3 }, times);
      await store.see(seen({ series }), { id: 'b', urgency: 3 }, times);
    }
    await admin.drop('3');
    const ids = async (filter: object) => (await admin.list({ limit: 2, ...filter })).map(({ id }) => id);
    expect(await ids({})).toEqual(['6', '5']);
    expect(await ids({ before: '5' })).toEqual(['4', '3']);
    expect(await ids({ rule: 'a', before: '5' })).toEqual(['3', '1']);
    expect(await ids({ state: 'queued', rule: 'a', before: '5' })).toEqual(['1']);
    expect(await ids({ before: 'x' })).toEqual([]);
    expect(await admin.counts()).toContainEqual({ rule: 'a', state: 'dropped', count: 1 });
  });
});

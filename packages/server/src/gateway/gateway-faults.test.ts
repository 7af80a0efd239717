import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import { describe, expect, it } from 'vitest';
import {
  all,
  arrive,
  becomes,
  configOf,
  one,
  openTestGateway,
  quietMs,
  rule,
  states,
  storeResult,
} from '../../test/gateway-tables.ts';
import { openGatewayDatabase } from '../store/database/gateway-database.ts';
import { createSteadyClock } from '../store/database/steady-clock.ts';
import type { SourceConfig } from './config.ts';
import { createSeriesAdmin } from './series-admin.ts';

describe('a fault', () => {
  it('that passes is tried again after growing pauses, and given up in time', async () => {
    const times: number[] = [];
    await using test = await openTestGateway({
      processSeries: async () => {
        times.push(test.nowMs());
        throw new TomaatError('UNREACHABLE', 'The service is away. Start it.');
      },
    });
    await arrive(test, 10, { isStable: true });
    await expect
      .poll(
        async () => {
          const [row] = await all(test);
          if (row.state === 'queued' && row.attempts === times.length)
            test.pass(Math.max(0, row.dueAt - test.nowMs()));
          return row.state;
        },
        { interval: 2 },
      )
      .toBe('failed');
    const pauses = times.slice(1).map((ms, index) => ms - times[index]);
    for (const [index, pause] of pauses.entries()) {
      const nominal = Math.min(60_000, 1000 * 2 ** index);
      expect(Math.abs(pause / nominal - 1)).toBeLessThan(0.21);
    }
    expect(times.at(-1)! - times[0]).toBeGreaterThanOrEqual(3_600_000);
    expect((await all(test))[0].reason).toEqual({
      code: 'UNREACHABLE',
      message: expect.stringMatching(
        /^The service is away\. Start it\. .* last of \d+ attempts in 1 hour\..*again/,
      ),
    });
  });

  it('is tried again at once where an operator says so', async () => {
    let isFull = true;
    await using test = await openTestGateway({
      processSeries: async (...given) => {
        if (isFull) throw new TomaatError('BUSY', 'The queue is full.');
        await storeResult(...given);
      },
    });
    await arrive(test, 3, { isStable: true });
    await expect.poll(async () => (await all(test))[0].attempts).toBe(1);
    isFull = false;
    // No time passes.
    await test.gateway.retry((await all(test))[0].id);
    await becomes(test, ['done']);
  });

  it('with Retry-After is not tried again before that time', async () => {
    await using test = await openTestGateway({
      processSeries: async () => {
        throw new TomaatError('BUSY', 'The queue is full.', { detail: { retryAfterSeconds: 40 } });
      },
    });
    await arrive(test, 10, { isStable: true });
    await expect.poll(async () => (await all(test))[0].attempts, { interval: 5 }).toBe(1);
    expect((await all(test))[0].dueAt - test.nowMs()).toBe(40_000);
  });

  it('ends for all series of a rule once one of them gets through', async () => {
    let isAway = true;
    await using test = await openTestGateway({
      processSeries: async (...given) => {
        if (isAway) throw new TomaatError('UNREACHABLE', 'The service is away. Start it.');
        await storeResult(...given);
      },
    });
    for (const series of ['1.2.3', '1.2.4', '1.2.5']) await arrive(test, 3, { series, isStable: true });
    await expect.poll(async () => (await all(test)).map(({ attempts }) => attempts)).toEqual([1, 1, 1]);
    isAway = false;
    const dueMs = (await all(test)).map(({ dueAt }) => dueAt);
    // The pauses are random, so that two may be the same; not all of them.
    expect(Math.max(...dueMs)).toBeGreaterThan(Math.min(...dueMs));
    test.pass(Math.min(...dueMs) - test.nowMs());
    // No more time passes: the others do not wait for the end of their pauses.
    await becomes(test, ['done', 'done', 'done']);
  });

  it('of the source ends for its series once it answers a search', async () => {
    const source = { ...configOf().sources.pacs, pollMs: 100 } as SourceConfig;
    await using test = await openTestGateway({
      config: configOf({ sources: { pacs: source, second: source } }),
    });
    test.pacs.fault = new TomaatError('UNREACHABLE', 'Nobody answers.');
    await arrive(test, 3, { isStable: true });
    await arrive(test, 3, { series: '1.2.4' });
    test.pass(quietMs);
    await expect.poll(async () => (await all(test)).map(({ attempts }) => attempts)).toEqual([1, 1]);
    expect((await all(test)).map(({ dueAt }) => dueAt > test.nowMs())).toEqual([true, true]);
    test.pacs.fault = undefined;
    // No time passes: neither the one that was fetched nor the one that was looked at waits for the end of its pause.
    await becomes(test, ['done', 'done']);
  });

  it('of the series ends it with the reason, also one that is no known error', async () => {
    const errors = [new TomaatError('BAD_HEADER', 'A slice is missing.'), new TypeError('secret name')];
    await using test = await openTestGateway({
      processSeries: async () => {
        throw errors.shift();
      },
    });
    await arrive(test, 10, { isStable: true });
    await becomes(test, ['failed']);
    await arrive(test, 3, { series: '1.2.4', isStable: true });
    await becomes(test, ['failed', 'failed']);
    const [second, first] = await all(test);
    expect(first.reason).toEqual({ code: 'BAD_HEADER', message: 'A slice is missing.' });
    expect(second.reason).toMatchObject({ code: 'INTERNAL', message: expect.not.stringContaining('secret') });
    expect(test.faults).toHaveLength(1);
  });

  it('of the source delays its series, and shows in the summary', async () => {
    await using test = await openTestGateway();
    await arrive(test, 10);
    test.pacs.fault = new TomaatError('UNAUTHORIZED', 'pacs asks for a login.', {
      detail: { httpStatus: 401 },
    });
    test.pass(quietMs);
    await expect.poll(async () => (await all(test))[0].attempts, { interval: 5 }).toBe(1);
    const summary = await test.gateway.summary();
    expect(summary.sources[0]).toMatchObject({ name: 'pacs', fault: { code: 'UNAUTHORIZED' } });
    expect(summary.counts).toEqual([{ rule: 'liver', state: 'waiting', count: 1 }]);
    test.pacs.fault = undefined;
    test.pass(quietMs);
    await becomes(test, ['done']);
    expect((await test.gateway.summary()).sources[0].fault).toBeUndefined();
  });

  it('of a rule that is no longer in the file ends its rows with that reason', async () => {
    await using test = await openTestGateway();
    await arrive(test, 10);
    await test.restart({ config: configOf({ rules: [rule('brain')] }), matchSeen: () => [] });
    test.pass(quietMs);
    await becomes(test, ['failed']);
    expect((await all(test))[0].reason).toMatchObject({
      code: 'NOT_FOUND',
      message: expect.stringContaining('The rule liver is no longer in the file of rules. Add it'),
    });
    await test.restart();
    await test.gateway.retry((await all(test))[0].id);
    await becomes(test, ['done']);
  });
});

describe('commands in another process', () => {
  it('drop a running series: its steps stop, and nothing is stored afterwards', async () => {
    const reached = Promise.withResolvers<void>();
    const go = Promise.withResolvers<void>();
    let aborted = false;
    let [active, most] = [0, 0];
    await using test = await openTestGateway({
      config: configOf({ limits: { ...configOf().limits, concurrency: 3 } }),
      processSeries: async (row, context) => {
        most = Math.max(most, ++active);
        reached.resolve();
        context.signal.addEventListener('abort', () => {
          aborted = true;
        });
        // Deaf steps, that go on all the same.
        await go.promise;
        await storeResult(row, context).finally(() => active--);
      },
    });
    await arrive(test, 10, { isStable: true });
    await reached.promise;
    await using other = await openGatewayDatabase(test.dataFolder);
    const admin = createSeriesAdmin(other as never, test.nowMs);
    const [{ id }] = await admin.list({ limit: 1 });
    expect((await admin.drop(id)).state).toBe('dropped');
    await expect.poll(() => aborted, { interval: 5 }).toBe(true);
    // Tried again while the first attempt still runs: that one must not count for it.
    await admin.retry(id);
    await arrive(test, 2, { series: '1.2.4', isStable: true });
    await expect.poll(() => active, { interval: 5 }).toBe(2);
    go.resolve();
    await becomes(test, ['done', 'done']);
    // The other series was the second; the same one did not run twice at once.
    expect([most, [...test.stored.values()]]).toEqual([2, [1, 1]]);
    await expect(admin.drop(id)).rejects.toMatchObject({ code: 'CONFLICT' });
    await expect(admin.retry(id)).rejects.toMatchObject({ code: 'CONFLICT' });
    await expect(admin.retry('12345')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(admin.drop('x')).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });

  it('a dropped series is not begun again by the next search', async () => {
    await using test = await openTestGateway();
    await arrive(test, 10);
    await test.gateway.drop((await all(test))[0].id);
    await arrive(test, 10);
    test.pass(quietMs);
    expect(await states(test)).toEqual(['dropped']);
    await arrive(test, 11);
    expect(await states(test)).toEqual(['waiting', 'dropped']);
  });
});

it('the job of a dropped series is deleted at its service, and of one that begins again kept', async () => {
  const forgotten: (string | undefined)[] = [];
  const jobs: (string | undefined)[] = [];
  await using test = await openTestGateway({
    forgetJob: async ({ job }) => void forgotten.push(job),
    processSeries: async (row, { save, signal }) => {
      jobs.push(row.job);
      await save({ step: 'predict', job: `job-${jobs.length}` });
      await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
    },
  });
  await arrive(test, 10, { isStable: true });
  await expect.poll(async () => (await all(test))[0].job, { interval: 5 }).toBe('job-1');
  await arrive(test, 12, { isStable: true });
  test.pass(quietMs);
  await expect.poll(async () => (await all(test))[0].job, { interval: 5 }).toBe('job-2');
  expect(jobs).toEqual([undefined, 'job-1']);
  await test.gateway.drop((await all(test))[0].id);
  await expect.poll(() => forgotten, { interval: 5 }).toEqual(['job-2']);
  await expect.poll(async () => (await all(test))[0].job, { interval: 5 }).toBeUndefined();
});

describe('the machine’s clock', () => {
  it('may jump: quiet time and retention follow elapsed time', async () => {
    const day = 86_400_000;
    let [wallMs, monotonicMs] = [Date.UTC(2026, 0, 1), 0];
    const elapse = (ms: number) => {
      wallMs += ms;
      monotonicMs += ms;
    };
    const clock = createSteadyClock({ wallMs: () => wallMs, monotonicMs: () => monotonicMs });
    await using test = await openTestGateway({ clock });
    await arrive(test, 10);
    const [{ seenAt }] = await all(test);
    wallMs -= 10 * day;
    await expect.poll(async () => (await all(test))[0].seenAt, { interval: 5 }).toBe(seenAt - 10 * day);
    elapse(quietMs);
    await becomes(test, ['done']);
    wallMs += 30 * day;
    await expect.poll(async () => (await all(test))[0].seenAt, { interval: 5 }).toBe(seenAt + 20 * day);
    elapse(day - quietMs);
    expect(await states(test)).toEqual(['done']);
    elapse(2 * quietMs);
    elapse(3_600_000);
    await becomes(test, []);
  });
});

describe('rows of ended series', () => {
  const day = 86_400_000;

  it('are deleted after keepMs, and their series are not begun again', async () => {
    await using test = await openTestGateway();
    await arrive(test, 10, { isStable: true });
    await becomes(test, ['done']);
    test.pass(day);
    await becomes(test, []);
    const folder = join(test.dataFolder);
    for (const name of (await readdir(folder)).filter((name) => name.startsWith('gateway.db'))) {
      const { readFile } = await import('node:fs/promises');
      expect((await readFile(join(folder, name))).includes(one), name).toBe(false);
    }
    for (let days = 0; days < 6; days++) {
      await arrive(test, 10);
      test.pass(day);
    }
    await arrive(test, 10, { isStable: true });
    await becomes(test, []);
    expect([...test.stored.values()]).toEqual([1]);
    await arrive(test, 11);
    expect(await states(test)).toEqual(['waiting']);
  });

  it('are remembered as long as a search may find their series', async () => {
    await using test = await openTestGateway();
    await arrive(test, 10, { isStable: true });
    await becomes(test, ['done']);
    test.pass(day);
    await becomes(test, []);
    // The source looks back two days; in between it was away.
    test.pass(2 * day);
    // By its end, what has expired is deleted.
    await arrive(test, 1, { series: '1.2.4', isStable: true });
    await becomes(test, ['done']);
    await arrive(test, 10);
    expect(await states(test)).toEqual(['done']);
  });

  it('leave nothing behind once no search can find their series', async () => {
    await using test = await openTestGateway();
    await arrive(test, 10, { isStable: true });
    await becomes(test, ['done']);
    test.pass(day);
    await becomes(test, []);
    test.pass(5 * day);
    const count = async () =>
      (await test.database.db.selectFrom('known_content').selectAll().execute()).length +
      (await test.database.db.selectFrom('known_series').selectAll().execute()).length;
    await expect.poll(count, { interval: 5 }).toBe(0);
  });

  it('that a grown series follows are kept while that is processed', async () => {
    await using test = await openTestGateway();
    await arrive(test, 10, { isStable: true });
    await becomes(test, ['done']);
    test.pacs.fault = new TomaatError('UNREACHABLE', 'away');
    await test.gateway.see({ source: 'pacs', study: '1.2', series: one, instances: 12 });
    test.pass(day);
    await expect.poll(async () => (await all(test))[0].attempts, { interval: 5 }).toBe(1);
    expect(await states(test)).toEqual(['waiting', 'done']);
  });
});

it('a stopped gateway queues what runs, deletes its files, and goes on after the start', async () => {
  let folder = '';
  const reached = Promise.withResolvers<void>();
  await using test = await openTestGateway({
    processSeries: async (_, context) => {
      ({ folder } = context);
      expect(await readdir(folder)).toEqual([]);
      reached.resolve();
      await new Promise((_, reject) =>
        context.signal.addEventListener('abort', () => reject(context.signal.reason)),
      );
    },
  });
  await arrive(test, 10, { isStable: true });
  await reached.promise;
  await test.restart({ processSeries: storeResult });
  await becomes(test, ['done']);
  await expect(stat(folder)).rejects.toMatchObject({ code: 'ENOENT' });
});

it('a full disk delays, shows in the summary, and loses nothing', async () => {
  await using test = await openTestGateway();
  const { db } = test.database;
  const pages = async (sql: string) => {
    const { sql: raw } = await import('kysely');
    return (await raw.raw<Record<string, number>>(sql).execute(db)).rows[0];
  };
  await arrive(test, 10);
  const { page_count } = await pages('PRAGMA page_count');
  // SQLite answers as on a full disk.
  await pages(`PRAGMA max_page_count = ${page_count}`);
  const many = Array.from({ length: 100 }, (_, index) => `1.2.5.${index}`);
  let refused = 0;
  for (const series of many)
    await arrive(test, 2, { series }).catch((error: TomaatError) => {
      expect(error.code).toBe('DISK_FULL');
      refused++;
    });
  expect(refused).toBeGreaterThan(0);
  expect((await test.gateway.summary()).databaseFault?.code).toBe('DISK_FULL');
  await pages('PRAGMA max_page_count = 1000000');
  for (const series of many) await arrive(test, 2, { series });
  test.pass(quietMs);
  await expect.poll(async () => new Set(await states(test)), { interval: 20 }).toEqual(new Set(['done']));
  expect(test.stored.size).toBe(101);
  await expect.poll(async () => (await test.gateway.summary()).databaseFault).toBeUndefined();
});

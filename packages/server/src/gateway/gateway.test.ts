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
  uidsOf,
} from '../../test/gateway-tables.ts';
import type { SeriesRow } from './series.ts';

describe('a series', () => {
  it('waits until its number of instances has not changed for the quiet time', async () => {
    await using test = await openTestGateway();
    await arrive(test, 10);
    test.pass(quietMs - 1);
    await arrive(test, 20);
    test.pass(quietMs - 1);
    // It grows unseen: the look at the end of the quiet time finds that.
    test.pacs.series.get(one)!.uids = uidsOf(one, 24);
    test.pass(1);
    await expect.poll(async () => (await all(test))[0].instances, { interval: 5 }).toBe(24);
    expect(await states(test)).toEqual(['waiting']);
    test.pass(quietMs);
    await becomes(test, ['done']);
    expect([...test.stored]).toEqual([['liver:1.2.3:24', 1]]);
    expect((await all(test))[0]).toMatchObject({ instances: 24, step: 'store', attempts: 0 });
  });

  it('that the source calls complete does not wait', async () => {
    await using test = await openTestGateway();
    await arrive(test, 10, { isStable: true });
    await becomes(test, ['done']);
  });

  it('keeps no text that is longer than those of DICOM', async () => {
    await using test = await openTestGateway();
    await arrive(test, 3, { description: 'x'.repeat(100_000) });
    await arrive(test, 3, { series: '1.2.4', description: ' Lung ' });
    expect((await all(test)).map(({ description }) => description)).toEqual(['Lung', undefined]);
  });

  it('that is pushed again unchanged changes nothing, by search or hook', async () => {
    await using test = await openTestGateway();
    await arrive(test, 10, { isStable: true });
    await becomes(test, ['done']);
    const [before] = await all(test);
    await arrive(test, 10);
    expect(await all(test)).toEqual([before]);
    await arrive(test, 10, { isStable: true });
    await expect.poll(() => all(test), { interval: 5 }).toEqual([before]);
    expect([...test.stored]).toEqual([['liver:1.2.3:10', 1]]);
  });

  it('that has other instances, as many as before, is a new one', async () => {
    await using test = await openTestGateway();
    await arrive(test, 2, { isStable: true });
    await becomes(test, ['done']);
    test.pacs.series.get(one)!.uids = ['1.2.3.1', '1.2.3.77'];
    await test.gateway.see({ source: 'pacs', study: '1.2', series: one, instances: 2, isStable: true });
    await becomes(test, ['done', 'done']);
  });

  it('that has grown after its end is a new row that names its predecessor', async () => {
    const predecessors: (SeriesRow | undefined)[] = [];
    await using test = await openTestGateway({
      processSeries: async (row, context) => {
        predecessors.push(context.predecessor);
        await storeResult(row, context);
      },
    });
    await arrive(test, 10, { isStable: true });
    await becomes(test, ['done']);
    await arrive(test, 12);
    test.pass(quietMs);
    await becomes(test, ['done', 'done']);
    const [grown, first] = await all(test);
    expect(grown.predecessor).toBe(first.id);
    expect(predecessors).toEqual([undefined, first]);
    expect(grown.digest).not.toBe(first.digest);
  });

  it('that two sources have gives one result', async () => {
    await using test = await openTestGateway();
    await arrive(test, 10);
    await arrive(test, 10, { source: 'second' });
    expect(await all(test)).toHaveLength(1);
    test.pass(quietMs);
    await becomes(test, ['done']);
    await arrive(test, 10, { source: 'second' });
    test.pass(quietMs);
    await becomes(test, ['done']);
    expect((await all(test))[0].source).toBe('pacs');
    // That was found out once, and is not asked at each search.
    const { asked } = test.second;
    await arrive(test, 10, { source: 'second' });
    test.pass(quietMs);
    await arrive(test, 10, { source: 'pacs' });
    expect([await states(test), test.second.asked]).toEqual([['done'], asked]);
    expect([...test.stored.values()]).toEqual([1]);
  });

  it('that turns out to hold the gateway’s own results is forgotten', async () => {
    await using test = await openTestGateway();
    await arrive(test, 1, { series: `${one}.9999` });
    await arrive(test, 10, { isStable: true });
    await becomes(test, ['done', 'waiting']);
    test.pass(quietMs);
    await becomes(test, ['done']);
    expect([...test.stored.keys()]).toEqual(['liver:1.2.3:10']);
  });

  it('is one of two at a time, if the limit says so', async () => {
    const ends: (() => void)[] = [];
    let [now, most] = [0, 0];
    await using test = await openTestGateway({
      processSeries: async () => {
        most = Math.max(most, ++now);
        await new Promise<void>((resolve) => ends.push(resolve));
        now--;
      },
    });
    for (const series of ['1.2.1', '1.2.2', '1.2.3', '1.2.4', '1.2.5'])
      await arrive(test, 3, { series, isStable: true });
    await expect.poll(() => ends.length, { interval: 5 }).toBe(2);
    // One place becomes free, while the other is taken.
    for (let ended = 0; ended < 5; ended++) {
      await expect.poll(() => ends.length, { interval: 5 }).toBe(Math.min(5, ended + 2));
      ends[ended]();
    }
    await becomes(
      test,
      Array.from({ length: 5 }, () => 'done'),
    );
    expect(most).toBe(2);
  });

  it('is processed once for each rule, the urgent ones first', async () => {
    const order: string[] = [];
    const base = configOf();
    await using test = await openTestGateway({
      config: configOf({
        rules: [rule('late', { urgency: 7 }), rule('soon', { urgency: 0 }), rule('usual')],
        limits: { ...base.limits, concurrency: 1 },
      }),
      processSeries: async ({ rule }) => void order.push(rule),
    });
    await arrive(test, 3);
    test.pass(quietMs);
    await becomes(test, ['done', 'done', 'done']);
    // The looks end in any order; what is queued at the same time is taken by urgency.
    expect(order.toSorted()).toEqual(['late', 'soon', 'usual']);
    expect(new Set((await all(test)).map(({ rule }) => rule)).size).toBe(3);
  });

  it('of the gateway’s own results is never taken', async () => {
    await using test = await openTestGateway();
    await arrive(test, 10, { isStable: true });
    await becomes(test, ['done']);
    await arrive(test, 1, { series: `${one}.9999`, modality: 'SEG', isStable: true });
    expect(await states(test)).toEqual(['done']);
  });

  it('that vanished ends with a reason, and is new when it comes back', async () => {
    await using test = await openTestGateway();
    await test.gateway.see({ source: 'pacs', study: '1.2', series: one, instances: 0, isStable: true });
    await test.gateway.see({ source: 'pacs', study: '1.2', series: '1.2.4', instances: 3 });
    test.pass(quietMs);
    await becomes(test, ['failed', 'failed']);
    for (const { reason } of await all(test))
      expect(reason).toMatchObject({ code: 'NOT_FOUND', message: expect.stringContaining('pacs no longer') });
    await arrive(test, 5);
    // With as many as before.
    await arrive(test, 3, { series: '1.2.4' });
    test.pass(quietMs);
    await becomes(test, ['done', 'done', 'failed', 'failed']);
  });
});

describe('a series that grows', () => {
  /** Steps that wait at `at` until they are let go. */
  function held(at: 'predict' | 'store') {
    const reached = Promise.withResolvers<void>();
    const go = Promise.withResolvers<void>();
    const ended: string[] = [];
    const process: typeof storeResult = async (row, context) => {
      const isFirst = ended.length === 0;
      await storeResult(row, {
        ...context,
        async save(change) {
          await context.save(change);
          if (change.step !== at || !isFirst) return;
          reached.resolve();
          const stopped = new Promise<never>((_, reject) =>
            context.signal.addEventListener('abort', () => reject(context.signal.reason)),
          );
          await Promise.race([go.promise, stopped]);
        },
      }).finally(() => ended.push(row.id));
    };
    return { reached: reached.promise, go: go.resolve, process };
  }

  it('while it is computed begins again, and gives one result', async () => {
    const { process, reached } = held('predict');
    await using test = await openTestGateway({ processSeries: process });
    await arrive(test, 10, { isStable: true });
    await reached;
    await arrive(test, 12);
    await becomes(test, ['waiting']);
    expect((await all(test))[0]).toMatchObject({ instances: 12, step: 'fetch', digest: undefined });
    test.pass(quietMs);
    await becomes(test, ['done']);
    expect([...test.stored]).toEqual([['liver:1.2.3:12', 1]]);
  });

  it('while it is stored is finished and followed', async () => {
    const { process, reached, go } = held('store');
    await using test = await openTestGateway({ processSeries: process });
    await arrive(test, 10, { isStable: true });
    await reached;
    await arrive(test, 12);
    expect(await states(test)).toEqual(['running']);
    test.pacs.series.get(one)!.uids = uidsOf(one, 10);
    go();
    await becomes(test, ['waiting', 'done']);
    test.pacs.series.get(one)!.uids = uidsOf(one, 12);
    test.pass(quietMs);
    await becomes(test, ['done', 'done']);
    const [follower, first] = await all(test);
    expect([follower.predecessor, follower.instances]).toEqual([first.id, 12]);
  });

  it('between list and transfer begins again', async () => {
    let digest = 'another';
    await using test = await openTestGateway({
      processSeries: async (row, context) => {
        const fetched = digest;
        digest = row.digest!;
        await context.save({ digest: fetched === 'another' ? fetched : row.digest });
        await storeResult(row, context);
      },
    });
    await arrive(test, 10, { isStable: true });
    await becomes(test, ['waiting']);
    digest = '';
    test.pass(quietMs);
    await becomes(test, ['waiting', 'done'].slice(1));
    expect([...test.stored.values()]).toEqual([1]);
  });

  it('after a part of its results was stored ends with the reason, and follows', async () => {
    let calls = 0;
    await using test = await openTestGateway({
      processSeries: async (row, context) => {
        if (calls++ > 0) return storeResult(row, context);
        await context.save({ step: 'store' });
        await context.save({
          results: [
            { format: 'seg.dcm', sopClass: '1', sopInstance: '1', series: '9.9', storedAt: ['archive'] },
          ],
        });
        throw new TomaatError('UNREACHABLE', 'The second archive is away.');
      },
    });
    await arrive(test, 10, { isStable: true });
    await expect.poll(async () => (await all(test))[0].attempts, { interval: 5 }).toBe(1);
    await arrive(test, 12);
    test.pass(quietMs);
    await becomes(test, ['waiting', 'failed']);
    test.pass(quietMs);
    await becomes(test, ['done', 'failed']);
    const [follower, first] = await all(test);
    expect(first.reason?.code).toBe('CONFLICT');
    expect(follower.predecessor).toBe(first.id);
  });
});

it('an unknown source is refused by name', async () => {
  await using test = await openTestGateway();
  await expect(
    test.gateway.see({ source: 'constructor', study: '1', series: '1', instances: 1 }),
  ).rejects.toMatchObject({ code: 'NOT_FOUND', message: expect.stringContaining('pacs, second') });
});

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sql } from 'kysely';
import { describe, expect, it } from 'vitest';
import { openDatabaseClock } from './database-clock.ts';
import { openServerDatabase } from './server-database.ts';
import { createSteadyClock, moveExpiry } from './steady-clock.ts';

function clockAt(startMs: number) {
  const time = { passedMs: 0, aheadMs: startMs };
  const clock = createSteadyClock({
    wallMs: () => time.aheadMs + time.passedMs,
    // It has run for a while before the clock is made.
    monotonicMs: () => 100_000 + time.passedMs,
  });
  return { time, clock };
}
const hourMs = 3_600_000;
const startMs = 1_700_000_000_000;

describe('createSteadyClock()', () => {
  it.each([2 * hourMs, -hourMs, 365 * 24 * hourMs])('runs evenly when the clock is set by %d ms', (byMs) => {
    const { time, clock } = clockAt(startMs);
    time.passedMs = 1000;
    time.aheadMs += byMs;
    expect(clock.nowMs()).toBe(startMs + 1000);
    time.passedMs = 2000;
    expect(clock.nowMs()).toBe(startMs + 2000);
    time.aheadMs -= byMs;
    expect(clock.nowMs()).toBe(startMs + 2000);
  });

  it.each([
    [60_000, 60_000],
    [60_001, 0],
    [-60_000, -60_000],
    [-60_001, 0],
  ])('takes %d ms for a correction of %d ms', (byMs, shownMs) => {
    const { time, clock } = clockAt(startMs);
    time.aheadMs += byMs;
    expect(clock.nowMs()).toBe(startMs + shownMs);
  });

  it('goes by the clocks of the system unless others are given', async () => {
    const clock = createSteadyClock();
    const beforeMs = Date.now();
    expect(clock.nowMs() - beforeMs).toBeGreaterThanOrEqual(0);
    expect(clock.nowMs() - beforeMs).toBeLessThan(10_000);
    expect(Number.isInteger(clock.nowMs())).toBe(true);
    expect(await clock.settle(() => Promise.reject(new Error('There is nothing to move.')))).toBe(0);
  });

  it('follows small corrections, however many', () => {
    const { time, clock } = clockAt(startMs);
    for (let i = 1; i <= 100; i++) {
      time.aheadMs += 30_000;
      expect(clock.nowMs()).toBe(startMs + i * 30_000);
    }
  });

  it.each([2 * hourMs, -hourMs])(
    'settle() shifts stored times by %d ms once, then follows the wall clock',
    async (byMs) => {
      const { time, clock } = clockAt(startMs);
      const expiresMs = [startMs + hourMs];
      time.aheadMs += byMs;
      const leftMs = () => expiresMs[0] - clock.nowMs();
      expect(leftMs()).toBe(hourMs);
      await clock.settle(async (by) => {
        expect(leftMs()).toBeGreaterThanOrEqual(hourMs);
        expiresMs[0] += by;
        expect(leftMs()).toBeGreaterThanOrEqual(hourMs);
      });
      expect(leftMs()).toBe(hourMs);
      expect(clock.nowMs()).toBe(startMs + byMs);
      expect(await clock.settle(() => Promise.reject(new Error('There is nothing to move.')))).toBe(0);
    },
  );

  it.each([2 * hourMs, -hourMs])('settle() tries a jump of %d ms again after a failure', async (byMs) => {
    const { time, clock } = clockAt(startMs);
    time.aheadMs += byMs;
    await expect(clock.settle(() => Promise.reject(new Error('The disk is full.')))).rejects.toThrow('full');
    expect(clock.nowMs()).toBe(startMs);
    expect(await clock.settle(async () => {})).toBe(byMs);
  });
});

describe('moveExpiry()', () => {
  it('moves the end of all that expires, and of nothing else', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'tomaat-clock-'));
    try {
      await using database = await openServerDatabase(folder);
      const { db } = database;
      const job = { service: 's', attempt: 0, owner: 'a', request: '{}', created_ms: 1 };
      await db
        .insertInto('job')
        .values([
          { ...job, id: 'done', state: 'succeeded', settled_ms: 5, expires_ms: 1000 },
          { ...job, id: 'queued', state: 'queued' },
        ])
        .execute();
      const upload = { id: 'u', owner: 'a', size_bytes: 1, offset_bytes: 0, metadata: '' };
      await db
        .insertInto('upload')
        .values({ ...upload, expected: null, digest: null, file_name: null, expires_ms: 2000 })
        .execute();
      await moveExpiry(database, -300);
      const jobs = await db
        .selectFrom('job')
        .select(['id', 'created_ms', 'settled_ms', 'expires_ms'])
        .execute();
      expect(jobs).toEqual([
        { id: 'done', created_ms: 1, settled_ms: 5, expires_ms: 700 },
        { id: 'queued', created_ms: 1, settled_ms: null, expires_ms: null },
      ]);
      expect(await db.selectFrom('upload').select('expires_ms').execute()).toEqual([{ expires_ms: 1700 }]);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
});

describe('openDatabaseClock()', () => {
  it('is the database’s at each settling, and even in between', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'tomaat-clock-'));
    const database = await openServerDatabase(folder);
    try {
      await sql`CREATE TABLE clock AS SELECT ${startMs} AS ms`.execute(database.db);
      const setTo = (ms: number) => sql`UPDATE clock SET ms = ${ms}`.execute(database.db);
      let passedMs = 100_000;
      const nowMs = sql<number>`(SELECT ms FROM clock)`;
      const clock = await openDatabaseClock({ db: database.db, nowMs }, () => passedMs);
      expect(clock.nowMs()).toBe(startMs);
      passedMs += 5000;
      await setTo(startMs - hourMs);
      expect(clock.nowMs()).toBe(startMs + 5000);
      const move = () => Promise.reject(new Error('the times of others were moved'));
      expect(await clock.settle(move)).toBe(0);
      expect(clock.nowMs()).toBe(startMs - hourMs);
    } finally {
      await database.close();
      await rm(folder, { recursive: true, force: true });
    }
  });
});

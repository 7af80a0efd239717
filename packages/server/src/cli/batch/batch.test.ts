import { appendFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { expandGlob, matches } from './glob.ts';
import { type Basis, changeOf, openLedger } from './ledger.ts';
import { isPassing, pauseMs } from './retry.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-batch-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const basis: Basis = { digest: 'd', service: 's', version: '1', models: ['m'], request: '[]' };

describe('openLedger()', () => {
  const file = () => join(folder, 'out', 'record.jsonl');

  it('reads whole lines and ignores one that was cut off', async () => {
    {
      await using ledger = await openLedger(file());
      await ledger.add({ id: 'a', state: 'done', basis, seconds: 2 });
    }
    appendFileSync(file(), '{"id":"b","state":"do');
    {
      await using ledger = await openLedger(file());
      expect(ledger.last('a')).toMatchObject({ state: 'done', seconds: 2 });
      expect(ledger.last('b')).toBeUndefined();
      await ledger.add({ id: 'c', state: 'started', basis });
    }
    await using ledger = await openLedger(file());
    expect(ledger.last('c')?.state).toBe('started');
    expect(
      (await readFile(file(), 'utf8')).split('\n').filter((line) => line.includes('"run"')),
    ).toHaveLength(1);
  });

  it('refuses a second one for the same file while the first is open', async () => {
    {
      await using _first = await openLedger(file());
      await expect(openLedger(file())).rejects.toMatchObject({
        code: 'CONFLICT',
        message: expect.stringContaining('-o'),
      });
    }
    await using _again = await openLedger(file());
  });

  it('a key stays until its job has ended, also for the next start', async () => {
    let key: string;
    {
      await using ledger = await openLedger(file());
      key = ledger.keyOf('a', basis);
      await ledger.add({ id: 'a', state: 'started', basis });
      expect(ledger.keyOf('b', basis)).not.toBe(key);
      expect(ledger.keyOf('a', { ...basis, version: '2' })).not.toBe(key);
    }
    await using ledger = await openLedger(file());
    expect(ledger.keyOf('a', basis)).toBe(key);
    await ledger.add({ id: 'a', state: 'failed', basis });
    expect(ledger.keyOf('a', basis)).not.toBe(key);
  });
});

it.each([
  [{ digest: 'e' }, /input/],
  [{ version: '2' }, /version 1.* 2/],
  [{ models: ['n'] }, /network/],
  [{ request: '[1]' }, /parameters/],
])('changeOf() names what changed: %o', (change, why) => {
  expect(changeOf(basis, { ...basis, ...change })).toMatch(why);
});

it('pauseMs() grows to a minute and honours Retry-After', () => {
  const error = (retryAfterSeconds?: number) =>
    new TomaatError('BUSY', 'x', { detail: { retryAfterSeconds } });
  expect([0, 1, 2, 5, 6, 20].map((n) => pauseMs(n, error(), 0))).toEqual([
    1000, 2000, 4000, 32_000, 60_000, 60_000,
  ]);
  expect(pauseMs(1, error(), 1)).toBe(1000);
  expect(pauseMs(0, error(45), 0)).toBe(45_000);
  expect(pauseMs(0, error(9e9), 0)).toBe(600_000);
});

it('isPassing() is true while the server is away, not for a certificate or a bad input', () => {
  const away = (reason: string) => new TomaatError('UNREACHABLE', 'x', { detail: { reason } });
  expect(isPassing(away('ECONNREFUSED'))).toBe(true);
  expect(isPassing(away('ENOTFOUND'))).toBe(true);
  expect(isPassing(away('CERT_HAS_EXPIRED'))).toBe(false);
  expect(isPassing(new TomaatError('BAD_INPUT', 'x'))).toBe(false);
});

it('expandGlob() finds files at any depth, and says when nothing matches', async () => {
  for (const name of ['a/x_T1w.nii', 'a/b/c/y_T1w.nii', 'a/b/y_T2w.nii', '.hidden/z_T1w.nii']) {
    mkdirSync(join(folder, name, '..'), { recursive: true });
    writeFileSync(join(folder, name), '');
  }
  const all = ['a/b/c/y_T1w.nii', 'a/x_T1w.nii'].map((name) => join(folder, name));
  expect(await expandGlob(join(folder, '**/*_T1w.nii'))).toEqual(all);
  expect(await expandGlob(join(folder, '*/?_T1w.nii'))).toEqual([all[1]]);
  await expect(expandGlob(join(folder, '*.mha'))).rejects.toMatchObject({ code: 'BAD_INPUT' });
});

it('matches() takes linear time on patterns of many stars', () => {
  expect(matches('a'.repeat(5000), `${'*a'.repeat(200)}*b`)).toBe(false);
  expect(matches('sub-01_T1w.nii.gz', 'sub-*_T?w.nii*')).toBe(true);
});

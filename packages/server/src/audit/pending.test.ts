import { mkdirSync, rmSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm, rmdir, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { leaveForAudit, type PendingState, pendingNames, takePending } from './pending.ts';

let folder: string;
let recorded: unknown[];
let faults: string[];
let state: PendingState;
const pending = () => join(folder, 'audit.pending');
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-pending-'));
  recorded = [];
  faults = [];
  state = { faulty: new Set(), recorded: new Set() };
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const take = (record: (event: string) => void = () => {}) =>
  takePending(
    folder,
    (event, facts) => {
      recorded.push([event, facts]);
      record(event);
    },
    (error) => faults.push((error as Error).message),
    state,
  );
const leave = (name: string, text: string) => {
  mkdirSync(pending(), { recursive: true });
  return writeFile(join(pending(), name), text);
};
const event = (keyId: string) => JSON.stringify({ event: 'key.created', facts: { keyId } });

describe('leaveForAudit()', () => {
  it('leaves each event in an owner-only file, oldest to newest', async () => {
    const beforeMs = Date.now();
    await leaveForAudit(folder, 'key.created', { keyId: 'a' });
    await leaveForAudit(folder, 'key.revoked', { keyId: 'a', outcome: 'lost' });
    const names = await pendingNames(folder);
    expect(names).toHaveLength(2);
    for (const name of names) {
      expect(name).toMatch(new RegExp(`^\\d{13}-${process.pid}-[a-z0-9]+\\.json$`));
      expect(Number(name.slice(0, 13))).toBeGreaterThanOrEqual(beforeMs);
      if (process.platform !== 'win32') expect((await stat(join(pending(), name))).mode & 0o777).toBe(0o600);
    }
    if (process.platform !== 'win32') expect((await stat(pending())).mode & 0o777).toBe(0o700);
    await take();
    expect(recorded).toHaveLength(2);
    expect(recorded).toContainEqual(['key.created', { keyId: 'a' }]);
    expect(recorded).toContainEqual(['key.revoked', { keyId: 'a', outcome: 'lost' }]);
    expect(await readdir(pending())).toEqual([]);
  });
});

describe('takePending()', () => {
  it('takes complete events in name order, and nothing without a folder', async () => {
    await take();
    await leave('2.json', event('second'));
    await leave('1.json', event('first'));
    await leave('3.json.99.part', event('half'));
    await leave('what ever.json', event('strange'));
    await take();
    expect(recorded).toEqual([
      ['key.created', { keyId: 'first' }],
      ['key.created', { keyId: 'second' }],
    ]);
    expect((await readdir(pending())).sort()).toEqual(['3.json.99.part', 'what ever.json']);
    await take();
    expect(recorded).toHaveLength(2);
    expect(faults).toEqual([]);
  });

  it.each([
    '{',
    '1',
    'null',
    '{"event":1,"facts":{}}',
    '{"event":"x","facts":null}',
    '{"event":"x"}',
    '{"event":"x","facts":"y"}',
  ])('puts aside anything but an event: %s', async (text) => {
    await leave('1.json', text);
    await leave('2.json', event('next'));
    await take();
    expect(recorded).toEqual([['key.created', { keyId: 'next' }]]);
    expect(faults).toEqual([expect.stringContaining('1.json.invalid')]);
    expect(await readFile(join(pending(), '1.json.invalid'), 'utf8')).toBe(text);
    expect(await readdir(pending())).toEqual(['1.json.invalid']);
  });

  it('records a file that it cannot remove only once, and reports it once', async () => {
    await leave('1.json', event('a'));
    // A folder in its place cannot be removed like a file, by root neither.
    await take(() => {
      rmSync(join(pending(), '1.json'));
      mkdirSync(join(pending(), '1.json'));
    });
    await take();
    expect(recorded).toHaveLength(1);
    expect(faults).toHaveLength(1);
    await rmdir(join(pending(), '1.json'));
    await leave('1.json', event('a'));
    await take();
    expect(recorded).toHaveLength(1);
    expect(await readdir(pending())).toEqual([]);
    // What has the name later is another event, and another fault.
    await leave('1.json', event('b'));
    await take();
    expect(recorded).toHaveLength(2);
    mkdirSync(join(pending(), '1.json'));
    await take();
    expect(faults).toHaveLength(2);
  });

  it('reports an unreadable folder once, and again after it recovered', async () => {
    await writeFile(pending(), '');
    await take();
    await take();
    expect(faults).toEqual([expect.stringContaining('ENOTDIR')]);
    await expect(pendingNames(folder)).rejects.toMatchObject({ code: 'ENOTDIR' });
    await rm(pending());
    await take();
    await writeFile(pending(), '');
    await take();
    expect(faults).toHaveLength(2);
  });
});

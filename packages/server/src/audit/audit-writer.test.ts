import { pbkdf2 } from 'node:crypto';
import { existsSync, renameSync, statSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { auditChain, sha256Of, textOf } from '../../test/audit-lines.ts';
import { canLimitFileSize, limitFileSize } from '../../test/file-size-limit.ts';
import { type Identity, openIdentity } from '../identity.ts';
import { readAnchor } from './audit-files.ts';
import { type Audit, type AuditOptions, auditLine, openAudit } from './audit-log.ts';
import { leaveForAudit } from './pending.ts';
import { verifyAudit } from './verify-audit.ts';

let base: string;
let folder: string;
let identity: Identity;
let faults: Error[];
let audit: Audit | undefined;
beforeEach(async () => {
  base = await mkdtemp(join(tmpdir(), 'tomaat-audit-writer-'));
  folder = join(base, 'data');
  identity = await openIdentity(base);
  await mkdir(folder);
  faults = [];
});
afterEach(async () => {
  vi.useRealTimers();
  await audit?.close();
  audit = undefined;
  await rm(base, { recursive: true, force: true });
});

const open = async (more: Partial<AuditOptions> = {}) => {
  audit = await openAudit(folder, { identity, onFault: (error) => faults.push(error as Error), ...more });
  return audit;
};
const close = async () => {
  await audit?.close();
  audit = undefined;
};
const at = (name: string) => join(folder, name);
const linesIn = async (name = 'audit.jsonl') =>
  (await readFile(at(name), 'utf8'))
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Record<string, unknown>);
const eventsIn = async (name?: string) => (await linesIn(name)).map(({ event }) => event);

describe('auditLine()', () => {
  it('chains a line in ASCII to the one before it', () => {
    const prev = sha256Of('before');
    const time = new Date('2026-01-31T12:00:00.5Z');
    const { line, head } = auditLine({ sequence: 41, sha256: prev }, time, 'key.created', {
      who: 'é~\u007f\uffff',
      count: 2,
    });
    const body = `{"seq":42,"time":"2026-01-31T12:00:00.500Z","event":"key.created","who":"\\u00e9~\\u007f\\uffff","count":2,"prev":"${prev}"}`;
    expect(line).toBe(`${body.slice(0, -1)},"hash":"${sha256Of(body)}"}`);
    expect(head).toEqual({ sequence: 42, sha256: sha256Of(body) });
  });
});

describe('openAudit()', () => {
  it('signs an empty log, written lines, and its end', async () => {
    const { head } = await open({ now: () => new Date(5000) });
    expect(await readAnchor(at('audit.head'))).toMatchObject({ sequence: 0, sha256: '0'.repeat(64) });
    audit?.record('server.started');
    audit?.record('server.stopped', { count: 1 });
    expect(head().sequence).toBe(2);
    expect(await readAnchor(at('audit.head'))).toMatchObject({ sequence: 0 });
    await audit?.close();
    audit?.record('job.deleted');
    await audit?.close();
    expect(await readAnchor(at('audit.head'))).toMatchObject(head());
    expect(await linesIn()).toMatchObject([
      { seq: 1, event: 'server.started', time: '1970-01-01T00:00:05.000Z', prev: '0'.repeat(64) },
      { seq: 2, event: 'server.stopped', count: 1 },
    ]);
    expect(faults).toEqual([]);
  });

  it('signs new lines each minute, and takes pending events each second', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    await open();
    const signed = async () => (await readAnchor(at('audit.head')))?.sequence;
    audit?.record('server.started');
    await leaveForAudit(folder, 'key.created', { keyId: 'a' });
    await vi.advanceTimersByTimeAsync(999);
    expect(audit?.head().sequence).toBe(1);
    await vi.advanceTimersByTimeAsync(1);
    await expect.poll(() => audit?.head().sequence).toBe(2);
    await vi.advanceTimersByTimeAsync(58_999);
    expect(await signed()).toBe(0);
    await vi.advanceTimersByTimeAsync(1);
    await expect.poll(signed).toBe(2);
    // Nothing new: nothing is signed.
    await rm(at('audit.head'));
    await vi.advanceTimersByTimeAsync(120_000);
    await audit?.flushed();
    expect(existsSync(at('audit.head'))).toBe(false);
  });

  it('continues after the last whole line, and removes a torn one', async () => {
    const before = auditChain(3);
    await writeFile(at('audit.jsonl'), `${textOf(before)}{"seq":4,`);
    await open();
    expect(await linesIn()).toMatchObject([{}, {}, {}, { seq: 4, event: 'log.repaired', count: 9 }]);
    expect((await linesIn())[3].prev).toBe(before[2].sha256);
    await close();
    await verifyAudit(folder);
    // Of a whole file there is nothing to say.
    await open();
    await close();
    expect(await eventsIn()).toHaveLength(4);
  });

  it.each(['{"seq":1', '{'])('begins at the start where the file holds %s alone', async (torn) => {
    await writeFile(at('audit.jsonl'), torn);
    await open();
    expect(await linesIn()).toMatchObject([{ seq: 1, event: 'log.repaired', count: torn.length }]);
  });

  it('makes files that only their owner can read', async () => {
    const before = process.umask(0);
    try {
      await open();
      audit?.record('server.started');
      await audit?.rotate();
      await close();
    } finally {
      process.umask(before);
    }
    for (const name of ['audit.jsonl', 'audit-0000000001.jsonl', 'audit.head'])
      expect(statSync(at(name)).mode & 0o777, name).toBe(0o600);
  });

  it('starts despite an invalid signature, and reports it', async () => {
    await writeFile(at('audit.head'), 'nonsense');
    await open();
    expect(faults).toMatchObject([{ code: 'BAD_SIGNATURE' }]);
    expect(await readAnchor(at('audit.head'))).toMatchObject({ sequence: 0 });
    // The same key as before is no change.
    await close();
    await open();
    expect(audit?.head().sequence).toBe(0);
  });
});

describe('record()', () => {
  it('reports an outage once, keeps the lines, and reports the next outage', async () => {
    await open();
    audit?.record('server.started');
    const away = join(base, 'away');
    await rename(folder, away);
    for (let i = 0; i < 3; i++) audit?.record('job.deleted', { job: `${i}` });
    expect(faults).toMatchObject([{ code: 'ENOENT' }]);
    await rename(away, folder);
    audit?.record('job.expired');
    const written = ['server.started', 'job.deleted', 'job.deleted', 'job.deleted', 'job.expired'];
    expect(await eventsIn()).toEqual(written);
    await rename(folder, away);
    audit?.record('job.expired');
    expect(faults).toHaveLength(2);
    await rename(away, folder);
    await close();
    await verifyAudit(folder);
  });

  it('reports that the very first line cannot be written', async () => {
    await open();
    const away = join(base, 'away');
    await rename(folder, away);
    audit?.record('server.started');
    expect(faults).toMatchObject([{ code: 'ENOENT' }]);
    await rename(away, folder);
    await close();
    await verifyAudit(folder);
  });

  it.skipIf(!canLimitFileSize)('removes the partial line that fitted on the disk', async () => {
    await open();
    audit?.record('server.started');
    const { size } = statSync(at('audit.jsonl'));
    for (const room of [100, 1, 0]) {
      using _full = limitFileSize(size + room);
      audit?.record('job.deleted', { job: `${room}` });
      expect(statSync(at('audit.jsonl')).size, `${room}`).toBe(size);
    }
    expect(faults).toMatchObject([{ code: 'EFBIG' }]);
    audit?.record('job.expired');
    expect(await linesIn()).toMatchObject([
      { event: 'server.started' },
      ...['100', '1', '0'].map((job) => ({ event: 'job.deleted', job })),
      { event: 'job.expired' },
    ]);
    await close();
    await verifyAudit(folder);
  });

  it('keeps 10,000 lines at most, and says how many are lost', async () => {
    await open();
    const away = join(base, 'away');
    await rename(folder, away);
    for (let i = 0; i < 10_002; i++) audit?.record('job.deleted');
    await rename(away, folder);
    audit?.record('server.stopped');
    const lines = await linesIn();
    expect(lines).toHaveLength(10_001);
    expect(lines.at(-1)).toMatchObject({ event: 'log.lost', count: 3 });
    expect(lines.at(-2)).toMatchObject({ event: 'job.deleted' });
    audit?.record('server.stopped');
    expect((await linesIn()).at(-1)).toMatchObject({ event: 'server.stopped' });
    await close();
    await verifyAudit(folder);
  });

  it('starts a new file at the size limit, under a free name', async () => {
    const sizeBytes = textOf(auditChain(2)).length;
    await writeFile(at('audit.jsonl'), textOf(auditChain(2)));
    await writeFile(at('audit-0000000002.jsonl'), '');
    await writeFile(at('audit-0000000002-1.jsonl'), '');
    await open({ rotateBytes: sizeBytes + 1 });
    audit?.record('server.started');
    expect(await eventsIn()).toEqual(['job.deleted', 'job.deleted', 'server.started']);
    await close();
    await writeFile(at('audit.jsonl'), textOf(auditChain(2)));
    await open({ rotateBytes: sizeBytes });
    audit?.record('server.started');
    expect(await eventsIn('audit-0000000002-2.jsonl')).toEqual(['job.deleted', 'job.deleted']);
    expect(await linesIn()).toMatchObject([
      { seq: 3, event: 'log.continued' },
      { seq: 4, event: 'server.started' },
    ]);
  });
});

describe('reopen()', () => {
  it('closes a file that waits for its fsync', async () => {
    await open();
    // All threads that work on files are busy: the fsync comes after the file was closed.
    const threads = Number(process.env.UV_THREADPOOL_SIZE ?? 4);
    const busy = Array.from({ length: threads }, () => promisify(pbkdf2)('x', 'y', 200_000, 64, 'sha512'));
    audit?.record('server.started');
    await new Promise((resolve) => setImmediate(resolve));
    renameSync(at('audit.jsonl'), at('audit.jsonl.1'));
    audit?.reopen();
    await audit?.flushed();
    await Promise.all(busy);
    expect(faults).toEqual([]);
    expect(await eventsIn('audit.jsonl.1')).toEqual(['server.started']);
    expect(await eventsIn()).toEqual(['log.continued']);
  });

  it('reports why it cannot start a new file, and retries next time', async () => {
    await open();
    audit?.record('server.started');
    const away = join(base, 'away');
    await rename(folder, away);
    audit?.reopen();
    expect(faults).toMatchObject([{ code: 'ENOENT' }]);
    await rename(away, folder);
    audit?.reopen();
    expect(await eventsIn()).toEqual(['server.started']);
    expect(faults).toHaveLength(1);
  });
});

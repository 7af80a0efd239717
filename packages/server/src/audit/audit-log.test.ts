import { existsSync } from 'node:fs';
import {
  appendFile,
  copyFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { forgeAudit } from '../../test/forge-audit.ts';
import { type Identity, openIdentity } from '../identity.ts';
import { anchorFile, auditFile } from './audit-files.ts';
import { openAudit } from './audit-log.ts';
import { leaveForAudit } from './pending.ts';
import { verifyAudit } from './verify-audit.ts';

let folder: string;
let identity: Identity;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-audit-'));
  identity = await openIdentity(folder);
});
afterEach(() => rm(folder, { recursive: true, force: true }));

async function fill(count: number, rotateBytes?: number): Promise<void> {
  await using audit = await openAudit(folder, { identity, rotateBytes });
  for (let i = 0; i < count; i++) {
    audit.record('prediction.accepted', { who: 'oidc:https://é|ü', service: 's', job: `job-${i}` });
  }
}
const file = () => join(folder, auditFile);

async function pack(from: string, to: string, compress: (bytes: Buffer) => Buffer): Promise<void> {
  await writeFile(to, compress(await readFile(from)));
  await rm(from);
}

const failure = async () => {
  const error = await verifyAudit(folder).catch((caught: unknown) => caught);
  expect(error).toMatchObject({ code: 'BAD_SIGNATURE' });
  return (error as Error).message;
};

describe('verifyAudit()', () => {
  it('verifies an intact log across restarts, rotations and pending events', async () => {
    await leaveForAudit(folder, 'key.created', { keyId: 'k' });
    await fill(3);
    await fill(5, 500);
    const report = await verifyAudit(folder);
    expect(report).toMatchObject({ beyondAnchor: 0, repairs: 0, thumbprint: identity.thumbprint });
    expect(report.events['prediction.accepted']).toBe(8);
    expect(report.events['key.created']).toBe(1);
    expect(report.files).toBeGreaterThan(2);
    if (process.platform !== 'win32') expect((await stat(file())).mode & 0o777).toBe(0o600);
  });

  it('finds every changed byte in the log and in its signature', {
    // Over a thousand verifications: 3 s alone, a minute on a loaded machine.
    timeout: 240_000,
  }, async () => {
    await fill(3);
    for (const path of [file(), join(folder, anchorFile)]) {
      const whole = await readFile(path);
      for (let at = 0; at < whole.length; at++) {
        // The newline behind a signature is no part of it.
        if (path !== file() && at === whole.length - 1) continue;
        const changed = Buffer.from(whole);
        changed[at] ^= 1 << (at % 8);
        await writeFile(path, changed);
        await failure();
      }
      await writeFile(path, whole);
    }
    await verifyAudit(folder);
  });

  it('finds and names lines that are removed, duplicated, moved, added or truncated', async () => {
    await fill(6);
    const lines = (await readFile(file(), 'utf8')).trimEnd().split('\n');
    const put = (changed: string[]) => writeFile(file(), changed.map((line) => `${line}\n`).join(''));
    for (let at = 0; at < lines.length; at++) {
      await put(lines.toSpliced(at, 1));
      expect(await failure()).toContain(
        at === lines.length - 1 ? 'cut off' : `line ${at + 1} of audit.jsonl`,
      );
      await put(lines.toSpliced(at, 0, lines[at]));
      expect(await failure()).toContain(`line ${at + 2} of audit.jsonl`);
      if (at > 0) {
        await put(lines.toSpliced(at - 1, 2, lines[at], lines[at - 1]));
        expect(await failure()).toContain(`line ${at} of audit.jsonl`);
      }
      await put(lines.slice(0, at));
      expect(await failure()).toContain('cut off');
    }
    await put(lines);
    expect((await verifyAudit(folder)).lines).toBe(6);
  });

  it('finds a log rewritten with the same key by an earlier receipt', async () => {
    await fill(2);
    const { anchored } = await verifyAudit(folder);
    await rm(file());
    await rm(join(folder, anchorFile));
    await fill(2);
    await verifyAudit(folder, { signers: [identity.thumbprint] });
    await expect(verifyAudit(folder, { anchors: [anchored] })).rejects.toMatchObject({
      code: 'BAD_SIGNATURE',
    });
  });

  it('finds a log that was written again and signed with another key', async () => {
    await fill(5);
    await forgeAudit(folder, (line) => line.job === 'job-2');
    const report = await verifyAudit(folder);
    expect(report).toMatchObject({ lines: 4, signerChecked: false });
    const checked = verifyAudit(folder, { signers: [identity.thumbprint] });
    await expect(checked).rejects.toMatchObject({
      code: 'BAD_SIGNATURE',
      message: expect.stringContaining(`not by ${identity.thumbprint}`),
    });
    const known = await verifyAudit(folder, { signers: ['another', report.thumbprint] });
    expect(known.signerChecked).toBe(true);
  });

  it('reads gzip and zstd archives of any name, in order of their lines', async () => {
    await fill(9, 700);
    const { lines } = await verifyAudit(folder);
    const closed = (await readdir(folder)).filter((name) => /^audit-\d/.test(name)).sort();
    expect(closed.length).toBeGreaterThanOrEqual(3);
    const [first, second, third] = closed.map((name) => join(folder, name));
    await pack(first, join(folder, 'audit.jsonl.9.gz'), gzipSync);
    await pack(second, join(folder, 'audit.jsonl-20260131.zst'), zstdCompressSync);
    await rename(third, join(folder, 'audit.jsonl.10'));
    expect(await verifyAudit(folder)).toMatchObject({ lines, files: closed.length + 1 });
    const archive = await mkdtemp(join(tmpdir(), 'tomaat-archive-'));
    const moved = join(archive, 'first.gz');
    await rename(join(folder, 'audit.jsonl.9.gz'), moved);
    expect(await failure()).toMatch(/name them too, or start with --from \d+/);
    expect(await verifyAudit(folder, { files: [moved] })).toMatchObject({ lines });
    const bytes = await readFile(moved);
    await writeFile(moved, bytes.subarray(0, bytes.length - 9));
    await expect(verifyAudit(folder, { files: [moved] })).rejects.toMatchObject({
      code: 'BAD_SIGNATURE',
      message: expect.stringContaining('first.gz cannot be decompressed'),
    });
    await rm(archive, { recursive: true });
  });

  it('prefers the uncompressed one of two files with the same first line', async () => {
    await fill(9, 700);
    const [oldest] = (await readdir(folder)).filter((name) => /^audit-\d/.test(name)).sort();
    const bytes = gzipSync(await readFile(join(folder, oldest)));
    await writeFile(join(folder, `${oldest}.gz`), bytes.subarray(0, bytes.length / 2));
    await verifyAudit(folder);
    await writeFile(join(folder, 'audit.jsonl.1.gz'), bytes);
    await verifyAudit(folder);
    await copyFile(join(folder, oldest), join(folder, 'audit.jsonl.1'));
    await expect(verifyAudit(folder)).rejects.toThrow('begin with the same line');
  });

  it('checks archived files alone against a copy of the signature', async () => {
    await fill(3);
    const archive = await mkdtemp(join(tmpdir(), 'tomaat-archive-'));
    const [files, headFile] = [[join(archive, 'a.jsonl')], join(archive, 'a.head')];
    await copyFile(file(), files[0]);
    await copyFile(join(folder, anchorFile), headFile);
    await fill(3);
    expect(await verifyAudit(folder, { files, headFile })).toMatchObject({ lines: 3 });
    const lines = (await readFile(files[0], 'utf8')).trimEnd().split('\n');
    await writeFile(files[0], `${lines.slice(0, 2).join('\n')}\n`);
    await expect(verifyAudit(folder, { files, headFile })).rejects.toThrow('its end was cut off');
    await rm(archive, { recursive: true });
  });

  it('begins where older files were moved elsewhere, if asked to', async () => {
    await fill(8, 600);
    const { lines } = await verifyAudit(folder);
    const { readdirSync } = await import('node:fs');
    const oldest = readdirSync(folder)
      .filter((name) => /^audit-\d/.test(name))
      .sort()[0];
    const gone = Number(/\d+/.exec(oldest)?.[0]);
    await rm(join(folder, oldest));
    expect(await failure()).toContain('removed');
    expect((await verifyAudit(folder, { from: gone + 1 })).lines).toBe(lines - gone);
  });
});

describe('openAudit()', () => {
  const names = async () => (await readdir(folder)).filter((name) => name.includes('.jsonl')).sort();

  it('continues in a new file after a rename, with or without a replacement', async () => {
    await using audit = await openAudit(folder, { identity });
    audit.record('server.started');
    await rename(file(), join(folder, 'audit.jsonl.2'));
    audit.record('job.deleted', { job: 'a' });
    await rename(file(), join(folder, 'audit.jsonl.1'));
    await writeFile(file(), '', { mode: 0o600 });
    audit.record('job.deleted', { job: 'b' });
    audit.reopen();
    expect(await names()).toEqual(['audit.jsonl', 'audit.jsonl.1', 'audit.jsonl.2']);
    expect(await readFile(file(), 'utf8')).toContain('"job":"b"');
    await audit.close();
    expect(await verifyAudit(folder)).toMatchObject({
      lines: 5,
      files: 3,
      events: { 'server.started': 1, 'job.deleted': 2, 'log.continued': 2 },
    });
  });

  it('reopen() begins the new file at once, before there is a line', async () => {
    await using audit = await openAudit(folder, { identity });
    audit.record('server.started');
    await rename(file(), join(folder, 'audit.jsonl.1'));
    audit.reopen();
    expect(await readFile(file(), 'utf8')).toContain('log.continued');
  });

  it('continues when the file is copied and truncated', async () => {
    await using audit = await openAudit(folder, { identity });
    audit.record('server.started');
    await copyFile(file(), join(folder, 'audit.jsonl.1'));
    await truncate(file());
    audit.record('job.deleted');
    await audit.close();
    expect(await verifyAudit(folder)).toMatchObject({ lines: 2, files: 2 });
  });

  it('continues the chain after the file was renamed, compressed or moved', async () => {
    await fill(2);
    await rename(file(), join(folder, 'audit.jsonl.1'));
    await writeFile(file(), '');
    await fill(2);
    await pack(file(), join(folder, 'audit.jsonl.2.gz'), gzipSync);
    await rm(join(folder, anchorFile));
    await fill(2);
    expect(await verifyAudit(folder)).toMatchObject({ lines: 6, files: 3 });
    const elsewhere = await mkdtemp(join(tmpdir(), 'tomaat-archive-'));
    const moved = await Promise.all(
      (await names()).map(async (name) => {
        await rename(join(folder, name), join(elsewhere, name));
        return join(elsewhere, name);
      }),
    );
    await fill(2);
    expect(await verifyAudit(folder, { files: moved })).toMatchObject({ lines: 8, files: 4 });
    expect(await verifyAudit(folder, { from: 7 })).toMatchObject({ lines: 2, files: 1 });
    await rm(elsewhere, { recursive: true });
  });

  it('rotate() closes the file under its last line and signs what follows', async () => {
    await using audit = await openAudit(folder, { identity });
    expect(await audit.rotate()).toBeUndefined();
    audit.record('server.started');
    audit.record('job.deleted');
    expect(await audit.rotate()).toBe(join(folder, 'audit-0000000002.jsonl'));
    expect(await verifyAudit(folder)).toMatchObject({ lines: 3, files: 2, beyondAnchor: 0 });
  });

  it('writes a line when the folder has another key than before', async () => {
    await fill(1);
    await rm(join(folder, 'identity.key'));
    const next = await openIdentity(folder);
    await using audit = await openAudit(folder, { identity: next });
    await audit.close();
    const line = (await readFile(file(), 'utf8')).trimEnd().split('\n').at(-1)!;
    expect(JSON.parse(line)).toMatchObject({
      event: 'identity.changed',
      identity: next.thumbprint,
      previous: identity.thumbprint,
    });
    await verifyAudit(folder, { signers: [next.thumbprint] });
  });

  it('reports unreadable events once, keeps them, and takes all others', async () => {
    await leaveForAudit(folder, 'key.created', { keyId: 'first' });
    const pending = join(folder, 'audit.pending');
    await writeFile(join(pending, '0-strange.json'), '{"event":1}');
    await mkdir(join(pending, '1-folder.json'));
    const faults: unknown[] = [];
    await using audit = await openAudit(folder, { identity, onFault: (e) => faults.push(e), pendingMs: 20 });
    await leaveForAudit(folder, 'key.created', { keyId: 'second' });
    await expect.poll(() => readFile(file(), 'utf8')).toContain('"keyId":"second"');
    expect(faults.map(String)).toEqual([
      expect.stringContaining('0-strange.json.invalid'),
      expect.stringContaining('EISDIR'),
    ]);
    expect((await readdir(pending)).sort()).toEqual(['0-strange.json.invalid', '1-folder.json']);
    await audit.close();
    expect((await verifyAudit(folder)).events['key.created']).toBe(2);
  });

  it('reports a folder of such lines that it may not read', async () => {
    // A file in its place cannot be read as a folder, by root neither.
    await writeFile(join(folder, 'audit.pending'), '');
    const faults: unknown[] = [];
    await using _audit = await openAudit(folder, { identity, onFault: (e) => faults.push(e) });
    expect(faults.map(String)).toEqual([expect.stringContaining('ENOTDIR')]);
  });

  it('signs again after the signature could not be written once', async () => {
    const faults: unknown[] = [];
    await using audit = await openAudit(folder, { identity, anchorMs: 20, onFault: (e) => faults.push(e) });
    await rm(join(folder, anchorFile));
    await mkdir(join(folder, anchorFile));
    audit.record('server.started');
    await expect.poll(() => faults.length).toBeGreaterThan(0);
    await rm(join(folder, anchorFile), { recursive: true });
    await expect.poll(() => existsSync(join(folder, anchorFile))).toBe(true);
    expect(await verifyAudit(folder)).toMatchObject({ anchored: { sequence: 1 } });
  });

  it('removes a torn last line, records that in the log, and continues', async () => {
    await fill(2);
    await appendFile(file(), '{"seq":3,"time":"20');
    await fill(1);
    const report = await verifyAudit(folder);
    expect(report).toMatchObject({ repairs: 1, lines: 4 });
  });

  it('has a line in the file when record() returns', async () => {
    await using audit = await openAudit(folder, { identity });
    audit.record('server.started');
    expect(await readFile(file(), 'utf8')).toContain('server.started');
    await audit.flushed();
    expect(audit.head().sequence).toBe(1);
  });
});

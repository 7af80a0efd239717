import { appendFile, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Identity, openIdentity } from '../identity.ts';
import { anchorFile, auditFile, leaveForAudit, openAudit } from './audit-log.ts';
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
const failure = async () => {
  const error = await verifyAudit(folder).catch((caught: unknown) => caught);
  expect(error).toMatchObject({ code: 'BAD_SIGNATURE' });
  return (error as Error).message;
};

describe('verifyAudit()', () => {
  it('finds a whole log whole, over restarts and rotations, with what other processes left', async () => {
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

  it('finds every single byte that is changed, in the log and in what signs it', async () => {
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

  it('finds lines that are removed, doubled, moved, put in or cut off, and says which', async () => {
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

  it('finds a log that was written anew by its signature, or by a receipt that knows a line', async () => {
    await fill(2);
    const { anchored } = await verifyAudit(folder);
    await rm(file());
    await rm(join(folder, anchorFile));
    await fill(2);
    await verifyAudit(folder);
    await expect(verifyAudit(folder, { anchors: [anchored] })).rejects.toMatchObject({
      code: 'BAD_SIGNATURE',
    });
  });

  it('begins where older files were moved elsewhere, if told so', async () => {
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
  it('cuts off a last line in pieces, says so in the log, and goes on', async () => {
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

import { execFileSync } from 'node:child_process';
import { closeSync, constants, openSync, unlinkSync, writeFileSync } from 'node:fs';
import { mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  type AuditLine,
  auditChain,
  auditLineOf,
  eventAt,
  sha256Of,
  textOf,
} from '../../test/audit-lines.ts';
import { type Identity, openIdentity } from '../identity.ts';
import { anchorFile, auditFile, linesOf } from './audit-files.ts';
import { type VerifyOptions, verifyAudit } from './verify-audit.ts';

let folder: string;
let identity: Identity;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-verify-'));
  identity = await openIdentity(folder);
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const lines = auditChain(5);
const headOf = ({ sequence, sha256 }: AuditLine) => ({ sequence, sha256 });
const write = (all: readonly AuditLine[], name = auditFile) => writeFile(join(folder, name), textOf(all));
const signLine = async (line: Pick<AuditLine, 'sequence' | 'sha256'>, name = anchorFile) => {
  const { sequence, sha256 } = line;
  const payload = { sequence, sha256, time: new Date().toISOString() };
  await writeFile(join(folder, name), `${await identity.sign('tomaat-audit+jws', payload)}\n`);
};
/** A log of these lines, signed at its end. */
const log = async (all: readonly AuditLine[], signed: AuditLine = all.at(-1)!) => {
  await write(all);
  await signLine(signed);
};
const faultOf = async (options?: VerifyOptions) => {
  const error = await verifyAudit(folder, options).catch((caught: unknown) => caught);
  expect(error).toMatchObject({ code: 'BAD_SIGNATURE' });
  return (error as Error).message;
};

describe('verifyAudit()', () => {
  it('reports what a whole log holds', async () => {
    const own = auditChain(2);
    for (const event of ['log.repaired', 'server.started', 'log.repaired'])
      own.push(auditLineOf(own.length + 1, own.at(-1)!.sha256, eventAt(own.length + 1, event)));
    await write(own.slice(0, 2), 'audit-0000000002.jsonl');
    await write(own.slice(2));
    await signLine(own[3]);
    expect(await verifyAudit(folder)).toEqual({
      lines: 5,
      files: 2,
      first: '2026-01-01T00:00:01.000Z',
      last: '2026-01-01T00:00:05.000Z',
      events: { 'job.deleted': 2, 'log.repaired': 2, 'server.started': 1 },
      thumbprint: identity.thumbprint,
      signerChecked: false,
      anchored: headOf(own[3]),
      beyondAnchor: 1,
      repairs: 2,
    });
    await signLine(own[0]);
    expect((await verifyAudit(folder)).beyondAnchor).toBe(4);
  });

  it('takes an empty log that was signed as such', async () => {
    await log([], { ...auditLineOf(0, ''), sha256: '0'.repeat(64) });
    expect(await verifyAudit(folder)).toMatchObject({ lines: 0, files: 0, events: {} });
  });

  it('says which line was changed, of which file', async () => {
    for (const [at, name] of [0, 2, 4].map(
      (at) => [at, `line ${at + 1} of audit.jsonl was changed`] as const,
    )) {
      await log(
        lines.with(at, { ...lines[at], text: lines[at].text.replace('deleted', 'Deleted') }),
        lines[4],
      );
      expect(await faultOf()).toContain(name);
    }
    await write(lines.slice(0, 3), 'audit-0000000003.jsonl');
    await write([lines[3], { ...lines[4], text: lines[4].text.replace('05', '06') }]);
    expect(await faultOf()).toContain('line 2 of audit.jsonl was changed');
  });

  it('says which line does not end', async () => {
    await log(lines);
    const path = join(folder, auditFile);
    const text = await readFile(path, 'utf8');
    await writeFile(path, text.slice(0, -1));
    expect(await faultOf()).toContain('line 5 of audit.jsonl is incomplete');
  });

  it('says which number was expected where lines are missing', async () => {
    await log(lines.toSpliced(2, 1));
    const message = await faultOf();
    expect(message).toContain('line 3 of audit.jsonl has the number 4, but 3 comes next');
    expect(message).not.toContain('--from');
    await log(lines.slice(1));
    expect(await faultOf()).toMatch(/line 1 of audit\.jsonl has the number 2, but 1 comes next.*--from 2/);
    await log(lines.toSpliced(1, 0, lines[0]));
    expect(await faultOf()).toContain('line 2 of audit.jsonl has the number 1, but 2 comes next');
  });

  it('says which line does not follow the one before it', async () => {
    const foreign = auditLineOf(3, sha256Of('another log'));
    await log(lines.with(2, foreign));
    expect(await faultOf()).toContain('line 3 of audit.jsonl does not follow the line before it');
    const first = auditLineOf(1, sha256Of('another log'));
    await log(lines.with(0, first));
    expect(await faultOf()).toContain('line 1 of audit.jsonl does not follow');
  });

  it('reports where the log was truncated before its signed line', async () => {
    await log(lines.slice(0, 3), lines[4]);
    expect(await faultOf()).toContain('ends with line 3, but line 5 was signed');
    const { sequence, sha256 } = lines[3];
    expect(await faultOf({ anchors: [{ sequence, sha256 }] })).toContain('line 4 was signed');
    await write([]);
    expect(await faultOf({ from: 2 })).toContain('ends with line 0');
  });

  it('says which line is not the one that a receipt knows', async () => {
    await log(lines);
    expect(await verifyAudit(folder, { anchors: lines.map(headOf) })).toMatchObject({ lines: 5 });
    const other = { sequence: 2, sha256: sha256Of('another') };
    expect(await faultOf({ anchors: [other] })).toContain('line 2 of audit.jsonl is not the line');
    expect(await faultOf({ anchors: [headOf(lines[1]), other] })).toContain('line 2 has two known hashes');
    // Of before the first line, or of lines that are elsewhere, it cannot say anything.
    const none = { sequence: 0, sha256: sha256Of('none') };
    expect(await verifyAudit(folder, { anchors: [none] })).toMatchObject({ lines: 5 });
    expect(await verifyAudit(folder, { anchors: [other], from: 3 })).toMatchObject({ lines: 3 });
    expect(await faultOf({ anchors: [other], from: 2 })).toContain('line 2 of audit.jsonl is not the line');
  });

  it('begins at a line, whatever is before it', async () => {
    await log(lines.slice(2));
    expect(await verifyAudit(folder, { from: 3 })).toMatchObject({
      lines: 3,
      first: '2026-01-01T00:00:03.000Z',
    });
    expect(await verifyAudit(folder, { from: 5 })).toMatchObject({ lines: 1, beyondAnchor: 0 });
    expect(await faultOf({ from: 2 })).toContain('line 1 of audit.jsonl has the number 3, but 2 comes next');
    expect(await faultOf()).toContain('--from 3');
  });

  it.each([
    ['"time":"2026-01-01T00:00:01Z","event":"Bad"', 'an event in capitals'],
    ['"time":"2026-01-01T00:00:01Z","event":"a.b c"', 'an event of two words'],
    ['"time":"2026-01-01T00:00:01Z"', 'no event'],
    ['"time":"yesterday","event":"job.deleted"', 'no time'],
    ['"event":"job.deleted"', 'no time at all'],
    ['half of it', 'no JSON'],
  ])('refuses a line with a hash that holds, but %s: %s', async (fields) => {
    await log([lines[0], auditLineOf(2, lines[0].sha256, fields)]);
    expect(await faultOf()).toContain('line 2 of audit.jsonl does not state an event and a time');
  });

  it('checks the signer only if permitted signers are given', async () => {
    await log(lines);
    const { thumbprint } = identity;
    expect(await verifyAudit(folder, { signers: ['other', thumbprint] })).toMatchObject({
      signerChecked: true,
      thumbprint,
    });
    const message = await faultOf({ signers: ['one', 'two'] });
    expect(message).toContain(`signed by ${thumbprint}, not by one or two`);
  });

  it('needs a log and its signature', async () => {
    await expect(verifyAudit(folder)).rejects.toMatchObject({
      code: 'NOT_FOUND',
      message: expect.stringContaining(folder),
    });
    await write(lines);
    expect(await faultOf()).toContain('audit.head, which signs its end, is missing');
    await expect(verifyAudit(join(folder, 'none'))).rejects.toMatchObject({ code: 'ENOENT' });
  });

  it('reads files of another place once, beside those of the folder or alone', async () => {
    await log(lines.slice(2));
    const archive = join(folder, 'first.old');
    await writeFile(archive, textOf(lines.slice(0, 2)));
    await symlink(archive, join(folder, 'same.old'));
    const files = [archive, join(folder, 'same.old'), join(folder, auditFile)];
    expect(await verifyAudit(folder, { files })).toMatchObject({ lines: 5, files: 2 });
    await signLine(lines[1], 'copy.head');
    const headFile = join(folder, 'copy.head');
    expect(await verifyAudit(folder, { files: [archive], headFile })).toMatchObject({
      lines: 2,
      files: 1,
      anchored: headOf(lines[1]),
    });
    await expect(verifyAudit(folder, { headFile })).rejects.toMatchObject({ code: 'NOT_FOUND' });
    expect(await faultOf({ files: [join(folder, auditFile)], headFile })).toContain('--from 3');
  });

  it('names the file that cannot be decompressed', async () => {
    await log(lines);
    const packed = gzipSync(textOf(auditChain(50)));
    for (const bytes of [packed.subarray(0, 200), packed.with(100, packed[100] ^ 1)]) {
      await writeFile(join(folder, 'audit.jsonl'), bytes);
      expect(await faultOf()).toContain('audit.jsonl cannot be decompressed');
    }
    await writeFile(join(folder, 'audit.jsonl'), Uint8Array.of(0x42, 0x5a, 0x68, 0x39));
    await expect(verifyAudit(folder)).rejects.toMatchObject({ code: 'UNSUPPORTED_FORMAT' });
  });

  it('rejects for a file that is not there, and leaves no stream behind', async () => {
    const lines = linesOf(join(folder, 'none.jsonl'));
    await expect(lines.next()).rejects.toMatchObject({ code: 'ENOENT' });
  });
});

describe.skipIf(process.platform === 'win32')('verifyAudit() while a server begins a new file', () => {
  /** Opens a pipe as a writer once somebody waits to read it, and does `work` before that one goes on. */
  const atReader = (pipe: string, work: () => void) =>
    expect
      .poll(
        () => {
          try {
            closeSync(openSync(pipe, constants.O_WRONLY | constants.O_NONBLOCK));
          } catch (error) {
            return (error as NodeJS.ErrnoException).code;
          }
          work();
          return undefined;
        },
        { interval: 1 },
      )
      .toBeUndefined();

  // A pipe in the place of a file is opened when it has a writer, and cannot be read like a file.
  const makePipe = (name: string) => {
    execFileSync('mkfifo', [join(folder, name)]);
    return join(folder, name);
  };

  it('looks again, and finds the log whole', async () => {
    await log(lines);
    const pipe = makePipe('audit.jsonl.1');
    const report = verifyAudit(folder);
    await atReader(pipe, () => unlinkSync(pipe));
    expect(await report).toMatchObject({ lines: 5, files: 1 });
  });

  it('gives up at the fourth time', async () => {
    await log(lines);
    const pipe = makePipe('audit.jsonl.1');
    const failed = expect(verifyAudit(folder)).rejects.toMatchObject({ code: 'ESPIPE' });
    for (let time = 1; time <= 4; time++) {
      await atReader(pipe, () => {
        unlinkSync(pipe);
        // A fifth look would find the log whole.
        if (time < 4) makePipe('audit.jsonl.1');
      });
    }
    await failed;
  });

  it('looks once where nothing has changed, or where files are given', async () => {
    await log(lines);
    const pipe = makePipe('audit.jsonl.1');
    const failed = expect(verifyAudit(folder)).rejects.toMatchObject({ code: 'ESPIPE' });
    await atReader(pipe, () => {});
    await failed;
    const headFile = join(folder, anchorFile);
    const given = expect(verifyAudit(folder, { files: [pipe], headFile })).rejects.toMatchObject({
      code: 'ESPIPE',
    });
    await atReader(pipe, () => writeFileSync(join(folder, 'audit.jsonl.2'), ''));
    await given;
  });
});

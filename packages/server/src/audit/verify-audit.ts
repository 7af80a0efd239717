import { createReadStream, existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { verifySigned } from '@tomaat/client';
import { TomaatError } from '@tomaat/core';
import { type AuditHead, anchorFile, auditFile, firstHead, headOfLine, olderFile } from './audit-log.ts';

export interface AuditReport {
  lines: number;
  files: number;
  first?: string;
  last?: string;
  events: Record<string, number>;
  /** The key that signed the newest number and hash. */
  thumbprint: string;
  anchored: AuditHead;
  /** Lines after the signed one: of the last minute, or of a server that was killed. */
  beyondAnchor: number;
  repairs: number;
}

/**
 * Checks the audit log of a data folder. Found are: a byte that was changed in any line, lines that were removed, put in,
 * doubled or moved, and an end that was cut off before the newest signed line. Not found: lines cut off behind that one
 * (of the last minute before a kill), and a whole log that was written anew by someone who has the key of the folder; against
 * that, compare `anchors`, which receipts hold, or keep copies elsewhere.
 * @throws TomaatError BAD_SIGNATURE that says which line of which file is broken, and how.
 */
export async function verifyAudit(
  dataFolder: string,
  { from = 1, anchors = [] }: { from?: number; anchors?: readonly AuditHead[] } = {},
): Promise<AuditReport> {
  const names = (await readdir(dataFolder)).filter((name) => olderFile.test(name)).sort();
  if (existsSync(join(dataFolder, auditFile))) names.push(auditFile);
  if (names.length === 0) {
    throw new TomaatError('NOT_FOUND', `There is no audit log in ${dataFolder}. Check --data.`);
  }
  const signed = await readAnchor(dataFolder);
  const wanted = new Map<number, string>();
  for (const { sequence, sha256 } of [signed, ...anchors]) {
    if (sequence > 0 && sequence >= from && wanted.has(sequence) && wanted.get(sequence) !== sha256)
      throw broken(`two hashes are known of line ${sequence}: the log was written anew.`);
    if (sequence > 0 && sequence >= from) wanted.set(sequence, sha256);
  }
  const report: AuditReport = {
    lines: 0,
    files: names.length,
    events: {},
    thumbprint: signed.thumbprint,
    anchored: { sequence: signed.sequence, sha256: signed.sha256 },
    beyondAnchor: 0,
    repairs: 0,
  };
  let head: AuditHead | undefined = from === 1 ? firstHead : undefined;
  for (const name of names) {
    let number = 0;
    for await (const line of linesOf(join(dataFolder, name))) {
      number++;
      const where = `line ${number} of ${name}`;
      if (line.torn) throw broken(`${where} does not end: it was cut off.`);
      const found = headOfLine(line.text);
      if (!found) throw broken(`${where} was changed: it does not have the hash that it states.`);
      if (head === undefined && found.sequence < from) continue;
      head ??= { sequence: from - 1, sha256: found.prev };
      if (found.sequence !== head.sequence + 1) {
        throw broken(
          `${where} has the number ${found.sequence}, but ${head.sequence + 1} comes next: lines were removed, put in or moved.`,
        );
      }
      if (found.prev !== head.sha256) {
        throw broken(`${where} does not follow the line before it: one of the two was put in.`);
      }
      const known = wanted.get(found.sequence);
      if (known !== undefined && known !== found.sha256) {
        throw broken(`${where} is another than the one that was signed: the log was written anew.`);
      }
      wanted.delete(found.sequence);
      head = { sequence: found.sequence, sha256: found.sha256 };
      const { event, time } = JSON.parse(line.text) as { event: string; time: string };
      report.lines++;
      report.first ??= time;
      report.last = time;
      report.events[event] = (report.events[event] ?? 0) + 1;
      if (event === 'log.repaired') report.repairs++;
      if (found.sequence > signed.sequence) report.beyondAnchor++;
    }
  }
  const missing = Math.min(...wanted.keys());
  if (wanted.size > 0) {
    throw broken(
      `the log ends with line ${head?.sequence ?? 0}, but line ${missing} was signed: its end was cut off.`,
    );
  }
  return report;
}

async function readAnchor(dataFolder: string): Promise<AuditHead & { thumbprint: string }> {
  let text: string;
  try {
    text = await readFile(join(dataFolder, anchorFile), 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    throw broken(`${anchorFile}, which signs its end, is missing.`);
  }
  const { payload, thumbprint } = await verifySigned(text.replace(/\n$/, ''), 'tomaat-audit+jws');
  const { sequence, sha256 } = payload as AuditHead;
  if (!Number.isSafeInteger(sequence) || !/^[0-9a-f]{64}$/.test(String(sha256)))
    throw broken(`${anchorFile} holds no line’s number and hash.`);
  return { sequence, sha256, thumbprint };
}

const broken = (what: string) => new TomaatError('BAD_SIGNATURE', `The audit log is broken: ${what}`);

async function* linesOf(path: string): AsyncGenerator<{ text: string; torn: boolean }> {
  let rest = Buffer.alloc(0);
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) {
    let bytes = Buffer.concat([rest, chunk as Buffer]);
    for (let at = bytes.indexOf(10); at >= 0; at = bytes.indexOf(10)) {
      // As bytes: a byte that is no UTF-8 has to be seen as another one.
      yield { text: bytes.toString('latin1', 0, at), torn: false };
      bytes = bytes.subarray(at + 1);
    }
    rest = bytes;
  }
  if (rest.length > 0) yield { text: rest.toString('latin1'), torn: true };
}

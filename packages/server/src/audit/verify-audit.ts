import { statSync } from 'node:fs';
import { realpath } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import type { Kysely } from 'kysely';
import type { AuditSchema } from '../store/database/audit-schema.ts';
import {
  type AuditHead,
  anchorFile,
  auditFiles,
  firstHead,
  headOfLine,
  inOrder,
  linesOf,
  readAnchor,
  sequenceOf,
} from './audit-files.ts';
import { readHead, readSignedHead } from './audit-table.ts';

export interface AuditReport {
  lines: number;
  files: number;
  first?: string;
  last?: string;
  events: Record<string, number>;
  /** The key that signed the newest number and hash. */
  thumbprint: string;
  /** Whether that key is one of `signers`. */
  signerChecked: boolean;
  anchored: AuditHead;
  /** Lines after the signed one: of the last minute, or of a killed server. */
  beyondAnchor: number;
  repairs: number;
}

export interface VerifyOptions {
  /** The number of the first existing line: older files were moved elsewhere. */
  from?: number;
  /** Lines known from elsewhere, such as from receipts. */
  anchors?: readonly AuditHead[];
  /** Thumbprints of the keys that may have signed the newest line. */
  signers?: readonly string[];
  /** Older files of the log, compressed or not, besides those in the folder. */
  files?: readonly string[];
  /** A copy of `audit.head`: then only `files` are checked. */
  headFile?: string;
}

/**
 * Checks the chain of an audit log and the signature of its newest line. It detects a changed byte in any line,
 * lines that were removed, inserted, doubled or moved, and an end that was cut off before the newest signed line. This
 * holds only for a signature by a key that nobody else has: without `signers`, or if somebody else can read the key, the
 * whole log may have been rewritten. It does not detect lines cut off after the signed one (of the last minute before a
 * kill).
 * @throws TomaatError BAD_SIGNATURE that says which line of which file is broken, and how.
 */
export async function verifyAudit(dataFolder: string, options: VerifyOptions = {}): Promise<AuditReport> {
  for (let left = 3; ; left--) {
    const before = await stateOf(dataFolder, options);
    try {
      return await verifyOnce(dataFolder, options);
    } catch (error) {
      // A server may have begun a new file after the folder was listed.
      if (left === 0 || before === (await stateOf(dataFolder, options))) throw error;
    }
  }
}

/** The existing files: their names and identities. */
async function stateOf(dataFolder: string, { headFile }: VerifyOptions): Promise<string> {
  if (headFile !== undefined) return '';
  const files = (await auditFiles(dataFolder)).sort();
  return files.map((path) => `${path} ${statSync(path, { throwIfNoEntry: false })?.ino}`).join('\n');
}

async function verifyOnce(dataFolder: string, options: VerifyOptions): Promise<AuditReport> {
  const paths = await pathsOf(dataFolder, options);
  const signed = await readAnchor(options.headFile ?? join(dataFolder, anchorFile));
  if (!signed) throw broken(`${anchorFile}, which signs its end, is missing.`);
  return checkChain(linesIn(paths), signed, { ...options, sources: paths.length });
}

/**
 * The same of the log in a shared database. `files` are those of the servers whose logs it continues; their folder is not searched.
 * @throws TomaatError BAD_SIGNATURE, as verifyAudit() does
 */
export async function verifyAuditTable(
  db: Kysely<AuditSchema>,
  options: Omit<VerifyOptions, 'headFile'> = {},
): Promise<AuditReport> {
  const paths = await inOrder(options.files ?? []);
  if (paths.length === 0 && (await isUnused(db)))
    throw new TomaatError(
      'NOT_FOUND',
      'There is no audit log in the database: no server has run on it yet. Check --database.',
    );
  const signed = await readSignedHead(db);
  if (!signed)
    throw broken(
      'none of its lines is signed. Start a server, which signs them; if one has run on this database, the signature was removed.',
    );
  // The newest line when this began: rows that were removed from the end are missed, signed or not.
  const newest = await readHead(db);
  async function* lines(): AsyncGenerator<ReadLine> {
    yield* linesIn(paths);
    yield* linesOfTable(db);
  }
  const anchors = [...(options.anchors ?? []), newest];
  return checkChain(lines(), signed, { ...options, anchors, sources: paths.length });
}

/** Whether no server has begun the log of a shared database. */
export async function isUnused(db: Kysely<AuditSchema>): Promise<boolean> {
  const heads = await db.selectFrom('audit_head').selectAll().execute();
  const lines = await db.selectFrom('audit_line').select('sequence').limit(1).execute();
  return lines.length === 0 && heads.every(({ sequence, signed }) => sequence === 0 && signed === null);
}

/** A line, and where it is. */
interface ReadLine {
  readonly text: string;
  readonly torn: boolean;
  readonly where: string;
}

async function* linesIn(paths: readonly string[]): AsyncGenerator<ReadLine> {
  for (const path of paths) {
    let number = 0;
    for await (const line of readable(path)) {
      number++;
      yield { ...line, where: `line ${number} of ${basename(path)}` };
    }
  }
}

/** Rows that are read at once. */
const rowsAtOnce = 1000;

async function* linesOfTable(db: Kysely<AuditSchema>): AsyncGenerator<ReadLine> {
  for (let last = 0; ; ) {
    const rows = await db
      .selectFrom('audit_line')
      .selectAll()
      .where('sequence', '>', last)
      .orderBy('sequence')
      .limit(rowsAtOnce)
      .execute();
    for (const { line, sequence } of rows) {
      // A row whose number is not that of its line would be skipped by others, or read twice.
      if (sequenceOf(line) !== sequence) throw broken(`row ${sequence} of the database holds another line.`);
      yield { text: line, torn: false, where: `row ${sequence} of the database` };
    }
    if (rows.length < rowsAtOnce) return;
    last = rows[rows.length - 1].sequence;
  }
}

async function checkChain(
  lines: AsyncIterable<ReadLine>,
  signed: AuditHead & { thumbprint: string },
  { from = 1, anchors = [], signers = [], sources }: VerifyOptions & { sources: number },
): Promise<AuditReport> {
  if (signers.length > 0 && !signers.includes(signed.thumbprint)) {
    throw new TomaatError(
      'BAD_SIGNATURE',
      `The newest line of the audit log was signed by ${signed.thumbprint}, not by ${signers.join(' or ')}: the log belongs to another server, or was rewritten.`,
    );
  }
  const wanted = wantedHashes([signed, ...anchors], from);
  const report: AuditReport = {
    lines: 0,
    files: sources,
    events: {},
    thumbprint: signed.thumbprint,
    signerChecked: signers.length > 0,
    anchored: { sequence: signed.sequence, sha256: signed.sha256 },
    beyondAnchor: 0,
    repairs: 0,
  };
  let head: AuditHead | undefined = from === 1 ? firstHead : undefined;
  for await (const { text, torn, where } of lines) {
    if (torn) throw broken(`${where} is incomplete: it was cut off.`);
    const found = headOfLine(text);
    if (!found) throw broken(`${where} was changed: its hash does not match.`);
    if (head === undefined && found.sequence < from) continue;
    head ??= { sequence: from - 1, sha256: found.prev };
    requireNext(found, head, where);
    const known = wanted.get(found.sequence);
    if (known !== undefined && known !== found.sha256) {
      throw broken(`${where} is not the line that was signed: the log was rewritten.`);
    }
    wanted.delete(found.sequence);
    head = { sequence: found.sequence, sha256: found.sha256 };
    count(report, text, where);
    if (found.sequence > signed.sequence) report.beyondAnchor++;
  }
  if (wanted.size > 0) {
    throw broken(
      `the log ends with line ${head?.sequence ?? 0}, but line ${Math.min(...wanted.keys())} was signed: its end was cut off.`,
    );
  }
  return report;
}

async function pathsOf(dataFolder: string, { files = [], headFile }: VerifyOptions): Promise<string[]> {
  const known = new Map<string, string>();
  for (const path of [...files, ...(headFile === undefined ? await auditFiles(dataFolder) : [])])
    known.set(await realpath(path), path);
  if (known.size === 0) {
    throw new TomaatError('NOT_FOUND', `There is no audit log in ${dataFolder}. Check --data.`);
  }
  return inOrder([...known.values()]);
}

/** The required hashes of lines, by number. */
function wantedHashes(heads: readonly AuditHead[], from: number): Map<number, string> {
  const wanted = new Map<number, string>();
  for (const { sequence, sha256 } of heads) {
    if (sequence === 0 || sequence < from) continue;
    if (wanted.has(sequence) && wanted.get(sequence) !== sha256)
      throw broken(`line ${sequence} has two known hashes: the log was rewritten.`);
    wanted.set(sequence, sha256);
  }
  return wanted;
}

function requireNext(found: AuditHead & { prev: string }, head: AuditHead, where: string): void {
  if (found.sequence !== head.sequence + 1) {
    const advice =
      head.sequence === 0
        ? ` If older files were moved elsewhere, name them too, or start with --from ${found.sequence}.`
        : '';
    throw broken(
      `${where} has the number ${found.sequence}, but ${head.sequence + 1} comes next: lines were removed, inserted or moved.${advice}`,
    );
  }
  if (found.prev !== head.sha256) {
    throw broken(`${where} does not follow the line before it: one of the two was inserted.`);
  }
}

function count(report: AuditReport, text: string, where: string): void {
  const { event, time } = parse(text, where);
  report.lines++;
  report.first ??= time;
  report.last = time;
  report.events[event] = (report.events[event] ?? 0) + 1;
  if (event === 'log.repaired') report.repairs++;
}

/** A rewritten log has valid hashes whatever its lines contain. */
function parse(text: string, where: string): { event: string; time: string } {
  try {
    const { event, time } = JSON.parse(text) as Record<string, unknown>;
    if (/^[a-z]+\.[a-z]+$/.test(String(event)) && !Number.isNaN(Date.parse(String(time))))
      return { event: String(event), time: String(time) };
  } catch {
    // Said below.
  }
  throw broken(`${where} does not state an event and a time: it was inserted.`);
}

/** The lines of a file; if it cannot be decompressed, the log is broken. */
async function* readable(path: string): ReturnType<typeof linesOf> {
  try {
    yield* linesOf(path);
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException;
    if (!/^Z_|^ERR_|^ZSTD/.test(code)) throw error;
    throw broken(`${basename(path)} cannot be decompressed: it was cut off or changed.`, error);
  }
}

const broken = (what: string, cause?: unknown) =>
  new TomaatError('BAD_SIGNATURE', `The audit log is broken: ${what}`, { cause });

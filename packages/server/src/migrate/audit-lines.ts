import { constants } from 'node:fs';
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import { type Kysely, sql } from 'kysely';
import {
  type AuditHead,
  anchorFile,
  auditFile,
  auditFiles,
  firstHead,
  headOfLine,
  headOfSignature,
  inOrder,
  lastHeadOf,
  lastLineEnd,
  linesOf,
  newestHead,
} from '../audit/audit-files.ts';
import { appendLines, readHead } from '../audit/audit-table.ts';
import type { AuditSchema } from '../store/database/audit-schema.ts';
import { writeWhole } from '../store/files/whole-file.ts';

/** Moves the audit log between the files of a data folder and the table of a shared database: the same lines, in one chain. */

const linesAtOnce = 500;

/**
 * Writes the lines of a folder's files into the empty table, and one that says that they were moved.
 * @returns how many there were
 * @throws TomaatError BAD_SIGNATURE if a line is not the one after that before it: `tomaat audit verify` says more
 */
export async function fillAuditTable(trx: Kysely<AuditSchema>, folder: string): Promise<number> {
  let head: AuditHead | undefined;
  let count = 0;
  let rows: AuditSchema['audit_line'][] = [];
  const write = async () => {
    if (rows.length > 0) await trx.insertInto('audit_line').values(rows).execute();
    count += rows.length;
    rows = [];
  };
  for (const path of await inOrder(await auditFiles(folder))) {
    for await (const { text, torn } of linesOf(path)) {
      // Of a server that was killed while it wrote: it was not recorded.
      if (torn) continue;
      const found = headOfLine(text);
      if (!found || (head && (found.sequence !== head.sequence + 1 || found.prev !== head.sha256)))
        throw new TomaatError(
          'BAD_SIGNATURE',
          `The audit log is broken after line ${head?.sequence ?? 0}, in ${path}. “tomaat audit verify” says how. To move the rest without the log, move its files and ${anchorFile} elsewhere first.`,
        );
      head = found;
      rows.push({ sequence: found.sequence, line: text });
      if (rows.length === linesAtOnce) await write();
    }
  }
  await write();
  if (head) {
    const signed = (await readFile(join(folder, anchorFile), 'utf8').catch(() => undefined))?.trimEnd();
    const upTo = signed === undefined ? 0 : await sequenceOfSignature(signed);
    await sql`UPDATE audit_head SET sequence = ${head.sequence}, sha256 = ${head.sha256},
      signed = ${signed ?? null}, signed_sequence = ${upTo}`.execute(trx);
  }
  await appendLines(trx, [[new Date(), 'data.moved', { outcome: 'shared database' }]]);
  return count;
}

/** The number that a signature states; 0 if it is invalid, which who verifies the log is told. */
const sequenceOfSignature = (signed: string): Promise<number> =>
  headOfSignature(signed, anchorFile).then(
    ({ sequence }) => sequence,
    () => 0,
  );

/**
 * Continues the files of a folder with the lines of the table that come after theirs, and signs as the table is signed.
 * @returns how many there were
 * @throws TomaatError CONFLICT if the files are of another log
 */
export async function continueAuditFiles(db: Kysely<AuditSchema>, folder: string): Promise<number> {
  const head = await readHead(db);
  await using file = await open(
    join(folder, auditFile),
    constants.O_APPEND | constants.O_CREAT | constants.O_RDWR,
    0o600,
  );
  // Half a line is left by a command that was killed.
  await file.truncate(lastLineEnd(file.fd, (await file.stat()).size));
  const existing = (await newestHead(folder, undefined)) ?? firstHead;
  await requireSameLog(db, existing, folder);
  let count = 0;
  for (let last = existing.sequence; ; ) {
    const rows = await db
      .selectFrom('audit_line')
      .selectAll()
      .where('sequence', '>', last)
      .orderBy('sequence')
      .limit(linesAtOnce)
      .execute();
    if (rows.length === 0) break;
    await file.appendFile(rows.map(({ line }) => `${line}\n`).join(''));
    last = rows[rows.length - 1].sequence;
    count += rows.length;
  }
  await file.sync();
  const { signed } = await db.selectFrom('audit_head').select('signed').executeTakeFirstOrThrow();
  if (signed !== null && head.sequence > 0) await writeWhole(join(folder, anchorFile), `${signed}\n`);
  return count;
}

async function requireSameLog(db: Kysely<AuditSchema>, existing: AuditHead, folder: string): Promise<void> {
  if (existing.sequence === 0) return;
  const row = await db
    .selectFrom('audit_line')
    .select('line')
    .where('sequence', '=', existing.sequence)
    .executeTakeFirst();
  if (row && lastHeadOf(row.line).sha256 === existing.sha256) return;
  throw new TomaatError(
    'CONFLICT',
    `The audit log in ${folder} is not the beginning of the one in the database. Give a folder without an audit log, or move its files elsewhere.`,
  );
}

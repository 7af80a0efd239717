import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { verifyReceipt } from '@tomaat/client';
import { TomaatError } from '@tomaat/core';
import type { Kysely } from 'kysely';
import { type AuditHead, auditFile, auditFiles } from '../audit/audit-files.ts';
import { openAudit } from '../audit/audit-log.ts';
import { type AuditReport, isUnused, verifyAudit, verifyAuditTable } from '../audit/verify-audit.ts';
import { dataFolderFor } from '../config.ts';
import { openIdentity, thumbprintOf } from '../identity.ts';
import { doAsHolder } from '../store/control.ts';
import type { AuditSchema } from '../store/database/audit-schema.ts';
import { gatewayFolder } from '../store/database/gateway-database.ts';
import { openServerDatabase } from '../store/database/server-database.ts';
import { actAsOwner } from '../store/files/folder-owner.ts';
import { plain } from './console.ts';
import { type OwnerFlags, ownersOf } from './owners.ts';
import { databaseFor, requireOwnDatabase } from './shared-database.ts';

/** The logs of a data folder: a gateway has its own. */
const auditLogs = ['server', 'gateway'] as const;
type AuditLog = (typeof auditLogs)[number];

const logFolder = (folder: string, log: AuditLog): string =>
  log === 'server' ? folder : gatewayFolder(folder);
const logNames: Record<AuditLog, string> = { server: 'The audit log', gateway: 'The gateway’s audit log' };

/** The logs that are there; the server's if none is, so that a missing one is reported. */
async function existingLogs(folder: string, shared?: string): Promise<readonly AuditLog[]> {
  const found: AuditLog[] = [];
  for (const log of auditLogs) {
    const at = logFolder(folder, log);
    const isThere =
      log === 'server' && shared !== undefined
        ? await hasTable(folder, shared)
        : existsSync(at) && (await auditFiles(at)).length > 0;
    if (isThere) found.push(log);
  }
  return found.length > 0 ? found : ['server'];
}

async function hasTable(folder: string, shared: string): Promise<boolean> {
  await using database = await openServerDatabase(folder, shared);
  return !(await isUnused(database.db as unknown as Kysely<AuditSchema>));
}

export interface AuditVerifyFlags {
  data?: string;
  database?: string;
  log?: AuditLog;
  from: number;
  receipt: readonly string[];
  key: readonly string[];
  head?: string;
  json?: boolean;
}

/**
 * `tomaat audit verify [FILE…]`: 0 if every log is intact and signed by a known key; 1 with the broken line, and 1 if nothing
 * states which key must have signed it. Files, receipts and numbers of lines are about one log.
 */
export async function auditVerify(files: readonly string[], flags: AuditVerifyFlags): Promise<number> {
  const folder = dataFolderFor(flags);
  const isAboutOne =
    files.length > 0 || flags.from > 1 || flags.receipt.length > 0 || flags.head !== undefined;
  const shared = databaseFor(flags);
  const logs = flags.log
    ? [flags.log]
    : isAboutOne
      ? (['server'] as const)
      : await existingLogs(folder, shared);
  const verified: Verified[] = [];
  for (const log of logs) {
    // A copy of audit.head is about files alone.
    const table = log === 'server' && flags.head === undefined ? shared : undefined;
    verified.push({
      log,
      isTable: table !== undefined,
      ...(await verifyLog(folder, log, files, flags, table)),
    });
  }
  const isOk = verified.every(({ report }) => report.signerChecked);
  if (flags.json) {
    const [first, second] = verified.map(({ report, fault }) => ({ ...report, fault }));
    console.log(JSON.stringify({ ...first, ok: isOk, gateway: second }));
  } else console.log(verified.flatMap(linesOf).map(plain).join('\n'));
  return isOk ? 0 : 1;
}

interface Verified {
  readonly log: AuditLog;
  /** Whether it is in a shared database. */
  readonly isTable: boolean;
  readonly report: AuditReport;
  /** Why its signer is unknown. */
  readonly fault?: string;
}

async function verifyLog(
  folder: string,
  log: AuditLog,
  files: readonly string[],
  flags: AuditVerifyFlags,
  table: string | undefined,
): Promise<Omit<Verified, 'log' | 'isTable'>> {
  const anchors: AuditHead[] = [];
  const issuers: string[] = [];
  for (const file of flags.receipt) {
    const { receipt, thumbprint } = await verifyReceipt(await readFile(file, 'utf8'));
    issuers.push(thumbprint);
    if (receipt.audit) anchors.push(receipt.audit);
  }
  const own = await thumbprintOf(folder);
  const known = own.thumbprint === undefined ? issuers : [own.thumbprint];
  const signers = flags.key.length > 0 ? flags.key : known;
  const options = { from: Math.max(1, flags.from), anchors, signers, files };
  const report = await named(log, async () => {
    if (table === undefined) return verifyAudit(logFolder(folder, log), { ...options, headFile: flags.head });
    await using database = await openServerDatabase(folder, table);
    return await verifyAuditTable(database.db as unknown as Kysely<AuditSchema>, options);
  });
  const other = issuers.find((issuer) => ![...signers, report.thumbprint].includes(issuer));
  if (other !== undefined) {
    throw new TomaatError(
      'BAD_SIGNATURE',
      `A receipt was signed by ${other}, and the audit log by ${report.thumbprint}. If the server has a new key, name both: --key ${other} --key ${report.thumbprint}`,
    );
  }
  const fault = report.signerChecked
    ? undefined
    : `The signer was not checked: ${own.fault}. Anyone who can write to these files could have rewritten all of them. Give the thumbprint that the server prints at startup (Identity): --key THUMBPRINT, or a receipt: --receipt FILE.`;
  return { report, fault };
}

/** A fault of the gateway's log says so. */
async function named<T>(log: AuditLog, verify: () => Promise<T>): Promise<T> {
  try {
    return await verify();
  } catch (error) {
    if (log === 'server' || !(error instanceof TomaatError)) throw error;
    const { code, message, cause } = error;
    throw new TomaatError(code, message.replace(logNames.server, logNames[log]), { cause });
  }
}

function linesOf({ log, isTable, report, fault }: Verified): string[] {
  const name = logNames[log];
  const { lines, files, anchored, beyondAnchor, repairs, events } = report;
  const inFiles = files > 0 || !isTable ? [`${files} file${files === 1 ? '' : 's'}`] : [];
  const places = [...inFiles, ...(isTable ? ['the database'] : [])].join(' and ');
  const chain = `${lines} line${lines === 1 ? '' : 's'} in ${places}, ${report.first} to ${report.last}.`;
  const unsigned =
    beyondAnchor > 0
      ? `; ${beyondAnchor} newer line${beyondAnchor === 1 ? ' is' : 's are'} not signed yet`
      : '';
  return [
    fault === undefined
      ? `${name} is intact: ${chain}`
      : `The chain of ${name[0].toLowerCase()}${name.slice(1)} is intact: ${chain}`,
    `Signed up to line ${anchored.sequence} by ${report.thumbprint}${unsigned}.`,
    ...(fault === undefined ? [] : [fault]),
    ...(repairs > 0
      ? [
          `An incomplete last line was removed ${repairs === 1 ? 'once' : `${repairs} times`}, as after a power failure.`,
        ]
      : []),
    ...Object.entries(events)
      .sort(([a], [b]) => a.localeCompare(b))
      .map(([event, count]) => `  ${String(count).padStart(6)}  ${event}`),
  ];
}

/** `tomaat audit rotate`: begins a new file of each log, in the running server or gateway or without one. */
export async function auditRotate(flags: { data?: string; log?: AuditLog; json?: boolean }): Promise<number> {
  const folder = dataFolderFor(flags);
  if (flags.log !== 'gateway')
    requireOwnDatabase(
      flags,
      'Its audit log has no files to rotate: archive it with the backups of the database. --log gateway rotates that of a gateway.',
    );
  const logs = flags.log ? [flags.log] : await existingLogs(folder);
  const rotated: { log: AuditLog; closed?: string }[] = [];
  for (const log of logs) rotated.push({ log, closed: await rotateLog(folder, log) });
  if (flags.json) {
    const [first, second] = rotated.map(({ closed }) => ({ closed: closed ?? null }));
    console.log(JSON.stringify({ ...first, gateway: second }));
    return 0;
  }
  for (const { log, closed } of rotated)
    console.log(
      closed === undefined
        ? `${logNames[log]} has no new line since the last rotation.`
        : `${logNames[log]} continues in a new file. The previous one is ${closed}.`,
    );
  return 0;
}

async function rotateLog(folder: string, log: AuditLog): Promise<string | undefined> {
  const at = logFolder(folder, log);
  if (!existsSync(join(at, auditFile)))
    throw new TomaatError('NOT_FOUND', `There is no audit log in ${at}. Check --data.`);
  using _owner = actAsOwner(folder);
  const { closed } = await doAsHolder(at, { type: 'rotateAudit' }, async () => {
    await using audit = await openAudit(at, { identity: await openIdentity(folder) });
    return { closed: await audit.rotate() };
  });
  return closed;
}

/** `tomaat audit who`: the ids of a person or an address, one per line. */
export async function auditWho(flags: OwnerFlags & { json?: boolean }): Promise<number> {
  using _owner = actAsOwner(dataFolderFor(flags));
  const owners = await ownersOf(flags);
  console.log(flags.json ? JSON.stringify({ owners }) : owners.join('\n'));
  return 0;
}

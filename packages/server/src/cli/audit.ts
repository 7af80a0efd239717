import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { verifyReceipt } from '@tomaat/client';
import { TomaatError } from '@tomaat/core';
import { type AuditHead, auditFile } from '../audit/audit-files.ts';
import { openAudit } from '../audit/audit-log.ts';
import { type AuditReport, verifyAudit } from '../audit/verify-audit.ts';
import { dataFolderFor } from '../config.ts';
import { openIdentity, thumbprintOf } from '../identity.ts';
import { doAsHolder } from '../store/control.ts';
import { actAsOwner } from '../store/folder-owner.ts';
import { plain } from './console.ts';
import { type OwnerFlags, ownersOf } from './owners.ts';

export interface AuditVerifyFlags {
  data?: string;
  from: number;
  receipt: readonly string[];
  key: readonly string[];
  head?: string;
  json?: boolean;
}

/**
 * `tomaat audit verify [FILE…]`: 0 if the log is intact and signed by a known key; 1 with the broken line, and 1 if nothing
 * states which key must have signed it.
 */
export async function auditVerify(files: readonly string[], flags: AuditVerifyFlags): Promise<number> {
  const folder = dataFolderFor(flags);
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
  const report = await verifyAudit(folder, {
    from: Math.max(1, flags.from),
    anchors,
    signers,
    files,
    headFile: flags.head,
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
  if (flags.json) console.log(JSON.stringify({ ok: report.signerChecked, ...report, fault }));
  else console.log(linesOf(report, fault).map(plain).join('\n'));
  return report.signerChecked ? 0 : 1;
}

function linesOf(report: AuditReport, fault: string | undefined): string[] {
  const { lines, files, anchored, beyondAnchor, repairs, events } = report;
  const chain = `${lines} line${lines === 1 ? '' : 's'} in ${files} file${files === 1 ? '' : 's'}, ${report.first} to ${report.last}.`;
  const unsigned =
    beyondAnchor > 0
      ? `; ${beyondAnchor} newer line${beyondAnchor === 1 ? ' is' : 's are'} not signed yet`
      : '';
  return [
    fault === undefined
      ? `The audit log is intact: ${chain}`
      : `The chain of the audit log is intact: ${chain}`,
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

/** `tomaat audit rotate`: begins a new file of the log, in the running server or without one. */
export async function auditRotate(flags: { data?: string; json?: boolean }): Promise<number> {
  const folder = dataFolderFor(flags);
  if (!existsSync(join(folder, auditFile)))
    throw new TomaatError('NOT_FOUND', `There is no audit log in ${folder}. Check --data.`);
  using _owner = actAsOwner(folder);
  const { closed } = await doAsHolder(folder, { type: 'rotateAudit' }, async () => {
    await using audit = await openAudit(folder, { identity: await openIdentity(folder) });
    return { closed: await audit.rotate() };
  });
  if (flags.json) console.log(JSON.stringify({ closed: closed ?? null }));
  else if (closed === undefined) console.log('The audit log has no new line since the last rotation.');
  else console.log(`The audit log continues in a new file. The previous one is ${closed}.`);
  return 0;
}

/** `tomaat audit who`: the ids of a person or an address, one per line. */
export async function auditWho(flags: OwnerFlags & { json?: boolean }): Promise<number> {
  using _owner = actAsOwner(dataFolderFor(flags));
  const owners = await ownersOf(flags);
  console.log(flags.json ? JSON.stringify({ owners }) : owners.join('\n'));
  return 0;
}

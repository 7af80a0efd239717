import { setTimeout as delay } from 'node:timers/promises';
import { TomaatError } from '@tomaat/core';
import { type Kysely, type QueryExecutorProvider, sql } from 'kysely';
import type { AuditSchema } from '../store/database/audit-schema.ts';
import type { Database } from '../store/database/database.ts';
import { type AuditHead, firstHead, headOfSignature } from './audit-files.ts';
import { type Audit, type AuditOptions, auditLine, maxWaiting } from './audit-log.ts';
import type { AuditEvent, AuditFacts } from './events.ts';
import { type PendingState, takePending } from './pending.ts';

/**
 * The audit log of servers that share a database: the lines of `audit.jsonl`, as rows. A line about a change is inserted in the
 * transaction of the change; lines of all servers form one chain, because each takes the lock of the row with the newest
 * number and hash. The signature of that row is kept beside it.
 */

export interface AuditTableOptions
  extends Pick<AuditOptions, 'identity' | 'onFault' | 'anchorMs' | 'pendingMs' | 'now'> {
  /** Where commands on this machine leave lines. */
  dataFolder: string;
}

type Entry = readonly [time: Date, event: AuditEvent, facts: AuditFacts];

/** The most lines of one transaction: others wait for the lock meanwhile. */
const maxAtOnce = 100;
/** How long close() tries to write what waits. */
const closeMs = 5000;

/**
 * Adds lines in a transaction of the database. Call it last there: the lock of the log is held until the transaction ends.
 * @returns the newest line, once the transaction is committed
 */
export async function appendLines(trx: QueryExecutorProvider, entries: readonly Entry[]): Promise<AuditHead> {
  // Read committed: after the wait for the lock the row is read again.
  let head = await readHead(trx, sql`FOR UPDATE`);
  const rows = entries.map((entry) => {
    const next = auditLine(head, ...entry);
    head = next.head;
    return sql`(${head.sequence}::bigint, ${next.line}::text)`;
  });
  await sql`WITH added AS (INSERT INTO audit_line (sequence, line) VALUES ${sql.join(rows)})
    UPDATE audit_head SET sequence = ${head.sequence}, sha256 = ${head.sha256}`.execute(trx);
  return head;
}

/** The newest line; for `lock`, see appendLines(). */
export async function readHead(db: QueryExecutorProvider, lock = sql``): Promise<AuditHead> {
  const { rows } = await sql<AuditHead>`SELECT sequence, sha256 FROM audit_head ${lock}`.execute(db);
  return rows[0] ?? firstHead;
}

/** The signature of the newest signed line; undefined before the first. @throws TomaatError BAD_SIGNATURE if it is invalid. */
export async function readSignedHead(
  db: Kysely<AuditSchema>,
): Promise<(AuditHead & { thumbprint: string }) | undefined> {
  const row = await db.selectFrom('audit_head').select('signed').executeTakeFirst();
  return row?.signed ? headOfSignature(row.signed, 'The database') : undefined;
}

/** Opens the audit log of a shared database. */
export async function openAuditTable(
  database: Pick<Database<AuditSchema>, 'db' | 'transaction'>,
  options: AuditTableOptions,
): Promise<Audit> {
  const { identity, onFault = () => {}, anchorMs = 60_000, dataFolder } = options;
  const now = options.now ?? (() => new Date());
  const { db } = database;
  const waiting: Entry[] = [];
  const pending: PendingState = { faulty: new Set(), recorded: new Set() };
  let head = await readHead(db);
  let lost = 0;
  let isFaulty = false;
  let isClosed = false;
  let writing: Promise<void> | undefined;
  let anchoring: Promise<void> = Promise.resolve();
  let taking: Promise<void> = Promise.resolve();

  /** In a transaction of their own, for lines about what changes nothing in the database. */
  async function write(entries: readonly Entry[]): Promise<void> {
    head = await database.transaction((trx) => appendLines(trx, entries));
  }

  async function writeWaiting(): Promise<void> {
    for (let failures = 0; waiting.length > 0; ) {
      const entries = waiting.slice(0, maxAtOnce);
      const missing = lost;
      const gap: Entry[] = missing > 0 ? [[now(), 'log.lost', { count: missing }]] : [];
      try {
        await write([...entries, ...gap]);
        waiting.splice(0, entries.length);
        lost -= missing;
        isFaulty = false;
        failures = 0;
      } catch (error) {
        if (!isFaulty) onFault(error);
        isFaulty = true;
        if (isClosed) return;
        await delay(Math.min(5000, 100 * 2 ** failures++), undefined, { ref: false });
      }
    }
  }

  function flushed(): Promise<void> {
    writing ??= writeWaiting().finally(() => {
      writing = undefined;
      if (waiting.length > 0 && !isClosed) void flushed();
    });
    return writing;
  }

  function record(event: AuditEvent, facts: AuditFacts = {}): void {
    if (isClosed) return;
    if (waiting.length < maxWaiting) waiting.push([now(), event, facts]);
    else lost++;
    void flushed();
  }

  /** Signs the newest line, unless another server has. */
  function anchor(): Promise<void> {
    anchoring = anchoring
      .catch(() => {})
      .then(async () => {
        const row = await db.selectFrom('audit_head').selectAll().executeTakeFirstOrThrow();
        if (row.signed !== null && row.signed_sequence === row.sequence) return;
        const { sequence, sha256 } = row;
        const signed = await identity.sign('tomaat-audit+jws', {
          sequence,
          sha256,
          time: now().toISOString(),
        });
        await sql`UPDATE audit_head SET signed = ${signed}, signed_sequence = ${sequence}
          WHERE signed IS NULL OR signed_sequence < ${sequence}`.execute(db);
      });
    return anchoring;
  }

  /** Takes in the lines that commands on this machine left; a file is removed when its line is committed. */
  function take(): Promise<void> {
    const recordNow = (event: AuditEvent, facts: AuditFacts) => write([[now(), event, facts]]);
    taking = taking.then(() => takePending(dataFolder, recordNow, onFault, pending)).catch(onFault);
    return taking;
  }

  const before = await readSignedHead(db).catch((error: unknown) => {
    // It does not keep a server from starting; `tomaat audit verify` reports it.
    if (!(error instanceof TomaatError && error.code === 'BAD_SIGNATURE')) throw error;
    onFault(error);
    return undefined;
  });
  if (before !== undefined && before.thumbprint !== identity.thumbprint)
    record('identity.changed', { identity: identity.thumbprint, previous: before.thumbprint });
  await take();
  await anchor();
  const timers = [
    setInterval(() => void anchor().catch(onFault), anchorMs),
    setInterval(() => void take(), options.pendingMs ?? 1000),
  ];
  for (const timer of timers) timer.unref();

  async function close(): Promise<void> {
    if (isClosed) return;
    for (const timer of timers) clearInterval(timer);
    await take();
    await Promise.race([flushed(), delay(closeMs, undefined, { ref: false })]);
    isClosed = true;
    if (waiting.length > 0)
      onFault(
        new TomaatError(
          'UNREACHABLE',
          `${waiting.length} lines of the audit log were not written: the database did not take them. They are lost`,
        ),
      );
    await anchor().catch(onFault);
  }

  return {
    record,
    async recordIn(trx, event, facts = {}) {
      await appendLines(trx, [[now(), event, facts]]);
    },
    head: () => head,
    headIn: (trx) => readHead(trx),
    flushed,
    async rotate() {
      throw new TomaatError(
        'BAD_REQUEST',
        'The audit log of a shared database has no files. Archive it with the backups of the database.',
      );
    },
    reopen() {},
    close,
    [Symbol.asyncDispose]: close,
  };
}

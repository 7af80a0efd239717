import {
  closeSync,
  constants,
  existsSync,
  fdatasync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  renameSync,
  statSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { TomaatError } from '@tomaat/core';
import type { QueryExecutorProvider } from 'kysely';
import type { Identity } from '../identity.ts';
import { afterCommit } from '../store/database/after-commit.ts';
import { writeWhole } from '../store/files/whole-file.ts';
import {
  type AuditHead,
  anchorFile,
  auditFile,
  firstHead,
  hashOf,
  lastHeadOf,
  lastLine,
  lastLineEnd,
  newestHead,
  readAnchor,
} from './audit-files.ts';
import type { AuditEvent, AuditFacts } from './events.ts';
import { type PendingState, takePending } from './pending.ts';

/**
 * The audit log: what was done with whose volumes, as lines of JSON in the append-only file `audit.jsonl`.
 * Each line holds its number and the SHA-256 of the line before it, and ends with the SHA-256 of itself. The newest
 * number and hash are signed into `audit.head` at the start, after every minute with new lines, and at the end.
 *
 * A line is in the file (for every other process, and after `kill -9`) when record() returns, and durable after an fsync
 * that no request waits for; lines that arrive meanwhile share the next one. A power failure may lose the last few.
 *
 * No line holds a name, a file name, header text, a parameter or an address: only ids, digests, codes and times.
 */
export interface Audit extends AsyncDisposable {
  /** Adds a line; the file has it when this returns. Never throws: a failed write is retried with the next line. */
  record(event: AuditEvent, facts?: AuditFacts): void;
  /**
   * Adds a line about a change of the database, if the transaction of the change is committed; it is the last statement there. Rejects if
   * the line cannot be part of it: then the change must not be committed either.
   */
  recordIn(trx: QueryExecutorProvider, event: AuditEvent, facts?: AuditFacts): Promise<void>;
  /** The newest line; of servers with one log, as this process last knew it. */
  head(): AuditHead;
  /** The newest committed line, for what is written in this transaction. */
  headIn(trx: QueryExecutorProvider): Promise<AuditHead>;
  /** Resolves when all lines so far are durable. */
  flushed(): Promise<void>;
  /**
   * Closes the file under the number of its last line and starts a new one, which continues the chain. Returns the path of
   * the closed file; undefined if it had no line.
   */
  rotate(): Promise<string | undefined>;
  /** Continues in a new `audit.jsonl` if the file was renamed. Each new line checks that too. */
  reopen(): void;
  close(): Promise<void>;
}

export interface AuditOptions {
  identity: Identity;
  /** Called once when lines cannot be written or taken in, and again only after a success. */
  onFault?(error: unknown): void;
  /** Size at which a new file is begun. */
  rotateBytes?: number;
  anchorMs?: number;
  /** How often the lines that commands left are taken in. */
  pendingMs?: number;
  now?(): Date;
}

const sync = promisify(fdatasync);
/** Lines that wait while they cannot be written; further ones are counted. */
export const maxWaiting = 10_000;
const appending = constants.O_APPEND | constants.O_CREAT | constants.O_RDWR;

/** A line as written, without its newline. */
export function auditLine(
  { sequence, sha256 }: AuditHead,
  time: Date,
  event: AuditEvent,
  facts: AuditFacts,
): { line: string; head: AuditHead } {
  const next = sequence + 1;
  // In ASCII, so that each byte is one character.
  const body = JSON.stringify({ seq: next, time: time.toISOString(), event, ...facts, prev: sha256 }).replace(
    /[\u007f-\uffff]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
  const hash = hashOf(body);
  return { line: `${body.slice(0, -1)},"hash":"${hash}"}`, head: { sequence: next, sha256: hash } };
}

/** The file that lines are added to. It follows its name: when the file is renamed, a new one is begun. */
class LogFile {
  readonly path: string;
  #fd: number;
  /** Bytes known to be complete lines. */
  sizeBytes = 0;

  constructor(path: string) {
    this.path = path;
    this.#fd = openSync(path, appending, 0o600);
    this.sizeBytes = fstatSync(this.#fd).size;
  }

  /** Removes an incomplete last line; returns its bytes. */
  repair(): number {
    const torn = this.sizeBytes - lastLineEnd(this.#fd, this.sizeBytes);
    if (torn > 0) this.#cut(this.sizeBytes - torn);
    return torn;
  }

  last(): string | undefined {
    return lastLine(this.#fd, this.sizeBytes);
  }

  append(line: string): void {
    const bytes = Buffer.from(`${line}\n`);
    // The file has changed: logrotate's copytruncate empties it.
    const before = fstatSync(this.#fd).size;
    let written = 0;
    try {
      while (written < bytes.length) written += writeSync(this.#fd, bytes, written);
    } catch (error) {
      // Half a line would break the chain permanently.
      if (written > 0) this.#cut(before);
      throw error;
    }
    this.sizeBytes = before + bytes.length;
  }

  /** Whether the name now refers to another file. */
  get isRenamed(): boolean {
    const own = fstatSync(this.#fd, { bigint: true });
    const named = statSync(this.path, { bigint: true, throwIfNoEntry: false });
    return named === undefined || named.ino !== own.ino || named.dev !== own.dev;
  }

  /** Starts a new file under the name. The previous one is durable and closed. */
  reopen(): void {
    const fd = openSync(this.path, appending, 0o600);
    fsyncSync(this.#fd);
    closeSync(this.#fd);
    this.#fd = fd;
    this.sizeBytes = fstatSync(fd).size;
  }

  async sync(): Promise<void> {
    await sync(this.#fd).catch((error: NodeJS.ErrnoException) => {
      // reopen() has already closed the file.
      if (error.code !== 'EBADF') throw error;
    });
  }

  close(): void {
    closeSync(this.#fd);
  }

  #cut(sizeBytes: number): void {
    ftruncateSync(this.#fd, sizeBytes);
    this.sizeBytes = sizeBytes;
  }
}

/**
 * Opens the audit log of a data folder, which this process must hold (lockDataFolder), and continues its chain. A last line
 * that a power failure left incomplete is removed, and a separate line records that.
 */
export async function openAudit(dataFolder: string, options: AuditOptions): Promise<Audit> {
  const { identity, onFault = () => {}, rotateBytes = 64 * 2 ** 20, anchorMs = 60_000 } = options;
  const now = options.now ?? (() => new Date());
  const signature = join(dataFolder, anchorFile);
  const file = new LogFile(join(dataFolder, auditFile));
  let anchored: AuditHead | undefined;
  let anchoring: Promise<void> = Promise.resolve();
  let syncing: Promise<void> | undefined;
  let taking: Promise<void> = Promise.resolve();
  let isDirty = false;
  let isFaulty = false;
  let isClosed = false;
  let lost = 0;
  const waiting: [Date, AuditEvent, AuditFacts][] = [];
  const pending: PendingState = { faulty: new Set(), recorded: new Set() };

  const torn = file.repair();
  const before = await readSigned(signature, onFault);
  const last = file.last();
  let head = (last === undefined ? await newestHead(dataFolder, before) : lastHeadOf(last)) ?? firstHead;

  function write(time: Date, event: AuditEvent, facts: AuditFacts): void {
    const { line, head: next } = auditLine(head, time, event, facts);
    file.append(line);
    head = next;
    isDirty = true;
  }

  function record(event: AuditEvent, facts: AuditFacts = {}): void {
    if (isClosed) return;
    if (waiting.length < maxWaiting) waiting.push([now(), event, facts]);
    else lost++;
    try {
      follow();
      if (file.sizeBytes >= rotateBytes) beginNext();
      for (let next = waiting[0]; next; next = waiting[0]) {
        write(...next);
        waiting.shift();
      }
      if (lost > 0) write(now(), 'log.lost', { count: lost });
      lost = 0;
      isFaulty = false;
    } catch (error) {
      if (!isFaulty) onFault(error);
      isFaulty = true;
    }
    void flush().catch(onFault);
  }

  /** Another program renamed the file, as logrotate does: the chain continues in a new one. */
  function follow(): void {
    if (!file.isRenamed) return;
    file.reopen();
    write(now(), 'log.continued', {});
  }

  /** The file is closed under the number of its last line; the next one continues the chain. */
  function beginNext(): string {
    const closed = freeName(join(dataFolder, `audit-${String(head.sequence).padStart(10, '0')}`));
    renameSync(file.path, closed);
    file.reopen();
    write(now(), 'log.continued', {});
    return closed;
  }

  function flush(): Promise<void> {
    if (!isDirty && !syncing) return Promise.resolve();
    syncing ??= (async () => {
      // Lines recorded in the same turn share the fsync.
      await new Promise((resolve) => setImmediate(resolve));
      while (isDirty) {
        isDirty = false;
        await file.sync();
      }
    })().finally(() => {
      syncing = undefined;
    });
    return syncing;
  }

  function anchor(): Promise<void> {
    anchoring = anchoring
      .catch(() => {})
      .then(async () => {
        const newest = head;
        if (anchored?.sequence === newest.sequence) return;
        const signed = await identity.sign('tomaat-audit+jws', { ...newest, time: now().toISOString() });
        await writeWhole(signature, `${signed}\n`);
        anchored = newest;
      });
    return anchoring;
  }

  /** Takes in the lines that other processes left; calls never overlap, because each file is one line. */
  function take(): Promise<void> {
    taking = taking.then(() => takePending(dataFolder, record, onFault, pending)).catch(onFault);
    return taking;
  }

  if (torn > 0) record('log.repaired', { count: torn });
  if (before !== undefined && before.thumbprint !== identity.thumbprint)
    record('identity.changed', { identity: identity.thumbprint, previous: before.thumbprint });
  await take();
  const timers = [
    setInterval(() => void anchor().catch(onFault), anchorMs),
    setInterval(() => void take(), options.pendingMs ?? 1000),
  ];
  for (const timer of timers) timer.unref();

  async function close(): Promise<void> {
    if (isClosed) return;
    for (const timer of timers) clearInterval(timer);
    await take();
    isClosed = true;
    await flush();
    await anchor();
    file.close();
  }

  await anchor();
  return {
    record,
    async recordIn(trx, event, facts) {
      afterCommit(trx, () => record(event, facts));
    },
    head: () => head,
    headIn: async () => head,
    flushed: flush,
    async rotate() {
      follow();
      if (file.sizeBytes === 0) return undefined;
      const closed = beginNext();
      await flush();
      await anchor();
      return closed;
    },
    reopen() {
      try {
        follow();
      } catch (error) {
        onFault(error);
      }
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

/** The signature of the existing log. An invalid one is a fault, but does not prevent a server from starting. */
async function readSigned(file: string, onFault: (error: unknown) => void) {
  try {
    return await readAnchor(file);
  } catch (error) {
    if (!(error instanceof TomaatError)) throw error;
    onFault(error);
    return undefined;
  }
}

/** The name with the extension, or with a number before it if that exists. */
function freeName(stem: string): string {
  for (let number = 0; ; number++) {
    const path = `${stem}${number === 0 ? '' : `-${number}`}.jsonl`;
    if (!existsSync(path)) return path;
  }
}

import { createHash } from 'node:crypto';
import {
  closeSync,
  constants,
  fdatasync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  writeSync,
} from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Identity } from '../identity.ts';

/**
 * The audit log: what was done with whose volumes, as lines of JSON in `audit.jsonl`, to which lines are only ever added.
 * Each line holds its number and the SHA-256 of the line before it, and ends with the SHA-256 of itself. The newest
 * number and hash are signed into `audit.head` at the start, every minute in which something happened, and at the end.
 *
 * A line is in the file (for every other process, and after `kill -9`) when record() returns, and on the disk after an fsync
 * that no request waits for; lines that come meanwhile share the next one. A power cut may take the last few.
 *
 * No line holds a name, a file name, header text, a parameter or an address: only ids, digests, codes and times.
 */
export type AuditEvent =
  | 'server.started'
  | 'server.stopped'
  | 'log.continued'
  | 'log.repaired'
  | 'prediction.accepted'
  | 'prediction.succeeded'
  | 'prediction.failed'
  | 'prediction.canceled'
  | 'result.read'
  | 'job.deleted'
  | 'job.expired'
  | 'upload.received'
  | 'upload.deleted'
  | 'upload.expired'
  | 'key.created'
  | 'key.revoked'
  | 'login.succeeded'
  | 'login.failed'
  | 'access.denied';

/** What a line may say beside its event; nothing else is taken. */
export interface AuditFacts {
  /** Who: an owner as in access/principal.ts, without a name. */
  who?: string;
  keyId?: string;
  scopes?: readonly string[];
  service?: string;
  version?: string;
  job?: string;
  upload?: string;
  output?: string;
  format?: string;
  /** Digests of files, by input or output. */
  inputs?: readonly { name: string; digest: string; received?: string }[];
  outputs?: readonly { name: string; digest: string }[];
  digest?: string;
  /** An error's code, or another word of ours. */
  outcome?: string;
  count?: number;
}

export interface AuditHead {
  readonly sequence: number;
  /** Hexadecimal; 64 zeros before the first line. */
  readonly sha256: string;
}

export interface Audit extends AsyncDisposable {
  /** Adds a line; the file has it when this returns. Never throws: what cannot be written is tried again with the next one. */
  record(event: AuditEvent, facts?: AuditFacts): void;
  /** The newest line. */
  head(): AuditHead;
  /** Resolves when all lines so far are on the disk. */
  flushed(): Promise<void>;
  close(): Promise<void>;
}

export interface AuditOptions {
  identity: Identity;
  /** Told once when lines cannot be written, and once when they can again. */
  onFault?(error: unknown): void;
  /** Size from which a new file is begun. */
  rotateBytes?: number;
  anchorMs?: number;
  now?(): Date;
}

export const auditFile = 'audit.jsonl';
export const anchorFile = 'audit.head';
/** Where other processes, such as `tomaat keys`, leave what the one that writes shall take in. */
const pendingFolder = 'audit.pending';
export const olderFile = /^audit-(\d{10})\.jsonl$/;
export const firstHead: AuditHead = { sequence: 0, sha256: '0'.repeat(64) };

const sync = promisify(fdatasync);
const maxWaiting = 10_000;

/** A line as it is written, without its newline. */
export function auditLine(
  { sequence, sha256 }: AuditHead,
  time: Date,
  event: AuditEvent,
  facts: AuditFacts,
): { line: string; head: AuditHead } {
  const next = sequence + 1;
  // In ASCII, so that a byte is a character for whoever checks it.
  const body = JSON.stringify({ seq: next, time: time.toISOString(), event, ...facts, prev: sha256 }).replace(
    /[\u007f-\uffff]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
  const hash = hashOf(body);
  return { line: `${body.slice(0, -1)},"hash":"${hash}"}`, head: { sequence: next, sha256: hash } };
}

export const hashOf = (text: string): string => createHash('sha256').update(text).digest('hex');

/** The head that a line stands for, or undefined if it is none of ours or was changed. */
export function headOfLine(line: string): (AuditHead & { prev: string }) | undefined {
  const found = /^(\{"seq":(\d{1,15}),.*"prev":"([0-9a-f]{64})"),"hash":"([0-9a-f]{64})"\}$/s.exec(line);
  if (!found || hashOf(`${found[1]}}`) !== found[4]) return undefined;
  return { sequence: Number(found[2]), prev: found[3], sha256: found[4] };
}

/**
 * Opens the audit log of a data folder, which this process has to hold (lockDataFolder), and goes on with its chain. A last
 * line that a power cut left in pieces is cut off, which a line of its own says.
 */
export async function openAudit(dataFolder: string, options: AuditOptions): Promise<Audit> {
  const { identity, onFault = () => {}, rotateBytes = 64 * 2 ** 20, anchorMs = 60_000 } = options;
  const now = options.now ?? (() => new Date());
  const path = join(dataFolder, auditFile);
  const appending = constants.O_APPEND | constants.O_CREAT | constants.O_RDWR;
  let fd = openSync(path, appending, 0o600);
  let size = fstatSync(fd).size;
  let head = firstHead;
  let anchored: AuditHead | undefined;
  let anchoring: Promise<void> = Promise.resolve();
  let syncing: Promise<void> | undefined;
  let isDirty = false;
  let isFaulty = false;
  let isClosed = false;
  const waiting: [Date, AuditEvent, AuditFacts][] = [];

  const torn = size - lastLineEnd(fd, size);
  if (torn > 0) {
    size -= torn;
    ftruncateSync(fd, size);
  }
  const last = size > 0 ? lastLine(fd, size) : lastLineBefore(dataFolder);
  if (last !== undefined) {
    // A chain that is broken goes on from what is there: `tomaat audit verify` shows where.
    head = headOfLine(last) ?? { sequence: sequenceOf(last), sha256: hashOf(last) };
  }

  function write(time: Date, event: AuditEvent, facts: AuditFacts): void {
    const { line, head: next } = auditLine(head, time, event, facts);
    const bytes = Buffer.from(`${line}\n`);
    let written = 0;
    try {
      while (written < bytes.length) written += writeSync(fd, bytes, written);
    } catch (error) {
      // Half a line would break the chain for good.
      if (written > 0) ftruncateSync(fd, size);
      throw error;
    }
    size += bytes.length;
    head = next;
    isDirty = true;
  }

  function record(event: AuditEvent, facts: AuditFacts = {}): void {
    if (isClosed) return;
    if (waiting.length < maxWaiting) waiting.push([now(), event, facts]);
    try {
      if (size >= rotateBytes) rotate();
      for (let next = waiting[0]; next; next = waiting[0]) {
        write(...next);
        waiting.shift();
      }
      isFaulty = false;
    } catch (error) {
      if (!isFaulty) onFault(error);
      isFaulty = true;
    }
    void flush().catch(onFault);
  }

  /** The file is closed for good under the number of its last line; the next one carries the chain on. */
  function rotate(): void {
    fsyncSync(fd);
    renameSync(path, join(dataFolder, `audit-${String(head.sequence).padStart(10, '0')}.jsonl`));
    closeSync(fd);
    fd = openSync(path, appending, 0o600);
    size = 0;
    write(now(), 'log.continued', {});
  }

  function flush(): Promise<void> {
    if (!isDirty && !syncing) return Promise.resolve();
    syncing ??= (async () => {
      // What this turn still records shares the fsync.
      await new Promise((resolve) => setImmediate(resolve));
      while (isDirty) {
        isDirty = false;
        await sync(fd).catch((error: NodeJS.ErrnoException) => {
          // The file was closed by rotate(), which made sure of it.
          if (error.code !== 'EBADF') throw error;
        });
      }
    })().finally(() => {
      syncing = undefined;
    });
    return syncing;
  }

  function anchor(): Promise<void> {
    anchoring = anchoring.then(async () => {
      const newest = head;
      if (anchored?.sequence === newest.sequence) return;
      const signed = await identity.sign('tomaat-audit+jws', { ...newest, time: now().toISOString() });
      await writeWhole(join(dataFolder, anchorFile), `${signed}\n`);
      anchored = newest;
    });
    return anchoring;
  }

  /** Takes in what other processes left. */
  async function takePending(): Promise<void> {
    const folder = join(dataFolder, pendingFolder);
    for (const name of (await readdir(folder).catch(() => [])).sort()) {
      if (!/^[\w.-]+\.json$/.test(name)) continue;
      const file = join(folder, name);
      try {
        const { event, facts } = JSON.parse(await readFile(file, 'utf8')) as {
          event: AuditEvent;
          facts: AuditFacts;
        };
        record(event, facts);
      } finally {
        await rm(file, { force: true });
      }
    }
  }

  if (torn > 0) record('log.repaired', { count: torn });
  await takePending();
  const timer = setInterval(() => {
    takePending().then(anchor).catch(onFault);
  }, anchorMs);
  timer.unref();

  async function close(): Promise<void> {
    if (isClosed) return;
    clearInterval(timer);
    await takePending().catch(onFault);
    isClosed = true;
    await flush();
    await anchor();
    closeSync(fd);
  }

  await anchor();
  return {
    record,
    head: () => head,
    flushed: flush,
    close,
    [Symbol.asyncDispose]: close,
  };
}

/**
 * Leaves an event for the process that holds the data folder, which takes it in within a minute, at its end or at its
 * next start. For commands that run beside a server.
 */
export async function leaveForAudit(dataFolder: string, event: AuditEvent, facts: AuditFacts): Promise<void> {
  const folder = join(dataFolder, pendingFolder);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const name = `${Date.now()}-${process.pid}-${Math.random().toString(36).slice(2)}.json`;
  await writeWhole(join(folder, name), JSON.stringify({ event, facts }));
}

/** Writes a file by way of a temporary one, durable before it gets its name. */
async function writeWhole(file: string, text: string): Promise<void> {
  const part = `${file}.${process.pid}.part`;
  await writeFile(part, text, { mode: 0o600, flush: true });
  await rename(part, file);
}

function lastLineEnd(fd: number, size: number): number {
  const length = Math.min(size, 2 ** 20);
  const tail = Buffer.alloc(length);
  readSync(fd, tail, 0, length, size - length);
  return size - length + tail.lastIndexOf(10) + 1;
}

function lastLine(fd: number, size: number): string {
  const length = Math.min(size, 2 ** 20);
  const tail = Buffer.alloc(length);
  readSync(fd, tail, 0, length, size - length);
  return tail.toString('utf8').replace(/\n$/, '').replace(/^.*\n/s, '');
}

/** The last line of the file before this one, where one was begun and nothing is in it yet. */
function lastLineBefore(dataFolder: string): string | undefined {
  const newest = readdirSync(dataFolder)
    .filter((name) => olderFile.test(name))
    .sort()
    .at(-1);
  if (newest === undefined) return undefined;
  return readFileSync(join(dataFolder, newest), 'utf8').replace(/\n$/, '').replace(/^.*\n/s, '');
}

const sequenceOf = (line: string): number => Number(/^\{"seq":(\d{1,15}),/.exec(line)?.[1] ?? 0);

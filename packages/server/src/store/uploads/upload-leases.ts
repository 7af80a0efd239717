import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { TomaatError } from '@tomaat/core';
import { sql } from 'kysely';
import type { Database } from '../database/database.ts';
import type { UploadsSchema } from '../database/upload-schema.ts';
import type { UploadWriter } from './upload-writers.ts';

/**
 * Who writes to an upload, among servers that share a database: at most one request. Its row is renewed while it writes, so that one
 * of a killed server ends by itself; a request elsewhere that wants to continue leaves its wish there, and waits.
 */

export interface UploadLeases {
  /** Runs `write` once no other request writes, at any server; it is ended when another one took its place. */
  hold<T>(id: string, writer: UploadWriter, write: () => Promise<T>): Promise<T>;
  /** Asks the current writer, at any server, to end, and waits until it has. */
  takeOver(id: string): Promise<void>;
  /** Removes the rows of writers that were killed. */
  sweep(): Promise<void>;
}

export interface UploadLeasesOptions {
  database: Pick<Database<UploadsSchema>, 'db' | 'nowMs'>;
  /** Ends the writer of an upload in this process; see `upload-writers.ts`. */
  end(id: string): Promise<void>;
  /** How long the row of a killed writer counts. */
  leaseMs?: number;
  renewMs?: number;
}

const takenOver = () => new TomaatError('CONFLICT', 'Another request is already continuing this upload.');
const pollMs = 100;
/** Longer than a live writer may continue (10 s), and the time to store its last piece. */
const longestWaitMs = 40_000;

export function createUploadLeases({
  database: { db, nowMs },
  end,
  leaseMs = 5000,
  renewMs = 1000,
}: UploadLeasesOptions): UploadLeases {
  const until = sql<number>`${nowMs} + ${leaseMs}`;

  /** True if this request has the row now. */
  async function take(id: string, token: string): Promise<boolean> {
    const { rows } = await sql`INSERT INTO upload_writer (upload, token, until_ms, is_wanted)
      VALUES (${id}, ${token}, ${until}, 0)
      ON CONFLICT (upload) DO UPDATE SET token = excluded.token, until_ms = excluded.until_ms, is_wanted = 0
      WHERE upload_writer.until_ms < ${nowMs} RETURNING token`.execute(db);
    return rows.length > 0;
  }

  /** Whether another request writes; it is asked to end. */
  async function isTaken(id: string): Promise<boolean> {
    const { rows } = await sql`UPDATE upload_writer SET is_wanted = 1
      WHERE upload = ${id} AND until_ms >= ${nowMs} RETURNING token`.execute(db);
    return rows.length > 0;
  }

  async function wait(isOver: () => Promise<boolean>, signal?: AbortSignal): Promise<void> {
    const endMs = performance.now() + longestWaitMs;
    while (!(await isOver())) {
      if (performance.now() > endMs)
        throw new TomaatError('CONFLICT', 'Another request is continuing this upload. Try again.');
      await delay(pollMs, undefined, { signal }).catch(() => {});
      signal?.throwIfAborted();
    }
  }

  /** Renews the row; ends the writer if the row is another's, or another request waits. */
  async function renew(id: string, token: string, writer: UploadWriter): Promise<void> {
    const { rows } = await sql<{ wanted: number }>`UPDATE upload_writer SET until_ms = ${until}
      WHERE upload = ${id} AND token = ${token} RETURNING is_wanted AS wanted`.execute(db);
    if (rows.length === 0) writer.stop.abort(takenOver());
    else if (rows[0].wanted !== 0) await end(id);
  }

  /** Renews the row until `stop`. */
  async function keepRenewing(
    id: string,
    token: string,
    writer: UploadWriter,
    stop: AbortSignal,
  ): Promise<void> {
    while (!stop.aborted) {
      await delay(renewMs, undefined, { signal: stop, ref: false }).catch(() => {});
      // While the database does not answer, pieces cannot be counted either: that ends the request, and gives the reason.
      if (!stop.aborted) await renew(id, token, writer).catch(() => {});
    }
  }

  return {
    async hold(id, writer, write) {
      const token = randomBytes(12).toString('base64url');
      await wait(async () => {
        if (await take(id, token)) return true;
        await isTaken(id);
        return false;
      }, writer.stop.signal);
      const stop = new AbortController();
      const renewing = keepRenewing(id, token, writer, stop.signal);
      try {
        return await write();
      } finally {
        stop.abort();
        // Not awaited: it may be waiting for this very writer to end.
        void renewing;
        await sql`DELETE FROM upload_writer WHERE upload = ${id} AND token = ${token}`
          .execute(db)
          // It ends by itself.
          .catch(() => {});
      }
    },
    takeOver: (id) => wait(async () => !(await isTaken(id))),
    async sweep() {
      await sql`DELETE FROM upload_writer WHERE until_ms < ${nowMs}`.execute(db);
    },
  };
}

import { type Kysely, sql } from 'kysely';
import type { Migration } from './database.ts';

/** The tables of the audit log, in a database that several servers share; `audit/audit-table.ts` reads and writes them. */

export interface AuditSchema {
  audit_line: {
    sequence: number;
    /** As in `audit.jsonl`, without the newline. */
    line: string;
  };
  /** One row: the newest line, whose lock is that of the log, and the signature of the newest signed line. */
  audit_head: {
    id: 1;
    sequence: number;
    sha256: string;
    signed: string | null;
    signed_sequence: number;
  };
}

/** For a database that a server has to itself they stay empty: its log is in files. */
export const auditMigrations: readonly Migration[] = [
  {
    name: 'audit table',
    async up(db: Kysely<unknown>) {
      await sql`CREATE TABLE audit_line (sequence INTEGER PRIMARY KEY, line TEXT NOT NULL) STRICT`.execute(
        db,
      );
      await sql`CREATE TABLE audit_head (
        id INTEGER PRIMARY KEY CHECK (id = 1), sequence INTEGER NOT NULL, sha256 TEXT NOT NULL,
        signed TEXT, signed_sequence INTEGER NOT NULL) STRICT`.execute(db);
      await sql`INSERT INTO audit_head (id, sequence, sha256, signed, signed_sequence)
        VALUES (1, 0, ${'0'.repeat(64)}, NULL, 0)`.execute(db);
    },
  },
];

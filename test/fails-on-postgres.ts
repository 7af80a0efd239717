/**
 * The tests of the server that fail where the servers of all tests store their data in PostgreSQL (`.ci/extra postgres`), each with the
 * reason. Any other failure fails that run; one of these that passes is named by it.
 */
export interface FailsOnPostgres {
  /** The end of the file's path. */
  file: string;
  /** Matches the test's full name; without it, any test of the file. */
  test?: RegExp;
  reason: string;
}

const sqliteFile = 'it reads, replaces or damages server.db itself';
const logFiles = 'it is about the files of the audit log, which is in the database';
const copies = 'backup and restore copy a data folder; a shared database has pg_dump';
const both = 'it starts servers on SQLite, to move their data';
const alone = 'a shared database is erased by a server that runs: shared-commands.test.ts';

export const failsOnPostgres: readonly FailsOnPostgres[] = [
  { file: 'server/test/backup.test.ts', reason: copies },
  {
    file: 'server/test/gateway-data.test.ts',
    test: /bring|leave series out|without a gateway/,
    reason: copies,
  },
  { file: 'server/test/gateway-data.test.ts', test: /ends sessions at the gateway/, reason: alone },
  { file: 'server/test/gateway-data.test.ts', test: /verifies and rotates/, reason: logFiles },
  { file: 'server/test/data-folder.test.ts', reason: sqliteFile },
  { file: 'server/test/upgrade.test.ts', reason: 'a data folder of an earlier version is SQLite' },
  { file: 'server/test/erase.test.ts', reason: alone },
  { file: 'server/test/migrate.test.ts', test: /there and back|interrupted/, reason: both },
  {
    file: 'server/test/shared-commands.test.ts',
    test: /without the address|needs the address/,
    reason: 'it is about commands without the address, which here all have it',
  },
  {
    file: 'server/test/clock.test.ts',
    test: /keeps a result and an upload for their time/,
    reason: 'the clock of the database counts, not that of the server, which is set',
  },
  {
    file: 'server/test/shutdown.test.ts',
    test: /refuses new ones with Retry-After/,
    reason: 'one of several servers takes for 5 s more what a proxy still sends it: rolling-restart.test.ts',
  },
  {
    file: 'server/test/registry.test.ts',
    test: /limits the entries of all keys together/,
    reason: 'it asks SQLite for the columns of a table',
  },
  { file: 'server/test/audit.test.ts', reason: logFiles },
  {
    file: 'server/test/uploads.test.ts',
    test: /resumes after a break/,
    reason:
      'it watches the one file of an incomplete upload, which here is in pieces: upload-replicas.test.ts',
  },
  {
    file: 'server/test/folder-owner.test.ts',
    reason: 'it is about the owner of the files, server.db among them',
  },
  {
    file: 'server/test/exposure.test.ts',
    test: /for its owner alone/,
    reason: 'it lists the files, server.db among them',
  },
];

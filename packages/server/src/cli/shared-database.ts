import { readFileSync } from 'node:fs';
import { TomaatError } from '@tomaat/core';
import { type LoadedConfig, loadConfig } from '../config.ts';

const isAddress = (text: string): boolean => /^postgres(?:ql)?:\/\//.test(text);

/**
 * The address of the PostgreSQL database of these settings, from a file if they name one; undefined if the database is the one in the
 * data folder. `flag` is how it was given.
 * @throws TomaatError BAD_REQUEST if the file holds no address, or a password is on the command line, where other users see it.
 */
export function databaseOf({ config, sources }: LoadedConfig, flag = '--database'): string | undefined {
  const { database } = config;
  if (database === undefined) return undefined;
  const fault = (message: string, cause?: unknown) =>
    new TomaatError('BAD_REQUEST', message, { field: flag.slice(2), cause });
  if (isAddress(database)) {
    if (sources.database === 'flag' && URL.parse(database)?.password)
      throw fault(
        `The password in ${flag} can be read by every user of this machine. Put the address into a file (${flag} FILE)${flag === '--database' ? ' or into TOMAAT_DATABASE' : ''}.`,
      );
    return database;
  }
  const shown = database.slice(0, 200);
  let text: string;
  try {
    text = readFileSync(database, 'utf8').trim();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw fault(
      `The file ${shown} of ${flag} cannot be read (${code}). Give a file that holds the address, or the address itself: postgres://USER@HOST/DATABASE.`,
      error,
    );
  }
  if (!isAddress(text) || text.includes('\n'))
    throw fault(
      `The file ${shown} of ${flag} does not hold an address such as postgres://USER:PASSWORD@HOST/DATABASE, and nothing else.`,
    );
  return text;
}

/** The same for a command that works on the data folder of a server: also from the server’s file of settings. */
export function databaseFor(flags: { data?: string; database?: string }): string | undefined {
  return databaseOf(loadConfig({ flags: { data: flags.data, database: flags.database } }));
}

/** Refuses a command that knows only what is in the data folder. `instead`: what to do. */
export function requireOwnDatabase(flags: { data?: string }, instead: string): void {
  if (databaseFor(flags) !== undefined)
    throw new TomaatError(
      'BAD_REQUEST',
      `The server's data is in a PostgreSQL database, not in its data folder. ${instead}`,
      { field: 'database' },
    );
}

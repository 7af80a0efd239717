import { readFileSync } from 'node:fs';
import { TomaatError } from '@tomaat/core';

/** The longest address, in characters: a password may be a token. */
const maxLength = 8192;
/** What the server sets itself: the schema in which its tables are, and the name by which servers know each other. */
const ownParameters = ['options', 'application_name'];
const fileParameters = ['sslrootcert', 'sslcert', 'sslkey'];
/** As the driver understands them until its next major version: each checks the certificate. */
const checkedModes = ['prefer', 'require', 'verify-ca', 'verify-full'];

export interface PostgresAddress {
  /** For the driver. */
  readonly url: string;
  /** Without user, password and parameters, for messages. */
  readonly where: string;
}

/**
 * Checks the address of a database; no message contains its user or password.
 * @throws TomaatError BAD_REQUEST
 */
export function parsePostgresAddress(text: string): PostgresAddress {
  const wrong = (message: string) => new TomaatError('BAD_REQUEST', message, { field: 'database' });
  if (text.length > maxLength)
    throw wrong(`The address of the database is longer than ${maxLength} characters. Check --database.`);
  const url = URL.parse(text);
  if (!url || !/^postgres(?:ql)?:$/.test(url.protocol))
    throw wrong('The address of the database is malformed. Give postgres://USER:PASSWORD@HOST/DATABASE.');
  if (![url.username, url.password, url.pathname].every(isEncoded))
    throw wrong(
      'The address of the database is malformed: a % in user, password or name begins no code. Write % as %25, @ as %40, : as %3A and / as %2F.',
    );
  const own = ownParameters.find((name) => url.searchParams.has(name));
  if (own)
    throw wrong(`The address of the database has the parameter ${own}, which is TOMAAT's. Leave it out.`);
  for (const name of fileParameters) {
    const file = url.searchParams.get(name);
    if (file === null) continue;
    try {
      readFileSync(file);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      throw wrong(
        `The file of ${name} in the address of the database cannot be read (${code}). Check the path: ${file.slice(0, 200)}`,
      );
    }
  }
  const mode = url.searchParams.get('sslmode');
  // The driver warns at length about the shorter names.
  if (mode !== null && checkedModes.includes(mode) && !url.searchParams.has('uselibpqcompat'))
    url.searchParams.set('sslmode', 'verify-full');
  return { url: url.href, where: withoutPassword(url) };
}

/** The address of a database as it may be shown. */
export function withoutPassword(address: string | URL): string {
  const url = new URL(address);
  return `postgres://${url.host}${url.pathname}`;
}

function isEncoded(part: string): boolean {
  try {
    decodeURIComponent(part);
    return true;
  } catch {
    return false;
  }
}

import { TomaatError } from '@tomaat/core';

/** SQLSTATE or the system's code of an error, https://www.postgresql.org/docs/current/errcodes-appendix.html */
const codeOf = (error: unknown): string => String((error as { code?: unknown } | undefined)?.code ?? '');
const textOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** Whether a query had no answer in the time that the pool gives it. */
export const isUnanswered = (error: unknown): boolean => textOf(error) === 'Query read timeout';

/** Whether the connection is at fault, or the server stops, starts, or has no connection left. */
function isAway(error: unknown): boolean {
  const code = codeOf(error);
  if (/^(?:08|57P0[123]|53300|25006|25P03|55P03)/.test(code) || /^E[A-Z]+$/.test(code)) return true;
  if (isUnanswered(error)) return true;
  return (
    code === '' &&
    /^(?:Connection terminated|timeout exceeded|Client (?:has encountered|was closed))/.test(textOf(error))
  );
}

/** An error of a query, as callers may see it; violated constraints and wrong SQL are returned unchanged. */
export function queryFault(error: unknown): unknown {
  if (isAway(error))
    return new TomaatError('BUSY', 'The database does not answer. Try again in a few seconds.', {
      cause: error,
    });
  if (codeOf(error) === '53100')
    return new TomaatError('DISK_FULL', 'The disk of the database is full. Free some space and try again.', {
      cause: error,
    });
  // A deadlock, or a conflict of two transactions: one of them was undone.
  if (/^40(?:P01|001)$/.test(codeOf(error)))
    return new TomaatError(
      'BUSY',
      'Another change of the same data came first, and this one was undone. Try again in a few seconds.',
      { cause: error },
    );
  if (codeOf(error) === '22021')
    return new TomaatError(
      'BAD_REQUEST',
      'A text has the character with the number 0, which the database does not take. Remove it.',
      { cause: error },
    );
  if (codeOf(error) === '22003')
    return new TomaatError(
      'BAD_REQUEST',
      'A number is larger than the database takes (2^63). Give a smaller one.',
      { cause: error },
    );
  return error;
}

/** Of the certificate of a server, as OpenSSL and Node name them. */
const certificateFault =
  /^(?:DEPTH_ZERO_SELF_SIGNED_CERT|SELF_SIGNED_CERT_IN_CHAIN|UNABLE_TO_[A-Z_]+|CERT_[A-Z_]+|ERR_TLS_CERT_ALTNAME_INVALID)$/;

/** Why a database cannot be opened at the start, for the operator. `where`: its address without the password. */
export function openFault(error: unknown, where: string): TomaatError {
  // Of a query; the driver's error is its cause.
  if (error instanceof TomaatError && error.code !== 'BUSY') return error;
  const original = error instanceof TomaatError ? error.cause : error;
  const [code, text] = [codeOf(original), textOf(original)];
  const wrong = (message: string) =>
    new TomaatError('BAD_REQUEST', message, { field: 'database', cause: original });
  if (code === '28P01' || code === '28000')
    return new TomaatError(
      'UNAUTHORIZED',
      `${where} refuses the user: ${text}. Check user, password and sslmode in --database.`,
      { field: 'database', cause: original },
    );
  if (code === '3D000')
    return wrong(`${where} does not exist. Create the database (createdb), or correct --database.`);
  // No right to the schema, or in it.
  if (code === '42501' || code === '3F000')
    return wrong(
      `The user of ${where} lacks a right: ${text}. Make it the owner of the database, or of the schema tomaat and its tables.`,
    );
  if (code === '25006')
    return wrong(
      `${where} is read-only: ${text}. Give the address of the primary server, not of a standby, and a user that may write.`,
    );
  if (certificateFault.test(code))
    return wrong(
      `The certificate of ${where} is not trusted: ${text}. Name the certificate of its authority in --database: ?sslmode=verify-full&sslrootcert=FILE.`,
    );
  if (text === 'The server does not support SSL connections')
    return wrong(
      `${where} does not support TLS, which sslmode asks for. Turn it on there (ssl = on), or leave sslmode out.`,
    );
  if (code === '53300')
    return new TomaatError(
      'BUSY',
      `${where} has no connection left: ${text}. Raise max_connections there, or stop what uses it.`,
      { cause: original },
    );
  return new TomaatError(
    'UNREACHABLE',
    `${where} does not answer: ${text}. Check that PostgreSQL runs there, and the address in --database.`,
    { cause: original },
  );
}

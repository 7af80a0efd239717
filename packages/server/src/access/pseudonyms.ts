import { createHmac, randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { type Kysely, sql } from 'kysely';
import { readOrMakeSecret } from '../store/files/secret-file.ts';
import type { Oidc } from './oidc.ts';

/**
 * Owner names that do not identify a person. The subject of a token may be a login name, and an address that of a
 * machine, so databases and audit log store an HMAC (SHA-256, RFC 2104, its first 128 bits) under a key of the data folder
 * instead. With the key and a name to try, an operator can find the owner: `tomaat audit who`.
 */
export interface Pseudonyms {
  /** The owner as it is stored: `oidc:` and `legacy:` with 22 characters of base64url; any other owner is unchanged. */
  of(owner: string): string;
}

export const pseudonymFile = 'pseudonym.key';

/** Opens the key of a data folder, or creates it. */
export async function openPseudonyms(dataFolder: string): Promise<Pseudonyms> {
  const { text } = await readOrMakeSecret(
    join(dataFolder, pseudonymFile),
    async () => `${randomBytes(32).toString('base64url')}\n`,
  );
  const key = text.trim();
  return {
    of(owner) {
      const kind = clearKind(owner);
      if (kind === undefined) return owner;
      return `${kind}:${createHmac('sha256', key).update(owner).digest().subarray(0, 16).toString('base64url')}`;
    },
  };
}

/** The kind of an owner in plain text: `oidc:<issuer>|<subject>`, `legacy:<address>`. */
function clearKind(owner: string): 'oidc' | 'legacy' | undefined {
  if (owner.startsWith('oidc:') && owner.includes('|')) return 'oidc';
  // Base64url contains no dot or colon; every address does.
  return /^legacy:.*[.:]/.test(owner) || owner === 'legacy:unknown' ? 'legacy' : undefined;
}

/** An issuer's login with pseudonyms for its users. */
export function withPseudonyms(oidc: Oidc | undefined, pseudonyms: Pseudonyms): Oidc | undefined {
  return (
    oidc && {
      ...oidc,
      async finish(...login) {
        const found = await oidc.finish(...login);
        return { ...found, owner: pseudonyms.of(found.owner) };
      },
      async recognise(jwt) {
        const found = await oidc.recognise(jwt);
        return found && { ...found, owner: pseudonyms.of(found.owner) };
      },
    }
  );
}

/** Tables whose rows have an owner. */
const ownerTables = ['job', 'upload', 'created_on', 'session'] as const;

/** Replaces the owners that an earlier version stored in plain text; returns how many there were. */
export async function hideOwners(db: Kysely<unknown>, pseudonyms: Pseudonyms): Promise<number> {
  const { rows: tables } = await sql<{
    name: string;
  }>`SELECT name FROM sqlite_schema WHERE type = 'table'`.execute(db);
  const known = new Set(tables.map(({ name }) => name));
  const hidden = new Set<string>();
  for (const table of ownerTables.filter((name) => known.has(name))) {
    const { rows } = await sql<{ owner: string }>`SELECT DISTINCT owner FROM ${sql.table(table)}`.execute(db);
    for (const { owner } of rows) {
      const pseudonym = pseudonyms.of(owner);
      if (pseudonym === owner) continue;
      // A row of the same name can exist only after a downgrade; the newer one counts.
      await sql`UPDATE OR REPLACE ${sql.table(table)} SET owner = ${pseudonym} WHERE owner = ${owner}`.execute(
        db,
      );
      hidden.add(owner);
    }
  }
  return hidden.size;
}

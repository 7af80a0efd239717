import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import { hasKeys } from '../access/key-folder.ts';
import { openPseudonyms, pseudonymFile } from '../access/pseudonyms.ts';
import { dataFolderFor } from '../config.ts';

/** Whose data a command uses: exactly one of these. */
export interface OwnerFlags {
  data?: string;
  /** Of an API key, or the whole key. */
  key?: string;
  /** Of a person, as the issuer names it (`sub`). */
  subject?: string;
  issuer?: string;
  /** Of a client at the legacy port. */
  address?: string;
  /** As written in the audit log. */
  owner?: string;
}

/**
 * The named owners, as stored. A person has two, because addresses of issuers are written with or without a
 * slash at the end.
 * @throws TomaatError BAD_REQUEST unless exactly one is named.
 */
export async function ownersOf(flags: OwnerFlags): Promise<string[]> {
  const { key, subject, address, owner } = flags;
  const given = [key, subject, address, owner].filter((value) => value !== undefined);
  if (given.length !== 1 || given[0] === '') {
    throw new TomaatError(
      'BAD_REQUEST',
      'The command needs exactly one owner. Give one of: --key ID, --subject NAME (a person of the issuer), --address IP (at the legacy port), --owner ID (as in the audit log).',
    );
  }
  if (key !== undefined) return [`key:${keyIdOf(key)}`];
  const folder = dataFolderFor(flags);
  // Where servers share a database, the folder of each has the key of the pseudonyms.
  if (!existsSync(join(folder, pseudonymFile)) && !hasKeys(folder))
    throw new TomaatError(
      'NOT_FOUND',
      `No data of a server, registry or gateway was found in ${folder}. Check --data.`,
    );
  const pseudonyms = await openPseudonyms(folder);
  if (owner !== undefined) return [pseudonyms.of(owner)];
  if (address !== undefined) return [pseudonyms.of(`legacy:${address}`)];
  const issuer = (await issuerOf(flags)).replace(/\/$/, '');
  return [issuer, `${issuer}/`].map((name) => pseudonyms.of(`oidc:${name}|${subject}`));
}

/** The id of a key, even if the whole key is given. */
export const keyIdOf = (text: string): string => /^tmt_([a-z2-7]{10})_/.exec(text)?.[1] ?? text;

async function issuerOf(flags: OwnerFlags): Promise<string> {
  if (flags.issuer !== undefined) return flags.issuer;
  const { loadConfig } = await import('../config.ts');
  const { oidcIssuer } = loadConfig({ flags: { data: dataFolderFor(flags) } }).config;
  if (oidcIssuer !== undefined) return oidcIssuer;
  throw new TomaatError(
    'BAD_REQUEST',
    'The issuer of the subject is missing. Give --issuer URL, the same as --oidc-issuer of the server.',
  );
}

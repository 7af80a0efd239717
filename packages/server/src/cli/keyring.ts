import { mkdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import { inTurn } from '../store/files/file-lock.ts';
import { giveToOwner } from '../store/files/folder-owner.ts';
import { writeWhole } from '../store/files/whole-file.ts';

/**
 * The keys that this user has stored with `tomaat login`, in the file `keyring` of the data folder, readable by its owner alone: for
 * each server (its origin) the key that is sent to it, and to no other.
 */
export interface StoredKey {
  /** As in `https://server.example:9443`. */
  readonly server: string;
  readonly key: string;
  readonly savedTime: string;
}

const fileOf = (dataFolder: string): string => join(dataFolder, 'keyring');

/** @throws TomaatError BAD_REQUEST if others may read the file, or it is damaged */
export async function storedKeys(dataFolder: string): Promise<StoredKey[]> {
  const file = fileOf(dataFolder);
  let text: string;
  try {
    const { mode } = await stat(file);
    if (process.platform !== 'win32' && (mode & 0o077) !== 0)
      throw new TomaatError(
        'BAD_REQUEST',
        `${file} holds keys, and others may read it. Run: chmod 600 ${file}`,
      );
    text = await readFile(file, 'utf8');
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return [];
    throw error;
  }
  return parse(text, file);
}

function parse(text: string, file: string): StoredKey[] {
  let stored: unknown;
  try {
    stored = JSON.parse(text);
  } catch {}
  const isKey = (value: unknown): value is StoredKey =>
    ['server', 'key', 'savedTime'].every((name) => typeof (value as StoredKey)?.[name as 'key'] === 'string');
  if (Array.isArray(stored) && stored.every(isKey)) return stored;
  throw new TomaatError(
    'BAD_REQUEST',
    `${file} is damaged. Delete it, and log in again with “tomaat login”.`,
  );
}

/** The key for the server at an address. */
export async function storedKeyFor(address: string, dataFolder: string): Promise<string | undefined> {
  const { origin } = new URL(address);
  return (await storedKeys(dataFolder)).find(({ server }) => server === origin)?.key;
}

/** Stores a key in place of the one for this server; undefined removes it. */
export async function storeKey(
  address: string,
  key: string | undefined,
  dataFolder: string,
): Promise<boolean> {
  const server = new URL(address).origin;
  if (key === undefined && (await storedKeyFor(address, dataFolder)) === undefined) return false;
  await mkdir(dataFolder, { recursive: true, mode: 0o700 });
  const file = fileOf(dataFolder);
  return await inTurn(file, async () => {
    const old = await storedKeys(dataFolder);
    const others = old.filter((one) => one.server !== server);
    const kept =
      key === undefined ? others : [...others, { server, key, savedTime: new Date().toISOString() }];
    await writeWhole(file, `${JSON.stringify(kept, null, 2)}\n`, {
      mode: 0o600,
      prepare: (part) => giveToOwner(part),
    });
    return true;
  });
}

import { link, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { TomaatError } from '@tomaat/core';
import { noHardLinks } from './disk.ts';
import { partOf } from './whole-file.ts';

/**
 * Reads a secret of a data folder, or creates it: a text that only its owner can read, durable before it is used. If
 * two processes create it at once, both use the first one's.
 * @throws TomaatError INTERNAL for an empty file, which a full disk or a power failure may leave.
 */
export async function readOrMakeSecret(
  file: string,
  make: () => Promise<string>,
): Promise<{ text: string; isNew: boolean }> {
  const known = await readIfThere(file);
  if (known !== undefined) return { text: known, isNew: false };
  const part = partOf(file);
  let isNew = true;
  try {
    await writeFile(part, await make(), { mode: 0o600, flush: true });
    await link(part, file);
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST') isNew = false;
    else if (noHardLinks.has(code)) await rename(part, file);
    else throw error;
  } finally {
    await rm(part, { force: true });
  }
  return { text: (await readIfThere(file)) ?? '', isNew };
}

async function readIfThere(file: string): Promise<string | undefined> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return undefined;
  }
  if (text.trim() !== '') return text;
  throw new TomaatError(
    'INTERNAL',
    `${file} is empty. Restore it from a backup, or delete it to have a new one created`,
  );
}

import { join } from 'node:path';
import { createUidKey, formatUidKey, parseUidKey } from '@tomaat/core';
import { readOrMakeSecret } from './secret-file.ts';

/**
 * The key of the UIDs and pseudonyms in DICOM files that are de-identified under this data folder, made at the first use.
 * @throws TomaatError BAD_INPUT if the file does not hold one
 */
export async function openUidKey(dataFolder: string): Promise<Uint8Array> {
  const { text } = await readOrMakeSecret(
    join(dataFolder, 'uid.key'),
    async () => `${formatUidKey(createUidKey())}\n`,
  );
  return parseUidKey(text);
}

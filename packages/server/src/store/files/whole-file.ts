import { randomBytes } from 'node:crypto';
import { chmod, rename, rm, writeFile } from 'node:fs/promises';

/** The name of a temporary file next to `file`, different for concurrent writers, even within one process. */
export const partOf = (file: string): string => `${file}.${randomBytes(6).toString('hex')}.part`;

/**
 * Writes a file via a temporary one, so that no reader sees half of it; it is durable before it gets its name. `mode` applies
 * regardless of the umask; `prepare` may change the temporary file before it gets its name.
 */
export async function writeWhole(
  file: string,
  text: string | Uint8Array,
  { mode = 0o600, prepare = () => {} }: { mode?: number; prepare?(part: string): void } = {},
): Promise<void> {
  const part = partOf(file);
  try {
    await writeFile(part, text, { mode, flush: true });
    await chmod(part, mode);
    prepare(part);
    await rename(part, file);
  } catch (error) {
    await rm(part, { force: true });
    throw error;
  }
}

import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';

/**
 * Tells this machine, while it runs, from others to which a loopback address may lead through a tunnel; undefined where
 * the system has no such id. Hashed, since other programs may use the id itself.
 */
export async function machineId(): Promise<string | undefined> {
  try {
    const boot = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
    return createHash('sha256').update(`tomaat machine\0${boot}`).digest('base64url');
  } catch {
    // Not Linux, or hidden from this process: the machine stays unknown.
    return undefined;
  }
}

import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import { ownNodeOptions } from '../../packages/server/src/source.ts';
import { type Finding, finding } from './harness.ts';

/* A disk that is really full: a tmpfs that only the process of its part sees. */

export const pageBytes = 4096;

/** Runs a file of this folder with its own mounts (`unshare -m`); the last line that it prints has the findings. */
export async function inOwnMounts(file: string, folder: string): Promise<Finding[]> {
  const args = ['-m', process.execPath, ...ownNodeOptions, file, folder];
  const inner = spawn('unshare', args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  let complained = '';
  inner.stdout.on('data', (chunk: Buffer) => {
    said += chunk.toString('utf8');
  });
  inner.stderr.on('data', (chunk: Buffer) => {
    complained = (complained + chunk.toString('utf8')).slice(-2000);
  });
  const [code] = (await once(inner, 'close').catch(() => [127])) as [number];
  if (code === 0) return JSON.parse(said.trim().split('\n').at(-1)!) as Finding[];
  if (/unshare|Operation not permitted|mount/.test(complained) || code === 127)
    return [finding(true, 'a full disk', `not tried: nothing can be mounted here (${complained.trim()})`)];
  throw new Error(complained);
}

/** A disk of so many MB in a new folder. */
export async function mountSmall(folder: string, sizeMb: number): Promise<void> {
  await mkdir(folder);
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${sizeMb}m`, 'tmpfs', folder]);
}

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/**
 * A folder where the programs of a run find their code compiled, as those do that `tomaat` starts, and one where they find what faster
 * forms of networks gain on this machine. Called by vitest, once for each project.
 */
export default async function openCodeCache(): Promise<(() => Promise<void>) | undefined> {
  if (process.env.TOMAAT_TRIALS !== undefined) return undefined;
  const folder = await mkdtemp(join(tmpdir(), 'tomaat-code-'));
  process.env.NODE_COMPILE_CACHE = folder;
  process.env.TOMAAT_TRIALS = join(folder, 'trials');
  return () => {
    delete process.env.TOMAAT_TRIALS;
    return rm(folder, { recursive: true, force: true, maxRetries: 5 });
  };
}

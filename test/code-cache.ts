import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A folder where the programs of a run find their code compiled, as those do that `tomaat` starts. Called by vitest. */
export default async function openCodeCache(): Promise<() => Promise<void>> {
  const folder = await mkdtemp(join(tmpdir(), 'tomaat-code-'));
  process.env.NODE_COMPILE_CACHE = folder;
  return () => rm(folder, { recursive: true, force: true, maxRetries: 5 });
}

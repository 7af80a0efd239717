import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Runs a check of `scripts` on a repository of these files, by their paths below `packages`. */
export function runCheck(
  script: string,
  files: Readonly<Record<string, string>>,
): { faults: string[]; status: number | null } {
  const root = mkdtempSync(join(tmpdir(), 'tomaat-check-'));
  try {
    for (const [path, text] of Object.entries(files)) {
      const file = join(root, 'packages', path);
      mkdirSync(dirname(file), { recursive: true });
      writeFileSync(file, text);
    }
    const path = fileURLToPath(new URL(`../scripts/${script}`, import.meta.url));
    const { stderr, status } = spawnSync(process.execPath, [path, root], { encoding: 'utf8' });
    return { faults: stderr.split('\n').filter((line) => line.startsWith('packages/')), status };
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}

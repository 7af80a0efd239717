import { readFileSync, statSync } from 'node:fs';
import { relative } from 'node:path';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** The files that take half a minute and more, the longest first. */
const LONG = [
  'packages/web/test/page.test.ts',
  'packages/server/test/proxies.test.ts',
  'packages/web/test/page-jobs.test.ts',
  'test/guides.test.ts',
  'packages/server/test/python-client.test.ts',
  'packages/server/test/lost-jobs.test.ts',
  'packages/server/test/backup.test.ts',
  'packages/web/test/dicom.test.ts',
  'packages/server/test/stop-signals.test.ts',
  'packages/server/test/ohif.test.ts',
  'test/package.test.ts',
  'packages/web/test/access-texts.test.ts',
  'packages/server/test/cli-dicom.test.ts',
  'packages/server/test/brain.test.ts',
];

/**
 * The order of test files: long ones, the others that have a process of their own, then those that share one, at last
 * those beside the sources; each the largest first. So no long file runs alone at the end, in a fresh clone too: vitest's own order goes by the
 * times of the last run, and CI's was one without browsers.
 */
export class FileOrder extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const { root } = this.ctx.config;
    const rank = ({ moduleId, project }: TestSpecification): number => {
      const place = LONG.indexOf(relative(root, moduleId));
      if (place >= 0) return place;
      if (project.config.isolate) return LONG.length;
      return LONG.length + (relative(root, moduleId).includes('/src/') ? 2 : 1);
    };
    const keyed = files.map((file) => ({ file, rank: rank(file), size: statSync(file.moduleId).size }));
    return keyed.sort((a, b) => a.rank - b.rank || b.size - a.size).map(({ file }) => file);
  }
}

/** Files that change what others of their process see in a way that `sharesProcess()` does not find. */
const ALONE = [
  // Adds a face to the table.
  'packages/server/test/new-face.test.ts',
];

/** Replaces a module, a global or the clock; changes the process or its environment, or measures it. */
const changesProcess =
  /\bvi\.|\bprocess\.env\.\w+ \??\??= |\b(?:delete |assign\()process\.env|\bprocess\.(?:chdir|cpuUsage|memoryUsage|off|on|once|resourceUsage|set\w+|stderr|stdout|umask)\b/;

/** True if a test file leaves what others see as it is, so that it may share its process with them. */
export function sharesProcess(path: string): boolean {
  return !ALONE.some((name) => path.endsWith(name)) && !changesProcess.test(readFileSync(path, 'utf8'));
}

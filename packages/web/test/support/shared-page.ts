import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';

/** A folder for the build of the page that all test files of a run share (`buildPage()`). Called by vitest, once for each project. */
export default async function openSharedPage(
  project: TestProject,
): Promise<(() => Promise<void>) | undefined> {
  if (process.env.TOMAAT_TEST_PAGE !== undefined) return undefined;
  const folder = await mkdtemp(join(tmpdir(), 'tomaat-page-'));
  process.env.TOMAAT_TEST_PAGE = folder;
  const forget = (what: string) => rm(what, { recursive: true, force: true });
  // In watch mode, sources have changed.
  project.onTestsRerun(() => forget(join(folder, 'built')));
  return () => {
    delete process.env.TOMAAT_TEST_PAGE;
    return forget(folder);
  };
}

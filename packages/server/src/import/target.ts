import { chmod, readdir, realpath, rename, rm } from 'node:fs/promises';
import { basename, dirname, join, relative, resolve, sep } from 'node:path';
import { TomaatError } from '@tomaat/core';

/*
 * The folder that an import writes: what may lie there before, and how the finished app gets there.
 */

/**
 * Refuses a target that overlaps the author's folder, or holds something else than an earlier import.
 * @throws {TomaatError} BAD_INPUT, CONFLICT
 */
export async function checkTarget(out: string, folder: string, force: boolean): Promise<void> {
  const [target, author] = await Promise.all([realPath(out), realPath(folder)]);
  const what = isWithin(target, author) ? 'lies inside' : isWithin(author, target) ? 'holds' : undefined;
  if (what)
    throw new TomaatError(
      'BAD_INPUT',
      `${out} ${target === author ? 'is' : what} the author’s own folder. Name a folder outside it with -o.`,
      { field: 'out' },
    );
  const names = await readdir(out).catch((error: NodeJS.ErrnoException): string[] => {
    if (error.code === 'ENOENT') return [];
    throw error;
  });
  if (names.length === 0 || (force && names.includes('import.json'))) return;
  const advice = names.includes('import.json')
    ? 'Replace it with --force, or name another folder with -o.'
    : 'Name another folder with -o.';
  throw new TomaatError('CONFLICT', `${out} is not empty. ${advice}`, { field: 'out' });
}

/**
 * Moves the finished app to its target, and returns where it is. The target is checked again: the import may have taken hours. If
 * something else is there by now, the app goes beside it, under the first free name.
 */
export async function placeApp(app: string, out: string, folder: string, force: boolean): Promise<string> {
  let target = out;
  for (let number = 2; ; number++) {
    try {
      await checkTarget(target, folder, force);
      break;
    } catch (error) {
      const isTaken = error instanceof TomaatError && error.code === 'CONFLICT';
      if (!isTaken || number > mostNames) throw error;
      target = `${out}-${number}`;
    }
  }
  // A temporary folder is its owner's alone; an app is for whom the umask says, such as the server's own user.
  await chmod(app, 0o777 & ~process.umask());
  // The old app is there until the new one is.
  const old = `${app}.replaced`;
  await rename(target, old).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
  });
  await rename(app, target);
  await rm(old, { recursive: true, force: true });
  return target;
}

const mostNames = 100;

const isWithin = (path: string, folder: string): boolean => {
  const steps = relative(folder, path);
  return steps === '' || !(steps === '..' || steps.startsWith(`..${sep}`) || resolve(steps) === steps);
};

/** A path without symbolic links, though its last parts may not exist yet. */
async function realPath(path: string): Promise<string> {
  const whole = resolve(path);
  try {
    return await realpath(whole);
  } catch (error) {
    const parent = dirname(whole);
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || parent === whole) throw error;
    return join(await realPath(parent), basename(whole));
  }
}

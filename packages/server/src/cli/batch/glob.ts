import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';

/** As many names are looked at for one pattern. */
const mostNames = 100_000;

export const isGlob = (text: string): boolean => /[*?]/.test(text);

/**
 * The paths that a quoted pattern matches, in order: `*` and `?` within a name, `**` for folders at any depth. Hidden names and
 * links to folders are not followed.
 *
 * @throws TomaatError BAD_INPUT if nothing matches, or if more than 100,000 names would be looked at
 */
export async function expandGlob(pattern: string): Promise<string[]> {
  const parts = pattern.split('/').filter((part, i) => part !== '' || i === 0);
  const found = new Set<string>();
  let looked = 0;
  const visit = async (at: string, index: number): Promise<void> => {
    const part = parts[index];
    const isLast = index === parts.length - 1;
    if (!isGlob(part) && !isLast) return visit(part === '' ? '/' : join(at, part), index + 1);
    if (part === '**' && !isLast) await visit(at, index + 1);
    const entries = await readdir(at || '.', { withFileTypes: true }).catch(() => []);
    looked += entries.length;
    if (looked > mostNames)
      throw new TomaatError(
        'BAD_INPUT',
        `${pattern} looks at more than ${mostNames} names. Give a closer folder.`,
      );
    for (const entry of entries) {
      if (entry.name.startsWith('.') && !part.startsWith('.')) continue;
      if (part === '**' && entry.isDirectory()) await visit(join(at, entry.name), index);
      if (!matches(entry.name, part === '**' ? '*' : part)) continue;
      if (isLast) found.add(join(at, entry.name));
      else if (part !== '**' && entry.isDirectory()) await visit(join(at, entry.name), index + 1);
    }
  };
  await visit('', 0);
  if (found.size === 0)
    throw new TomaatError('BAD_INPUT', `${pattern} matches no file. Check the pattern and the folder.`);
  return [...found].sort();
}

/** Whether a name is what a pattern of `*` and `?` says, in time name × pattern at most. */
export function matches(name: string, pattern: string): boolean {
  let [n, p, star, mark] = [0, 0, -1, 0];
  while (n < name.length) {
    if (p < pattern.length && (pattern[p] === '?' || pattern[p] === name[n]) && pattern[p] !== '*') {
      n++;
      p++;
    } else if (pattern[p] === '*') {
      star = p++;
      mark = n;
    } else if (star >= 0) {
      p = star + 1;
      n = ++mark;
    } else return false;
  }
  while (pattern[p] === '*') p++;
  return p === pattern.length;
}

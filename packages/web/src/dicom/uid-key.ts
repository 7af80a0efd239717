import { createUidKey, formatUidKey, parseUidKey } from '@tomaat/core';
import { keptAt } from '../base.ts';

const place = () => keptAt('tomaat.uid-key');
/** If the browser stores nothing, the key lasts as long as the page. */
let withoutStorage: string | undefined;

/**
 * The key of this browser, under which the same series always gets the same UIDs and is recognised; created on first
 * use. With it, the UIDs of what was sent can be computed from the originals, but not the reverse.
 */
export function browserUidKey(): string {
  const kept = readKey();
  if (kept !== undefined) return kept;
  withoutStorage = formatUidKey(createUidKey());
  try {
    localStorage.setItem(place(), withoutStorage);
  } catch {
    // A private window of some browsers: the key is kept in memory.
  }
  return withoutStorage;
}

function readKey(): string | undefined {
  try {
    return formatUidKey(parseUidKey(localStorage.getItem(place()) ?? ''));
  } catch {
    return withoutStorage;
  }
}

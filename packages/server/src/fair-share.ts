/**
 * Whether an owner may take one more place of `limit`: an owner with less than a fair share may, even when
 * all are taken. A single owner may have all of them; the total never exceeds twice the limit.
 * `counts` is the number of places of each owner.
 */
export function mayHaveMore(counts: ReadonlyMap<string, number>, owner: string, limit: number): boolean {
  let all = 0;
  for (const count of counts.values()) all += count;
  if (all < limit) return true;
  const owners = counts.size + (counts.has(owner) ? 0 : 1);
  const fairShare = Math.max(1, Math.floor(limit / owners));
  return all < 2 * limit && (counts.get(owner) ?? 0) < fairShare;
}

/** Adds to the count of an owner; a count that falls to 0 is removed. */
export function addTo(counts: Map<string, number>, owner: string, by: number): void {
  const sum = (counts.get(owner) ?? 0) + by;
  if (sum > 0) counts.set(owner, sum);
  else counts.delete(owner);
}

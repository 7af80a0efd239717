/**
 * Whether an owner may have one more of something that is full at `limit`: what others took does not keep out an owner who
 * has less than a fair share. One owner alone may have all of it; in all there are never more than twice the limit.
 * `counts` is how many each owner has.
 */
export function mayHaveMore(counts: ReadonlyMap<string, number>, owner: string, limit: number): boolean {
  let all = 0;
  for (const count of counts.values()) all += count;
  if (all < limit) return true;
  const owners = counts.size + (counts.has(owner) ? 0 : 1);
  const fairShare = Math.max(1, Math.floor(limit / owners));
  return all < 2 * limit && (counts.get(owner) ?? 0) < fairShare;
}

/** Adds to the count of an owner; one that falls to nothing is forgotten. */
export function addTo(counts: Map<string, number>, owner: string, by: number): void {
  const sum = (counts.get(owner) ?? 0) + by;
  if (sum > 0) counts.set(owner, sum);
  else counts.delete(owner);
}

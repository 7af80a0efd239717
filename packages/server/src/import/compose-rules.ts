/** A rule of the step `compose`. */
export interface ComposeRule {
  readonly channel: number;
  readonly above: number;
  readonly value: number;
}

/**
 * The rules of `compose`, of which a later one wins, that give the values of a table: its value at index i is that of the voxels
 * whose channel c is 1 where bit c of i is set. Undefined where no order of the channels gives the table.
 */
export function rulesOf(
  table: readonly number[],
  channels: number,
  above: number,
): ComposeRule[] | undefined {
  if (table.length !== 2 ** channels || table[0] !== 0) return undefined;
  if (!table.every((value) => Number.isInteger(value) && value >= 0 && value <= 65_535)) return undefined;
  const wins = (a: number, b: number) => table[(1 << a) | (1 << b)] === table[1 << a];
  const order: number[] = [];
  const left = new Set(Array.from({ length: channels }, (_, channel) => channel));
  while (left.size > 0) {
    // The next one from the bottom loses against all that are left, or has the same value.
    const lowest = [...left].find((channel) =>
      [...left].every((other) => other === channel || wins(other, channel)),
    );
    if (lowest === undefined) return undefined;
    left.delete(lowest);
    order.push(lowest);
  }
  const value = (set: number) => {
    const last = order.findLast((channel) => set & (1 << channel));
    return last === undefined ? 0 : table[1 << last];
  };
  if (!table.every((wanted, set) => value(set) === wanted)) return undefined;
  return order.map((channel) => ({ channel, above, value: table[1 << channel] }));
}

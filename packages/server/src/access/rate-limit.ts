import { unmapped } from '../addresses.ts';

export interface RateLimit {
  /** Takes one token of this key. 0: allowed; otherwise the seconds until the next attempt is allowed. */
  take(key: string): number;
}

/**
 * A bucket of tokens for each key, such as an address: `perMinute` of them at first, refilled evenly. At most `maxKeys` are
 * remembered; the least recently seen one is dropped, and starts with a full bucket the next time.
 */
export function createRateLimit(
  perMinute: number,
  { maxKeys = 10_000, now = Date.now }: { maxKeys?: number; now?: () => number } = {},
): RateLimit {
  const buckets = new Map<string, { tokens: number; atMs: number }>();
  const perMs = perMinute / 60_000;
  return {
    take(key) {
      const nowMs = now();
      const known = buckets.get(key);
      const tokens = known
        ? Math.min(perMinute, known.tokens + Math.max(0, nowMs - known.atMs) * perMs)
        : perMinute;
      const allowed = tokens >= 1;
      // Set again, so that the map is ordered by last use.
      buckets.delete(key);
      buckets.set(key, { tokens: allowed ? tokens - 1 : tokens, atMs: nowMs });
      if (buckets.size > maxKeys) buckets.delete(buckets.keys().next().value as string);
      return allowed ? 0 : Math.max(1, Math.ceil((1 - tokens) / perMs / 1000));
    },
  };
}

/** The unit that counts as one caller: an IPv4 address, or the /64 of IPv6 of one household or machine. */
export function addressKey(remoteAddress: string | undefined): string {
  const address = unmapped((remoteAddress ?? 'unknown').split('%', 1)[0]);
  if (!address.includes(':')) return address;
  const [head, tail] = address.split('::');
  const start = head === '' ? [] : head.split(':');
  const end = tail === undefined || tail === '' ? [] : tail.split(':');
  const groups =
    tail === undefined
      ? start
      : [...start, ...Array<string>(Math.max(0, 8 - start.length - end.length)).fill('0'), ...end];
  return `${groups.slice(0, 4).join(':')}::/64`;
}

import { describe, expect, it } from 'vitest';
import { addressKey, createRateLimit } from './rate-limit.ts';

describe('createRateLimit()', () => {
  it('allows a burst, and states when the next request is allowed', () => {
    let nowMs = 5_000_000;
    const limit = createRateLimit(2, { now: () => nowMs });
    expect([1, 2, 3, 4].map(() => limit.take('a'))).toEqual([0, 0, 30, 30]);
    nowMs += 10_500;
    // Asking costs nothing.
    expect([limit.take('a'), limit.take('a')]).toEqual([20, 20]);
    nowMs += 19_000;
    expect(limit.take('a')).toBe(1);
    nowMs += 500;
    expect([limit.take('a'), limit.take('a')]).toEqual([0, 30]);
    expect(limit.take('b')).toBe(0);
  });

  it('grants one at the exact millisecond, not before', () => {
    let nowMs = 0;
    const limit = createRateLimit(60_000 / 1024, { now: () => nowMs });
    while (limit.take('a') === 0);
    // 60000 / 1024 = 58.59…: 0.59… is left, and 1/1024 comes each millisecond.
    nowMs = 415;
    expect(limit.take('a')).toBe(1);
    nowMs = 416;
    expect(limit.take('a')).toBe(0);
  });

  it('saves up no more than a minute’s', () => {
    let nowMs = 0;
    const limit = createRateLimit(3, { now: () => nowMs });
    limit.take('a');
    nowMs += 3_600_000;
    expect([1, 2, 3, 4].map(() => limit.take('a'))).toEqual([0, 0, 0, 20]);
  });

  it('takes nothing away when the clock is set back', () => {
    let nowMs = 3_600_000;
    const limit = createRateLimit(2, { now: () => nowMs });
    expect(limit.take('a')).toBe(0);
    nowMs = 0;
    expect([limit.take('a'), limit.take('a')]).toEqual([0, 30]);
    // And goes on from there.
    nowMs = 30_000;
    expect([limit.take('a'), limit.take('a')]).toEqual([0, 30]);
  });

  it('forgets who was not seen for longest beyond so many', () => {
    const limit = createRateLimit(1, { maxKeys: 3, now: () => 0 });
    for (const key of ['a', 'b', 'c']) expect(limit.take(key)).toBe(0);
    expect(limit.take('a')).toBe(60);
    expect(limit.take('d')).toBe(0);
    // b is gone, the others are not.
    expect(['a', 'c', 'd'].map((key) => limit.take(key))).toEqual([60, 60, 60]);
    expect(limit.take('b')).toBe(0);
  });

  it('remembers 10,000 by default, by the clock', () => {
    const limit = createRateLimit(1);
    for (let i = 0; i < 10_000; i++) limit.take(`key ${i}`);
    expect(limit.take('key 0')).toBeGreaterThan(50);
    expect(limit.take('one more')).toBe(0);
    expect(limit.take('key 2')).toBeGreaterThan(50);
    expect(limit.take('key 1')).toBe(0);
  });
});

describe('addressKey()', () => {
  it.each([
    ['192.0.2.1', '192.0.2.1'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['::FFFF:192.0.2.1', '192.0.2.1'],
    ['::ffff:192.0.2.1%eth0', '192.0.2.1'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
    ['2001:db8:1:2::6', '2001:db8:1:2::/64'],
    ['2001:db8:1::6', '2001:db8:1:0::/64'],
    ['2001:db8::', '2001:db8:0:0::/64'],
    ['1::3:4:5:6:7:8', '1:0:3:4::/64'],
    ['::2:3:4:5:6:7:8', '0:2:3:4::/64'],
    ['1:2:3:4:5:6:7::', '1:2:3:4::/64'],
    ['1:2::5:6:7:8', '1:2:0:0::/64'],
    ['::4:5:6:7:8', '0:0:0:4::/64'],
    ['::1', '0:0:0:0::/64'],
    ['::', '0:0:0:0::/64'],
    ['fe80::1%eth0', 'fe80:0:0:0::/64'],
    ['fe80::1%eth0%1', 'fe80:0:0:0::/64'],
    [undefined, 'unknown'],
  ])('counts %s as %s', (address, key) => {
    expect(addressKey(address)).toBe(key);
  });
});

import { describe, expect, it } from 'vitest';
import {
  contains,
  createRanges,
  hostForSelf,
  inUrl,
  isLoopback,
  isThisMachine,
  isWildcard,
  unmapped,
} from './addresses.ts';

// RFC 1122 (3.2.1.3) and RFC 4291 (2.5.2, 2.5.3, 2.5.5.2).
const loopback = ['127.0.0.0', '127.0.0.1', '127.128.0.0', '127.255.255.255', '::1', '::ffff:127.0.0.1'];
const unspecified = ['0.0.0.0', '0.255.255.255', '::', '::ffff:0.0.0.0'];
const others = ['126.255.255.255', '128.0.0.0', '1.0.0.0', '10.0.0.1', '::2', '::ffff:128.0.0.0', 'fe80::1'];

describe('isLoopback()', () => {
  it.each([...loopback, 'localhost', 'LocalHost', '[::1]'])('is true for %s', (host) => {
    expect(isLoopback(host)).toBe(true);
  });

  it.each([...unspecified, ...others, 'localhost.example', 'a.localhost', '127.0.0.1.example', ''])(
    'is false for %s',
    (host) => {
      expect(isLoopback(host)).toBe(false);
    },
  );
});

describe('isThisMachine()', () => {
  it.each([...loopback, ...unspecified, 'localhost', '[::]'])('is true for %s', (host) => {
    expect(isThisMachine(host)).toBe(true);
  });

  it.each([...others, 'hospital.example'])('is false for %s', (host) => {
    expect(isThisMachine(host)).toBe(false);
  });
});

describe('createRanges() and contains()', () => {
  it.each([
    ['10.1.0.0/16', ['10.1.0.0', '10.1.255.255', '::ffff:10.1.2.3'], ['10.0.255.255', '10.2.0.0']],
    ['10.1.2.3', ['10.1.2.3'], ['10.1.2.2', '10.1.2.4']],
    ['0.0.0.0/0', ['0.0.0.0', '255.255.255.255'], ['fd00::1']],
    ['fd00::/8', ['fd00::', 'fdff:ffff::1'], ['fcff::1', 'fe00::', '10.1.2.3']],
    ['fd00::7', ['fd00::7'], ['fd00::6', 'fd00::8']],
  ])('of %s hold its first and last address, and none beside', (range, inside, outside) => {
    const list = createRanges([range]);
    for (const address of inside) expect(contains(list, address), address).toBe(true);
    for (const address of outside) expect(contains(list, address), address).toBe(false);
    expect(contains(list, 'hospital.example')).toBe(false);
  });

  it.each(['10.1.0.0/33', 'fd00::/129', '10.1.0.0/', '10.1.0.0/-1', '10.1.0.0/8/8', '10.1/16', 'all', ''])(
    'refuse %j',
    (range) => {
      expect(() => createRanges([range])).toThrow(expect.objectContaining({ code: 'BAD_REQUEST' }));
    },
  );
});

describe('isWildcard(), hostForSelf(), inUrl(), unmapped()', () => {
  it('know all addresses of a machine from one', () => {
    for (const host of ['0.0.0.0', '::', '[::]', '0:0:0:0:0:0:0:0']) expect(isWildcard(host)).toBe(true);
    for (const host of ['127.0.0.1', '::1', 'host.example']) expect(isWildcard(host)).toBe(false);
    expect(['0.0.0.0', '::', '[::]', '::1', 'host.example'].map(hostForSelf)).toEqual([
      '127.0.0.1',
      '[::1]',
      '[::1]',
      '[::1]',
      'host.example',
    ]);
    expect(['10.0.0.1', 'fd00::1'].map(inUrl)).toEqual(['10.0.0.1', '[fd00::1]']);
    expect(['::ffff:192.0.2.1', '::FFFF:192.0.2.1', '::ffff:1', '192.0.2.1'].map(unmapped)).toEqual([
      '192.0.2.1',
      '192.0.2.1',
      '::ffff:1',
      '192.0.2.1',
    ]);
  });
});

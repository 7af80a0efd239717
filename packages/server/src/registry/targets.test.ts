import { describe, expect, it } from 'vitest';
import { checkToldAddress } from './targets.ts';

// The registries of special-purpose addresses (RFC 6890), and the metadata services of three clouds.
describe('checkToldAddress() refuses the first and last address of a range, and none beside', () => {
  it.each([
    ['link-local', ['169.254.0.0', '169.254.255.255'], ['169.253.255.255', '169.255.0.0']],
    ['link-local and site-local of IPv6', ['fe80::', 'febf:ffff::1', 'fec0::', 'feff:ffff::1'], ['fe7f::1']],
    ['metadata at fd00:ec2::254', ['fd00:ec2::254'], ['fd00:ec2::253', 'fd00:ec2::255']],
    ['metadata at 100.100.100.200', ['100.100.100.200'], ['100.100.100.199', '100.100.100.201']],
    ['metadata at 168.63.129.16', ['168.63.129.16'], ['168.63.129.15', '168.63.129.17']],
    [
      'multicast and reserved',
      ['224.0.0.0', '239.255.255.255', '240.0.0.0', '255.255.255.255'],
      ['223.255.255.255'],
    ],
    ['multicast of IPv6', ['ff00::', 'ffff:ffff::1'], []],
    ['protocol assignments', ['192.0.0.0', '192.0.0.255'], ['191.255.255.255', '192.0.1.0']],
    ['discard-only', ['100::', '100::ffff:ffff:ffff:ffff'], ['ff::', '100:0:0:1::']],
    ['IPv4-compatible', ['::2', '::ffff:ffff'], ['::1:0:0']],
    ['IPv4-translated', ['::ffff:0:0:0', '::ffff:0:ffff:ffff'], ['::fffe:0:0:0', '::ffff:1:0:0']],
    ['NAT64', ['64:ff9b::', '64:ff9b::ffff:ffff'], ['64:ff9a::', '64:ff9b::1:0:0']],
    ['local NAT64', ['64:ff9b:1::', '64:ff9b:1:ffff::1'], ['64:ff9b:0:ffff::', '64:ff9b:2::']],
    ['6to4', ['2002::', '2002:ffff::1'], ['2003::']],
    ['Teredo', ['2001::', '2001:0:ffff::1'], ['2000:ffff::', '2001:1::']],
  ])('of %s', (_name, inside, beside) => {
    for (const address of inside)
      expect(() => checkToldAddress(address, true), address).toThrow(
        expect.objectContaining({ code: 'FORBIDDEN' }),
      );
    for (const address of beside) expect(() => checkToldAddress(address, false), address).not.toThrow();
  });

  it('takes private networks', () => {
    for (const address of [
      '10.0.0.1',
      '172.16.0.1',
      '192.168.255.255',
      '100.64.0.1',
      'fd00::1',
      '::ffff:10.0.0.1',
    ])
      expect(() => checkToldAddress(address, false), address).not.toThrow();
  });
});

import { parseModelServer } from '@tomaat/core';
import { describe, expect, it } from 'vitest';
import {
  createAddressRule,
  modelServersFor,
  parseModelServerKey,
  readModelServerKeys,
} from './model-servers.ts';

const address = (url: string) => parseModelServer(url)!;
const rule = (allowNet: string[], url = 'grpc://triton:8001', keys = {}) =>
  createAddressRule(address(url), { allowNet, keys });

describe('createAddressRule()', () => {
  it.each(['127.0.0.1', '127.9.9.9', '::1', '::ffff:127.0.0.1'])('permits loopback: %s', (to) => {
    expect(() => rule([])(to)).not.toThrow();
  });

  it.each(['10.1.2.3', '0.0.0.0', '169.254.169.254', '8.8.8.8', 'fd00::1', '::ffff:10.1.2.3'])(
    'refuses %s, with the flag that permits it',
    (to) => {
      expect(() => rule([])(to)).toThrow(`--allow-net ${to}/${to.includes(':') ? 128 : 32}`);
    },
  );

  it('permits the ranges of the operator alone', () => {
    const check = rule(['10.1.0.0/16', 'fd00::/8']);
    for (const to of ['10.1.2.3', 'fd00::7', '::ffff:10.1.2.3']) expect(() => check(to)).not.toThrow();
    for (const to of ['10.2.0.1', '172.16.0.1', 'fe80::1']) expect(() => check(to)).toThrow(/--allow-net/);
  });

  it('permits link-local addresses and metadata services only where a range names them', () => {
    const all = rule(['0.0.0.0/0', '::/0']);
    expect(() => all('10.1.2.3')).not.toThrow();
    for (const to of ['169.254.169.254', 'fe80::1', '168.63.129.16', 'fd00:ec2::254'])
      expect(() => all(to)).toThrow(/--allow-net/);
    expect(() => rule(['169.254.0.0/16'])('169.254.169.254')).not.toThrow();
    expect(() => rule(['169.254.1.0/24'])('169.254.169.254')).toThrow(/--allow-net/);
  });

  it('sends a key over TLS or to this machine only', () => {
    const keys = { 'triton:8001': 'k' };
    expect(() => rule(['10.0.0.0/8'], 'grpc://triton:8001', keys)('10.1.2.3')).toThrow(/over TLS/);
    expect(() => rule(['10.0.0.0/8'], 'grpcs://triton:8001', keys)('10.1.2.3')).not.toThrow();
    expect(() => rule([], 'grpc://triton:8001', keys)('127.0.0.1')).not.toThrow();
    expect(() => rule(['10.0.0.0/8'], 'grpc://triton:8002', keys)('10.1.2.3')).not.toThrow();
  });
});

describe('keys of model servers', () => {
  it.each([
    ['triton:8001=abc', { name: 'triton:8001', key: 'abc' }],
    ['Triton.Example:8001=a=b==', { name: 'triton.example:8001', key: 'a=b==' }],
    ['triton:80=abc', { name: 'triton:80', key: 'abc' }],
    ['triton:443=abc', { name: 'triton:443', key: 'abc' }],
    ['[fd00::1]:8001=abc', { name: '[fd00::1]:8001', key: 'abc' }],
  ])('%s', (line, wanted) => {
    expect(parseModelServerKey(line)).toEqual(wanted);
  });

  it.each([
    'abc',
    '=abc',
    'triton=abc',
    'triton:8001=',
    'triton:8001=a b',
    'triton:8001=a\r\nb',
    'a/b:1=c',
    'u@h:1=c',
  ])('refuses %j', (line) => {
    expect(parseModelServerKey(line)).toBeUndefined();
  });

  it('reach an app for its own model servers alone', () => {
    const keys = readModelServerKeys(['triton:8001=a', 'other:8001=b']);
    const served = {
      runtime: 'oip',
      url: 'grpcs://TRITON:8001',
      model: 'm',
      inferer: { type: 'simple' },
    } as const;
    const permitted = { allowNet: ['10.0.0.0/8'], keys };
    expect(modelServersFor({ manifest: { model: [served] } }, permitted)).toEqual({
      allowNet: ['10.0.0.0/8'],
      ca: undefined,
      keys: { 'triton:8001': 'a' },
    });
    const module = { runtime: 'module', file: 'app.js' } as const;
    expect(modelServersFor({ manifest: { model: [module] } }, permitted)).toBeUndefined();
  });
});

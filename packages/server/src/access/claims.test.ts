import { describe, expect, it } from 'vitest';
import { fulfils, hasClaim, isIssuerAddress, mergeClaims, parseClaimRule } from './claims.ts';

describe('parseClaimRule()', () => {
  it.each([
    ['groups=radiology', 'groups', 'radiology'],
    [' groups = radiology 2 ', 'groups', 'radiology 2'],
    ['a=b', 'a', 'b'],
    ['cn=ou=x,dc=y', 'cn', 'ou=x,dc=y'],
    ['a==', 'a', '='],
  ])('parses %j', (text, claim, value) => {
    expect(parseClaimRule(text)).toEqual({ claim, value });
  });

  it.each(['', 'groups', '=', '=radiology', ' =radiology', 'groups=', 'groups= '])('refuses %j', (text) => {
    expect(parseClaimRule(text)).toBeUndefined();
  });
});

describe('isIssuerAddress()', () => {
  it.each([
    'https://login.example',
    'https://login.example:8443/realms/a/',
    'http://localhost:8080',
    'http://127.0.0.1/x',
    'http://127.255.255.255',
    'http://[::1]:8080',
  ])('takes %s', (address) => {
    expect(isIssuerAddress(address)).toBe(true);
  });

  it.each([
    '',
    'login.example',
    'http://login.example',
    'http://128.0.0.1',
    'http://126.255.255.255',
    'http://localhost.example',
    'ftp://localhost',
    'https://login.example?a=b',
    'https://login.example#a',
    'https://user@login.example',
    'https://:word@login.example',
    'https://login.example/a|b',
  ])('refuses %s', (address) => {
    expect(isIssuerAddress(address)).toBe(false);
  });
});

describe('fulfils()', () => {
  const claims = {
    sub: 'u-17',
    level: 3,
    staff: true,
    groups: ['radiology', 'ward-3', 4, null, { name: 'nested' }],
    realm_access: { roles: ['reader'] },
    'a.b': 'whole',
    a: { b: 'part', c: 'deep' },
    none: null,
  };

  it.each([
    ['sub', 'u-17'],
    ['level', '3'],
    ['staff', 'true'],
    ['groups', 'radiology'],
    ['groups', 'ward-3'],
    ['groups', '4'],
    ['realm_access.roles', 'reader'],
    ['a.c', 'deep'],
    // A claim of that very name comes before one in a claim.
    ['a.b', 'whole'],
  ])('finds %s=%s', (claim, value) => {
    expect(fulfils(claims, { claim, value })).toBe(true);
  });

  it.each([
    ['sub', 'u-1'],
    ['sub', 'U-17'],
    ['level', '03'],
    ['staff', 'false'],
    ['groups', 'radio'],
    ['groups', 'null'],
    ['groups', 'nested'],
    ['groups', '[object Object]'],
    ['groups', 'radiology,ward-3'],
    ['realm_access', 'reader'],
    ['realm_access.roles.reader', 'reader'],
    ['a.b', 'part'],
    ['none', 'null'],
    ['none.more', 'x'],
    ['missing', 'undefined'],
    ['toString.name', 'toString'],
    ['constructor.name', 'Object'],
  ])('does not find %s=%s', (claim, value) => {
    expect(fulfils(claims, { claim, value })).toBe(false);
  });

  it.each([
    ['ada@hospital.example', 'ada@hospital.example', true],
    ['Ada@Hospital.Example', 'aDA@hospital.example', true],
    ['ada@hospital.example', '@hospital.example', true],
    ['Ada@HOSPITAL.example', '@Hospital.example', true],
    ['ada@hospital.example', 'hospital.example', false],
    ['ada@hospital.example', 'ada', false],
    ['ada@ward.hospital.example', '@hospital.example', false],
    ['ada@hospital.example.evil', '@hospital.example', false],
    ['a@b@hospital.example', '@hospital.example', false],
    ['@hospital.example', '@hospital.example', false],
    ['ada@evil.example', '@hospital.example', false],
  ])('compares the verified address %s with %s: %s', (email, value, expected) => {
    expect(fulfils({ email, email_verified: true }, { claim: 'email', value })).toBe(expected);
  });

  it('counts one address of several, and none that is not verified', () => {
    const email = ['a@x.example', 'b@y.example'];
    const rule = { claim: 'email', value: 'b@y.example' };
    expect(fulfils({ email, email_verified: true }, rule)).toBe(true);
    for (const email_verified of [undefined, false, 'true', 1, null])
      expect(fulfils({ email, email_verified }, rule), String(email_verified)).toBe(false);
    // Other claims need no such word, and are compared as they are.
    expect(fulfils({ mail: 'b@y.example' }, { ...rule, claim: 'mail' })).toBe(true);
    expect(fulfils({ mail: 'b@y.example' }, { claim: 'mail', value: '@y.example' })).toBe(false);
  });
});

describe('hasClaim()', () => {
  it('counts any value, and an address only with the word on it', () => {
    expect(hasClaim({ a: '' }, 'a')).toBe(true);
    expect(hasClaim({ a: false }, 'a')).toBe(true);
    expect(hasClaim({ a: [] }, 'a')).toBe(false);
    expect(hasClaim({ a: null }, 'a')).toBe(false);
    expect(hasClaim({}, 'a')).toBe(false);
    expect(hasClaim({ email: 'a@b.example' }, 'email')).toBe(false);
    expect(hasClaim({ email: 'a@b.example', email_verified: false }, 'email')).toBe(true);
    expect(hasClaim({ email_verified: true }, 'email')).toBe(false);
  });
});

describe('mergeClaims()', () => {
  it('adds what the token lacks, and changes nothing that it has', () => {
    expect(mergeClaims({ sub: 'a', name: 'A' }, { sub: 'b', name: 'B', groups: ['g'] })).toEqual({
      sub: 'a',
      name: 'A',
      groups: ['g'],
    });
  });

  it.each([
    // token, userinfo, merged
    [{ email: 'a', email_verified: false }, { email: 'b', email_verified: true }, ['a', false]],
    [{ email: 'a', email_verified: true }, {}, ['a', true]],
    [{}, { email: 'b', email_verified: true }, ['b', true]],
    [{}, { email: 'b' }, ['b', undefined]],
    [{ email: 'a' }, { email: 'b', email_verified: true }, ['b', true]],
    [{ email: 'a' }, { email_verified: true }, ['a', undefined]],
    [{ email_verified: true }, { email: 'b' }, ['b', undefined]],
    [{ email: 'a' }, {}, ['a', undefined]],
  ])('of %j and %j takes address and word from one source', (token, userinfo, merged) => {
    const { email, email_verified } = mergeClaims(token, userinfo);
    expect([email, email_verified]).toEqual(merged);
  });
});

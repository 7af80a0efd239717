import { describe, expect, it } from 'vitest';
import { loadConfig } from './config.ts';

describe('loadConfig()', () => {
  const data = '/nowhere/tomaat';
  const issuer = 'https://login.example/realms/main';
  const whole = { data, login: true, oidcIssuer: issuer, oidcClientId: 'tomaat' };
  const load = (flags: Record<string, unknown>, env: NodeJS.ProcessEnv = {}) =>
    loadConfig({ flags: { ...flags }, env }).config;

  it('takes the issuer, client, rules and secret from flags or variables', () => {
    expect(load(whole)).toMatchObject({
      oidcScopes: ['openid', 'profile', 'email'],
      oidcAllow: [],
      oidcAdmin: [],
    });
    const config = load(
      { ...whole, oidcAllow: ['groups=cn=radiology,ou=x', 'email=@hospital.example'] },
      { TOMAAT_OIDC_CLIENT_SECRET: 's', TOMAAT_OIDC_ADMIN: 'sub=a, sub=b' },
    );
    expect(config.oidcClientSecret).toBe('s');
    expect(config.oidcAllow).toEqual(['groups=cn=radiology,ou=x', 'email=@hospital.example']);
    expect(config.oidcAdmin).toEqual(['sub=a', 'sub=b']);
  });

  it('takes faces from flags, a variable or not at all, and names those that there are', () => {
    expect(load({ data }).faces).toEqual([]);
    expect(load({ data, faces: 'monailabel,v1' }).faces).toEqual(['monailabel', 'v1']);
    expect(load({ data }, { TOMAAT_FACES: 'auto3dseg, monailabel' }).faces).toEqual([
      'auto3dseg',
      'monailabel',
    ]);
    expect(() => load({ data, faces: 'monailabel,slicer' })).toThrow(
      'must be a list of: v1, monailabel, auto3dseg',
    );
  });

  it('refuses incomplete, unencrypted or unused issuer settings and names the remedy', () => {
    const cases: [Record<string, unknown>, RegExp][] = [
      [{ data, login: true, oidcIssuer: issuer }, /--oidc-client-id belong together/],
      [{ data, login: true, oidcClientId: 'tomaat' }, /belong together/],
      [{ data, login: true, oidcAllow: ['a=b'] }, /oidcAllow has no effect without --oidc-issuer/],
      [{ ...whole, login: undefined }, /--oidc-issuer has no effect without --login/],
      [{ ...whole, oidcIssuer: 'http://login.example' }, /must be an https address/],
      [{ ...whole, oidcAllow: ['radiology'] }, /must be CLAIM=VALUE/],
      [{ ...whole, oidcAdmin: ['=x'] }, /must be CLAIM=VALUE/],
      [{ ...whole, oidcScopes: 'profile,email' }, /lacks openid/],
    ];
    for (const [flags, message] of cases) expect(() => load(flags), String(message)).toThrow(message);
  });
});

import { afterEach, describe, expect, it, vi } from 'vitest';
import { load as loadFlags } from './cli/commands/settings-options.ts';
import { engineOf, loadConfig } from './config.ts';

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

  it('takes a folder or a bucket for volumes with a shared database alone', () => {
    const database = 'postgres://tomaat@db.example/tomaat';
    const bucket = 's3://volumes/tomaat?endpoint=https://s3.example';
    expect(load({ data, database, blobs: bucket, maxCacheBytes: '1000' })).toMatchObject({
      blobs: bucket,
      maxCacheBytes: 1000,
      deleteAfterSeconds: 60,
    });
    expect(() => load({ data, blobs: bucket })).toThrow('Give --database too, or leave --blobs out.');
    expect(() => load({ data, database, blobs: 's3://volumes?region=x' })).toThrow('s3://BUCKET/PREFIX');
    expect(() => load({ data, database, deleteAfterSeconds: '-1' })).toThrow('must be at least 0');
  });

  it('takes the login at the archive from a variable, and does not repeat it', () => {
    const url = 'https://pacs.example/dicom-web/';
    const archive = { data, faces: 'monailabel', dicomweb: url };
    const secret = (value: string) => ({ TOMAAT_DICOMWEB_CREDENTIALS: value });
    expect(load(archive, secret('user:pass: word'))).toMatchObject({
      dicomweb: 'https://pacs.example/dicom-web',
      dicomwebCredentials: 'user:pass: word',
    });
    const cases: [Record<string, unknown>, string | undefined, RegExp][] = [
      [{ data, faces: 'monailabel' }, 'a.b', /dicomwebCredentials has no effect without --dicomweb/],
      [{ data, dicomweb: url }, undefined, /--dicomweb has no effect without --faces monailabel/],
      [{ ...archive, dicomweb: 'http://pacs.example' }, 'a.b', /sent to pacs\.example unencrypted/],
      [{ ...archive, dicomweb: 'https://a:b@pacs.example' }, undefined, /must be a plain address/],
      [archive, 'no token', /TOMAAT_DICOMWEB_CREDENTIALS: must be USER:PASSWORD, or a bearer token/],
    ];
    for (const [flags, value, message] of cases)
      expect(() => load(flags, value === undefined ? {} : secret(value)), String(message)).toThrow(message);
    expect(load({ ...archive, dicomweb: 'http://127.0.0.1:8042' }, secret('a.b')).dicomwebCredentials).toBe(
      'a.b',
    );
    expect(load({ ...archive, dicomweb: 'http://pacs.example' }).dicomweb).toBe('http://pacs.example');
  });

  it('takes a contact of one line and at most 200 characters', () => {
    expect(load({ data }, { TOMAAT_CONTACT: ' Ada, room 12 ' }).contact).toBe('Ada, room 12');
    expect(load({ data, contact: 'x'.repeat(200) }).contact).toHaveLength(200);
    expect(() => load({ data, contact: 'x'.repeat(201) })).toThrow(
      /--contact .* must be at most 200 characters/,
    );
    for (const contact of ['', ' ', 'a\nb', 'a\u2028b'])
      expect(() => load({ data, contact })).toThrow(/must (not be empty|be one line)/);
  });
});

describe('the setting rewrite', () => {
  const data = '/nowhere/tomaat';
  afterEach(() => vi.unstubAllEnvs());

  it('is on, and off by flag, variable or file for commands that serve', async () => {
    // What the parser of the command line gives without a flag, and with --no-rewrite.
    const [without, flag] = [
      { data, rewrite: true },
      { data, rewrite: false },
    ];
    expect((await loadFlags(without)).config.rewrite).toBe(true);
    expect((await loadFlags(flag)).config.rewrite).toBe(false);
    vi.stubEnv('TOMAAT_REWRITE', 'false');
    expect((await loadFlags(without)).config.rewrite).toBe(false);
    vi.stubEnv('TOMAAT_REWRITE', 'true');
    expect((await loadFlags(flag)).config.rewrite).toBe(false);
  });

  it('is read by commands without a file of settings, with the data folder', () => {
    expect(engineOf({ rewrite: true, data }, {})).toEqual({ rewrite: true, data });
    expect(engineOf({ rewrite: false, data }, { TOMAAT_REWRITE: 'true' })).toEqual({ rewrite: false, data });
    expect(engineOf({ data }, { TOMAAT_REWRITE: 'off' }).rewrite).toBe(false);
    expect(engineOf({ data }, { TOMAAT_REWRITE: '' }).rewrite).toBe(true);
    expect(() => engineOf({}, { TOMAAT_REWRITE: 'perhaps' })).toThrow(
      'TOMAAT_REWRITE: “perhaps” must be true or false.',
    );
  });
});

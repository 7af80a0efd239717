import { mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { verifySigned } from '@tomaat/client';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openIdentity } from '../src/identity.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-identity-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

describe('openIdentity()', () => {
  it('keeps one key per folder, readable by its owner alone, with concurrent openers', async () => {
    const opened = await Promise.all(Array.from({ length: 20 }, () => openIdentity(folder)));
    expect(new Set(opened.map(({ thumbprint }) => thumbprint)).size).toBe(1);
    expect((await openIdentity(folder)).thumbprint).toBe(opened[0].thumbprint);
    expect(await readdir(folder)).toEqual(['identity.key']);
    expect((await stat(join(folder, 'identity.key'))).mode & 0o777).toBe(0o600);
  });

  it('signs for verifySigned(), which returns payload and signer, and refuses changed characters', async () => {
    const identity = await openIdentity(folder);
    const text = await identity.sign('tomaat-receipt+jws', { a: 1 });
    expect(await verifySigned(text, 'tomaat-receipt+jws')).toEqual({
      payload: { a: 1 },
      header: { alg: 'EdDSA', typ: 'tomaat-receipt+jws', jwk: identity.publicKey },
      thumbprint: identity.thumbprint,
    });
    await expect(verifySigned(text, 'tomaat-announcement+jws')).rejects.toMatchObject({
      code: 'BAD_SIGNATURE',
    });
    for (let at = 0; at < text.length; at++) {
      const other = text[at] === 'A' ? 'z' : 'A';
      const changed = await verifySigned(
        text.slice(0, at) + other + text.slice(at + 1),
        'tomaat-receipt+jws',
      ).catch((error) => error);
      // The last character of a base64url group may have bits that mean nothing.
      if (!('code' in changed))
        expect(changed).toMatchObject({ payload: { a: 1 }, thumbprint: identity.thumbprint });
      else expect(changed.code).toBe('BAD_SIGNATURE');
    }
  });
});

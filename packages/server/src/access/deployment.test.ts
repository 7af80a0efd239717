import { mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Kysely } from 'kysely';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Database } from '../store/database/database.ts';
import type { DeploymentSchema } from '../store/database/deployment-schema.ts';
import { openServerDatabase, type ServerSchema } from '../store/database/server-database.ts';
import { checkDeployment } from './deployment.ts';
import { openPseudonyms } from './pseudonyms.ts';

describe('checkDeployment()', () => {
  let folder: string;
  let database: Database<ServerSchema>;
  const blobs = () => join(folder, 'volumes');
  const check = async (more = {}) =>
    checkDeployment(database.db as unknown as Kysely<DeploymentSchema>, {
      identity: { thumbprint: 'a' },
      pseudonyms: await openPseudonyms(folder),
      blobs: blobs(),
      dataFolder: folder,
      ...more,
    });
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'tomaat-deployment-'));
    database = await openServerDatabase(folder);
    await mkdir(blobs());
  });
  afterAll(async () => {
    await database.close();
    rmSync(folder, { recursive: true, force: true });
  });

  it('refuses an empty folder in place of the one that is not mounted, and names both ways out', async () => {
    await check();
    await check();
    const id = readFileSync(join(blobs(), 'store.id'), 'utf8');
    renameSync(blobs(), join(folder, 'unmounted'));
    await mkdir(blobs());
    await expect(check()).rejects.toMatchObject({ code: 'CONFLICT' });
    await expect(check()).rejects.toThrow(
      `Give all servers the same --blobs, and check that it is mounted. If it is the right folder and has lost the file, write ${id} into ${join(blobs(), 'store.id')}.`,
    );
    rmSync(blobs(), { recursive: true });
    renameSync(join(folder, 'unmounted'), blobs());
    await check();
  });

  it('refuses another folder, a bucket instead of the folder, and another key', async () => {
    await check();
    const other = join(folder, 'other');
    await mkdir(other);
    await expect(check({ blobs: other })).rejects.toThrow('check that it is mounted');
    await expect(check({ blobs: 's3://volumes' })).rejects.toThrow('Give all of them the same --blobs.');
    await expect(check({ identity: { thumbprint: 'b' } })).rejects.toThrow('identity.key is not that');
  });

  it('doubts a server that stores what another one strips', async () => {
    expect(await check()).toBeUndefined();
    expect(await check({ uidKey: 'k' })).toBeUndefined();
    expect(await check()).toContain('--strip-inputs');
    // A registry stores nothing.
    expect(await check({ blobs: undefined })).toBeUndefined();
  });
});

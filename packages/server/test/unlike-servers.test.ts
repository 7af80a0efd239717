import { copyFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { claimedJobSchema, type Job } from '@tomaat/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createKey } from '../src/access/keys.ts';
import { openServerDatabase } from '../src/store/database/server-database.ts';
import { inferBright, writeApp } from './app-fixture.ts';
import { encode, phantom } from './phantom.ts';
import { postgresBin, startPostgres } from './support/postgres.ts';
import { startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

/* Two servers of one database that do not have the same apps. */

describe.skipIf(!postgresBin)('servers with different apps', () => {
  let folder: string;
  const servers: TestServer[] = [];
  let authorization: string;

  beforeAll(async () => {
    folder = await temporaryFolder();
    const database = await (await startPostgres()).database();
    for (const id of ['one', 'two']) {
      const dataFolder = await temporaryFolder();
      if (servers.length > 0)
        for (const key of ['identity.key', 'pseudonym.key'])
          await copyFile(join(servers[0].dataFolder, key), join(dataFolder, key));
      const app = await writeApp(folder, id, { infer: inferBright });
      const blobs = join(folder, 'blobs');
      servers.push(await startTestServer([app], { workers: 0, database, blobs, dataFolder }));
    }
    await using opened = await openServerDatabase(folder, database);
    const { key } = await createKey(opened.db as never, { label: 'worker', scopes: ['worker'] });
    authorization = `Bearer ${key}`;
  });
  afterAll(async () => {
    for (const server of servers) {
      await server[Symbol.asyncDispose]();
      await rm(server.dataFolder, { recursive: true, force: true });
    }
    await rm(folder, { recursive: true, force: true });
  });

  it('compute a job again whose result comes to one without its service', async () => {
    const [one, two] = servers;
    const created = await fetch(`${one.url}/api/services/one/predictions`, {
      method: 'POST',
      body: Uint8Array.from(await encode(phantom(), 'nii.gz')),
      headers: { 'content-type': 'application/octet-stream', prefer: 'wait=0' },
    });
    const { id } = (await created.json()) as Job;
    const post = (server: TestServer, path: string, body: object) =>
      fetch(`${server.url}/api/worker${path}`, {
        method: 'POST',
        body: JSON.stringify(body),
        headers: { 'content-type': 'application/json', authorization },
      });
    const claim = async () => {
      const answer = await post(one, '/claim', {
        worker: 'w',
        services: [{ id: 'one', version: '1.0.0' }],
        waitSeconds: 5,
      });
      return claimedJobSchema.parse(await answer.json());
    };
    const { attempt } = await claim();
    const refused = await post(two, `/jobs/${id}/complete`, { attempt, seconds: 1, outputs: [] });
    expect([refused.status, await refused.json()]).toEqual([
      409,
      expect.objectContaining({ detail: expect.stringMatching(/does not offer the service.* same apps/) }),
    ]);
    expect(await claim()).toMatchObject({ id, attempt: attempt + 1 });
    // Each shows it.
    for (const { url } of servers)
      expect(await (await fetch(`${url}/api/jobs/${id}`)).json()).toMatchObject({ state: 'running' });
  });
});

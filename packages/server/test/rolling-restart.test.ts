import { copyFile, mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { createClient } from '@tomaat/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isSlowWanted } from '../../../test/real-data.ts';
import { tomaat } from './cli-fixture.ts';
import { encode, phantom } from './phantom.ts';
import { openReplicaProxy, type ReplicaProxy } from './replica-proxy.ts';
import { type Serving, startServing } from './serving.ts';
import { postgresBin, startPostgres, type TestPostgres } from './support/postgres.ts';
import { appFolder, temporaryFolder } from './test-server.ts';

/* Two servers over one database and one folder of volumes, behind a proxy that knows only whether they are ready. */

let postgres: TestPostgres;
let folder: string;
let database: string;
let proxy: ReplicaProxy;

const dataOf = (name: string) => join(folder, name);
const serve = (name: string): Promise<Serving> =>
  startServing(
    [
      'serve',
      appFolder('threshold'),
      '--data',
      dataOf(name),
      '--blobs',
      join(folder, 'volumes'),
      '--database',
      database,
    ],
    { drainSeconds: 8 },
  );

describe.skipIf(!postgresBin || !isSlowWanted())('servers that are replaced one after the other', () => {
  beforeAll(async () => {
    folder = await temporaryFolder();
    postgres = await startPostgres();
    database = await postgres.database();
    proxy = await openReplicaProxy();
  }, 60_000);
  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await postgres?.[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });

  it('fail no request of those who predict meanwhile', async () => {
    let one = await serve('one');
    // A server with other keys is refused.
    await expect(serve('two')).rejects.toThrow('identity.key is not that of the other servers');
    await rm(dataOf('two'), { recursive: true });
    await mkdir(dataOf('two'), { mode: 0o700 });
    for (const key of ['identity.key', 'pseudonym.key'])
      await copyFile(join(dataOf('one'), key), join(dataOf('two'), key));
    let two = await serve('two');
    proxy.servers.add(one.addresses.server).add(two.addresses.server);
    await expect
      .poll(() =>
        fetch(`${proxy.url}/health/ready`).then(
          (answer) => answer.ok,
          () => false,
        ),
      )
      .toBe(true);

    const volume = await encode(phantom(), 'nii');
    const faults: unknown[] = [];
    const done = [0, 0, 0];
    let isOver = false;
    /** As curl would: a request that fails is not repeated. */
    async function promise(owner: number): Promise<void> {
      while (!isOver) {
        try {
          const answer = await fetch(`${proxy.url}/threshold/any`, {
            method: 'POST',
            body: volume as BodyInit,
            headers: { 'content-type': 'application/octet-stream' },
          });
          const bytes = await answer.arrayBuffer();
          if (answer.status !== 200) throw new Error(`${answer.status} ${Buffer.from(bytes)}`);
          done[owner]++;
        } catch (error) {
          faults.push(error);
        }
      }
    }
    const client = createClient({ baseUrl: proxy.url });
    async function follow(owner: number): Promise<void> {
      while (!isOver) {
        try {
          const job = await client.predict('threshold', {
            volumes: { volume: { name: 'scan.nii', bytes: volume } },
          });
          const settled = await client.wait(job.id);
          if (settled.state !== 'succeeded') throw new Error(JSON.stringify(settled));
          await client.output(job.id, settled.outputs[0].name);
          done[owner]++;
        } catch (error) {
          faults.push(error);
        }
      }
    }
    const owners = [promise(0), promise(1), follow(2)];
    const grown = async () => {
      const before = [...done];
      await expect.poll(() => done.every((count, i) => count > before[i]), { timeout: 60_000 }).toBe(true);
    };
    await grown();
    expect(await one.stop()).toBe(0);
    await grown();
    proxy.servers.delete(one.addresses.server);
    one = await serve('one');
    proxy.servers.add(one.addresses.server);
    await grown();
    expect(await two.stop()).toBe(0);
    await grown();
    proxy.servers.delete(two.addresses.server);
    two = await serve('two');
    proxy.servers.add(two.addresses.server);
    await grown();
    isOver = true;
    await Promise.all(owners);
    expect(faults).toEqual([]);
    for (const count of proxy.counts.values()) expect(count).toBeGreaterThan(0);
    await Promise.all([one.stop(), two.stop()]);
    const verified = await tomaat(['audit', 'verify', '--data', dataOf('two'), '--database', database]);
    expect(verified.stderr).toBe('');
    expect(verified.stdout).toContain('The audit log is intact');
  }, 240_000);
});

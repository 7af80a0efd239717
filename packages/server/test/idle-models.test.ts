import { readFile, rm } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { goodFile } from '../../core/test/bad-files.ts';
import { inferBright, writeApp } from './app-fixture.ts';
import { type RealServer, startRealServer } from './real-server.ts';
import { temporaryFolder } from './test-server.ts';

let folder: string;
let apps: string[];
let bytes: Uint8Array<ArrayBuffer>;
beforeAll(async () => {
  folder = await temporaryFolder();
  bytes = Uint8Array.from(await goodFile('nii.gz'));
  apps = [
    await writeApp(folder, 'one', { infer: inferBright }),
    await writeApp(folder, 'two', { infer: inferBright }),
  ];
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** The processes that the server has started: its children with their models. */
async function childrenOf({ pid }: RealServer): Promise<string[]> {
  const text = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8');
  return text.split(' ').filter(Boolean);
}

async function predict(server: RealServer, service: string): Promise<void> {
  const response = await fetch(`${server.url}/${service}/any`, {
    method: 'POST',
    body: bytes,
    headers: { 'content-type': 'application/octet-stream' },
  });
  expect(response.status).toBe(200);
  await response.arrayBuffer();
}

describe.skipIf(process.platform !== 'linux')('idle models', () => {
  it('stay loaded between jobs', async () => {
    await using server = await startRealServer(apps);
    await predict(server, 'one');
    await predict(server, 'two');
    const before = await childrenOf(server);
    expect(before).toHaveLength(2);
    await predict(server, 'one');
    await predict(server, 'two');
    expect(await childrenOf(server)).toEqual(before);
  });

  it('are unloaded, longest idle first, when they exceed their memory', async () => {
    // Room for one child of some 60 to 120 MB, not for two.
    await using server = await startRealServer(apps, { maxIdleMb: 130 });
    await predict(server, 'one');
    const [first] = await childrenOf(server);
    await predict(server, 'two');
    await expect.poll(() => childrenOf(server).then((pids) => pids.length), { timeout: 20_000 }).toBe(1);
    expect(await childrenOf(server)).not.toContain(first);
    await using none = await startRealServer(apps, { maxIdleMb: 0 });
    await predict(none, 'one');
    await expect.poll(() => childrenOf(none), { timeout: 20_000 }).toEqual([]);
  });
});

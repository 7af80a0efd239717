import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { dicomFile, sliceElements } from '../../core/test/dicom-files.ts';
import { createSeriesAdmin } from '../src/gateway/series-admin.ts';
import { gatewayFolder, openGatewayDatabase } from '../src/store/database/gateway-database.ts';

/** More by hand: `GATEWAY_KILLS=50 npx vitest run packages/server/test/gateway-crash.test.ts`. */
const kills = Number(process.env.GATEWAY_KILLS ?? 3);
const seriesPerKill = 4;

it('each series ends with one result, whenever the gateway is killed', {
  timeout: 60_000 + kills * 5000,
}, async () => {
  const folder = await mkdtemp(join(tmpdir(), 'tomaat-killed-'));
  const [data, inbox, results] = ['data', 'inbox', 'results'].map((name) => join(folder, name));
  let gateway: ChildProcess | undefined;
  try {
    await mkdir(inbox);
    const sent = new Map<string, number>();
    for (let kill = 0; kill <= kills; kill++) {
      gateway = await start([data, inbox, results]);
      // New ones, and one more file of some that were computed, or are.
      for (let index = 0; index < seriesPerKill; index++) await send(inbox, sent, `${kill}${index}`, 3);
      if (kill > 0) await send(inbox, sent, `${kill - 1}0`, 4);
      if (kill === kills) break;
      await sleep(Math.random() * 900);
      gateway.kill('SIGKILL');
      await once(gateway, 'exit');
    }
    await using database = await openGatewayDatabase(data);
    const admin = createSeriesAdmin(database as never);
    const unfinished = async () => {
      const done = await readdir(results);
      return ['a', 'b'].flatMap((rule) =>
        [...sent]
          .map(([series, files]) => `${rule}_1.2.3.${series}_${files}`)
          .filter((name) => !done.includes(name)),
      );
    };
    await expect.poll(unfinished, { timeout: 60_000 }).toEqual([]);
    const open = async () =>
      (await admin.counts()).filter(({ state }) => ['waiting', 'queued', 'running'].includes(state));
    await expect.poll(open, { timeout: 20_000 }).toEqual([]);
    const rows = await admin.list({ limit: 100_000 });
    // One that grew while it was being stored, and whose end a kill has cut off, ends with that reason; the grown one follows.
    for (const { state, reason } of rows)
      if (state !== 'done') expect([state, reason?.code]).toEqual(['failed', 'CONFLICT']);
    // One row for each rule and content, and a result for each row.
    const contents = rows.map(({ rule, series, digest }) => `${rule} ${series} ${digest}`);
    expect(new Set(contents).size).toBe(rows.length);
    const done = rows.filter(({ state }) => state === 'done');
    const known = new Set(rows.flatMap(({ results }) => results[0]?.sopInstance ?? []));
    const stored = (await readdir(results)).filter((name) => !name.startsWith('.'));
    expect(stored.filter((name) => !known.has(name))).toEqual([]);
    expect(done.filter((row) => !stored.includes(row.results[0].sopInstance))).toEqual([]);
    for (const row of done) {
      const before = rows.find(({ id }) => id === row.predecessor);
      const result = JSON.parse(await readFile(join(results, row.results[0].sopInstance), 'utf8'));
      expect(result.after).toBe(before?.results[0].sopInstance);
    }
    expect(await readdir(join(gatewayFolder(data), 'work'))).toEqual([]);
  } finally {
    gateway?.kill('SIGKILL');
    await rm(folder, { recursive: true, force: true });
  }
});

async function start(folders: string[]): Promise<ChildProcess> {
  const child = fork(join(import.meta.dirname, 'gateway-process.ts'), folders, {
    execArgv: ['--conditions=tomaat-source'],
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  const [message] = await Promise.race([once(child, 'message'), once(child, 'exit')]);
  expect(message).toBe('ready');
  return child;
}

/** Puts the files of a series into the inbox that are not there yet. */
async function send(inbox: string, sent: Map<string, number>, series: string, files: number): Promise<void> {
  for (let instance = (sent.get(series) ?? 0) + 1; instance <= files; instance++) {
    const part = join(inbox, `.${series}-${instance}`);
    await writeFile(part, dicomFile(sliceElements({ series, instance })));
    await rename(part, join(inbox, `${series}-${instance}`));
  }
  sent.set(series, files);
}

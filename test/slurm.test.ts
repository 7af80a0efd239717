import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Job } from '@tomaat/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { goodFile } from '../packages/core/test/bad-files.ts';
import { createKey } from '../packages/server/src/access/keys.ts';
import { openServerDatabase } from '../packages/server/src/store/database/server-database.ts';
import { inferBright, writeApp } from '../packages/server/test/app-fixture.ts';
import { bin, deadAddress } from '../packages/server/test/cli-fixture.ts';
import { type RealServer, startRealServer } from '../packages/server/test/real-server.ts';
import { temporaryFolder } from '../packages/server/test/test-server.ts';
import { repository } from './documents.ts';
import { findProgram } from './programs.ts';
import { type Slurm, startSlurm } from './slurm.ts';

/* deploy/slurm with a real Slurm: its daemons are started here, as root. */

const isWanted = Boolean(
  process.env.TOMAAT_TEST_SLURM && findProgram('slurmctld', ['-V']) && findProgram('munged', ['--version']),
);
const wait = { timeout: 120_000, interval: 200 };

describe.skipIf(!isWanted)(
  'deploy/slurm (TOMAAT_TEST_SLURM=1 runs this, as root)',
  { timeout: 300_000 },
  () => {
    let slurm: Slurm;
    let folder: string;
    let server: RealServer;
    let bytes: Uint8Array<ArrayBuffer>;
    let authorization: string;

    beforeAll(async () => {
      folder = await temporaryFolder();
      bytes = Uint8Array.from(await goodFile('nii.gz'));
      const program = {
        runtime: 'command',
        command: ['sh', '-c', `echo '{"fraction":0.5}'; sleep 600`, 'sh'],
      };
      const apps = [
        await writeApp(folder, 'slow', {
          infer: `for (let i = 0; i < 40; i++) { context.progress(i / 40); await sleep(100); } ${inferBright}`,
        }),
        await writeApp(folder, 'endless', { model: program }),
      ];
      server = await startRealServer(apps, { workers: 0, login: true, dataFolder: join(folder, 'data') });
      await using database = await openServerDatabase(server.dataFolder);
      for (const scope of ['worker', 'metrics', 'predict'] as const) {
        const { key } = await createKey(database.db as never, { label: scope, scopes: [scope] });
        writeFileSync(join(folder, `${scope}.key`), `${key}\n`, { mode: 0o600 });
        if (scope === 'predict') authorization = `Bearer ${key}`;
      }
      const tomaat = join(folder, 'tomaat');
      writeFileSync(tomaat, `#!/bin/sh\nexec ${process.execPath} ${bin} "$@"\n`, { mode: 0o755 });
      slurm = await startSlurm();
    }, 300_000);
    afterAll(async () => {
      await slurm?.[Symbol.asyncDispose]();
      await server?.[Symbol.asyncDispose]();
      if (folder) rmSync(folder, { recursive: true, force: true });
    }, 60_000);

    /** Settings for a service: those of deploy/slurm, with what is different here. */
    function writeSettings(service: string, more: Record<string, string | number> = {}): string {
      const file = join(folder, `${service}.conf`);
      const own = {
        ...{
          SERVER: server.url,
          CA: '',
          SERVICE: service,
          APP: join(folder, service),
          TOMAAT: join(folder, 'tomaat'),
        },
        ...{ WORKER_KEY_FILE: join(folder, 'worker.key'), METRICS_KEY_FILE: join(folder, 'metrics.key') },
        ...{
          MAX: 3,
          IDLE_EXIT: 2,
          SBATCH: `(--gres=gpu:1 --cpus-per-task=1 --output=${folder}/%x-%A_%a.log)`,
        },
        ...more,
      };
      const lines = Object.entries(own).map((pair) => `${pair.join('=')}\n`);
      writeFileSync(
        file,
        readFileSync(join(repository, 'deploy/slurm/tomaat.conf'), 'utf8') + lines.join(''),
      );
      return file;
    }
    function scale(settings: string, env = slurm.environment) {
      const script = join(repository, 'deploy/slurm/scale.sh');
      const { status, stdout, stderr } = spawnSync(script, [settings], { env, encoding: 'utf8' });
      return { status, stdout, stderr };
    }
    const tasks = () =>
      slurm
        .ask('squeue', '--noheader', '--array', '--format=%t')
        .split('\n')
        .filter((line) => line !== '');
    async function submit(service: string): Promise<string> {
      const response = await fetch(`${server.url}/api/services/${service}/predictions`, {
        method: 'POST',
        body: bytes,
        headers: { 'content-type': 'application/octet-stream', authorization },
      });
      expect(response.status).toBe(202);
      return ((await response.json()) as Job).id;
    }
    const ask = (id: string, method = 'GET') =>
      fetch(`${server.url}/api/jobs/${id}`, { method, headers: { authorization } });
    const look = async (id: string) => (await (await ask(id)).json()) as Job;
    const computes = (id: string) =>
      expect.poll(async () => (await look(id)).fraction ?? 0, wait).toBeGreaterThan(0.4);

    it('starts a worker for each prediction that waits, up to MAX; they end when idle', async () => {
      const settings = writeSettings('slow');
      expect(scale(settings)).toEqual({ status: 0, stdout: '', stderr: '' });
      expect(tasks()).toEqual([]);
      const ids = await Promise.all(Array.from({ length: 5 }, () => submit('slow')));
      const first = scale(settings);
      expect([first.status, first.stdout], first.stderr).toEqual([
        0,
        expect.stringContaining('started 3 more'),
      ]);
      // The queue is as long as before.
      expect(scale(settings)).toEqual({ status: 0, stdout: '', stderr: '' });
      expect(tasks()).toHaveLength(3);
      for (const id of ids) await expect.poll(async () => (await look(id)).state, wait).toBe('succeeded');
      for (const id of ids) expect((await look(id)).attempt).toBe(1);
      await expect.poll(tasks, wait).toEqual([]);
      const ends = slurm.ask('scontrol', 'show', 'job', '--oneliner').trim().split('\n');
      expect(ends).toHaveLength(3);
      const logs = () =>
        readdirSync(folder)
          .filter((name) => name.endsWith('.log'))
          .map((name) => readFileSync(join(folder, name), 'utf8'))
          .join('');
      for (const end of ends) expect(end, logs()).toMatch(/ JobState=COMPLETED .* ExitCode=0:0 /);
    });

    it('starts no second worker for what waits when one is about to take it', async () => {
      const settings = writeSettings('slow');
      const id = await submit('slow');
      expect(scale(settings).stdout).toContain('started 1 more');
      await submit('slow');
      expect(scale(settings).stdout).toContain('started 1 more');
      expect(scale(settings).stdout).toBe('');
      await expect.poll(async () => (await look(id)).state, wait).toBe('succeeded');
      await expect.poll(tasks, wait).toEqual([]);
    });

    it.each(['slow', 'endless'])(
      'scancel hands the prediction of %s back or lets it end',
      async (service) => {
        const settings = writeSettings(service);
        const id = await submit(service);
        scale(settings);
        await computes(id);
        slurm.ask('scancel', `--name=tomaat-${service}`);
        await expect.poll(tasks, wait).toEqual([]);
        const after = await look(id);
        // A network goes on to its end; a program got the signal, too.
        if (service === 'slow') expect([after.state, after.attempt]).toEqual(['succeeded', 1]);
        else expect([after.state, after.attempt, after.error]).toEqual(['queued', 1, undefined]);
        await ask(id, 'DELETE');
      },
    );

    it('changes nothing if the server, its service or Slurm is away', async () => {
      const ids = [await submit('slow')];
      const away = scale(writeSettings('slow', { SERVER: await deadAddress() }));
      expect([away.status, away.stderr]).toEqual([1, expect.stringContaining('Nothing was changed')]);
      const misspelt = scale(writeSettings('slow', { SERVICE: 'slwo' }));
      expect([misspelt.status, misspelt.stderr]).toEqual([1, expect.stringContaining('does not serve slwo')]);
      const settings = writeSettings('slow');
      // An empty configuration is refused at once; for a missing one Slurm asks the network, for a minute.
      const alone = scale(settings, { ...slurm.environment, SLURM_CONF: '/dev/null' });
      expect([alone.status, alone.stderr]).toEqual([1, expect.stringContaining('squeue does not answer')]);
      writeFileSync(join(folder, 'metrics.key'), 'tmt_wrong\n');
      const refused = scale(settings);
      expect([refused.status, refused.stderr]).toEqual([1, expect.stringContaining('Nothing was changed')]);
      expect(tasks()).toEqual([]);
      for (const id of ids) await ask(id, 'DELETE');
    });
  },
);

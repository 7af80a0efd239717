import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import pino from 'pino';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findProgram } from '../../../test/programs.ts';
import { type RunningServer, startServer } from '../src/server.ts';
import { makeKey } from './access-fixture.ts';
import { writeApp } from './app-fixture.ts';
import { temporaryFolder, tomaat } from './cli-fixture.ts';
import { encode, phantom } from './phantom.ts';
import { sharedOptions } from './support/tested-database.ts';

/* What one user has with a server that wants a login: a stored key, cards, jobs. */

const work = temporaryFolder();
const home = mkdtempSync(join(tmpdir(), 'tomaat-own-'));
const at = (name: string) => join(work.path, name);
let server: RunningServer;
let key: string;
const run = (...args: string[]) => tomaat([...args, '--data', home]);
const lines = (text: string) =>
  text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));

beforeAll(async () => {
  const infer = `await new Promise((resolve) => setTimeout(resolve, volume.voxels[0] === 99 ? 60000 : 0));
  return { segmentation: bright(volume) };`;
  const app = await writeApp(work.path, 'bright', {
    infer,
    name: 'Bright things',
    labels: [{ value: 1, name: 'bright' }],
    inputs: {
      volume: { type: 'volume', label: 'Any volume' },
      level: { type: 'slider', minimum: 0, maximum: 9, step: 1, default: 4 },
    },
  });
  server = await startServer({
    appFolders: [app],
    port: 0,
    tlsPort: 0,
    strictPort: false,
    dataFolder: at('data'),
    login: true,
    ...(await sharedOptions(at('data'))),
    logger: pino({ level: 'silent' }),
  });
  ({ key } = await makeKey(at('data'), ['predict']));
  const scan = phantom();
  writeFileSync(at('scan.nii'), await encode(scan, 'nii'));
  (scan.voxels as Int16Array)[0] = 99;
  writeFileSync(at('slow.nii'), await encode(scan, 'nii'));
}, 60_000);
afterAll(async () => {
  await server?.close();
  work.remove();
  rmSync(home, { recursive: true, force: true });
});

describe('a login of the command line', () => {
  it('is checked, stored for its owner alone, and used without a flag', async () => {
    const before = await run('show', `${server.url}/services/bright`);
    expect(before).toMatchObject({ code: 2, stderr: expect.stringMatching(/key/i) });
    const wrong = await run('login', server.url!, '--api-key', 'tmt_wrong');
    expect(wrong.code).toBe(2);
    const given = await run('login', server.url!, '--api-key', key);
    expect(given).toMatchObject({ code: 0, stdout: expect.stringContaining('Logged in at') });
    expect(given.stdout).not.toContain(key);
    expect(statSync(join(home, 'keyring')).mode & 0o777).toBe(0o600);
    const card = await run('show', `${server.url}/services/bright`);
    expect(card.code, card.stderr).toBe(0);
    expect(card.stdout).toMatch(/^Bright things 1\.0\.0\n/);
    expect(card.stdout).toContain('level: slider, 0 to 9, default 4');
    expect(card.stdout).toMatch(/ 1 {2}bright/);
    expect(lines((await run('login', '--json')).stdout)[0]).toMatchObject([{ server: server.url }]);
  });

  it('is refused where others may read the file, and forgotten by logout', async () => {
    chmodSync(join(home, 'keyring'), 0o644);
    const open = await run('show', `${server.url}/services/bright`);
    expect(open).toMatchObject({ code: 2, stderr: expect.stringContaining('chmod 600') });
    chmodSync(join(home, 'keyring'), 0o600);
    expect((await run('logout', server.url!)).code).toBe(0);
    expect(readFileSync(join(home, 'keyring'), 'utf8')).not.toContain(key);
    expect((await run('logout', server.url!)).code).toBe(2);
    await run('login', server.url!, '--api-key', key);
  });
});

describe('the jobs of a user', () => {
  it('are listed with their states, and cancelled by the first characters', async () => {
    const one = await run('predict', `${server.url}/services/bright`, '--volume', at('scan.nii'), '--json');
    expect(one.code, one.stderr).toBe(0);
    const slow = run('predict', `${server.url}/services/bright`, '--volume', at('slow.nii'), '--quiet');
    await expect
      .poll(async () => lines((await run('jobs', '--json')).stdout).map(({ state }) => state), {
        timeout: 20_000,
      })
      .toEqual(['running', 'succeeded']);
    const [running, done] = lines((await run('jobs', '--json')).stdout);
    expect(done).toMatchObject({ job: JSON.parse(one.stdout).job, input: at('scan.nii'), service: 'bright' });
    const stopped = await run('cancel', running.job.slice(0, 10));
    expect(stopped).toMatchObject({ code: 0, stdout: `${running.job} is cancelled.\n` });
    expect((await slow).code).not.toBe(0);
    const ended = await run('cancel', done.job);
    expect(ended.stdout).toContain('had already ended: succeeded');
    const missing = await run('cancel', 'nothing');
    expect(missing).toMatchObject({ code: 1, stderr: expect.stringContaining('tomaat jobs --all') });
    const table = await run('jobs');
    expect(table.stdout).toMatch(/SENT +STATE +SERVICE +INPUT +JOB/);
    expect(table.stdout).toMatch(/canceled/);
    expect(statSync(join(home, 'jobs.jsonl')).mode & 0o777).toBe(0o600);
  }, 60_000);
});

describe('tomaat completion', () => {
  const bash = findProgram('bash', ['--version']);
  it.skipIf(!bash)('completes commands, subcommands and options in bash', async () => {
    const { stdout } = await tomaat(['completion', 'bash']);
    const ask = (...words: string[]) => {
      const script = `${stdout}\nCOMP_WORDS=(${words.map((word) => `'${word}'`).join(' ')})\nCOMP_CWORD=${words.length - 1}\n_tomaat\nprintf '%s\\n' "\${COMPREPLY[@]}"`;
      return spawnSync(bash!, ['-c', script], {
        encoding: 'utf8',
        cwd: fileURLToPath(new URL('.', import.meta.url)),
      })
        .stdout.trim()
        .split('\n');
    };
    expect(ask('tomaat', 'pre')).toEqual(['predict']);
    expect(ask('tomaat', 'predict', '--vol')).toEqual(['--volume']);
    expect(ask('tomaat', 'keys', 'cr')).toEqual(['create']);
    expect(ask('tomaat', 'keys', 'create', '--sc')).toEqual(['--scope']);
    // The shell itself completes files where there is nothing else.
    for (const word of ['', 'cli-ow']) expect(ask('tomaat', 'run', word)).toEqual(['']);
    expect(stdout).toContain('complete -o default -F _tomaat tomaat');
  });

  it('is written for zsh and fish, and refuses other shells', async () => {
    expect((await tomaat(['completion', 'zsh'])).stdout).toContain('bashcompinit');
    expect((await tomaat(['completion', 'fish'])).stdout).toContain('-a predict -d');
    expect(await tomaat(['completion', 'cmd'])).toMatchObject({ code: 2 });
  });
});

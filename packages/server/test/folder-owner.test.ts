import { spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openKeyFolder } from '../src/access/key-folder.ts';
import { listKeys } from '../src/access/keys.ts';
import { ownerOf } from '../src/store/files/folder-owner.ts';
import { bin, type CliResult, tomaat } from './cli-fixture.ts';
import { startServing } from './serving.ts';
import { appFolder } from './test-server.ts';

/* Commands of root and of others beside a server of one user: what they make is that user's, or they are refused. */

const owner = { uid: 12_345, gid: 12_346 };
const stranger = { uid: 12_347, gid: 12_347 };
/** Root alone can be another user; and that user has to be able to read the program. */
const canSwitch =
  process.geteuid?.() === 0 &&
  spawnSync(process.execPath, [bin, '--version'], { ...owner, env: { PATH: process.env.PATH } }).status === 0;
if (!canSwitch) console.log('Skipped: the tests here that need root, who can act as other users.');

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-owner-'));
  // Others have to get to what is theirs in it.
  chmodSync(folder, 0o755);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** A folder of the owner. */
function ownFolder(name: string): string {
  const path = join(folder, name);
  mkdirSync(path, { mode: 0o700 });
  chownSync(path, owner.uid, owner.gid);
  return path;
}

/** A folder for the compiled code of a user, who may not write to that of the run. */
function codeCacheOf({ uid, gid }: { uid: number; gid: number }): string {
  const path = join(folder, `code-${uid}`);
  if (existsSync(path)) return path;
  mkdirSync(path, { mode: 0o700 });
  chownSync(path, uid, gid);
  return path;
}

/** Runs a command as another user. */
function tomaatAs(user: { uid: number; gid: number }, args: readonly string[]): Promise<CliResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [bin, ...args], {
      ...user,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { PATH: process.env.PATH, HOME: folder, NODE_COMPILE_CACHE: codeCacheOf(user) },
    });
    const result: CliResult = { code: null, signal: null, stdout: '', stderr: '' };
    child.stdout.on('data', (text) => {
      result.stdout += text;
    });
    child.stderr.on('data', (text) => {
      result.stderr += text;
    });
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ ...result, code, signal }));
  });
}

/** Everything in a folder that does not belong to the owner, or that others may read. */
async function strange(dataFolder: string): Promise<string[]> {
  const entries = await readdir(dataFolder, { recursive: true });
  return entries.filter((name) => {
    const stat = lstatSync(join(dataFolder, name), { throwIfNoEntry: false });
    if (!stat) return false;
    const isPublic = name === 'tomaat.pem';
    return stat.uid !== owner.uid || stat.gid !== owner.gid || (!isPublic && (stat.mode & 0o077) !== 0);
  });
}

const events = (dataFolder: string): Record<string, unknown>[] =>
  readFileSync(join(dataFolder, 'audit.jsonl'), 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));

describe.skipIf(!canSwitch)('root beside a server of another user', () => {
  it('makes audited keys, and leaves the user’s later commands working', async () => {
    const data = ownFolder('keys');
    await using serving = await startServing(
      ['serve', appFolder('threshold'), '--login', '--data', data],
      owner,
    );
    const status = async (key: string) =>
      (
        await fetch(`${serving.addresses.server}/api/services`, {
          headers: { authorization: `Bearer ${key.trim()}` },
        })
      ).status;
    const make = ['keys', 'create', '--label', 'ward', '--scope', 'predict', '--data', data];
    const byRoot = await tomaat(make);
    expect(byRoot.code, byRoot.stderr).toBe(0);
    expect(await strange(data)).toEqual([]);
    const byOwner = await tomaatAs(owner, make);
    expect(byOwner.code, byOwner.stderr).toBe(0);
    expect(byOwner.stdout).toMatch(/^tmt_/);
    for (const key of [byRoot.stdout, byOwner.stdout]) expect(await status(key)).toBe(200);
    const ids = [byRoot.stdout, byOwner.stdout].map((key) => /^tmt_(\w{10})_/.exec(key)![1]);
    const revoked = await tomaatAs(owner, ['keys', 'revoke', ids[0], '--data', data]);
    expect(revoked.code, revoked.stderr).toBe(0);
    expect((await tomaat(['keys', 'revoke', ids[1], '--data', data])).code).toBe(0);
    for (const key of [byRoot.stdout, byOwner.stdout]) expect(await status(key)).toBe(401);
    await expect
      .poll(() => events(data).filter(({ event }) => String(event).startsWith('key.')), { timeout: 20_000 })
      .toEqual([
        expect.objectContaining({ event: 'key.created', scopes: ['admin'] }),
        ...ids.map((keyId) => expect.objectContaining({ event: 'key.created', keyId })),
        ...ids.map((keyId) => expect.objectContaining({ event: 'key.revoked', keyId })),
      ]);
    expect((await tomaat(['keys', 'list', '--data', data])).code).toBe(0);
    expect((await tomaat(['audit', 'rotate', '--data', data])).code).toBe(0);
    expect((await tomaat(['erase', '--key', ids[0], '--data', data])).code).toBe(0);
    expect(await strange(data)).toEqual([]);
    expect(await serving.stop()).toBe(0);
    expect(serving.log()).not.toMatch(/"level":(40|50)/);
    expect((await tomaat(['audit', 'verify', '--data', data])).code).toBe(0);
  }, 120_000);

  it('leaves all of a folder to its user, without a server too', async () => {
    const data = ownFolder('without');
    const run = async (...args: string[]) => {
      const { code, stdout, stderr } = await tomaat([...args, '--data', data]);
      expect(code, `${args.join(' ')}: ${stderr}`).toBe(0);
      expect(await strange(data), args.join(' ')).toEqual([]);
      return stdout;
    };
    const id = JSON.parse(await run('keys', 'create', '--label', 'a', '--json')).id;
    await run('backup', join(folder, 'copy'));
    await run('backup', join(folder, 'copy.tar'));
    await run('erase', '--key', id, '--revoke');
    await run('restore', join(folder, 'copy'), '--force');
    await run('restore', join(folder, 'copy.tar'), '--force');
    const target = ownFolder('restored');
    const restored = await tomaat(['restore', join(folder, 'copy.tar'), '--data', target]);
    expect(restored.code, restored.stderr).toBe(0);
    expect(await strange(target)).toEqual([]);
  }, 120_000);

  it('becomes that user when it starts a server in the folder', async () => {
    const data = ownFolder('serving');
    await using serving = await startServing(['up', '--login', '--data', data]);
    const status = readFileSync(`/proc/${serving.child.pid}/status`, 'utf8');
    expect(/^Uid:\s+(.*)$/m.exec(status)![1].split('\t')).toEqual(Array(4).fill(String(owner.uid)));
    expect(/^Gid:\s+(.*)$/m.exec(status)![1].split('\t')).toEqual(Array(4).fill(String(owner.gid)));
    expect(/^Groups:\s*(.*)$/m.exec(status)![1].trim()).toBe(String(owner.gid));
    expect(await strange(data)).toEqual([]);
    expect(await serving.stop()).toBe(0);
    expect(await strange(data)).toEqual([]);
    expect(serving.log()).toContain('continuing as the owner of the data folder');
  }, 60_000);

  it('gives known_hosts to the user', async () => {
    const { addPin } = await import('../src/trust/known-hosts.ts');
    const data = ownFolder('known');
    await addPin(join(data, 'known_hosts'), 'a.example:443', Array(32).fill('AB').join(':'));
    expect(await strange(data)).toEqual([]);
  });
});

describe.skipIf(!canSwitch)('any other user', () => {
  it('is refused by every writing command with the remedy, changing nothing', async () => {
    const data = ownFolder('refused');
    const made = await tomaat(['keys', 'create', '--label', 'a', '--data', data]);
    const id = /^tmt_(\w{10})_/.exec(made.stdout)![1];
    expect((await tomaat(['backup', join(folder, 'of-owner.tar'), '--data', data])).code).toBe(0);
    chmodSync(join(folder, 'of-owner.tar'), 0o644);
    // A folder that everybody may write to: the files in it say whose it is.
    chmodSync(data, 0o777);
    const state = async () =>
      (await readdir(data, { recursive: true })).sort().map((name) => {
        const { uid, size } = lstatSync(join(data, name));
        return `${name} ${uid} ${size}`;
      });
    const before = await state();
    const commands = [
      ['keys', 'create', '--label', 'b'],
      ['keys', 'list'],
      ['keys', 'revoke', id],
      ['audit', 'who', '--address', '10.0.0.1'],
      ['erase', '--key', id],
      ['backup', join(folder, 'of-stranger.tar')],
      ['restore', join(folder, 'of-owner.tar'), '--force'],
      ['trust', 'remove', 'a.example'],
      ['serve', appFolder('threshold'), '--port', '0', '--tls-port', '0'],
      ['up', '--port', '0', '--tls-port', '0', '--registry-port', '0'],
      ['registry', '--port', '0'],
      ['gateway', '--config', 'gateway.yaml', '--port', '0'],
      ['gateway', 'list'],
      ['gateway', 'retry', '--failed'],
      ['gateway', 'drop', '1'],
    ];
    for (const command of commands) {
      const { code, stdout, stderr } = await tomaatAs(stranger, [...command, '--data', data]);
      expect(stderr, command.join(' ')).toMatch(
        /The data folder .*refused belongs to the user #12345, and you are #12347\. .*sudo -u '#12345'/,
      );
      expect({ command, code, stdout }).toEqual({ command, code: 2, stdout: '' });
    }
    expect(await state()).toEqual(before);
  }, 120_000);

  it('may start in another user’s empty, writable folder, as a mounted volume', async () => {
    const data = join(folder, 'mounted');
    mkdirSync(data);
    chmodSync(data, 0o777);
    await using serving = await startServing(['serve', appFolder('threshold'), '--data', data], stranger);
    expect((await fetch(`${serving.addresses.server}/health/ready`)).status).toBe(200);
    expect(ownerOf(data)).toEqual(stranger);
    // From now on it is the stranger's, and root acts as such.
    expect((await tomaat(['keys', 'create', '--label', 'a', '--data', data])).code).toBe(0);
    expect(lstatSync(join(data, 'registry.db')).uid).toBe(stranger.uid);
    expect(await serving.stop()).toBe(0);
  }, 60_000);
});

describe('tomaat keys', () => {
  const idsIn = async (data: string) => {
    await using keys = await openKeyFolder(data);
    return await Promise.all(
      keys.databases.map(async (db) =>
        (await listKeys(db)).map(({ id, revokedTime }) => `${id} ${revokedTime}`),
      ),
    );
  };

  it('makes and ends no key without its line in the audit log', async () => {
    const data = join(folder, 'no-audit');
    const { stdout } = await tomaat(['keys', 'create', '--label', 'a', '--data', data]);
    const id = /^tmt_(\w{10})_/.exec(stdout)![1];
    const before = await idsIn(data);
    rmSync(join(data, 'audit.pending'), { recursive: true });
    writeFileSync(join(data, 'audit.pending'), '');
    for (const args of [
      ['create', '--label', 'b'],
      ['revoke', id],
    ]) {
      const failed = await tomaat(['keys', ...args, '--data', data]);
      expect({ args, out: failed.stdout, failed: failed.code !== 0 }).toEqual({
        args,
        out: '',
        failed: true,
      });
      expect(failed.stderr).toContain('audit.pending');
    }
    expect(await idsIn(data)).toEqual(before);
  });

  it('leaves no key in one of two databases, and takes its line back', async () => {
    const data = join(folder, 'half');
    await tomaat(['keys', 'create', '--label', 'a', '--data', data]);
    const before = await idsIn(data);
    const broken = new DatabaseSync(join(data, 'server.db'));
    broken.exec(
      "CREATE TRIGGER full BEFORE INSERT ON api_key BEGIN SELECT RAISE(ABORT, 'no more keys here'); END",
    );
    broken.close();
    const failed = await tomaat(['keys', 'create', '--label', 'b', '--scope', 'admin', '--data', data]);
    expect({ code: failed.code, out: failed.stdout }).toEqual({ code: 1, out: '' });
    expect(await idsIn(data)).toEqual(before);
    const pending = (await readdir(join(data, 'audit.pending'))).sort();
    const lines = pending.map((name) => JSON.parse(readFileSync(join(data, 'audit.pending', name), 'utf8')));
    const { keyId } = lines[1].facts;
    expect(lines.slice(1)).toEqual([
      { event: 'key.created', facts: { keyId, scopes: ['admin'] } },
      { event: 'key.revoked', facts: { keyId, outcome: 'not made' } },
    ]);
  });
});

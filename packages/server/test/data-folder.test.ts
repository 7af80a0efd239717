import { cp, mkdir, readdir, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { inferBright, writeApp } from './app-fixture.ts';
import { tomaat } from './cli-fixture.ts';
import { encode, phantom } from './phantom.ts';
import { startTestServer, temporaryFolder } from './test-server.ts';

/* The files of a data folder: who may read them, and what a start says of damaged ones. */

let folder: string;
let app: string;
/** A folder as a server leaves it that was killed with a result and an upload. */
let used: string;

beforeAll(async () => {
  folder = await temporaryFolder();
  app = await writeApp(folder, 'app', { infer: inferBright });
  used = join(folder, 'used');
  const umask = process.umask(0);
  const server = await startTestServer([app], { dataFolder: used });
  try {
    const scan = Uint8Array.from(await encode(phantom(), 'nii.gz'));
    const answer = await fetch(`${server.url}/api/services/app/predictions`, {
      method: 'POST',
      body: scan,
      headers: { 'content-type': 'application/octet-stream', prefer: 'wait=60' },
    });
    expect(answer.status).toBe(200);
    const upload = await fetch(`${server.url}/api/uploads`, {
      method: 'POST',
      headers: { 'tus-resumable': '1.0.0', 'upload-length': '100' },
    });
    expect(upload.status).toBe(201);
    await cp(used, join(folder, 'running'), { recursive: true });
    const wrong: string[] = [];
    for (const name of await readdir(used, { recursive: true })) {
      const status = await stat(join(used, name));
      // The certificate is for everybody.
      const wanted = status.isDirectory() ? 0o700 : name === 'tomaat.pem' ? undefined : 0o600;
      const mode = status.mode & 0o777;
      if (wanted !== undefined && mode !== wanted) wrong.push(`${name} ${mode.toString(8)}`);
    }
    modes = { folder: (await stat(used)).mode & 0o777, wrong };
  } finally {
    process.umask(umask);
    await server.close();
  }
});
afterAll(() => rm(folder, { recursive: true, force: true }));
let modes: { folder: number; wrong: string[] };

describe('a data folder', () => {
  it('is its owner’s alone, with all that is in it', () => {
    expect(modes.folder).toBe(0o700);
    expect(modes.wrong).toEqual([]);
  });
});

let copies = 0;
/** Starts a server on a copy of the folder after a change to it; what it says on stderr. */
async function start(change: (copy: string) => Promise<unknown>, from = used): Promise<string> {
  const copy = join(folder, `copy-${copies++}`);
  await cp(from, copy, { recursive: true });
  await change(copy);
  const args = ['serve', app, '--data', copy, '--port', '0', '--tls-port', '0', '--json'];
  const { code, stderr } = await tomaat(args);
  expect(code).not.toBe(0);
  expect(stderr).not.toMatch(/^\s+at /m);
  return stderr.replaceAll(copy, 'DATA');
}

describe('tomaat serve on a damaged data folder', () => {
  const database = (copy: string) => join(copy, 'server.db');

  it('refuses an empty server.db beside results', async () => {
    const said = await start((copy) => truncate(database(copy), 0));
    expect(said).toContain('DATA/server.db is empty');
    expect(said).toContain('DATA/blobs/sha256');
    expect(said).toMatch(/Restore it from a backup/);
  });

  it('refuses an empty server.db beside uploads, or beside its log', async () => {
    const byUploads = await start(async (copy) => {
      await truncate(database(copy), 0);
      await rm(join(copy, 'blobs'), { recursive: true });
    });
    expect(byUploads).toContain('DATA/uploads');
    const byLog = await start(
      async (copy) => {
        await truncate(database(copy), 0);
        for (const name of ['blobs', 'uploads']) await rm(join(copy, name), { recursive: true });
      },
      join(folder, 'running'),
    );
    expect(byLog).toContain('DATA/server.db-wal is not');
  });

  it('keeps what lies beside an empty server.db', async () => {
    let copy = '';
    await start(async (made) => {
      copy = made;
      await truncate(database(copy), 0);
    });
    expect(await readdir(join(copy, 'blobs', 'sha256'))).toHaveLength(1);
    expect(await readdir(join(copy, 'uploads'))).toHaveLength(1);
    expect((await stat(database(copy))).size).toBe(0);
  });

  it('starts over in a folder without results whose start was interrupted', async () => {
    const dataFolder = join(folder, 'new');
    await mkdir(join(dataFolder, 'blobs', 'sha256'), { recursive: true });
    await writeFile(database(dataFolder), '');
    await using server = await startTestServer([app], { dataFolder });
    expect((await fetch(`${server.url}/health/ready`)).status).toBe(200);
  });
});

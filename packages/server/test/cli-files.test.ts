import { spawn } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findProgram } from '../../../test/programs.ts';
import { bin, type CliResult, tomaat } from './cli-fixture.ts';
import { encode, phantom } from './phantom.ts';
import { appFolder, startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

/* Files that the command line cannot read or write, with what to do about it. */

/** A file system of its own for one command, without being root. */
const unshare = findProgram(
  'unshare',
  ['-rm', 'sh', '-c', 'mount -t tmpfs tmpfs /mnt'],
  'unshare that may mount',
);

let server: TestServer;
let folder: string;
let volume: string;
beforeAll(async () => {
  folder = await temporaryFolder();
  server = await startTestServer(['threshold']);
  volume = join(folder, 'scan.nii');
  writeFileSync(volume, await encode(phantom(), 'nii'));
});
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

/** Runs the command line in a shell, after other commands of it. */
function inShell(program: string, args: readonly string[], before: string, command: readonly string[]) {
  const quoted = [process.execPath, bin, ...command].map((word) => `'${word}'`).join(' ');
  return new Promise<CliResult>((resolve, reject) => {
    const child = spawn(program, [...args, `${before} && exec ${quoted}`], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const result = { code: null, signal: null, stdout: '', stderr: '' };
    child.stdout.on('data', (chunk) => {
      result.stdout += chunk;
    });
    child.stderr.on('data', (chunk) => {
      result.stderr += chunk;
    });
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ ...result, code, signal }));
  });
}

const addressIn = (text: string) => new RegExp(`${server.url}/api/jobs/\\S+`).exec(text)?.[0] ?? '';

describe('tomaat predict', () => {
  it('names a link to a missing file, and how to fetch it', async () => {
    const link = join(folder, 'annex.nii.gz');
    symlinkSync('../.git/annex/objects/W8/3x/MD5E-s26113600--0c.nii.gz/MD5E-s26113600--0c.nii.gz', link);
    const { code, stderr } = await tomaat(['predict', server.url, '--volume', link]);
    expect(stderr).toContain(`${link} is a link to ../.git/annex/objects/`);
    expect(stderr).toContain('datalad get annex.nii.gz');
    expect(code).toBe(2);
  });

  it('names such a link to the voxels of a header, and one to elsewhere', async () => {
    const header = join(folder, 'pair.mhd');
    writeFileSync(header, 'ObjectType = Image\nNDims = 3\nElementDataFile = pair.raw\n');
    symlinkSync('/nowhere/pair.raw', join(folder, 'pair.raw'));
    const { code, stderr } = await tomaat(['predict', server.url, '--volume', header]);
    expect(stderr).toContain(
      'pair.raw is a link to /nowhere/pair.raw, which is not here. Put the file there',
    );
    expect(code).toBe(2);
  });

  it('still reports a missing path where nothing exists', async () => {
    const { stderr } = await tomaat(['predict', server.url, '--volume', join(folder, 'none.nii')]);
    expect(stderr).toContain('does not exist. Check the spelling');
  });

  it.skipIf(!unshare)('names the file on a full disk, and the result’s address', async () => {
    const small = join(folder, 'small');
    mkdirSync(small);
    const out = join(small, 'result.nii');
    const { code, stderr } = await inShell(
      unshare!,
      ['-rm', 'sh', '-c'],
      `mount -t tmpfs -o size=4k tmpfs '${small}'`,
      ['predict', `${server.url}/threshold/any`, '--volume', volume, '-o', out],
    );
    expect(stderr).toContain(`${out} cannot be written: the disk of this machine is full`);
    expect(stderr).toMatch(/The result is still on the server until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d: http/);
    expect(code).toBe(1);
    const response = await fetch(addressIn(stderr));
    expect(response.status).toBe(200);
    expect((await response.arrayBuffer()).byteLength).toBe(352 + 23 * 17 * 11);
  });

  it('reports the same for a file size limit, and leaves no part', async () => {
    const out = join(folder, 'large.nii.gz');
    mkdirSync(join(folder, 'quota'));
    const { code, stderr } = await inShell('sh', ['-c'], 'ulimit -f 0', [
      'predict',
      `${server.url}/threshold/any`,
      '--volume',
      volume,
      '-o',
      out,
    ]);
    expect(stderr).toContain(`${out} cannot be written: the file would be too large for its file system`);
    const response = await fetch(addressIn(stderr));
    const bytes = gunzipSync(Buffer.from(await response.arrayBuffer()));
    expect(bytes.length).toBe(352 + 23 * 17 * 11);
    expect(code).toBe(1);
    expect(readdirSync(folder).filter((name) => name.includes('large'))).toEqual([]);
  });

  it('gives the result’s address when a file of its name appears', async () => {
    const out = join(folder, 'taken.nii');
    let isTaken = false;
    const { code, stderr } = await tomaat(
      ['predict', `${server.url}/threshold/any`, '--volume', volume, '-o', out],
      {
        onStderr: (text) => {
          if (isTaken || !text.includes('Uploading')) return;
          isTaken = true;
          copyFileSync(volume, out);
        },
      },
    );
    expect(stderr).toContain('taken.nii');
    expect(addressIn(stderr)).not.toBe('');
    expect(code).toBe(2);
    expect(existsSync(out)).toBe(true);
  });
});

describe.skipIf(!unshare)('tomaat run', () => {
  const runOn = (full: string, before: string, out: string) =>
    inShell(unshare!, ['-rm', 'sh', '-c'], `mount -t tmpfs -o size=4k tmpfs '${full}' && ${before}`, [
      'run',
      appFolder('threshold'),
      '--volume',
      volume,
      '-o',
      out,
    ]);

  it('names the file that a full disk has no room for', async () => {
    const full = join(folder, 'full');
    mkdirSync(full);
    const out = join(full, 'result.nii');
    const { code, stderr } = await runOn(full, 'true', out);
    expect(stderr).toContain(`${out} cannot be written: the disk of this machine is full`);
    expect(code).toBe(1);
  });

  it('names the folder for temporary files where that is full', async () => {
    const full = join(folder, 'temporary');
    mkdirSync(full);
    const { code, stderr } = await runOn(full, `export TMPDIR='${full}'`, join(folder, 'by-run.nii'));
    expect(stderr).toContain(`There is not enough space in ${full}`);
    expect(stderr).not.toContain('of the server');
    expect(code).toBe(1);
  });
});

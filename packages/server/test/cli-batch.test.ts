import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { readVolume, sourceFromBytes, type Volume, writeVolume } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { nodePlatform } from '../src/node-platform.ts';
import { bin, temporaryFolder, tomaat } from './cli-fixture.ts';
import { startTestServer, type TestServer } from './test-server.ts';

/** A box of bright voxels, as many along x as said, in an oblique left-handed volume. */
async function writeScan(path: string, bright: number): Promise<void> {
  const size = [12, 9, 5] as const;
  const voxels = new Int16Array(size[0] * size[1] * size[2]);
  for (let z = 1; z < 4; z++)
    for (let y = 2; y < 6; y++) for (let x = 0; x < bright; x++) voxels[x + 12 * (y + 9 * z)] = 1000;
  const affine = [-1.8, 0.6, 0, 20, 0.6, 1.8, 0, -11, 0, 0, 2.5, 7, 0, 0, 0, 1];
  const volume: Volume = { voxels, size, components: 1, affine };
  const parts: Uint8Array[] = [];
  for await (const part of writeVolume(volume, 'nii.gz', nodePlatform)) parts.push(part);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, Buffer.concat(parts));
}

describe('tomaat predict with many scans', () => {
  let server: TestServer;
  let address: string;
  const folder = temporaryFolder();
  const at = (...names: string[]) => join(folder.path, ...names);
  const batch = (...args: string[]) => tomaat(['predict', address, ...args]);
  const jobCount = async () => {
    const found = await (await fetch(`${server.url}/metrics`)).text();
    return [...found.matchAll(/^tomaat_jobs\{[^}]*\} (\d+)$/gm)].reduce((sum, [, n]) => sum + Number(n), 0);
  };
  /** The cells of a table without quoted cells. */
  const rowsOf = (file: string) => {
    const [head, ...lines] = readFileSync(file, 'utf8').trimEnd().split('\r\n');
    const names = head.split(',');
    return lines.map((line) => Object.fromEntries(line.split(',').map((cell, i) => [names[i], cell])));
  };
  beforeAll(async () => {
    server = await startTestServer(['threshold']);
    address = `${server.url}/services/threshold`;
    for (let i = 0; i < 8; i++)
      await writeScan(at('scans', i < 4 ? 'a' : 'b', `s${i}.nii.gz`), i === 6 ? 11 : 3);
  }, 60_000);
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]();
    folder.remove();
  });

  it('a batch that was killed computes each scan once, and its table is complete', async () => {
    const out = at('killed');
    const ledger = join(out, 'tomaat-batch.jsonl');
    const args = ['predict', address, at('scans'), '-r', '-o', out, '--jobs', '1', '--skip-existing'];
    const child = spawn(process.execPath, [bin, ...args], { detached: true, stdio: 'ignore' });
    await expect
      .poll(() => (existsSync(ledger) ? readFileSync(ledger, 'utf8') : ''), { timeout: 30_000, interval: 5 })
      .toMatch(/"done"[\s\S]*"done"[\s\S]*"started"/);
    process.kill(-child.pid!, 'SIGKILL');
    const done = readFileSync(ledger, 'utf8').match(/"state":"done"/g)!.length;
    expect(done).toBeLessThan(8);
    writeFileSync(ledger, '{"id":"a/s7","state":"do', { flag: 'a' });
    const ended = await batch(...args.slice(2), '--csv', at('t.csv'), '--report', at('r.html'));
    expect(ended.code, ended.stderr).toBe(0);
    expect(ended.stdout.match(/is current, skipped/g)).toHaveLength(done);
    expect(await jobCount()).toBe(8);
    const rows = rowsOf(at('t.csv'));
    expect(rows.map(({ id }) => id)).toEqual([
      'a/s0',
      'a/s1',
      'a/s2',
      'a/s3',
      'b/s4',
      'b/s5',
      'b/s6',
      'b/s7',
    ]);
    const voxelMl = (3.6 * 2.5) / 1000;
    for (const { id, voxels, ml } of rows) {
      expect(Number(voxels)).toBe((id === 'b/s6' ? 11 : 3) * 12);
      expect(Number(ml)).toBeCloseTo(Number(voxels) * voxelMl, 6);
    }
    const page = readFileSync(at('r.html'), 'utf8');
    expect(page.match(/<h2>[^<]+/g)![0]).toBe('<h2>b/s6');
    expect(page.match(/<img [^>]*src="data:image\/png;base64,/g)).toHaveLength(8);
    expect(page).not.toMatch(/<script|https?:/);
    expect(page.length).toBeLessThan(8 * 50_000);
  }, 90_000);

  it('a changed input is said, kept, and computed again with --force', async () => {
    const [scan, out] = [at('one', 'x.nii.gz'), at('changed')];
    await writeScan(scan, 2);
    expect((await batch(scan, '-o', out, '--skip-existing')).code).toBe(0);
    const before = readFileSync(join(out, 'x_segmentation.nii.gz'));
    await writeScan(scan, 5);
    const kept = await batch(scan, '-o', out, '--skip-existing');
    expect(kept.code).toBe(1);
    expect(kept.stderr).toContain('the input has changed');
    expect(readFileSync(join(out, 'x_segmentation.nii.gz'))).toEqual(before);
    const again = await batch(scan, '-o', out, '--skip-existing', '--force', '--csv', at('again.csv'));
    expect(again.code, again.stderr).toBe(0);
    expect(rowsOf(at('again.csv'))[0]).toMatchObject({ state: 'done', voxels: '60' });
    const refused = await batch(scan, '-o', out);
    expect(refused.code).toBe(2);
    expect(refused.stderr).toContain('--skip-existing');
  }, 60_000);

  it('a scan that fails has its row and reason, the others their results', async () => {
    await writeScan(at('mixed', 'good.nii.gz'), 4);
    writeFileSync(at('mixed', 'bad <b>.nii.gz'), 'no volume');
    const ended = await batch(
      at('mixed', '*.nii.gz'),
      '-o',
      at('m'),
      '--csv',
      at('m.csv'),
      '--report',
      at('m.html'),
    );
    expect(ended.code).toBe(2);
    expect(ended.stderr).toContain('2 scans: 1 done, 1 failed');
    expect(ended.stderr).toMatch(/ {2}.*bad <b>\.nii\.gz: \S/);
    const table = readFileSync(at('m.csv'), 'utf8');
    expect(table).toMatch(/^bad <b>,.*,failed,[A-Z_]+,/m);
    expect(table).toMatch(/^good,.*,done,/m);
    const page = readFileSync(at('m.html'), 'utf8');
    expect(page).toContain('<h2>bad &#60;b&#62;</h2>');
    expect(page).not.toContain('<b>');
  }, 60_000);

  it('two scans with one result are refused, and nothing is sent', async () => {
    await writeScan(at('left', 'same.nii.gz'), 1);
    await writeScan(at('right', 'same.nii.gz'), 1);
    const before = await jobCount();
    const ended = await batch(at('left', 'same.nii.gz'), at('right', 'same.nii.gz'), '-o', at('same'));
    expect(ended.code).toBe(2);
    expect(ended.stderr).toContain(at('left', 'same.nii.gz'));
    expect(ended.stderr).toContain(at('right', 'same.nii.gz'));
    expect(await jobCount()).toBe(before);
  }, 60_000);

  it('results of a BIDS dataset are BIDS derivatives with their sidecars', async () => {
    writeFileSync(
      join(mkdirSync(at('bids'), { recursive: true })!, 'dataset_description.json'),
      '{"Name":"Lab"}',
    );
    await writeScan(at('bids', 'sub-01', 'ses-a', 'anat', 'sub-01_ses-a_run-1_T1w.nii.gz'), 4);
    await writeScan(at('bids', 'sub-01', 'ses-a', 'anat', 'sub-01_ses-a_run-1_T2w.nii.gz'), 3);
    const out = at('bids', 'derivatives', 'tomaat');
    const ended = await batch(at('bids'), '-o', out);
    expect(ended.code, ended.stderr).toBe(0);
    const anat = join(out, 'sub-01', 'ses-a', 'anat');
    const [stem, other] = ['T1w', 'T2w'].map(
      (space) => `sub-01_ses-a_run-1_space-${space}_desc-threshold_dseg`,
    );
    const names = [stem, other].flatMap((name) => [`${name}.json`, `${name}.nii.gz`]);
    expect(readdirSync(anat).sort()).toEqual(names);
    const sidecar = JSON.parse(readFileSync(join(anat, `${stem}.json`), 'utf8'));
    expect(sidecar.Sources).toEqual(['bids:raw:sub-01/ses-a/anat/sub-01_ses-a_run-1_T1w.nii.gz']);
    const description = JSON.parse(readFileSync(join(out, 'dataset_description.json'), 'utf8'));
    expect(description).toMatchObject({ DatasetType: 'derivative', DatasetLinks: { raw: '../../' } });
    expect(readFileSync(join(out, 'desc-threshold_dseg.tsv'), 'utf8')).toMatch(/^index\tname\tcolor\n1\t/);
  }, 60_000);

  it('a volume of stdin gives its label map on stdout, and nothing else', async () => {
    const child = spawn(process.execPath, [bin, 'predict', address, '-'], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    child.stdin.end(readFileSync(at('scans', 'b', 's6.nii.gz')));
    const parts: Buffer[] = [];
    for await (const part of child.stdout) parts.push(part);
    const { volume } = await readVolume([sourceFromBytes('x.nii.gz', Buffer.concat(parts))], nodePlatform);
    expect(volume.size).toEqual([12, 9, 5]);
    expect((volume.voxels as Uint8Array).reduce((sum, value) => sum + Number(value > 0), 0)).toBe(132);
  }, 60_000);
});

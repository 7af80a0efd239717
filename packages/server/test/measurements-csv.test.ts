import { execFileSync } from 'node:child_process';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createClient, type Job } from '@tomaat/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findPython } from '../../../test/programs.ts';
import { openApp } from '../src/apps.ts';
import { writeApp } from './app-fixture.ts';
import { tomaat } from './cli-fixture.ts';
import { encode, phantom } from './phantom.ts';
import { runFiles } from './run-files.ts';
import { startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

/* Measurements as CSV, by every way on which a format can be asked for. */

const python = findPython();
const names = ['left, upper "lobe"', '=1+1', 'Läsion', 'two\nlines'];
/** Of the phantom's bright blocks: 6 × 6 × 4 and 3 × 4 × 3 voxels, each its label, and two labels without a voxel. */
const mark = `const voxels = new Uint16Array(volume.voxels.length);
  volume.voxels.forEach((v, i) => { if (v > 100) voxels[i] = i % volume.size[0] > 11 ? 901 : 2; });
  return { segmentation: { ...volume, voxels } };`;
const labels = [2, 901, 5, 6].map((value, i) => ({ value, name: names[i] }));

let server: TestServer;
let folder: string;
let scan: Uint8Array<ArrayBuffer>;
let job: Job;
let stored: { value: number; name: string; voxels: number; volumeMl: number; centroidMm?: number[] }[];
beforeAll(async () => {
  folder = await temporaryFolder();
  const outputs = { segmentation: { type: 'LabelVolume' }, volumes: { type: 'Measurements' } };
  const rows = `return { rows: [{ value: 300, name: '@x', voxels: 4, volumeMl: 0.25 }] };`;
  server = await startTestServer([], {
    appFolders: [
      await writeApp(folder, 'marked', { infer: mark, labels, outputs }),
      await writeApp(folder, 'rows', { infer: rows, outputs: { rows: { type: 'Measurements' } } }),
    ],
  });
  scan = Uint8Array.from(await encode(phantom(), 'nii.gz'));
  await writeFile(join(folder, 'scan.nii.gz'), scan);
  const client = createClient({ baseUrl: server.url });
  const accepted = await client.predict('marked', { volumes: { volume: new File([scan], 'scan.nii.gz') } });
  job = await client.wait(accepted.id);
  stored = ((await (await get('')).json()) as { labels: typeof stored }).labels;
});
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

const get = (query: string, accept = '*/*', id = job.id, output = 'volumes') =>
  fetch(`${server.url}/api/jobs/${id}/outputs/${output}${query}`, { headers: { accept } });

/** The first four columns, against what the JSON says and by hand. */
function expectRows(csv: string): void {
  expect(csv.startsWith('label,name,voxels,volume_ml,')).toBe(true);
  const [first, second] = stored;
  expect([first.voxels, second.voxels]).toEqual([144, 36]);
  expect(csv).toContain(`\r\n2,"left, upper ""lobe""",144,${first.volumeMl},${first.centroidMm!.join()},`);
  expect(csv).toContain(`\r\n901,'=1+1,36,${second.volumeMl},${second.centroidMm!.join()},`);
  expect(csv).toContain('\r\n5,Läsion,0,0,,');
  expect(csv).toContain('\r\n6,"two\nlines",0,0,,');
  expect(csv.endsWith(',\r\n')).toBe(true);
}

describe('GET /api/jobs/{id}/outputs/{name} of measurements', () => {
  it('gives CSV by ?format=csv, with its type and name', async () => {
    const response = await get('?format=csv');
    expect(response.status).toBe(200);
    expect(response.headers.get('content-type')).toBe('text/csv; charset=utf-8');
    expect(response.headers.get('content-disposition')).toContain('_volumes.csv"');
    expectRows(await response.text());
    expect(job.outputs.find(({ name }) => name === 'volumes')?.formats).toEqual(['json', 'csv']);
  });

  it.each([
    ['text/csv', 'text/csv; charset=utf-8'],
    ['TEXT/CSV; charset=utf-8', 'text/csv; charset=utf-8'],
    ['text/csv, */*;q=0.1', 'text/csv; charset=utf-8'],
    ['text/*', 'text/csv; charset=utf-8'],
    ['text/csv;q=0.2, application/json', 'application/json'],
    ['text/csv;q=0, */*', 'application/json'],
    ['text/csv, */*', 'application/json'],
    ['application/octet-stream', 'application/json'],
    ['image/png', 'application/json'],
    ['*/*', 'application/json'],
  ])('answers Accept: %s with %s', async (accept, type) => {
    const response = await get('', accept);
    expect(response.headers.get('content-type')).toBe(type);
    if (type.startsWith('text/csv')) expectRows(await response.text());
    else expect(await response.json()).toEqual({ labels: stored });
  });

  it('refuses CSV of a label map, and says what there is', async () => {
    const refused = await get('?format=csv', '*/*', job.id, 'segmentation');
    expect(refused.status).toBe(406);
    expect(await refused.json()).toMatchObject({ code: 'NOT_ACCEPTABLE', field: 'format' });
  });

  it('gives JSON of measurements that are stored as CSV', async () => {
    const client = createClient({ baseUrl: server.url });
    const sent = await fetch(`${server.url}/api/services/rows/predictions?format=csv`, {
      method: 'POST',
      body: scan,
      headers: { 'content-type': 'application/octet-stream' },
    });
    const settled = await client.wait(((await sent.json()) as Job).id);
    expect(settled.outputs[0]).toMatchObject({ name: 'rows', format: 'csv' });
    expect(await (await get('', '*/*', settled.id, 'rows')).text()).toContain("\r\n300,'@x,4,0.25,,");
    expect(await (await get('?format=json', '*/*', settled.id, 'rows')).json()).toEqual({
      labels: [{ value: 300, name: '@x', voxels: 4, volumeMl: 0.25 }],
    });
  });

  it.skipIf(!python)('is read by Python’s csv as it was meant', async () => {
    const path = join(folder, 'volumes.csv');
    await writeFile(path, await (await get('?format=csv')).text());
    const script =
      'import csv, json, sys; print(json.dumps([[r["label"], r["name"], r["voxels"], float(r["volume_ml"])] ' +
      'for r in csv.DictReader(open(sys.argv[1], newline="", encoding="utf-8"), strict=True)]))';
    expect(JSON.parse(execFileSync(python!, ['-c', script, path], { encoding: 'utf8' }))).toEqual([
      ['2', names[0], '144', stored[0].volumeMl],
      ['901', `'${names[1]}`, '36', stored[1].volumeMl],
      ['5', names[2], '0', 0],
      ['6', names[3], '0', 0],
    ]);
  });
});

describe('POST /{task}/{anatomy} with measurements as its primary output', () => {
  it.each([
    ['?format=csv', '*/*'],
    ['', 'text/csv'],
  ])('answers CSV for %j and Accept: %s', async (query, accept) => {
    const response = await fetch(`${server.url}/rows/any${query}`, {
      method: 'POST',
      body: scan,
      headers: { 'content-type': 'application/octet-stream', accept },
    });
    expect(response.headers.get('content-type')).toBe('text/csv; charset=utf-8');
    expect(await response.text()).toContain("\r\n300,'@x,4,0.25,,");
  });
});

describe('tomaat with measurements as CSV', () => {
  const volume = () => ['--volume', join(folder, 'scan.nii.gz')];

  it('predict writes them by the file name, and still prints the volumes', async () => {
    const target = join(folder, 'predicted.csv');
    const address = `${server.url}/services/marked`;
    const ran = await tomaat(['predict', address, ...volume(), '--output', 'volumes', '-o', target]);
    expect(ran.stderr).not.toContain('error');
    expect(ran.code).toBe(0);
    expectRows(await readFile(target, 'utf8'));
    expect(ran.stdout).toContain('left, upper "lobe"');
  });

  it('run writes them by --format, and still prints the volumes', async () => {
    const app = join(folder, 'marked');
    const into = ['--output', 'volumes', '--format', 'csv', '-o', `${folder}/ran/`];
    const ran = await tomaat(['run', app, ...volume(), ...into, '--json']);
    expect(ran.code, ran.stderr).toBe(0);
    expectRows(await readFile(join(folder, 'ran', 'scan_volumes.csv'), 'utf8'));
    const { labels: printed } = JSON.parse(ran.stdout) as { labels: { name: string }[] };
    expect(printed.map(({ name }) => name)).toEqual(names);
  });

  it('refuses CSV of a label map before anything is sent', async () => {
    const ran = await tomaat([
      'predict',
      `${server.url}/services/marked`,
      ...volume(),
      '-o',
      `${folder}/x.csv`,
    ]);
    expect(ran.code).toBe(2);
    expect(ran.stderr).toContain('cannot be written as csv. Available: nii.gz');
  });
});

describe('a program that is an app', () => {
  const appOf = async (id: string, csv: string) =>
    openApp(
      await writeApp(folder, id, {
        model: { runtime: 'command', command: ['sh', '-c', `printf '${csv}' > "$TOMAAT_OUTPUT/rows.csv"`] },
        outputs: { rows: { type: 'Measurements' } },
      }),
    );
  const run = async (id: string, csv: string) =>
    runFiles(await appOf(id, csv), { volume: ['scan.nii.gz', scan] });

  it('may write its measurements as CSV', async () => {
    const { outputs } = await run('writes-csv', 'label,name,voxels,volume_ml\\n300,a,4,0.25\\n');
    expect(JSON.parse(outputs.rows.toString())).toEqual({
      labels: [{ value: 300, name: 'a', voxels: 4, volumeMl: 0.25 }],
    });
  });

  it('is refused with the row where its CSV is wrong', async () => {
    await expect(run('writes-faults', 'label,name,voxels,volume_ml\\n300,a,x,0.25\\n')).rejects.toMatchObject(
      {
        code: 'APP_OUTPUT',
        message: expect.stringContaining('Row 2 of the measurements'),
      },
    );
  });
});

import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createClient, type Job, verifyReceipt } from '@tomaat/client';
import { parseDicom, readSegmentationFile, readVolume, sourceFromBytes } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { holds } from '../../core/test/canaries.ts';
import { type ZipEntry, zipOf } from '../../core/test/zip-files.ts';
import { nodePlatform } from '../src/node-platform.ts';
import { makeKey } from './access-fixture.ts';
import { writeApp } from './app-fixture.ts';
import { tomaat } from './cli-fixture.ts';
import { leftFiles } from './left-files.ts';
import { columns, height, type NamedFile, root, slice, slicePixels, slices, traces } from './named-series.ts';
import { encode, phantom } from './phantom.ts';
import { startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

/*
 * DICOM files that name a patient: what of it is on the disk of a server with --strip-inputs and in its results, what a
 * server with --allow-identity refuses, and what the command line sends.
 */

const series: NamedFile[] = Array.from({ length: slices }, (_, i) => ({
  name: `Meyer-Canary 7Q-${i}`,
  data: slice(i),
}));
/** What lies beside a series in an export: a report, a picture of a screen, a text. */
const strangers: NamedFile[] = [
  { name: 'report', data: slice(0, 7, [[0x00080016, 'UI', '1.2.840.10008.5.1.4.1.1.88.11']]) },
  { name: 'notes.txt', data: new TextEncoder().encode('Canary 7Q for Meyer') },
];

let folder: string;
let app: string;
let server: TestServer;
beforeAll(async () => {
  folder = await temporaryFolder();
  app = await writeApp(folder, 'above', {
    inputs: {
      volume: { type: 'volume' },
      waitMs: { type: 'slider', minimum: 0, maximum: 60_000, default: 0 },
    },
    infer: `await sleep(inputs.waitMs);
      return { segmentation: bright(volume) };`,
  });
  server = await startTestServer([app], { stripInputs: true });
});
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

/** The files of the data folder in which a canary is, and the canary. */
function leaks(): string[] {
  const names = readdirSync(server.dataFolder, { recursive: true }) as string[];
  return names.flatMap((name) => {
    const path = join(server.dataFolder, name);
    if (!statSync(path, { throwIfNoEntry: false })?.isFile()) return [];
    const bytes = readFileSync(path);
    return [...traces, 'Meyer'].filter((trace) => holds(bytes, trace)).map((trace) => `${name}: ${trace}`);
  });
}
const blobs = () => leftFiles(server.dataFolder, ['blobs']);

const zip = (files: readonly ZipEntry[]) => Uint8Array.from(zipOf(files));

const uploaded: string[] = [];
const removeUpload = (id: string) =>
  fetch(`${server.url}/api/uploads/${id}`, { method: 'DELETE', headers: { 'tus-resumable': '1.0.0' } });

const ways: Record<string, (files: readonly NamedFile[], waitMs?: number) => Promise<Job>> = {
  'as files': (files, waitMs = 0) => post(files, waitMs),
  'in an archive': (files, waitMs = 0) => post([{ name: 'Meyer.zip', data: zip(files) }], waitMs),
  'as uploads': async (files, waitMs = 0) => postUploads(files, waitMs),
  'as an archive that was uploaded': (files, waitMs = 0) =>
    postUploads([{ name: 'scan.zip', data: zip(files) }], waitMs, 'Meyer.zip'),
  'as uploads without an ending': async (files, waitMs = 0) => postUploads(files, waitMs, 'Ida-Meyer'),
};

async function post(files: readonly NamedFile[], waitMs: number): Promise<Job> {
  const form = new FormData();
  form.append('waitMs', String(waitMs));
  for (const { name, data } of files) form.append('volume', new Blob([data]), name);
  return jobOf(await fetch(`${server.url}/api/services/above/predictions`, { method: 'POST', body: form }));
}

async function postUploads(
  files: readonly NamedFile[],
  waitMs: number,
  fileName = 'Meyer.dcm',
): Promise<Job> {
  const client = createClient({ baseUrl: server.url });
  const refs = [];
  for (const { data } of files) {
    const ref = await client.upload(new File([data], fileName), { keepText: true });
    refs.push(ref);
    if (ref && 'upload' in ref) uploaded.push(ref.upload);
  }
  const body = JSON.stringify({ inputs: { volume: refs }, parameters: { waitMs } });
  const headers = { 'content-type': 'application/json' };
  return jobOf(
    await fetch(`${server.url}/api/services/above/predictions`, { method: 'POST', body, headers }),
  );
}
async function jobOf(response: Response): Promise<Job> {
  const job = (await response.json()) as Job;
  expect(response.status, JSON.stringify(job)).toBeLessThan(300);
  return job;
}

/** UIDs and the patient of a segmentation, and the images it refers to. */
function identityOf(bytes: Uint8Array) {
  const text = Buffer.from(bytes).toString('latin1');
  const { dataset: elements } = parseDicom(bytes)!;
  const word = (tag: number) => {
    const element = elements.get(tag);
    return element?.kind === 'value'
      ? Buffer.from(element.bytes)
          .toString('latin1')
          .replace(/[\0 ]+$/, '')
      : '';
  };
  return { text, name: word(0x00100010), patient: word(0x00100020), study: word(0x0020000d) };
}

describe('--strip-inputs with a DICOM series', () => {
  const studies = new Set<string>();

  it.each(Object.keys(ways))('leaves nothing of the patient on the disk when it comes %s', async (way) => {
    // Uploads that are no image are refused: nothing would be left of them.
    const files = way.startsWith('as uploads') ? series : [...strangers, ...series].reverse();
    expect(files.some(({ data }) => traces.every((trace) => holds(data, trace)))).toBe(true);
    const job = await ways[way](files, 1500);
    expect(job.strippedInputs).toEqual(['volume']);
    expect(leaks()).toEqual([]);
    await expect.poll(() => blobs().length).toBe(way.includes('archive') ? 1 : slices);
    const client = createClient({ baseUrl: server.url });
    const done = await client.wait(job.id);
    expect(done, JSON.stringify(done)).toMatchObject({ state: 'succeeded', strippedInputs: ['volume'] });
    const bytes = new Uint8Array(await (await client.output(job.id, 'segmentation')).bytes());
    const { text, name, patient, study } = identityOf(bytes);
    expect(traces.filter((trace) => text.includes(trace))).toEqual([]);
    expect(name).toMatch(/^ANON-[A-Z2-9]{12}$/);
    expect(patient).toBe(name);
    studies.add(`${name} ${study}`);
    // The voxels are those of the series: 2 mm² pixels of 1.5 by 0.75 mm, 2.5 mm apart.
    const { labelMap } = readSegmentationFile(bytes);
    expect(labelMap.size).toEqual([columns, height, slices]);
    const bright = Array.from({ length: slices }, (_, s) =>
      [0, 2, 4, 6, 8, 10].map((i) => Number(((60 * s + 9 * i) & 255) > 100)),
    ).flat();
    expect(Array.from(labelMap.voxels as Uint8Array)).toEqual(bright);
    expect(done.state === 'succeeded' && done.outputs[0].fileName).toBe('series_segmentation.seg.dcm');
    await client.remove(job.id);
    for (const id of uploaded.splice(0)) await removeUpload(id);
    await expect.poll(() => blobs()).toEqual([]);
  });

  it('gives the same UIDs and pseudonym to every request', () => {
    expect(studies.size).toBe(1);
  });

  it('keeps the pixels, and states what was done in each file', async () => {
    const job = await ways['as files'](series, 1500);
    await expect.poll(() => blobs().length).toBe(slices);
    const stored = blobs().map((path) => readFileSync(path));
    const pixels = stored.map((bytes) => {
      const { dataset: elements } = parseDicom(new Uint8Array(bytes))!;
      expect(elements.get(0x00120062)).toMatchObject({ bytes: Uint8Array.from(Buffer.from('YES ')) });
      return (elements.get(0x7fe00010) as { bytes: Uint8Array }).bytes.join();
    });
    expect(pixels.sort()).toEqual(series.map((_, i) => slicePixels(i).join()).sort());
    const client = createClient({ baseUrl: server.url });
    await client.wait(job.id);
    const { receipt } = await verifyReceipt(await client.receipt(job.id));
    const sha256 = (bytes: Uint8Array) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
    expect(receipt.inputs.map(({ received }) => received).sort()).toEqual(
      series.map(({ data }) => sha256(data)).sort(),
    );
    expect(receipt.inputs.map(({ stored }) => stored).sort()).toEqual(stored.map(sha256).sort());
    await client.remove(job.id);
  });

  it('says so in the header of a promise', async () => {
    const form = new FormData();
    form.append('volume', new Blob([zip(series)]), 'Meyer.zip');
    const response = await fetch(`${server.url}/above/any`, { method: 'POST', body: form });
    expect(response.status).toBe(200);
    expect(response.headers.get('tomaat-stripped')).toBe('volume');
    expect(response.headers.get('content-disposition')).not.toContain('Meyer');
    const { text } = identityOf(new Uint8Array(await response.arrayBuffer()));
    expect(text).not.toContain('98765432');
  });

  it.each<[string, () => readonly NamedFile[], string]>([
    [
      'a damaged slice',
      () => [...series.slice(1), { ...series[0], data: series[0].data.slice(0, -4) }],
      'BAD_HEADER',
    ],
    ['two series', () => [...series, { name: 'x', data: slice(0, 9) }], 'BAD_INPUT'],
    ['no image', () => strangers, 'BAD_INPUT'],
  ])('refuses %s, and keeps nothing of it', async (_, files, code) => {
    for (const sent of [files(), [{ name: 'a.zip', data: zip(files()) }]]) {
      const form = new FormData();
      for (const { name, data } of sent) form.append('volume', new Blob([data]), name);
      const response = await fetch(`${server.url}/above/any`, { method: 'POST', body: form });
      expect(await response.json()).toMatchObject({ code });
    }
    await expect.poll(() => blobs()).toEqual([]);
  });

  it.each([
    [`${root}.9`, 2],
    ['4', slices],
  ])('chooses the series %s, and keeps nothing of its UID', async (chosen, count) => {
    const numbered = (number: number) =>
      Array.from({ length: number === 9 ? 2 : slices }, (_, i) => ({
        name: `${number} ${i}`,
        data: slice(i, number, [[0x00200011, 'IS', String(number)]]),
      }));
    const form = new FormData();
    for (const { name, data } of [...numbered(4), ...numbered(9)])
      form.append('volume', new Blob([data]), name);
    const client = createClient({ baseUrl: server.url });
    const path = `/api/services/above/predictions?series=${chosen}`;
    const job = await jobOf(await fetch(`${server.url}${path}`, { method: 'POST', body: form }));
    expect(leaks()).toEqual([]);
    expect(await client.wait(job.id)).toMatchObject({ state: 'succeeded' });
    const output = await (await client.output(job.id, 'segmentation')).bytes();
    const { labelMap } = readSegmentationFile(new Uint8Array(output));
    expect(labelMap.size).toEqual([columns, height, count]);
    await client.remove(job.id);
  });

  it('refuses a segmentation alone, and keeps nothing of it', async () => {
    const client = createClient({ baseUrl: server.url });
    const job = await ways['as files'](series);
    await client.wait(job.id);
    const segmentation = await (await client.output(job.id, 'segmentation')).bytes();
    await client.remove(job.id);
    const form = new FormData();
    form.append('volume', new Blob([new Uint8Array(segmentation)]), 'a.dcm');
    const response = await fetch(`${server.url}/above/any`, { method: 'POST', body: form });
    expect(await response.json()).toMatchObject({
      code: 'BAD_INPUT',
      field: 'volume',
      detail: expect.stringContaining('Send a segmentation as NIfTI'),
    });
    await expect.poll(() => blobs()).toEqual([]);
  });

  it('refuses uploads that are no image when they are complete', async () => {
    const client = createClient({ baseUrl: server.url });
    const report = new File([strangers[0].data], 'volume.dcm');
    await expect(client.upload(report, { keepText: true })).rejects.toMatchObject({
      code: 'BAD_INPUT',
      message: expect.stringContaining('no image of a volume'),
    });
    await expect.poll(() => blobs()).toEqual([]);
    expect(readdirSync(join(server.dataFolder, 'uploads'))).toEqual([]);
  });

  it('takes the text out of a volume of another format in an archive', async () => {
    const volume = Uint8Array.from(await encode(phantom(), 'nii'));
    volume.set(new TextEncoder().encode('Canary 7Q for Meyer'), 148);
    const job = await post(
      [{ name: 'a.zip', data: zip([{ name: 'Meyer/Canary.nii', data: volume }]) }],
      1500,
    );
    expect(job.strippedInputs).toEqual(['volume']);
    await expect.poll(() => blobs().length).toBe(1);
    const [blob] = blobs().map((path) => readFileSync(path));
    expect(['Canary', 'Meyer'].filter((trace) => holds(blob, trace))).toEqual([]);
    const client = createClient({ baseUrl: server.url });
    expect(await client.wait(job.id)).toMatchObject({ state: 'succeeded' });
    const output = await (await client.output(job.id, 'segmentation')).bytes();
    const { volume: labels } = await readVolume([sourceFromBytes('a.nii', output)], nodePlatform);
    expect((labels.voxels as Uint8Array).reduce((sum, v) => sum + v, 0)).toBe(180);
    await client.remove(job.id);
  });
});

describe('where a server computes', () => {
  it('is in the card of a service, and the machine without its own id', async () => {
    const card = await createClient({ baseUrl: server.url }).service('above');
    expect(card.processing).toMatchObject({
      reach: 'loopback',
      remoteWorkers: false,
      identity: 'allowed',
      stripsInputs: true,
    });
    const id = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
    expect(card.processing?.machine).toMatch(/^[\w-]{43}$/);
    expect(JSON.stringify(card)).not.toContain(id);
  });

  it('counts a key for workers as a worker, while it is valid', async () => {
    const client = createClient({ baseUrl: server.url });
    const remoteWorkers = async () => (await client.service('above')).processing?.remoteWorkers;
    await makeKey(server.dataFolder, ['worker'], { revoked: true });
    await makeKey(server.dataFolder, ['worker'], { expiresTime: new Date(Date.now() + 2000) });
    expect(await remoteWorkers()).toBe(true);
    await expect.poll(remoteWorkers).toBe(false);
  });
});

describe('--allow-identity no', () => {
  let refusing: TestServer;
  beforeAll(async () => {
    refusing = await startTestServer([app], { allowIdentity: 'no' });
  });
  afterAll(() => refusing?.[Symbol.asyncDispose]());
  const kept = () => readdirSync(join(refusing.dataFolder, 'blobs/sha256'));

  it('refuses files that name a patient, however they come, and keeps none', async () => {
    for (const sent of [series, [{ name: 'a.zip', data: zip(series) }]]) {
      const form = new FormData();
      for (const { name, data } of sent) form.append('volume', new Blob([data]), name);
      const response = await fetch(`${refusing.url}/above/any`, { method: 'POST', body: form });
      expect(response.status).toBe(403);
      expect(await response.json()).toMatchObject({
        code: 'FORBIDDEN',
        field: 'volume',
        detail: expect.stringMatching(/name a patient.*De-identify them.*0012,0062/),
      });
      const client = createClient({ baseUrl: refusing.url });
      const upload = client.upload(new File([sent[0].data], 'volume'), { keepText: true });
      await expect(upload).rejects.toMatchObject({ code: 'FORBIDDEN' });
    }
    await expect.poll(kept).toEqual([]);
    expect(readdirSync(join(refusing.dataFolder, 'uploads'))).toEqual([]);
  });

  it('takes files that state the removal, or name nobody', async () => {
    for (const more of [
      [[0x00120062, 'CS', 'YES']],
      [
        [0x00100010, 'PN', '^^'],
        [0x00100020, 'LO', ''],
      ],
    ] as const) {
      const form = new FormData();
      for (let i = 0; i < slices; i++) form.append('volume', new Blob([slice(i, 4, more)]), `${i}`);
      const response = await fetch(`${refusing.url}/above/any`, { method: 'POST', body: form });
      expect(response.status, await response.text()).toBe(200);
    }
  });

  it('makes tomaat predict de-identify, and refuse --keep-identity', async () => {
    const scan = join(folder, 'scan.zip');
    await writeFile(scan, zip(series));
    const out = join(folder, 'refusing.seg.dcm');
    const args = ['predict', `${refusing.url}/services/above`, '--volume', scan, '-o', out];
    const kept = await tomaat([...args, '--keep-identity']);
    expect(kept.code).toBe(2);
    expect(kept.stderr).toMatch(/does not accept DICOM files that name a patient/);
    const { code, stderr } = await tomaat(args);
    expect(code, stderr).toBe(0);
    expect(stderr).toMatch(
      /Removed or replaced .* before sending, because the server does not accept files that name a patient: /,
    );
    expect(identityOf(readFileSync(out))).toMatchObject({ name: 'Canary^Meyer', study: `${root}.3` });
  });
});

describe('tomaat predict at a server of this machine', () => {
  it('sends DICOM files as they are, unless asked, and makes results of what the server stripped', async () => {
    const scan = join(folder, 'scan.zip');
    await writeFile(scan, zip(series));
    const out = join(folder, 'out.seg.dcm');
    const args = ['predict', `${server.url}/services/above`, '--volume', scan, '-o', out, '--force'];
    const asIs = await tomaat(args);
    expect(asIs.code, asIs.stderr).toBe(0);
    expect(asIs.stderr).toMatch(
      /sent with the patient’s identity \(.*\), because the service computes on this machine alone \(--deidentify removes it\)\./,
    );
    expect(asIs.stderr).toContain('The server removed the patient’s identity');
    expect(identityOf(readFileSync(out))).toMatchObject({ name: 'Canary^Meyer', study: `${root}.3` });
    const asked = await tomaat([...args, '--deidentify']);
    expect(asked.code, asked.stderr).toBe(0);
    expect(asked.stderr).toMatch(/before sending, because this was asked for \(--keep-identity sends/);
    const both = await tomaat([...args, '--deidentify', '--keep-identity']);
    expect(both).toMatchObject({ code: 2, stderr: expect.stringContaining('Give one of the two') });
  });
});

import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createClient, createDicomWeb, type DicomWeb, requireStored } from '@tomaat/client';
import {
  belongingOf,
  parseDicom,
  readSegmentationFile,
  readVolume,
  sourceFromBytes,
  TomaatError,
  type Volume,
} from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Orthanc, startOrthanc } from '../../../test/orthanc.ts';
import { findDciodvfy, findOrthanc } from '../../../test/programs.ts';
import { dataFolder } from '../../../test/real-data.ts';
import { openDestination } from '../src/gateway/destinations/open-destination.ts';
import type { Destination, SeriesRow, Source } from '../src/gateway/series.ts';
import { nodePlatform } from '../src/node-platform.ts';
import { writeApp } from './app-fixture.ts';
import {
  connectWith,
  filesIn,
  folderSource,
  type Gateway,
  putSeries,
  rowOf,
  runSeries,
} from './gateway-series-fixture.ts';
import { startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

/* Real series through the steps of the gateway: from folders and from a PACS that others wrote, and back into it. */

const data = dataFolder();
const orthanc = findOrthanc();
const dciodvfy = findDciodvfy();
const level = 60;

let folder: string;
let server: TestServer;
beforeAll(async () => {
  folder = await temporaryFolder();
  const app = await writeApp(folder, 'bright', {
    infer: `return { segmentation: { ...volume, voxels: Uint8Array.from(volume.voxels, (v) => Number(v > ${level})) } };`,
    outputs: {
      segmentation: { type: 'LabelVolume', label: 'Bright' },
      volumes: { type: 'Measurements', from: 'segmentation' },
    },
    labels: [{ value: 1, name: 'bright', code: { scheme: 'SCT', value: '39607008', meaning: 'Lung' } }],
  });
  server = await startTestServer([app]);
});
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

const casesOf = (name: string) => {
  const at = join(data!, 'dicom_cases', name);
  return readdirSync(at)
    .sort()
    .map((file) => new Uint8Array(readFileSync(join(at, file))));
};
const gatewayOf = (place: string, source: Source, more: Partial<Gateway> = {}): Gateway => ({
  folder: place,
  service: { url: server.url, service: 'bright' },
  source,
  ...more,
});
async function segmentationIn(place: string): Promise<Uint8Array> {
  const found = [...(await filesIn(join(place, 'out'))).values()].filter(
    (bytes) => belongingOf(parseDicom(bytes)!).sopClassUid === '1.2.840.10008.5.1.4.1.1.66.4',
  );
  expect(found).toHaveLength(1);
  return found[0];
}
async function readNifti(path: string, bytes: Uint8Array): Promise<Volume> {
  return (await readVolume([sourceFromBytes(path, bytes)], nodePlatform)).volume;
}

describe.skipIf(!data)('a real series from a folder', () => {
  it.each([
    'ct_oblique',
    'ct_hfdr',
    'ct_tilt_regular',
    'ct_rescale_per_slice',
    'mr_hfdl_sagittal',
    'mr9_nonsquare',
    'mr9_htj2k',
    'mr9_enhanced_shuffled',
    'mr9_shuffled_jitter',
    'mr9_localizer_same_series',
    'mr9_dup_same_file',
    'mr9_name_japanese',
  ])('%s: the labels are where the app found them', async (name) => {
    const place = join(folder, name);
    const files = casesOf(name);
    const ids = await putSeries(join(place, 'in'), files);
    const done = await runSeries(rowOf(ids), gatewayOf(place, folderSource(join(place, 'in'))));
    expect(done.error).toBeUndefined();
    const seg = await segmentationIn(place);
    expect(belongingOf(parseDicom(seg)!).patient).toEqual(belongingOf(parseDicom(files[0])!).patient);
    const { labelMap } = readSegmentationFile(seg);
    const truth = JSON.parse(readFileSync(join(data!, 'dicom_cases', `${name}_truth.json`), 'utf8'));
    expect([...labelMap.size]).toEqual(truth.size);
    for (const [i, value] of truth.affineRas.flat().entries())
      expect(Math.abs(labelMap.affine[i] - value)).toBeLessThan(0.002);
    // What the same app gives for the same files, sent as they are.
    const client = createClient({ baseUrl: server.url });
    const options = {
      volumes: { volume: files },
      formats: { segmentation: 'nii.gz' },
      keepText: true,
    } as const;
    const job = await client.wait((await client.predict('bright', options)).id);
    const direct = await readNifti('a.nii.gz', await (await client.output(job.id, 'segmentation')).bytes());
    expect(direct.size).toEqual(labelMap.size);
    expect(
      Buffer.compare(Buffer.from(labelMap.voxels as Uint8Array), Buffer.from(direct.voxels as Uint8Array)),
    ).toBe(0);
    const marked = (labelMap.voxels as Uint8Array).reduce((sum, value) => sum + value, 0);
    expect(marked).toBeGreaterThan(0);
    expect(marked).toBeLessThan(labelMap.voxels.length);
    // And the values that others read, above the level.
    const file = join(data!, 'dicom_cases', `${name}_truth.nii.gz`);
    if (!readdirSync(join(data!, 'dicom_cases')).includes(`${name}_truth.nii.gz`)) return;
    const values = (await readNifti(file, new Uint8Array(readFileSync(file)))).voxels as Float32Array;
    let wrong = 0;
    for (const [i, value] of values.entries()) if (Number(value > level) !== labelMap.voxels[i]) wrong++;
    expect(wrong).toBe(0);
  });

  it.each([
    ['mr9_missing_slice', 'a slice is missing there'],
    ['mr9_dup_position', 'position'],
    ['philips_fmri_oblique_4d', 'takes one'],
  ])('%s: is refused with the reason', async (name, reason) => {
    const place = join(folder, name);
    const ids = await putSeries(join(place, 'in'), casesOf(name));
    const { error } = await runSeries(rowOf(ids), gatewayOf(place, folderSource(join(place, 'in'))));
    expect(error).toBeInstanceOf(TomaatError);
    expect((error as TomaatError).message).toContain(reason);
    expect((await filesIn(join(place, 'out'))).size).toBe(0);
  });

  it('mr9_two_series: each series has its own result', async () => {
    const place = join(folder, 'two');
    const files = casesOf('mr9_two_series');
    const { study } = await putSeries(join(place, 'in'), files);
    const all = new Set(files.map((bytes) => belongingOf(parseDicom(bytes)!).seriesUid));
    expect(all.size).toBe(2);
    for (const series of all) {
      const done = await runSeries(
        rowOf({ study, series }),
        gatewayOf(place, folderSource(join(place, 'in'))),
      );
      expect(done.error).toBeUndefined();
    }
    const slices = [...(await filesIn(join(place, 'out'))).values()].map(
      (bytes) => readSegmentationFile(bytes).labelMap.size[2],
    );
    expect(slices.sort()).toEqual([6, 9]);
  });
});

/** The series of an archive, by the SDK. */
const pacsSource = (web: DicomWeb): Source => ({
  name: 'pacs',
  async *search() {},
  look: async () => undefined,
  instances: async (study, series, signal) =>
    (await web.searchInstances({ study, series }, { signal })).map(({ sopInstanceUid }) => sopInstanceUid),
  async *fetch(study, series, signal) {
    for await (const { bytes, sopInstanceUid } of web.retrieveSeries(study, series, { signal }))
      yield { name: `${sopInstanceUid}`, bytes };
  },
});

describe.skipIf(!data || !orthanc)('a real series in Orthanc', () => {
  let pacs: Orthanc;
  let web: DicomWeb;
  let destination: Destination;
  const rule = { results: ['seg.dcm', 'sr.dcm', 'rtstruct.dcm', 'key.dcm'] } as const;
  beforeAll(async () => {
    pacs = await startOrthanc(orthanc!);
    // As the gateway does: the fetch of Node ends the process where a server closes a connection that is read slowly.
    const { fetch } = await connectWith(folder)(pacs.dicomWeb, {});
    web = createDicomWeb({ url: pacs.dicomWeb, fetch });
    destination = openDestination('out', { type: 'dicomweb', url: pacs.dicomWeb }, connectWith(folder));
  });
  afterAll(() => pacs?.[Symbol.asyncDispose]());

  async function resultsOf(row: SeriesRow): Promise<Uint8Array[]> {
    const all = [];
    for (const { series, sopInstance } of row.results)
      all.push((await web.retrieveInstance(row.study, series, sopInstance)).bytes);
    return all;
  }
  const count = async () => ((await (await fetch(`${pacs.url}/instances`)).json()) as string[]).length;
  async function expectValid(objects: readonly Uint8Array[]): Promise<void> {
    if (!dciodvfy) return;
    const at = join(folder, `valid-${Math.random()}`);
    await mkdir(at);
    for (const [i, bytes] of objects.entries()) {
      await writeFile(join(at, `${i}.dcm`), bytes);
      const { stdout, stderr } = spawnSync(dciodvfy, [join(at, `${i}.dcm`)], { encoding: 'utf8' });
      expect(`${stdout}${stderr}`.split('\n').filter((line) => line.startsWith('Error'))).toEqual([]);
    }
  }

  it('gets its results once, however often it is processed, and new ones when it grows', async () => {
    const files = casesOf('ct_oblique');
    // The first slices along the normal.
    const placed = files.map((bytes) => {
      const { dataset } = parseDicom(bytes)!;
      const element = dataset.get(0x00200032);
      const z =
        element?.kind === 'value' ? Number(Buffer.from(element.bytes).toString('latin1').split('\\')[2]) : 0;
      return { bytes, z };
    });
    const ordered = placed.sort((a, b) => a.z - b.z).map(({ bytes }) => bytes);
    const part = ordered.slice(0, 6);
    requireStored(await web.store(part));
    const { studyUid: study, seriesUid: series } = belongingOf(parseDicom(files[0])!);
    const place = join(folder, 'pacs');
    await mkdir(place);
    const gateway = gatewayOf(place, pacsSource(web), { destinations: [destination], rule });

    const first = await runSeries(rowOf({ study, series }), gateway);
    expect(first.error).toBeUndefined();
    expect(await count()).toBe(6 + 4);
    const stored = await resultsOf(first.row);
    await expectValid(stored);

    const repeated = await runSeries(
      rowOf({ study, series }, { id: 'again', seenAt: Date.UTC(2026, 6, 1) }),
      gateway,
    );
    expect(repeated.error).toBeUndefined();
    expect(await count()).toBe(6 + 4);
    expect(await resultsOf(repeated.row)).toEqual(stored);
    expect(repeated.row.seed).toBe(first.row.seed);

    requireStored(await web.store(ordered.slice(6)));
    const grown = await runSeries(rowOf({ study, series }, { id: 'grown' }), {
      ...gateway,
      predecessor: repeated.row,
    });
    expect(grown.error).toBeUndefined();
    expect(await count()).toBe(10 + 8);
    const larger = await resultsOf(grown.row);
    await expectValid(larger);
    expect(readSegmentationFile(larger[0]).labelMap.size).toEqual([192, 192, 10]);
    expect(readSegmentationFile(stored[0]).labelMap.size).toEqual([192, 192, 6]);
    for (const [i, result] of grown.row.results.entries()) {
      const old = first.row.results[i];
      expect(result.replaces).toEqual({
        sopClass: old.sopClass,
        sopInstance: old.sopInstance,
        series: old.series,
      });
    }
    // All lie in the study, and name the patient.
    const [found, ...others] = await web.searchStudies();
    expect(others).toEqual([]);
    expect(found).toMatchObject({ studyInstanceUid: study, instanceCount: 18 });
  });

  it('tells what an archive has not stored: all of one broken and one good object are not there', async () => {
    const [good, other] = casesOf('mr9_nonsquare');
    // Its file header is whole; what follows is not.
    const broken = other.slice(0, 600).fill(255, 400);
    const signal = new AbortController().signal;
    const before = await count();
    await expect(destination.store([good, broken], signal)).rejects.toMatchObject({
      message: expect.stringMatching(/^The destination out has not stored 1 of 2 objects/),
    });
    expect(await count()).toBe(before + 1);
    await destination.store([good], signal);
    expect(await count()).toBe(before + 1);
  });

  it('tells that an archive asks for a login, and sends it where it is given', async () => {
    const [object] = casesOf('mr9_nonsquare');
    const settings = { AuthenticationEnabled: true, RegisteredUsers: { a: 'b' } };
    await using locked = await startOrthanc(orthanc!, settings);
    const signal = new AbortController().signal;
    const at = (authorization?: string) =>
      openDestination('out', { type: 'dicomweb', url: locked.dicomWeb, authorization }, connectWith(folder));
    await expect(at().store([object], signal)).rejects.toMatchObject({ code: 'UNAUTHORIZED' });
    await at(`Basic ${Buffer.from('a:b').toString('base64')}`).store([object], signal);
  });
});

import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Job } from '@tomaat/client';
import { readSegmentationFile, readVolume, sourceFromBytes, type Volume } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { madeFiles, madeSource } from '../../core/test/dicom-source.ts';
import { openApp } from '../src/index.ts';
import { nodePlatform } from '../src/node-platform.ts';
import { inferBright, writeApp } from './app-fixture.ts';
import { encode, phantom } from './phantom.ts';
import { startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

/* Results of DICOM series, as a server stores, converts and sends them. */

const size = [11, 7, 6] as const;
const made = { size, frames: true };
const voxels = Int16Array.from({ length: 11 * 7 * 6 }, (_, i) => (i % 11) * 20 + Math.floor(i / 77) * 3);
/** What the app marks. */
const expected = Uint8Array.from(voxels, (value) => Number(value > 100));

let folder: string;
let app: string;
let server: TestServer;
let scan: Uint8Array<ArrayBuffer>;
beforeAll(async () => {
  folder = await temporaryFolder();
  app = await writeApp(folder, 'app', {
    infer: inferBright,
    labels: [{ value: 1, name: 'Größe', color: '#3cb44b' }],
    outputs: { segmentation: { type: 'LabelVolume' }, report: { type: 'PlainText', report: 'volumes' } },
  });
  server = await startTestServer([app]);
  [scan] = await madeFiles(made, voxels);
});
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

async function predict(body: Uint8Array<ArrayBuffer>, query = ''): Promise<Job> {
  const form = new FormData();
  form.append('volume', new Blob([body]), 'scan.dcm');
  const response = await fetch(`${server.url}/api/services/app/predictions${query}`, {
    method: 'POST',
    body: form,
    headers: { prefer: 'wait=60' },
  });
  return (await response.json()) as Job;
}

async function get(job: Job, query = '', headers: Record<string, string> = {}) {
  const response = await fetch(`${server.url}${job.outputs[0].url}${query}`, { headers });
  return { response, bytes: new Uint8Array(await response.arrayBuffer()) };
}

function expectLabels(labels: Volume): void {
  const { grid } = madeSource(made);
  expect(labels.size).toEqual([...size]);
  for (const [i, value] of grid.affine.entries()) expect(labels.affine[i]).toBeCloseTo(value, 4);
  expect(Array.from(labels.voxels as Uint8Array)).toEqual(Array.from(expected));
}

describe('the label map of a DICOM series', () => {
  it('is stored as a segmentation, and sent as one', async () => {
    const job = await predict(scan);
    expect(job.state, JSON.stringify(job)).toBe('succeeded');
    expect(job.outputs[0]).toMatchObject({
      format: 'seg.dcm',
      formats: ['nii.gz', 'nii', 'mha', 'nrrd', 'vtk', 'stl', 'seg.dcm'],
      fileName: 'scan_segmentation.seg.dcm',
    });
    for (const headers of [{}, { accept: 'application/dicom' }] as Record<string, string>[]) {
      const { response, bytes } = await get(job, '', headers);
      expect(response.headers.get('content-type')).toBe('application/dicom');
      expect(bytes.length).toBe(job.outputs[0].sizeBytes);
      const { labelMap, labels } = readSegmentationFile(bytes);
      expectLabels(labelMap);
      expect(labels).toMatchObject([{ value: 1, name: 'Größe', color: '#3cb44b' }]);
    }
  });

  it('is converted to the other formats, with its place, names and colours', async () => {
    const job = await predict(scan);
    for (const format of ['nii.gz', 'nii', 'mha', 'nrrd']) {
      const { response, bytes } = await get(job, `?format=${format}`);
      expect(response.status).toBe(200);
      expectLabels((await readVolume([sourceFromBytes(`labels.${format}`, bytes)], nodePlatform)).volume);
      if (format === 'nrrd') expect(new TextDecoder().decode(bytes)).toMatch(/Segment0_Name:=Größe\n/);
    }
    const { response, bytes } = await get(job, '?format=stl');
    expect(response.status).toBe(200);
    expect(bytes.length).toBeGreaterThan(84);
  });

  it('is labelmap.dcm on request, and no other DICOM object later', async () => {
    const job = await predict(scan, '?format=labelmap.dcm');
    expect(job.outputs[0]).toMatchObject({
      format: 'labelmap.dcm',
      fileName: 'scan_segmentation.labelmap.dcm',
    });
    expectLabels(readSegmentationFile((await get(job)).bytes).labelMap);
    expectLabels(
      (await readVolume([sourceFromBytes('a.nii', (await get(job, '?format=nii')).bytes)], nodePlatform))
        .volume,
    );
    const { response, bytes } = await get(job, '?format=seg.dcm');
    expect(response.status).toBe(406);
    expect(JSON.parse(new TextDecoder().decode(bytes))).toMatchObject({
      code: 'NOT_ACCEPTABLE',
      detail: expect.stringMatching(
        /made while the job reads the DICOM series.*Create the job with \?format=seg\.dcm/,
      ),
    });
  });

  it('is a key picture on request', async () => {
    const job = await predict(scan, '?format=key.dcm');
    expect(job.state, JSON.stringify(job)).toBe('succeeded');
    expect(job.outputs[0]).toMatchObject({
      format: 'key.dcm',
      formats: ['nii.gz', 'nii', 'mha', 'nrrd', 'vtk', 'stl', 'seg.dcm', 'key.dcm'],
      fileName: 'scan_segmentation.key.dcm',
    });
    const { response, bytes } = await get(job);
    expect(response.headers.get('content-type')).toBe('application/dicom');
    expect(Buffer.from(bytes).includes('1.2.840.10008.5.1.4.1.1.7\0')).toBe(true);
  });

  it('is not a DICOM object for another input', async () => {
    const body = Uint8Array.from(await encode(phantom(), 'nii'));
    const job = await predict(body);
    expect(job.outputs[0]).toMatchObject({ format: 'nii' });
    expect(job.outputs[0].formats).not.toContain('seg.dcm');
    expect(await predict(body, '?format=seg.dcm')).toMatchObject({
      status: 406,
      code: 'NOT_ACCEPTABLE',
      detail: expect.stringMatching(/The input is not a DICOM series/),
    });
  });

  it('is read by openApp() as voxels', async () => {
    await using local = await openApp(join(folder, 'app'));
    const result = await local.predict({ volumes: { volume: { name: 'scan.dcm', bytes: scan } } });
    expect(result.output()).toMatchObject({ format: 'seg.dcm', mediaType: 'application/dicom' });
    expectLabels(await result.output().volume());
    // Of another prediction, whose job has the same name here.
    await using again = await openApp(join(folder, 'app'));
    const other = await again.predict({ volumes: { volume: { name: 'scan.dcm', bytes: scan } } });
    expect(await other.output().bytes()).not.toEqual(await result.output().bytes());
  });
});

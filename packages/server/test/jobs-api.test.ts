import { rm } from 'node:fs/promises';
import { createClient, type Job } from '@tomaat/client';
import { readMesh, readVolume, sourceFromBytes } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { nodePlatform } from '../src/node-platform.ts';
import { inferBright, writeApp } from './app-fixture.ts';
import { encode, obliqueAffine, phantom } from './phantom.ts';
import { startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

let server: TestServer;
let folder: string;
let bytes: Uint8Array<ArrayBuffer>;
beforeAll(async () => {
  folder = await temporaryFolder();
  const rich = {
    infer: inferBright,
    labels: [{ value: 1, name: 'bright' }],
    outputs: {
      segmentation: { type: 'LabelVolume' },
      surface: { type: 'VTKMesh' },
      centres: { type: 'Fiducials', from: 'segmentation' },
      report: { type: 'PlainText', report: 'volumes' },
      volumes: { type: 'Measurements' },
    },
  };
  const slow = {
    infer: `for (let i = 0; i < 20; i++) { context.progress(i / 20, 'tile ' + i); await sleep(50); } ${inferBright}`,
  };
  server = await startTestServer([
    await writeApp(folder, 'rich', rich),
    await writeApp(folder, 'slow', slow),
    // Its last stages follow each other at once.
    await writeApp(folder, 'quiet', { infer: `await sleep(600); ${inferBright}` }),
  ]);
  bytes = Uint8Array.from(await encode(phantom(), 'nii.gz'));
});
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

async function create(
  service: string,
  headers: Record<string, string> = {},
  body = bytes,
  url = server.url,
): Promise<{ response: Response; job: Job }> {
  const response = await fetch(`${url}/api/services/${service}/predictions`, {
    method: 'POST',
    body,
    headers: { 'content-type': 'application/octet-stream', ...headers },
  });
  return { response, job: (await response.json()) as Job };
}
const show = async (id: string) => (await (await fetch(`${server.url}/api/jobs/${id}`)).json()) as Job;
const remove = (id: string) => fetch(`${server.url}/api/jobs/${id}`, { method: 'DELETE' });

describe('POST /api/services/{id}/predictions', () => {
  it('gives 202 and the job’s address, or with “Prefer: wait” the settled job', async () => {
    const { response, job } = await create('slow');
    expect(response.status).toBe(202);
    expect(response.headers.get('location')).toBe(`/api/jobs/${job.id}`);
    const waited = await create('rich', { Prefer: 'respond-async, wait=30' });
    expect(waited.response.status).toBe(200);
    expect(waited.response.headers.get('preference-applied')).toBe('wait=30');
    expect(waited.job.state).toBe('succeeded');
    expect((await show(job.id)).state).toBe('succeeded'); // One at a time: the second waited for the first.
    const short = await create('slow', { Prefer: 'wait=1' });
    expect(short.response.status).toBe(202);
    // While it still runs.
    expect((await remove(short.job.id)).status).toBe(200);
    for (const id of [job.id, waited.job.id]) expect((await remove(id)).status).toBe(204);
  });

  it('an Idempotency-Key gives the same job again, and 409 with another body', async () => {
    const key = { 'Idempotency-Key': 'key-1' };
    const jobs = await Promise.all([create('rich', key), create('rich', key), create('rich', key)]);
    expect(new Set(jobs.map(({ job }) => job.id)).size).toBe(1);
    const other = await create('rich', key, Uint8Array.from(await encode(phantom(), 'nrrd')));
    expect(other.response.status).toBe(409);
    expect(other.job).toMatchObject({ code: 'CONFLICT', field: 'Idempotency-Key' });
    const elsewhere = await create('slow', key);
    expect(elsewhere.response.status).toBe(409);
    await expect.poll(async () => (await show(jobs[0].job.id)).state).toBe('succeeded');
    expect((await remove(jobs[0].job.id)).status).toBe(204);
  });
});

describe('DELETE /api/jobs/{id}', () => {
  it('cancels a running and a queued job, and deletes a settled one', async () => {
    const running = (await create('slow')).job;
    const queued = (await create('slow')).job;
    await expect.poll(async () => (await show(running.id)).state).toBe('running');
    expect(await show(queued.id)).toMatchObject({ state: 'queued', queuePosition: 0 });
    for (const { id } of [queued, running]) {
      const response = await remove(id);
      expect(response.status).toBe(200);
      expect(await response.json()).toMatchObject({ id, state: 'canceled', error: { code: 'CANCELED' } });
      expect((await fetch(`${server.url}/api/jobs/${id}/outputs/segmentation`)).status).toBe(409);
      expect((await remove(id)).status).toBe(204);
      expect((await remove(id)).status).toBe(404);
    }
  });
});

describe('POST /api/jobs/{id}/keep', () => {
  it('moves the end of a settled job, and refuses one that runs', async () => {
    const client = createClient({ baseUrl: server.url });
    const { job } = await create('rich', { Prefer: 'wait=30' });
    const kept = await client.keep(job.id);
    expect(Date.parse(kept.expiresTime!)).toBeGreaterThan(Date.parse(job.expiresTime!));
    expect({ ...kept, expiresTime: job.expiresTime }).toEqual(job);
    const slow = (await create('slow')).job;
    await expect(client.keep(slow.id)).rejects.toMatchObject({ code: 'NOT_READY' });
    await remove(slow.id);
    for (const { id } of [job, slow]) await remove(id);
    await expect(client.keep(job.id)).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });
});

describe('POST /api/jobs/{id}/cancel', () => {
  const cancel = (id: string) => fetch(`${server.url}/api/jobs/${id}/cancel`, { method: 'POST' });

  it('cancels a running and a queued job', async () => {
    const running = (await create('slow')).job;
    const queued = (await create('slow')).job;
    await expect.poll(async () => (await show(running.id)).state).toBe('running');
    for (const { id } of [queued, running]) {
      const response = await cancel(id);
      expect(response.status).toBe(200);
      expect(await response.json()).toMatchObject({ id, state: 'canceled', error: { code: 'CANCELED' } });
      expect(await show(id)).toMatchObject({ state: 'canceled' });
      await remove(id);
      expect((await cancel(id)).status).toBe(404);
    }
  });

  it('leaves a settled job as it is, with its results', async () => {
    const { job } = await create('rich', { Prefer: 'wait=30' });
    for (let i = 0; i < 2; i++) {
      const response = await cancel(job.id);
      expect([response.status, await response.json()]).toEqual([200, job]);
    }
    const output = await fetch(`${server.url}${job.outputs[0].url}`);
    expect((await output.arrayBuffer()).byteLength).toBe(job.outputs[0].sizeBytes);
    expect(await createClient({ baseUrl: server.url }).cancel(job.id)).toEqual(job);
    expect((await remove(job.id)).status).toBe(204);
  });
});

describe('DELETE /api/jobs/{id}, concurrently', () => {
  it('answers each request with 200, 204 or 404', async () => {
    const jobs = await Promise.all(Array.from({ length: 6 }, () => create('slow')));
    const statuses = await Promise.all(
      jobs.flatMap(({ job }) => Array.from({ length: 6 }, async () => (await remove(job.id)).status)),
    );
    expect(statuses.filter((status) => ![200, 204, 404].includes(status))).toEqual([]);
    for (const { job } of jobs) expect((await remove(job.id)).status).toBe(404);
  });
});

describe('GET /api/jobs/{id}/events', () => {
  it('reports every state and the progress, and ends with the job', async () => {
    const { job } = await create('slow');
    const response = await fetch(`${server.url}/api/jobs/${job.id}/events`);
    expect(response.headers.get('content-type')).toContain('text/event-stream');
    const text = await response.text();
    const events = [...text.matchAll(/^id: (\d+)\nevent: job\ndata: (.*)$/gm)].map(([, id, data]) => ({
      id: Number(id),
      job: JSON.parse(data) as Job,
    }));
    expect(events.map(({ id }) => id)).toEqual(events.map((_, i) => i + 1));
    const fractions = events.flatMap(({ job: { fraction } }) => fraction ?? []);
    expect(fractions.length).toBeGreaterThan(1);
    expect(fractions).toEqual([...fractions].sort((a, b) => a - b));
    expect(events.at(-1)!.job.state).toBe('succeeded');
    const again = await fetch(`${server.url}/api/jobs/${job.id}/events`, {
      headers: { 'last-event-id': '41' },
    });
    expect(await again.text()).toMatch(/^id: 42\nevent: job\n/);
    for (const last of ['1e300', '-1', '9'.repeat(400)]) {
      const odd = await fetch(`${server.url}/api/jobs/${job.id}/events`, {
        headers: { 'last-event-id': last },
      });
      expect(await odd.text()).toMatch(/^id: 1\nevent: job\n/);
    }
    const head = await fetch(`${server.url}/api/jobs/${job.id}/events`, { method: 'HEAD' });
    expect(head.headers.get('content-type')).toContain('text/event-stream');
    await remove(job.id);
  });

  it('reports the end at once, whatever preceded it', async () => {
    const lateMs: number[] = [];
    for (let i = 0; i < 3; i++) {
      const { job } = await create('quiet');
      const text = await (await fetch(`${server.url}/api/jobs/${job.id}/events`)).text();
      const last = JSON.parse(text.trim().split('\ndata: ').at(-1)!) as Job;
      expect(last.state).toBe('succeeded');
      lateMs.push(Date.now() - Date.parse(last.settledTime!));
      await remove(job.id);
    }
    expect(Math.min(...lateMs)).toBeLessThan(200);
  });

  it('ends after a while, and the client reconnects', async () => {
    await using brief = await startTestServer([`${folder}/slow`], { eventsMs: 300 });
    const { job } = await create('slow', {}, bytes, brief.url);
    const text = await (await fetch(`${brief.url}/api/jobs/${job.id}/events`)).text();
    expect((JSON.parse(text.trim().split('\ndata: ').at(-1)!) as Job).state).toMatch(/queued|running/);
    const states: string[] = [];
    for await (const { state } of createClient({ baseUrl: brief.url }).watch(job.id)) states.push(state);
    expect(states.at(-1)).toBe('succeeded');
  });

  it('reports that the job is deleted', async () => {
    const { job } = await create('rich', { Prefer: 'wait=30' });
    await remove(job.id);
    expect((await fetch(`${server.url}/api/jobs/${job.id}/events`)).status).toBe(404);
  });
});

describe('GET /api/jobs/{id}/outputs/{name}', () => {
  let job: Job;
  beforeAll(async () => {
    ({ job } = await create('rich', { Prefer: 'wait=30' }));
    expect(job.state, JSON.stringify(job.error)).toBe('succeeded');
  });
  afterAll(() => remove(job.id));

  const fetchOutput = async (name: string, query = '', accept?: string) => {
    const response = await fetch(`${server.url}/api/jobs/${job.id}/outputs/${name}${query}`, {
      headers: accept ? { accept } : {},
    });
    const body = new Uint8Array(await response.arrayBuffer());
    expect(response.status, new TextDecoder().decode(body.subarray(0, 300))).toBe(200);
    expect(response.headers.get('content-length')).toBe(String(body.length));
    return {
      body,
      type: response.headers.get('content-type')!,
      disposition: response.headers.get('content-disposition')!,
    };
  };
  const expected = Array.from(phantom().voxels as Int16Array, (v) => Number(v > 100));

  it.each(['nii.gz', 'nii', 'mha', 'nrrd'])('gives the label map as %s, voxel for voxel', async (format) => {
    const { body, disposition } = await fetchOutput('segmentation', `?format=${format}`);
    expect(disposition).toContain(`volume_segmentation.${format}"`);
    const { volume, header } = await readVolume([sourceFromBytes('x', body)], nodePlatform);
    expect(header.extension).toBe(format);
    expect(Array.from(volume.voxels as Uint8Array)).toEqual(expected);
    for (const [i, value] of volume.affine.entries()) expect(value).toBeCloseTo(obliqueAffine[i], 4);
  });

  it.each([
    ['segmentation', 'vtk'],
    ['segmentation', 'stl'],
    ['surface', 'vtk'],
    ['surface', 'stl'],
  ])('gives %s as a mesh in %s, where the label is', async (name, format) => {
    const { body } = await fetchOutput(name, `?format=${format}`);
    const mesh = readMesh(body);
    expect(mesh.triangles.length).toBeGreaterThan(30);
    // Each point is within a voxel of a bright one; each corner of the two blocks has a point near.
    const [size, m] = [phantom().size, obliqueAffine];
    const world = (i: number) => {
      const [x, y, z] = [i % size[0], Math.floor(i / size[0]) % size[1], Math.floor(i / (size[0] * size[1]))];
      return [0, 4, 8].map((row) => m[row] * x + m[row + 1] * y + m[row + 2] * z + m[row + 3]);
    };
    const bright = expected.flatMap((value, i) => (value ? [world(i)] : []));
    const points = Array.from({ length: mesh.positions.length / 3 }, (_, i) =>
      Array.from(mesh.positions.subarray(3 * i, 3 * i + 3)),
    );
    const gap = (from: number[][], to: number[][]) =>
      Math.max(...from.map((a) => Math.min(...to.map((b) => Math.hypot(...a.map((v, k) => v - b[k]))))));
    expect(gap(points, bright)).toBeLessThan(3.2);
    const cornersOf = (low: number[], high: number[]) =>
      Array.from({ length: 8 }, (_, i) => [0, 1, 2].map((axis) => (i & (1 << axis) ? high : low)[axis]));
    const corners = [...cornersOf([3, 2, 1], [8, 7, 4]), ...cornersOf([14, 11, 7], [16, 14, 9])];
    const cornerPoints = corners.map(([x, y, z]) => world(x + size[0] * (y + size[1] * z)));
    expect(gap(cornerPoints, points)).toBeLessThan(3.2);
  });

  it('gives points, texts and measurements as txt and json', async () => {
    const points = JSON.parse(new TextDecoder().decode((await fetchOutput('centres', '?format=json')).body));
    expect(JSON.stringify(points)).toMatch(/-?\d/);
    expect(new TextDecoder().decode((await fetchOutput('centres', '?format=txt')).body)).toMatch(
      /^-?[\d.]+,-?[\d.]+,-?[\d.]+/,
    );
    expect(new TextDecoder().decode((await fetchOutput('report', '?format=txt')).body)).toContain('bright');
    const { body, type } = await fetchOutput('volumes', '?format=json');
    expect(type).toContain('application/json');
    expect(JSON.stringify(JSON.parse(new TextDecoder().decode(body)))).toContain('bright');
  });

  /** By hand, as docs/reference/manifest.md lists them; the first is the stored one. */
  const formatsOf: Record<string, string[]> = {
    LabelVolume: ['nii.gz', 'nii', 'mha', 'nrrd', 'vtk', 'stl'],
    VTKMesh: ['vtk', 'stl'],
    Fiducials: ['json', 'txt'],
    PlainText: ['txt', 'json'],
    Measurements: ['json', 'csv'],
  };
  it('gives every listed format, and refuses others by name', async () => {
    expect(new Set(job.outputs.map(({ type }) => type)).size).toBeGreaterThan(3);
    for (const output of job.outputs) {
      expect(output.formats, output.type).toEqual(formatsOf[output.type]);
      for (const format of output.formats)
        expect((await fetchOutput(output.name, `?format=${format}`)).body.length).toBeGreaterThan(0);
    }
    const refused = await fetch(`${server.url}/api/jobs/${job.id}/outputs/report?format=nii`);
    expect(refused.status).toBe(406);
    expect(await refused.json()).toMatchObject({
      code: 'NOT_ACCEPTABLE',
      field: 'format',
      detail: expect.stringContaining('txt'),
    });
    const unknown = await fetch(`${server.url}/api/jobs/${job.id}/outputs/..%2f..%2fserver.db`);
    expect(unknown.status).toBe(404);
    expect((await unknown.json()).detail).toContain('segmentation');
  });

  it('takes the format from the ending of the address, as programs see a file', async () => {
    const { body, disposition } = await fetchOutput('segmentation.nrrd', '', 'application/gzip');
    expect(disposition).toContain('volume_segmentation.nrrd"');
    const { volume } = await readVolume([sourceFromBytes('x', body)], nodePlatform);
    expect(Array.from(volume.voxels as Uint8Array)).toEqual(expected);
    expect((await fetchOutput('segmentation.nii.gz')).disposition).toContain('volume_segmentation.nii.gz"');
    const statusOf = async (name: string) =>
      (await fetch(`${server.url}/api/jobs/${job.id}/outputs/${name}`)).status;
    expect(await statusOf('segmentation.exe')).toBe(406);
    expect(await statusOf('other.nrrd')).toBe(404);
  });

  it('follows Accept, and gives the stored format where that says nothing', async () => {
    expect((await fetchOutput('surface', '', 'model/stl')).type).toContain('model/stl');
    expect((await fetchOutput('volumes', '', 'application/json, */*;q=0.1')).type).toContain(
      'application/json',
    );
    const stored = job.outputs.find(({ name }) => name === 'segmentation')!;
    expect((await fetchOutput('segmentation', '', 'text/html, */*')).body.length).toBe(stored.sizeBytes);
  });

  it('HEAD gives the header of GET', async () => {
    const url = `${server.url}/api/jobs/${job.id}/outputs/segmentation`;
    const [get, head] = await Promise.all([fetch(url), fetch(url, { method: 'HEAD' })]);
    await get.arrayBuffer();
    for (const name of ['content-length', 'content-type', 'content-disposition'])
      expect(head.headers.get(name)).toBe(get.headers.get(name));
  });
});

import { readdirSync } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { createClient, isPassing } from '@tomaat/client';
import { belongingOf, parseDicom, readSegmentationFile, TomaatError } from '@tomaat/core';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { holds } from '../../core/test/canaries.ts';
import { forgetSeries } from '../src/gateway/process-series.ts';
import { jobKeyOf } from '../src/gateway/seed.ts';
import type { Destination, Source } from '../src/gateway/series.ts';
import { writeApp } from './app-fixture.ts';
import {
  configOf,
  connectWith,
  filesIn,
  folderDestination,
  folderSource,
  type Gateway,
  putSeries,
  type Run,
  rowOf,
  runSeries,
  startShiftingProxy,
  uidKey,
} from './gateway-series-fixture.ts';
import { columns, height, planted, root, slice, slices, traces } from './named-series.ts';
import { type RecordingProxy, startRecordingProxy } from './recording-proxy.ts';
import { startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

/* The steps of one series between a source and destinations, with a server that records what reaches it. */

let folder: string;
let server: TestServer;
let proxy: RecordingProxy;
beforeAll(async () => {
  folder = await temporaryFolder();
  const outputs = {
    segmentation: { type: 'LabelVolume', label: 'Bright' },
    volumes: { type: 'Measurements', from: 'segmentation' },
  };
  const labels = [{ value: 1, name: 'bright', color: '#3cb44b' }];
  const bright = await writeApp(folder, 'bright', {
    inputs: {
      volume: { type: 'volume' },
      level: { type: 'slider', minimum: 0, maximum: 500, default: 100 },
      waitMs: { type: 'slider', minimum: 0, maximum: 60_000, default: 0 },
    },
    infer: `await sleep(inputs.waitMs);
      if (inputs.level === 13) throw new Error('the app broke');
      if (inputs.level === 14) process.exit(7);
      return { segmentation: { ...volume, voxels: Uint8Array.from(volume.voxels, (v) => Number(v > inputs.level)) } };`,
    outputs,
    labels,
  });
  const text = await writeApp(folder, 'text', {
    infer: `return { words: 'none' };`,
    outputs: { words: { type: 'PlainText' } },
  });
  server = await startTestServer([bright, text]);
  proxy = await startRecordingProxy(server.url);
});
afterAll(async () => {
  await proxy?.[Symbol.asyncDispose]();
  await server?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

const originals = Array.from({ length: slices }, (_, i) => slice(i));
const ids = { study: `${root}.3`, series: `${root}.4` };

let place: string;
let count = 0;
beforeEach(async () => {
  place = join(folder, `case-${count++}`);
  await mkdir(place);
});

/** The steps for files in a folder. */
async function gatewayOf(
  files: readonly Uint8Array[] = originals,
  more: Partial<Gateway> & { serviceId?: string } = {},
): Promise<Gateway> {
  const { serviceId = 'bright', ...rest } = more;
  await putSeries(join(place, 'in'), files);
  return {
    folder: place,
    service: { url: proxy.url, service: serviceId },
    source: folderSource(join(place, 'in')),
    ...rest,
  };
}
const run = async (files?: readonly Uint8Array[], more?: Parameters<typeof gatewayOf>[1]): Promise<Run> =>
  runSeries(rowOf(ids), await gatewayOf(files, more));
const stored = () => filesIn(join(place, 'out'));
const jobsLeft = () => readdirSync(join(server.dataFolder, 'blobs/sha256'));
function refusalOf({ error }: Run): TomaatError {
  if (!(error instanceof TomaatError)) throw error ?? new Error('it was not refused');
  expect(isPassing(error), error.message).toBe(false);
  return error;
}
function passingOf({ error }: Run): TomaatError {
  if (!(error instanceof TomaatError)) throw error ?? new Error('it did not fail');
  expect(isPassing(error), `${error.code}: ${error.message}`).toBe(true);
  return error;
}
/** The mask of a level, from what the slices were made of. */
const brighterThan = (level: number) =>
  Array.from({ length: slices }, (_, s) =>
    [0, 2, 4, 6, 8, 10].map((i) => Number(((60 * s + 9 * i) & 255) > level)),
  ).flat();
const all = ['seg.dcm', 'sr.dcm', 'rtstruct.dcm', 'key.dcm'] as const;

describe('createProcessSeries()', () => {
  it('stores objects of the patient’s, with the voxels where they belong, and leaves nothing at the service', async () => {
    const before = proxy.requests.length;
    const done = await run(originals, { rule: { results: all, parameters: { level: 120 }, urgency: 1 } });
    expect(done.error).toBeUndefined();
    const files = [...(await stored())];
    expect(files).toHaveLength(4);
    for (const [path, bytes] of files) {
      const file = belongingOf(parseDicom(bytes)!);
      expect(file.patient).toEqual(belongingOf(parseDicom(originals[0])!).patient);
      expect(path).toBe(`${ids.study}/${file.seriesUid}/${file.sopInstanceUid}.dcm`);
    }
    const [seg] = files.flatMap(([, bytes]) => {
      const { sopClassUid } = belongingOf(parseDicom(bytes)!);
      return sopClassUid === '1.2.840.10008.5.1.4.1.1.66.4' ? [bytes] : [];
    });
    const { labelMap } = readSegmentationFile(seg);
    expect(labelMap.size).toEqual([columns, height, slices]);
    // By hand: 0.75 mm along (0.8, 0, −0.6), 1.5 mm along y, 2.5 mm along (0.6, 0, 0.8), from (−3, 7, 11), LPS.
    const lps = [0.6, 0, 1.5, -3, 0, 1.5, 0, 7, -0.45, 0, 2, 11];
    const ras = lps.map((value, i) => (i < 8 ? -value : value));
    for (const [i, value] of ras.entries()) expect(labelMap.affine[i]).toBeCloseTo(value, 6);
    const expected = brighterThan(120);
    expect(Array.from(labelMap.voxels as Uint8Array)).toEqual(expected);
    expect(new Set(expected).size).toBe(2);

    expect(done.row).toMatchObject({ step: 'store', job: undefined });
    expect(done.row.results.map(({ format, storedAt }) => [format, storedAt])).toEqual(
      all.map((format) => [format, ['out']]),
    );
    await expect.poll(jobsLeft).toEqual([]);
    expect(readdirSync(join(place, 'work')).length).toBe(slices);
    // What reached the service.
    const sent = proxy.requests.slice(before);
    const bodies = Buffer.concat(
      sent.map(({ path, headers, body }) =>
        Buffer.concat([Buffer.from(path + JSON.stringify(headers)), body]),
      ),
    );
    expect(originals.some((bytes) => traces.every((trace) => holds(bytes, trace)))).toBe(true);
    expect(planted.length).toBeGreaterThan(200);
    expect(traces.filter((trace) => holds(bodies, trace))).toEqual([]);
    const predictions = sent.filter(({ method, path }) => method === 'POST' && path.includes('/predictions'));
    expect(predictions).toHaveLength(1);
    expect(predictions[0].headers.priority).toBe('u=1');
    // The log of what left and what stays: no UID, no name.
    expect(done.audit.map(({ event }) => event)).toEqual([
      'series.fetched',
      'series.sent',
      'series.computed',
      'series.stored',
    ]);
    expect(done.audit[1]).toMatchObject({
      deidentified: true,
      count: slices,
      rule: 'rule',
      service: 'bright',
    });
    expect(done.audit[3].outputs?.map(({ name }) => name)).toEqual(all);
    const log = Buffer.from(JSON.stringify(done.audit));
    expect([...traces, root].filter((trace) => holds(log, trace))).toEqual([]);
  });

  it('is ended at any save and taken up again: one job’s results, byte for byte', async () => {
    const first = await run(originals, { rule: { results: ['seg.dcm', 'sr.dcm'] } });
    expect(first.error).toBeUndefined();
    const whole = await stored();
    expect(first.saves).toBeGreaterThan(5);
    for (let at = 0; at < first.saves; at++) {
      await rm(join(place, 'out'), { recursive: true });
      const gateway = await gatewayOf(originals, { rule: { results: ['seg.dcm', 'sr.dcm'] } });
      const killed = await runSeries(rowOf(ids), {
        ...gateway,
        onSave: (saves) => {
          if (saves === at) throw new Error('killed');
        },
      });
      expect(killed.error).toMatchObject({ message: 'killed' });
      const again = await runSeries(killed.row, gateway);
      expect(again.error).toBeUndefined();
      expect(await stored(), `ended at save ${at}`).toEqual(whole);
      expect(again.row.results).toEqual(first.row.results);
      await expect.poll(jobsLeft).toEqual([]);
    }
  });

  it('gives results of a later row the same UIDs, and leaves the files as they are', async () => {
    const gateway = await gatewayOf();
    const first = await runSeries(rowOf(ids), gateway);
    const before = await stored();
    const later = await runSeries(rowOf(ids, { id: 'later', seenAt: Date.UTC(2026, 5, 1) }), gateway);
    expect(later.error).toBeUndefined();
    expect(later.row.results).toEqual(first.row.results);
    expect(await stored()).toEqual(before);
  });

  it('names the results of the smaller series in those of a series that has grown', async () => {
    const rule = { results: all };
    const small = await run(originals.slice(0, 3), { rule });
    expect(small.error).toBeUndefined();
    const before = await stored();
    const grown = await run(originals, { rule, predecessor: small.row });
    expect(grown.error).toBeUndefined();
    const files = await stored();
    expect(files.size).toBe(8);
    for (const [path, bytes] of before) expect(files.get(path)).toEqual(bytes);
    for (const [i, result] of grown.row.results.entries()) {
      const { sopInstance, series, sopClass } = small.row.results[i];
      expect(result.sopInstance).not.toBe(sopInstance);
      expect(result.replaces).toEqual({ sopClass, sopInstance, series });
      const text = Buffer.from(
        files.get(`${ids.study}/${result.series}/${result.sopInstance}.dcm`)!,
      ).toString('latin1');
      // An image names the series, which is the object’s own.
      expect(text).toContain(
        result.format === 'seg.dcm' || result.format === 'key.dcm' ? series : sopInstance,
      );
    }
  });

  it('stores what it computed at a destination that was away, and at no other again', async () => {
    const connect = connectWith(place);
    const near = await folderDestination(join(place, 'out'), connect);
    let stores = 0;
    const counted: Destination = {
      name: 'out',
      async store(objects, signal) {
        stores++;
        await near.store(objects, signal);
      },
    };
    const away = join(place, 'away');
    await folderDestination(away, connect, 'away');
    const far = await folderDestination(away, connect, 'away');
    await rm(away, { recursive: true });
    const gateway = await gatewayOf(originals, { destinations: [far, counted] });
    const before = proxy.requests.length;
    const first = await runSeries(rowOf(ids), gateway);
    expect(passingOf(first).message).toContain('is not there');
    expect(first.row.results[0].storedAt).toEqual(['out']);
    const second = await runSeries({ ...first.row, attempts: 1 }, gateway);
    expect(passingOf(second).message).toContain('is not there');
    // The originals are not fetched again as long as nobody is there to take the results.
    expect(second.audit).toEqual([]);
    expect(second.row).toEqual({ ...first.row, attempts: 1 });
    await mkdir(away);
    const third = await runSeries({ ...second.row, attempts: 2 }, gateway);
    expect(third.error).toBeUndefined();
    expect(third.row.results[0].storedAt).toEqual(['out', 'away']);
    expect(stores).toBe(1);
    expect(await filesIn(away)).toEqual(await stored());
    const posts = proxy.requests.slice(before).filter(({ path }) => path.includes('/predictions'));
    expect(posts).toHaveLength(1);
    await expect.poll(jobsLeft).toEqual([]);
  });

  it.each<[string, () => readonly Uint8Array[], RegExp]>([
    [
      'an image of another patient',
      () => [...originals.slice(1), slice(0, 4, [[0x00100020, 'LO', 'Another 8R']])],
      /do not all name the same patient/,
    ],
    [
      'an image with another birth date',
      () => [...originals.slice(1), slice(0, 4, [[0x00100030, 'DA', '19501224']])],
      /do not all name the same patient/,
    ],
    ['a missing slice', () => [originals[0], originals[1], originals[3]], /not evenly spaced/],
    [
      'a localizer',
      () => originals.map((_, i) => slice(i, 4, [[0x00080008, 'CS', 'ORIGINAL\\PRIMARY\\LOCALIZER']])),
      /localizer/,
    ],
    [
      'a report',
      () => [slice(0, 4, [[0x00080016, 'UI', '1.2.840.10008.5.1.4.1.1.88.11']])],
      /structured report/,
    ],
    [
      'two volumes at different times',
      () =>
        [1, 2].flatMap((time) =>
          originals.map((_, i) =>
            slice(i, 4, [
              [0x00080018, 'UI', `${root}.7.${time}.${i}`],
              [0x00200100, 'IS', String(time)],
            ]),
          ),
        ),
      /2 volumes .* takes one/,
    ],
  ])('refuses %s without sending anything, and says why without names', async (_, files, reason) => {
    const before = proxy.requests.length;
    const refused = await run(files());
    const error = refusalOf(refused);
    expect(error.message).toMatch(reason);
    const text = Buffer.from(`${error.message} ${JSON.stringify(error.detail ?? {})}`);
    expect([...traces, 'Another', '19501224'].filter((trace) => holds(text, trace))).toEqual([]);
    expect(proxy.requests.slice(before).every(({ method }) => method === 'GET')).toBe(true);
    expect((await stored()).size).toBe(0);
    expect(refused.audit.at(-1)).toMatchObject({ event: 'series.refused', outcome: error.code });
  });

  it('refuses files of another series, what is too large, and what the rule does not match', async () => {
    const stranger = await gatewayOf();
    const mixed: Source = {
      ...stranger.source,
      async *fetch() {
        for (const bytes of [...originals, slice(0, 9)]) yield { name: 'x', bytes };
      },
    };
    const strangers = await runSeries(rowOf(ids), { ...stranger, source: mixed });
    expect(refusalOf(strangers).message).toContain('another study or series');
    const otherStudy = originals.map((_, i) => slice(i, 4, [[0x0020000d, 'UI', `${root}.99`]]));
    const ofOtherStudy: Source = {
      ...stranger.source,
      async *fetch() {
        for (const bytes of otherStudy) yield { name: 'x', bytes };
      },
    };
    const others = await runSeries(rowOf(ids), { ...stranger, source: ofOtherStudy });
    expect(refusalOf(others).message).toContain('another study or series');
    const size = originals.reduce((sum, { length }) => sum + length, 0);
    expect(refusalOf(await run(originals, { maxSeriesBytes: size - 1 }))).toMatchObject({
      code: 'UPLOAD_TOO_LARGE',
    });
    const seen: unknown[] = [];
    const unmatched = await run(originals, {
      matchVolume(_, facts) {
        seen.push(facts);
        return 'It has 4 slices.';
      },
    });
    expect(refusalOf(unmatched)).toMatchObject({ code: 'NOT_ACCEPTED', message: 'It has 4 slices.' });
    expect(seen).toEqual([{ slices: 4, sliceSpacingMm: expect.closeTo(2.5, 6) }]);
    expect((await stored()).size).toBe(0);
  });

  it('waits for instances that its source lists and did not give, then refuses', async () => {
    const gateway = await gatewayOf(originals.slice(0, 3));
    const listing: Source = {
      ...gateway.source,
      instances: async (study, series, signal) => [
        ...(await gateway.source.instances(study, series, signal)),
        `${root}.5.4.4`,
      ],
    };
    expect(passingOf(await runSeries(rowOf(ids), { ...gateway, source: listing })).message).toContain(
      '1 are missing',
    );
    const last = await runSeries(rowOf(ids, { attempts: 5 }), { ...gateway, source: listing });
    expect(refusalOf(last).message).toContain('1 are missing');
    const hiding: Source = {
      ...gateway.source,
      instances: async (...asked) => (await gateway.source.instances(...asked)).slice(1),
    };
    const surplus = await runSeries(rowOf(ids), { ...gateway, source: hiding });
    expect(passingOf(surplus).message).toContain('1 are not in its list');
  });

  it('fails for what the rule or the app has wrong, and removes the job', async () => {
    const wrong = refusalOf(await run(originals, { rule: { parameters: { level: 900 } } }));
    expect(wrong).toMatchObject({ code: 'BAD_INPUT', field: 'level' });
    const unknown = refusalOf(await run(originals, { rule: { parameters: { lvel: 9 } } }));
    expect(unknown.message).toContain('no parameter lvel');
    expect(unknown.message).toContain('level, waitMs');
    const broken = await run(originals, { rule: { parameters: { level: 13 } } });
    expect(refusalOf(broken)).toMatchObject({ code: 'APP_FAILED' });
    const nothing = refusalOf(await run(originals, { serviceId: 'text' }));
    expect(nothing.message).toContain('No output of the service text can become a DICOM object');
    const absent = refusalOf(await run(originals, { serviceId: 'absent' }));
    expect(absent).toMatchObject({ code: 'NOT_FOUND' });
    await expect.poll(jobsLeft).toEqual([]);
    expect((await stored()).size).toBe(0);
  });

  it('gets a job of its own where its key was used for other bytes', async () => {
    const gateway = await gatewayOf();
    const first = await runSeries(rowOf(ids), gateway);
    const before = await stored();
    const client = createClient({ baseUrl: server.url });
    const other = await client.predict('bright', {
      volumes: { volume: originals.slice(1) },
      keepText: true,
      idempotencyKey: jobKeyOf(first.row.seed!, uidKey),
    });
    await client.wait(other.id);
    const again = await runSeries(rowOf(ids), gateway);
    expect(again.error).toBeUndefined();
    expect(await stored()).toEqual(before);
    await client.remove(other.id);
    await expect.poll(jobsLeft).toEqual([]);
  });

  it('computes again when the server lost the process of a job, a few times', async () => {
    const gateway = await gatewayOf(originals, { rule: { parameters: { level: 14 } } });
    const first = await runSeries(rowOf(ids), gateway);
    expect(passingOf(first).message).toContain('exit code 7');
    const last = await runSeries({ ...first.row, attempts: 5 }, gateway);
    // The failed job is not found again by its key.
    expect(last.row.job).not.toBe(first.row.job);
    expect(refusalOf(last)).toMatchObject({
      code: 'APP_FAILED',
      message: expect.stringContaining('exit code 7'),
    });
    await expect.poll(jobsLeft).toEqual([]);
  });

  it('gives a report that refers to a segmentation of the type LABELMAP', async () => {
    const done = await run(originals, { rule: { results: ['labelmap.dcm', 'sr.dcm'] } });
    expect(done.error).toBeUndefined();
    const [labelMap, report] = done.row.results;
    expect(labelMap.sopClass).toBe('1.2.840.10008.5.1.4.1.1.66.7');
    const bytes = (await stored()).get(`${ids.study}/${report.series}/${report.sopInstance}.dcm`)!;
    const text = Buffer.from(bytes).toString('latin1');
    expect(text).toContain(labelMap.sopInstance);
    expect(text).toMatch(/1\.2\.840\.10008\.5\.1\.4\.1\.1\.66\.7/);
    expect(text).not.toMatch(/1\.2\.840\.10008\.5\.1\.4\.1\.1\.66\.4/);
  });

  it('refuses a label map that the service gives at another place', async () => {
    await using shifted = await startShiftingProxy(server.url);
    const { url } = shifted;
    const refused = await run(originals, { service: { url, service: 'bright' } });
    expect(refusalOf(refused)).toMatchObject({ code: 'APP_OUTPUT' });
    expect(refusalOf(refused).message).toContain('does not lie on the grid');
    expect((await stored()).size).toBe(0);
    await expect.poll(jobsLeft).toEqual([]);
  });

  it('tries again when the service is away, and when its queue is full', async () => {
    const gateway = await gatewayOf();
    const nobody = { url: 'http://127.0.0.1:9', service: 'bright' };
    expect(passingOf(await runSeries(rowOf(ids), { ...gateway, service: nobody })).code).toBe('UNREACHABLE');
    await using small = await startTestServer([join(folder, 'bright')], { maxQueued: 1 });
    const client = createClient({ baseUrl: small.url, retries: 0 });
    const nifti = { volumes: { volume: originals }, values: { waitMs: 60_000 }, keepText: true };
    const blocking = await client.predict('bright', nifti);
    const full = { url: small.url, service: 'bright' };
    await expect.poll(async () => (await client.job(blocking.id)).state).toBe('running');
    const waiting = await client.predict('bright', nifti);
    const controller = new AbortController();
    const busy = await runSeries(rowOf(ids), { ...gateway, service: full, signal: controller.signal });
    expect(passingOf(busy).message).toContain('already waiting');
    await client.remove(waiting.id);
    await client.remove(blocking.id);
    const done = await runSeries({ ...busy.row, attempts: 1 }, { ...gateway, service: full });
    expect(done.error).toBeUndefined();
  });

  it('stores nothing of a job that computed with other parameters', async () => {
    const gateway = await gatewayOf(originals, { rule: { parameters: { level: 120 } } });
    const away: Destination = {
      name: 'out',
      store: () => Promise.reject(new TomaatError('UNREACHABLE', 'It is away.')),
    };
    const first = await runSeries(rowOf(ids), { ...gateway, destinations: [away] });
    passingOf(first);
    expect(first.row.job).toBeDefined();
    const second = await runSeries(
      { ...first.row, attempts: 1 },
      { ...gateway, rule: { parameters: { level: 60 } } },
    );
    expect(second.error).toBeUndefined();
    const [seg, ...others] = (await stored()).values();
    expect(others).toEqual([]);
    expect(Array.from(readSegmentationFile(seg).labelMap.voxels as Uint8Array)).toEqual(brighterThan(60));
    await expect.poll(jobsLeft).toEqual([]);
  });

  it('forgets the job of a series that is dropped while it runs', async () => {
    const controller = new AbortController();
    const gateway = await gatewayOf(originals, { rule: { parameters: { waitMs: 60_000 } } });
    const running = runSeries(rowOf(ids), { ...gateway, signal: controller.signal });
    const client = createClient({ baseUrl: server.url });
    const job = async () =>
      proxy.requests.findLast(({ path }) => path.includes('/api/jobs/'))?.path.split('/')[3];
    const isRunning = async () => {
      const id = await job();
      return id === undefined
        ? undefined
        : client.job(id).then(
            ({ state }) => state,
            () => undefined,
          );
    };
    await expect.poll(isRunning, { timeout: 10_000 }).toBe('running');
    controller.abort(new Error('dropped'));
    const dropped = await running;
    expect(dropped.error).toMatchObject({ message: 'dropped' });
    expect(dropped.row.job).toBeDefined();
    await forgetSeries(dropped.row, configOf(gateway), { connect: connectWith(place) });
    await expect.poll(jobsLeft).toEqual([]);
    expect((await stored()).size).toBe(0);
  });

  it('sends the files unchanged only where the rule says so', async () => {
    const before = proxy.requests.length;
    const kept = await run(originals, { rule: { keepIdentity: true } });
    expect(kept.error).toBeUndefined();
    const bodies = Buffer.concat(proxy.requests.slice(before).map(({ body }) => body));
    expect(holds(bodies, 'Canary^Meyer')).toBe(true);
    expect(kept.audit.find(({ event }) => event === 'series.sent')).toMatchObject({ deidentified: false });
    // The row and the reasons of failures never hold what an app may say of the patient.
    const broken = await run(originals, { rule: { keepIdentity: true, parameters: { level: 13 } } });
    expect(refusalOf(broken).message).toContain('not repeated here');
  });
});

it('keeps no name of a patient in a row', async () => {
  const done = await run();
  const text = Buffer.from(JSON.stringify(done.row));
  expect(['Canary', 'Meyer', '19771103'].filter((trace) => holds(text, trace))).toEqual([]);
});

import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, readdirSync, readFileSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { createDicomWeb, requireStored } from '@tomaat/client';
import { applyAffine, invert, readVolume, sourceFromBytes, type Vec3, type Volume } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Orthanc, startOrthanc } from '../../../test/orthanc.ts';
import { findChromium, findCornerstone, findNrrdJs, findOhif, findOrthanc } from '../../../test/programs.ts';
import { dataFolder } from '../../../test/real-data.ts';
import { nodePlatform } from '../src/node-platform.ts';
import { createGuardedFetch } from '../src/trust/guarded-fetch.ts';
import { makeKey } from './access-fixture.ts';
import { writeApp } from './app-fixture.ts';
import { leftFiles } from './left-files.ts';
import { launchViewer, type Pages, segmentInOhif, servePages } from './ohif-viewer.ts';
import { readAudit } from './support/tested-database.ts';
import { startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

/* Series of an archive for OHIF: with Orthanc, real series, OHIF's order of slices and its reader of NRRD. */

const run = promisify(execFile);
const data = dataFolder();
const orthanc = data ? findOrthanc() : undefined;
const cornerstone = orthanc ? findCornerstone() : undefined;
const reader = orthanc ? findNrrdJs() : undefined;
const ohif = orthanc ? findOhif() : undefined;

/** Oblique, feet first (against the order of the files), on the side, tilted, sagittal, multi-frame, compressed. */
const names = [
  'dicom/prostate_t2_tra',
  'dicom_cases/ct_ffs',
  'dicom_cases/ct_hfdr',
  'dicom_cases/ct_oblique',
  'dicom_cases/ct_tilt_regular',
  'dicom_cases/mr_hfdl_sagittal',
  'dicom_cases/mr9_nonsquare',
  'dicom_cases/mr9_enhanced_shuffled',
] as const;

/** An image as OHIF places it: LPS, mm. */
interface Image {
  readonly columns: number;
  readonly rows: number;
  readonly imagePositionPatient: Vec3;
  readonly imageOrientationPatient: readonly number[];
  readonly pixelSpacing: readonly [row: number, column: number];
}

const pathsOf = (name: string) => {
  const folder = join(data!, name);
  return readdirSync(folder)
    .sort()
    .map((file) => join(folder, file));
};
const filesOf = (name: string) => pathsOf(name).map((path) => new Uint8Array(readFileSync(path)));

/** Stores a series; its UIDs. */
const store = async (pacs: Orthanc, name: string): Promise<{ series: string; study: string }> => {
  const web = createDicomWeb({ url: pacs.dicomWeb });
  const report = await web.store(filesOf(name).map((file) => file as Uint8Array<ArrayBuffer>));
  requireStored(report);
  const [{ sopInstanceUid }] = report.stored;
  const [found] = await web.searchInstances({ instance: sopInstanceUid });
  return { series: found.seriesInstanceUid, study: found.studyInstanceUid };
};

/** Values with gaps, at places that no symmetry maps onto others. OHIF wants them as 1, 2, 3. */
const labels = [
  { value: 3, name: 'bright' },
  { value: 40, name: 'corner' },
  { value: 200, name: 'edge' },
];
const numberOf = new Map([[0, 0], ...labels.map(({ value }, i) => [value, i + 1] as const)]);
const inferBands = `const [nx, ny, nz] = volume.size;
  const mean = volume.voxels.reduce((sum, v) => sum + v, 0) / volume.voxels.length;
  return { segmentation: { ...volume, voxels: Uint8Array.from(volume.voxels, (v, i) => {
    const [x, y, z] = [i % nx, Math.floor(i / nx) % ny, Math.floor(i / (nx * ny))];
    if (x < nx / 3 && y < ny / 5 && z < nz / 2) return 40;
    if (y > (3 * ny) / 4 && x > nx / 2 && z > nz - 3) return 200;
    return v > mean ? 3 : 0;
  }) } };`;

/** As the client of OHIF's extension writes its request. */
function inferenceOf(uid: string, model = 'bands'): [path: string, init: RequestInit] {
  const params = {
    result_extension: '.nrrd',
    result_dtype: 'uint8',
    result_compress: false,
    restore_label_idx: false,
  };
  const body = new FormData();
  body.append('params', JSON.stringify(params));
  const query = new URLSearchParams({ image: uid, output: 'image' });
  return [`/monailabel/infer/${model}?${query}`, { method: 'POST', body }];
}
const detailOf = async (answer: Response) => ((await answer.json()) as { detail: string }).detail;

describe.skipIf(!orthanc)('series of an archive', () => {
  let pacs: Orthanc;
  let server: TestServer;
  let folder: string;
  let bands: string;
  let pages: Pages;
  let pageUrl: string;
  const uids = new Map<string, string>();
  const studies = new Map<string, string>();
  const orders = new Map<string, readonly Image[]>();

  beforeAll(async () => {
    folder = await temporaryFolder();
    pages = await servePages(ohif, () => pacs.url);
    pageUrl = pages.origin;
    bands = await writeApp(folder, 'bands', { infer: inferBands, labels });
    pacs = await startOrthanc(orthanc!);
    for (const name of names) {
      const { series, study } = await store(pacs, name);
      uids.set(name, series);
      studies.set(name, study);
    }
    server = await startTestServer([bands], {
      faces: ['monailabel'],
      archive: { url: pacs.dicomWeb },
      allowOrigin: [pageUrl],
      legacyPort: 0,
    });
    if (cornerstone) await readOrders(cornerstone);
  }, 300_000);
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]();
    await pacs?.[Symbol.asyncDispose]();
    pages?.[Symbol.dispose]();
    await rm(folder, { recursive: true, force: true });
  });

  async function readOrders({ esbuild, packages }: NonNullable<typeof cornerstone>): Promise<void> {
    const [script, bundle, cases] = ['sort-images.mjs', 'sort.mjs', 'cases.json'].map((file) =>
      join(folder, file),
    );
    copyFileSync(join(import.meta.dirname, '../../../test/cornerstone/sort-images.mjs'), script);
    const require =
      'import { createRequire as requireOf } from "node:module"; const require = requireOf(import.meta.url);';
    const options = ['--bundle', '--platform=node', '--format=esm', '--main-fields=module,main'];
    const env = { ...process.env, NODE_PATH: packages };
    await run(
      esbuild,
      [script, ...options, '--external:@icr/*', `--banner:js=${require}`, `--outfile=${bundle}`],
      { env },
    );
    await writeFile(cases, JSON.stringify(names.map(pathsOf)));
    const { stdout } = await run(process.execPath, [bundle, cases], { maxBuffer: 2 ** 26 });
    for (const [i, images] of (JSON.parse(stdout) as Image[][]).entries()) orders.set(names[i], images);
  }

  const infer = (
    uid: string,
    { at = server, headers = {} }: { at?: TestServer; headers?: HeadersInit } = {},
  ) => {
    const [path, init] = inferenceOf(uid);
    return fetch(`${at.url}${path}`, { ...init, headers });
  };

  /** The label map of the promise for the files themselves. */
  async function promised(name: string): Promise<Volume> {
    const body = new FormData();
    for (const file of filesOf(name))
      body.append('volume', new Blob([file as Uint8Array<ArrayBuffer>]), 'a.dcm');
    const answer = await fetch(`${server.url}/bands/any?format=nii.gz`, { method: 'POST', body });
    expect(answer.status).toBe(200);
    const bytes = new Uint8Array(await answer.arrayBuffer());
    return (await readVolume([sourceFromBytes('x.nii.gz', bytes)], nodePlatform)).volume;
  }

  /** Holds voxels that OHIF lays over the images, in its order, against the label map that lies in the same places. */
  async function expectSame(
    name: string,
    images: readonly Image[],
    sizes: readonly number[],
    voxels: Uint8Array,
  ): Promise<void> {
    const [{ columns, rows }] = images;
    expect(sizes).toEqual([columns, rows, images.length]);
    expect(voxels).toHaveLength(columns * rows * images.length);
    const { voxels: expected, size, affine } = await promised(name);
    const toVoxel = invert(affine);
    const found = new Set<number>();
    let wrong = 0;
    let i = 0;
    for (const { imagePositionPatient: at, imageOrientationPatient: along, pixelSpacing } of images) {
      for (let y = 0; y < rows; y++) {
        for (let x = 0; x < columns; x++, i++) {
          const lps = at.map(
            (p, c) => p + x * pixelSpacing[1] * along[c] + y * pixelSpacing[0] * along[c + 3],
          );
          const index = applyAffine(toVoxel, [-lps[0], -lps[1], lps[2]]);
          const near = index.map(Math.round);
          if (index.some((value, c) => Math.abs(value - near[c]) > 0.05)) wrong++;
          const value = expected[near[0] + size[0] * (near[1] + size[1] * near[2])];
          if (numberOf.get(Number(value)) !== voxels[i]) wrong++;
          found.add(voxels[i]);
        }
      }
    }
    expect({ name, wrong }).toEqual({ name, wrong: 0 });
    expect([...found].sort()).toEqual([0, 1, 2, 3]);
  }

  it.skipIf(!cornerstone || !reader).each(names)(
    '%s: the answer is read by nrrd-js, and lies on the images as OHIF stacks them',
    async (name) => {
      const answer = await infer(uids.get(name)!);
      const bytes = await answer.arrayBuffer();
      expect(answer.status, Buffer.from(bytes.slice(0, 300)).toString()).toBe(200);
      expect(answer.headers.get('content-length')).toBe(String(bytes.byteLength));
      const nrrd = createRequire(join(reader!, 'x.js'))('nrrd-js') as {
        parse(data: ArrayBuffer): { sizes: number[]; type: string; encoding: string; buffer: ArrayBuffer };
      };
      const { sizes, type, encoding, buffer } = nrrd.parse(bytes);
      expect({ type, encoding }).toEqual({ type: 'uint8', encoding: 'raw' });
      await expectSame(name, orders.get(name)!, sizes, new Uint8Array(buffer));
    },
  );

  const chromium = ohif ? findChromium() : undefined;
  it.skipIf(!chromium)(
    'OHIF itself lays the labels over the places of its images',
    async () => {
      const browser = await launchViewer(chromium!);
      try {
        for (const name of ['dicom_cases/ct_ffs', 'dicom_cases/mr9_nonsquare'] as const) {
          const study = studies.get(name)!;
          const address = `${server.url}/monailabel/`;
          const shown = await segmentInOhif(browser, {
            origin: pages.origin,
            study,
            series: uids.get(name)!,
            server: address,
          });
          expect(shown.segments).toEqual({ 1: 'bright', 2: 'corner', 3: 'edge' });
          await expectSame(
            name,
            shown.images,
            shown.dimensions,
            new Uint8Array(Buffer.from(shown.voxels, 'base64')),
          );
        }
      } finally {
        await browser.close();
      }
    },
    600_000,
  );

  it('fetches with a login, and removes the identity where inputs are stripped', async () => {
    await using closed = await startOrthanc(orthanc!, {
      AuthenticationEnabled: true,
      RegisteredUsers: { tomaat: 'se:cret' },
    });
    const name = 'dicom_cases/mr9_nonsquare';
    const authorization = `Basic ${Buffer.from('tomaat:se:cret').toString('base64')}`;
    const web = createDicomWeb({ url: closed.dicomWeb, headers: { authorization } });
    requireStored(await web.store(filesOf(name) as Uint8Array<ArrayBuffer>[]));
    const open = (credentials?: string) =>
      startTestServer([bands], {
        faces: ['monailabel'],
        archive: { url: closed.dicomWeb, credentials },
        stripInputs: true,
      });
    await using own = await open('tomaat:se:cret');
    const answer = await infer(uids.get(name)!, { at: own });
    const plain = await infer(uids.get(name)!);
    const voxelsOf = async (one: Response) =>
      Buffer.from(await one.arrayBuffer())
        .toString('latin1')
        .split('\n\n', 2)[1];
    expect([answer.status, plain.status]).toEqual([200, 200]);
    expect(await voxelsOf(answer)).toBe(await voxelsOf(plain));
    await using without = await open();
    const refused = await infer(uids.get(name)!, { at: without });
    expect(refused.status).toBe(502);
    expect(await detailOf(refused)).toMatch(/dicomwebCredentials/);
  });

  it.each<[string, string, number, RegExp]>([
    ['a series that is not there', '1.2.3.4', 404, /^The archive has no series with this UID/],
    ['a study', '', 404, /no series with this UID/],
    ['a pattern', '1.2.*', 404, /no such image of yours/],
    ['a path', '../1.2', 404, /no such image of yours/],
    ['a name', 'MRHead', 404, /no such image of yours/],
  ])('refuses %s without telling what there is', async (_what, given, status, detail) => {
    let uid = given;
    if (uid === '') {
      const web = createDicomWeb({ url: pacs.dicomWeb });
      [{ studyInstanceUid: uid }] = await web.searchStudies();
    }
    const answer = await infer(uid);
    expect(answer.status).toBe(status);
    expect(await detailOf(answer)).toMatch(detail);
  });

  it.each([
    ['several time points', 'dicom_cases/philips_fmri_oblique_4d', /4-D with 3 frames/],
    [
      'a localizer beside the volume',
      'dicom_cases/mr9_localizer_same_series',
      /more than one volume of 9 slices/,
    ],
    ['a gap', 'dicom_cases/mr9_missing_slice', /gap/],
  ])('refuses a series with %s, and keeps nothing of it', async (_what, name, detail) => {
    // These have the UID of another one of this archive.
    await using other = await startOrthanc(orthanc!);
    const { series: uid } = await store(other, name);
    await using own = await startTestServer([bands], {
      faces: ['monailabel'],
      archive: { url: other.dicomWeb },
    });
    const answer = await infer(uid, { at: own });
    expect(answer.status).toBe(422);
    expect(await detailOf(answer)).toMatch(detail);
    await expect.poll(() => keptBy(own)).toEqual([]);
  });

  it('stops fetching, and keeps nothing, when the viewer leaves', async () => {
    const { url, left, asked } = await silentArchive();
    await using own = await startTestServer([bands], { faces: ['monailabel'], archive: { url } });
    const gone = new AbortController();
    const [path, init] = inferenceOf('1.2.3');
    const answer = fetch(`${own.url}${path}`, { ...init, signal: gone.signal });
    await asked;
    gone.abort();
    await expect(answer).rejects.toThrow();
    await left;
    await expect.poll(() => keptBy(own)).toEqual([]);
  });

  it('refuses a series that is larger than an upload may be', async () => {
    await using own = await startTestServer([bands], {
      faces: ['monailabel'],
      archive: { url: pacs.dicomWeb },
      maxUploadBytes: 100_000,
    });
    const answer = await infer(uids.get('dicom/prostate_t2_tra')!, { at: own });
    expect(answer.status).toBe(413);
    expect(await detailOf(answer)).toMatch(/larger than the 100000 bytes/);
  });

  it('says what to do where there is no archive', async () => {
    await using own = await startTestServer([bands], { faces: ['monailabel'] });
    const answer = await infer('1.2.3', { at: own });
    expect(answer.status).toBe(404);
    expect(await detailOf(answer)).toMatch(/no archive.*the setting dicomweb/);
  });

  it('records who fetched what, without the UIDs, and keeps nothing', async () => {
    const uid = uids.get('dicom_cases/ct_oblique')!;
    expect((await infer(uid)).status).toBe(200);
    const text = await readAudit(server.dataFolder);
    const lines = text
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    const digest = `sha256:${createHash('sha256').update(uid).digest('hex')}`;
    expect(lines.findLast(({ series }) => series === digest)).toMatchObject({
      event: 'series.fetched',
      who: 'anonymous',
      service: 'bands',
      study: expect.stringMatching(/^sha256:/),
      count: 10,
      outcome: 'whole',
    });
    for (const one of uids.values()) expect(text).not.toContain(one);
    await expect.poll(() => keptBy(server)).toEqual([]);
  });

  it('is for callers with a key, and at the legacy port for pages of an allowed origin', async () => {
    await using own = await startTestServer([bands], {
      faces: ['monailabel'],
      archive: { url: pacs.dicomWeb },
      login: true,
      legacyPort: 0,
      allowOrigin: [pageUrl],
    });
    const uid = uids.get('dicom_cases/mr9_nonsquare')!;
    const { headers } = await makeKey(own.dataFolder, ['predict']);
    const fetchTls = createGuardedFetch({ ca: own.certificate.cert });
    const [path, init] = inferenceOf(uid);
    const legacy = (more: HeadersInit) => fetchTls(`${own.legacyUrl}${path}`, { ...init, headers: more });
    expect((await infer(uid, { at: own })).status).toBe(401);
    expect((await infer(uid, { at: own, headers })).status).toBe(200);
    const refused = await legacy({});
    expect(refused.status).toBe(403);
    expect(await detailOf(refused)).toMatch(/--allow-origin/);
    expect((await legacy({ origin: 'https://other.example' })).status).toBe(403);
    const answer = await legacy({ origin: pageUrl });
    expect(answer.status).toBe(200);
    expect(answer.headers.get('access-control-allow-origin')).toBe(pageUrl);
  });
});

/** The files that a server keeps of requests. */
const keptBy = ({ dataFolder: at }: TestServer) => leftFiles(at, ['blobs', 'uploads']);

/** An archive that has every series, and sends nothing of it; when it was asked for one, and when that connection ended. */
async function silentArchive() {
  const begun = Promise.withResolvers<void>();
  const ended = Promise.withResolvers<void>();
  const archive = createServer((request, response) => {
    const uid = new URL(request.url!, 'http://x').searchParams.get('SeriesInstanceUID');
    if (uid === null) {
      response.writeHead(200, { 'content-type': 'multipart/related; type="application/dicom"; boundary=X' });
      response.flushHeaders();
      request.socket.once('close', () => ended.resolve());
      begun.resolve();
      return;
    }
    const found = { '0020000D': { vr: 'UI', Value: ['1.2'] }, '0020000E': { vr: 'UI', Value: [uid] } };
    response.writeHead(200, { 'content-type': 'application/dicom+json' }).end(JSON.stringify([found]));
  });
  await new Promise<void>((resolve) => archive.listen(0, '127.0.0.1', resolve));
  archive.unref();
  const url = `http://127.0.0.1:${(archive.address() as AddressInfo).port}`;
  return { url, asked: begun.promise, left: ended.promise.then(() => void archive.close()) };
}

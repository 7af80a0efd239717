import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createDicomWeb, requireStored } from '@tomaat/client';
import { afterAll, describe, expect, it } from 'vitest';
import { startOrthanc } from '../../../../../test/orthanc.ts';
import { findOrthanc } from '../../../../../test/programs.ts';
import { dicomFile, sliceElements } from '../../../../core/test/dicom-files.ts';
import { makeCertificate, type OwnCertificate } from '../../../test/certificate-fixture.ts';
import { connectWith } from '../../../test/gateway-series-fixture.ts';
import { addPin, knownHostsFile } from '../../trust/known-hosts.ts';
import type { SeenSeries, Source } from '../series.ts';
import { openDicomWebSource } from './dicomweb-source.ts';

const now = Date.UTC(2026, 4, 20, 12);
const { signal } = new AbortController();

interface Series {
  study: string;
  series: string;
  modality?: string;
  date: string;
  instances: number;
}

/** How servers differ. */
interface Quirks {
  /** No search for series across studies. */
  byStudyOnly?: boolean;
  /** Attributes that are not asked for by the standard are not given. */
  ignoresIncludes?: boolean;
  ignoresCriteria?: boolean;
  /** No search for instances. */
  metadataOnly?: boolean;
}

const value = (vr: string, ...values: unknown[]) => ({ vr, Value: values });

/** A DICOMweb server of its own over HTTP, or HTTPS with a certificate: QIDO-RS as PS3.18, 10.6 has it, with the quirks of others. */
async function startPacs(archive: Series[], quirks: Quirks = {}, certificate?: OwnCertificate) {
  const asked: URL[] = [];
  const contextOf = ({ pem, keyPem }: OwnCertificate) => ({ cert: pem, key: keyPem });
  const secure = certificate && createSecureServer(contextOf(certificate), answer);
  const server = secure ?? createServer(answer);
  function answer(request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url!, 'http://x');
    asked.push(url);
    const found = answerOf(url);
    if (typeof found === 'number') {
      response.writeHead(found).end();
      return;
    }
    const [limit, offset] = ['limit', 'offset'].map((key) => Number(url.searchParams.get(key)));
    const page = limit > 0 ? found.slice(offset, offset + limit) : found;
    if (page.length === 0) response.writeHead(204).end();
    else response.writeHead(200, { 'content-type': 'application/dicom+json' }).end(JSON.stringify(page));
  }

  function answerOf(url: URL): number | object[] {
    const parts = url.pathname.split('/').slice(1);
    const query = url.searchParams;
    const [, study, , series] = parts;
    const range = query.get('StudyDate')?.split('-');
    const wanted = archive.filter(
      (one) =>
        (study === undefined || one.study === study) &&
        (series === undefined || one.series === series) &&
        (quirks.ignoresCriteria ||
          ((query.get('SeriesInstanceUID') ?? one.series) === one.series &&
            (query.get('StudyInstanceUID') ?? one.study) === one.study &&
            (query.get('Modality') ?? query.get('ModalitiesInStudy') ?? one.modality) === one.modality &&
            (range === undefined || (range[0] <= one.date && one.date <= range[1])))),
    );
    switch (parts.at(-1)) {
      case 'studies': {
        const studies = new Map(wanted.map((one) => [one.study, one]));
        return [...studies.values()].map(({ study, date }) => ({
          '0020000D': value('UI', study),
          '00080020': value('DA', date),
        }));
      }
      case 'series':
        if (quirks.byStudyOnly && study === undefined) return 400;
        return wanted.map((one) => ({
          '0020000D': value('UI', one.study),
          '0020000E': value('UI', one.series),
          ...(one.modality && { '00080060': value('CS', one.modality) }),
          ...(!quirks.ignoresIncludes && {
            '00201209': value('IS', one.instances),
            '00080020': value('DA', one.date),
            '00081030': value('LO', 'Chest'),
            '0008103E': value('LO', 'Lung'),
          }),
        }));
      case 'instances':
      case 'metadata':
        if (quirks.metadataOnly && parts.at(-1) === 'instances') return 501;
        return wanted.flatMap((one) =>
          Array.from({ length: one.instances }, (_, index) => ({
            '0020000D': value('UI', one.study),
            '0020000E': value('UI', one.series),
            '00080018': value('UI', `${one.series}.${index}`),
          })),
        );
      default:
        return 404;
    }
  }

  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `${secure ? 'https' : 'http'}://127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked,
    /** Presents another certificate from the next connection on; the others are closed. */
    renew(other: OwnCertificate) {
      secure?.setSecureContext(contextOf(other));
      secure?.closeAllConnections();
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

const archive: Series[] = [
  { study: '1.1', series: '1.1.1', modality: 'CT', date: '20260519', instances: 3 },
  { study: '1.1', series: '1.1.2', modality: 'SEG', date: '20260519', instances: 1 },
  { study: '1.2', series: '1.2.1', modality: 'MR', date: '20260520', instances: 2 },
  { study: '1.3', series: '1.3.1', modality: 'CT', date: '20260510', instances: 4 },
  { study: '1.4', series: '1.4.1', modality: 'US', date: '20260520', instances: 9 },
];

const folder = mkdtempSync(join(tmpdir(), 'tomaat-source-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const open = (url: string, more = {}) =>
  openDicomWebSource(
    {
      name: 'pacs',
      url,
      sinceDays: 3,
      modalities: ['CT', 'MR'],
      maxFileBytes: 1e8,
      now: () => now,
      ...more,
    },
    connectWith(folder),
  );

async function collect(found: AsyncIterable<SeenSeries>): Promise<SeenSeries[]> {
  const all: SeenSeries[] = [];
  for await (const seen of found) all.push(seen);
  return all;
}

describe('openDicomWebSource()', () => {
  const usual: Quirks = {};
  const cases: [string, Quirks][] = [
    ['as the standard has it', usual],
    ['that searches series in a study alone', { byStudyOnly: true }],
    ['that ignores includefield', { ignoresIncludes: true }],
    ['that ignores criteria', { ignoresCriteria: true }],
    ['that does not search instances, nor counts them', { metadataOnly: true, ignoresIncludes: true }],
  ];
  it.each(cases)('finds young series of the rules’ modalities at a server %s', async (_, quirks) => {
    await using pacs = await startPacs(archive, quirks);
    const source = open(pacs.url);
    const found = await collect(source.search(signal));
    const known = found.map(({ study, series, modality, instances }) => [study, series, modality, instances]);
    expect(known.sort()).toEqual([
      ['1.1', '1.1.1', 'CT', 3],
      ['1.2', '1.2.1', 'MR', 2],
    ]);
    if (!quirks.ignoresIncludes)
      expect(found[0]).toMatchObject({ source: 'pacs', description: 'Lung', studyDescription: 'Chest' });
    expect((await source.look('1.1', '1.1.1', signal))?.instances).toBe(3);
    expect((await source.instances('1.1', '1.1.1', signal)).sort()).toEqual([
      '1.1.1.0',
      '1.1.1.1',
      '1.1.1.2',
    ]);
    expect(await source.look('1.1', '1.1.9', signal)).toBeUndefined();
  });

  it('searches for any modality if a rule names none', async () => {
    await using pacs = await startPacs(archive);
    const found = await collect(open(pacs.url, { modalities: undefined }).search(signal));
    expect(found.map(({ series }) => series).sort()).toEqual(['1.1.1', '1.1.2', '1.2.1', '1.4.1']);
  });

  it('tells whether the archive answers if no rule takes anything of it', async () => {
    const pacs = await startPacs(archive);
    expect(await collect(open(pacs.url, { modalities: [] }).search(signal))).toEqual([]);
    expect(pacs.asked.map(({ pathname }) => pathname)).toEqual(['/studies']);
    await pacs[Symbol.asyncDispose]();
    await expect(collect(open(pacs.url, { modalities: [] }).search(signal))).rejects.toMatchObject({
      code: 'UNREACHABLE',
    });
  });

  it('finds a series in each study that has it', async () => {
    const copy = { ...archive[0], study: '1.9' };
    await using pacs = await startPacs([archive[0], copy]);
    const found = await collect(open(pacs.url).search(signal));
    expect(found.map(({ study }) => study).sort()).toEqual(['1.1', '1.9']);
  });

  it('finds 1,000 series in pages, by few requests', async () => {
    const many = Array.from({ length: 1000 }, (_, index) => ({
      study: `2.${index >> 2}`,
      series: `2.${index >> 2}.${index}`,
      modality: 'CT',
      date: '20260520',
      instances: 20,
    }));
    await using pacs = await startPacs(many);
    const found = await collect(open(pacs.url).search(signal));
    expect(new Set(found.map(({ series }) => series)).size).toBe(1000);
    expect(pacs.asked.length).toBeLessThan(15);
    for (const { searchParams } of pacs.asked)
      expect(searchParams.get('StudyDate')).toBe('20260517-20260521');
  });

  it('leaves out a result with an unusable UID, and reports broken answers', async () => {
    const bad = { ...archive[0], series: '../../x' };
    await using pacs = await startPacs([bad, ...archive]);
    const found = await collect(open(pacs.url).search(signal));
    expect(found.map(({ series }) => series).sort()).toEqual(['1.1.1', '1.2.1']);
    await using broken = await startPacs([{ ...archive[0], series: undefined as never }]);
    await expect(collect(open(broken.url).search(signal))).rejects.toMatchObject({
      code: 'UPSTREAM',
    });
  });

  it('tells a wrong address from a series that is gone', async () => {
    await using pacs = await startPacs(archive);
    const source = open(`${pacs.url}/wrong/x/y/z`);
    await using wrong = await startPacs([]);
    const elsewhere = open(`${wrong.url}/dicom-web/nothing`);
    expect(await elsewhere.look('1.1', '1.1.1', signal)).toBeUndefined();
    expect(await source.look('1.1', '1.1.1', signal)).toBeUndefined();
    const server = createServer((_, response) => response.writeHead(404).end()).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const closed = open(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
    await expect(closed.look('1.1', '1.1.1', signal)).rejects.toMatchObject({ code: 'UPSTREAM' });
    server.close();
  });

  it('names a caFile that is gone, as a fault that passes', async () => {
    const caFile = join(folder, 'gone.pem');
    await expect(collect(open('https://127.0.0.1:1', { caFile }).search(signal))).rejects.toMatchObject({
      code: 'UNREACHABLE',
      message: `${caFile} cannot be read (ENOENT). Check caFile.`,
    });
  });

  it('takes a self-signed certificate by caFile or tomaat trust, and a renewed one', async () => {
    const own = await makeCertificate(folder, { names: ['127.0.0.1'] });
    await using pacs = await startPacs(archive, {}, own);
    const address = `127.0.0.1:${new URL(pacs.url).port}`;
    const search = (source: Source) => collect(source.search(signal));
    expect(await search(open(pacs.url, { caFile: own.cert }))).toHaveLength(2);
    const remembering = open(pacs.url);
    await expect(search(remembering)).rejects.toMatchObject({
      code: 'UNREACHABLE',
      message: expect.stringContaining('is not trusted here'),
    });
    expect(pacs.asked.length).toBe(2);
    const file = knownHostsFile(folder);
    await addPin(file, address, new X509Certificate(own.pem).fingerprint256);
    expect(await search(remembering)).toHaveLength(2);
    const renewed = await makeCertificate(folder, { file: 'renewed', names: ['127.0.0.1'] });
    pacs.renew(renewed);
    await expect(search(remembering)).rejects.toMatchObject({ code: 'UNREACHABLE' });
    await addPin(file, address, new X509Certificate(renewed.pem).fingerprint256);
    expect(await search(remembering)).toHaveLength(2);
  });
});

const program = findOrthanc();

describe.skipIf(!program)('openDicomWebSource() with Orthanc', () => {
  it('finds, lists and fetches series as they are stored, and sees them go', {
    timeout: 60_000,
  }, async () => {
    await using pacs = await startOrthanc(program!);
    const today = new Date().toISOString().slice(0, 10).replaceAll('-', '');
    const files = ['5', '6'].flatMap((series) =>
      [1, 2, 3].map((instance) => ({
        series,
        bytes: dicomFile(
          sliceElements({
            series,
            instance,
            more: {
              524320: ['DA', series === '5' ? today : '20200101'],
              2097165: ['UI', `1.2.3.${series}00`],
              1048608: ['LO', `P${series}`],
              528446: ['LO', 'Liver'],
            },
          }),
        ),
      })),
    );
    const web = createDicomWeb({ url: pacs.dicomWeb });
    requireStored(await web.store(files.map(({ bytes }, index) => ({ name: `${index}.dcm`, bytes }))));
    const source = open(pacs.dicomWeb, { now: Date.now, modalities: ['MR'] });
    expect(await collect(source.search(signal))).toEqual([
      {
        source: 'pacs',
        study: '1.2.3.500',
        series: '1.2.3.5',
        modality: 'MR',
        description: 'Liver',
        instances: 3,
      },
    ]);
    expect((await source.instances('1.2.3.500', '1.2.3.5', signal)).sort()).toEqual([
      '1.2.3.5.1',
      '1.2.3.5.2',
      '1.2.3.5.3',
    ]);
    const fetched: Buffer[] = [];
    for await (const { bytes } of source.fetch('1.2.3.500', '1.2.3.5', signal))
      fetched.push(Buffer.from(bytes));
    expect(fetched).toHaveLength(3);
    for (const { series, bytes } of files)
      if (series === '5') expect(fetched.some((file) => file.equals(bytes))).toBe(true);
    const ids = (await (await fetch(`${pacs.url}/patients`)).json()) as string[];
    for (const id of ids) await fetch(`${pacs.url}/patients/${id}`, { method: 'DELETE' });
    expect(await source.look('1.2.3.500', '1.2.3.5', signal)).toBeUndefined();
    expect(await source.instances('1.2.3.500', '1.2.3.5', signal)).toEqual([]);
  });
});

import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { createDicomWeb, type DicomWeb, type RetrievedInstance, requireStored } from '@tomaat/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { codeBlocks, readerFolder, readText, repository, start } from '../../../test/documents.ts';
import { type Orthanc, startOrthanc } from '../../../test/orthanc.ts';
import { findOrthanc } from '../../../test/programs.ts';
import { dataFolder } from '../../../test/real-data.ts';

/* The DICOMweb client against a PACS that others wrote, with real images. */

const program = findOrthanc();
const data = dataFolder();

const filesOf = (name: string): Buffer[] => {
  const folder = join(data!, 'dicom', name);
  return readdirSync(folder)
    .sort()
    .map((file) => readFileSync(join(folder, file)));
};

/** The value of a UID in a file of explicit VR little endian, found by its tag and VR. */
function uidIn(file: Uint8Array, tag: readonly [group: number, element: number]): string {
  const bytes = Buffer.from(file);
  const key = Buffer.alloc(6);
  key.writeUInt16LE(tag[0], 0);
  key.writeUInt16LE(tag[1], 2);
  key.write('UI', 4);
  const at = bytes.indexOf(key);
  const length = bytes.readUInt16LE(at + 6);
  return bytes.toString('latin1', at + 8, at + 8 + length).replace(/\0$/, '');
}
const sopUid = (file: Uint8Array) => uidIn(file, [0x0008, 0x0018]);
const studyUid = (file: Uint8Array) => uidIn(file, [0x0020, 0x000d]);
const seriesUid = (file: Uint8Array) => uidIn(file, [0x0020, 0x000e]);
const syntaxUid = (file: Uint8Array) => uidIn(file, [0x0002, 0x0010]);
const byUid = (files: readonly Uint8Array[]) => new Map(files.map((file) => [sopUid(file), file]));

async function collect(instances: AsyncIterable<RetrievedInstance>): Promise<RetrievedInstance[]> {
  const all: RetrievedInstance[] = [];
  for await (const instance of instances) all.push(instance);
  return all;
}

describe.skipIf(!program || !data)('createDicomWeb() with Orthanc and real images', () => {
  let pacs: Orthanc;
  let web: DicomWeb;
  beforeAll(async () => {
    pacs = await startOrthanc(program!);
    web = createDicomWeb({ url: pacs.dicomWeb });
  });
  afterAll(() => pacs?.[Symbol.asyncDispose]());

  /** Everything, so that the next test meets an empty archive. */
  async function empty(): Promise<void> {
    const ids = (await (await fetch(`${pacs.url}/patients`)).json()) as string[];
    for (const id of ids) await fetch(`${pacs.url}/patients/${id}`, { method: 'DELETE' });
  }
  const countOfSeries = async () => ((await (await fetch(`${pacs.url}/series`)).json()) as string[]).length;

  it('store(), search and retrieveSeries() return 19 identical slices; storing again adds none', async () => {
    await empty();
    const files = filesOf('prostate_t2_tra');
    expect(files).toHaveLength(19);
    expect(await web.searchStudies()).toEqual([]);

    const report = await web.store(files);
    expect(report.failed).toEqual([]);
    expect(report.stored.map(({ index, sopInstanceUid }) => [index, sopInstanceUid])).toEqual(
      files.map((file, index) => [index, sopUid(file)]),
    );
    requireStored(report);

    const [study, ...otherStudies] = await web.searchStudies({ modality: 'MR' });
    expect(otherStudies).toEqual([]);
    expect(study).toMatchObject({
      studyInstanceUid: studyUid(files[0]),
      modalities: ['MR'],
      seriesCount: 1,
      instanceCount: 19,
    });
    const [series, ...otherSeries] = await web.searchSeries({ study: study.studyInstanceUid });
    expect(otherSeries).toEqual([]);
    expect(series).toMatchObject({
      studyInstanceUid: studyUid(files[0]),
      seriesInstanceUid: seriesUid(files[0]),
      modality: 'MR',
      instanceCount: 19,
    });

    const { studyInstanceUid, seriesInstanceUid, instanceCount } = series;
    const seen: number[] = [];
    const found = await collect(
      web.retrieveSeries(studyInstanceUid, seriesInstanceUid, {
        expectedInstances: instanceCount,
        onProgress: ({ instances }) => seen.push(instances),
      }),
    );
    const sent = byUid(files);
    expect(found.map(({ sopInstanceUid }) => sopInstanceUid).sort()).toEqual([...sent.keys()].sort());
    for (const { sopInstanceUid, transferSyntaxUid, bytes } of found) {
      expect(Buffer.compare(bytes, sent.get(sopInstanceUid!)!)).toBe(0);
      expect(transferSyntaxUid).toBe(syntaxUid(bytes));
    }
    expect(seen.at(-1)).toBe(19);
    await expect(
      collect(web.retrieveSeries(studyInstanceUid, seriesInstanceUid, { expectedInstances: 20 })),
    ).rejects.toMatchObject({ code: 'UPSTREAM', detail: { found: 19, expected: 20 } });

    expect((await web.store(files)).failed).toEqual([]);
    expect(await countOfSeries()).toBe(1);
    expect(await web.searchInstances({ study: studyInstanceUid })).toHaveLength(19);
  });

  it('searchInstances() pages, filters, and fetches the fields that are asked for', async () => {
    await empty();
    const files = filesOf('prostate_t2_tra');
    const requests: number[] = [];
    const inBatches = createDicomWeb({ url: pacs.dicomWeb, batchBytes: 2_000_000 });
    const onProgress = ({ instances }: { instances: number }) => void requests.push(instances);
    requireStored(await inBatches.store(files, { onProgress }));
    expect(requests).toEqual([6, 12, 18, 19]);
    const where = { study: studyUid(files[0]), series: seriesUid(files[0]) };
    const all = await web.searchInstances(where);
    const pages = [
      ...(await web.searchInstances(where, { limit: 7 })),
      ...(await web.searchInstances(where, { limit: 7, offset: 7 })),
      ...(await web.searchInstances(where, { limit: 7, offset: 14 })),
    ];
    expect(pages.map(({ sopInstanceUid }) => sopInstanceUid)).toEqual(
      all.map(({ sopInstanceUid }) => sopInstanceUid),
    );
    expect(new Set(all.map(({ sopInstanceUid }) => sopInstanceUid))).toEqual(new Set(files.map(sopUid)));
    expect(all.map(({ instanceNumber }) => instanceNumber).sort((a, b) => a! - b!)).toEqual(
      files.map((_, index) => index + 1),
    );
    expect(all[0]).toMatchObject({ rows: 384, columns: 384 });
    const [one] = await web.searchInstances(
      { ...where, attributes: { InstanceNumber: 5 } },
      {
        includeFields: ['00181030'],
      },
    );
    expect(one).toMatchObject({ instanceNumber: 5 });
    expect(Object.keys(one.dataset)).toContain('00181030');
    expect(await web.searchStudies({ patientId: 'unknown' })).toEqual([]);
    expect(await web.searchStudies({ modality: 'CT' })).toEqual([]);
  });

  it('retrieveMetadata() and retrieveInstance() give one instance', async () => {
    await empty();
    const [file] = filesOf('prostate_t2_tra');
    await web.store([file]);
    const [study, series, instance] = [studyUid(file), seriesUid(file), sopUid(file)];
    const [dataset, ...others] = await web.retrieveMetadata({ study, series, instance });
    expect(others).toEqual([]);
    expect(dataset['00080018'].Value).toEqual([instance]);
    const { bytes } = await web.retrieveInstance(study, series, instance);
    expect(Buffer.compare(bytes, file)).toBe(0);
    await expect(web.retrieveInstance(study, series, '1.2.3')).rejects.toMatchObject({
      code: 'NOT_FOUND',
    });
  });

  it('store() reports which of a damaged and a good file was stored', async () => {
    await empty();
    const [first, second] = filesOf('prostate_t2_tra');
    const damaged = first.subarray(0, 1000);
    const report = await web.store([damaged, second]);
    expect(report.stored).toMatchObject([{ index: 1, sopInstanceUid: sopUid(second) }]);
    expect(report.failed).toMatchObject([{ index: 0, sopInstanceUid: sopUid(first) }]);
    expect(report.failed[0].message).toMatch(/HTTP 400.*did not confirm that it stored/);
    expect(() => requireStored(report)).toThrow(/^1 of 2 instances are not stored\. /);
    const there = await web.searchInstances({ study: studyUid(second) });
    expect(there.map(({ sopInstanceUid }) => sopInstanceUid)).toEqual([sopUid(second)]);
  });

  it.each([
    ['series_rle', '1.2.840.10008.1.2.5'],
    ['series_jpegls', '1.2.840.10008.1.2.4.80'],
    ['series_j2k', '1.2.840.10008.1.2.4.90'],
  ])('%s comes back compressed as it was, bit for bit', async (name, syntax) => {
    // These series have the same UIDs.
    await empty();
    const files = filesOf(name);
    expect(files.length).toBeGreaterThan(1);
    requireStored(await web.store(files));
    const found = await collect(web.retrieveSeries(studyUid(files[0]), seriesUid(files[0])));
    const sent = byUid(files);
    expect(found).toHaveLength(files.length);
    for (const { sopInstanceUid, transferSyntaxUid, bytes } of found) {
      expect(transferSyntaxUid).toBe(syntax);
      expect(Buffer.compare(bytes, sent.get(sopInstanceUid!)!)).toBe(0);
    }
  });

  it('an archive with a login refuses without credentials, and takes right ones', async () => {
    await using closed = await startOrthanc(program!, {
      AuthenticationEnabled: true,
      RegisteredUsers: { reader: 'secret' },
    });
    await expect(createDicomWeb({ url: closed.dicomWeb }).searchStudies()).rejects.toMatchObject({
      code: 'UNAUTHORIZED',
      message: expect.stringMatching(/asks for a login \(Basic\)\. Give valid credentials by headers/),
    });
    const authorization = `Basic ${Buffer.from('reader:secret').toString('base64')}`;
    const reader = createDicomWeb({ url: closed.dicomWeb, headers: async () => ({ authorization }) });
    expect(await reader.searchStudies()).toEqual([]);
  });

  it('the guide’s programs pass tsc and run in order', async () => {
    await empty();
    await web.store(filesOf('prostate_t2_tra'));
    const folder = await readerFolder();
    try {
      const blocks = codeBlocks(readText('docs/guides/dicomweb.md'));
      expect(blocks.map(({ language }) => language)).toEqual(['ts', 'ts']);
      writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
      const compilerOptions = { noEmit: true, types: ['node'], customConditions: ['tomaat-source'] };
      const tsconfig = { extends: join(repository, 'tsconfig.json'), compilerOptions, include: ['*.ts'] };
      writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify(tsconfig));
      for (const [index, { text }] of blocks.entries())
        writeFileSync(
          join(folder, `program-${index}.ts`),
          text.replaceAll('http://127.0.0.1:8042/dicom-web', pacs.dicomWeb),
        );
      const tsc = join(repository, 'node_modules/typescript/bin/tsc');
      const checked = spawnSync(process.execPath, [tsc, '-p', folder], { encoding: 'utf8' });
      expect(checked.stdout + checked.stderr).toBe('');
      const run = (index: number) =>
        start(process.execPath, ['--conditions=tomaat-source', `program-${index}.ts`], { cwd: folder }).ended;
      const pulled = await run(0);
      expect(pulled.stdout, pulled.stderr).toMatch(/\b19 instances\n[\s\S]*\n19 files\n$/);
      const pushed = await run(1);
      expect(pushed.stdout, pushed.stderr).toBe('2 stored\n');
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
});

import {
  createUidKey,
  dicomFormats,
  openZip,
  parseDicom,
  readSegmentationFile,
  readVolume,
  type SourceFile,
  sourceFromBytes,
  type Volume,
  webPlatform,
  writeVolume,
} from '@tomaat/core';
import { describe, expect, it } from 'vitest';
import { dicomFile, type Slice, sliceElements } from '../../core/test/dicom-files.ts';
import { zipOf } from '../../core/test/zip-files.ts';
import type { Service } from './contract/services.ts';
import { summarizeReport } from './deidentification-reports.ts';
import type { PreparedSeries } from './dicom-input.ts';
import { type ChosenSeries, openDicomInput, type PrepareOptions } from './dicom-input.ts';

const key = Uint8Array.from({ length: 32 }, (_, i) => i);
const patient: Slice['more'] = {
  1048592: ['PN', 'Canary^Name'],
  1048608: ['LO', 'CANARY-ID'],
  1052688: ['AS', '061Y'],
  524320: ['DA', '20260102'],
  524416: ['LO', 'Canary Hospital'],
  2097169: ['IS', '4'],
};

/** Slices 2.5 mm apart along their normal, not in the order of their positions. */
const slices = (more: Slice = {}, order = [2, 0, 3, 1]): { name: string; bytes: Uint8Array<ArrayBuffer> }[] =>
  order.map((i) => ({
    name: `Canary-${i}`,
    bytes: dicomFile(
      sliceElements({
        orientation: [1, 0, 0, 0, 1, 0],
        position: [-3, 4, 10 + 2.5 * i],
        instance: i + 1,
        ...more,
        more: { ...patient, ...more.more },
      }),
    ),
  }));

const sources = (files: ReturnType<typeof slices>): SourceFile[] =>
  files.map(({ name, bytes }) => sourceFromBytes(name, bytes));

async function joined(chunks: AsyncIterable<Uint8Array> | ReadableStream<Uint8Array>): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for await (const part of chunks as AsyncIterable<Uint8Array>) parts.push(part);
  return new Uint8Array(Buffer.concat(parts));
}

const wholeOf = (prepared: PreparedSeries) => joined(prepared.stream());
const prepare = async (more: Partial<PrepareOptions> = {}, files = sources(slices())) =>
  (await openDicomInput(files, webPlatform)).choose().prepare({ deidentify: { key }, ...more });

describe('openDicomInput()', () => {
  it('reads files, Blobs and archives together, and sorts them into series', async () => {
    const first = slices();
    const second = slices({ series: '8', more: { 2097169: ['IS', '12'] } }, [0, 1, 2]);
    const archive = zipOf(second.map(({ name, bytes }) => ({ name: `a/${name}`, data: bytes })));
    const progress: [number, number][] = [];
    const input = await openDicomInput(
      [
        ...sources(first.slice(0, 2)),
        new File([first[2].bytes], first[2].name),
        new Blob([first[3].bytes]),
        new File(['no images'], 'notes.txt'),
        new File([new Uint8Array(archive)], 'second.zip'),
      ],
      webPlatform,
      { onProgress: (done, total) => progress.push([done, total]) },
    );
    expect(input.series.map(({ uid, number, imageCount }) => [uid, number, imageCount])).toEqual([
      ['1.2.3.9', 4, 4],
      ['1.2.3.8', 12, 3],
    ]);
    expect(input.leftOut).toMatchObject([{ name: 'notes.txt', reason: 'is not a DICOM file' }]);
    expect(progress).toEqual(Array.from({ length: 8 }, (_, i) => [i + 1, 8]));
    expect(() => input.choose()).toThrow(expect.objectContaining({ code: 'BAD_INPUT' }));
    expect(input.choose('12').series.uid).toBe('1.2.3.8');
    const inOrder = input.choose('1.2.3.9').files.map(({ name }) => name);
    expect(inOrder).toEqual(['Canary-0', 'file-4', 'Canary-2', 'Canary-3']);
  });

  it('refuses no files, ends with its signal, and names a damaged file', async () => {
    await expect(openDicomInput([])).rejects.toMatchObject({ code: 'BAD_INPUT' });
    const reason = new Error('enough');
    await expect(
      openDicomInput(sources(slices()), webPlatform, { signal: AbortSignal.abort(reason) }),
    ).rejects.toBe(reason);
    const damaged = slices();
    const input = await openDicomInput(
      [...sources(damaged), sourceFromBytes('cut', damaged[0].bytes.slice(0, 400))],
      webPlatform,
    );
    expect(input.leftOut).toMatchObject([{ name: 'cut', fault: { code: expect.stringMatching(/^BAD_/) } }]);
    expect(() => input.choose()).toThrow(/damaged, perhaps a slice of the volume/);
  });
});

describe('prepare()', () => {
  it('archives the series in order: same volume, nothing about the patient', async () => {
    const prepared = await prepare();
    const bytes = await wholeOf(prepared);
    expect(bytes.length).toBe(prepared.sizeBytes);
    const [sent, original] = await Promise.all(
      [[sourceFromBytes('x.zip', bytes)], sources(slices())].map((files) => readVolume(files, webPlatform)),
    );
    expect(sent.volume).toEqual(original.volume);
    const text = Buffer.from(bytes).toString('latin1');
    for (const canary of ['Canary', 'CANARY', '20260102', '061Y', '1.2.3.9', '1.2.3.4'])
      expect(text.includes(canary), canary).toBe(false);
    expect(text.match(/\d{4}\.dcm/g)).toEqual([1, 2, 3, 4, 1, 2, 3, 4].map((i) => `000${i}.dcm`));
  });

  it('gives equal bytes for equal keys from any offset, other bytes otherwise', async () => {
    const [one, two] = [await prepare(), await prepare()];
    const whole = await wholeOf(one);
    expect(await wholeOf(two)).toEqual(whole);
    for (const [start, end] of [
      [0, 5],
      [700, 701],
      [1234, whole.length],
    ])
      expect(await joined(two.slice!(start, end))).toEqual(whole.slice(start, end));
    expect(await wholeOf(await prepare({ deidentify: { key: createUidKey() } }))).not.toEqual(whole);
  });

  it('reports what was removed from all files, and the progress', async () => {
    const progress: number[] = [];
    const { report } = await prepare({ onProgress: (done) => progress.push(done) });
    expect(progress).toEqual([1, 2, 3, 4]);
    const named = report!.attributes.find(({ name }) => /patient.?s? ?name/i.test(name));
    expect(named).toMatchObject({ outcome: 'replaced', count: 4, value: 'Canary^Name' });
    expect(Object.fromEntries(summarizeReport(report!))).toMatchObject({
      'of the patient': 3,
      'of institution and device': 1,
      'dates and times': 1,
    });
    expect(report!.burnedIn).toEqual([]);
  });

  it('keeps patient characteristics and shifts dates on request', async () => {
    const bytes = await wholeOf(
      await prepare({ deidentify: { key, keepPatientCharacteristics: true, shiftDates: true } }),
    );
    const text = Buffer.from(bytes).toString('latin1');
    expect(text).toContain('061Y');
    expect(text).not.toContain('20260102');
    const [file] = await unpacked(bytes);
    const date = file.dataset.get(0x00080020);
    expect(date?.kind === 'value' && Buffer.from(date.bytes).toString()).toMatch(/^20\d{6}$/);
  });

  it('sends files as they are where they are not to be de-identified', async () => {
    const files = slices();
    const prepared = await prepare({ deidentify: false }, sources(files));
    expect(prepared.report).toBeUndefined();
    const text = Buffer.from(await wholeOf(prepared));
    for (const { bytes } of files) expect(text.includes(Buffer.from(bytes))).toBe(true);
    expect(text.includes('Canary-')).toBe(false);
  });

  it('reads one file after the other', async () => {
    const open = new Set<string>();
    let most = 0;
    const watched = sources(slices()).map(
      (file): SourceFile => ({
        ...file,
        async *open(start) {
          open.add(file.name);
          most = Math.max(most, open.size);
          try {
            yield* file.open(start);
          } finally {
            open.delete(file.name);
          }
        },
      }),
    );
    await wholeOf(await prepare({}, watched));
    expect(most).toBe(1);
  });

  it('refuses a series with a truncated file', async () => {
    const files = slices();
    const cut = { ...files[1], bytes: files[1].bytes.slice(0, -4) };
    await expect(prepare({}, sources([files[0], cut, files[2], files[3]]))).rejects.toMatchObject({
      code: 'BAD_VOXELS',
    });
  });
});

async function unpacked(zip: Uint8Array) {
  const files = await openZip(sourceFromBytes('x.zip', zip), webPlatform);
  return Promise.all(files.map(async (file) => parseDicom(await joined(file.open()))!));
}

describe('createResult()', () => {
  const service = {
    id: 'app',
    name: 'An app',
    version: '1.2.0',
    labels: [
      { value: 1, name: 'Liver' },
      { value: 3, name: 'Cyst', when: { cysts: true } },
    ],
    outputs: [
      { name: 'report', primary: false, type: 'PlainText' },
      { name: 'organs', primary: true, type: 'LabelVolume' },
      { name: 'volumes', primary: false, type: 'Measurements', from: 'organs' },
    ],
  } as unknown as Service;
  const job = { id: 'job-1', parameters: { cysts: true } };

  async function labelsOf({ series }: ChosenSeries, change: Partial<Volume> = {}): Promise<Uint8Array> {
    const { size, affine } = series.stack!;
    const voxels = Uint8Array.from({ length: size[0] * size[1] * size[2] }, (_, i) =>
      i % 5 === 0 ? 1 : i % 7 === 3 ? 3 : 0,
    );
    const volume: Volume = { voxels, size, affine, components: 1, ...change };
    return joined(writeVolume(volume, 'nii.gz', webPlatform));
  }
  const uidOf = (bytes: Uint8Array): string => {
    const element = parseDicom(bytes)!.dataset.get(0x00080018);
    return element?.kind === 'value' ? Buffer.from(element.bytes).toString('latin1').replace('\0', '') : '';
  };
  const choose = async () => (await openDicomInput(sources(slices()), webPlatform)).choose();

  it('makes the same bytes at a given time, and names a predecessor', async () => {
    const chosen = (await openDicomInput(sources(slices()), webPlatform)).choose();
    const labels = await labelsOf(chosen);
    const make = async (more: object) =>
      new Uint8Array(await (await chosen.createResult(labels, service, { job, ...more })).arrayBuffer());
    const time = new Date(Date.UTC(2026, 0, 2, 3, 4, 5));
    const first = await make({ time });
    expect(await make({ time })).toEqual(first);
    expect(await make({ time: new Date(0) })).not.toEqual(first);
    const predecessor = {
      studyUid: '1.2.7',
      seriesUid: '1.2.8',
      sopClassUid: '1.2.9',
      sopInstanceUid: '1.2.10',
    };
    const text = Buffer.from(await make({ time, predecessor })).toString('latin1');
    expect(text).toContain('1.2.8');
    expect(Buffer.from(first).toString('latin1')).not.toContain('1.2.8\0');
  });

  it('makes a segmentation of the originals, with their patient and their UIDs', async () => {
    const chosen = await choose();
    const blob = await chosen.createResult(await labelsOf(chosen), service, { job });
    expect(blob.type).toBe('application/dicom');
    const bytes = new Uint8Array(await blob.arrayBuffer());
    const read = readSegmentationFile(bytes);
    expect(read.labels.map(({ value, name }) => [value, name])).toEqual([
      [1, 'Liver'],
      [3, 'Cyst'],
    ]);
    expect(read.labelMap.size).toEqual([4, 3, 4]);
    expect([...(read.labelMap.voxels as Uint8Array)].slice(0, 11)).toEqual([1, 0, 0, 3, 0, 1, 0, 0, 0, 0, 1]);
    const text = Buffer.from(bytes).toString('latin1');
    for (const kept of ['Canary^Name', 'CANARY-ID', '1.2.3.9.1', '1.2.3.9.4']) expect(text).toContain(kept);
  });

  it('makes an archive, and a report of the measurements that refers to the same segmentation', async () => {
    const chosen = await choose();
    const labelMap = await labelsOf(chosen);
    const archive = await chosen.createResult(labelMap, service, { job, format: 'zip' });
    expect(archive.type).toBe('application/zip');
    const zip = sourceFromBytes('organs.zip', new Uint8Array(await archive.arrayBuffer()));
    const files = await openZip(zip, webPlatform);
    const names = dicomFormats.filter((format) => format !== 'labelmap.dcm');
    expect(files.map(({ name }) => name)).toEqual(names.map((format) => `organs.${format}`));
    const segmentation = await joined(files[0].open());
    const options = { job, output: 'volumes', labelMap } as const;
    const table = new TextEncoder().encode(JSON.stringify({ labels: [{ value: 3, volumeMl: 0.125 }] }));
    const report = await chosen.createResult(table, service, options);
    expect(report.type).toBe('application/dicom');
    const text = Buffer.from(await report.arrayBuffer()).toString('latin1');
    for (const known of ['Canary^Name', '1.2.3.9.1', 'Cyst', '0.125', uidOf(segmentation)])
      expect(text).toContain(known);
    const faults = [
      [table, { job, output: 'volumes' }, 'NOT_ACCEPTABLE'],
      [table, { ...options, format: 'zip' }, 'NOT_ACCEPTABLE'],
      [labelMap, options, 'BAD_INPUT'],
      [new TextEncoder().encode('{}'), options, 'BAD_INPUT'],
    ] as const;
    for (const [bytes, given, code] of faults)
      await expect(chosen.createResult(bytes, service, given)).rejects.toMatchObject({ code });
  });

  it('makes a key picture of one of the originals', async () => {
    const chosen = await choose();
    const blob = await chosen.createResult(await labelsOf(chosen), service, { job, format: 'key.dcm' });
    const text = Buffer.from(await blob.arrayBuffer()).toString('latin1');
    // Secondary Capture; the third slice has five labelled voxels, the others three or four.
    for (const part of ['1.2.840.10008.5.1.4.1.1.7\0', 'Canary^Name', 'Slice 3 of 4'])
      expect(text.includes(part), part).toBe(true);
  });

  it('derives UIDs from the job and gives each frame its place', async () => {
    const chosen = await choose();
    const labels = await labelsOf(chosen);
    const uids = async (id: string) => {
      const made = await chosen.createResult(labels, service, { job: { ...job, id } });
      const { dataset } = parseDicom(new Uint8Array(await made.arrayBuffer()))!;
      return [0x00080018, 0x0020000e].map((tag) => {
        const element = dataset.get(tag);
        return element?.kind === 'value' ? Buffer.from(element.bytes).toString() : '';
      });
    };
    const first = await uids('job-1');
    expect(first[0]).toMatch(/^2\.25\.\d+/);
    expect(await uids('job-1')).toEqual(first);
    const other = await uids('job-2');
    expect(other[0]).not.toBe(first[0]);
    expect(other[1]).not.toBe(first[1]);
  });

  it('refuses a label map of another grid, other outputs and missing frames', async () => {
    const chosen = await choose();
    const { affine } = chosen.series.stack!;
    const moved = affine.map((value, i) => (i === 11 ? value + 2.5 : value));
    const wrong = await labelsOf(chosen, { affine: moved });
    await expect(chosen.createResult(wrong, service, { job })).rejects.toMatchObject({ code: 'APP_OUTPUT' });
    const labels = await labelsOf(chosen);
    for (const options of [{ output: 'report' }, { output: 'none' }, { frame: 1 }]) {
      await expect(chosen.createResult(labels, service, { job, ...options })).rejects.toMatchObject({
        code: 'BAD_INPUT',
      });
    }
  });
});

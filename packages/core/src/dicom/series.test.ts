import { describe, expect, it } from 'vitest';
import { dicomFile, type Slice, sliceElements } from '../../test/dicom-files.ts';
import { along, files, four, read, refusalOf, slices } from '../../test/dicom-series.ts';
import { inspectVolume, readVolume, sourceFromBytes } from '../formats/volume-file.ts';
import { webPlatform } from '../formats/web-platform.ts';

describe('the files of a series', () => {
  const named = (name: string, bytes: Uint8Array) => sourceFromBytes(name, bytes);

  it('are listed as left out where unsuitable, never mixed with other series', async () => {
    const seg = dicomFile(sliceElements({ more: { 524310: ['UI', '1.2.840.10008.5.1.4.1.1.66.4'] } }));
    const report = dicomFile(
      sliceElements({ more: { 524310: ['UI', '1.2.840.10008.5.1.4.1.1.88.33'], 2145386512: undefined } }),
    );
    const odd = dicomFile(sliceElements({ more: { 524310: ['UI', '1.2.840.99'], 2145386512: undefined } }));
    const locator = dicomFile(
      sliceElements({
        instance: 50,
        orientation: [0, 1, 0, 0, 0, -1],
        more: { 524296: ['CS', 'ORIGINAL\\PRIMARY\\LOCALIZER'] },
      }),
    );
    const capture = dicomFile(
      sliceElements({
        instance: 51,
        more: { 524310: ['UI', '1.2.840.10008.5.1.4.1.1.7'], 2097202: undefined },
      }),
    );
    const all = [
      named('a/b/notes.txt', Buffer.from('hello')),
      ...files(four),
      named('s', seg),
      named('r', report),
      named('x', odd),
      named('l', locator),
      named('c', capture),
      { ...files(four)[1], name: 'again' },
    ];
    const { volume, leftOut } = await readVolume(all, webPlatform);
    expect(volume.size).toEqual([4, 3, 4]);
    expect(leftOut).toEqual([
      { name: 'notes.txt', reason: 'is not a DICOM file' },
      { name: 's', reason: 'is a segmentation (SEG)' },
      { name: 'r', reason: 'is a structured report' },
      { name: 'x', reason: 'is a DICOM object without pixels' },
      { name: 'l', reason: 'is a localizer (ImageType LOCALIZER)' },
      { name: 'c', reason: 'is a secondary capture without a place in the body' },
      { name: 'again', reason: 'is a copy of another file' },
    ]);
  });

  it('are chosen by UID or number where there are several', async () => {
    const both = [
      ...slices([0, 2], { series: '7', more: { 2097169: ['IS', '7'], 528446: ['LO', 'T1'] } }),
      ...slices([0, 3, 6], { series: '8', more: { 2097169: ['IS', '8'], 528446: ['LO', 'T2'] } }),
    ];
    const error = await refusalOf(read(both));
    expect(error.code).toBe('BAD_INPUT');
    expect(error.message).toContain('7: MR T1 (4 × 3, 2 images); 8: MR T2 (4 × 3, 3 images)');
    expect(error.detail?.series).toMatchObject([
      { uid: '1.2.3.7', slices: 2 },
      { uid: '1.2.3.8', slices: 3 },
    ]);
    expect((await read(both, { series: '8' })).volume.size[2]).toBe(3);
    expect((await read(both, { series: '1.2.3.7' })).volume.size[2]).toBe(2);
    expect((await refusalOf(read(both, { series: '9' }))).message).toContain(
      'No series has that UID or number',
    );
    const sameNumber = both.map((slice) => ({ ...slice, more: { 2097169: ['IS', '7'] as const } }));
    expect((await refusalOf(read(sameNumber, { series: '7' }))).message).toContain('choose one by its UID');
  });

  it('that are damaged are not passed over: one may be a slice', async () => {
    const bad = dicomFile(sliceElements(four[3])).subarray(0, 300);
    const error = await refusalOf(readVolume([...files(four.slice(0, 3)), named('d', bad)], webPlatform));
    expect([error.code, error.message]).toEqual([
      'BAD_HEADER',
      expect.stringContaining('One of the 4 files is damaged'),
    ]);
  });

  it('with one UID and different contents are refused, by header and by pixels', async () => {
    const other = (more: Slice) => read([...four, { ...four[1], ...more }]);
    expect((await refusalOf(other({ intercept: '7' }))).message).toContain(
      'same SOPInstanceUID (0008,0018) 1.2.3.9.2',
    );
    expect((await refusalOf(other({ values: Array(12).fill(1) }))).message).toContain('same SOPInstanceUID');
  });

  it('are read sequentially, with progress, and not after an abort', async () => {
    let open = 0;
    let most = 0;
    const watched = files(four).map((file) => ({
      ...file,
      async *open(start?: number) {
        most = Math.max(most, ++open);
        try {
          yield* file.open(start);
        } finally {
          open--;
        }
      },
    }));
    const fractions: number[] = [];
    await readVolume(watched, webPlatform, { onProgress: (fraction) => void fractions.push(fraction) });
    expect([most, open, fractions]).toEqual([1, 0, [0.25, 0.5, 0.75, 1]]);
    const reason = new Error('stopped');
    await expect(readVolume(watched, webPlatform, { signal: AbortSignal.abort(reason) })).rejects.toBe(
      reason,
    );
  });

  it('tell their header from their beginnings', async () => {
    const prefixes = files(four).map(({ name }, i) => {
      const bytes = dicomFile(sliceElements(four[i]));
      return { name, prefix: bytes.subarray(0, bytes.length - 20), sizeBytes: bytes.length };
    });
    const header = await inspectVolume(prefixes, webPlatform);
    expect(header).toEqual((await read(four)).header);
    const short = prefixes.map((file) => ({ ...file, prefix: file.prefix.subarray(0, 400) }));
    await expect(inspectVolume(short, webPlatform)).rejects.toThrow(/header does not end|damaged/);
  });

  it('give what results state of them', async () => {
    const { source } = await read(four);
    expect(source).toMatchObject({ explicit: true, littleEndian: true, pixelSpacing: [0.75, 1.5] });
    expect(source?.dataset.has(0x7fe00010)).toBe(false);
    expect(source?.slices[1]).toEqual({
      sopClassUid: '1.2.840.10008.5.1.4.1.1.4',
      sopInstanceUid: '1.2.3.9.2',
      position: along(2.5).map((v) => expect.closeTo(v, 9)),
    });
  });
});

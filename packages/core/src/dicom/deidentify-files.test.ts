import { describe, expect, it } from 'vitest';
import { dataset, dicomFile, fileBytes, image, joined, value } from '../../test/deidentification-files.ts';
import type { SourceFile } from '../formats/source-file.ts';
import { sourceFromBytes } from '../formats/volume-file.ts';
import { webPlatform } from '../formats/web-platform.ts';
import { createDeidentifier } from './deidentify.ts';
import { deidentifyFiles, refuseIdentity } from './deidentify-files.ts';
import { parseDicom } from './parse.ts';
import type { Vr } from './value-representations.ts';

const uidKey = new Uint8Array(32).fill(11);
const capture = '1.2.840.10008.5.1.4.1.1.7';
const report = '1.2.840.10008.5.1.4.1.1.88.11';
const directory = '1.2.840.10008.1.3.10';
const place = value(0x00200032, 'DS', '1\\2\\3');

function file(name: string, ...elements: readonly ReturnType<typeof value>[]): SourceFile {
  const sorted = [...image(value(0x00100010, 'PN', 'Meyer^Ida'), ...elements).values()];
  return sourceFromBytes(name, fileBytes(dicomFile(dataset(...sorted.sort((a, b) => a.tag - b.tag)))));
}
const text = (name: string) => sourceFromBytes(name, new TextEncoder().encode('Meyer, Ida'));
const bytesOf = async (source: SourceFile) => {
  const parts: Uint8Array[] = [];
  for await (const part of source.open()) parts.push(part);
  return joined(parts);
};

describe('deidentifyFiles()', () => {
  it('keeps images alone, in their order, whatever lies beside them', async () => {
    const files = [
      text('notes.txt'),
      file('a', place),
      file('report', value(0x00080016, 'UI', report)),
      file('screen', value(0x00080016, 'UI', capture)),
      file('placed capture', value(0x00080016, 'UI', capture), place),
      file('DICOMDIR', value(0x00080016, 'UI', directory)),
      file('localizer', value(0x00080008, 'CS', 'ORIGINAL\\PRIMARY\\LOCALIZER')),
    ];
    const images = await deidentifyFiles(files, webPlatform, { uidKey });
    expect(images.map(({ index }) => files[index].name)).toEqual(['a', 'placed capture', 'localizer']);
  });

  it('gives the bytes that deidentify() gives, at every call', async () => {
    const options = { uidKey, shiftDates: true };
    const source = file('a', place, value(0x00080020, 'DA', '20240229'));
    const [one] = await deidentifyFiles([source], webPlatform, options);
    const parsed = parseDicom(await bytesOf(source))!;
    const wanted = fileBytes(createDeidentifier(options)(parsed).file);
    for (let i = 0; i < 2; i++) expect(joined(await one.read())).toEqual(wanted);
    expect(Buffer.from(wanted).includes('Meyer')).toBe(false);
  });

  it('refuses a file that is too large before it is opened for its pixels', async () => {
    const source = file('a', place);
    const { sizeBytes = 0 } = source;
    const rooms: (number | undefined)[] = [];
    const watched: SourceFile = {
      ...source,
      open: (start, room) => {
        rooms.push(room?.length);
        return source.open(start, room);
      },
    };
    const [large] = await deidentifyFiles([watched], webPlatform, { uidKey, maxFileBytes: sizeBytes - 1 });
    await expect(large.read()).rejects.toMatchObject({
      code: 'UPLOAD_TOO_LARGE',
      message: expect.stringContaining(`of ${sizeBytes} bytes is larger than the ${sizeBytes - 1} bytes`),
    });
    // Nothing but the header was read, without room for the file.
    expect(rooms).toEqual([undefined, undefined]);
    const [fits] = await deidentifyFiles([source], webPlatform, { uidKey, maxFileBytes: sizeBytes });
    expect((await fits.read()).length).toBeGreaterThan(0);
  });

  it('reads images that are no volume: colours, and sizes that cannot be', async () => {
    const colours = file('rgb', place, value(0x00280002, 'US', Uint8Array.of(3, 0)));
    const [one] = await deidentifyFiles([colours], webPlatform, { uidKey });
    expect(Buffer.from(joined(await one.read())).includes('Meyer')).toBe(false);
  });

  it('refuses a damaged file among others, which may be a slice', async () => {
    const whole = await bytesOf(file('a', place));
    const cut = sourceFromBytes('b', whole.slice(0, 300));
    await expect(deidentifyFiles([file('a', place), cut], webPlatform, { uidKey })).rejects.toMatchObject({
      code: 'BAD_HEADER',
      message: expect.stringMatching(/^One of the 2 files is damaged/),
    });
  });

  it('finds no image among none', async () => {
    expect(await deidentifyFiles([text('a'), text('b')], webPlatform, { uidKey })).toEqual([]);
  });
});

describe('refuseIdentity()', () => {
  const id = (content: string): [number, Vr, string] => [0x00100020, 'LO', content];
  const name = (content: string): [number, Vr, string] => [0x00100010, 'PN', content];
  const removed = (content: string): [number, Vr, string] => [0x00120062, 'CS', content];

  it.each<[string, boolean, [number, Vr, string][]]>([
    ['a name', true, []],
    ['a number alone', true, [name(''), id('7')]],
    ['a name and NO', true, [removed('NO')]],
    ['a name and YES', false, [removed('YES ')]],
    ['neither', false, [name(''), id('')]],
    ['separators', false, [name('^^ = '), id(' ')]],
    ['a Japanese name', true, [name('\x1b$B;3ED\x1b(B')]],
  ])('decides for %s', async (_, isRefused, elements) => {
    const files = [
      text('notes'),
      file('a', removedOf('YES')),
      file('b', ...elements.map((e) => value(...e))),
    ];
    const refusing = refuseIdentity(files, webPlatform);
    if (isRefused) await expect(refusing).rejects.toMatchObject({ code: 'FORBIDDEN' });
    else await expect(refusing).resolves.toBeUndefined();
  });

  const removedOf = (content: string) => value(...removed(content));
});

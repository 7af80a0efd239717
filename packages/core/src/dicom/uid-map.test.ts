import { describe, expect, it } from 'vitest';
import { dataset, dicomFile, image, sequence, value } from '../../test/deidentification-files.ts';
import { word } from './dataset.ts';
import { deidentify } from './deidentify.ts';
import { tags } from './tags.ts';
import { createUidMapper } from './uid-key.ts';
import { matchOriginals, uidMapOf } from './uid-map.ts';

const uidKey = new Uint8Array(32).fill(3);
const slice = (uid: string) =>
  image(
    value(tags.sopInstanceUid, 'UI', uid),
    sequence(0x00081140, [dataset(value(0x00081155, 'UI', '1.2.276.0.99'))]),
    value(0x0008001a, 'UI', '1.2.276.1.1\\1.2.276.1.2'),
  );
const originals = ['1.2.276.0.5.1', '1.2.276.0.5.2', '1.2.276.0.5.3'].map(slice);
const sent = originals.map((content) => deidentify(dicomFile(content), { uidKey }).file.dataset);
const sentUids = sent.map((content) => word(content, tags.sopInstanceUid)!);

describe('uidMapOf()', () => {
  it('maps every UID of the de-identified files back, also in sequences and lists', () => {
    const map = uidMapOf(originals, createUidMapper(uidKey));
    for (const [i, content] of sent.entries()) {
      for (const tag of [tags.sopInstanceUid, tags.studyInstanceUid, tags.seriesInstanceUid])
        expect(map.get(word(content, tag)!)).toBe(word(originals[i], tag));
    }
    expect([...map.values()].sort()).toEqual(
      [
        '1.2.276.0.3',
        '1.2.276.0.4',
        '1.2.276.0.5.1',
        '1.2.276.0.5.2',
        '1.2.276.0.5.3',
        '1.2.276.0.99',
        '1.2.276.1.1',
        '1.2.276.1.2',
      ].sort(),
    );
  });
});

describe('matchOriginals()', () => {
  it('gives the original of each image of a result', () => {
    const map = matchOriginals(originals, sentUids.slice(1), uidKey);
    expect(map.get(sentUids[1])).toBe('1.2.276.0.5.2');
    expect(map.get(sentUids[2])).toBe('1.2.276.0.5.3');
  });

  it('refuses another series, another key, and a series that lacks images', () => {
    const refusal = (message: RegExp) =>
      expect.objectContaining({ code: 'BAD_INPUT', message: expect.stringMatching(message) });
    expect(() => matchOriginals([slice('1.2.276.0.6')], sentUids, uidKey)).toThrow(
      refusal(/not the one that was sent/),
    );
    expect(() => matchOriginals(originals, sentUids, new Uint8Array(32))).toThrow(refusal(/another key/));
    expect(() => matchOriginals(originals.slice(1), sentUids, uidKey)).toThrow(refusal(/^1 of the 3 images/));
    // The map would know this UID: it is referred to, but it is none of the images.
    const referred = createUidMapper(uidKey)('1.2.276.0.99');
    expect(() => matchOriginals(originals, [...sentUids, referred], uidKey)).toThrow(
      refusal(/^1 of the 4 images/),
    );
  });
});

import { describe, expect, it } from 'vitest';
import { bytesElement, datasetOf, sequence } from './build.ts';
import { decodeText } from './character-sets.ts';
import { firstItem, type ValueElement } from './dataset.ts';
import { tags } from './tags.ts';
import { chooseTextCoding } from './text-coding.ts';

/** ISO 2022 IR 87: 山田 (PS3.5 H.3.1). */
const japanese = Uint8Array.of(0x1b, 0x24, 0x42, 0x3b, 0x33, 0x45, 0x44, 0x1b, 0x28, 0x42);

describe('chooseTextCoding()', () => {
  it.each([
    [[], 'Liver'],
    [['ISO_IR 100'], 'Leber, größer'],
    [['ISO 2022 IR 100'], 'größer'],
    [['ISO_IR 144'], 'печень'],
    [['ISO_IR 13'], 'ﾔﾏﾀﾞ'],
    [['ISO_IR 192'], '肝臓 😀'],
    [['', 'ISO 2022 IR 87'], 'Liver'],
    [['GB18030'], 'Liver'],
  ])('keeps %j for “%s”', (sets, text) => {
    const coding = chooseTextCoding(sets, [text]);
    expect(coding.characterSets).toEqual(sets);
    expect(decodeText(coding.encode(text), sets)).toBe(text);
    const element = bytesElement(tags.patientName, 'PN', japanese);
    expect(coding.adopt(element)).toBe(element);
  });

  it('writes the bytes of ISO 8859-1, -5 and JIS X 0201', () => {
    expect(Array.from(chooseTextCoding(['ISO_IR 100'], []).encode('éÿ'))).toEqual([0xe9, 0xff]);
    expect(Array.from(chooseTextCoding(['ISO_IR 144'], []).encode('Ж'))).toEqual([0xb6]);
    expect(Array.from(chooseTextCoding(['ISO_IR 13'], []).encode('ﾔ'))).toEqual([0xd4]);
  });

  it.each([
    [[], 'größer'],
    // A byte of Windows-1252 that ISO 8859-1 does not have.
    [['ISO_IR 100'], 'Leber – groß'],
    [['ISO_IR 100'], '肝臓'],
    [['', 'ISO 2022 IR 87'], '肝臓'],
    [['GB18030'], '肝脏'],
  ])('goes over to UTF-8 where %j does not hold “%s”', (sets, text) => {
    const coding = chooseTextCoding(sets, ['Liver', text]);
    expect(coding.characterSets).toEqual(['ISO_IR 192']);
    expect(new TextDecoder().decode(coding.encode(text))).toBe(text);
  });

  it('transcodes copied text, also in sequences, and leaves other values unchanged', () => {
    const coding = chooseTextCoding(['', 'ISO 2022 IR 87'], ['größer']);
    const name = bytesElement(tags.patientName, 'PN', japanese);
    const uid = bytesElement(tags.studyInstanceUid, 'UI', Uint8Array.of(0xe9));
    const adopted = coding.adopt(name) as ValueElement;
    expect(new TextDecoder().decode(adopted.bytes)).toBe('山田');
    expect(adopted.statedBytes).toBe(6);
    expect(coding.adopt(uid)).toBe(uid);
    const codes = coding.adopt(sequence(tags.procedureCodeSequence, datasetOf(name, uid)));
    const item = firstItem(new Map([[codes.tag, codes]]), tags.procedureCodeSequence)!;
    expect(new TextDecoder().decode((item.get(tags.patientName) as ValueElement).bytes)).toBe('山田');
    expect((item.get(tags.studyInstanceUid) as ValueElement).bytes).toEqual(Uint8Array.of(0xe9));
  });
});

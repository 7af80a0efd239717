import { describe, expect, it } from 'vitest';
import { image, value } from '../../test/deidentification-files.ts';
import { burnedInReasons } from './burned-in.ts';
import type { DicomElement } from './dataset.ts';

const count = (...elements: DicomElement[]) => burnedInReasons(image(...elements)).length;
const modality = (name: string) => value(0x00080060, 'CS', name);
const annotation = (text: string) => value(0x00280301, 'CS', text);

describe('burnedInReasons()', () => {
  it.each(['MR', 'CT', 'PT', 'NM', 'constructor'])('has none for %s', (name) => {
    expect(count(modality(name))).toBe(0);
  });

  it.each(['US', 'SC', 'XA', 'ES', 'RF', 'OT'])('warns of %s, unless the header says NO', (name) => {
    expect(count(modality(name))).toBe(1);
    expect(count(modality(name), annotation('NO'))).toBe(0);
  });

  it('warns where the header declares it', () => {
    expect(count(annotation('YES '))).toBe(1);
    expect(count(annotation('NO'))).toBe(0);
  });

  it('warns of an overlay in the bits of the pixels', () => {
    const position = (tag: number, bit: number) => value(tag, 'US', Uint8Array.of(bit, 0));
    expect(count(position(0x60000102, 12))).toBe(1);
    expect(count(position(0x601e0102, 15))).toBe(1);
    expect(count(position(0x60000102, 0))).toBe(0);
  });

  it('warns of captures, whatever the header says', () => {
    const capture = value(0x00080016, 'UI', '1.2.840.10008.5.1.4.1.1.7');
    const frames = value(0x00080016, 'UI', '1.2.840.10008.5.1.4.1.1.7.4');
    const converted = value(0x00080064, 'CS', 'WSD ');
    const saved = value(0x00080008, 'CS', 'DERIVED\\SECONDARY\\SCREEN SAVE ');
    for (const hint of [capture, frames, converted, saved]) expect(count(hint, annotation('NO'))).toBe(1);
    expect(count(value(0x00080016, 'UI', '1.2.840.10008.5.1.4.1.1.77.1.1'))).toBe(0);
  });
});

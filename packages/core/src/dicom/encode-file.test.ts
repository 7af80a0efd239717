import { describe, expect, it } from 'vitest';
import { dicomFile, fileBytes, image, latin, reparsed, value } from '../../test/deidentification-files.ts';

describe('encodeDicomFile()', () => {
  it.each(['implicit', 'explicit', 'bigEndian'] as const)(
    'gives a parsed file back, byte for byte: %s',
    (syntax) => {
      const written = fileBytes(dicomFile(image(value(0x00181210, 'SH', 'UB')), syntax));
      expect(fileBytes(reparsed(dicomFile(image(value(0x00181210, 'SH', 'UB')), syntax)))).toEqual(written);
    },
  );

  it('begins with zeros and DICM, and states the length of the meta information', () => {
    const bytes = fileBytes(dicomFile(image()));
    expect(bytes.subarray(0, 128)).toEqual(new Uint8Array(128));
    expect(bytes.subarray(128, 132)).toEqual(latin('DICM'));
    // (0002,0000) UL of 4 bytes, then one UID of 20 bytes with its head of 8.
    expect([...bytes.subarray(132, 144)]).toEqual([2, 0, 0, 0, 85, 76, 4, 0, 28, 0, 0, 0]);
    expect([...bytes.subarray(172, 176)]).toEqual([8, 0, 0x16, 0]);
  });
});

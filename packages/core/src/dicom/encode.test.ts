import { describe, expect, it } from 'vitest';
import { dicomFile, type Elements, sliceElements, syntaxes } from '../../test/dicom-files.ts';
import { encodeDataset } from './encode.ts';
import { parseDicom } from './parse.ts';

const nested: Elements = [
  [0x00081140, 'SQ', [[[0x00081155, 'UI', '1.2.5']], []]],
  [0x00190010, 'LO', 'A CREATOR '],
  [
    0x00191001,
    'SQ',
    [
      [
        [0x00081140, 'SQ', [[[0x00081155, 'UI', '1.2.7']]]],
        [0x00200013, 'IS', '7 '],
      ],
    ],
  ],
];
const elements: Elements = [...sliceElements({}), ...nested].sort(([a], [b]) => a - b);
const encode = (bytes: Uint8Array) => {
  const { dataset, explicit, littleEndian } = parseDicom(bytes)!;
  return Buffer.concat(encodeDataset(dataset, { explicit, littleEndian }));
};
const tail = (bytes: Uint8Array, length: number) => Buffer.from(bytes.subarray(bytes.length - length));

describe('encodeDataset()', () => {
  it.each([syntaxes.explicit, syntaxes.implicit, syntaxes.big])(
    '%s: gives the bytes that were read',
    (syntax) => {
      const bytes = dicomFile(elements, { syntax });
      const encoded = encode(bytes);
      expect(encoded).toEqual(tail(bytes, encoded.length));
      expect(bytes.length - encoded.length).toBeLessThan(300);
      // Undefined lengths become defined ones.
      expect(encode(dicomFile(elements, { syntax, open: true }))).toEqual(encoded);
    },
  );

  it('gives fragments and a sequence inside UN the bytes that were read', () => {
    const item = Buffer.from('feff00e00e0000000800551106000000312e322e3900', 'hex');
    const fragments = [new Uint8Array(0), Buffer.from('ffd8ffd9', 'hex'), Buffer.from('aabb', 'hex')];
    const bytes = dicomFile([
      [0x00080018, 'UI', '1.2.3.4'],
      [0x00091002, 'UN', item],
      [0x7fe00010, 'OB', { fragments }],
    ]);
    const encoded = encode(bytes);
    expect(encoded).toEqual(tail(bytes, encoded.length));
    expect(encoded.includes(item)).toBe(true);
  });
});

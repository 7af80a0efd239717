import { describe, expect, it } from 'vitest';
import { labelSchema } from '../app/elements.ts';
import { codesOfName, labelCodes } from './label-codes.ts';

describe('codesOfName()', () => {
  // Codes: DICOM PS3.16, CID 4031 and 6300; sides: CID 244.
  it.each([
    ['spleen', '78961009', undefined],
    ['Kidney_Right', '64033007', '24028007'],
    ['left kidney', '64033007', '7771000'],
    ['kidney', '64033007', undefined],
    ['Lung_L', '39607008', '7771000'],
    ['adrenal-gland (left)', '23451007', '7771000'],
    ['URINARY_BLADDER', '89837001', undefined],
    ['upper lobe of left lung', '45653009', '7771000'],
    ['heart_atrium_left', '82471001', undefined],
    ['left atrium', '82471001', undefined],
    ['vertebrae_T12', '23215003', undefined],
    ['oesophagus', '32849002', undefined],
  ])('%s', (name, code, side) => {
    const found = codesOfName(name);
    expect([found.code?.value, found.modifier?.value]).toEqual([code, side]);
    expect(labelSchema.safeParse({ value: 1, name, ...found }).success).toBe(true);
  });

  it.each([
    'tumor',
    'liver lesion',
    'liver left lobe',
    'left liver',
    'left right kidney',
    'r kidney',
    'kidneys',
    'lung left left',
    'hip_left',
    'L1',
    'label 1',
    'left',
    '',
    'constructor',
    '__proto__',
  ])('nothing for “%s”', (name) => {
    expect(codesOfName(name)).toEqual({});
  });

  it('has each code once', () => {
    const codes = labelCodes.map(([code]) => code);
    expect(new Set(codes).size).toBe(codes.length);
  });
});

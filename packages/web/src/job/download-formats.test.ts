import { outputFormats } from '@tomaat/core';
import { describe, expect, it } from 'vitest';
import { compareFormats, formatName } from './download-formats.ts';

describe('formatName()', () => {
  it('calls every format of core by another name', () => {
    const formats = [...new Set(Object.values(outputFormats).flat())];
    const names = formats.map(formatName);
    expect(formats.filter((format, i) => names[i] === format)).toEqual([]);
    expect(new Set(names).size).toBe(formats.length);
  });

  it('says what a DICOM object is', () => {
    expect(formatName('seg.dcm')).toBe('Segmentation (DICOM SEG)');
    expect(formatName('rtstruct.dcm')).toBe('Structure set (DICOM RTSTRUCT)');
  });

  it('leaves an unknown format as it is, even one that objects inherit', () => {
    expect(formatName('xyz')).toBe('xyz');
    expect(formatName('constructor')).toBe('constructor');
  });
});

describe('compareFormats()', () => {
  it('puts DICOM first, then volumes, then surfaces, then unknown formats', () => {
    const formats = ['xyz', 'stl', 'nii', 'zip', 'nii.gz', 'mha', 'seg.dcm', 'sr.dcm', 'abc'];
    expect(formats.sort(compareFormats)).toEqual([
      'seg.dcm',
      'sr.dcm',
      'zip',
      'nii.gz',
      'mha',
      'nii',
      'stl',
      'xyz',
      'abc',
    ]);
  });
});

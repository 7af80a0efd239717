import { expect, it } from 'vitest';
import { hideName } from './strip-received.ts';

it.each([
  ['Meyer.dcm', 'volume.dcm'],
  ['Meyer, Ida.IMA', 'volume.IMA'],
  ['Ida-Meyer', 'volume'],
  ['1.2.840.98765432', 'volume'],
  ['Meyer.zip', 'volume.zip'],
  ['Meyer.v2.nii.gz', 'volume.nii.gz'],
  ['Meyer.nrrd', 'volume.nrrd'],
  ['a.mhd', 'a.mhd'],
  ['a.raw', 'a.raw'],
  ['a.hdr', 'a.hdr'],
  ['a.img.gz', 'a.img.gz'],
])('hideName() keeps the ending of a name, and the names of pairs: %s', (name, hidden) => {
  expect(hideName(name)).toBe(hidden);
});

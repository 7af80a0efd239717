import { type ReadOptions, readVolume, sourceFromBytes, TomaatError, webPlatform } from '@tomaat/core';
import { dicomFile, type FileForm, type Slice, sliceElements } from './dicom-files.ts';

/** The normal of `oblique`: row × column, by hand. */
const normal = [0.6, -0.48, 0.64];
export const along = (mm: number, [x, y, z] = [10, -20, 30]) => [
  x + normal[0] * mm,
  y + normal[1] * mm,
  z + normal[2] * mm,
];
/** Slices at distances along the normal, numbered from 1. */
export const slices = (distances: readonly number[], more: Slice = {}) =>
  distances.map((mm, i): Slice => ({ position: along(mm), instance: i + 1, ...more }));
export const files = (all: readonly Slice[], form?: FileForm) =>
  all.map((slice, i) => sourceFromBytes(`IM${i}`, dicomFile(sliceElements(slice), form)));
export const read = (all: readonly Slice[], options?: ReadOptions, form?: FileForm) =>
  readVolume(files(all, form), webPlatform, options);
export const refusalOf = async (reading: Promise<unknown>) => {
  const error = await reading.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (error instanceof TomaatError) return error;
  throw error ?? new Error('it was read');
};
export const four = slices([0, 2.5, 5, 7.5]);

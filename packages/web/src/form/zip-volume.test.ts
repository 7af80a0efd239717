import { TomaatError } from '@tomaat/core';
import { describe, expect, it } from 'vitest';
import { type ZipEntry, zipOf } from '../../../core/test/zip-files.ts';
import { volumeInZip } from './zip-volume.ts';

const { signal } = new AbortController();
const data = (text: string) => Buffer.from(text);
const archive = (...entries: readonly ZipEntry[]) =>
  new File([Uint8Array.from(zipOf([...entries]))], 'scan.zip');
const namesIn = async (...entries: readonly ZipEntry[]) =>
  (await volumeInZip([archive(...entries)], signal)).map(({ name }) => name);

async function refusalOf(files: readonly File[]): Promise<string> {
  const error = await volumeInZip(files, signal).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (error instanceof TomaatError) return error.message;
  throw error ?? new Error('it was taken');
}

describe('volumeInZip()', () => {
  it('unpacks the volume, without its folder and what lies beside it', async () => {
    const entries = [
      { name: 'a/b/scan.nii.gz', data: data('voxels'), method: 8 },
      { name: 'a/notes.txt', data: data('eggs') },
    ];
    const files = await volumeInZip([archive(...entries)], signal);
    expect(files.map(({ name }) => name)).toEqual(['scan.nii.gz']);
    expect(await files[0].text()).toBe('voxels');
  });

  it('takes a header with its voxels', async () => {
    const beside = { name: 'readme.txt', data: data('eggs') };
    expect(
      await namesIn({ name: 'a.img', data: data('1') }, beside, { name: 'a.hdr', data: data('2') }),
    ).toEqual(['a.hdr', 'a.img']);
    expect(
      await namesIn({ name: 'b.nhdr', data: data('1') }, { name: 'b.raw.gz', data: data('2') }, beside),
    ).toEqual(['b.nhdr', 'b.raw.gz']);
  });

  it('takes a single file of any name', async () => {
    expect(await namesIn({ name: 'scan', data: data('voxels') })).toEqual(['scan']);
  });

  it('returns files that are no archive as they are', async () => {
    const files = [new File(['voxels'], 'scan.zip')];
    expect(await volumeInZip(files, signal)).toBe(files);
  });

  it('refuses several volumes, none, and an archive among other files, with a remedy', async () => {
    const many = Array.from({ length: 7 }, (_, i) => ({ name: `v${i}.mha`, data: data(String(i)) }));
    expect(await refusalOf([archive(...many)])).toBe(
      'The zip archive holds 7 volumes: v0.mha, v1.mha, v2.mha, v3.mha, v4.mha and 2 more. Extract it and drop one of them.',
    );
    expect(
      await refusalOf([archive({ name: 'a.txt', data: data('a') }, { name: 'b.jpg', data: data('b') })]),
    ).toBe(
      'The zip archive holds neither a DICOM image nor a volume file, but a.txt, b.jpg. Drop an archive with one series or one volume.',
    );
    expect(await refusalOf([archive(many[0]), new File(['x'], 'other.nii')])).toMatch(
      /Drop the archive alone/,
    );
  });

  it('stops when it is cancelled', async () => {
    const reason = new Error('cancelled');
    await expect(
      volumeInZip([archive({ name: 'a.nii', data: data('1') })], AbortSignal.abort(reason)),
    ).rejects.toBe(reason);
  });
});

import { gzipSync } from 'node:zlib';
import { collectBytes, readVolume, type Volume, webPlatform, writeVolume } from '@tomaat/core';
import { describe, expect, it } from 'vitest';
import { identify } from './identity.ts';
import { sourceOf } from './scan.ts';

/** Anisotropic, left-handed, every voxel another value. */
const volume: Volume = {
  voxels: Int16Array.from({ length: 5 * 4 * 3 }, (_, i) => i * 7 - 11),
  size: [5, 4, 3],
  components: 1,
  affine: [-1.2, 0, 0, 14, 0, 1.7, 0, 5, 0, 0, 2.9, 3, 0, 0, 0, 1],
};
const bytesOf = async (extension: 'nii' | 'mha' | 'nrrd') =>
  Buffer.from(await collectBytes(writeVolume(volume, extension, webPlatform, { level: 0 })));
const textOf = async (blob: Blob) => Buffer.from(await blob.arrayBuffer()).toString('latin1');

/** The stripped file tells nothing of `secret`, and reads as the same volume. */
async function expectStripped(file: Uint8Array<ArrayBuffer>, name: string, secrets: readonly string[]) {
  const identity = await identify(new Blob([file]));
  const stripped = await identity.strip();
  const { volume: read } = await readVolume([sourceOf({ name, blob: stripped })], webPlatform);
  expect([...read.voxels]).toEqual([...volume.voxels]);
  for (const [i, value] of volume.affine.entries()) expect(read.affine[i]).toBeCloseTo(value, 4);
  const plain = name.endsWith('.gz')
    ? await new Response(stripped.stream().pipeThrough(new DecompressionStream('gzip'))).blob()
    : stripped;
  for (const secret of secrets) {
    expect(await textOf(plain)).not.toContain(secret);
    expect(await textOf(stripped)).not.toContain(secret);
  }
  return identity.fields;
}

describe('identify()', () => {
  it('finds and blanks the free text of NIfTI-1', async () => {
    const file = await bytesOf('nii');
    file.write('Jane Roe', 148, 'latin1');
    file.write('aux-roe', 228, 'latin1');
    file.write('db-roe', 14, 'latin1');
    const fields = await expectStripped(file, 'a.nii', ['Jane', 'aux-roe', 'db-roe']);
    expect(fields.map(({ name }) => name)).toEqual(['db_name', 'descrip', 'aux_file']);
    expect(fields[1].value).toBe('Jane Roe');
  });

  it('blanks an extension of NIfTI-1, also where the file is compressed', async () => {
    const file = await bytesOf('nii');
    const extension = Buffer.alloc(32);
    extension.writeInt32LE(32, 0);
    extension.writeInt32LE(6, 4);
    extension.write('name Roe', 8, 'latin1');
    file.writeFloatLE(352 + 32, 108);
    file[348] = 1;
    const long = Buffer.concat([file.subarray(0, 352), extension, file.subarray(352)]);
    expect((await expectStripped(long, 'a.nii', ['Roe'])).map(({ name }) => name)).toContain('extension');
    expect(
      (await expectStripped(gzipSync(long) as Uint8Array<ArrayBuffer>, 'a.nii.gz', ['Roe'])).map(
        ({ name }) => name,
      ),
    ).toContain('extension');
  });

  it('takes the file’s name out of a gzip header without packing anew', async () => {
    const plain = gzipSync(await bytesOf('nii'));
    const named = Buffer.concat([
      plain.subarray(0, 10),
      Buffer.from('ROE_JANE.nii\0', 'latin1'),
      plain.subarray(10),
    ]);
    named[3] = 8;
    const fields = await expectStripped(named, 'a.nii.gz', ['ROE']);
    expect(fields).toContainEqual({ name: 'gzip file name', value: 'ROE_JANE.nii' });
  });

  it('blanks the free keys of MetaImage and keeps the others', async () => {
    const file = (await bytesOf('mha'))
      .toString('latin1')
      .replace('ElementDataFile', 'Comment = Roe, Jane\nPatientID = R-17\nElementDataFile');
    const fields = await expectStripped(Buffer.from(file, 'latin1'), 'a.mha', ['Roe', 'R-17']);
    expect(fields).toEqual([
      { name: 'Comment', value: 'Roe, Jane' },
      { name: 'PatientID', value: 'R-17' },
    ]);
  });

  it('blanks comments, key/value pairs and the content of NRRD', async () => {
    const file = (await bytesOf('nrrd'))
      .toString('latin1')
      .replace('\n\n', '\n# scanned for Roe\npatient:=Jane\ncontent: head of R-17\n\n');
    const fields = await expectStripped(Buffer.from(file, 'latin1'), 'a.nrrd', [
      'Roe',
      'Jane',
      'patient',
      'R-17',
    ]);
    expect(fields.map(({ name }) => name).slice(-3)).toEqual(['comment', 'patient', 'content']);
  });

  it('leaves a file without such text as it is', async () => {
    for (const extension of ['nii', 'mha', 'nrrd'] as const) {
      const file = new Blob([await bytesOf(extension)]);
      const identity = await identify(file);
      expect(identity.fields).toEqual([]);
      expect(await identity.strip()).toBe(file);
    }
  });
});

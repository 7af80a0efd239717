import type { Service } from '@tomaat/client';
import { applyAffine, readVolume, type Vec3 } from '@tomaat/core';
import { describe, expect, it } from 'vitest';
import { nodePlatform } from '../../../server/src/node-platform.ts';
import { encode, obliqueAffine, phantom } from '../../../server/test/phantom.ts';
import { source } from '../../test/support/flows.ts';
import type { Submission } from '../store.ts';
import { plainName, scanFile } from './open-in-files.ts';

describe('scanFile()', () => {
  const volume = phantom(obliqueAffine);
  const service = { inputs: [{ type: 'volume', name: 'ct' }] } as unknown as Service;
  const sent = (names: readonly string[], more: Partial<Submission> = {}): Submission => ({
    key: 'k',
    service: 's',
    serviceName: 'S',
    files: { ct: names.map((name) => ({ name, blob: new Blob([name]) })) },
    values: {},
    fileName: 'a',
    createdTime: '2026-01-01T00:00:00Z',
    ...more,
  });
  const fileOf = (submission: Submission | undefined) => scanFile('a', volume, submission, service)!;

  it.each(['.nii', '.nii.gz', '.nrrd', '.mha'])('gives a single %s file as it was sent', async (ending) => {
    const file = fileOf(sent([`volume${ending}`]));
    expect(file.name).toBe(`a${ending}`);
    expect(await (await file.make()).text()).toBe(`volume${ending}`);
  });

  it.each([
    ['a pair of files', sent(['volume.hdr', 'volume.img'])],
    ['an archive', sent(['volume.zip'])],
    ['one frame of several', sent(['volume.nii.gz'], { frame: 1 })],
    ['a series', sent(['volume.nii.gz'], { series: { ct: {} } as unknown as Submission['series'] })],
  ])('writes %s as NIfTI with every voxel at its place', async (_what, submission) => {
    const file = fileOf(submission);
    expect(file.name).toBe('a.nii.gz');
    const bytes = new Uint8Array(await (await file.make()).arrayBuffer());
    const { volume: written } = await readVolume([source(file.name, bytes)], nodePlatform);
    expect(written.size).toEqual(volume.size);
    expect(written.voxels).toEqual(volume.voxels);
    for (const corner of [
      [0, 0, 0],
      [22, 0, 10],
      [3, 16, 7],
    ] as Vec3[])
      for (const [i, mm] of applyAffine(written.affine, corner).entries())
        expect(mm).toBeCloseTo(applyAffine(volume.affine, corner)[i], 4);
  });

  it('has no file without the scan', () => {
    expect(scanFile('a', undefined, sent(['volume.nii']), service)).toBeUndefined();
  });

  it('leaves the volume that was read unchanged', async () => {
    const before = await encode(volume, 'nii');
    await fileOf(sent(['volume.zip'])).make();
    expect(await encode(volume, 'nii')).toEqual(before);
  });
});

describe('plainName()', () => {
  it.each([
    ['chest one', 'chest_one'],
    ['-rf; "$(ls)"', 'rf_ls_'],
    ['../..', 'scan'],
    ['Gehirn-Ü_2.5', 'Gehirn-Ü_2.5'],
    ['', 'scan'],
  ])('makes of %s a word of a command line', (name, plain) => {
    expect(plainName(name)).toBe(plain);
  });
});

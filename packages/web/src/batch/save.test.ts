import { describe, expect, it } from 'vitest';
import { groupFiles } from './group-files.ts';
import type { BatchRow } from './rows.ts';
import { batchToCsv, memberNames } from './save.ts';

const row = (name: string, more: Partial<BatchRow> = {}): BatchRow => ({
  id: name,
  name,
  sizeBytes: 1,
  modifiedMs: 0,
  state: 'done',
  ...more,
});

describe('batchToCsv()', () => {
  it('has the columns of the service first, whatever was found', () => {
    const volumes = [
      { value: 9, name: 'label 9', volumeMl: 0.5 },
      { value: 2, name: 'spleen', volumeMl: 200.25 },
    ];
    const csv = batchToCsv(
      [
        row('=a,b.nii', { volumes, jobId: 'j1' }),
        row('c.nii', { state: 'failed', reason: 'The file "c" is empty.' }),
      ],
      [
        { value: 2, name: 'spleen' },
        { value: 1, name: 'liver' },
      ],
    );
    expect(csv.split('\r\n')).toEqual([
      'scan,state,reason,job,outlier_score,outlier,spleen (2) ml,liver (1) ml,label 9 (9) ml',
      `"'=a,b.nii",done,,j1,0,,200.25,0,0.5`,
      'c.nii,failed,"The file ""c"" is empty.",,,,,,',
      '',
    ]);
  });
});

describe('memberNames()', () => {
  const output = { name: 'mask', fileName: 'volume_mask.nii.gz' };
  it('keeps folders, tells equal names apart, and never leaves the folder', () => {
    const names = ['a/scan.nii', 'a/scan.nii.gz', 'b/scan.nii', '../x.nii', 'Müller.nii'];
    expect(memberNames(names.map((name) => row(name, { output })))).toEqual([
      'a/scan_mask.nii.gz',
      'a/scan_mask_2.nii.gz',
      'b/scan_mask.nii.gz',
      'x_mask.nii.gz',
      'M_ller_mask.nii.gz',
    ]);
  });
});

describe('groupFiles()', () => {
  it('puts a header with its voxels, in its own folder only', async () => {
    const paths = ['b/s.mhd', 'a/s.mhd', 'a/s.raw', 'b/s.raw', 'x.raw', 'notes.txt', 'n.nii.gz'];
    const files = paths.map((path) => ({ path, file: new File([path], path.split('/').pop()!) }));
    const { volumes, dicom, others } = await groupFiles({ files, folder: 'f' });
    const contents = await Promise.all(
      volumes.map(({ files }) => Promise.all(files.map((file) => file.text()))),
    );
    expect(contents).toEqual([['a/s.mhd', 'a/s.raw'], ['b/s.mhd', 'b/s.raw'], ['n.nii.gz']]);
    expect(dicom).toEqual([]);
    expect([...others].sort()).toEqual(['notes.txt', 'x.raw']);
  });
});

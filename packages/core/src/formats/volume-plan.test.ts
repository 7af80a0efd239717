import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { defaultLimits } from './header.ts';
import { type FilePrefix, planRead, surplusVoxels } from './volume-plan.ts';

const latin1 = (text: string) => new Uint8Array(Buffer.from(text, 'latin1'));
/** A file at hand as a whole. */
const fileOf = (name: string, content: string | Uint8Array, more: Partial<FilePrefix> = {}): FilePrefix => {
  const prefix = typeof content === 'string' ? latin1(content) : content;
  return { name, prefix, sizeBytes: prefix.length, ...more };
};
const plan = (...files: FilePrefix[]) => planRead(files, defaultLimits);

function refusal(...files: FilePrefix[]): { code?: string; message?: string } {
  try {
    plan(...files);
  } catch (error) {
    return error as { code: string; message: string };
  }
  return {};
}

// 4 × 3 × 2 voxels of two bytes: 48 bytes.
const nrrd = (fields = 'encoding: raw\nendian: little') =>
  `NRRD0004\ntype: short\ndimension: 3\nsizes: 4 3 2\nspacings: 1 2 3\n${fields}\n`;
const mha = (fields = '', file = 'LOCAL') =>
  `NDims = 3\nDimSize = 4 3 2\n${fields}ElementType = MET_SHORT\nElementDataFile = ${file}\n`;
function nifti(magic = 'n+1', voxOffset = 352): Uint8Array {
  const bytes = new Uint8Array(352);
  const view = new DataView(bytes.buffer);
  view.setInt32(0, 348, true);
  for (const [i, n] of [3, 4, 3, 2].entries()) view.setInt16(40 + 2 * i, n, true);
  view.setInt16(70, 4, true);
  for (const i of [1, 2, 3]) view.setFloat32(76 + 4 * i, i, true);
  view.setFloat32(108, voxOffset, true);
  bytes.set(latin1(magic), 344);
  return bytes;
}
const gzip = (content: string | Uint8Array) => new Uint8Array(gzipSync(content));

describe('planRead()', () => {
  it.each([
    ['Jane.nii', 'The .nii file'],
    ['JANE.NII.GZ', 'The .nii.gz file'],
    ['Jane/Doe.hdr', 'The .hdr file'],
    ['a.img.gz', 'The .img.gz file'],
    ['a.mha', 'The .mha file'],
    ['a.mhd', 'The .mhd file'],
    ['a.nrrd', 'The .nrrd file'],
    ['a.nhdr', 'The .nhdr file'],
    ['a.raw', 'The .raw file'],
    ['a.zraw', 'The .zraw file'],
    ['a.dat', 'The file'],
    ['nii', 'The file'],
    ['a.nii/Jane', 'The file'],
    ['a.nii.Jane', 'The file'],
  ])('calls %s "%s"', (name, words) => {
    expect(refusal(fileOf(name, ''))).toMatchObject({
      code: 'UNKNOWN_FORMAT',
      message: expect.stringMatching(new RegExp(`^${words.replaceAll('.', '\\.')} is empty`)),
    });
  });

  it('explains what is wrong with files of unknown format', () => {
    expect(refusal()).toMatchObject({ code: 'BAD_INPUT' });
    expect(refusal(fileOf('a.nii', 'Dear'))).toMatchObject({
      code: 'UNKNOWN_FORMAT',
      message: expect.stringContaining('does not begin like'),
    });
    expect(refusal(fileOf('a.nii', '%PDF'))).toMatchObject({
      code: 'UNSUPPORTED_FORMAT',
      message: expect.stringContaining('is a PDF'),
    });
    expect(refusal(fileOf('a.gz', gzip(gzip('Dear'))))).toMatchObject({ code: 'UNSUPPORTED_FORMAT' });
    for (const [length, words] of [
      [0, 'damaged or too short'],
      [539, 'damaged or too short'],
      [540, 'does not begin like'],
    ] as const) {
      const found = refusal(fileOf('a.gz', gzip('e'.repeat(length))));
      expect(found).toMatchObject({ code: 'UNKNOWN_FORMAT', message: expect.stringContaining(words) });
      expect(refusal(fileOf('a', 'e'.repeat(length || 1))).message).toContain('does not begin like');
    }
  });

  it('reads of the packed formats NIfTI alone', () => {
    for (const text of [mha(), nrrd()])
      expect(refusal(fileOf('a.mha', gzip(text)))).toMatchObject({
        code: 'UNSUPPORTED_FORMAT',
        message: expect.stringContaining('Decompress it first'),
      });
    expect(plan(fileOf('a', gzip(nifti())))).toMatchObject({
      file: 0,
      compression: 'gzip',
      start: 0,
      header: { format: 'nifti1', extension: 'nii.gz', compressed: true },
    });
  });

  it('finds the format by the first bytes', () => {
    const voxels = '\0'.repeat(48);
    for (const [content, format, start] of [
      [`${nrrd()}\n${voxels}`, 'nrrd', nrrd().length + 1],
      [mha() + voxels, 'metaimage', mha().length],
      [new Uint8Array(Buffer.concat([nifti(), latin1(voxels)])), 'nifti1', 352],
    ] as const) {
      const found = plan(fileOf('Jane.dat', content));
      expect(found).toMatchObject({
        header: { format, size: [4, 3, 2] },
        file: 0,
        compression: 'none',
        start,
      });
    }
  });

  it('looks for the header in the file of that name first', () => {
    const voxels = `NRRD0004 ${' '.repeat(39)}`;
    for (const [name, header] of [
      ['a.mhd', mha('', 'a.raw')],
      ['A.NHDR', nrrd('encoding: raw\nendian: little\ndata file: a.raw')],
    ]) {
      const format = name === 'a.mhd' ? 'metaimage' : 'nrrd';
      expect(plan(fileOf('a.raw', voxels), fileOf(name, header))).toMatchObject({
        file: 0,
        header: { format },
      });
      expect(plan(fileOf(name, header), fileOf('a.raw', voxels))).toMatchObject({
        file: 1,
        header: { format },
      });
    }
    for (const name of ['a.hdr', 'a.HDR.gz'])
      expect(plan(fileOf('a.img', voxels), fileOf(name, nifti('ni1', 0)))).toMatchObject({
        file: 0,
        start: 0,
      });
    // The refusal is about the header, too.
    expect(refusal(fileOf('a.raw', 'Dear'), fileOf('a.mhd', 'Dear')).message).toContain('.mhd');
  });

  it('recognizes a complete file by its size or by the available bytes', () => {
    const open = nrrd().padEnd(65_535, '\n#').slice(0, 65_535).replace(/\n\n/g, '\n#');
    const startOf = (prefix: string, sizeBytes?: number) => {
      try {
        return plan(fileOf('a.nrrd', prefix, { sizeBytes })).start;
      } catch (error) {
        return (error as { code: string }).code;
      }
    };
    expect(startOf(open)).not.toBeUndefined();
    expect(startOf(open, 65_535)).not.toBeUndefined();
    expect(startOf(open, 65_536)).toBeUndefined();
    expect(startOf(`${open}#`)).toBeUndefined();
    expect(startOf(`${open}#`, 65_536)).not.toBeUndefined();
  });
});

describe('planRead() of two files', () => {
  const image = (name: string, content: string | Uint8Array = '\0'.repeat(48)) => fileOf(name, content);
  const pair = (name: string, gz = false) => fileOf(name, gz ? gzip(nifti('ni1', 0)) : nifti('ni1', 0));

  it.each<[string, FilePrefix[], number]>([
    ['the same name', [pair('x/b.hdr'), image('y/b.img')], 1],
    ['a packed image', [image('b.img.gz', gzip('\0'.repeat(48))), pair('b.hdr')], 0],
    ['a packed header', [pair('b.hdr.gz', true), image('b.img')], 1],
    ['the only image of another name', [pair('b.HDR'), image('a.IMG')], 1],
  ])('takes %s', (_what, files, file) => {
    const found = plan(...files);
    const packed = files[file].name.endsWith('gz');
    expect(found).toMatchObject({
      file,
      start: 0,
      compression: packed ? 'gzip' : 'none',
      header: { compressed: packed, extension: packed ? 'nii.gz' : 'nii' },
    });
  });

  it.each<[string, FilePrefix[], string]>([
    ['no image', [pair('b.hdr')], 'Send it together with its .img file'],
    ['two images of other names', [pair('b.hdr'), image('a.img'), image('c.img')], 'its .img file'],
    ['one image too many', [pair('b.hdr'), image('a.img'), image('b.img')], 'A .img file does not belong'],
    ['voxels of another format', [pair('b.hdr'), image('b.raw')], 'its .img file'],
    ['a file too many', [pair('b.hdr'), image('b.img'), image('c.raw')], 'A .raw file does not belong'],
    ['a file beside a whole one', [fileOf('a.mha', mha()), image('c.dat')], 'A file does not belong'],
    ['no data file', [fileOf('a.mhd', mha('', 'a.raw'))], 'names a .raw file'],
    ['another data file', [fileOf('a.mhd', mha('', 'a.raw')), image('b.raw')], 'names a .raw file'],
    [
      'two renamed ones',
      [fileOf('a.mhd', mha('', 'a.raw')), { ...image('b'), renamed: true }, { ...image('c'), renamed: true }],
      'names a .raw file',
    ],
  ])('refuses %s', (_what, files, message) => {
    expect(refusal(...files)).toMatchObject({
      code: 'BAD_INPUT',
      message: expect.stringContaining(message),
    });
  });

  it('finds the data file by name, ignoring case, then by being renamed', () => {
    const header = fileOf('a.mhd', mha('', 'x/a.raw'));
    expect(plan(header, image('y/a.raw')).file).toBe(1);
    expect(plan(header, image('A.RAW')).file).toBe(1);
    expect(refusal(header, image('A.RAW'), image('a.raw')).message).toContain('does not belong');
    expect(plan({ ...image('upload'), renamed: true }, header).file).toBe(0);
    // The header itself is not its data.
    expect(refusal(fileOf('a.mhd', mha('', 'a.mhd'))).code).toBe('BAD_INPUT');
  });
});

describe('planRead() of lengths', () => {
  const at = (text: string, extra: number, more = 0) =>
    fileOf('a.dat', text, { sizeBytes: text.length + more + extra });

  it.each<[string, string, number, number]>([
    ['NRRD', `${nrrd()}\n`, 48, 48],
    ['NRRD with byte skip', `${nrrd('encoding: raw\nendian: little\nbyte skip: 5')}\n`, 53, 48],
    ['MetaImage', mha(), 48, 48],
  ])('counts the bytes of %s', (_what, text, need, stored) => {
    for (const extra of [need, need + 15]) expect(plan(at(text, extra)).start).toBe(text.length);
    const short = refusal(at(text, need - 1));
    expect(short).toMatchObject({ code: 'BAD_VOXELS', message: expect.stringContaining('cut off') });
    expect(short.message).toContain(`has ${stored - 1} bytes of voxels, but its header states ${stored}:`);
    expect(refusal(at(text, need + 16))).toMatchObject({
      code: 'BAD_VOXELS',
      message: expect.stringContaining('has 16 bytes after the 48 bytes of voxels'),
    });
    expect(plan({ ...at(text, 0), sizeBytes: undefined }).start).toBe(text.length);
  });

  it('takes any surplus before voxels that come last', () => {
    const text = `${nrrd('encoding: raw\nendian: little\nbyte skip: -1')}\n`;
    expect(plan(at(text, 5000)).start).toBe(text.length);
    expect(refusal(at(text, 47)).code).toBe('BAD_VOXELS');
  });

  it('skips lines, and then bytes', () => {
    const lines = (count: number) =>
      `${nrrd(`encoding: raw\nendian: little\nline skip: ${count}\nbyte skip: 3`)}\n`;
    expect(plan(at(`${lines(2)}one\ntwo\n`, 51)).start).toBe(lines(2).length + 8);
    expect(plan(at(`${lines(1)}\n\n`, 50)).start).toBe(lines(1).length + 1);
    expect(refusal(at(`${lines(3)}one\ntwo\n`, 500))).toMatchObject({
      code: 'BAD_HEADER',
      message: expect.stringContaining('"line skip" is 3'),
    });
    const behind = lines(1).length + 4 + 3;
    expect(refusal(fileOf('a', `${lines(1)}one\n12`))).toMatchObject({
      code: 'BAD_VOXELS',
      message: expect.stringContaining(`begin at byte ${behind}, but the file has ${behind - 1}:`),
    });
    expect(refusal(fileOf('a', `${lines(1)}one\n123`)).message).toContain('has 0 bytes of voxels');
  });

  it('counts the characters of numbers as text, two for each but the last', () => {
    for (const text of [`${nrrd('encoding: ascii')}\n`, mha('BinaryData = False\n')]) {
      expect(plan(at(text, 47))).toMatchObject({ compression: 'none', start: text.length });
      expect(plan(at(text, 5000)).start).toBe(text.length);
      expect(refusal(at(text, 46))).toMatchObject({
        code: 'BAD_VOXELS',
        message: expect.stringContaining('has 46 bytes of text'),
      });
    }
  });

  it('counts what compressed bytes can unpack to: 1032 each', () => {
    // 103,200 bytes of voxels.
    const text = `${nrrd('encoding: gzip\nendian: little').replace('4 3 2', '100 86 6')}\n`;
    expect(plan(at(text, 100))).toMatchObject({ compression: 'gzip' });
    expect(plan(at(text, 500_000))).toMatchObject({ compression: 'gzip' });
    expect(refusal(at(text, 99))).toMatchObject({
      code: 'BAD_VOXELS',
      message: expect.stringContaining('has 99 compressed bytes, which cannot decompress to the 103200'),
    });
  });

  it('distinguishes gzip from zlib in a MetaImage, and counts the stated bytes', () => {
    const text = mha('CompressedData = True\nCompressedDataSize = 20\n');
    expect(plan(at(`${text}x\x9c\x01`, 17))).toMatchObject({ compression: 'zlib', start: text.length });
    expect(plan(at(`${text}\x1f\x8b\x08`, 17))).toMatchObject({ compression: 'gzip' });
    expect(refusal(at(`${text}x\x9c\x01`, 16))).toMatchObject({
      code: 'BAD_VOXELS',
      message: expect.stringContaining('holds 19 of the 20 bytes'),
    });
  });
});

describe('surplusVoxels()', () => {
  it('says how to write the file again with a program of its format', () => {
    const of = (format: 'nifti1' | 'nifti2' | 'metaimage' | 'nrrd') =>
      surplusVoxels('It has 16 bytes too many', { ...plan(fileOf('a', gzip(nifti()))).header, format });
    for (const format of ['nifti1', 'nifti2'] as const) expect(of(format).message).toContain('nibabel.save(');
    for (const format of ['metaimage', 'nrrd'] as const)
      expect(of(format).message).toContain('SimpleITK.WriteImage(');
    expect(of('nrrd')).toMatchObject({
      code: 'BAD_VOXELS',
      message: expect.stringMatching(/^It has 16 bytes too many\. /),
    });
  });
});

import { describe, expect, it } from 'vitest';
import { isText, strangerAdvice } from './strangers.ts';

describe('isText()', () => {
  it('takes printable bytes and white space, and no other control characters', () => {
    const taken = Array.from({ length: 256 }, (_, byte) => byte).filter((byte) =>
      isText(Uint8Array.of(65, byte)),
    );
    // ASCII: tab, line feed, carriage return, and everything from the space on; then bytes of UTF-8 or Latin-1.
    expect(taken).toEqual([9, 10, 13, ...Array.from({ length: 224 }, (_, i) => 32 + i)]);
  });

  it('takes no empty file for a text', () => {
    expect(isText(new Uint8Array(0))).toBe(false);
  });

  it('looks at 1024 bytes', () => {
    const bytes = (at: number) => new Uint8Array(2000).fill(65).fill(0, at, at + 1);
    expect(isText(bytes(1023))).toBe(false);
    expect(isText(bytes(1024))).toBe(true);
  });
});

describe('strangerAdvice()', () => {
  const latin1 = (text: string) => new Uint8Array(Buffer.from(text, 'latin1'));

  it.each([
    [0, [0xff, 0xd8, 0xff], 'JPEG'],
    [0, [0x89, 0x50, 0x4e, 0x47], 'PNG'],
    [0, [0x47, 0x49, 0x46, 0x38], 'GIF'],
    [0, [0x49, 0x49, 0x2a, 0], 'TIFF'],
    [0, [0x4d, 0x4d, 0, 0x2a], 'TIFF'],
    [0, [0x25, 0x50, 0x44, 0x46], 'PDF'],
    [0, [0x50, 0x4b, 3, 4], 'zip archive'],
    [0, [0x42, 0x5a, 0x68], 'bzip2'],
    [0, [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0], 'compressed with xz'],
    [0, [0x28, 0xb5, 0x2f, 0xfd], 'zstd'],
    [257, [0x75, 0x73, 0x74, 0x61, 0x72], 'tar archive'],
    [0, [0x89, 0x48, 0x44, 0x46, 13, 10, 26, 10], 'HDF5'],
    [0, [0x43, 0x44, 0x46, 1], 'NetCDF'],
    [0, [...latin1('# vtk DataFile')], 'VTK'],
    [0, [0, 0, 0, 1, 0, 0], 'FreeSurfer'],
  ])('knows the bytes at %d, %j: %s', (at, magic, words) => {
    const bytes = new Uint8Array(600).fill(1);
    bytes.set(magic, at);
    expect(strangerAdvice(bytes, false)).toContain(words);
    expect(strangerAdvice(bytes, true)).toContain(words);
    bytes[at + magic.length - 1] ^= 16;
    expect(strangerAdvice(bytes, false)).toBeUndefined();
  });

  it('knows gzip inside gzip', () => {
    const bytes = Uint8Array.of(0x1f, 0x8b, 8, 0);
    expect(strangerAdvice(bytes, true)).toContain('gzip twice');
    expect(strangerAdvice(bytes, false)).toBeUndefined();
    expect(strangerAdvice(Uint8Array.of(0x1f, 0x8b, 7, 0), true)).toBeUndefined();
  });

  const annex = '/annex/objects/MD5E-s2--0c.nii';
  const link = `../.git${annex}`;
  it.each([
    ['version https://git-lfs.github.com/spec/v1\n', 'Git LFS'],
    ['VERSION https://git-lfs.github.com/SPEC/', 'Git LFS'],
    ['a version https://git-lfs.github.com/spec/v1\n', undefined],
    [annex, 'git-annex'],
    [annex.padEnd(2000), 'git-annex'],
    [`a${annex}`, 'path of a file'],
    [link, 'git-annex'],
    [link.padEnd(1023), 'git-annex'],
    [link.padEnd(1024), undefined],
    ['\xef\xbb\xbf <!DOCTYPE HTML>', 'web page'],
    ['\xef\xbb\xbe<!doctype html', undefined],
    ['a <!doctype html', undefined],
    [`${'a'.repeat(1019)}<HTML`, 'web page'],
    [`${'a'.repeat(1020)}<HTML`, undefined],
    [' <?XML version', 'XML'],
    ['<Error>', 'XML'],
    ['a <?xml <error', undefined],
    ['{"a": 1}', 'JSON'],
    ['{ \n "a": 1}', 'JSON'],
    ['{}', 'JSON'],
    ['{a}', undefined],
    ['{', undefined],
    ['[{', 'JSON'],
    ['["', 'JSON'],
    ['[ [', 'JSON'],
    ['[]', 'JSON'],
    ['[', undefined],
    ['[1', undefined],
    ['("', undefined],
    ['/Jane/a.nii', 'path of a file'],
    ['C:\\Jane\\a.NRRD\r\n', 'path of a file'],
    ['/a.gz', 'path of a file'],
    ['/a.mha', 'path of a file'],
    ['/a.mhd', 'path of a file'],
    ['/a.nhdr', 'path of a file'],
    ['/a.hdr', 'path of a file'],
    ['/a.img', 'path of a file'],
    ['/a.png', undefined],
    ['/a.nii.png', undefined],
    ['/anii', undefined],
    ['a.nii', undefined],
    ['/a\n/b.nii', undefined],
    [`${'a/'.repeat(509)}a.nii`, 'path of a file'],
    [`${'a/'.repeat(510)}.nii`, undefined],
    ['Dear colleague', undefined],
  ])('knows the text %j: %s', (text, words) => {
    const advice = strangerAdvice(latin1(text), false);
    if (words === undefined) expect(advice).toBeUndefined();
    else expect(advice).toContain(words);
  });

  it('recognizes nothing in binary bytes', () => {
    expect(strangerAdvice(latin1('{"a": 1}\0'), false)).toBeUndefined();
    expect(strangerAdvice(new Uint8Array(0), false)).toBeUndefined();
  });
});

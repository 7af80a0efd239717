import { deflateSync, gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { faults, goodFile, goodVolume, type Kind } from '../../test/bad-files.ts';
import { TomaatError } from '../errors.ts';
import { inspectVolume, readVolume, sourceFromBytes } from './volume-file.ts';
import { webPlatform } from './web-platform.ts';

describe('readVolume() refuses a broken file at once, naming the field and the remedy', () => {
  it.each(faults)('%s with %s', async (kind, _what, change, code, message) => {
    const bytes = change(await goodFile(kind));
    const start = performance.now();
    const error = await readVolume([sourceFromBytes(`a.${kind.split(' ')[0]}`, bytes)], webPlatform).catch(
      (e: unknown) => e,
    );
    expect(performance.now() - start).toBeLessThan(5000);
    expect(error).toBeInstanceOf(TomaatError);
    expect({ code: (error as TomaatError).code, message: (error as Error).message }).toEqual({
      code,
      message: expect.stringMatching(message),
    });
    // What was wrong and what to do: the remedy is an imperative of these.
    expect((error as Error).message).toMatch(
      /\. (Send|Write|Convert|Crop|Decompress|Extract|Split|Choose|Download|Run)\b|, write the file again/,
    );
  });

  it.each([
    ['a JPEG', [0xff, 0xd8, 0xff, 0xe0, 0, 16, 74, 70, 73, 70], 'UNSUPPORTED_FORMAT'],
    ['bzip2', [66, 90, 104, 57, 49, 65], 'UNSUPPORTED_FORMAT'],
    ['the beginning of a zip', [80, 75, 3, 4, 20, 0], 'BAD_HEADER'],
    ['text', [...Buffer.from('Dear colleague,\nplease find attached …')], 'UNKNOWN_FORMAT'],
    ['one byte', [0], 'UNKNOWN_FORMAT'],
    ['zeros', [...new Uint8Array(1000)], 'UNKNOWN_FORMAT'],
    ['gzip of text', [...gzipSync('x'.repeat(5000))], 'UNKNOWN_FORMAT'],
  ])('%s is not a volume', async (_name, bytes, code) => {
    const error = await readVolume(
      [sourceFromBytes('volume.nii.gz', Uint8Array.from(bytes))],
      webPlatform,
    ).catch((e: unknown) => e);
    expect(error).toMatchObject({ name: 'TomaatError', code });
  });

  it.each([
    [
      'a Git LFS pointer',
      'version https://git-lfs.github.com/spec/v1\noid sha256:491531891f\nsize 26113600\n',
      /Git LFS pointer.*git lfs pull/,
    ],
    [
      'a pointer of git-annex',
      '/annex/objects/MD5E-s26113600--0cc175b9c0f1b6a8.nii.gz\n',
      /git-annex.*datalad get/,
    ],
    [
      'a link of git-annex as text',
      '../.git/annex/objects/w8/3x/MD5E-s2--0c.nii.gz/MD5E-s2--0c.nii.gz',
      /git-annex/,
    ],
    [
      'a web page',
      '<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>',
      /a web page.*Download/,
    ],
    ['a web page with a byte order mark', '\ufeff\n  <HTML lang="de">', /a web page/],
    ['XHTML', '<?xml version="1.0"?>\n<html xmlns="http://www.w3.org/1999/xhtml">', /a web page/],
    [
      'the XML of a file store',
      '<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>',
      /XML text.*Download/,
    ],
    ['a JSON error', '{"detail": "Authentication credentials were not provided."}', /JSON text.*Download/],
    ['a JSON list', '[ { "status": 404 } ]', /JSON text/],
    ['a path', '/data/sub-01/anat/T1w.nii.gz\n', /path of a file.*Send the file/],
    ['gzip of gzip', gzipSync(gzipSync('x'.repeat(5000))), /compressed with gzip twice.*gunzip/],
    ['gzip of a web page', gzipSync('<!doctype html><p>Not found'), /a web page/],
  ] as const)('%s is called by its name', async (_name, content, message) => {
    const bytes = new Uint8Array(Buffer.from(content));
    for (const name of ['scan.nii.gz', 'scan.mha']) {
      const error = await readVolume([sourceFromBytes(name, bytes)], webPlatform).catch((e: unknown) => e);
      expect(error).toMatchObject({ code: 'UNSUPPORTED_FORMAT', message: expect.stringMatching(message) });
      // Nothing of the text itself: it may be anyone's.
      expect((error as Error).message).not.toMatch(/Sign in|AccessDenied|credentials|T1w|0cc175/);
    }
  });

  it.each(['nii', 'nii.gz', 'nifti2', 'mha', 'mha raw', 'nrrd', 'nrrd raw'] as const)(
    '%s with padding after its voxels or compressed data is read',
    async (kind) => {
      const bytes = await goodFile(kind);
      const paddings = [
        [10],
        [13, 10],
        [...new Uint8Array(15).fill(0xff)],
        ...(/raw|nii$|2$/.test(kind) ? [] : [[...new Uint8Array(512)]]),
      ];
      for (const padding of paddings) {
        const { volume } = await readVolume(
          [sourceFromBytes('a', Uint8Array.from([...bytes, ...padding]))],
          webPlatform,
        );
        expect(volume.voxels).toEqual(goodVolume.voxels);
      }
    },
  );

  it('padding in compressed data is ignored, a surplus number in text refused', async () => {
    const inside = gzipSync(Buffer.concat([await goodFile('nii'), Buffer.alloc(15, 7)]));
    const { volume } = await readVolume([sourceFromBytes('a', new Uint8Array(inside))], webPlatform);
    expect(volume.voxels).toEqual(goodVolume.voxels);
    const text = 'NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 1 1\nspacings: 1 1 1\nencoding: ascii\n\n';
    const read = (numbers: string) =>
      readVolume([sourceFromBytes('a', new Uint8Array(Buffer.from(text + numbers)))], webPlatform);
    expect([...(await read('7 8\n\n')).volume.voxels]).toEqual([7, 8]);
    await expect(read('7 8 9')).rejects.toMatchObject({ code: 'BAD_VOXELS' });
  });

  it('gzip around a MetaImage or NRRD file is refused with the remedy', async () => {
    for (const kind of ['mha', 'nrrd'] as const) {
      const bytes = new Uint8Array(gzipSync(await goodFile(kind)));
      await expect(readVolume([sourceFromBytes(`a.${kind}.gz`, bytes)], webPlatform)).rejects.toMatchObject({
        code: 'UNSUPPORTED_FORMAT',
        message: expect.stringContaining('Decompress it first'),
      });
    }
  });

  it('an empty list of files is refused', async () => {
    await expect(readVolume([], webPlatform)).rejects.toMatchObject({ code: 'BAD_INPUT' });
  });

  describe('counts the bytes of voxels to the last one', () => {
    // More than the first bytes that are looked at, so that what follows is known only when it is read.
    const count = 48 * 40 * 35;
    const data = new Uint8Array(2 * count).map((_, i) => (i * 37 + (i >> 7)) & 255);
    const nifti = new Uint8Array(352);
    const view = new DataView(nifti.buffer);
    view.setInt32(0, 348, true);
    for (const [i, n] of [3, 48, 40, 35, 1, 1, 1, 1].entries()) view.setInt16(40 + 2 * i, n, true);
    view.setInt16(70, 4, true);
    for (const [i, mm] of [1, 2, 3, 4].entries()) view.setFloat32(76 + 4 * i, mm, true);
    view.setFloat32(108, 352, true);
    nifti.set([0x6e, 0x2b, 0x31, 0], 344);
    const pair = nifti.slice();
    pair.set([0x6e, 0x69, 0x31, 0], 344);
    new DataView(pair.buffer).setFloat32(108, 0, true);
    const nrrd = (more: string) =>
      Buffer.from(
        `NRRD0004\ntype: short\ndimension: 3\nsizes: 48 40 35\nspacings: 2 3 4\nendian: little\n${more}\n\n`,
      );
    const mha = (more: string, file = 'LOCAL') =>
      Buffer.from(
        `ObjectType = Image\nNDims = 3\n${more}DimSize = 48 40 35\nElementType = MET_SHORT\nElementDataFile = ${file}\n`,
      );
    const join = (...parts: Uint8Array[]) => new Uint8Array(Buffer.concat(parts));
    type Files = (voxels: Uint8Array) => Record<string, Uint8Array>;
    const kinds: [string, Files][] = [
      ['NIfTI', (voxels) => ({ 'a.nii': join(nifti, voxels) })],
      ['NIfTI, gzip', (voxels) => ({ 'a.nii.gz': gzipSync(join(nifti, voxels)) })],
      [
        'NIfTI, gzip in members',
        (voxels) => ({
          'a.nii.gz': join(
            gzipSync(join(nifti, voxels.subarray(0, 70_000))),
            gzipSync(voxels.subarray(70_000)),
          ),
        }),
      ],
      ['NIfTI pair', (voxels) => ({ 'a.hdr': pair, 'a.img': voxels })],
      ['NIfTI pair, gzip', (voxels) => ({ 'a.hdr.gz': gzipSync(pair), 'a.img.gz': gzipSync(voxels) })],
      ['MetaImage', (voxels) => ({ 'a.mha': join(mha(''), voxels) })],
      [
        'MetaImage, zlib',
        (voxels) => ({ 'a.mha': join(mha('CompressedData = True\n'), deflateSync(voxels)) }),
      ],
      ['MetaImage, two files', (voxels) => ({ 'a.mhd': mha('', 'a.raw'), 'a.raw': voxels })],
      [
        'MetaImage, two files, zlib',
        (voxels) => ({ 'a.mhd': mha('CompressedData = True\n', 'a.zraw'), 'a.zraw': deflateSync(voxels) }),
      ],
      ['NRRD', (voxels) => ({ 'a.nrrd': join(nrrd('encoding: raw'), voxels) })],
      ['NRRD, gzip', (voxels) => ({ 'a.nrrd': join(nrrd('encoding: gzip'), gzipSync(voxels)) })],
      [
        'NRRD, two files, gzip',
        (voxels) => ({ 'a.nhdr': nrrd('encoding: gzip\ndata file: a.raw.gz'), 'a.raw.gz': gzipSync(voxels) }),
      ],
    ];
    const read = (files: Record<string, Uint8Array>) =>
      readVolume(
        // No length is known before the end, as of what arrives over the network.
        Object.entries(files).map(([name, bytes]) => ({
          name,
          async *open(start = 0) {
            for (let at = start; at < bytes.length; at += 10_007)
              yield Uint8Array.from(bytes.subarray(at, at + 10_007));
          },
        })),
        webPlatform,
      );

    it.each(kinds)('%s', async (_name, files) => {
      for (const missing of [1, 2, 7]) {
        await expect(read(files(data.subarray(0, data.length - missing)))).rejects.toMatchObject({
          code: 'BAD_VOXELS',
          message: expect.stringContaining(`${data.length - missing} of the ${data.length} bytes`),
        });
      }
      for (const padding of [0, 1, 15]) {
        const { volume } = await read(files(join(data, new Uint8Array(padding).fill(9))));
        const { buffer, byteOffset, byteLength } = volume.voxels;
        expect(Buffer.compare(new Uint8Array(buffer, byteOffset, byteLength), data)).toBe(0);
      }
      await expect(read(files(join(data, new Uint8Array(16))))).rejects.toMatchObject({ code: 'BAD_VOXELS' });
    });

    it.each([
      ['NRRD', 'NRRD0004\ntype: uchar\ndimension: 3\nsizes: 3 2 1\nspacings: 1 2 3\nencoding: ascii\n\n'],
      [
        'MetaImage',
        'ObjectType = Image\nNDims = 3\nBinaryData = False\nDimSize = 3 2 1\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n',
      ],
    ])('%s as text', async (_name, header) => {
      const text = (numbers: string) => read({ a: new Uint8Array(Buffer.from(header + numbers)) });
      expect([...(await text('1 2 3 4 5 6')).volume.voxels]).toEqual([1, 2, 3, 4, 5, 6]);
      await expect(text('1 2 3 4 5')).rejects.toMatchObject({ code: 'BAD_VOXELS' });
      await expect(text('1 2 3 4 5 6 7')).rejects.toMatchObject({ code: 'BAD_VOXELS' });
    });
  });

  it('the limit on voxels is the caller’s to set', async () => {
    const file = sourceFromBytes('a.nii', await goodFile('nii'));
    await expect(readVolume([file], webPlatform, { limits: { maxVoxels: 2939 } })).rejects.toMatchObject({
      code: 'TOO_MANY_VOXELS',
    });
    expect((await readVolume([file], webPlatform, { limits: { maxVoxels: 2940 } })).volume.voxels).toEqual(
      goodVolume.voxels,
    );
  });
});

describe('inspectVolume()', () => {
  it('finds what a header can tell from the first bytes alone', async () => {
    for (const [kind, what, change, code] of faults) {
      if (code === 'BAD_VOXELS') continue;
      const bytes = change(await goodFile(kind));
      const prefix = bytes.subarray(0, 65536);
      const error = await inspectVolume(
        [{ name: `a.${kind}`, prefix, sizeBytes: bytes.length }],
        webPlatform,
      ).catch((e: unknown) => e);
      expect(error, `${kind} with ${what}`).toMatchObject({ code });
    }
  });

  it('refuses lengths that cannot be, and only where it knows them', async () => {
    for (const kind of ['nii', 'nifti2', 'mha raw', 'nrrd raw'] as const) {
      const prefix = await goodFile(kind);
      const inspect = (sizeBytes?: number) => inspectVolume([{ name: 'a', prefix, sizeBytes }], webPlatform);
      for (const wrong of [prefix.length - 1, prefix.length + 16])
        await expect(inspect(wrong)).rejects.toMatchObject({ code: 'BAD_VOXELS' });
      for (const right of [prefix.length, prefix.length + 15])
        expect((await inspect(right)).storedBytes).toBe(5880);
      expect((await inspect()).storedBytes).toBe(5880);
    }
  });

  it('reads a compressed header from a prefix that ends after it', async () => {
    const file = await goodFile('nii.gz');
    for (const length of [300, 1000, file.length]) {
      const header = await inspectVolume(
        [{ name: 'a', prefix: file.subarray(0, length), sizeBytes: file.length }],
        webPlatform,
      );
      expect([header.size, header.extension]).toEqual([[15, 14, 14], 'nii.gz']);
    }
  });
});

describe('only a TomaatError ever leaves', () => {
  const kinds: Kind[] = ['nii', 'nii.gz', 'nifti2', 'mha', 'mha raw', 'nrrd', 'nrrd raw'];
  it.each(kinds)('%s with random bytes changed', async (kind) => {
    const good = await goodFile(kind);
    // Most changes go where the fields are.
    const place = fc.oneof(
      { weight: 4, arbitrary: fc.nat(Math.min(560, good.length - 1)) },
      { weight: 1, arbitrary: fc.nat(good.length - 1) },
    );
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(place, fc.nat(255)), { minLength: 1, maxLength: 6 }),
        fc.nat(good.length),
        async (changes, length) => {
          const bytes = good.slice(0, length % 3 === 0 ? length : good.length);
          for (const [where, value] of changes) if (where < bytes.length) bytes[where] = value;
          const limits = { maxVoxels: 2 ** 20 };
          const result = await readVolume([sourceFromBytes('a', bytes)], webPlatform, {
            limits,
            frame: 'all',
          }).catch((e: unknown) => e);
          if (result instanceof Error && !(result instanceof TomaatError)) throw result;
        },
      ),
      { numRuns: 250 },
    );
  });

  it.each(['mha raw', 'nrrd raw'] as const)('%s with words of its header changed', async (kind) => {
    const text = Buffer.from(await goodFile(kind)).toString('latin1');
    const end = text.indexOf(kind === 'mha raw' ? 'LOCAL' : '\n\n');
    const words = [...text.slice(0, end).matchAll(/[^\s,()]+/g)];
    const stranger = fc.oneof(
      fc.constantFrom(
        '',
        '0',
        '-1',
        '1e999',
        'nan',
        '(',
        ')',
        'none',
        ':',
        '=',
        '%',
        '\n',
        '\n\n',
        '9'.repeat(400),
      ),
      fc.string(),
    );
    await fc.assert(
      fc.asyncProperty(fc.nat(words.length - 1), stranger, async (which, word) => {
        const { index, 0: old } = words[which];
        const bytes = new Uint8Array(
          Buffer.from(text.slice(0, index) + word + text.slice(index + old.length), 'latin1'),
        );
        const result = await readVolume([sourceFromBytes('a', bytes)], webPlatform, {
          limits: { maxVoxels: 2 ** 20 },
        }).catch((e: unknown) => e);
        if (result instanceof Error && !(result instanceof TomaatError)) throw result;
      }),
      { numRuns: 300 },
    );
  });
});

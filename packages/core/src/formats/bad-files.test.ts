import { gzipSync } from 'node:zlib';
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
    expect(performance.now() - start).toBeLessThan(1000);
    expect(error).toBeInstanceOf(TomaatError);
    expect({ code: (error as TomaatError).code, message: (error as Error).message }).toEqual({
      code,
      message: expect.stringMatching(message),
    });
    // What was wrong and what to do: the remedy is an imperative of these.
    expect((error as Error).message).toMatch(/send|write|convert|crop|unpack|split|pack|choose/);
  });

  it.each([
    ['a JPEG', [0xff, 0xd8, 0xff, 0xe0, 0, 16, 74, 70, 73, 70], 'UNSUPPORTED_FORMAT'],
    ['bzip2', [66, 90, 104, 57, 49, 65], 'UNSUPPORTED_FORMAT'],
    ['a zip', [80, 75, 3, 4, 20, 0], 'UNSUPPORTED_FORMAT'],
    ['text', [...Buffer.from('Dear colleague,\nplease find attached …')], 'UNKNOWN_FORMAT'],
    ['one byte', [0], 'UNKNOWN_FORMAT'],
    ['zeros', [...new Uint8Array(1000)], 'UNKNOWN_FORMAT'],
    ['gzip of text', [...gzipSync('x'.repeat(5000))], 'UNKNOWN_FORMAT'],
  ])('%s is no volume', async (_name, bytes, code) => {
    const error = await readVolume(
      [sourceFromBytes('volume.nii.gz', Uint8Array.from(bytes))],
      webPlatform,
    ).catch((e: unknown) => e);
    expect(error).toMatchObject({ name: 'TomaatError', code });
  });

  it('gzip around a MetaImage or NRRD file is refused with the remedy', async () => {
    for (const kind of ['mha', 'nrrd'] as const) {
      const bytes = new Uint8Array(gzipSync(await goodFile(kind)));
      await expect(readVolume([sourceFromBytes(`a.${kind}.gz`, bytes)], webPlatform)).rejects.toMatchObject({
        code: 'UNSUPPORTED_FORMAT',
        message: expect.stringContaining('unpack it first'),
      });
    }
  });

  it('no files at all is refused', async () => {
    await expect(readVolume([], webPlatform)).rejects.toMatchObject({ code: 'BAD_INPUT' });
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
      for (const wrong of [prefix.length - 1, prefix.length + 1])
        await expect(inspect(wrong)).rejects.toMatchObject({ code: 'BAD_VOXELS' });
      expect((await inspect(prefix.length)).storedBytes).toBe(5880);
      expect((await inspect()).storedBytes).toBe(5880);
    }
  });

  it('reads a packed header that is cut off behind it', async () => {
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

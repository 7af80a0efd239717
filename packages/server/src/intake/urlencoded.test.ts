import fc from 'fast-check';
import { expect, it } from 'vitest';
import { readText } from './body-part.ts';
import type { PartLimits } from './multipart.ts';
import { readUrlencoded } from './urlencoded.ts';

async function* chunksOf(text: string, sizes: readonly number[]): AsyncGenerator<Uint8Array> {
  const bytes = Buffer.from(text, 'utf8');
  for (let from = 0, turn = 0; from < bytes.length; turn++) {
    const size = sizes[turn % sizes.length];
    // As countBytes() does it: a chunk is gone when the next one is asked for.
    const chunk = Uint8Array.from(bytes.subarray(from, from + size));
    yield chunk;
    chunk.buffer.transfer(0);
    from += size;
  }
}

async function read(
  text: string,
  sizes: readonly number[] = [65_536],
  limits?: PartLimits,
): Promise<string[][]> {
  const fields: string[][] = [];
  for await (const part of readUrlencoded(chunksOf(text, sizes), limits)) {
    fields.push([part.name, await readText(part, 1_000_000)]);
  }
  return fields;
}

it('readUrlencoded() equals URLSearchParams for every chunking', async () => {
  const text = fc.string({ unit: 'grapheme', maxLength: 40 });
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.string({ unit: 'grapheme', minLength: 1, maxLength: 20 }), text), {
        maxLength: 8,
      }),
      fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 4 }),
      async (fields, sizes) => {
        const body = new URLSearchParams(fields).toString();
        expect(await read(body, sizes)).toEqual([...new URLSearchParams(body)]);
      },
    ),
    { numRuns: 300 },
  );
});

it('readUrlencoded() streams values longer than its buffer, with escapes across every border', async () => {
  const value = 'ab+/=%&é'.repeat(30_000);
  for (const sizes of [[65_536], [65_535], [65_534, 3], [1447], [200_000]]) {
    const fields = await read(`volume=${encodeURIComponent(value)}&x=1`, sizes);
    expect(fields[0][1] === value).toBe(true);
    expect(fields[1]).toEqual(['x', '1']);
  }
});

it('readUrlencoded() takes empty values, empty fields and raw special characters as forms have them', async () => {
  expect(await read('a=&&b&c==d&e=1+2%2B3&')).toEqual([
    ['a', ''],
    ['b', ''],
    ['c', '=d'],
    ['e', '1 2+3'],
  ]);
  expect(await read('')).toEqual([]);
});

it('readUrlencoded() skips the rest of an abandoned value', async () => {
  const names: string[] = [];
  const body = `a=${'x'.repeat(500)}&b=%41%42&c=z`;
  for (const sizes of [[7], [1000]]) {
    for await (const part of readUrlencoded(chunksOf(body, sizes))) {
      names.push(part.name);
      if (part.name === 'b') for await (const _ of part.body) break;
    }
  }
  expect(names).toEqual(['a', 'b', 'c', 'a', 'b', 'c']);
});

it('readUrlencoded() refuses broken escapes, names and too many fields, saying which', async () => {
  const cases: [string, RegExp][] = [
    ['a=1&volume=ab%4', /ends in the middle of an escape in the value of field 2/],
    ['volume=ab%zz', /'%' at offset 9, in the value of field 1/],
    ['a%G1=1', /'%' at offset 1, in a name/],
    ['=1', /without a name/],
    ['%ff=1', /not UTF-8/],
    [`${'n'.repeat(8193)}=1`, /more than 8192/],
    [Array.from({ length: 65 }, (_, i) => `f${i}=`).join('&'), /more than 64 fields/],
    ['&'.repeat(1000), /more than 64 fields/],
  ];
  for (const [body, message] of cases) {
    for (const size of [1, 2, 5, 100_000]) {
      const error = await read(body, [size]).catch((caught) => caught);
      expect(error).toMatchObject({ code: 'BAD_REQUEST' });
      expect(error.message).toMatch(message);
    }
  }
});

import fc from 'fast-check';
import { expect, it } from 'vitest';
import { readText } from './body-part.ts';
import { type PartLimits, readMultipart, toDisplayName } from './multipart.ts';

async function* chunksOf(bytes: Uint8Array, sizes: readonly number[]): AsyncGenerator<Uint8Array> {
  for (let from = 0, turn = 0; from < bytes.length; turn++) {
    const size = sizes[turn % sizes.length];
    // As countBytes() does it: a chunk is gone when the next one is asked for.
    const chunk = Uint8Array.from(bytes.subarray(from, from + size));
    yield chunk;
    chunk.buffer.transfer(0);
    from += size;
  }
}

interface Read {
  name: string;
  fileName?: string;
  contentType?: string;
  body: Buffer;
}

async function read(
  body: Uint8Array | string,
  boundary = 'b',
  sizes: readonly number[] = [65_536],
  limits?: PartLimits,
): Promise<Read[]> {
  const parts: Read[] = [];
  const bytes = typeof body === 'string' ? Buffer.from(body, 'latin1') : body;
  for await (const part of readMultipart(
    chunksOf(bytes, sizes),
    `multipart/form-data; boundary=${boundary}`,
    limits,
  )) {
    const pieces: Buffer[] = [];
    for await (const piece of part.body) pieces.push(Buffer.from(piece));
    parts.push({ ...part, body: Buffer.concat(pieces) });
  }
  return parts;
}

const disposition = (text: string) => `--b\r\nContent-Disposition: form-data; ${text}\r\n\r\n`;
const end = '\r\n--b--\r\n';

it('readMultipart() equals what FormData wrote, for every chunking', async () => {
  // Bodies full of what looks like the beginning of a boundary line.
  const piece = fc.oneof(
    fc.constantFrom('\r', '\n', '\r\n', '\r\n-', '\r\n--', '--', '\r\r\n--', '\r\n------formdata-'),
    fc.string({ unit: 'binary', maxLength: 30 }),
  );
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.tuple(fc.stringMatching(/^[a-z"; ]{1,12}$/), fc.boolean(), fc.array(piece, { maxLength: 40 })),
        {
          maxLength: 5,
        },
      ),
      fc.array(fc.integer({ min: 1, max: 90 }), { minLength: 1, maxLength: 4 }),
      async (fields, sizes) => {
        const form = new FormData();
        const bodies = fields.map(([, , pieces]) => Buffer.from(pieces.join('')));
        fields.forEach(([name, isFile], index) => {
          const bytes = new Uint8Array(bodies[index]);
          if (isFile) form.append(name, new Blob([bytes]), 'x "y".nii.gz');
          else form.append(name, new Blob([bytes]));
        });
        const response = new Response(form);
        const contentType = response.headers.get('content-type') as string;
        const body = Buffer.from(await response.arrayBuffer());
        const seen: Read[] = [];
        for await (const part of readMultipart(chunksOf(body, sizes), contentType)) {
          const pieces: Buffer[] = [];
          for await (const chunk of part.body) pieces.push(Buffer.from(chunk));
          seen.push({ ...part, body: Buffer.concat(pieces) });
        }
        expect(seen.map((part) => part.body.toString('latin1'))).toEqual(
          bodies.map((b) => b.toString('latin1')),
        );
        expect(seen.map((part) => part.name)).toEqual(fields.map(([name]) => name.replaceAll('"', '%22')));
        for (const [index, [, isFile]] of fields.entries()) {
          if (isFile) expect(seen[index].fileName).toBe('x _y_.nii.gz');
        }
      },
    ),
    { numRuns: 100 },
  );
});

it('readMultipart() streams a field without file name, as TOMAAT v1 sends volumes', async () => {
  const body = `${disposition('name="volume"')}AAAA\nBBBB\n${end}`;
  for (const size of [1, 2, 3, 7, 1000]) {
    const [part] = await read(body, 'b', [size]);
    expect(part).toMatchObject({ name: 'volume', body: Buffer.from('AAAA\nBBBB\n') });
    expect(part.fileName).toBeUndefined();
  }
});

it('readMultipart() takes the boundaries that clients choose', async () => {
  for (const boundary of ['----WebKitFormBoundary7MA4YWxkTrZu0gW', "a$b'c(d)+_,-./:=?", 'a b', '-', '---']) {
    const body = `--${boundary}\r\nContent-Disposition: form-data; name="a"\r\n\r\n$&\r\n--\r\n--${boundary}--`;
    const [part] = await read(body, `"${boundary}"`, [5]);
    expect(part.body.toString()).toBe('$&\r\n--');
  }
  const quoted = '--a"b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n--a"b--';
  expect((await read(quoted, '"a\\"b"'))[0].body.toString()).toBe('x');
});

it('readMultipart() takes a preamble, blanks after a boundary, an epilogue and empty parts', async () => {
  const body = `hello\r\n--b \t\r\nContent-Disposition: form-data; name=a\r\n\r\n${'\r\n--b\r\n'}Content-Disposition: form-data; name="b"\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nx\r\n--b--\r\nbye\r\n--b\r\n`;
  for (const size of [1, 4, 1000]) {
    const parts = await read(body, 'b', [size]);
    expect(parts.map((part) => [part.name, part.body.toString(), part.contentType])).toEqual([
      ['a', '', undefined],
      ['b', 'x', 'text/plain; charset=utf-8'],
    ]);
  }
  expect(await read('--b--')).toEqual([]);
});

it('readMultipart() skips the rest of an abandoned part', async () => {
  const body = `${disposition('name="a"')}${'x'.repeat(300)}\r\n${disposition('name="b"')}${'y'.repeat(300)}\r\n${disposition('name="c"')}z${end}`;
  for (const size of [13, 1000]) {
    const names: string[] = [];
    const source = chunksOf(Buffer.from(body), [size]);
    for await (const part of readMultipart(source, 'multipart/form-data; boundary=b')) {
      names.push(part.name);
      if (part.name === 'b') for await (const _ of part.body) break;
      if (part.name === 'c') expect(await readText(part)).toBe('z');
    }
    expect(names).toEqual(['a', 'b', 'c']);
  }
});

it('readMultipart() closes its source when the caller leaves', async () => {
  let closed = false;
  async function* source() {
    try {
      for (;;) yield Buffer.from(`${disposition('name="a"')}xyz`);
    } finally {
      closed = true;
    }
  }
  for await (const _ of readMultipart(source(), 'multipart/form-data; boundary=b')) break;
  expect(closed).toBe(true);
});

it('readMultipart() reads file names as RFC 5987 and as browsers and requests write them', async () => {
  const cases: [string, string | undefined][] = [
    ['name=a; filename="scan.nii.gz"', 'scan.nii.gz'],
    ['name=a; filename="C:\\fake path\\scan.mha"', 'scan.mha'],
    ['name=a; filename="../../etc/passwd"', 'passwd'],
    ["name=a; filename=x.nii; filename*=UTF-8''%c3%a9t%C3%A9.nii", 'été.nii'],
    ["name=a; filename*=utf-8'en'..%2F..%2Fx.nii", 'x.nii'],
    ["name=a; filename*=ISO-8859-1''%e9.nii", 'é.nii'],
    ['name=a; filename="q\\"uote%22.nii"', 'q_uote_.nii'],
    ['name=a; filename=""', undefined],
  ];
  for (const [text, fileName] of cases) {
    expect((await read(`${disposition(text)}x${end}`))[0].fileName, text).toBe(fileName);
  }
  const utf8 = Buffer.from(`${disposition('name="volumé"; filename="é.nii"')}x${end}`, 'utf8');
  expect((await read(utf8))[0]).toMatchObject({ name: 'volumé', fileName: 'é.nii' });
});

it('toDisplayName() gives a plain base name for every hostile one', () => {
  const names = [
    '/etc/passwd',
    '..',
    '.',
    '',
    '../..',
    '..\\..\\x.nii',
    'a\0b.nii',
    'a\r\nSet-Cookie: x',
    'CON',
    'a.nii:stream',
    '\u202egpj.nii',
    `${'x'.repeat(5000)}.nii.gz`,
    '\ud800.nii',
    '<script>alert(1)</script>.nii',
    '   ',
    '…/…',
    'C:',
    '\\\\host\\share',
  ];
  for (const name of names) {
    const shown = toDisplayName(name);
    if (shown === undefined) continue;
    expect(shown).toMatch(/^[^/\\<>:"|?*\p{Cc}\p{Cf}]+$/u);
    expect(shown.length).toBeLessThanOrEqual(400);
    expect(['.', '..']).not.toContain(shown);
    expect(shown.isWellFormed()).toBe(true);
  }
  expect(toDisplayName(`${'x'.repeat(5000)}.nii.gz`)).toMatch(/x\.nii\.gz$/);
  expect(toDisplayName('..')).toBeUndefined();
});

it('readMultipart() refuses malformed bodies, naming the part', async () => {
  const good = `${disposition('name="first"')}1\r\n`;
  const cases: [string, RegExp][] = [
    ['', /ends before the first part/],
    ['x', /ends before the first part/],
    ['--b', /ends before the first part/],
    ['--b\r\n', /ends in the header of part 1/],
    [`${'x'.repeat(9000)}\r\n--b--`, /no boundary line at its beginning/],
    [disposition('name="volume"'), /ends in part 1/],
    [`${disposition('name="volume"')}data`, /ends in part 1/],
    [`${disposition('name="volume"')}data\r\n--b`, /ends in part 1/],
    [`${disposition('name="volume"')}data\r\n--b-`, /ends in part 1/],
    [`${disposition('name="volume"')}data\n--b--`, /ends in part 1/],
    [
      `${disposition('name="volume"')}data\r\n--bogus\r\n`,
      /has text after the boundary in a boundary line, in part 1/,
    ],
    [`${good}--b\r\n\r\nx${end}`, /no Content-Disposition in the header of part 2/],
    [
      `${good}--b\r\nContent-Type: text/plain\r\n\r\nx${end}`,
      /no Content-Disposition in the header of part 2/,
    ],
    [`${good}${disposition('filename="x"')}x${end}`, /no name .* part 2/],
    [`${good}${disposition('name=""')}x${end}`, /no name .* part 2/],
    [`${good}${disposition('name="a"; name="b"')}x${end}`, /parameter twice .* part 2/],
    [`${disposition('name="a"; filename="b"; filename="c"')}x${end}`, /parameter twice .* part 1/],
    [
      `--b\r\nContent-Disposition: form-data; name=a\r\ncontent-disposition: form-data; name=b\r\n\r\nx${end}`,
      /field twice .* part 1/,
    ],
    [`--b\r\nContent-Disposition: attachment; name=a\r\n\r\nx${end}`, /not 'form-data'/],
    [`--b\r\nContent-Disposition: form-data;\r\n name=a\r\n\r\nx${end}`, /is not 'Name: value'/],
    [`--b\r\nContent-Disposition : form-data; name=a\r\n\r\nx${end}`, /is not 'Name: value'/],
    [`--b\r\nContent-Disposition: form-data; name=a\nX: y\r\n\r\nx${end}`, /is not 'Name: value'/],
    [`--b\r\nContent-Disposition: form-data; name="a\0"\r\n\r\nx${end}`, /is not 'Name: value'/],
    [`${disposition('name="a')}x${end}`, /cannot be read .* part 1/],
    [`${disposition("name*=UTF-8''b; name=a")}x${end}`, /'name\*' in part 1,/],
    [`${disposition("name=a; filename*=UTF-8''%zz")}x${end}`, /malformed 'filename\*' in part 1/],
    [`${disposition('name=a; filename*=x')}x${end}`, /malformed 'filename\*' in part 1/],
    [
      `--b\r\nContent-Disposition: form-data; name=a\r\nContent-Transfer-Encoding: base64\r\n\r\nx${end}`,
      /part 1 in a Content-Transfer-Encoding other than binary/,
    ],
    [`--b\r\nX: ${'y'.repeat(9000)}\r\n\r\nx${end}`, /more than 8192 bytes in the header of part 1/],
    [`--b\r\n${'y'.repeat(9000)}`, /more than 8192 bytes in the header of part 1/],
    [`${disposition('name=a')}\r\n`.repeat(65) + end, /more than 64 parts/],
  ];
  for (const [body, message] of cases) {
    for (const size of [1, 3, 17, 100_000]) {
      const error = await read(body, 'b', [size]).catch((caught) => caught);
      expect(error, body.slice(0, 100)).toMatchObject({ code: 'BAD_REQUEST' });
      expect(error.message).toMatch(message);
    }
  }
  for (const type of [
    'multipart/form-data',
    'multipart/form-data; boundary=',
    'multipart/mixed; boundary=b',
    'multipart/form-data; boundary="a\r\nb"',
    `multipart/form-data; boundary=${'b'.repeat(201)}`,
  ]) {
    await expect(readMultipart(chunksOf(Buffer.from(end), [9]), type).next()).rejects.toMatchObject({
      code: 'BAD_REQUEST',
    });
  }
});

it('readMultipart() answers every mutation of a body with parts or BAD_REQUEST', async () => {
  const base = Buffer.from(
    `${disposition('name="volume"; filename="x.nii"')}AAAA\r\n${disposition('name="p"')}1${end}`,
  );
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.nat(base.length - 1), fc.constantFrom(...'\r\n-b":;=\0\\*% x', '\xff')), {
        minLength: 1,
        maxLength: 4,
      }),
      fc.nat(base.length),
      fc.integer({ min: 1, max: 40 }),
      async (changes, length, size) => {
        const bytes = Buffer.from(base);
        for (const [at, character] of changes) bytes[at] = character.charCodeAt(0);
        const outcome = await read(bytes.subarray(0, length), 'b', [size]).catch((error) => error);
        if (!Array.isArray(outcome)) expect(outcome.code, outcome.stack).toBe('BAD_REQUEST');
      },
    ),
    { numRuns: 700 },
  );
});

it('readText() is limited and strict', async () => {
  const [long] = await read(`${disposition('name="threshold"')}${'1'.repeat(70_000)}${end}`);
  const part = (bytes: Uint8Array) => ({ name: 'threshold', body: chunksOf(bytes, [1000]) });
  await expect(readText(part(long.body))).rejects.toMatchObject({ code: 'BAD_REQUEST', field: 'threshold' });
  await expect(readText(part(Buffer.from([0x31, 0xff])))).rejects.toMatchObject({
    code: 'BAD_REQUEST',
    field: 'threshold',
  });
  expect(await readText(part(Buffer.from('é0.5')))).toBe('é0.5');
});

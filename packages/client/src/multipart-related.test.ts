import { describe, expect, it } from 'vitest';
import { parseRelatedType, readRelated, writeRelated } from './multipart-related.ts';

const bytesOf = (text: string) => Uint8Array.from(Buffer.from(text, 'latin1'));
const textOf = (bytes: Uint8Array) => Buffer.from(bytes).toString('latin1');
const options = { from: 'pacs.example', maxPartBytes: 1_000_000 };

/** The text in pieces of a number of bytes. */
async function* inPieces(text: string | Uint8Array, length: number): AsyncGenerator<Uint8Array> {
  const bytes = typeof text === 'string' ? bytesOf(text) : text;
  for (let at = 0; at < bytes.length; at += length) yield bytes.slice(at, at + length);
}

async function partsOf(
  chunks: AsyncIterable<Uint8Array>,
  boundary = 'XX',
  more: Partial<typeof options> = {},
): Promise<{ headers: Record<string, string>; text: string }[]> {
  const parts: { headers: Record<string, string>; text: string }[] = [];
  for await (const { headers, bytes } of readRelated(chunks, boundary, { ...options, ...more }))
    parts.push({ headers: Object.fromEntries(headers), text: textOf(bytes) });
  return parts;
}
const textsOf = async (text: string, boundary?: string) =>
  (await partsOf(inPieces(text, 1000), boundary)).map((part) => part.text);

const dicom = { 'content-type': 'application/dicom' };
const head = 'Content-Type: application/dicom\r\n\r\n';
/** Data that resembles boundaries without having one. */
const tricky = 'a\r\n--X\r\n--XY\r\n--XXY\r\n-\r\r\n\n--XX\r\n--XX-\r\n--XX \tx\r\n\r\n\r\n--XX-- x\r';

describe('readRelated()', () => {
  const body = `\r\n--XX\r\n${head}${tricky}\r\n--XX \t\r\nA: 1\r\n\r\n\0\xff\r\n--XX\r\n\r\nc\r\n--XX--\r\n`;
  const parts = [
    { headers: dicom, text: tricky },
    { headers: { a: '1' }, text: '\0\xff' },
    { headers: {}, text: 'c' },
  ];

  it('gives the same parts wherever the chunks are cut', async () => {
    for (let length = 1; length <= 40; length++)
      expect(await partsOf(inPieces(body, length)), `pieces of ${length}`).toEqual(parts);
    async function* cutAt(at: number) {
      yield bytesOf(body).slice(0, at);
      yield new Uint8Array(0);
      yield bytesOf(body).slice(at);
    }
    for (let at = 0; at <= body.length; at++) expect(await partsOf(cutAt(at)), `cut at ${at}`).toEqual(parts);
  });

  it('passes over a preamble and an epilogue, and does not need either', async () => {
    expect(await textsOf(`not --XX yet\r\n--XX\r\n${head}1\r\n--XX--\r\n--XX\r\n\r\nmore`)).toEqual(['1']);
    expect(await textsOf(`--XX\r\n${head}1\r\n--XX--`)).toEqual(['1']);
    expect(await textsOf(`--XX\r\n${head}1\r\n--XX--  `)).toEqual(['1']);
    expect(await textsOf(`--XX\r\n${head}1\r\n--XX--\r`)).toEqual(['1']);
    expect(await textsOf('--XX--')).toEqual([]);
  });

  it('reads header lines that end with LF, are folded or repeated', async () => {
    const text =
      '--XX\nContent-Type: application/dicom;\n\ttransfer-syntax=1.2\ncontent-type : other\r\nX-Y:z\n\n\n1\n\r\n--XX--';
    expect(await partsOf(inPieces(text, 3))).toEqual([
      { headers: { 'content-type': 'application/dicom; transfer-syntax=1.2', 'x-y': 'z' }, text: '\n1\n' },
    ]);
  });

  it('keeps a lone LF before a boundary: the byte may be data', async () => {
    expect(await textsOf(`--XX\r\n${head}1\n--XX\r\n2\r\n--XX--`)).toEqual(['1\n--XX\r\n2']);
  });

  it('takes a Content-Length that is right, and refuses one that is not', async () => {
    const stated = (length: string) => `--XX\r\nContent-Length: ${length}\r\n\r\n12345\r\n--XX--\r\n`;
    expect(await textsOf(stated('5'))).toEqual(['12345']);
    expect(await textsOf(stated('five'))).toEqual(['12345']);
    for (const wrong of ['4', '6', '0', '999999'])
      await expect(textsOf(stated(wrong))).rejects.toMatchObject({
        code: 'UPSTREAM',
        message: expect.stringContaining(`states ${wrong} bytes for part 1, which has 5 `),
      });
    await expect(textsOf(stated('1000001'))).rejects.toMatchObject({
      code: 'UPSTREAM',
      message: expect.stringMatching(/^Part 1 .* longer than 1000000 bytes\. .*maxInstanceBytes/),
    });
  });

  it('ends with UNREACHABLE wherever the body is cut before its closing boundary', async () => {
    const sound = body.replace('--XX-- x', '');
    const end = sound.indexOf('--XX--');
    for (let at = 0; at < end + '--XX--'.length; at++) {
      for (const length of [1, 1000]) {
        await expect(partsOf(inPieces(sound.slice(0, at), length)), `cut at ${at}`).rejects.toMatchObject({
          code: 'UNREACHABLE',
          message: expect.stringMatching(/^The answer of pacs\.example ended .* and is incomplete\. /),
        });
      }
    }
  });

  it('gives the parts before a cut, then the error', async () => {
    const seen: string[] = [];
    const read = async () => {
      for await (const { bytes } of readRelated(inPieces(body.slice(0, -8), 7), 'XX', options))
        seen.push(textOf(bytes));
    };
    await expect(read()).rejects.toMatchObject({
      message: expect.stringContaining('ended inside part 3'),
    });
    expect(seen).toEqual([tricky, '\0\xff']);
  });

  it('refuses unterminated headers and preambles, headers without a colon, long parts', async () => {
    const refused = (text: string) => expect(partsOf(inPieces(text, 999))).rejects;
    await refused(`--XX\r\n${'A: b\r\n'.repeat(5000)}\r\n1\r\n--XX--`).toMatchObject({
      code: 'UPSTREAM',
      message: expect.stringContaining('has headers of more than 16384 bytes in part 1'),
    });
    await refused(`--XX\r\n${'A'.repeat(20_000)}`).toMatchObject({ code: 'UPSTREAM' });
    await refused('x'.repeat(70_000)).toMatchObject({
      code: 'UPSTREAM',
      message: expect.stringContaining('has no boundary within its first 65536 bytes'),
    });
    await refused('--XX\r\nno colon here\r\n\r\n1\r\n--XX--').toMatchObject({ code: 'UPSTREAM' });
    await expect(
      partsOf(inPieces(`--XX\r\n\r\n${'1'.repeat(101)}\r\n--XX--`, 10), 'XX', { maxPartBytes: 100 }),
    ).rejects.toMatchObject({ code: 'UPSTREAM', message: expect.stringContaining('longer than 100 bytes') });
    expect(
      await partsOf(inPieces(`--XX\r\n\r\n${'1'.repeat(100)}\r\n--XX--`, 10), 'XX', { maxPartBytes: 100 }),
    ).toHaveLength(1);
  });

  it('reads chunks only as parts are requested, and releases an abandoned source', async () => {
    let given = 0;
    let left = false;
    async function* source() {
      try {
        for (;;) {
          given++;
          yield bytesOf(`--XX\r\n\r\n${given}\r\n`);
        }
      } finally {
        left = true;
      }
    }
    const iterator = readRelated(source(), 'XX', options)[Symbol.asyncIterator]();
    expect(textOf((await iterator.next()).value!.bytes)).toBe('1');
    expect(given).toBe(2);
    await iterator.return!(undefined);
    expect(left).toBe(true);
  });

  it('passes on what breaks the source', async () => {
    async function* broken() {
      yield bytesOf('--XX\r\n\r\n1');
      throw new TypeError('broken');
    }
    await expect(partsOf(broken())).rejects.toThrow('broken');
  });

  it('gives parts their own memory', async () => {
    const whole = bytesOf('--XX\r\n\r\n12\r\n--XX--');
    async function* source() {
      yield whole;
    }
    for await (const { bytes } of readRelated(source(), 'XX', options)) {
      expect(bytes.buffer.byteLength).toBe(2);
      whole.fill(0);
      expect(textOf(bytes)).toBe('12');
    }
  });

  it('takes time in proportion to the bytes, whatever they are', async () => {
    const boundary = 'b'.repeat(70);
    const almost = `\r\n--${boundary.slice(1)}`;
    const bodyOf = (piece: string, bytes: number) =>
      `--${boundary}\r\n\r\n${piece.repeat(Math.ceil(bytes / piece.length))}\r\n--${boundary}--`;
    const limit = { maxPartBytes: 2 ** 24 };
    for (const piece of ['\r', '\r\n', '\r\n-', almost, `\r\n--${boundary}-`, `\r\n--${boundary} x`, '\0']) {
      const startedMs = performance.now();
      const text = bodyOf(piece, 2_000_000);
      const parts = await partsOf(inPieces(text, 65_536), boundary, limit);
      expect(parts[0].text.length).toBeGreaterThanOrEqual(2_000_000);
      // Quadratic time would be minutes.
      expect(performance.now() - startedMs, JSON.stringify(piece.slice(0, 8))).toBeLessThan(3000);
    }
  });

  it('reads 10,000 parts', async () => {
    const texts = Array.from({ length: 10_000 }, (_, index) => `part ${index}`);
    const text = texts.map((part) => `--XX\r\n${head}${part}\r\n`).join('');
    expect(await textsOf(`${text}--XX--\r\n`)).toEqual(texts);
    expect((await partsOf(inPieces(`${text}--XX--\r\n`, 11))).map((part) => part.text)).toEqual(texts);
  });
});

describe('parseRelatedType()', () => {
  it.each([
    ['multipart/related; type="application/dicom"; boundary=XX', 'XX', 'application/dicom'],
    [
      'Multipart/Related;boundary="a b:\'()+_,-./=?";type=Application/DICOM',
      "a b:'()+_,-./=?",
      'application/dicom',
    ],
    ['multipart/related; boundary="q\\"q"', 'q"q', undefined],
    [`multipart/related; boundary=${'b'.repeat(70)}`, 'b'.repeat(70), undefined],
  ])('%s', (text, boundary, type) => {
    expect(parseRelatedType(text)).toEqual({ boundary, type });
  });

  it.each([
    '',
    'multipart/related',
    'multipart/related; boundary=',
    'multipart/related; boundary="ends with a blank "',
    'multipart/related; boundary="\xe9"',
    `multipart/related; boundary=${'b'.repeat(71)}`,
    'multipart/mixed; boundary=XX',
    'text/html',
  ])('refuses %j', (text) => {
    expect(parseRelatedType(text)).toBeUndefined();
  });
});

describe('writeRelated()', () => {
  it('writes what readRelated() reads, with a unique boundary and known length', async () => {
    const files = [bytesOf(tricky), new Blob([bytesOf('\0\x01')])];
    const { contentType, body } = writeRelated('application/dicom', files);
    const again = writeRelated('application/dicom', files);
    expect(again.contentType).not.toBe(contentType);
    const related = parseRelatedType(contentType)!;
    expect(related.type).toBe('application/dicom');
    const bytes = new Uint8Array(await body.arrayBuffer());
    expect(body.size).toBe(bytes.length);
    expect(await partsOf(inPieces(bytes, 13), related.boundary)).toEqual([
      { headers: dicom, text: tricky },
      { headers: dicom, text: '\0\x01' },
    ]);
  });
});

/** Readers of bodies: forms and base64, in chunks of any size. */
import { collectBytes, decodeBase64Text, encodeBase64, TomaatError } from '@tomaat/core';
import { decodeV1Transform } from '../../packages/server/src/faces/v1-transform.ts';
import { contentDisposition } from '../../packages/server/src/http/send.ts';
import { decodeBase64, isRawVolume } from '../../packages/server/src/intake/base64.ts';
import type { BodyPart } from '../../packages/server/src/intake/body-part.ts';
import { readMultipart, toDisplayName } from '../../packages/server/src/intake/multipart.ts';
import { readUrlencoded } from '../../packages/server/src/intake/urlencoded.ts';
import { bytesOf, equal, inPieces, must, type Target, textOf } from '../target.ts';
import { copied } from './inputs.ts';

/** The parts with their bytes, or the code of the error. */
async function allParts(parts: AsyncIterable<BodyPart>): Promise<(BodyPart & { bytes: Buffer })[] | string> {
  const found: (BodyPart & { bytes: Buffer })[] = [];
  try {
    for await (const part of parts) {
      const chunks: Buffer[] = [];
      for await (const chunk of part.body) chunks.push(Buffer.from(chunk));
      found.push({ ...part, bytes: Buffer.concat(chunks) });
    }
    return found;
  } catch (error) {
    if (error instanceof TomaatError) return error.code;
    throw error;
  }
}

const plain = (parts: Exclude<Awaited<ReturnType<typeof allParts>>, string>) =>
  JSON.stringify(
    parts.map(({ name, fileName, contentType, bytes }) => [
      name,
      fileName,
      contentType,
      bytes.toString('hex'),
    ]),
  );

async function parts(
  input: Uint8Array,
  read: (source: AsyncIterable<Uint8Array>) => AsyncIterable<BodyPart>,
) {
  const whole = await allParts(read(inPieces(input, 0)));
  const pieces = await allParts(read(inPieces(input, input.length + (input[input.length >> 1] ?? 0))));
  if (typeof whole === 'string') {
    must(pieces === whole, 'the refusal does not depend on the pieces');
    throw new TomaatError('BAD_REQUEST', whole);
  }
  must(typeof pieces !== 'string' && plain(pieces) === plain(whole), 'the parts do not depend on the pieces');
  must(whole.length <= 64, 'no more than 64 parts');
  must(
    whole.reduce((n, part) => n + part.bytes.length, 0) <= input.length,
    'no more bytes come out than went in',
  );
  for (const { name, fileName } of whole) {
    must(name.length > 0 && name.length <= 8192, 'a part has a name of bounded length');
    must(fileName === undefined || isPlainName(fileName), 'a file name is no path');
  }
  return whole;
}

/** Whether a name can only refer to a file in the current folder. */
const isPlainName = (name: string) =>
  name !== '' && name.length <= 400 && !/^\.*$/.test(name) && !/[/\\\p{Cc}]/u.test(name);

const form = [
  '--XX\r\nContent-Disposition: form-data; name="volume"; filename="a b.nii.gz"\r\nContent-Type: application/gzip\r\n\r\n\x1f\x8b\x08\r\n--X\r\n',
  '\r\n--XX\r\nContent-Disposition: form-data; name="mode"\r\n\r\nfast\r\n',
  "--XX \t\r\ncontent-disposition:form-data;name=points;filename*=UTF-8''%e2%82%ac.nii\r\nContent-Transfer-Encoding: binary\r\n\r\n",
  '\r\n--XX--\r\nepilogue',
].join('');
const latinForm =
  '--XX\r\nContent-Disposition: form-data; name="\xe9t\xe9"; filename="C:\\\\x\\\\y.mha"\r\n\r\n1\r\n--XX--';

export const bodyTargets = {
  multipart: {
    description: 'multipart/form-data, in any pieces',
    longRuns: {
      texts: [
        '…--XX…\r\n…Content-Disposition…:…form-data…;…name…=…"…a…"…;…filename*…=…UTF-8\'\'…x…\r\nContent-Type:…a/b…\r\n…\r\n1…\r\n…--XX--…',
      ],
      length: 7000,
    },
    seeds: async () => [bytesOf(form), bytesOf(latinForm), bytesOf('preamble\r\n--XX\r\n\r\n1\r\n--XX--')],
    words: [
      '--XX',
      '--XX--',
      '\r\n--XX\r\n',
      '\r\n\r\n',
      '\r\n',
      '\r',
      'Content-Disposition: form-data; name="a"\r\n',
      'Content-Transfer-Encoding: base64\r\n',
      "name*=UTF-8''x",
      'filename="',
      "filename*=iso-8859-1''%2e%2e%2fx",
      '"',
      '\\',
      ';',
      '%22',
      '%0D%0A',
      '../',
      '\0',
      '\xc0\xaf',
    ],
    maxBytes: 8192,
    async run(input) {
      await parts(input, (source) => readMultipart(source, 'multipart/form-data; boundary=XX'));
    },
  },
  'form-header': {
    description: 'Content-Type of a form, and names of files to show',
    longRuns: { texts: ['…multipart/form-data…;…boundary…=…"…XX…"…', '…a/…b…\\…c.nii.gz…'], length: 15_000 },
    seeds: async () => [
      bytesOf('multipart/form-data; boundary=XX'),
      bytesOf('Multipart/Form-Data;charset=utf-8 ; boundary="a b\\"c"'),
      bytesOf('..\\..\\C:\\con.nii.gz'),
    ],
    words: ['boundary=', ';', '"', '\\', ' ', '\t', '=', 'multipart/form-data', '/', '..', ':', '\u00a0'],
    maxBytes: 2048,
    async run(input) {
      const text = textOf(input);
      const name = toDisplayName(Buffer.from(input).toString('utf8'));
      must(name === undefined || isPlainName(name), 'a name to show is no path');
      must(/^[\x20-\x7e]+$/.test(contentDisposition(name ?? 'x')), 'a Content-Disposition is plain ASCII');
      for await (const part of readMultipart(inPieces(bytesOf(form), 0), text))
        must(part.name !== '', 'a name');
    },
  },
  urlencoded: {
    description: 'application/x-www-form-urlencoded, in any pieces',
    longRuns: { texts: ['…volume…=…AAAA…%2B…&…mode=…fast…'] },
    seeds: async () => [
      bytesOf('volume=AAAA%2B%2F%3D&mode=fast+one&&empty=&x'),
      bytesOf('a%20b=%E2%82%AC&c=%ff'),
    ],
    words: ['&', '=', '%', '%2', '%zz', '+', '%00', '%F0%9F', '&&', '=='],
    maxBytes: 4096,
    async run(input) {
      const found = await parts(input, readUrlencoded);
      // The standard parser, where the values are text.
      const oracle = [...new URLSearchParams(textOf(input).replace(/[\x80-\xff]/g, '?'))].filter(
        ([name]) => name !== '',
      );
      if (input.some((byte) => byte > 127) || /%[89a-f]/i.test(textOf(input)) || input[0] === 63) return;
      must(
        JSON.stringify(found.map(({ name, bytes }) => [name, bytes.toString('latin1')])) ===
          JSON.stringify(oracle),
        'the same as URLSearchParams',
      );
    },
  },
  base64: {
    description: 'base64, streamed and at once, and what is a raw file instead',
    longRuns: { texts: ['…AAEC…AwQ=…'] },
    async seeds() {
      const some = Uint8Array.from({ length: 60 }, (_, i) => (i * 37) & 255);
      return [
        await collectBytes(encodeBase64([some])),
        bytesOf(Buffer.from(some).toString('base64')),
        bytesOf(Buffer.from(some.subarray(1)).toString('base64').replace(/.{64}/g, '$&\r\n')),
        bytesOf('NRRD0004\n'),
        bytesOf('ObjectType = Image'),
      ];
    },
    words: ['=', '==', '\n', '\r\n', '\r', '-', '_', ' ', 'A', '++++', '\0'],
    maxBytes: 1024,
    async run(input) {
      isRawVolume(input);
      const text = textOf(input);
      const read = async (salt: number) =>
        collectBytes(copied(decodeBase64(inPieces(input, salt)))).catch((error: unknown) => {
          if (error instanceof TomaatError) return error.code;
          throw error;
        });
      const whole = await read(0);
      const pieces = await read(input.length | 1);
      if (typeof whole === 'string') {
        must(pieces === whole, 'the refusal does not depend on the pieces');
        throw new TomaatError('BAD_REQUEST', whole);
      }
      must(typeof pieces !== 'string' && equal(whole, pieces), 'the bytes do not depend on the pieces');
      must(equal(whole, Buffer.from(text, 'base64')), 'the same as Buffer.from');
      must(equal(whole, decodeBase64Text(text)), 'the same as decodeBase64Text()');
    },
  },
  'base64-text': {
    description: 'base64 at once, as clients decode it',
    longRuns: { texts: ['…AAEC…AwQ=…'] },
    seeds: async () => [bytesOf('AAEC\nAwQ='), bytesOf('/+8=')],
    words: ['=', '==', '\n', ' ', '\t', '-', 'A', '\xff'],
    maxBytes: 2048,
    async run(input) {
      const bytes = decodeBase64Text(textOf(input));
      const again = await collectBytes(encodeBase64([bytes]));
      must(equal(decodeBase64Text(textOf(again)), bytes), 'encode and decode give the same');
    },
  },
  'v1-transform': {
    description: 'A transform as TOMAAT v1 sends it',
    longRuns: { texts: ['…mat…\n…AAEC…'] },
    seeds: async () => [bytesOf('h5\nAAECAwQ='), bytesOf('nii.gz\r\nH4sIAAAA\n'), bytesOf('mat\nAAAA')],
    words: ['h5\n', 'mat\n', 'nii.gz\n', '\r\n', '=', 'tfm\n', ' '],
    maxBytes: 2048,
    async run(input) {
      const part = { name: 'volume', body: inPieces(input, input.length) };
      const { fileName, body } = await decodeV1Transform(part);
      must(/^volume\.(nii\.gz|h5|mat)$/.test(fileName!), 'the name is ours');
      const bytes = await collectBytes(copied(body));
      must(
        equal(bytes, Buffer.from(textOf(input).slice(textOf(input).indexOf('\n')), 'base64')),
        'the same as Buffer.from',
      );
    },
  },
} satisfies Record<string, Target>;

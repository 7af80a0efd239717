/**
 * Targets for responses of a DICOMweb service: parts of multipart/related, the headers of the files in them, and
 * DICOM JSON.
 */
import { dicomItems, dicomNumber, dicomTags, dicomTexts, TomaatError } from '@tomaat/client';
import { isUid, readFileMeta } from '../../packages/client/src/dicom-file-meta.ts';
import { toDatasets, toInstance, toSeries, toStudy } from '../../packages/client/src/dicom-json.ts';
import { dicomFile, relatedBody } from '../../packages/client/src/fixtures.ts';
import { parseRelatedType, readRelated } from '../../packages/client/src/multipart-related.ts';
import { bytesOf, inPieces, must, type Target, textOf } from '../target.ts';

interface Read {
  /** The parts that were returned before the end or the error. */
  bodies: string[];
  refusal?: string;
}

async function readAs(chunks: AsyncIterable<Uint8Array>): Promise<Read> {
  const bodies: string[] = [];
  try {
    for await (const { bytes } of readRelated(chunks, 'XX', { from: 'x', maxPartBytes: 4096 }))
      bodies.push(textOf(bytes));
    return { bodies };
  } catch (error) {
    if (error instanceof TomaatError) return { bodies, refusal: error.message };
    throw error;
  }
}

/**
 * The same parts found in another way: the whole text, and one expression for a boundary. Undefined if the closing
 * one is missing.
 */
function expectedBodies(body: string): string[] | undefined {
  const text = `\r\n${body}`;
  const boundary = /\r\n--XX(?:--[ \t]{0,32}(?:\r?\n|\r?$)|[ \t]{0,32}\r?\n)/g;
  const bodies: string[] = [];
  for (let found = boundary.exec(text); found !== null; ) {
    if (found[0].startsWith('\r\n--XX--')) return bodies;
    let at = boundary.lastIndex;
    for (let line = 'x'; line !== ''; ) {
      const end = text.indexOf('\n', at);
      if (end < 0) return undefined;
      line = text.slice(at, end).trim();
      at = end + 1;
    }
    boundary.lastIndex = at;
    found = boundary.exec(text);
    if (found !== null) bodies.push(text.slice(at, found.index));
  }
  return undefined;
}

const files = [dicomFile('1.2.3'), dicomFile('1.2.3.4', { size: 7 })];

const multipartRelated: Target = {
  description: 'multipart/related, in any pieces',
  longRuns: {
    texts: ['…--XX…\r\n…Content-Type…:…a/b…\r\n…\r\n1…\r\n…--XX…--…'],
    length: 3000,
  },
  seeds: async () => [
    relatedBody(files, 'XX'),
    bytesOf(
      'preamble\r\n--XX \t\r\nA: 1\n b\nContent-Length: 3\n\n\0\r\n\r\n--XX\r\n\r\n\r\n--XX--\r\nepilogue',
    ),
    bytesOf('--XX\r\n\r\n\r\n--X\r\n--XXY\r\n--XX-\r\n--XX--'),
  ],
  words: [
    '--XX',
    '--XX--',
    '\r\n--XX\r\n',
    '\r\n--XX--\r\n',
    '\r\n\r\n',
    '\n\n',
    '\r',
    '\n',
    ' ',
    '-',
    'Content-Length: 3\r\n',
    ':',
  ],
  maxBytes: 8192,
  async run(input) {
    const whole = await readAs(inPieces(input, 0));
    const pieces = await readAs(inPieces(input, input.length + (input[input.length >> 1] ?? 0)));
    must(JSON.stringify(pieces) === JSON.stringify(whole), 'neither parts nor refusal depend on the pieces');
    must(whole.bodies.join('').length <= input.length, 'no more bytes come out than went in');
    const expected = expectedBodies(textOf(input));
    if (whole.refusal !== undefined) throw new TomaatError('UPSTREAM', whole.refusal);
    must(JSON.stringify(whole.bodies) === JSON.stringify(expected), 'the parts are those of the whole text');
  },
};

const relatedType: Target = {
  description: 'Content-Type of multipart/related',
  longRuns: {
    texts: ['…multipart/related…;…type…=…"…application/dicom…"…;…boundary…=…X…X…'],
    length: 15_000,
  },
  seeds: async () => [
    bytesOf('multipart/related; type="application/dicom"; boundary=XX'),
    bytesOf('Multipart/Related;boundary="a b\\"c"; type=application/dicom'),
  ],
  words: [
    'boundary=',
    'type=',
    ';',
    '"',
    '\\',
    ' ',
    '\t',
    '=',
    'multipart/related',
    'application/dicom',
    '\xe9',
  ],
  maxBytes: 2048,
  run(input) {
    const related = parseRelatedType(textOf(input));
    if (related === undefined) throw new TomaatError('UPSTREAM', 'not multipart/related');
    const { boundary } = related;
    must(boundary.length >= 1 && boundary.length <= 70, 'a boundary has 1 to 70 characters');
    must(!/[^\x20-\x7e]/.test(boundary) && !boundary.endsWith(' '), 'a boundary is printable ASCII');
  },
};

const fileMeta: Target = {
  description: 'File meta information of DICOM files',
  seeds: async () => files,
  words: ['DICM', 'UI', 'OB', 'UN', 'SQ', '\x02\0\x03\0', '\x02\0\x10\0', '\xff\xff\xff\xff', '\0\0', '1.2.'],
  maxBytes: 2048,
  run(input) {
    const meta = readFileMeta(input);
    if (meta === undefined) throw new TomaatError('UPSTREAM', 'not a DICOM file');
    must(Object.values(meta).every(isUid), 'what is stated is a UID');
  },
};

const dicomJson: Target = {
  description: 'DICOM JSON: results of searches, reports of stores',
  longRuns: { texts: ['…[…{…"00100010…"…:…{…"vr"…:…"PN…",…"Value"…:…[…"a…"…,…1…]…}…}…]…'], length: 5000 },
  seeds: async () =>
    [
      [
        {
          '0020000D': { vr: 'UI', Value: ['1.2'] },
          '00100010': { vr: 'PN', Value: [{ Alphabetic: 'a^b' }] },
        },
      ],
      {
        '00081199': { vr: 'SQ', Value: [{ '00081155': { vr: 'UI', Value: ['1.2'] } }] },
        '00081198': { vr: 'SQ' },
      },
      [
        {
          '0020000d': { Value: ['1.2'] },
          '0020000E': { Value: ['1.3'] },
          '00080018': { Value: ['1'] },
          '00200013': { Value: [' 5 ', 6] },
        },
      ],
    ].map((seed) => bytesOf(JSON.stringify(seed))),
  words: [
    '{"',
    '":',
    '[',
    ']',
    '{',
    '}',
    ',',
    'null',
    '"Value":[',
    '"__proto__":{}',
    '1e999',
    '"00081199":',
    '{"Alphabetic":',
    '"1.2"',
  ],
  maxBytes: 8192,
  run(input) {
    let data: unknown;
    try {
      data = JSON.parse(Buffer.from(input).toString('utf8'));
    } catch {
      throw new TomaatError('UPSTREAM', 'not JSON');
    }
    const datasets = toDatasets(data, 'x');
    for (const dataset of datasets) {
      for (const tag of Object.values(dicomTags)) {
        must(
          dicomTexts(dataset, tag).every((text) => text !== '' && text === text.trim()),
          'texts are not empty',
        );
        const number = dicomNumber(dataset, tag);
        must(number === undefined || Number.isFinite(number), 'numbers are finite');
        must(
          dicomItems(dataset, tag).every((each) => !Array.isArray(each) && typeof each === 'object'),
          'items are objects',
        );
      }
      for (const read of [toStudy, toSeries, toInstance]) {
        try {
          read(dataset, 'x');
        } catch (error) {
          // Not every data set is a result at each level.
          if (!(error instanceof TomaatError)) throw error;
        }
      }
    }
    must(Object.getPrototypeOf({}).polluted === undefined, 'no prototype is changed');
  },
};

export const dicomWebTargets = {
  'multipart-related': multipartRelated,
  'related-type': relatedType,
  'dicom-file-meta': fileMeta,
  'dicom-json': dicomJson,
};

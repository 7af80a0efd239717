import { TomaatError } from '../errors.ts';
import type { Platform } from '../platform.ts';
import { baseName, latin1 } from './header.ts';
import { isMetaImage } from './metaimage.ts';
import { isNrrd } from './nrrd.ts';

/**
 * Text in volume files that may tell whose scan it is: found, and taken out before a file is sent or stored. Voxels and
 * geometry are taken over byte by byte; a file without such text is left as it is.
 */
export interface IdentifyingField {
  name: string;
  value: string;
}

/** A file to look into. Only the end of its name has a meaning: it tells a file of mere voxels from a header. */
export interface TextSource {
  readonly name: string;
  readonly sizeBytes: number;
  /** The bytes from `start` to before `end`, the whole file without them. */
  read(start?: number, end?: number): AsyncIterable<Uint8Array>;
}

export interface IdentifyingText {
  readonly fields: readonly IdentifyingField[];
  /** How the file is written without them; undefined when nothing has to be changed. */
  readonly rewrite?: Rewrite;
}

/** `head`, then the file's bytes from `from` on; with `repack` both are those of the unpacked file, packed with gzip again. */
export interface Rewrite {
  readonly head: Uint8Array<ArrayBuffer>;
  readonly from: number;
  readonly repack: boolean;
}

const longestHeader = 4 * 2 ** 20;
const longestShown = 300;
const voxelsAlone = /\.(img|raw|zraw)(\.gz)?$/i;

/**
 * Looks for identifying text in a NIfTI, MetaImage or NRRD file, and in the gzip headers around it. `dataFile` gives the
 * name that the header of a pair shall have for the file of its voxels.
 * @throws TomaatError BAD_HEADER when a header of text does not end within 4 MiB.
 */
export async function findIdentifyingText(
  file: TextSource,
  platform: Platform,
  { dataFile = (name: string) => name }: { dataFile?(name: string): string } = {},
): Promise<IdentifyingText> {
  const start = await collect(file.read(0, 70_000), 70_000);
  if (!(start[0] === 0x1f && start[1] === 0x8b)) {
    if (voxelsAlone.test(file.name)) return { fields: [] };
    const header = await collect(file.read(0, longestHeader), longestHeader);
    const { fields, head, from } = findInHeader(header, file, header.length >= file.sizeBytes, dataFile);
    return { fields, rewrite: head && { head, from, repack: false } };
  }
  const packing = readGzipHeader(start);
  const { bytes, whole } = voxelsAlone.test(file.name)
    ? { bytes: new Uint8Array(0), whole: true }
    : await inflateStart(file, platform);
  const found = findInHeader(bytes, file, whole, dataFile);
  const fields = [...packing.fields, ...found.fields];
  if (found.head) return { fields, rewrite: { head: found.head, from: found.from, repack: true } };
  if (await hasSpeakingMember(file, packing.length)) {
    return {
      fields: [...fields, { name: 'gzip header', value: 'of a later part of the file' }],
      rewrite: { head: new Uint8Array(0), from: 0, repack: true },
    };
  }
  if (packing.fields.length === 0) return { fields };
  // RFC 1952: the ten bytes without flags and time; the compressed data is taken over as it is.
  const head = Uint8Array.of(0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255);
  return { fields, rewrite: { head, from: packing.length, repack: false } };
}

/** The file as `rewrite` has it, as a stream. Its length is known before only where it is not packed again. */
export function writeStripped(
  file: TextSource,
  rewrite: Rewrite,
  platform: Platform,
): AsyncIterable<Uint8Array> {
  if (!rewrite.repack) return joined(rewrite.head, file.read(Math.min(rewrite.from, file.sizeBytes)));
  const unpacked = platform.inflate(file.read(), 'gzip');
  return platform.deflate(joined(rewrite.head, withoutFirst(unpacked, rewrite.from)), 'gzip', 1);
}

async function* joined(head: Uint8Array, rest: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  if (head.length > 0) yield head;
  yield* rest;
}

async function* withoutFirst(chunks: AsyncIterable<Uint8Array>, count: number): AsyncGenerator<Uint8Array> {
  let left = count;
  for await (const chunk of chunks) {
    if (left < chunk.length) yield left > 0 ? chunk.subarray(left) : chunk;
    left = Math.max(0, left - chunk.length);
  }
}

async function collect(
  chunks: AsyncIterable<Uint8Array>,
  wanted: number,
  more: (bytes: Uint8Array, wanted: number) => number = (_, same) => same,
): Promise<Uint8Array<ArrayBuffer>> {
  let bytes = new Uint8Array(Math.min(wanted, 2 ** 16));
  let length = 0;
  let limit = wanted;
  for await (const chunk of chunks) {
    if (length + chunk.length > bytes.length) {
      const grown = new Uint8Array(Math.max(2 * bytes.length, length + chunk.length));
      grown.set(bytes.subarray(0, length));
      bytes = grown;
    }
    bytes.set(chunk, length);
    length += chunk.length;
    limit = more(bytes.subarray(0, length), limit);
    if (length >= limit) break;
  }
  return bytes.slice(0, Math.min(length, limit));
}

// ---- What a header says ----

interface Found {
  fields: IdentifyingField[];
  /** What takes the place of the bytes before `from`. */
  head?: Uint8Array<ArrayBuffer>;
  from: number;
}

const nothing: Found = { fields: [], from: 0 };

function findInHeader(
  header: Uint8Array<ArrayBuffer>,
  file: TextSource,
  whole: boolean,
  dataFile: (name: string) => string,
): Found {
  if (isNrrd(header)) return findNrrd(header, whole, dataFile);
  if (isMetaImage(header)) return findMetaImage(header, whole, dataFile);
  return findNifti(header, file);
}

// ---- NIfTI (nifti1.h, nifti2.h; free text by offset and length) ----

type Texts = readonly (readonly [name: string, at: number, length: number])[];
const nifti1Texts: Texts = [
  ['data_type', 4, 10],
  ['db_name', 14, 18],
  ['descrip', 148, 80],
  ['aux_file', 228, 24],
  ['intent_name', 328, 16],
];
const nifti2Texts: Texts = [
  ['descrip', 240, 80],
  ['aux_file', 320, 24],
  ['intent_name', 508, 16],
  ['unused_str', 525, 15],
];
/** Analyze 7.5 (dbh.h), which has its patient where NIfTI has the orientation. */
const analyzeTexts: Texts = [
  ['data_type', 4, 10],
  ['db_name', 14, 18],
  ['descrip', 148, 80],
  ['aux_file', 228, 24],
  ['originator, patient_id, dates', 253, 67],
];

function findNifti(header: Uint8Array<ArrayBuffer>, { name }: TextSource): Found {
  if (header.length < 348) return nothing;
  const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
  const size = [view.getInt32(0, true), view.getInt32(0, false)];
  const length = size.includes(348) ? 348 : size.includes(540) ? 540 : 0;
  if (length === 0 || header.length < length) return nothing;
  const magic = length === 348 ? latin1(header.subarray(344, 347)) : latin1(header.subarray(4, 7));
  const isNifti = magic === (length === 348 ? 'n+1' : 'n+2') || magic === (length === 348 ? 'ni1' : 'ni2');
  // Voxels may begin with the number 348 too.
  if (!isNifti && !/\.(hdr|nii)(\.gz)?$/i.test(name)) return nothing;
  const little = size[0] === length;
  const fields: IdentifyingField[] = [];
  const out = header.slice(0, length);
  for (const [field, at, count] of !isNifti && length === 348
    ? analyzeTexts
    : length === 348
      ? nifti1Texts
      : nifti2Texts) {
    const bytes = header.subarray(at, at + count);
    if (bytes.every((byte) => byte === 0 || byte === 32)) continue;
    fields.push({ name: field, value: printable(bytes) });
    out.fill(0, at, at + count);
  }
  const offset = length === 348 ? view.getFloat32(108, little) : Number(view.getBigInt64(168, little));
  const isPair = magic[1] === 'i' || !isNifti;
  // What lies between the header and the voxels is extensions; behind the header of a pair there is nothing else.
  const end = isPair ? Number.POSITIVE_INFINITY : offset;
  const hasMore = Number.isInteger(end) ? end > length + 4 : isPair;
  const between = hasMore ? header.subarray(length, Math.min(end, header.length)) : new Uint8Array(0);
  if (between.some((byte) => byte !== 0) || (hasMore && !isPair && end > header.length)) {
    const text = printable(between.subarray(12));
    const bytes = (isPair ? header.length : end) - length - 4;
    fields.push({ name: 'extension', value: `${bytes} bytes${text ? `: ${text}` : ''}` });
    const head = new Uint8Array(length + 4);
    head.set(out);
    if (!isPair && length === 348) new DataView(head.buffer).setFloat32(108, 352, little);
    if (!isPair && length === 540) new DataView(head.buffer).setBigInt64(168, 544n, little);
    return { fields, head, from: end };
  }
  return fields.length === 0 ? nothing : { fields, head: out, from: length };
}

// ---- MetaImage (MetaIO documentation): every key that says nothing of the image ----

const metaKeys = new Set(
  (
    'objecttype objectsubtype transformtype ndims binarydata binarydatabyteordermsb elementbyteordermsb compresseddata compresseddatasize ' +
    'compressionlevel transformmatrix rotation orientation offset position origin centerofrotation anatomicalorientation distanceunits ' +
    'elementspacing elementsize dimsize headersize headersizeperslice modality elementmin elementmax elementnumberofchannels ' +
    'elementtype elementdatafile elementorigin color elementtointensityfunctionslope elementtointensityfunctionoffset'
  ).split(' '),
);
/** Keys of words that no reader needs: kept where the word is one of MetaIO's. */
const metaWords: Record<string, RegExp> = {
  modality: /^MET_MOD_[A-Z_]{1,12}$/,
  objectsubtype: /^(Image)?$/i,
  color: /^[\d\s.]*$/,
};
const blank = (length: number) => ' '.repeat(length);

function findMetaImage(
  header: Uint8Array<ArrayBuffer>,
  whole: boolean,
  dataFile: (name: string) => string,
): Found {
  return findLines(header, whole, (line) => {
    const [, lead, key, gap, value] = /^(\s*)([^=:]+?)(\s*[=:]\s*)(.*)$/.exec(line) ?? [];
    if (key === undefined) {
      return line.trim() === '' ? undefined : { name: 'text', value: line, instead: blank(line.length) };
    }
    const word = key.toLowerCase();
    if (word === 'elementdatafile') {
      const named = nameDataFile(value, dataFile);
      if (named === undefined) return { ends: true };
      return { ends: true, detached: true, instead: `${lead}${key}${gap}${named.name}`, drop: named.isList };
    }
    if (metaKeys.has(word) && (value.trim() === '' || (metaWords[word]?.test(value.trim()) ?? true)))
      return undefined;
    // It was taken out before.
    if (key === 'x' && value.trim() === '') return undefined;
    // The length stays: other offsets count from the beginning of the file. The key may be as telling as its value.
    const instead = `${lead}${metaKeys.has(word) ? key : `x${blank(key.length - 1)}`}${gap.trimEnd()}`;
    return { name: key, value, instead: instead.padEnd(line.length) };
  });
}

// ---- NRRD (teem.sourceforge.net/nrrd/format.html): comments, key/value pairs and what no reader needs ----

const nrrdFields = new Set(
  (
    'dimension type blocksize encoding endian spacedimension space sizes spacedirections spaceorigin spaceunits measurementframe ' +
    'kinds spacings thicknesses axismins axismaxs centers centerings lineskip byteskip number min max oldmin oldmax datafile units'
  ).split(' '),
);
const nrrdNumbers = new Set('thicknesses axismaxs number min max oldmin oldmax'.split(' '));
const harmlessComments = [
  'Complete NRRD file format specification at:',
  'http://teem.sourceforge.net/nrrd/format.html',
];
const unitNames =
  /^(\s*"(mm|millimeters?|um|µm|\xb5m|\xc2\xb5m|microns?|m|cm|s|ms|sec|seconds|dimensionless|pixel|pixels|)")*\s*$/i;

function findNrrd(
  header: Uint8Array<ArrayBuffer>,
  whole: boolean,
  dataFile: (name: string) => string,
): Found {
  let first = true;
  return findLines(header, whole, (line) => {
    if (first) {
      first = false;
      const rest = line.slice(8);
      return rest.trim() === ''
        ? undefined
        : { name: 'text', value: rest, instead: line.slice(0, 8).padEnd(line.length) };
    }
    if (line === '') return { ends: true };
    // A line becomes a comment of blanks.
    const instead = '#'.padEnd(line.length);
    if (line.startsWith('#')) {
      const value = line.slice(1).trim();
      return value === '' || harmlessComments.includes(value)
        ? undefined
        : { name: 'comment', value, instead };
    }
    const pair = /^([^:]*):=(.*)$/.exec(line);
    if (pair) return { name: pair[1], value: pair[2], instead };
    const [, name, value] = /^([^:]*):\s*(.*)$/.exec(line) ?? [];
    if (name === undefined) return { name: 'text', value: line, instead };
    const key = name.toLowerCase().replace(/\s+/g, '');
    if (key === 'datafile') {
      const named = nameDataFile(value, dataFile);
      if (named === undefined) return undefined;
      return { detached: true, instead: `${name}: ${named.name}`, drop: named.isList, ends: named.isList };
    }
    const isKept =
      nrrdFields.has(key) &&
      (!nrrdNumbers.has(key) || /^[\d\s.+\-einaf?]*$/i.test(value)) &&
      (!/units$/.test(key) || unitNames.test(value));
    return isKept ? undefined : { name, value, instead };
  });
}

/** What a header calls the file of its voxels from now on; undefined when they follow in the same file. */
function nameDataFile(
  value: string,
  dataFile: (name: string) => string,
): { name: string; isList: boolean } | undefined {
  const text = value.trim();
  if (text === '' || /^local$/i.test(text)) return undefined;
  // Lists and patterns of files are read nowhere; their names need not be told to learn that.
  if (/^list\b/i.test(text)) return { name: 'LIST', isList: true };
  if (text.includes('%')) return { name: 'volume%03d.raw 1 2 1', isList: false };
  const name = baseName(text);
  return { name: dataFile(name) === name ? text : dataFile(name), isList: false };
}

interface LineFound {
  /** Of a text that is taken out. */
  name?: string;
  value?: string;
  instead?: string;
  /** The header's last line. */
  ends?: boolean;
  /** The voxels are in another file: lines may change their length, and nothing else follows. */
  detached?: boolean;
  /** What follows in the file is dropped. */
  drop?: boolean;
}

/** Goes through a header of text line by line and writes it again with what `look` puts in a line's place. */
function findLines(
  header: Uint8Array<ArrayBuffer>,
  whole: boolean,
  look: (line: string) => LineFound | undefined,
): Found {
  const fields: IdentifyingField[] = [];
  const lines: string[] = [];
  let isChanged = false;
  let isDetached = false;
  let at = 0;
  let ended = false;
  let drop = false;
  while (at < header.length && !ended) {
    const newline = header.indexOf(10, at);
    const end = newline < 0 ? header.length : newline + 1;
    const full = latin1(header.subarray(at, end));
    const line = full.replace(/\r?\n$/, '');
    const found = look(line);
    if (found?.name !== undefined) fields.push({ name: found.name, value: shown(found.value ?? '') });
    const instead = found?.instead ?? line;
    if (instead !== line) isChanged = true;
    lines.push(instead + full.slice(line.length));
    isDetached ||= found?.detached ?? false;
    ended = found?.ends ?? false;
    drop ||= found?.drop ?? false;
    at = end;
  }
  if (!ended && !whole) {
    throw new TomaatError(
      'BAD_HEADER',
      `The header does not end within ${longestHeader} bytes: write the file again without its extra fields`,
    );
  }
  // Nobody reads what lies behind a header that names another file.
  drop ||= isDetached && ended && (at < header.length || !whole);
  if (!isChanged && !drop) return { fields, from: 0 };
  const text = lines.join('');
  const head = Uint8Array.from(text, (character) => character.charCodeAt(0));
  return { fields, head, from: drop ? Number.POSITIVE_INFINITY : at };
}

// ---- gzip (RFC 1952) ----

/** The member's header: its length, and what it tells. */
function readGzipHeader(bytes: Uint8Array): { length: number; fields: IdentifyingField[] } {
  const flags = bytes[3];
  const fields: IdentifyingField[] = [];
  const seconds = (bytes[4] | (bytes[5] << 8) | (bytes[6] << 16) | (bytes[7] << 24)) >>> 0;
  let at = 10;
  if (flags & 4) {
    const length = bytes[at] | (bytes[at + 1] << 8);
    fields.push({ name: 'gzip extra field', value: `${length} bytes` });
    at += 2 + length;
  }
  for (const [flag, name] of [
    [8, 'gzip file name'],
    [16, 'gzip comment'],
  ] as const) {
    if (!(flags & flag)) continue;
    const end = bytes.indexOf(0, at);
    if (end < 0) return { length: at, fields };
    fields.push({ name, value: printable(bytes.subarray(at, end)) });
    at = end + 1;
  }
  if (flags & 2) at += 2;
  if (seconds !== 0) fields.push({ name: 'gzip time', value: new Date(seconds * 1000).toISOString() });
  return { length: at, fields };
}

/**
 * Whether a later member of the file has a header with more than the least. Found by its bytes, without unpacking: what
 * only looks like one costs no more than packing again.
 */
async function hasSpeakingMember(file: TextSource, from: number): Promise<boolean> {
  let carried = new Uint8Array(0);
  for await (const chunk of file.read(from)) {
    const bytes = new Uint8Array(carried.length + chunk.length);
    bytes.set(carried);
    bytes.set(chunk, carried.length);
    for (let at = bytes.indexOf(0x1f); at >= 0 && at + 10 <= bytes.length; at = bytes.indexOf(0x1f, at + 1)) {
      if (bytes[at + 1] !== 0x8b || bytes[at + 2] !== 8 || bytes[at + 3] > 31) continue;
      const isHeader = [0, 2, 4].includes(bytes[at + 8]) && (bytes[at + 9] <= 13 || bytes[at + 9] === 255);
      const speaks = (bytes[at + 3] & 28) !== 0 || bytes.subarray(at + 4, at + 8).some((byte) => byte !== 0);
      if (isHeader && speaks) return true;
    }
    carried = bytes.slice(Math.max(0, bytes.length - 9));
  }
  return false;
}

/** The first unpacked bytes, as far as a header goes; what is broken is left for the reader of volumes to explain. */
async function inflateStart(
  file: TextSource,
  platform: Platform,
): Promise<{ bytes: Uint8Array<ArrayBuffer>; whole: boolean }> {
  try {
    let limit = 4096;
    const bytes = await collect(platform.inflate(file.read(), 'gzip'), limit, (start, wanted) => {
      if (start.length >= 4096 && wanted === 4096) limit = headerLength(start);
      return limit;
    });
    return { bytes, whole: bytes.length < limit };
  } catch {
    return { bytes: new Uint8Array(0), whole: true };
  }
}

/** How much of an unpacked file is needed to find all its text. */
function headerLength(start: Uint8Array): number {
  if (isNrrd(start) || isMetaImage(start)) return longestHeader;
  const view = new DataView(start.buffer, start.byteOffset, start.byteLength);
  const isSecond = view.getInt32(0, true) === 540 || view.getInt32(0) === 540;
  const offsets = isSecond
    ? [Number(view.getBigInt64(168, true)), Number(view.getBigInt64(168))]
    : [view.getFloat32(108, true), view.getFloat32(108)];
  return Math.max(4096, ...offsets.filter((offset) => offset <= longestHeader));
}

const shown = (text: string) => text.slice(0, longestShown);

/** What can be read of some bytes. */
function printable(bytes: Uint8Array): string {
  return shown(
    latin1(bytes.subarray(0, 4 * longestShown))
      .replace(/[^\x20-\x7e\xa0-\xff]+/g, ' ')
      .trim(),
  );
}

// ---- Names ----

const knownEnding =
  /(\.nii\.gz|\.img\.gz|\.hdr\.gz|\.nii|\.hdr|\.img|\.mha|\.mhd|\.raw|\.zraw|\.nrrd|\.nhdr|\.h5|\.mat|\.tfm|\.txt)$/i;

/**
 * Names for the files of one input that tell nothing of where they came from: the input's, with each file's ending. A
 * header that names the file of its voxels has to be written with the name that this gives for it.
 */
export function neutralNames(input: string, names: readonly string[]): string[] {
  const endings = names.map((name) => knownEnding.exec(name)?.[0].toLowerCase() ?? '');
  const isHeader = (ending: string) => ending === '.mhd' || ending === '.nhdr';
  const isPair = endings.some(isHeader);
  const taken = new Set<string>();
  return endings.map((ending) => {
    // The header of a pair says how its voxels are packed, not their file's name.
    const end = isPair && !isHeader(ending) && ending === '' ? '.raw' : ending;
    let name = `${input}${end}`;
    for (let count = 2; taken.has(name); count++) name = `${input}-${count}${end}`;
    taken.add(name);
    return name;
  });
}

import { TomaatError } from '../errors.ts';
import { baseName, latin1, parseDecimal } from './header.ts';
import { type Found, type IdentifyingField, shown } from './identifying-found.ts';
import { isListOfUnits } from './nrrd-geometry.ts';

/*
 * Removes from headers that are lines of text (MetaImage, NRRD) what no reader of voxels and geometry needs. A line is cut by
 * index, never by a regular expression that could backtrack, and a value stays only if its field accepts that
 * kind of value.
 */

/** The most of a file that is searched for the end of such a header. */
export const longestHeader = 4 * 2 ** 20;
/** Lines between two pauses, so that a huge header does not block the page. */
const linesAtOnce = 4096;
/** The most fields that are listed: nobody reads more, and a hostile file has millions. */
const mostNamed = 1000;

interface LineFound {
  /** The most characters shown of a removed text. */
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

/** Reads a text header line by line and rewrites it with the replacements from `look`. */
async function findLines(
  header: Uint8Array<ArrayBuffer>,
  whole: boolean,
  look: (line: string) => LineFound | undefined,
): Promise<Found> {
  const fields: IdentifyingField[] = [];
  const parts: string[] = [];
  let lines: string[] = [];
  let unnamed = 0;
  let isChanged = false;
  let isDetached = false;
  let at = 0;
  let ended = false;
  let drop = false;
  while (at < header.length && !ended) {
    if (lines.length === linesAtOnce) {
      parts.push(lines.join(''));
      lines = [];
      await new Promise((resolve) => setTimeout(resolve));
    }
    const newline = header.indexOf(10, at);
    const end = newline < 0 ? header.length : newline + 1;
    const full = latin1(header.subarray(at, end));
    const line = full.slice(0, full.length - (full.endsWith('\r\n') ? 2 : full.endsWith('\n') ? 1 : 0));
    const found = look(line);
    if (found?.name !== undefined) {
      if (fields.length < mostNamed)
        fields.push({ name: shown(found.name), value: shown(found.value ?? '') });
      else unnamed++;
    }
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
      `The header does not end within ${longestHeader} bytes. Write the file again without its extra fields`,
    );
  }
  if (unnamed > 0) fields.push({ name: 'text', value: `${unnamed} more lines` });
  // No program reads anything after a header that names another file.
  drop ||= isDetached && ended && (at < header.length || !whole);
  if (!isChanged && !drop) return { fields, from: 0 };
  const text = parts.join('') + lines.join('');
  const head = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) head[i] = text.charCodeAt(i);
  return { fields, head, from: drop ? Number.POSITIVE_INFINITY : at };
}

// ---- Values ----

/** The values that a field accepts, and the replacement of any other; without one, the field is removed. */
interface FieldRule {
  takes(value: string): boolean;
  else?(value: string): string;
}

/** A value that a reader refuses, or treats as unknown, as it would the original. */
const refused = () => '?';
const wordsOf = (value: string) => value.split(/[\s,]+/).filter(Boolean);
const oneOf = (names: string) => {
  const known = new Set(names.toLowerCase().split(' '));
  return (value: string) => known.has(value.trim().toLowerCase());
};
const specialNumber = oneOf('nan +nan -nan inf +inf -inf infinity');
const isNumber = (word: string) => !Number.isNaN(parseDecimal(word)) || specialNumber(word);
const isNumbers = (value: string) => wordsOf(value).every(isNumber);
const isVectors = (value: string) =>
  value
    .split(/[\s,()]+/)
    .filter(Boolean)
    .every((word) => isNumber(word) || word.toLowerCase() === 'none');
const each = (takes: (word: string) => boolean) => (value: string) =>
  value.split(/\s+/).filter(Boolean).every(takes);

function rules(table: readonly (readonly [names: string, rule: FieldRule])[]): Map<string, FieldRule> {
  return new Map(table.flatMap(([names, rule]) => names.split(' ').map((name) => [name, rule] as const)));
}

// ---- MetaImage (MetaIO documentation) ----

/** Such as RAI, with ? for an axis without a direction. */
const isAxes = (value: string) => {
  if (value.length > 4) return false;
  const letters = [...value].filter((letter) => letter !== '?');
  const pairs = ['RL', 'AP', 'IS'].filter((pair) => letters.some((letter) => pair.includes(letter)));
  return letters.length === pairs.length;
};

const metaRules = rules([
  [
    'ndims dimsize elementspacing elementsize transformmatrix rotation orientation offset position origin ' +
      'elementnumberofchannels headersize compresseddatasize',
    { takes: isNumbers, else: refused },
  ],
  ['centerofrotation', { takes: isNumbers }],
  ['anatomicalorientation', { takes: isAxes }],
  [
    'binarydata binarydatabyteordermsb elementbyteordermsb compresseddata',
    { takes: oneOf('true false t f 1 0'), else: (value) => (/^[t1y]/i.test(value) ? '1' : '0') },
  ],
  ['objecttype', { takes: oneOf('Image'), else: refused }],
  ['objectsubtype', { takes: oneOf('Image') }],
  ['transformtype', { takes: oneOf('MatrixOffset') }],
  ['distanceunits', { takes: oneOf('nm um µm mm cm dm m km in ft mil unknown ?'), else: refused }],
  ['modality', { takes: oneOf('MET_MOD_CT MET_MOD_MR MET_MOD_NM MET_MOD_US MET_MOD_OTHER MET_MOD_UNKNOWN') }],
  [
    'elementtype',
    {
      takes: oneOf(
        'MET_UCHAR MET_CHAR MET_USHORT MET_SHORT MET_UINT MET_INT MET_ULONG MET_LONG MET_ULONG_LONG MET_LONG_LONG MET_FLOAT ' +
          'MET_DOUBLE MET_NONE MET_OTHER MET_STRING MET_ASCII_CHAR',
      ),
      else: refused,
    },
  ],
]);

export function findMetaImage(
  header: Uint8Array<ArrayBuffer>,
  whole: boolean,
  dataFile: (name: string) => string,
): Promise<Found> {
  return findLines(header, whole, (line) => {
    const { lead, key, gap, value } = cutMetaLine(line) ?? {};
    if (key === undefined || gap === undefined || value === undefined) {
      return line.trim() === '' ? undefined : { name: 'text', value: line, instead: ' '.repeat(line.length) };
    }
    const word = key.toLowerCase();
    if (word === 'elementdatafile') {
      const named = nameDataFile(value, dataFile);
      if (named === undefined) return { ends: true };
      return { ends: true, detached: true, instead: `${lead}${key}${gap}${named.name}`, drop: named.isList };
    }
    const rule = metaRules.get(word);
    if (value === '' && (rule || key === 'x')) return undefined;
    if (rule?.takes(value) || rule?.else?.(value) === value) return undefined;
    // The length stays: other offsets count from the beginning of the file. The key may identify the patient as well.
    const instead = rule?.else
      ? `${lead}${key}${gap}${rule.else(value)}`
      : `${lead}${rule ? key : 'x'.padEnd(key.length)}${gap.trimEnd()}`;
    return { name: key, value, instead: instead.padEnd(line.length) };
  });
}

/** `key = value` or `key : value`, with the blanks around it; undefined for any other line. */
function cutMetaLine(line: string): { lead: string; key: string; gap: string; value: string } | undefined {
  const separator = [line.indexOf('='), line.indexOf(':')].filter((at) => at >= 0);
  if (separator.length === 0 || line.includes('\r')) return undefined;
  const at = Math.min(...separator);
  const key = line.slice(0, at).trim();
  const value = line.slice(at + 1).trim();
  if (key === '') return undefined;
  const lead = line.length - line.trimStart().length;
  const after = line.length - line.slice(at + 1).trimStart().length;
  return { lead: line.slice(0, lead), key, gap: line.slice(lead + key.length, after), value };
}

// ---- NRRD (teem.sourceforge.net/nrrd/format.html): comments, key/value pairs and unneeded fields ----

const isSpace = (value: string) => {
  const name = value.trim().toLowerCase();
  const spatial = name.endsWith('-time') ? name.slice(0, -5) : name;
  return oneOf(
    'right-anterior-superior ras left-anterior-superior las left-posterior-superior lps rast last lpst scanner-xyz ' +
      '3d-right-handed 3d-left-handed',
  )(spatial);
};
const isKind = oneOf(
  'domain space time list point vector covariant-vector normal stub scalar complex 2-vector 3-color rgb-color hsv-color ' +
    'xyz-color 4-color rgba-color 3-vector 3-gradient 3-normal 4-vector quaternion 2d-symmetric-matrix ' +
    '2d-masked-symmetric-matrix 2d-matrix 2d-masked-matrix 3d-symmetric-matrix 3d-masked-symmetric-matrix 3d-matrix ' +
    '3d-masked-matrix none ???',
);
const typeNames = new Set(
  (
    'signed char,int8,int8_t,uchar,unsigned char,uint8,uint8_t,short,short int,signed short,signed short int,int16,int16_t,' +
    'ushort,unsigned short,unsigned short int,uint16,uint16_t,int,signed int,int32,int32_t,uint,unsigned int,uint32,uint32_t,' +
    'longlong,long long,long long int,signed long long,signed long long int,int64,int64_t,ulonglong,unsigned long long,' +
    'unsigned long long int,uint64,uint64_t,float,double,block'
  ).split(','),
);

const nrrdRules = rules([
  ['dimension spacedimension sizes spacings axismins lineskip byteskip', { takes: isNumbers, else: refused }],
  ['axismaxs', { takes: isNumbers }],
  ['spacedirections spaceorigin', { takes: isVectors, else: refused }],
  ['measurementframe', { takes: isVectors }],
  ['type', { takes: (value) => typeNames.has(value.trim().toLowerCase()), else: refused }],
  ['encoding', { takes: oneOf('raw gzip gz bzip2 bz2 hex ascii text txt'), else: refused }],
  ['endian', { takes: oneOf('little big'), else: refused }],
  ['space', { takes: isSpace, else: refused }],
  // An unknown kind counts as components, as this one does.
  [
    'kinds',
    {
      takes: each(isKind),
      else: (value) =>
        wordsOf(value)
          .map((word) => (isKind(word) ? word : 'vector'))
          .join(' '),
    },
  ],
  ['centers centerings', { takes: each(oneOf('cell node none ???')) }],
  ['spaceunits units', { takes: isListOfUnits }],
]);
const harmlessComments = [
  'Complete NRRD file format specification at:',
  'http://teem.sourceforge.net/nrrd/format.html',
];

export function findNrrd(
  header: Uint8Array<ArrayBuffer>,
  whole: boolean,
  dataFile: (name: string) => string,
): Promise<Found> {
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
    const colon = line.indexOf(':');
    if (colon < 0 || line.includes('\r')) return { name: 'text', value: line, instead };
    const name = line.slice(0, colon);
    if (line[colon + 1] === '=') return { name, value: line.slice(colon + 2), instead };
    const value = line.slice(colon + 1).trim();
    const key = name.toLowerCase().replace(/\s+/g, '');
    if (key === 'datafile') {
      const named = nameDataFile(value, dataFile);
      if (named === undefined) return undefined;
      return { detached: true, instead: `${name}: ${named.name}`, drop: named.isList, ends: named.isList };
    }
    const rule = nrrdRules.get(key);
    if (rule?.takes(value) || rule?.else?.(value) === value) return undefined;
    if (!rule?.else) return { name, value, instead };
    return { name, value, instead: `${name}: ${rule.else(value)}`.padEnd(line.length) };
  });
}

/** The new name for the file of the voxels in a header; undefined if they follow in the same file. */
function nameDataFile(
  value: string,
  dataFile: (name: string) => string,
): { name: string; isList: boolean } | undefined {
  const text = value.trim();
  if (text === '' || /^local$/i.test(text)) return undefined;
  // Lists and patterns of files are never read, so their names are not needed.
  if (/^list\b/i.test(text)) return { name: 'LIST', isList: true };
  if (text.includes('%')) return { name: 'volume%03d.raw 1 2 1', isList: false };
  const name = baseName(text);
  return { name: dataFile(name) === name ? text : dataFile(name), isList: false };
}

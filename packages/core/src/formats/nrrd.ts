import { TomaatError } from '../errors.ts';
import { sameGrid } from '../geometry/grid.ts';
import type { Bytes, Platform } from '../platform.ts';
import { bytesPerVoxel, type Size, type Volume, type VoxelType, voxelTypeOf } from '../volume.ts';
import type { FileGeometry } from './file-geometry.ts';
import {
  badHeader,
  baseName,
  checkSizes,
  type ExtraAxis,
  type HeaderBytes,
  latin1,
  machineIsBigEndian,
  type ParsedHeader,
  parseDecimal,
  plainLine,
  type ReadLimits,
  type StoredLayout,
  shownValue,
  storedBytesOf,
} from './header.ts';
import { geometryLines, geometryOf, nrrdAffine, readAxes, readGeometry, words } from './nrrd-geometry.ts';
import type { WriterOptions } from './volume-format.ts';
import { interleaved, owned } from './voxel-pieces.ts';

// Fields: "Definition of NRRD File Format" (teem.sourceforge.net/nrrd/format.html).

const typeNames: Record<VoxelType, string> = {
  int8: 'signed char,int8,int8_t',
  uint8: 'uchar,unsigned char,uint8,uint8_t',
  int16: 'short,short int,signed short,signed short int,int16,int16_t',
  uint16: 'ushort,unsigned short,unsigned short int,uint16,uint16_t',
  int32: 'int,signed int,int32,int32_t',
  uint32: 'uint,unsigned int,uint32,uint32_t',
  int64: 'longlong,long long,long long int,signed long long,signed long long int,int64,int64_t',
  uint64: 'ulonglong,unsigned long long,unsigned long long int,uint64,uint64_t',
  float32: 'float',
  float64: 'double',
};
const types = new Map(
  Object.entries(typeNames).flatMap(([type, names]) =>
    names.split(',').map((name) => [name, type as VoxelType] as const),
  ),
);
export const isNrrd = (bytes: Uint8Array): boolean => latin1(bytes.subarray(0, 7)) === 'NRRD000';

/** Whether the bytes begin with the whole first line of an NRRD file. */
export const isNrrdLine = (bytes: Uint8Array): boolean =>
  /^NRRD\d{4}[\r\n]/.test(latin1(bytes.subarray(0, 9)));

/** The fields by lower-case name without spaces, and the end of the header; key/value pairs and comments are skipped. */
function readLines(bytes: Uint8Array): { fields: Map<string, string>; end: number | undefined } {
  const text = latin1(bytes);
  const fields = new Map<string, string>();
  for (let at = text.indexOf('\n') + 1; at > 0; ) {
    const newline = text.indexOf('\n', at);
    if (newline < 0) {
      addField(fields, text.slice(at));
      break;
    }
    const line = text.slice(at, newline).replace(/\r$/, '');
    at = newline + 1;
    if (line === '') return { fields, end: at };
    addField(fields, line);
  }
  return { fields, end: undefined };
}

function addField(fields: Map<string, string>, line: string): void {
  const [, name, value] = /^([^#:][^:]*): (.*)$/.exec(line) ?? [];
  if (!name) return;
  const key = name.toLowerCase().replace(/\s+/g, '');
  if (!fields.has(key)) fields.set(key, value.trim());
}

/**
 * Reads an NRRD header, attached (`.nrrd`) or with one data file (`.nhdr`). See readAxes for which axes are space, frames and
 * components.
 *
 * @throws TomaatError BAD_HEADER, UNSUPPORTED_FORMAT (2-D, bzip2, hex, lists of files, block type), TOO_MANY_VOXELS
 */
export function parseNrrd(file: HeaderBytes, limits: ReadLimits): ParsedHeader<'nrrd', 'nrrd'> {
  const { fields, end } = readLines(file.bytes);
  const required = (name: string): string => {
    const value = fields.get(name.replace(/\s+/g, ''));
    if (value === undefined) throw badHeader(`NRRD field "${name}" is missing. Write the file again`);
    return value;
  };
  const version = Number(latin1(file.bytes.subarray(7, 8)));
  if (!(version >= 1 && version <= 5))
    throw badHeader('The NRRD magic is not one of NRRD0001 to NRRD0005. Write the file again');
  const dimension = parseDecimal(required('dimension'));
  if (!Number.isInteger(dimension) || dimension < 1 || dimension > 16) {
    throw badHeader(
      `NRRD field "dimension" is ${shownValue(required('dimension'))}, not a number from 1 to 16. Write the file again`,
    );
  }
  if (dimension < 3) {
    throw new TomaatError(
      'UNSUPPORTED_FORMAT',
      `The NRRD file is ${dimension}-D and has no position in space. Send a volume, if necessary of one slice`,
    );
  }
  const sizes = checkSizes(
    words(required('sizes'), dimension, 'sizes').map(parseDecimal),
    (i) => `NRRD field "sizes"[${i}]`,
    limits,
  );
  const typeName = required('type').toLowerCase();
  const voxelType = types.get(typeName);
  if (!voxelType) {
    if (typeName === 'block')
      throw new TomaatError(
        'UNSUPPORTED_FORMAT',
        'NRRD field "type" is block. Convert the voxels to a number type',
      );
    throw badHeader('NRRD field "type" is not a known type. Write the file again');
  }

  const axes = readAxes(fields, dimension);
  const spatial = axes.flatMap((axis, i) => (axis.role === 'space' ? [i] : []));
  if (spatial.length !== 3) {
    throw new TomaatError(
      'UNSUPPORTED_FORMAT',
      `The NRRD file has ${spatial.length} spatial axes, not 3 (see its space directions and kinds). Convert it to a volume`,
    );
  }
  const [first, , last] = spatial;
  const extra = axes.map(
    (axis, i): ExtraAxis => ({ role: axis.role === 'frame' ? 'frame' : 'component', count: sizes[i] }),
  );
  const count = (role: ExtraAxis['role']) => {
    const found = extra.filter((axis, i) => axes[i].role !== 'space' && axis.role === role && axis.count > 1);
    if (found.length > 1)
      throw new TomaatError(
        'UNSUPPORTED_FORMAT',
        `The NRRD file has several axes of ${role}s. Split the file`,
      );
    return found[0]?.count ?? 1;
  };
  const size: Size = [sizes[spatial[0]], sizes[spatial[1]], sizes[spatial[2]]];
  const components = count('component');
  const frames = count('frame');
  const { geometry, affine } = readGeometry(fields, axes);
  const place = placeOfVoxels(fields, required('encoding').toLowerCase(), end, file);
  const endian = fields.get('endian')?.toLowerCase();
  if (bytesPerVoxel(voxelType) > 1 && place.encoding !== 'text' && endian !== 'little' && endian !== 'big') {
    throw badHeader(
      `NRRD field "endian" is ${endian === undefined ? 'missing' : 'neither little nor big'}. Write the file again`,
    );
  }
  return {
    header: {
      format: 'nrrd',
      extension: 'nrrd',
      size,
      affine,
      voxelType,
      components,
      frames,
      geometry,
      storedBytes: storedBytesOf(size, components, frames, voxelType),
      compressed: place.encoding === 'gzip',
    },
    layout: {
      ...place,
      bigEndian: bytesPerVoxel(voxelType) > 1 ? endian === 'big' : machineIsBigEndian,
      inner: extra.slice(0, first),
      outer: extra.slice(last + 1),
      ...(last - first > 2 && { order: axes.map(({ role }, i) => ({ role, count: sizes[i] })) }),
    },
  };
}

function placeOfVoxels(
  fields: Map<string, string>,
  encoding: string,
  end: number | undefined,
  file: HeaderBytes,
): Pick<StoredLayout, 'file' | 'offset' | 'skipLines' | 'skip' | 'encoding'> {
  const known: Record<string, StoredLayout['encoding']> = {
    raw: 'raw',
    gzip: 'gzip',
    gz: 'gzip',
    ascii: 'text',
    text: 'text',
    txt: 'text',
  };
  const decoded = known[encoding];
  if (!decoded) {
    if (['bzip2', 'bz2', 'hex'].includes(encoding)) {
      throw new TomaatError(
        'UNSUPPORTED_FORMAT',
        `NRRD field "encoding" is ${encoding}. Write the file again with encoding gzip or raw`,
      );
    }
    throw badHeader('NRRD field "encoding" is not a known encoding. Write the file again as gzip or raw');
  }
  const number = (name: string, least: number) => {
    const text = fields.get(name.replace(' ', '')) ?? '0';
    const value = parseDecimal(text);
    if (!Number.isSafeInteger(value) || value < least || value > 2 ** 40)
      throw badHeader(
        `NRRD field "${name}" is ${shownValue(text)}, not a number of ${name.slice(0, 4)}s. Write the file again`,
      );
    return value;
  };
  const skipLines = number('line skip', 0);
  const byteSkip = number('byte skip', -1);
  const skip = byteSkip < 0 ? 'all but the voxels' : byteSkip;
  const common = { skipLines, skip, encoding: decoded } as const;
  const dataFile = fields.get('datafile');
  if (end === undefined && !file.whole) return { ...common, offset: undefined };
  if (dataFile !== undefined) {
    if (/^LIST\b/.test(dataFile) || dataFile.includes('%')) {
      throw new TomaatError(
        'UNSUPPORTED_FORMAT',
        'NRRD field "data file" names a list of files. Write the volume as one .nrrd file',
      );
    }
    return { ...common, file: { name: baseName(dataFile) }, offset: 0 };
  }
  if (end === undefined)
    throw badHeader(
      'The NRRD file ends with its header, without the empty line and voxels. Send the whole file',
    );
  return { ...common, offset: end };
}

export interface NrrdLabel {
  value: number;
  name: string;
  /** "#rrggbb" */
  color?: string;
}
export interface NrrdOptions {
  /** The geometry from the header of the input; ignored if it is of another format or another grid. */
  geometry?: FileGeometry;
  /** Whether the unit of the space is named; true if missing. Only for a volume whose geometry is not the input's. */
  namesUnits?: boolean;
  description?: string;
  labels?: readonly NrrdLabel[];
  compressed: boolean;
}

/**
 * The header of an `.nrrd` file whose voxels follow, components interleaved. Space, directions and units are the input's on
 * the input's grid (docs/decisions/0007-results-state-the-inputs-geometry.md), else LPS in mm. Labels are written as the key/value
 * pairs from which 3D Slicer names segments.
 */
export function encodeNrrdHeader(
  volume: Volume,
  { geometry, namesUnits = true, description = '', labels = [], compressed }: NrrdOptions,
): Bytes {
  const { size } = volume;
  const isStated = geometry?.format === 'nrrd' && sameGrid(volume, { size, affine: nrrdAffine(geometry) });
  const several = volume.components > 1;
  const content = plainLine(description, 200);
  const lines = [
    'NRRD0005',
    `type: ${typeNames[voxelTypeOf(volume.voxels)].split(',').at(-1)?.replace('_t', '')}`,
    `dimension: ${several ? 4 : 3}`,
    `sizes: ${[...(several ? [volume.components] : []), ...size].join(' ')}`,
    `kinds: ${several ? 'vector ' : ''}domain domain domain`,
    `endian: ${machineIsBigEndian ? 'big' : 'little'}`,
    `encoding: ${compressed ? 'gzip' : 'raw'}`,
    ...geometryLines(isStated ? geometry : geometryOf(volume, namesUnits), several),
    ...(content ? [`content: ${content}`] : []),
    ...labels.flatMap(({ value, name, color }, i) => [
      `Segment${i}_ID:=Segment_${value}`,
      `Segment${i}_Name:=${keyValue(name) || `label ${value}`}`,
      `Segment${i}_LabelValue:=${value}`,
      `Segment${i}_Layer:=0`,
      ...(color ? [`Segment${i}_Color:=${fractions(color)}`] : []),
    ]),
  ];
  return new TextEncoder().encode(`${lines.join('\n')}\n\n`);
}

/**
 * A name as the value of a key/value pair, in UTF-8 as 3D Slicer reads and writes it: on one line, a backslash doubled
 * ("Definition of NRRD File Format", 6). Nothing is cut off: the manifest limits names.
 */
const keyValue = (name: string): string =>
  name
    .toWellFormed()
    .replace(/[\p{Cc}\p{Zl}\p{Zp}]+/gu, ' ')
    .trim()
    .replaceAll('\\', '\\\\');

/** "#rrggbb" as three fractions of 1. */
function fractions(color: string): string {
  const parts = /^#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})$/i.exec(color);
  return (parts?.slice(1) ?? ['80', '80', '80'])
    .map((hex) => (Number.parseInt(hex, 16) / 255).toFixed(4))
    .join(' ');
}

/** An `.nrrd` file, whose voxels are a gzip member unless the level is 0. */
export async function* writeNrrd(
  volume: Volume,
  platform: Platform,
  { level, ...about }: WriterOptions,
): AsyncGenerator<Bytes> {
  const voxels = interleaved(volume);
  yield encodeNrrdHeader(volume, { ...about, compressed: level > 0 });
  yield* level > 0 ? owned(platform.deflate(voxels, 'gzip', level)) : voxels;
}

import { TomaatError } from '../errors.ts';
import { type Affine, lpsToRas, multiply } from '../geometry/affine.ts';
import { bytesPerVoxel, type Size, type Volume, type VoxelType, voxelTypeOf } from '../volume.ts';
import {
  badHeader,
  baseName,
  checkAffine,
  checkSizes,
  type ExtraAxis,
  type HeaderBytes,
  type LengthUnit,
  latin1,
  machineIsBigEndian,
  type ParsedHeader,
  parseDecimal,
  plainLine,
  type ReadLimits,
  type StoredLayout,
  scaleAffine,
  shownValue,
  storedBytesOf,
} from './header.ts';

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
/** From a space's coordinates to RAS+, by the signs of x and y. Where no anatomical space is named, ITK takes LPS. */
const spaces: Record<string, readonly [number, number]> = {
  'right-anterior-superior': [1, 1],
  ras: [1, 1],
  'left-anterior-superior': [-1, 1],
  las: [-1, 1],
  'left-posterior-superior': [-1, -1],
  lps: [-1, -1],
  'scanner-xyz': [-1, -1],
  '3d-right-handed': [-1, -1],
};
const units: Record<string, { unit: LengthUnit; mm: number }> = {
  mm: { unit: 'mm', mm: 1 },
  millimeter: { unit: 'mm', mm: 1 },
  millimeters: { unit: 'mm', mm: 1 },
  um: { unit: 'um', mm: 0.001 },
  µm: { unit: 'um', mm: 0.001 },
  micron: { unit: 'um', mm: 0.001 },
  microns: { unit: 'um', mm: 0.001 },
  m: { unit: 'm', mm: 1000 },
  cm: { unit: 'mm', mm: 10 },
};
const frameKinds = new Set(['list', 'time', 'none']);
const spaceKinds = new Set(['domain', 'space']);

export const isNrrd = (bytes: Uint8Array): boolean => latin1(bytes.subarray(0, 7)) === 'NRRD000';

/** The fields by lower-case name without spaces, and where the header ends; key/value pairs and comments are passed over. */
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
 * Reads an NRRD header, attached (`.nrrd`) or beside one data file (`.nhdr`). Axes of space are those with a direction
 * (without directions: those whose kind is domain, space or absent, up to three); of the others, an axis of kind list, time
 * or none, or a slow axis without a kind, is frames, and any other one components.
 *
 * @throws TomaatError BAD_HEADER, UNSUPPORTED_FORMAT (2-D, bzip2, hex, lists of files, block type), TOO_MANY_VOXELS
 */
export function parseNrrd(file: HeaderBytes, limits: ReadLimits): ParsedHeader {
  const { fields, end } = readLines(file.bytes);
  const required = (name: string): string => {
    const value = fields.get(name.replace(/\s+/g, ''));
    if (value === undefined) throw badHeader(`NRRD field "${name}" is missing: write the file again`);
    return value;
  };
  const version = Number(latin1(file.bytes.subarray(7, 8)));
  if (!(version >= 1 && version <= 5))
    throw badHeader('The NRRD magic names no version from NRRD0001 to NRRD0005: write the file again');
  const dimension = parseDecimal(required('dimension'));
  if (!Number.isInteger(dimension) || dimension < 1 || dimension > 16) {
    throw badHeader(
      `NRRD field "dimension" is ${shownValue(required('dimension'))}, not a number from 1 to 16: write the file again`,
    );
  }
  if (dimension < 3) {
    throw new TomaatError(
      'UNSUPPORTED_FORMAT',
      `The NRRD file is ${dimension}-D and has no place in space: send a volume, if need be of one slice`,
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
        'NRRD field "type" is block: convert the voxels to a number type',
      );
    throw badHeader('NRRD field "type" is no type: write the file again');
  }

  const axes = readAxes(fields, dimension);
  const spatial = axes.flatMap((axis, i) => (axis.role === 'space' ? [i] : []));
  if (spatial.length !== 3) {
    throw new TomaatError(
      'UNSUPPORTED_FORMAT',
      `The NRRD file has ${spatial.length} axes of space, not 3 (see its space directions and kinds): convert it to a volume`,
    );
  }
  const [first, , last] = spatial;
  if (last - first !== 2)
    throw new TomaatError(
      'UNSUPPORTED_FORMAT',
      'The NRRD file has another axis between those of space: permute its axes first',
    );
  const extra = axes.map(
    (axis, i): ExtraAxis => ({ role: axis.role === 'frame' ? 'frame' : 'component', count: sizes[i] }),
  );
  const count = (role: ExtraAxis['role']) => {
    const found = extra.filter((axis, i) => (i < first || i > last) && axis.role === role && axis.count > 1);
    if (found.length > 1)
      throw new TomaatError(
        'UNSUPPORTED_FORMAT',
        `The NRRD file has several axes of ${role}s: split the file`,
      );
    return found[0]?.count ?? 1;
  };
  const size: Size = [sizes[first], sizes[first + 1], sizes[last]];
  const components = count('component');
  const frames = count('frame');
  const { affine, unit } = readGeometry(fields, axes.slice(first, last + 1), dimension, first);
  const place = placeOfVoxels(fields, required('encoding').toLowerCase(), end, file);
  const endian = fields.get('endian')?.toLowerCase();
  if (bytesPerVoxel(voxelType) > 1 && place.encoding !== 'text' && endian !== 'little' && endian !== 'big') {
    throw badHeader(
      `NRRD field "endian" is ${endian === undefined ? 'missing' : 'neither little nor big'}: write the file again`,
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
      unit,
      storedBytes: storedBytesOf(size, components, frames, voxelType),
      compressed: place.encoding === 'gzip',
    },
    layout: {
      ...place,
      bigEndian: bytesPerVoxel(voxelType) > 1 ? endian === 'big' : machineIsBigEndian,
      inner: extra.slice(0, first),
      outer: extra.slice(last + 1),
    },
  };
}

function words(value: string, count: number, field: string): string[] {
  const list = value.split(/\s+/).filter(Boolean);
  if (list.length !== count)
    throw badHeader(
      `NRRD field "${field}" has ${list.length} entries for ${count} axes: write the file again`,
    );
  return list;
}

interface Axis {
  role: 'space' | 'frame' | 'component';
  direction?: number[];
}

function readAxes(fields: Map<string, string>, dimension: number): Axis[] {
  const kindList = fields.get('kinds');
  const kinds = kindList === undefined ? undefined : words(kindList.toLowerCase(), dimension, 'kinds');
  const directionList = fields.get('spacedirections');
  let directions: (number[] | undefined)[] | undefined;
  if (directionList !== undefined) {
    const entries = directionList.match(/none|\([^()]*\)/gi) ?? [];
    if (entries.length !== dimension) {
      throw badHeader(
        `NRRD field "space directions" has ${entries.length} entries for ${dimension} axes: write the file again`,
      );
    }
    directions = entries.map((entry) => {
      if (/^none$/i.test(entry) || /^\((\s*nan\s*,?)+\)$/i.test(entry)) return undefined;
      return readVector(entry, 'space directions');
    });
  }
  let inSpace = 0;
  return Array.from({ length: dimension }, (_, i): Axis => {
    const kind = kinds?.[i];
    const direction = directions?.[i];
    const known = kind !== undefined && kind !== '???';
    if (directions ? direction : (!known || spaceKinds.has(kind)) && inSpace < 3) {
      inSpace++;
      return { role: 'space', direction };
    }
    if (kind === 'complex')
      throw new TomaatError(
        'UNSUPPORTED_FORMAT',
        'The voxels of the NRRD file are complex numbers: convert them to magnitudes',
      );
    if (known && !spaceKinds.has(kind)) return { role: frameKinds.has(kind) ? 'frame' : 'component' };
    return { role: inSpace > 0 ? 'frame' : 'component' };
  });
}

function readVector(text: string, field: string): number[] {
  const values = text
    .replace(/^\(|\)$/g, '')
    .split(',')
    .map((v) => parseDecimal(v.trim()));
  if (values.length !== 3 || values.some(Number.isNaN)) {
    throw badHeader(
      `NRRD field "${field}" has ${shownValue(text)}, not three finite numbers: write the file again`,
    );
  }
  return values;
}

function readGeometry(
  fields: Map<string, string>,
  axes: Axis[],
  dimension: number,
  first: number,
): { affine: Affine; unit: LengthUnit } {
  const space = fields.get('space')?.toLowerCase();
  if (space !== undefined && !Object.hasOwn(spaces, space)) {
    throw new TomaatError(
      'UNSUPPORTED_FORMAT',
      'NRRD field "space" is none of three anatomical dimensions: write the file in a space of three dimensions, such as left-posterior-superior',
    );
  }
  const spaceDimension = fields.get('spacedimension');
  if (spaceDimension !== undefined && parseDecimal(spaceDimension) !== 3) {
    throw new TomaatError(
      'UNSUPPORTED_FORMAT',
      `NRRD field "space dimension" is ${shownValue(spaceDimension)}: only volumes in a space of 3 dimensions are read`,
    );
  }
  let linear: number[][];
  let origin = [0, 0, 0];
  if (axes[0].direction) {
    linear = axes.map((axis) => axis.direction ?? [0, 0, 0]);
    const text = fields.get('spaceorigin');
    if (text !== undefined) origin = readVector(text, 'space origin');
  } else {
    const perAxis = (name: string, key: string) => {
      const value = fields.get(key);
      return value === undefined ? undefined : words(value, dimension, name).slice(first, first + 3);
    };
    const spacings = perAxis('spacings', 'spacings')?.map((word, i) => {
      const value = /^nan$/i.test(word) ? 1 : parseDecimal(word);
      if (!(Math.abs(value) > 0))
        throw badHeader(
          `NRRD field "spacings"[${first + i}] is ${shownValue(word)}, but a spacing is not 0: write the file again with its true spacing`,
        );
      return value;
    }) ?? [1, 1, 1];
    const minima = perAxis('axis mins', 'axismins')?.map(parseDecimal);
    const centres = perAxis('centers', fields.has('centers') ? 'centers' : 'centerings');
    if (minima && !minima.some(Number.isNaN)) {
      origin = minima.map((v, i) => v + (centres?.[i].toLowerCase() === 'node' ? 0 : spacings[i] / 2));
    }
    linear = spacings.map((s, i) => [0, 1, 2].map((k) => (k === i ? s : 0)));
  }
  const names = [...(fields.get('spaceunits') ?? '').matchAll(/"([^"]*)"/g)].map((m) =>
    m[1].trim().toLowerCase(),
  );
  if (new Set(names).size > 1)
    throw badHeader('NRRD field "space units" names different units: write the file again in mm');
  const { unit, mm } = names.length
    ? (Object.hasOwn(units, names[0]) && units[names[0]]) || { unit: 'unknown' as const, mm: 1 }
    : { unit: 'unknown' as const, mm: 1 };
  const sign = [...spaces[space ?? 'lps'], 1];
  const affine = [0, 1, 2].flatMap((r) => [...linear.map((axis) => axis[r] * sign[r]), origin[r] * sign[r]]);
  return {
    affine: checkAffine(
      scaleAffine([...affine, 0, 0, 0, 1], mm),
      'The geometry of the NRRD header (space directions, space origin)',
    ),
    unit,
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
        `NRRD field "encoding" is ${encoding}: write the file again with encoding gzip or raw`,
      );
    }
    throw badHeader('NRRD field "encoding" is no encoding: write the file again as gzip or raw');
  }
  const number = (name: string, least: number) => {
    const text = fields.get(name.replace(' ', '')) ?? '0';
    const value = parseDecimal(text);
    if (!Number.isSafeInteger(value) || value < least || value > 2 ** 40)
      throw badHeader(
        `NRRD field "${name}" is ${shownValue(text)}, not a number of ${name.slice(0, 4)}s: write the file again`,
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
        'NRRD field "data file" names a list of files: write the volume as one .nrrd file',
      );
    }
    return { ...common, file: { name: baseName(dataFile) }, offset: 0 };
  }
  if (end === undefined)
    throw badHeader(
      'The NRRD file ends with its header, without the empty line and voxels: send the whole file',
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
  description?: string;
  labels?: readonly NrrdLabel[];
  compressed: boolean;
}

/**
 * The header of an `.nrrd` file whose voxels follow, components interleaved, in LPS. Labels are written as key/value pairs
 * by which 3D Slicer names segments.
 */
export function encodeNrrdHeader(
  volume: Volume,
  { description = '', labels = [], compressed }: NrrdOptions,
): Uint8Array {
  const lps = multiply(lpsToRas, volume.affine);
  const several = volume.components > 1;
  const content = plainLine(description, 200);
  const vector = (c: number) => `(${[0, 1, 2].map((r) => lps[4 * r + c]).join(',')})`;
  const lines = [
    'NRRD0005',
    `type: ${typeNames[voxelTypeOf(volume.voxels)].split(',').at(-1)?.replace('_t', '')}`,
    `dimension: ${several ? 4 : 3}`,
    'space: left-posterior-superior',
    `sizes: ${[...(several ? [volume.components] : []), ...volume.size].join(' ')}`,
    `space directions: ${several ? 'none ' : ''}${[0, 1, 2].map(vector).join(' ')}`,
    `kinds: ${several ? 'vector ' : ''}domain domain domain`,
    `endian: ${machineIsBigEndian ? 'big' : 'little'}`,
    `encoding: ${compressed ? 'gzip' : 'raw'}`,
    `space origin: ${vector(3)}`,
    'space units: "mm" "mm" "mm"',
    ...(content ? [`content: ${content}`] : []),
    ...labels.flatMap(({ value, name, color }, i) => [
      `Segment${i}_ID:=Segment_${value}`,
      `Segment${i}_Name:=${plainLine(name, 200)}`,
      `Segment${i}_LabelValue:=${value}`,
      `Segment${i}_Layer:=0`,
      ...(color ? [`Segment${i}_Color:=${fractions(color)}`] : []),
    ]),
  ];
  return new TextEncoder().encode(`${lines.join('\n')}\n\n`);
}

/** "#rrggbb" as three fractions of 1. */
function fractions(color: string): string {
  const parts = /^#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})$/i.exec(color);
  return (parts?.slice(1) ?? ['80', '80', '80'])
    .map((hex) => (Number.parseInt(hex, 16) / 255).toFixed(4))
    .join(' ');
}

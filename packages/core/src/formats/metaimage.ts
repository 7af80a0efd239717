import { TomaatError } from '../errors.ts';
import {
  type Affine,
  composeAffine,
  directionOf,
  lpsToRas,
  multiply,
  originOf,
  spacingOf,
  type Vec3,
} from '../geometry/affine.ts';
import { sameGrid } from '../geometry/grid.ts';
import type { Bytes, Platform } from '../platform.ts';
import { type Grid, type Size, type Volume, type VoxelType, voxelTypeOf } from '../volume.ts';
import { type FileGeometry, type MetaImageGeometry, metaImageUnits } from './file-geometry.ts';
import {
  badHeader,
  baseName,
  checkAffine,
  checkSizes,
  type HeaderBytes,
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
import type { WriterOptions } from './volume-format.ts';
import { collectBytes, interleaved } from './voxel-pieces.ts';

// Fields: the MetaIO documentation (itk.org/Wiki/MetaIO/Documentation); for anything it does not define, what ITK does.

const elementTypes: Record<string, VoxelType> = {
  MET_UCHAR: 'uint8',
  MET_CHAR: 'int8',
  MET_USHORT: 'uint16',
  MET_SHORT: 'int16',
  MET_UINT: 'uint32',
  MET_INT: 'int32',
  MET_ULONG: 'uint32',
  MET_LONG: 'int32',
  MET_ULONG_LONG: 'uint64',
  MET_LONG_LONG: 'int64',
  MET_FLOAT: 'float32',
  MET_DOUBLE: 'float64',
};
/** An unknown unit counts as mm: ITK ignores units. */
const mmPerUnit = { '?': 1, um: 0.001, mm: 1, cm: 10 } as const;

/** Whether the bytes begin like a MetaImage header. */
export function isMetaImage(bytes: Uint8Array): boolean {
  const start = latin1(bytes.subarray(0, 4096));
  const keys = start.split('\n').map((line) => line.split(/[=:]/, 1)[0].trim());
  return (
    /^\s*(ObjectType|NDims)\s*[=:]/.test(start) ||
    (keys.includes('NDims') && (keys.includes('DimSize') || keys.includes('ElementType')))
  );
}

/** Whether the bytes begin with a line `Key = value`. */
export const beginsWithField = (bytes: Uint8Array): boolean =>
  /^\s*[A-Za-z_]+[ \t]*=[ \t]*[^=\s]/.test(latin1(bytes));

/** The fields up to ElementDataFile, which ends the header, and the end of its line. */
function readLines(bytes: Uint8Array): { fields: Map<string, string>; end: number | undefined } {
  const text = latin1(bytes);
  const fields = new Map<string, string>();
  for (let at = 0; at < text.length; ) {
    const newline = text.indexOf('\n', at);
    if (newline < 0) {
      const [, key, value] = /^\s*(ElementDataFile)\s*[=:](.*)$/.exec(text.slice(at)) ?? [];
      if (key) fields.set(key, value.trim());
      return { fields, end: undefined };
    }
    const [, key, value] = /^\s*(\w+)\s*[=:](.*)$/.exec(text.slice(at, newline).replace(/\r$/, '')) ?? [];
    at = newline + 1;
    if (key) fields.set(key, value.trim());
    if (key === 'ElementDataFile') return { fields, end: at };
  }
  return { fields, end: undefined };
}

/**
 * Reads a MetaImage header (`.mha`, or `.mhd` with a separate data file). As in ITK, row i of TransformMatrix is the
 * direction of axis i and Offset the first voxel's centre, both LPS; CenterOfRotation and AnatomicalOrientation add
 * nothing; spacing is ElementSpacing, else ElementSize, else 1 mm.
 *
 * @throws TomaatError BAD_HEADER, UNSUPPORTED_FORMAT (2-D, 5-D, lists of files), TOO_MANY_VOXELS
 */
export function parseMetaImage(file: HeaderBytes, limits: ReadLimits): ParsedHeader<'metaimage', 'mha'> {
  const { fields, end } = readLines(file.bytes);
  const first = (...names: string[]): [string, string] | undefined => {
    for (const name of names) {
      const value = fields.get(name);
      if (value !== undefined && value !== '') return [name, value];
    }
    return undefined;
  };
  const numbers = (count: number, ...names: string[]): number[] | undefined => {
    const [name, value] = first(...names) ?? [];
    if (value === undefined) return undefined;
    const list = value.split(/[\s,]+/).map(parseDecimal);
    if (list.length !== count || list.some(Number.isNaN)) {
      throw badHeader(
        `MetaImage field ${name} is ${shownValue(value)}, not ${count} finite number${count > 1 ? 's' : ''}. Write the file again`,
      );
    }
    return list;
  };
  const flag = (...names: string[]) => /^[t1y]/i.test(first(...names)?.[1] ?? '');

  const objectType = first('ObjectType')?.[1] ?? 'Image';
  if (objectType !== 'Image') {
    throw new TomaatError('UNSUPPORTED_FORMAT', 'MetaImage field ObjectType is not Image. Send an image');
  }
  const rank = numbers(1, 'NDims')?.[0];
  if (rank === undefined) throw badHeader('MetaImage field NDims is missing. Write the file again');
  if (rank !== 3 && rank !== 4) {
    if (!(Number.isInteger(rank) && rank > 0))
      throw badHeader(`MetaImage field NDims is ${rank}, not 3 or 4. Write the file again`);
    throw new TomaatError(
      'UNSUPPORTED_FORMAT',
      `MetaImage field NDims is ${rank}: only 3 dimensions are supported, or 4 with frames. Convert the file`,
    );
  }
  const dims = numbers(rank, 'DimSize');
  if (!dims) throw badHeader('MetaImage field DimSize is missing. Write the file again');
  const channels = numbers(1, 'ElementNumberOfChannels')?.[0] ?? 1;
  const sizes = checkSizes(
    [...dims, channels],
    (i) => (i < rank ? `MetaImage field DimSize[${i}]` : 'MetaImage field ElementNumberOfChannels'),
    limits,
  );
  const elementType = first('ElementType')?.[1] ?? '';
  const voxelType = Object.hasOwn(elementTypes, elementType) ? elementTypes[elementType] : undefined;
  if (!voxelType) {
    if (/^MET_\w+$/.test(elementType))
      throw new TomaatError(
        'UNSUPPORTED_FORMAT',
        `MetaImage field ElementType is not one of ${Object.keys(elementTypes).join(', ')}. Convert the voxels to a number type`,
      );
    throw badHeader('MetaImage field ElementType is not a known type. Write the file again');
  }

  const spacing = numbers(rank, 'ElementSpacing', 'ElementSize') ?? new Array<number>(rank).fill(1);
  const matrix =
    numbers(rank * rank, 'TransformMatrix', 'Rotation', 'Orientation') ??
    Array.from({ length: rank * rank }, (_, i) => (i % (rank + 1) === 0 ? 1 : 0));
  const time = rank === 4 ? timeAxis(matrix) : 3;
  const spatial = [0, 1, 2, 3].filter((i) => i !== time);
  const size: Size = [sizes[spatial[0]], sizes[spatial[1]], sizes[spatial[2]]];
  const frames = rank === 4 ? sizes[time] : 1;
  for (const i of spatial) {
    if (!(spacing[i] > 0))
      throw badHeader(
        `MetaImage field ElementSpacing[${i}] is ${spacing[i]}, but a spacing is above 0. Write the file again with its true spacing`,
      );
  }
  const offset = numbers(rank, 'Offset', 'Position', 'Origin') ?? [0, 0, 0];
  const units = metaImageUnits.find((unit) => unit === first('DistanceUnits')?.[1]);
  const geometry: MetaImageGeometry = {
    format: 'metaimage',
    matrix: spatial.flatMap((i) => [0, 1, 2].map((k) => matrix[i * rank + k])),
    offset: offset.slice(0, 3),
    spacing: spatial.map((i) => spacing[i]),
    ...(units && { units }),
  };
  const affine = checkAffine(
    metaImageAffine(geometry),
    'The geometry of the MetaImage header (ElementSpacing, TransformMatrix, Offset)',
  );

  const compressed = flag('CompressedData');
  const text = fields.has('BinaryData') && !flag('BinaryData');
  if (compressed && text)
    throw new TomaatError(
      'UNSUPPORTED_FORMAT',
      'The MetaImage file has CompressedData without BinaryData. Write it again as binary',
    );
  return {
    header: {
      format: 'metaimage',
      extension: 'mha',
      size,
      affine,
      voxelType,
      components: channels,
      frames,
      geometry,
      storedBytes: storedBytesOf(size, channels, frames, voxelType),
      compressed,
    },
    layout: {
      encodedBytes: compressed ? numbers(1, 'CompressedDataSize')?.[0] : undefined,
      ...placeOfVoxels(first('ElementDataFile')?.[1], first('HeaderSize')?.[1], end, file, compressed),
      skipLines: 0,
      encoding: compressed ? 'deflate' : text ? 'text' : 'raw',
      bigEndian: flag('BinaryDataByteOrderMSB', 'ElementByteOrderMSB'),
      inner: [{ role: 'component', count: channels }],
      outer: [{ role: 'frame', count: frames }],
      ...(time < 3 && {
        order: [
          { role: 'component', count: channels },
          ...dims.map((n, i) => ({ role: i === time ? ('frame' as const) : ('space' as const), count: n })),
        ],
      }),
    },
  };
}

/** Which of four axes is that of the frames: the only one along the fourth coordinate. */
function timeAxis(matrix: readonly number[]): number {
  const rows = [0, 1, 2, 3].map((i) => matrix.slice(4 * i, 4 * i + 4));
  const time = rows.findIndex(([x, y, z, t]) => x === 0 && y === 0 && z === 0 && t !== 0);
  if (time >= 0 && rows.every((row, i) => i === time || row[3] === 0)) return time;
  throw new TomaatError(
    'UNSUPPORTED_FORMAT',
    'MetaImage field TransformMatrix has an axis that runs through space and the fourth dimension at once, so its frames are not on one grid. Write each frame as a separate volume',
  );
}

function placeOfVoxels(
  dataFile: string | undefined,
  headerSize: string | undefined,
  end: number | undefined,
  file: HeaderBytes,
  compressed: boolean,
): Pick<StoredLayout, 'file' | 'offset' | 'skip'> {
  if (end === undefined && !file.whole) return { offset: undefined, skip: 0 };
  if (!dataFile) {
    throw badHeader(
      'MetaImage field ElementDataFile, the last of the header, is missing. Send the whole file',
    );
  }
  if (/^LIST\b/.test(dataFile) || dataFile.includes('%')) {
    throw new TomaatError(
      'UNSUPPORTED_FORMAT',
      'MetaImage field ElementDataFile names a list of files. Write the volume as one .mha file',
    );
  }
  const local = /^local$/i.test(dataFile);
  const skipped = headerSize === undefined ? 0 : parseDecimal(headerSize);
  if (
    !Number.isInteger(skipped) ||
    skipped < -1 ||
    skipped > Number.MAX_SAFE_INTEGER ||
    (compressed && skipped < 0)
  ) {
    throw badHeader(
      `MetaImage field HeaderSize is ${shownValue(headerSize ?? '')}, not a number of bytes. Write the file again`,
    );
  }
  if (!local) {
    const name = baseName(dataFile);
    if (skipped < 0) return { file: { name }, offset: 0, skip: 'all but the voxels' };
    return { file: { name }, offset: skipped, skip: 0 };
  }
  if (end === undefined)
    throw badHeader('The MetaImage file ends with its header, without voxels. Send the whole file');
  if (skipped < 0) return { offset: end, skip: 'all but the voxels' };
  if (skipped > 0 && skipped < end) {
    throw badHeader(
      `MetaImage field HeaderSize is ${skipped}, but the header is ${end} bytes long. Write the file again`,
    );
  }
  return { offset: skipped || end, skip: 0 };
}

/** The affine that a geometry states, RAS+ mm. */
function metaImageAffine({ matrix, offset, spacing, units }: MetaImageGeometry): Affine {
  // A row of the file is an axis's direction: a column of the direction matrix.
  const direction = [0, 3, 6, 1, 4, 7, 2, 5, 8].map((i) => matrix[i]);
  const vector = ([x, y, z]: readonly number[]): Vec3 => [x, y, z];
  return scaleAffine(
    multiply(lpsToRas, composeAffine(vector(spacing), direction, vector(offset))),
    units ? mmPerUnit[units] : 1,
  );
}

/** A grid as we state it if no input's header states the same one: in mm. */
function geometryOf({ affine }: Grid): MetaImageGeometry {
  const lps = multiply(lpsToRas, affine);
  const direction = directionOf(lps);
  return {
    format: 'metaimage',
    matrix: [0, 3, 6, 1, 4, 7, 2, 5, 8].map((i) => direction[i]),
    offset: originOf(lps),
    spacing: spacingOf(lps),
  };
}

export interface MetaImageOptions {
  /** The geometry from the header of the input; ignored if it is of another format or another grid. */
  geometry?: FileGeometry;
  description?: string;
  /** Length of the voxels as a zlib stream; absent if they follow uncompressed. */
  compressedBytes?: number;
}

/**
 * The header of an `.mha` file whose voxels follow, components interleaved. Matrix, spacing, offset and unit are the input's
 * on the input's grid (docs/decisions/0007-results-state-the-inputs-geometry.md), else in mm. ITK needs the length of
 * compressed voxels before them: without it, it returns an image of zeros and no error.
 */
export function encodeMetaImageHeader(
  volume: Volume,
  { geometry, description, compressedBytes }: MetaImageOptions,
): Bytes {
  const { size } = volume;
  const type = voxelTypeOf(volume.voxels);
  const isStated =
    geometry?.format === 'metaimage' && sameGrid(volume, { size, affine: metaImageAffine(geometry) });
  const { matrix, offset, spacing, units } = isStated ? geometry : geometryOf(volume);
  const lines = [
    'ObjectType = Image',
    'NDims = 3',
    ...(description ? [`Comment = ${plainLine(description, 200)}`] : []),
    'BinaryData = True',
    `BinaryDataByteOrderMSB = ${machineIsBigEndian ? 'True' : 'False'}`,
    ...(compressedBytes === undefined
      ? ['CompressedData = False']
      : ['CompressedData = True', `CompressedDataSize = ${compressedBytes}`]),
    `TransformMatrix = ${matrix.join(' ')}`,
    `Offset = ${offset.join(' ')}`,
    'CenterOfRotation = 0 0 0',
    `ElementSpacing = ${spacing.join(' ')}`,
    ...(units ? [`DistanceUnits = ${units}`] : []),
    `DimSize = ${size.join(' ')}`,
    ...(volume.components > 1 ? [`ElementNumberOfChannels = ${volume.components}`] : []),
    `ElementType = ${Object.keys(elementTypes).find((key) => elementTypes[key] === type)}`,
    'ElementDataFile = LOCAL',
  ];
  return new TextEncoder().encode(`${lines.join('\n')}\n`);
}

/** An `.mha` file. Of compressed voxels the header states the length, so all are compressed before the first piece. */
export async function* writeMetaImage(
  volume: Volume,
  platform: Platform,
  { level, ...about }: WriterOptions,
): AsyncGenerator<Bytes> {
  const voxels = interleaved(volume);
  if (level > 0) {
    const compressed = await collectBytes(platform.deflate(voxels, 'zlib', level));
    yield encodeMetaImageHeader(volume, { ...about, compressedBytes: compressed.length });
    yield compressed;
  } else {
    yield encodeMetaImageHeader(volume, about);
    yield* voxels;
  }
}

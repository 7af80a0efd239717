import { TomaatError } from '../errors.ts';
import { type Affine, lpsToRas, multiply } from '../geometry/affine.ts';
import type { Grid } from '../volume.ts';
import { type NrrdGeometry, nrrdSpaces, nrrdUnits } from './file-geometry.ts';
import { badHeader, checkAffine, parseDecimal, shownValue } from './header.ts';

// Axes, space and units of an NRRD header: "Definition of NRRD File Format" (teem.sourceforge.net/nrrd/format.html), 4 and 5.

type Space = (typeof nrrdSpaces)[number];
type Unit = (typeof nrrdUnits)[number];
/** Fields by lower-case name without blanks. */
export type NrrdFields = ReadonlyMap<string, string>;

/** From a space's coordinates to RAS+, by the signs of x and y. If no anatomical space is named, ITK assumes LPS. */
const signs: Record<Space, readonly [number, number]> = {
  'right-anterior-superior': [1, 1],
  ras: [1, 1],
  'left-anterior-superior': [-1, 1],
  las: [-1, 1],
  'left-posterior-superior': [-1, -1],
  lps: [-1, -1],
  'scanner-xyz': [-1, -1],
  '3d-right-handed': [-1, -1],
};
const shortTimeSpaces: Record<string, Space> = { rast: 'ras', last: 'las', lpst: 'lps' };

const lengths: readonly (readonly [start: string, mm: number])[] = [
  ['nm', 1e-6],
  ['nano', 1e-6],
  ['um', 0.001],
  ['micr', 0.001],
  ['mm', 1],
  ['milli', 1],
  ['cm', 10],
  ['centi', 10],
  ['m', 1000],
];
/** An unknown unit counts as mm: ITK and 3D Slicer ignore units. */
const mmOf = (unit: Unit): number =>
  unit === '' ? 1 : (lengths.find(([start]) => unit.startsWith(start))?.[1] ?? 1);

const frameKinds = new Set(['list', 'time', 'none']);
const spaceKinds = new Set(['domain', 'space']);

export interface NrrdAxis {
  role: 'space' | 'frame' | 'component';
  direction?: number[];
}

/** The entries of a field with one for each axis, separated by blanks. */
export function words(value: string, count: number, field: string): string[] {
  const list = value.split(/\s+/).filter(Boolean);
  if (list.length !== count)
    throw badHeader(
      `NRRD field "${field}" has ${list.length} entries for ${count} axes. Write the file again`,
    );
  return list;
}

/**
 * The name of the space, and its number of coordinates: 4 if the last one is time, as in ITK's files of a series
 * ("space dimension: 4") and in the spaces whose name ends in -time.
 */
function readSpace(fields: NrrdFields): { space: NrrdGeometry['space']; coordinates: 3 | 4 } {
  const dimension = fields.get('spacedimension');
  const named = fields.get('space')?.toLowerCase();
  if (named !== undefined) {
    const withoutTime = shortTimeSpaces[named] ?? (named.endsWith('-time') ? named.slice(0, -5) : named);
    const space = nrrdSpaces.find((candidate) => candidate === withoutTime);
    const coordinates = withoutTime === named ? 3 : 4;
    if (space && (dimension === undefined || parseDecimal(dimension) === coordinates))
      return { space, coordinates };
    throw new TomaatError(
      'UNSUPPORTED_FORMAT',
      'NRRD field "space" is not an anatomical space of three dimensions, with or without time. Write the file in such a space, for instance left-posterior-superior',
    );
  }
  if (dimension === undefined) return { space: undefined, coordinates: 3 };
  const coordinates = parseDecimal(dimension);
  if (coordinates === 3 || coordinates === 4) return { space: 'dimension', coordinates };
  throw new TomaatError(
    'UNSUPPORTED_FORMAT',
    `NRRD field "space dimension" is ${shownValue(dimension)}: only spaces of 3 dimensions are supported, or of 4 if the last is time. Convert the file`,
  );
}

/** The entries of "space directions": vectors in brackets, and words between them. */
function splitVectors(text: string): string[] {
  const entries: string[] = [];
  for (let at = 0; at < text.length; ) {
    if (/\s/.test(text[at])) {
      at++;
      continue;
    }
    const close = text[at] === '(' ? text.indexOf(')', at) : -1;
    let end = close < 0 ? at + 1 : close + 1;
    while (close < 0 && end < text.length && text[end] !== '(' && !/\s/.test(text[end])) end++;
    entries.push(text.slice(at, end));
    at = end;
  }
  return entries;
}

/** The parts of "(1,2,3)". */
const partsOf = (vector: string): string[] =>
  vector
    .slice(vector.startsWith('(') ? 1 : 0, vector.endsWith(')') ? -1 : undefined)
    .split(',')
    .map((part) => part.trim());

function readVector(text: string, field: string, count: 3 | 4): number[] {
  const values = partsOf(text).map(parseDecimal);
  if (values.length !== count || values.some(Number.isNaN)) {
    throw badHeader(
      `NRRD field "${field}" has ${shownValue(text)}, not ${count === 3 ? 'three' : 'four'} finite numbers. Write the file again`,
    );
  }
  return values;
}

/**
 * The role of each axis. Spatial axes are those with a direction in space (without directions: those whose kind is domain, space or
 * absent, up to three); of the others, an axis along time, one of kind list, time or none, or a slow axis without a kind, is
 * frames, and any other is components.
 */
export function readAxes(fields: NrrdFields, dimension: number): NrrdAxis[] {
  const kindList = fields.get('kinds');
  const kinds = kindList === undefined ? undefined : words(kindList.toLowerCase(), dimension, 'kinds');
  const directionList = fields.get('spacedirections');
  let directions: (number[] | undefined)[] | undefined;
  if (directionList !== undefined) {
    const { coordinates } = readSpace(fields);
    const entries = splitVectors(directionList);
    if (entries.length !== dimension) {
      throw badHeader(
        `NRRD field "space directions" has ${entries.length} entries for ${dimension} axes. Write the file again`,
      );
    }
    directions = entries.map((entry) => {
      if (entry.toLowerCase() === 'none' || partsOf(entry).every((part) => part.toLowerCase() === 'nan'))
        return undefined;
      return readVector(entry, 'space directions', coordinates);
    });
  }
  let inSpace = 0;
  return Array.from({ length: dimension }, (_, i): NrrdAxis => {
    const kind = kinds?.[i];
    const direction = directions?.[i];
    const known = kind !== undefined && kind !== '???';
    if (direction && isTime(direction)) return { role: 'frame' };
    if (directions ? direction : (!known || spaceKinds.has(kind)) && inSpace < 3) {
      inSpace++;
      return { role: 'space', direction: direction?.slice(0, 3) };
    }
    if (kind === 'complex')
      throw new TomaatError(
        'UNSUPPORTED_FORMAT',
        'The voxels of the NRRD file are complex numbers. Convert them to magnitudes',
      );
    if (known && !spaceKinds.has(kind)) return { role: frameKinds.has(kind) ? 'frame' : 'component' };
    return { role: inSpace > 0 ? 'frame' : 'component' };
  });
}

/** Whether a direction of a space with time is along time alone. */
function isTime([x, y, z, time = 0]: readonly number[]): boolean {
  if (time === 0) return false;
  if (x === 0 && y === 0 && z === 0) return true;
  throw new TomaatError(
    'UNSUPPORTED_FORMAT',
    'The NRRD field "space directions" has an axis that runs through space and time at once, so its frames are not on one grid. Write each frame as a separate volume',
  );
}

/**
 * The geometry of the spatial axes, in their order. Its affine is RAS+ mm: each coordinate in its own unit.
 * @throws TomaatError BAD_HEADER, UNSUPPORTED_FORMAT
 */
export function readGeometry(
  fields: NrrdFields,
  axes: readonly NrrdAxis[],
): { geometry: NrrdGeometry; affine: Affine } {
  const { space, coordinates } = readSpace(fields);
  const spatial = axes.flatMap(({ role }, i) => (role === 'space' ? [i] : []));
  const directions = spatial.map((i) => axes[i].direction);
  const geometry: NrrdGeometry = { format: 'nrrd' };
  if (space !== undefined) geometry.space = space;
  const spaceUnits = readUnits(fields, 'space units', [coordinates, 3], [0, 1, 2]);
  if (spaceUnits) geometry.spaceUnits = spaceUnits;
  if (directions[0] && directions[1] && directions[2]) {
    geometry.directions = [directions[0], directions[1], directions[2]];
    const text = fields.get('spaceorigin');
    if (text !== undefined) geometry.origin = readVector(text, 'space origin', coordinates).slice(0, 3);
  } else readSpacings(fields, axes.length, spatial, geometry);
  return {
    geometry,
    affine: checkAffine(
      nrrdAffine(geometry),
      'The geometry of the NRRD header (space directions, space origin)',
    ),
  };
}

/** The axes of a header without directions. */
function readSpacings(
  fields: NrrdFields,
  dimension: number,
  spatial: readonly number[],
  geometry: NrrdGeometry,
): void {
  const perAxis = (name: string, key = name.replace(' ', '')): string[] | undefined => {
    const value = fields.get(key);
    if (value === undefined) return undefined;
    const list = words(value, dimension, name);
    return spatial.map((i) => list[i]);
  };
  const spacings = perAxis('spacings')?.map((word, i) => {
    const value = word.toLowerCase() === 'nan' ? 1 : parseDecimal(word);
    if (!(Math.abs(value) > 0))
      throw badHeader(
        `NRRD field "spacings"[${spatial[i]}] is ${shownValue(word)}, but a spacing must not be 0. Write the file again with its true spacing`,
      );
    return value;
  });
  if (spacings) geometry.spacings = spacings;
  for (const [name, key] of [
    ['axis mins', 'axisMins'],
    ['axis maxs', 'axisMaxs'],
  ] as const) {
    const values = perAxis(name)?.map(parseDecimal);
    if (values?.every(Number.isFinite)) geometry[key] = values;
  }
  const centers = perAxis('centers', fields.has('centers') ? 'centers' : 'centerings')?.map((word) => {
    const lower = word.toLowerCase();
    return lower === 'cell' || lower === 'node' ? lower : '???';
  });
  if (centers) geometry.centers = centers;
  const units = readUnits(fields, 'units', [dimension], spatial);
  if (units) geometry.units = units;
}

/**
 * The quoted words of a field at three places; one word for all is accepted too. An unknown word becomes an empty one, and
 * undefined means three empty ones.
 */
function readUnits(
  fields: NrrdFields,
  field: 'space units' | 'units',
  counts: readonly number[],
  places: readonly number[],
): Unit[] | undefined {
  const text = fields.get(field.replace(' ', ''));
  if (text === undefined) return undefined;
  const quoted = text.split('"');
  const names = quoted.filter((_, i) => i % 2 === 1 && i < quoted.length - 1).map(unitOf);
  if (names.length === 0) return undefined;
  const isUniform = names.every((name) => name === names[0]);
  if (!isUniform && !counts.includes(names.length)) {
    throw badHeader(
      `NRRD field "${field}" has ${names.length} entries, not ${counts[0]}. Write the file again with one for each`,
    );
  }
  const units = places.map((place) => (isUniform ? names[0] : names[place]));
  return units.every((unit) => unit === '') ? undefined : units;
}

/** The format's word for a unit of length. The micro sign may be in Latin-1 or, as here, in the two bytes of UTF-8. */
function unitOf(word: string): Unit {
  const plain = word
    .trim()
    .replace(/^(\u00c2?\u00b5|\u00ce\u00bc|\u03bc)m$/, 'um')
    .toLowerCase()
    .replace(/metre(s?)$/, 'meter$1');
  return nrrdUnits.find((unit) => unit === plain) ?? '';
}

/** Whether a text is a list of units in quotes that are all known here or identify nobody. */
export function isListOfUnits(text: string): boolean {
  const quoted = text.split('"');
  const harmless = ['', 's', 'ms', 'sec', 'seconds', 'dimensionless', 'pixel', 'pixels', '???', 'none'];
  return (
    quoted.length % 2 === 1 &&
    quoted.every((part, i) =>
      i % 2 === 0 ? part.trim() === '' : unitOf(part) !== '' || harmless.includes(part.trim().toLowerCase()),
    )
  );
}

/** The affine that a geometry states, RAS+ mm. */
export function nrrdAffine(geometry: NrrdGeometry): Affine {
  const { space, directions, spacings = [1, 1, 1], axisMins, centers } = geometry;
  const linear = directions ?? spacings.map((s, i) => [0, 1, 2].map((k) => (k === i ? s : 0)));
  const first = axisMins?.map((v, i) => v + (centers?.[i] === 'node' ? 0 : spacings[i] / 2));
  const origin = (directions ? geometry.origin : first) ?? [0, 0, 0];
  const units = (directions ? undefined : geometry.units) ?? geometry.spaceUnits;
  const sign = [...(space && space !== 'dimension' ? signs[space] : signs.lps), 1];
  const row = (r: number) => {
    const factor = sign[r] * (units ? mmOf(units[r]) : 1);
    return [...linear.map((axis) => axis[r] * factor), origin[r] * factor];
  };
  return [...row(0), ...row(1), ...row(2), 0, 0, 0, 1];
}

/** A grid as we state it if no input's header states the same one: LPS, mm. */
export function geometryOf({ affine }: Grid, namesUnits = true): NrrdGeometry {
  const lps = multiply(lpsToRas, affine);
  const column = (c: number) => [lps[c], lps[4 + c], lps[8 + c]];
  return {
    format: 'nrrd',
    space: 'left-posterior-superior',
    origin: column(3),
    directions: [column(0), column(1), column(2)],
    ...(namesUnits && { spaceUnits: ['mm', 'mm', 'mm'] }),
  };
}

/** The lines of a header for a geometry; `several`: an axis of components precedes the spatial ones. */
export function geometryLines(geometry: NrrdGeometry, several: boolean): string[] {
  const { space, origin, directions, spaceUnits, spacings, axisMins, axisMaxs, centers, units } = geometry;
  const vector = (v: readonly number[]) => `(${v.join(',')})`;
  const quoted = (list: readonly string[]) => list.map((word) => `"${word}"`);
  const line = (name: string, list: readonly unknown[] | undefined, component: string) =>
    list ? [`${name}: ${several ? `${component} ` : ''}${list.join(' ')}`] : [];
  return [
    ...(space === 'dimension' ? ['space dimension: 3'] : space ? [`space: ${spelled(space)}`] : []),
    ...line('space directions', directions?.map(vector), 'none'),
    ...(origin ? [`space origin: ${vector(origin)}`] : []),
    ...(spaceUnits ? [`space units: ${quoted(spaceUnits).join(' ')}`] : []),
    ...line('spacings', spacings, 'nan'),
    ...line('axis mins', axisMins, 'nan'),
    ...line('axis maxs', axisMaxs, 'nan'),
    ...line('centers', centers, '???'),
    ...line('units', units && quoted(units), '""'),
  ];
}

/** A space's name as the format's definition spells it. */
const spelled = (space: Space) => (space.length === 3 ? space.toUpperCase() : space.replace('3d', '3D'));

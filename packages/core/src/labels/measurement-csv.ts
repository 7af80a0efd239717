import { TomaatError } from '../errors.ts';
import { parseDecimal } from '../formats/header.ts';
import type { LabelMeasurement } from './measure.ts';

/**
 * Measurements as comma-separated values by RFC 4180: UTF-8, a header line, a line for each label, CR LF line ends.
 * Numbers have all the digits that JSON would have; values missing for a label without a voxel are empty cells.
 */

const axes = ['x', 'y', 'z'] as const;
const directions = ['r', 'a', 's'] as const;

/** Columns and their contents: `*_mm` in RAS+ mm, `box_*_voxel` as voxel indices, both ends inclusive. */
const numbers: Readonly<Record<string, (row: LabelMeasurement) => unknown>> = {
  voxels: ({ voxels }) => voxels,
  volume_ml: ({ volumeMl }) => volumeMl,
  ...columns(directions, 'centroid', 'mm', ({ centroidMm }) => centroidMm),
  ...columns(axes, 'box_min', 'voxel', ({ box }) => box?.min),
  ...columns(axes, 'box_max', 'voxel', ({ box }) => box?.max),
  ...columns(directions, 'box_min', 'mm', ({ boxMm }) => boxMm?.min),
  ...columns(directions, 'box_max', 'mm', ({ boxMm }) => boxMm?.max),
};

function columns(
  along: readonly string[],
  name: string,
  unit: string,
  read: (row: LabelMeasurement) => readonly unknown[] | undefined,
): Record<string, (row: LabelMeasurement) => unknown> {
  return Object.fromEntries(
    along.map((axis, i) => [`${name}_${axis}_${unit}`, (row: LabelMeasurement) => read(row)?.[i]]),
  );
}

export function measurementsToCsv(measurements: readonly LabelMeasurement[]): string {
  const lines = [
    ['label', 'name', ...Object.keys(numbers)],
    ...measurements.map((row) => [
      numberCell(row.value),
      csvText(row.name),
      ...Object.values(numbers).map((read) => numberCell(read(row))),
    ]),
  ];
  return lines.map((cells) => `${cells.join(',')}\r\n`).join('');
}

/** Only numbers: extra fields that an app adds to its measurements may have any type. */
const numberCell = (value: unknown): string => (Number.isFinite(value) ? String(value) : '');

/**
 * First characters that make a spreadsheet treat a text as a formula, or drop the quotes (OWASP, CSV Injection). An
 * apostrophe before them makes it text. A text that begins with an apostrophe and one of them gets another, so that
 * both can be read back.
 */
const formulaStart = /^'*[=+\-@\t\r\n＝＋－＠]/;

/** A text as a cell: quoted where needed, and never a formula. */
export function csvText(text: string): string {
  const safe = formulaStart.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/**
 * Reads what `measurementsToCsv()` or an app's program wrote: columns in any order, all except label, name, voxels
 * and volume_ml optional; lines may end in LF.
 * @throws TomaatError BAD_INPUT that names the row.
 */
export function parseMeasurementsCsv(text: string): LabelMeasurement[] {
  const [header = [], ...lines] = readLines(text.replace(/^\ufeff/, ''));
  for (const name of ['label', 'name', 'voxels', 'volume_ml']) {
    if (!header.includes(name))
      throw badCsv(1, `has no column ${name}. The first line names the columns: label,name,voxels,volume_ml`);
  }
  return lines.map((cells, i) => {
    const row = i + 2;
    if (cells.length !== header.length)
      throw badCsv(row, `has ${cells.length} cells, but the header has ${header.length}`);
    const cell = (name: string) => cells[header.indexOf(name)] ?? '';
    const optional = (name: string): number | undefined => {
      if (cell(name) === '') return undefined;
      const value = parseDecimal(cell(name));
      if (!Number.isFinite(value)) throw badCsv(row, `has something other than a number in ${name}`);
      return value;
    };
    const required = (name: string): number => {
      const value = optional(name);
      if (value === undefined) throw badCsv(row, `has no ${name}`);
      return value;
    };
    const triple = (along: readonly string[], name: string, unit: string) => {
      const found = along.map((axis) => optional(`${name}_${axis}_${unit}`));
      return found.every((value) => value !== undefined) ? (found as [number, number, number]) : undefined;
    };
    const pair = (along: readonly string[], unit: string) => {
      const [min, max] = ['box_min', 'box_max'].map((name) => triple(along, name, unit));
      return min && max && { min, max };
    };
    const name = cell('name');
    const centroidMm = triple(directions, 'centroid', 'mm');
    const box = pair(axes, 'voxel');
    const boxMm = pair(directions, 'mm');
    return {
      value: required('label'),
      name: name.startsWith("'") && formulaStart.test(name) ? name.slice(1) : name,
      voxels: required('voxels'),
      volumeMl: required('volume_ml'),
      ...(centroidMm && { centroidMm }),
      ...(box && { box }),
      ...(boxMm && { boxMm }),
    };
  });
}

const badCsv = (row: number, fault: string) =>
  new TomaatError('BAD_INPUT', `Row ${row} of the measurements (the header is row 1) ${fault}.`);

/** The cells of each line. A quoted cell may contain commas, line ends, and doubled quotation marks. */
function readLines(text: string): string[][] {
  const lines: string[][] = [];
  let cells: string[] = [];
  let at = 0;
  while (at < text.length) {
    let cell = '';
    if (text[at] === '"') {
      for (at++; ; at += 2) {
        const end = text.indexOf('"', at);
        if (end < 0) throw badCsv(lines.length + 1, 'has a quotation mark that is not closed');
        cell += text.slice(at, end);
        at = end;
        if (text[end + 1] !== '"') break;
        cell += '"';
      }
      at++;
    } else {
      const start = at;
      while (at < text.length && text[at] !== ',' && text[at] !== '\r' && text[at] !== '\n') at++;
      cell = text.slice(start, at);
    }
    cells.push(cell);
    if (text[at] === ',') {
      at++;
      if (at === text.length) cells.push('');
      if (at < text.length) continue;
    } else if (text.startsWith('\r\n', at)) at += 2;
    else if (text[at] === '\n') at++;
    else if (at < text.length) throw badCsv(lines.length + 1, 'has text after the end of a cell');
    lines.push(cells);
    cells = [];
  }
  return lines;
}

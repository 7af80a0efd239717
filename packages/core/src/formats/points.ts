import { TomaatError } from '../errors.ts';
import type { Vec3 } from '../geometry/affine.ts';
import { parseDecimal } from './header.ts';

/** More points than anyone places by hand; about 50 MB of text. */
const maxPoints = 1_000_000;

/**
 * Points, RAS+ mm, from text: `x,y,z;x,y,z;…` as in the TOMAAT v1 protocol (a last `;` and blanks are allowed) or JSON
 * `[[x, y, z], …]`. An empty text means no points. Throws BAD_INPUT, which names the wrong point; `field` is the
 * input in the error.
 */
export function parsePoints(text: string, field?: string): Vec3[] {
  const trimmed = text.trim();
  if (trimmed === '') return [];
  if (trimmed.startsWith('[')) return parseJson(trimmed, field);
  const parts = trimmed.split(';', maxPoints + 2);
  if (parts[parts.length - 1].trim() === '') parts.pop();
  checkCount(parts.length, field);
  return parts.map((part, i) => {
    const numbers = part.split(',', 4).map((word) => parseDecimal(word.trim()));
    if (numbers.length !== 3) throw badPoint(i, part.trim(), field);
    return checkPoint(numbers, i, part.trim(), field);
  });
}

function parseJson(text: string, field?: string): Vec3[] {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new TomaatError(
      'BAD_INPUT',
      'The points are not valid JSON. Send [[x, y, z], …] or x,y,z;x,y,z;… in mm, RAS.',
      {
        field,
        cause,
      },
    );
  }
  const list = value as unknown[];
  checkCount(list.length, field);
  return list.map((point, i) => {
    if (!Array.isArray(point) || point.length !== 3 || !point.every((v) => typeof v === 'number')) {
      throw badPoint(i, shownOf(point), field);
    }
    return checkPoint(point, i, shownOf(point), field);
  });
}

/** A value of JSON to show: nested lists are not traversed, because they may be as deep as the text is long. */
function shownOf(value: unknown): string {
  if (!Array.isArray(value)) return typeof value === 'object' ? '{…}' : String(value);
  return `[${value.map((item) => (typeof item === 'object' ? '…' : JSON.stringify(item))).join(',')}]`;
}

function checkCount(count: number, field?: string): void {
  if (count > maxPoints) {
    throw new TomaatError('BAD_INPUT', `There are more than ${maxPoints} points. Send fewer.`, { field });
  }
}

function checkPoint(point: readonly number[], index: number, text: string, field?: string): Vec3 {
  if (!point.every(Number.isFinite)) throw badPoint(index, text, field);
  return [point[0], point[1], point[2]];
}

function badPoint(index: number, text: string, field?: string): TomaatError {
  // Numbers are shown; words are untrusted.
  const isNumbers = /^[\d\s.,;+\-e[\]]*$/i.test(text);
  const shown = isNumbers ? `"${text.length > 60 ? `${text.slice(0, 60)}…` : text}"` : 'not a point';
  return new TomaatError(
    'BAD_INPUT',
    `Point ${index + 1} is ${shown}. Give three finite numbers, x,y,z in mm (RAS), and a semicolon between points.`,
    { field },
  );
}

/** The points as `x,y,z;x,y,z;…`, RAS+ mm; no points are an empty text. Numbers read back as they were. */
export function formatPoints(points: readonly Vec3[]): string {
  return points.map((point, i) => checkPoint(point, i, point.join(',')).join(',')).join(';');
}

/** The points as JSON `[[x, y, z], …]`, RAS+ mm. */
export function formatPointsJson(points: readonly Vec3[]): string {
  return JSON.stringify(points.map((point, i) => checkPoint(point, i, point.join(','))));
}

import { latin1 } from '../formats/header.ts';
import type { Vr } from './value-representations.ts';

/* Values of de-identified files: which forms are kept, how dates are shifted, what dummies are. */

const encoder = new TextEncoder();

/** Bytes of printable ASCII, padded to an even length. */
export function asciiBytes(text: string, padding: ' ' | '\0' = ' '): Uint8Array {
  return encoder.encode(text.length % 2 === 1 ? text + padding : text);
}

/** Values between backslashes, without padding. */
export const valuesOf = (bytes: Uint8Array): string[] => latin1(bytes).split('\\').map(trimPadding);

/**
 * Without leading and trailing spaces and zero bytes; not by a regular expression, which would search for the end at
 * each space.
 */
function trimPadding(value: string): string {
  const isPadding = (at: number) => value.charCodeAt(at) === 0 || value.charCodeAt(at) === 32;
  let [start, end] = [0, value.length];
  while (end > start && isPadding(end - 1)) end--;
  while (start < end && isPadding(start)) start++;
  return value.slice(start, end);
}

/**
 * Forms of values with a restricted set of characters (PS3.5 6.2). Decimal strings are often longer than their 16
 * characters.
 */
const forms: Readonly<Partial<Record<Vr, RegExp>>> = {
  AS: /^\d{3}[DWMY]$/,
  CS: /^[A-Z0-9_ ]{1,16}$/,
  DS: /^[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?$/,
  IS: /^[-+]?\d{1,12}$/,
  TM: /^\d\d(?::?\d\d(?::?\d\d(?:\.\d{1,6})?)?)?$/,
};

const longestValue = 64;

export const hasForm = (vr: Vr): boolean => forms[vr] !== undefined;

/** The same bytes if every value has the form of its VR; otherwise without those that do not. */
export function keepForm(bytes: Uint8Array, vr: Vr): Uint8Array {
  const form = forms[vr];
  if (form === undefined) return bytes;
  const values = valuesOf(bytes);
  const kept = values.map((value) => (value.length <= longestValue && form.test(value) ? value : ''));
  if (kept.every((value, i) => value === values[i])) return bytes;
  return kept.some((value) => value !== '') ? asciiBytes(kept.join('\\')) : new Uint8Array(0);
}

/** The size in bytes of one number of a binary VR; undefined for others. */
export const numberBytes: Readonly<Partial<Record<Vr, number>>> = {
  AT: 4, FD: 8, FL: 4, OB: 1, OD: 8, OF: 4, OL: 4, OV: 8, OW: 2, SL: 4, SS: 2, SV: 8, UL: 4, US: 2, UV: 8,
}; // biome-ignore format: one table

export const isDateOrTime = (vr: Vr | undefined): boolean => vr === 'DA' || vr === 'DT' || vr === 'TM';

/**
 * Dates (DA, DT) shifted some days earlier; times (TM) unchanged. Undefined if a value is not a complete, valid date,
 * because it cannot be shifted by days: “2020”, or a date that is not in the calendar.
 */
export function shiftDates(bytes: Uint8Array, vr: Vr, days: number): Uint8Array | undefined {
  if (vr === 'TM') {
    const kept = keepForm(bytes, 'TM');
    return kept === bytes ? bytes : undefined;
  }
  const moved = valuesOf(bytes).map((value) => (value === '' ? '' : shiftDate(value, vr, days)));
  return moved.some((value) => value === undefined) ? undefined : asciiBytes(moved.join('\\'));
}

const dateForm = /^(\d{4})\.?(\d\d)\.?(\d\d)((?:\d\d(?:\d\d(?:\d\d(?:\.\d{1,6})?)?)?)?(?:[-+]\d{4})?)$/;

function shiftDate(value: string, vr: Vr, days: number): string | undefined {
  const parts = dateForm.exec(value);
  if (!parts || (vr === 'DA' && parts[4] !== '')) return undefined;
  const [year, month, day] = parts.slice(1, 4).map(Number);
  const date = new Date(0);
  date.setUTCFullYear(year, month - 1, day);
  // An invalid month or day becomes another day of the same year, or another year.
  const exists = date.getUTCFullYear() === year && date.getUTCDate() === day;
  if (!exists) return undefined;
  date.setUTCDate(day - days);
  const shifted = date.toISOString();
  return /^\d{4}-/.test(shifted) ? shifted.slice(0, 10).replaceAll('-', '') + parts[4] : undefined;
}

const dummies: Readonly<Partial<Record<Vr, string>>> = {
  AE: 'ANON', AS: '000Y', CS: 'ANON', DA: '19000101', DS: '0', DT: '19000101000000', IS: '0', LO: 'ANON', LT: 'ANON', PN: 'ANON',
  SH: 'ANON', ST: 'ANON', TM: '000000', UC: 'ANON', UR: 'urn:anon', UT: 'ANON',
}; // biome-ignore format: one table

/** A replacement value: the same in all files. Zeros for binary values. */
export const dummyOf = (vr: Vr): Uint8Array =>
  dummies[vr] === undefined
    ? new Uint8Array(numberBytes[vr] === 1 ? 2 : (numberBytes[vr] ?? 2))
    : asciiBytes(dummies[vr]);

/** UIDs defined by the standard itself: SOP classes, transfer syntaxes, frames of reference, code lists (PS3.6 A). */
export const isWellKnownUid = (uid: string): boolean => /^1\.2\.840\.10008(?:\.\d{1,4}){1,8}$/.test(uid);

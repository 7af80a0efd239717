import { type Dataset, word } from './dataset.ts';
import type { Tag } from './tags.ts';

/*
 * Dates and times of DICOM (DA, TM, DT of PS3.5 6.2) as seconds of the local clock since 1970: differences between two of the same
 * data set are right, whatever their time zone.
 */

/** The second at which a date and a time say that something happened; undefined if either is missing or malformed. */
export function secondsAt(dataset: Dataset, date: Tag, time: Tag): number | undefined {
  const [day, clock] = [dayOf(word(dataset, date)), clockOf(word(dataset, time))];
  return day === undefined || clock === undefined ? undefined : day + clock;
}

export const secondsPerDay = 86_400;

const dateForm = /^(\d{4})\.?(\d\d)\.?(\d\d)$/;

/** The first second of a date. */
function dayOf(value: string | undefined): number | undefined {
  const [, year, month, day] = dateForm.exec(value ?? '')?.map(Number) ?? [];
  if (year === undefined) return undefined;
  const date = new Date(0);
  date.setUTCFullYear(year, month - 1, day);
  // Month 13 or day 32 would become a day of another month.
  return date.getUTCMonth() === month - 1 && date.getUTCDate() === day ? date.getTime() / 1000 : undefined;
}

const clockForm = /^(\d\d)(?::?(\d\d)(?::?(\d\d(?:\.\d{1,6})?))?)?$/;

/** Seconds since midnight. */
export function clockOf(value: string | undefined): number | undefined {
  const found = clockForm.exec(value ?? '');
  if (!found) return undefined;
  const [hours, minutes, seconds] = found.slice(1).map((part) => Number(part ?? 0));
  return hours < 24 && minutes < 60 && seconds <= 60 ? hours * 3600 + minutes * 60 + seconds : undefined;
}

const dateTimeForm = /^(\d{8})(\d{2,6}(?:\.\d{1,6})?)(?:([-+]\d{4}))?$/;

/**
 * The second of a date with a time in one value (DT). One in another time zone than that of the data set (TimezoneOffsetFromUTC) is
 * converted to it; where the data set names none, the clock is taken as it is written.
 */
export function secondsOfDateTime(value: string | undefined, zone: string | undefined): number | undefined {
  const [, date, time, offset] = dateTimeForm.exec(value ?? '') ?? [];
  const [day, clock] = [dayOf(date), clockOf(time)];
  if (day === undefined || clock === undefined) return undefined;
  const [from, to] = [offsetOf(offset), offsetOf(zone)];
  return day + clock + (from === undefined || to === undefined ? 0 : to - from);
}

/** Seconds east of UTC. */
function offsetOf(zone: string | undefined): number | undefined {
  const [, sign, hours, minutes] = /^([-+])(\d\d)(\d\d)$/.exec(zone ?? '') ?? [];
  if (sign === undefined) return undefined;
  return (sign === '-' ? -1 : 1) * (Number(hours) * 3600 + Number(minutes) * 60);
}

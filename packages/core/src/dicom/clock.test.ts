import { describe, expect, it } from 'vitest';
import { ascii, datasetOf } from './build.ts';
import { clockOf, secondsAt, secondsOfDateTime } from './clock.ts';
import { tags } from './tags.ts';

/* 2026-03-02 is 20514 days after 1970-01-01: 1772409600 s, by `date -u -d 2026-03-02 +%s`. */
const day = 1_772_409_600;

describe('secondsAt()', () => {
  const at = (date: string, time: string) =>
    secondsAt(
      datasetOf(ascii(tags.seriesDate, 'DA', date), ascii(tags.seriesTime, 'TM', time)),
      tags.seriesDate,
      tags.seriesTime,
    );

  it.each([
    ['20260302', '093320', day + 34_400],
    ['2026.03.02', '09:33:20', day + 34_400],
    ['20260302', '0933', day + 34_380],
    ['20260302', '09', day + 32_400],
    ['20260302', '093320.25', day + 34_400.25],
    ['20240229', '00', 1_709_164_800],
  ])('%s %s', (date, time, expected) => {
    expect(at(date, time)).toBe(expected);
  });

  it.each([
    ['20260229', '00'],
    ['20261301', '00'],
    ['20260400', '00'],
    ['2026', '00'],
    ['20260302', '24'],
    ['20260302', '0960'],
    ['20260302', '9'],
    ['20260302', ''],
    ['', '00'],
  ])('none of %j %j', (date, time) => {
    expect(at(date, time)).toBeUndefined();
  });
});

it('clockOf() takes a leap second', () => {
  expect(clockOf('235960')).toBe(86_400);
  expect(clockOf('235961')).toBeUndefined();
});

describe('secondsOfDateTime()', () => {
  it.each([
    ['20260302093320', undefined, 34_400],
    ['20260302093320.5', '+0100', 34_400.5],
    ['2026030209', undefined, 32_400],
    // 9:33:20 east of Greenwich is an hour less there.
    ['20260302093320+0100', '+0000', 30_800],
    ['20260302093320-0330', '+0100', 50_600],
    ['20260302093320+0100', undefined, 34_400],
  ])('%s in the zone %s', (value, zone, expected) => {
    expect(secondsOfDateTime(value, zone)).toBe(day + expected);
  });

  it.each(['20260302', '20260230093320', '20260302993320', '20260302093320+1', '2026', '', undefined])(
    'none of %j',
    (value) => {
      expect(secondsOfDateTime(value, undefined)).toBeUndefined();
    },
  );
});

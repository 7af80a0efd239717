import { describe, expect, it } from 'vitest';
import type { Value } from '../../test/dicom-files.ts';
import { read, slices } from '../../test/dicom-series.ts';
import { suvScaleOf } from './suv.ts';

/*
 * Expected factors are computed by hand: 70 kg and 350 MBq give 70000 g / 3.5e8 Bq = 2e-4. The half-life is 6600 s; the injection is at
 * 8:00, and 55 minutes later, at 8:55, the dose has decayed by √2.
 */

type Element = readonly [vr: string, value: Value] | undefined;
interface Pet {
  /** Elements of every image, or of the one of an index. */
  more?: Readonly<Record<number, Element>> | ((index: number) => Readonly<Record<number, Element>>);
  injection?: Readonly<Record<number, Element>>;
  injections?: number;
}

const tag = {
  corrected: 0x00280051,
  units: 0x00541001,
  suvType: 0x00541006,
  decay: 0x00541102,
  weight: 0x00101030,
  seriesDate: 0x00080021,
  seriesTime: 0x00080031,
  acquisitionDate: 0x00080022,
  acquisitionTime: 0x00080032,
  duration: 0x00181242,
  reference: 0x00541300,
  startTime: 0x00181072,
  dose: 0x00181074,
  halfLife: 0x00181075,
  startDateTime: 0x00181078,
};

async function suvOf({ more = {}, injection = {}, injections = 1 }: Pet = {}) {
  const item = Object.entries({
    [tag.startTime]: ['TM', '080000'],
    [tag.dose]: ['DS', '350000000'],
    [tag.halfLife]: ['DS', '6600'],
    [tag.startDateTime]: ['DT', '20260302080000'],
    ...injection,
  }).flatMap(([at, element]) =>
    element ? [[Number(at), element[0] as string, element[1] as Value] as const] : [],
  );
  const all = slices([0, 2.5, 5]).map((slice, i) => ({
    ...slice,
    more: {
      524310: ['UI', '1.2.840.10008.5.1.4.1.1.128'],
      524384: ['CS', 'PT'],
      [tag.corrected]: ['CS', 'DECY\\ATTN\\SCAT'],
      [tag.units]: ['CS', 'BQML'],
      [tag.decay]: ['CS', 'START'],
      [tag.weight]: ['DS', '70'],
      [tag.seriesDate]: ['DA', '20260302'],
      [tag.seriesTime]: ['TM', '085500'],
      [tag.acquisitionDate]: ['DA', '20260302'],
      // The first image in space was not the first in time.
      [tag.acquisitionTime]: ['TM', i === 1 ? '095000' : '095500.25'],
      5505046: ['SQ', Array.from({ length: injections }, () => item)],
      ...(typeof more === 'function' ? more(i) : more),
    } as Record<number, Element>,
  }));
  return (await read(all)).volume.suv!;
}

const factorOf = async (pet?: Pet) => {
  const suv = await suvOf(pet);
  return 'factor' in suv ? suv.factor : suv.refusal;
};
const inImages = (more: Pet['more'], injection?: Pet['injection']) => ({ more, injection });
const philips = (suv: string, activity: string) => ({
  1884487697: ['LO', 'Philips PET Private Group'] as const,
  1884492032: ['DS', suv] as const,
  1884492041: ['DS', activity] as const,
});
const processed = { [tag.seriesTime]: ['TM', '120000'] as const };
const notDecayed = { [tag.decay]: ['CS', 'NONE'] as const, [tag.corrected]: ['CS', 'ATTN'] as const };

describe('suvScaleOf() factor', () => {
  it.each<[string, number, Pet]>([
    ['Bq/mL at the start of the series', 2e-4 * Math.SQRT2, {}],
    ['Bq/mL at the injection', 2e-4, inImages({ [tag.decay]: ['CS', 'ADMIN'] })],
    [
      'an injection on the day before, by its date',
      2e-4 * Math.SQRT2,
      inImages(
        {
          [tag.seriesDate]: ['DA', '20260303'],
          [tag.acquisitionDate]: ['DA', '20260303'],
          [tag.seriesTime]: ['TM', '003500'],
        },
        { [tag.startDateTime]: ['DT', '20260302234000.00'], [tag.startTime]: undefined },
      ),
    ],
    [
      'an injection before midnight, without a date',
      2e-4 * Math.SQRT2,
      inImages(
        { [tag.seriesTime]: ['TM', '003500'] },
        { [tag.startDateTime]: undefined, [tag.startTime]: ['TM', '23:40:00'] },
      ),
    ],
    [
      'an injection in another time zone',
      2e-4 * Math.SQRT2,
      inImages({ 524801: ['SH', '-0330'] }, { [tag.startDateTime]: ['DT', '20260302123000+0100'] }),
    ],
    [
      'a dynamic scan that begins a minute before the injection',
      2e-4 * 2 ** (-60 / 6600),
      inImages(
        { [tag.seriesTime]: ['TM', '075900'] },
        { [tag.startDateTime]: undefined, [tag.startTime]: ['TM', '0800'] },
      ),
    ],
    [
      'a processed series of GE, by the private time of its scan',
      2e-4 * Math.SQRT2,
      inImages({ ...processed, 589840: ['LO', 'GEMS_PETD_01'], 593933: ['DT', '20260302085500.00'] }),
    ],
    [
      // Mean over one half-life: ln 2 / (1 − 1/2) · the activity at its end.
      'a processed series, back from the reference time of the frame',
      2e-4 * 2 * Math.LN2,
      inImages({ ...processed, [tag.duration]: ['IS', '6600000'], [tag.reference]: ['DS', '6600000'] }),
    ],
    ['a processed series, by its earliest acquisition', 2e-4 * 2, inImages(processed)],
    [
      'Bq/mL without decay correction, by the mean over the frame',
      2e-4 * 2 * 2 * Math.LN2,
      inImages({ ...notDecayed, [tag.duration]: ['IS', '6600000'], [tag.acquisitionTime]: ['TM', '095000'] }),
    ],
    ['SUV of GE', 1, inImages({ [tag.units]: ['CS', 'GML'] })],
    ['SUV by body weight', 1, inImages({ [tag.units]: ['CS', 'GML'], [tag.suvType]: ['CS', 'BW'] })],
    [
      'counts of Philips with a factor',
      0.000271,
      inImages({ [tag.units]: ['CS', 'CNTS'], ...philips('0.000271', '9') }),
    ],
    [
      'counts of Philips with an activity',
      2e-4 * Math.SQRT2 * 2.5,
      inImages({ [tag.units]: ['CS', 'CNTS'], ...philips('0', '2.5') }),
    ],
  ])('is that of %s', async (_name, expected, pet) => {
    const factor = await factorOf(pet);
    expect(factor).toBeTypeOf('number');
    expect(Math.abs((factor as number) / expected - 1)).toBeLessThan(1e-9);
  });
});

describe('suvScaleOf() refusal', () => {
  it.each<[string, string, Pet]>([
    ['a CT', 'the series is CT, not PET', inImages({ 524384: ['CS', 'CT'] })],
    [
      'enhanced PET',
      'enhanced (multi-frame) PET',
      inImages({ 524310: ['UI', '1.2.840.10008.5.1.4.1.1.130'] }),
    ],
    ['no attenuation correction', 'does not name ATTN', inImages({ [tag.corrected]: ['CS', 'DECY'] })],
    [
      'no CorrectedImage',
      'CorrectedImage (0028,0051) does not name ATTN',
      inImages({ [tag.corrected]: undefined }),
    ],
    ['no decay correction', 'does not name DECY', inImages({ [tag.corrected]: ['CS', 'ATTN'] })],
    [
      'a contradiction about decay',
      'names DECY, but DecayCorrection (0054,1102) is NONE',
      inImages({ [tag.decay]: ['CS', 'NONE'] }),
    ],
    [
      'an unknown correction',
      'DecayCorrection (0054,1102) is LATER',
      inImages({ [tag.decay]: ['CS', 'LATER'] }),
    ],
    ['a missing correction', 'DecayCorrection (0054,1102) is missing', inImages({ [tag.decay]: undefined })],
    ['other units', 'Units (0054,1001) is PROPCPS', inImages({ [tag.units]: ['CS', 'PROPCPS'] })],
    [
      'units with strange characters',
      'Units (0054,1001) is malformed',
      inImages({ [tag.units]: ['CS', '<b>'] }),
    ],
    ['missing units', 'Units (0054,1001) is missing', inImages({ [tag.units]: undefined })],
    ['counts without a factor', 'SUV Factor (7053,1000)', inImages({ [tag.units]: ['CS', 'CNTS'] })],
    [
      'factors of another creator',
      'private factors of Philips are missing',
      inImages({ [tag.units]: ['CS', 'CNTS'], ...philips('1', '1'), 1884487697: ['LO', 'Another'] }),
    ],
    [
      'SUV by lean body mass',
      'SUVType (0054,1006) is LBM',
      inImages({ [tag.units]: ['CS', 'GML'], [tag.suvType]: ['CS', 'LBM'] }),
    ],
    ['no weight', 'PatientWeight (0010,1030) is missing: enter it', inImages({ [tag.weight]: undefined })],
    ['a weight of 0', 'PatientWeight (0010,1030) is 0', inImages({ [tag.weight]: ['DS', '0'] })],
    [
      'a weight that is no number',
      'holds a value that is not a number',
      inImages({ [tag.weight]: ['DS', 'NaN'] }),
    ],
    [
      'weights that differ',
      'PatientWeight (0010,1030) differs',
      inImages((i) => ({ [tag.weight]: ['DS', `7${i}`] })),
    ],
    [
      'factors of Philips that differ',
      'SUV Factor (7053,1000) differs',
      inImages((i) => ({ [tag.units]: ['CS', 'CNTS'], ...philips(`0.00${i + 1}`, '1') })),
    ],
    [
      'a weight that was removed',
      '--keep-patient-characteristics',
      inImages({ [tag.weight]: undefined, 1179746: ['CS', 'YES'] }),
    ],
    ['dates that were removed', 'shiftDates', inImages({ 2622211: ['CS', 'REMOVED'] })],
    ['no dose', 'RadionuclideTotalDose (0018,1074) is missing', inImages({}, { [tag.dose]: undefined })],
    [
      'no half-life',
      'RadionuclideHalfLife (0018,1075) is missing',
      inImages({}, { [tag.halfLife]: undefined }),
    ],
    [
      'no time of the injection',
      'the time of the injection is missing',
      inImages({}, { [tag.startTime]: undefined, [tag.startDateTime]: undefined }),
    ],
    [
      'two times of the injection',
      'name different times',
      inImages({}, { [tag.startTime]: ['TM', '070000'] }),
    ],
    [
      'an injection after the scan',
      'dated 65 minutes after',
      inImages({}, { [tag.startDateTime]: ['DT', '20260302100000'], [tag.startTime]: undefined }),
    ],
    [
      'an injection of another year',
      'more than 10 half-lives',
      inImages({}, { [tag.startDateTime]: ['DT', '20250302080000'] }),
    ],
    ['no injection', 'describes 0 injections', { injections: 0 }],
    ['two injections', 'describes 2 injections', { injections: 2 }],
    [
      'no time of acquisition',
      'AcquisitionTime (0008,0032) is missing',
      inImages({ [tag.acquisitionTime]: undefined }),
    ],
    ['no duration of frames', 'ActualFrameDuration (0018,1242) is missing', inImages(notDecayed)],
    [
      'uncorrected frames of different times',
      'acquired at different times',
      inImages({ ...notDecayed, [tag.duration]: ['IS', '180000'] }),
    ],
  ])('names %s', async (_name, expected, pet) => {
    const refusal = await factorOf(pet);
    expect(refusal).toContain(expected);
    expect(refusal).toMatch(/^No SUV can be computed: /);
  });

  it('throws what is no fault of the header', () => {
    expect(() => suvScaleOf([], [])).toThrow(TypeError);
  });
});

import { TomaatError } from '../errors.ts';
import { badHeader } from '../formats/header.ts';
import type { SuvScale } from '../volume.ts';
import { clockOf, secondsAt, secondsOfDateTime, secondsPerDay } from './clock.ts';
import { type Dataset, itemsOf, number, word, words } from './dataset.ts';
import type { DicomImage } from './frames.ts';
import { type Tag, tagName, tags } from './tags.ts';

/*
 * How the values of a PET series become standardized uptake values by body weight (SUVbw, g/mL), after the vendor-neutral pseudo-code
 * of QIBA (https://qibawiki.rsna.org, “Standardized Uptake Value”): SUVbw = activity [Bq/mL] · weight [g] / dose [Bq], the dose decayed
 * to the time for which the activity is given. Whatever would have to be guessed is refused by the name of the attribute.
 */

/**
 * The factor of a series, or why it has none.
 *
 * @param images those that the volume consists of
 * @param series all of the series: the scan began with the earliest of them
 */
export function suvScaleOf(images: readonly DicomImage[], series: readonly DicomImage[]): SuvScale {
  try {
    const factor = factorOf(images, series);
    if (Number.isFinite(factor) && factor > 0) return { factor };
    throw badHeader(
      `weight, dose and decay give a factor of ${factor}, not a positive number: correct them in the system that made the series`,
    );
  } catch (error) {
    if (!(error instanceof TomaatError)) throw error;
    return { refusal: `No SUV can be computed: ${error.message}` };
  }
}

const petImage = '1.2.840.10008.5.1.4.1.1.128';

function factorOf(images: readonly DicomImage[], series: readonly DicomImage[]): number {
  const { dataset } = images[0].header.dicom;
  const modality = word(dataset, tags.modality);
  if (modality !== 'PT') {
    throw badHeader(
      `the series is ${modality === undefined ? 'of no modality' : codeIn(modality)}, not PET (PT): send the PET series`,
    );
  }
  if (images[0].sopClassUid !== petImage) {
    throw badHeader(
      'the images are enhanced (multi-frame) PET, whose dose and units are stored in another way, which is not read: export the series as one file for each slice',
    );
  }
  checkAlike(images);
  const corrected = words(dataset, tags.correctedImage);
  if (!corrected.includes('ATTN')) throw uncorrected('ATTN', 'attenuation');
  const units = word(dataset, tags.units);
  if (units === 'GML') return factorOfSuv(dataset);
  if (units === 'CNTS') {
    const factor = philipsNumber(dataset, philipsElements.suv);
    if (factor !== undefined) {
      if (!corrected.includes('DECY')) throw uncorrected('DECY', 'decay');
      return factor;
    }
    const activity = philipsNumber(dataset, philipsElements.activity);
    if (activity !== undefined) return activity * factorOfActivity(images, series);
    throw badHeader(
      `${tagName(tags.units)} is CNTS (counts), and the private factors of Philips are missing: ${philipsNames.suv} and ${philipsNames.activity}. Export the series with its private attributes`,
    );
  }
  if (units === 'BQML') return factorOfActivity(images, series);
  throw badHeader(
    `${tagName(tags.units)} ${units === undefined ? 'is missing' : `is ${codeIn(units)}`}, but BQML, GML and the CNTS of Philips are read: export the series in Bq/mL`,
  );
}

/** Values of which one factor is computed, so that they must be equal in all images. */
function checkAlike(images: readonly DicomImage[]): void {
  const facts: readonly (readonly [string, (dataset: Dataset) => unknown])[] = [
    ...[tags.units, tags.suvType, tags.correctedImage, tags.decayCorrection, tags.patientWeight].map(
      (tag) => [tagName(tag), (dataset: Dataset) => word(dataset, tag)] as const,
    ),
    ...[
      tags.radionuclideTotalDose,
      tags.radionuclideHalfLife,
      tags.radiopharmaceuticalStartTime,
      tags.radiopharmaceuticalStartDateTime,
    ].map(
      (tag) =>
        [
          tagName(tag),
          (dataset: Dataset) =>
            itemsOf(dataset, tags.radiopharmaceuticalInformationSequence)
              .map((item) => word(item, tag))
              .join('\\'),
        ] as const,
    ),
    ...(word(images[0].header.dicom.dataset, tags.units) === 'CNTS'
      ? [
          [philipsNames.suv, (dataset: Dataset) => philipsNumber(dataset, philipsElements.suv)] as const,
          [
            philipsNames.activity,
            (dataset: Dataset) => philipsNumber(dataset, philipsElements.activity),
          ] as const,
        ]
      : []),
  ];
  for (const [name, factOf] of facts) {
    const first = factOf(images[0].header.dicom.dataset);
    if (images.every(({ header }) => factOf(header.dicom.dataset) === first)) continue;
    throw badHeader(
      `${name} differs between the images of the series: export the series again from the system that made it`,
    );
  }
}

const uncorrected = (name: string, what: string) =>
  badHeader(
    `${tagName(tags.correctedImage)} does not name ${name}: the images are not corrected for ${what}, or do not say so. Send the corrected series`,
  );

/** GML is g/mL: SUV already, by body weight where SUVType does not say otherwise (PS3.3 C.8.9.1.1.3). */
function factorOfSuv(dataset: Dataset): number {
  const type = word(dataset, tags.suvType) ?? 'BW';
  if (type === 'BW') return 1;
  throw badHeader(
    `${tagName(tags.suvType)} is ${codeIn(type)}: the values are SUV by another measure than body weight (BW). Export the series in Bq/mL, or as SUV by body weight`,
  );
}

/** g/mL for each Bq/mL. */
function factorOfActivity(images: readonly DicomImage[], series: readonly DicomImage[]): number {
  const { dataset } = images[0].header.dicom;
  const decay = word(dataset, tags.decayCorrection);
  if (decay !== 'START' && decay !== 'ADMIN' && decay !== 'NONE') {
    throw badHeader(
      `${tagName(tags.decayCorrection)} ${decay === undefined ? 'is missing' : `is ${codeIn(decay)}`}, but must be START, ADMIN or NONE: to which time the activity is corrected is not known. Export the series again from the system that made it`,
    );
  }
  const isCorrected = words(dataset, tags.correctedImage).includes('DECY');
  if (decay !== 'NONE' && !isCorrected) throw uncorrected('DECY', 'decay');
  if (decay === 'NONE' && isCorrected) {
    throw badHeader(
      `${tagName(tags.correctedImage)} names DECY, but ${tagName(tags.decayCorrection)} is NONE: whether the activity is corrected for decay is not known. Export the series again from the system that made it`,
    );
  }
  const injection = injectionOf(dataset);
  const weight = positive(dataset, tags.patientWeight, dataset);
  const dose = positive(injection, tags.radionuclideTotalDose, dataset);
  // The dose as it was at the time of the injection.
  if (decay === 'ADMIN') return (weight * 1000) / dose;
  const halfLife = positive(injection, tags.radionuclideHalfLife, dataset);
  checkDates(dataset);
  const at = decay === 'START' ? scanStart(images[0], series, halfLife) : measuredAt(images, halfLife);
  const elapsed = elapsedSeconds(dataset, injection, at);
  checkElapsed(elapsed, halfLife);
  return (weight * 1000) / (dose * 2 ** (-elapsed / halfLife));
}

function injectionOf(dataset: Dataset): Dataset {
  const items = itemsOf(dataset, tags.radiopharmaceuticalInformationSequence);
  if (items.length === 1) return items[0];
  throw badHeader(
    `${tagName(tags.radiopharmaceuticalInformationSequence)} describes ${items.length} injections instead of one: export the series with the dose of its one injection`,
  );
}

function positive(dataset: Dataset, tag: Tag, top: Dataset): number {
  const value = number(dataset, tag, 'DS');
  if (value !== undefined && value > 0) return value;
  const what = `${tagName(tag)} is ${value === undefined ? 'missing' : value}`;
  if (tag === tags.patientWeight && word(top, tags.patientIdentityRemoved) === 'YES') {
    throw badHeader(
      `${what}, because the series was de-identified. Send it with the characteristics of the patient: --keep-patient-characteristics on the command line, “Keep patient characteristics” on the page, keepPatientCharacteristics in a program`,
    );
  }
  throw badHeader(`${what}: enter it in the system that made the series, and export the series again`);
}

/** Dummies instead of dates would give a wrong factor without a sign of it. */
function checkDates(dataset: Dataset): void {
  if (word(dataset, tags.longitudinalTemporalInformationModified) !== 'REMOVED') return;
  throw badHeader(
    `dates and times were removed when the series was de-identified (${tagName(tags.longitudinalTemporalInformationModified)}). Shift them by a number of days instead: shiftDates in a program; command line and page do so`,
  );
}

const timeOf = ({ header }: DicomImage, date: Tag, time: Tag) => secondsAt(header.dicom.dataset, date, time);
const acquiredAt = (image: DicomImage) => {
  const at =
    timeOf(image, tags.acquisitionDate, tags.acquisitionTime) ??
    secondsOfDateTime(
      word(image.header.dicom.dataset, tags.acquisitionDateTime),
      word(image.header.dicom.dataset, tags.timezoneOffsetFromUtc),
    );
  if (at !== undefined) return at;
  throw badHeader(
    `${tagName(tags.acquisitionDate)} or ${tagName(tags.acquisitionTime)} is missing or malformed: export the series again from the system that made it`,
  );
};

/** Clocks written with and without fractions of a second. */
const clockTolerance = 1;

/**
 * When the scan began, to which DecayCorrection START refers: at the time of the series, unless that is later than an acquisition of
 * it, as in a series that was processed afterwards. Then the private time of GE; else the time computed back from the frame's reference
 * time; else the earliest acquisition.
 */
function scanStart(image: DicomImage, series: readonly DicomImage[], halfLife: number): number {
  const earliest = series.reduce((best, one) => (acquiredAt(one) < acquiredAt(best) ? one : best), image);
  const acquired = acquiredAt(earliest);
  const begun = timeOf(image, tags.seriesDate, tags.seriesTime);
  if (begun !== undefined && begun <= acquired + clockTolerance) return begun;
  const { dataset } = image.header.dicom;
  const geTag = privateTag(dataset, 0x0009, 'GEMS_PETD_01', 0x0d);
  const ge = geTag && secondsOfDateTime(word(dataset, geTag), word(dataset, tags.timezoneOffsetFromUtc));
  if (ge) return ge;
  const reference = number(earliest.header.dicom.dataset, tags.frameReferenceTime, 'DS') ?? 0;
  const duration = frameSeconds(earliest);
  if (reference > 0 && duration !== undefined)
    return acquired - reference / 1000 + meanCountTime(duration, halfLife);
  return acquired;
}

/** When the activity of images without decay correction was measured. */
function measuredAt(images: readonly DicomImage[], halfLife: number): number {
  const all = images.map((image) => {
    const duration = frameSeconds(image);
    if (duration !== undefined) return acquiredAt(image) + meanCountTime(duration, halfLife);
    throw badHeader(
      `${tagName(tags.actualFrameDuration)} is missing, which images without decay correction need: export the series corrected for decay`,
    );
  });
  if (all.every((at) => Math.abs(at - all[0]) <= clockTolerance)) return all[0];
  throw badHeader(
    `${tagName(tags.decayCorrection)} is NONE, and the images were acquired at different times, so that they have no common factor: export the series corrected for decay`,
  );
}

function frameSeconds({ header }: DicomImage): number | undefined {
  const duration = number(header.dicom.dataset, tags.actualFrameDuration, 'IS');
  return duration !== undefined && duration > 0 ? duration / 1000 : undefined;
}

/** Seconds from the beginning of a frame until its activity is the mean over the frame. */
function meanCountTime(duration: number, halfLife: number): number {
  const decays = (Math.LN2 * duration) / halfLife;
  return (halfLife / Math.LN2) * Math.log(decays / -Math.expm1(-decays));
}

/** A dynamic scan begins shortly before the injection. */
const earlyScanSeconds = 300;

/** Seconds from the injection until a time. One without a date was on the day of the series, or the day before. */
function elapsedSeconds(dataset: Dataset, injection: Dataset, at: number): number {
  const dated = secondsOfDateTime(
    word(injection, tags.radiopharmaceuticalStartDateTime),
    word(dataset, tags.timezoneOffsetFromUtc),
  );
  const clock = clockOf(word(injection, tags.radiopharmaceuticalStartTime));
  if (dated === undefined && clock === undefined) {
    throw badHeader(
      `the time of the injection is missing or malformed: ${tagName(tags.radiopharmaceuticalStartDateTime)} or ${tagName(tags.radiopharmaceuticalStartTime)}. Enter it in the system that made the series, and export the series again`,
    );
  }
  if (dated === undefined) {
    const elapsed = modulo(at - clock!, secondsPerDay);
    return elapsed > secondsPerDay - earlyScanSeconds ? elapsed - secondsPerDay : elapsed;
  }
  const apart = clock === undefined ? 0 : modulo(dated - clock, secondsPerDay);
  if (Math.min(apart, secondsPerDay - apart) > 60) {
    throw badHeader(
      `${tagName(tags.radiopharmaceuticalStartDateTime)} and ${tagName(tags.radiopharmaceuticalStartTime)} name different times of the injection: correct them in the system that made the series`,
    );
  }
  return at - dated;
}

const modulo = (value: number, by: number) => ((value % by) + by) % by;

/** After so many half-lives a thousandth of the dose is left, of which nobody makes an image. */
const mostHalfLives = 10;

function checkElapsed(elapsed: number, halfLife: number): void {
  if (elapsed >= -earlyScanSeconds && elapsed <= mostHalfLives * halfLife) return;
  const minutes = Math.round(Math.abs(elapsed) / 60);
  throw badHeader(
    `the injection is dated ${minutes} minutes ${elapsed < 0 ? 'after' : 'before'} the activity of the images${elapsed < 0 ? '' : `, more than ${mostHalfLives} half-lives`}: the dates of the injection (${tagName(tags.radiopharmaceuticalStartDateTime)}) and of the images were changed differently, or one is wrong. Correct them in the system that made the series`,
  );
}

const philipsElements = { suv: 0x00, activity: 0x09 } as const;
const philipsNames = {
  suv: 'SUV Factor (7053,1000)',
  activity: 'Activity Concentration Factor (7053,1009)',
} as const;

/** A factor of Philips, which stores counts. 0 stands for none. */
function philipsNumber(dataset: Dataset, element: number): number | undefined {
  const tag = privateTag(dataset, 0x7053, 'Philips PET Private Group', element);
  const value = tag === undefined ? undefined : number(dataset, tag, 'DS');
  return value === 0 ? undefined : value;
}

/** A private element of a creator, in the block that it has in this data set (PS3.5 7.8.1). */
function privateTag(dataset: Dataset, group: number, creator: string, element: number): Tag | undefined {
  for (let block = 0x10; block <= 0xff; block++) {
    if (word(dataset, group * 65536 + block) === creator) return group * 65536 + block * 256 + element;
  }
  return undefined;
}

/** A defined term of a header in a message. */
const codeIn = (value: string) => (/^[A-Z0-9_ ]{1,16}$/.test(value) ? value : 'malformed');

import { type DicomSeries, type DicomWeb, dicomText } from '@tomaat/client';
import { type ErrorCode, TomaatError } from '@tomaat/core';
import { openArchive } from '../archive.ts';
import type { DicomWebAddress } from '../config.ts';
import type { Connect } from '../dependencies.ts';
import type { SeenSeries, Source } from '../series.ts';
import { isUid } from '../uids.ts';

/*
 * A PACS by DICOMweb (PS3.18: QIDO-RS, WADO-RS), also Orthanc. Servers differ: some do not search series across studies,
 * ignore criteria, or do not count instances. What they leave undone is done here, at the cost of more requests.
 */

export interface DicomWebSourceOptions extends DicomWebAddress {
  readonly name: string;
  /** How far back a search looks, by StudyDate, days. */
  readonly sinceDays: number;
  /** Those that rules name; undefined if a rule takes any. */
  readonly modalities: readonly string[] | undefined;
  /** Largest file, bytes. */
  readonly maxFileBytes: number;
  /** Wall clock, ms. */
  readonly now?: () => number;
}

const dayMs = 86_400_000;
const attributes = [
  'NumberOfSeriesRelatedInstances',
  'StudyDate',
  'StudyDescription',
  'SeriesDescription',
] as const;

/** Errors of servers that do not offer a kind of search. */
const notOffered: readonly ErrorCode[] = ['METHOD_NOT_ALLOWED', 'NOT_FOUND', 'BAD_REQUEST', 'NOT_ACCEPTABLE'];
const isNotOffered = (error: unknown) => error instanceof TomaatError && notOffered.includes(error.code);

/** Nothing is asked before the first search. */
export function openDicomWebSource(options: DicomWebSourceOptions, connect: Connect): Source {
  const { name, sinceDays, modalities, maxFileBytes, now = Date.now } = options;
  // The gateway tries again by itself, later.
  const web = openArchive(options, connect, { retries: 1, maxInstanceBytes: maxFileBytes });
  let searchesSeries = true;

  async function* search(signal: AbortSignal): AsyncGenerator<SeenSeries> {
    const studyDate = `${dateOf(now() - sinceDays * dayMs)}-${dateOf(now() + dayMs)}`;
    const seen = new Set<string>();
    // No rule takes anything of it: whether it answers is found out all the same.
    if (modalities?.length === 0) await web.searchStudies({ studyDate }, { limit: 1, signal });
    for (const modality of modalities ?? [undefined]) {
      for await (const found of matching(modality, studyDate, signal)) {
        const { studyInstanceUid: study, seriesInstanceUid: series, dataset } = found;
        // Of all that a server sends; one unusable result leaves the others usable.
        // Copies of a series may lie in two studies, perhaps of two patients.
        const key = `${study} ${series}`;
        if (!isUid(study) || !isUid(series) || seen.has(key)) continue;
        if (isOutside(dicomText(dataset, 'StudyDate'), studyDate)) continue;
        if (modalities && found.modality !== undefined && !modalities.includes(found.modality)) continue;
        seen.add(key);
        const one = await toSeen(found, signal);
        if (one) yield one;
      }
    }
  }

  /** Series of a modality in a range of dates; by their studies if the server does not search for series alone. */
  async function* matching(
    modality: string | undefined,
    studyDate: string,
    signal: AbortSignal,
  ): AsyncGenerator<DicomSeries> {
    const query = { modality, studyDate };
    if (searchesSeries) {
      const found = await web
        .searchSeries(query, { includeFields: attributes, signal })
        .catch((error: unknown) => {
          if (!isNotOffered(error)) throw error;
        });
      if (found) {
        yield* found;
        return;
      }
    }
    const studies = await web.searchStudies(query, { includeFields: ['StudyDate'], signal });
    // It was the search that was refused, not the address or the login.
    searchesSeries = false;
    for (const study of studies) {
      if (!isUid(study.studyInstanceUid) || isOutside(study.studyDate, studyDate)) continue;
      const uid = study.studyInstanceUid;
      yield* await web.searchSeries({ study: uid, modality }, { includeFields: attributes, signal });
    }
  }

  async function toSeen(found: DicomSeries, signal: AbortSignal): Promise<SeenSeries | undefined> {
    const { studyInstanceUid: study, seriesInstanceUid: series, instanceCount } = found;
    const counted =
      instanceCount !== undefined && Number.isSafeInteger(instanceCount) && instanceCount > 0
        ? instanceCount
        : (await instances(study, series, signal)).length;
    if (counted === 0) return undefined;
    return {
      source: name,
      study,
      series,
      modality: found.modality,
      bodyPart: found.bodyPartExamined,
      description: found.seriesDescription,
      studyDescription: dicomText(found.dataset, 'StudyDescription'),
      instances: counted,
    };
  }

  async function look(study: string, series: string, signal: AbortSignal): Promise<SeenSeries | undefined> {
    try {
      const all = await web.searchSeries({ study, series }, { includeFields: attributes, signal });
      const found = all.find(({ seriesInstanceUid }) => seriesInstanceUid === series);
      return found && (await toSeen(found, signal));
    } catch (error) {
      if (!isNotFound(error)) throw error;
      return await unlessWrongAddress(error, study, signal);
    }
  }

  /** A 404 means that the study is gone only if the server answers to a search for it; else its address is wrong. */
  async function unlessWrongAddress(error: unknown, study: string, signal: AbortSignal): Promise<undefined> {
    await web.searchStudies({ study }, { limit: 1, signal }).catch((second: unknown) => {
      if (!isNotFound(second)) throw second;
      throw new TomaatError('UPSTREAM', second.message, { cause: error });
    });
  }

  async function instances(study: string, series: string, signal: AbortSignal): Promise<string[]> {
    try {
      const found = await web.searchInstances({ study, series }, { signal });
      if (found.length > 0) {
        const ofSeries = found.filter(({ seriesInstanceUid }) => seriesInstanceUid === series);
        return [...new Set(ofSeries.map(({ sopInstanceUid }) => sopInstanceUid))];
      }
    } catch (error) {
      if (!isNotOffered(error)) throw error;
    }
    try {
      const all = await web.retrieveMetadata({ study, series }, { signal });
      return [...new Set(all.flatMap((dataset) => dicomText(dataset, 'SOPInstanceUID') ?? []))];
    } catch (error) {
      if (!isNotFound(error)) throw error;
      return [];
    }
  }

  return { name, search, look, instances, fetch: (...asked) => fetchFiles(web, ...asked) };
}

const isNotFound = (error: unknown): error is TomaatError =>
  error instanceof TomaatError && error.code === 'NOT_FOUND';

/** The files of a series as they are stored, one in memory at a time; named by their number: names may be those of patients. */
async function* fetchFiles(
  web: DicomWeb,
  study: string,
  series: string,
  signal: AbortSignal,
): AsyncGenerator<{ name: string; bytes: Uint8Array }> {
  let count = 0;
  for await (const { bytes } of web.retrieveSeries(study, series, { signal }))
    yield { name: `${++count}.dcm`, bytes };
}

/** YYYYMMDD, in the time zone of this machine: that of the scanners. */
function dateOf(ms: number): string {
  const date = new Date(ms);
  return [date.getFullYear(), date.getMonth() + 1, date.getDate()]
    .map((part) => String(part).padStart(2, '0'))
    .join('');
}

/** Whether a server has ignored the range; a date that it does not tell counts as inside. */
function isOutside(date: string | undefined, range: string): boolean {
  const digits = date?.replaceAll('.', '') ?? '';
  if (!/^\d{8}$/.test(digits)) return false;
  const [first, last] = range.split('-');
  return digits < first || digits > last;
}

import { TomaatError } from '@tomaat/core';
import { isUid } from './dicom-file-meta.ts';
import {
  type DicomAttribute,
  type DicomDataset,
  type DicomKeyword,
  tagOf,
  toDatasets,
} from './dicom-json.ts';
import { type DicomWebConnection, dicomWebFault, mediaTypeOf, sendDicomWeb } from './dicomweb-http.ts';
import { readText, startWatchdog } from './http.ts';

/**
 * QIDO-RS: searching (PS3.18, section 10.6), page by page, and the metadata of instances without their pixels
 * (10.4.1.1.2).
 */

/**
 * Search criteria; all given ones must match. Texts may contain `*` for any characters and `?` for one; dates may be
 * ranges (`20240101-20240131`, `20240101-`), as in PS3.4, section C.2.2.2.
 */
export interface DicomQuery {
  /** Study Instance UID. */
  study?: string;
  /** Series Instance UID. */
  series?: string;
  /** SOP Instance UID. */
  instance?: string;
  patientId?: string;
  patientName?: string;
  accessionNumber?: string;
  /** YYYYMMDD, or a range. */
  studyDate?: string;
  studyDescription?: string;
  /** For example MR: of the series, or of any series in the study. */
  modality?: string;
  seriesDescription?: string;
  seriesNumber?: number;
  bodyPartExamined?: string;
  /** Others, by keyword (as in PS3.6), tag, or tags of a sequence joined by dots. */
  attributes?: Readonly<Record<string, string | number>>;
}

export interface SearchOptions {
  /** Maximum number of results; if missing, all are fetched, up to 50,000. */
  limit?: number;
  /** Number of results to skip. */
  offset?: number;
  /** Attributes to include beyond the usual ones, or `all`. */
  includeFields?: readonly DicomAttribute[] | 'all';
  signal?: AbortSignal;
}

export type SearchLevel = 'studies' | 'series' | 'instances';

/** Always sent, since servers have their own defaults; small enough for all known servers. */
const pageSize = 100;
const maxResults = 50_000;
const maxPageBytes = 2 ** 26;
const maxMetadataBytes = 2 ** 28;

/** What the typed results contain although PS3.18 does not require it in a response. */
const usualFields: Readonly<Record<SearchLevel, readonly DicomKeyword[]>> = {
  studies: ['StudyDescription'],
  series: ['BodyPartExamined'],
  instances: [],
};

/**
 * All results of a search. Fuzzy matching of names is off, which is the standard's default.
 * @param toItem reads a result; its UIDs identify results that occur on several pages
 */
export async function search<T>(
  connection: DicomWebConnection,
  level: SearchLevel,
  query: DicomQuery,
  options: SearchOptions,
  toItem: (dataset: DicomDataset) => T,
  keyOf: (item: T) => string,
): Promise<T[]> {
  const { path, parameters } = addressOfSearch(level, query);
  const { limit = Number.POSITIVE_INFINITY, offset = 0, includeFields = [], signal } = options;
  checkCounts(options);
  const fields =
    includeFields === 'all' ? ['all'] : [...new Set([...usualFields[level], ...includeFields].map(tagOf))];
  for (const field of fields) parameters.push(['includefield', field]);
  const found = new Map<string, T>();
  for (let at = offset; found.size < limit; ) {
    const asked = Math.min(pageSize, limit - found.size);
    const page = await fetchDatasets(connection, path, {
      parameters: [...parameters, ['limit', String(asked)], ['offset', String(at)]],
      task: 'search',
      maxBytes: maxPageBytes,
      signal,
    });
    const before = found.size;
    for (const dataset of page.datasets) {
      const item = toItem(dataset);
      found.set(keyOf(item), item);
    }
    at += page.datasets.length;
    const isWhole = page.datasets.length !== asked && !page.hasMore;
    if (page.datasets.length === 0 || isWhole) break;
    if (found.size === before) throw repeats(connection, at - page.datasets.length);
    if (found.size > maxResults) {
      throw new TomaatError(
        'BAD_REQUEST',
        `More than ${maxResults} results match at ${connection.host}. Narrow the search, or set a limit.`,
      );
    }
  }
  return [...found.values()].slice(0, limit);
}

/** The metadata of the instances at a path: all their attributes except large values. */
export async function fetchMetadata(
  connection: DicomWebConnection,
  path: string,
  signal?: AbortSignal,
): Promise<DicomDataset[]> {
  const { datasets } = await fetchDatasets(connection, path, {
    parameters: [],
    task: 'retrieve',
    maxBytes: maxMetadataBytes,
    signal,
  });
  return datasets;
}

/**
 * Checks that a UID may be part of an address.
 * @throws {TomaatError} BAD_INPUT
 */
export function checkUid(name: string, uid: string): string {
  if (typeof uid === 'string' && isUid(uid)) return uid;
  throw new TomaatError(
    'BAD_INPUT',
    `The ${name} UID is invalid: a UID has 1 to 64 digits and dots. Take it from the results of a search.`,
  );
}

interface Fetched {
  datasets: DicomDataset[];
  /** Whether the server reports that it omitted results. */
  hasMore: boolean;
}

async function fetchDatasets(
  connection: DicomWebConnection,
  path: string,
  {
    parameters,
    task,
    maxBytes,
    signal,
  }: {
    parameters: readonly (readonly [string, string])[];
    task: 'search' | 'retrieve';
    maxBytes: number;
    signal?: AbortSignal;
  },
): Promise<Fetched> {
  const { host } = connection;
  const watchdog = startWatchdog(connection, signal);
  try {
    // Not URLSearchParams: some servers do not decode its + as a space.
    const search = parameters.map((pair) => pair.map(encodeURIComponent).join('=')).join('&');
    const response = await sendDicomWeb(
      connection,
      { path, search, accept: 'application/dicom+json', task, signal: watchdog.signal },
      watchdog.alive,
    );
    if (response.status === 204) return { datasets: [], hasMore: false };
    const mediaType = mediaTypeOf(response);
    if (mediaType !== 'application/dicom+json' && mediaType !== 'application/json') {
      await response.body?.cancel();
      throw new TomaatError(
        'UPSTREAM',
        `${host} answered with ${mediaType || 'no Content-Type'} instead of application/dicom+json. Check that url is the root of its DICOMweb service, and whether a page for login is in front of it.`,
      );
    }
    const text = await readText(response, maxBytes, host);
    // RFC 7234, section 5.5: PS3.18 section 8.3.4.4 uses 299 for results beyond the server's maximum.
    const hasMore = /^299\b/.test(response.headers.get('warning') ?? '');
    return { datasets: toDatasets(parseJson(text, host), host), hasMore };
  } catch (error) {
    const fault = watchdog.signal.aborted ? watchdog.signal.reason : error;
    throw dicomWebFault(connection, path, fault, signal);
  } finally {
    watchdog.stop();
  }
}

function parseJson(text: string, host: string): unknown {
  try {
    return text.trim() === '' ? [] : JSON.parse(text);
  } catch (cause) {
    throw new TomaatError(
      'UPSTREAM',
      `${host} answered with JSON that cannot be read. Check the server's log, and whether a proxy changes its answers.`,
      { cause },
    );
  }
}

/** The path of a search below the given study and series, and everything else as parameters. */
function addressOfSearch(
  level: SearchLevel,
  query: DicomQuery,
): { path: string; parameters: (readonly [string, string])[] } {
  const { study, series, instance, attributes = {} } = query;
  const parameters: (readonly [string, string])[] = [];
  const match = (attribute: string, value: string | number | undefined) => {
    if (value !== undefined) parameters.push([attribute, String(value)]);
  };
  let path = '';
  if (study !== undefined && level !== 'studies') path += `/studies/${checkUid('study', study)}`;
  else match('StudyInstanceUID', study);
  if (path !== '' && series !== undefined && level === 'instances')
    path += `/series/${checkUid('series', series)}`;
  else match('SeriesInstanceUID', series);
  match('SOPInstanceUID', instance);
  match('PatientID', query.patientId);
  match('PatientName', query.patientName);
  match('AccessionNumber', query.accessionNumber);
  match('StudyDate', query.studyDate);
  match('StudyDescription', query.studyDescription);
  match(level === 'studies' ? 'ModalitiesInStudy' : 'Modality', query.modality);
  match('SeriesDescription', query.seriesDescription);
  match('SeriesNumber', query.seriesNumber);
  match('BodyPartExamined', query.bodyPartExamined);
  for (const [attribute, value] of Object.entries(attributes)) {
    if (!/^[A-Z0-9][A-Za-z0-9.]{0,200}$/.test(attribute)) {
      throw new TomaatError(
        'BAD_INPUT',
        `“${attribute}” is not an attribute. Give its keyword, such as PatientID, or its tag, such as 00100020.`,
      );
    }
    match(attribute, value);
  }
  return { path: `${path}/${level}`, parameters };
}

function checkCounts({ limit, offset = 0 }: SearchOptions): void {
  for (const [name, value] of [
    ['limit', limit ?? 0],
    ['offset', offset],
  ] as const) {
    if (!Number.isInteger(value) || value < 0)
      throw new TomaatError('BAD_INPUT', `${name} is ${value}. Give a whole number from 0.`);
  }
}

const repeats = ({ host }: DicomWebConnection, at: number) =>
  new TomaatError(
    'UPSTREAM',
    `${host} gave the same results again when asked for those after the first ${at}, so the rest cannot be fetched. Narrow the search to fewer than ${pageSize} results.`,
  );

import { TomaatError } from '@tomaat/core';
import {
  type DicomDataset,
  type DicomInstance,
  type DicomSeries,
  type DicomStudy,
  toInstance,
  toSeries,
  toStudy,
} from './dicom-json.ts';
import { type DicomWebOptions, openDicomWeb } from './dicomweb-http.ts';
import { type RetrievedInstance, type RetrieveOptions, retrieve } from './dicomweb-retrieve.ts';
import { checkUid, type DicomQuery, fetchMetadata, type SearchOptions, search } from './dicomweb-search.ts';
import { type DicomFile, type StoreOptions, type StoreReport, store } from './dicomweb-store.ts';

/** What metadata are asked for: a study, a series in it, or an instance in that, by their UIDs. */
export interface MetadataOf {
  study: string;
  series?: string;
  instance?: string;
}

export interface DicomWeb {
  /** Root of the service, without a slash at its end. */
  readonly url: string;
  /** The studies that match (PS3.18, section 10.6). */
  searchStudies(query?: DicomQuery, options?: SearchOptions): Promise<DicomStudy[]>;
  /** The series that match: of `query.study`, or of all studies where the server offers that. */
  searchSeries(query?: DicomQuery, options?: SearchOptions): Promise<DicomSeries[]>;
  /** The instances that match: of `query.series` in `query.study`, of a study, or of all where the server offers that. */
  searchInstances(query?: DicomQuery, options?: SearchOptions): Promise<DicomInstance[]>;
  /** All attributes of the instances but large values, as DICOM JSON (PS3.18, section 10.4.1.1.2). */
  retrieveMetadata(of: MetadataOf, options?: { signal?: AbortSignal }): Promise<DicomDataset[]>;
  /**
   * The instances of a series as DICOM files, in the encoding in which they are stored, one after the other (PS3.18, section 10.4):
   * only the current one is in memory, and the next is read when it is asked for. Leaving the loop ends the transfer. An answer
   * that is cut, partial (206) or empty ends with an error, never as a shorter series.
   */
  retrieveSeries(study: string, series: string, options?: RetrieveOptions): AsyncIterable<RetrievedInstance>;
  /** As `retrieveSeries`, for all series of a study. */
  retrieveStudy(study: string, options?: RetrieveOptions): AsyncIterable<RetrievedInstance>;
  retrieveInstance(
    study: string,
    series: string,
    instance: string,
    options?: Omit<RetrieveOptions, 'expectedInstances'>,
  ): Promise<RetrievedInstance>;
  /**
   * Stores DICOM files (PS3.18, section 10.5) in requests of up to `batchBytes`, and says of each whether it is stored: look at
   * `failed`, or call `requireStored`. A file that the server does not mention counts as not stored. Storing again what is there does
   * no harm.
   * @throws {TomaatError} BAD_INPUT before anything is sent, for what is not a DICOM file, or two of the same UID; an error on the way
   *   has the UIDs of those that were stored before in `detail.storedSopInstanceUids`
   */
  store(instances: readonly DicomFile[], options?: StoreOptions): Promise<StoreReport>;
}

/**
 * A client of a DICOMweb service, such as a PACS, for browsers and Node (PS3.18: QIDO-RS, WADO-RS, STOW-RS). Everything rejects with a
 * TomaatError: UNREACHABLE when the network failed or an answer was cut, UPSTREAM for an answer that is not DICOMweb, UNAUTHORIZED,
 * FORBIDDEN, NOT_FOUND and others for refusals. An aborted signal rejects with its own reason. Redirects are followed within the
 * origin of `url` alone, so that no credentials reach another. Neither names of patients nor queries are part of messages.
 * @throws {TomaatError} BAD_REQUEST if `url` is not an http or https address
 */
export function createDicomWeb(options: DicomWebOptions): DicomWeb {
  const connection = openDicomWeb(options);
  const { host } = connection;
  const client: DicomWeb = {
    url: connection.baseUrl,

    searchStudies: (query = {}, options = {}) =>
      search(
        connection,
        'studies',
        query,
        options,
        (dataset) => toStudy(dataset, host),
        ({ studyInstanceUid }) => studyInstanceUid,
      ),

    searchSeries: (query = {}, options = {}) =>
      search(
        connection,
        'series',
        query,
        options,
        (dataset) => toSeries(dataset, host, { studyInstanceUid: query.study }),
        ({ seriesInstanceUid }) => seriesInstanceUid,
      ),

    searchInstances: (query = {}, options = {}) =>
      search(
        connection,
        'instances',
        query,
        options,
        (dataset) =>
          toInstance(dataset, host, { studyInstanceUid: query.study, seriesInstanceUid: query.series }),
        ({ sopInstanceUid }) => sopInstanceUid,
      ),

    retrieveMetadata: async ({ study, series, instance }, { signal } = {}) =>
      fetchMetadata(connection, `${pathOf(study, series, instance)}/metadata`, signal),

    async *retrieveStudy(study, options) {
      yield* retrieve(connection, pathOf(study), options);
    },

    async *retrieveSeries(study, series, options) {
      yield* retrieve(connection, pathOf(study, series), options);
    },

    async retrieveInstance(study, series, instance, options = {}) {
      const path = pathOf(study, series, instance);
      let found: RetrievedInstance | undefined;
      for await (const each of retrieve(connection, path, { ...options, expectedInstances: 1 }))
        found ??= each;
      // `retrieve` ends without an error only after one instance.
      return found!;
    },

    store: async (instances, options = {}) =>
      store(connection, options.study === undefined ? '/studies' : pathOf(options.study), instances, options),
  };
  return client;
}

/** Where a study, a series or an instance is, below the root. */
function pathOf(study: string, series?: string, instance?: string): string {
  if (series === undefined && instance !== undefined)
    throw new TomaatError(
      'BAD_INPUT',
      'An instance is found in its series. Give the UID of the series, too.',
    );
  return [
    `/studies/${checkUid('study', study)}`,
    ...(series === undefined ? [] : [`/series/${checkUid('series', series)}`]),
    ...(instance === undefined ? [] : [`/instances/${checkUid('instance', instance)}`]),
  ].join('');
}

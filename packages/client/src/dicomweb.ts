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

/** Selects metadata: a study, a series in it, or an instance in that, by their UIDs. */
export interface MetadataOf {
  study: string;
  series?: string;
  instance?: string;
}

export interface DicomWeb {
  /** Root of the service, without a trailing slash. */
  readonly url: string;
  /** The matching studies (PS3.18, section 10.6). */
  searchStudies(query?: DicomQuery, options?: SearchOptions): Promise<DicomStudy[]>;
  /** The matching series: in `query.study`, or in all studies if the server supports that. */
  searchSeries(query?: DicomQuery, options?: SearchOptions): Promise<DicomSeries[]>;
  /** The matching instances: in `query.series` of `query.study`, in a study, or in all if the server supports that. */
  searchInstances(query?: DicomQuery, options?: SearchOptions): Promise<DicomInstance[]>;
  /** All attributes of the instances except large values, as DICOM JSON (PS3.18, section 10.4.1.1.2). */
  retrieveMetadata(of: MetadataOf, options?: { signal?: AbortSignal }): Promise<DicomDataset[]>;
  /**
   * The instances of a series as DICOM files, in their stored encoding, one after the other (PS3.18, section 10.4):
   * only the current one is in memory, and the next is read on request. Leaving the loop ends the transfer. A
   * truncated, partial (206) or empty response ends with an error, never as a shorter series.
   */
  retrieveSeries(study: string, series: string, options?: RetrieveOptions): AsyncIterable<RetrievedInstance>;
  /** Like `retrieveSeries`, for all series of a study. */
  retrieveStudy(study: string, options?: RetrieveOptions): AsyncIterable<RetrievedInstance>;
  retrieveInstance(
    study: string,
    series: string,
    instance: string,
    options?: Omit<RetrieveOptions, 'expectedInstances'>,
  ): Promise<RetrievedInstance>;
  /**
   * Stores DICOM files (PS3.18, section 10.5) in requests of up to `batchBytes`, and reports for each whether it is
   * stored: check `failed`, or call `requireStored`. A file that the server does not mention counts as not stored.
   * Storing an instance again is harmless.
   * @throws {TomaatError} BAD_INPUT before anything is sent, for a file that is not DICOM, or two with the same UID;
   *   an error during the transfer has the UIDs of those stored before it in `detail.storedSopInstanceUids`
   */
  store(instances: readonly DicomFile[], options?: StoreOptions): Promise<StoreReport>;
}

/**
 * A client of a DICOMweb service, such as a PACS, for browsers and Node (PS3.18: QIDO-RS, WADO-RS, STOW-RS). All
 * errors are TomaatErrors: UNREACHABLE if the network failed or a response was truncated, UPSTREAM for a response
 * that is not DICOMweb, UNAUTHORIZED, FORBIDDEN, NOT_FOUND and others for refused requests. An aborted signal rejects
 * with its own reason. Redirects are followed only within the origin of `url`, so that credentials are not sent
 * elsewhere. Messages contain neither names of patients nor queries.
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
        // A copy in another study is another result.
        ({ studyInstanceUid, seriesInstanceUid }) => `${studyInstanceUid} ${seriesInstanceUid}`,
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

/** The path of a study, series or instance, relative to the root. */
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

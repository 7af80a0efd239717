/** The type of every error; `code` is one of `errorCodes`. */
export {
  type Bytes,
  createUidKey,
  type DeidentificationReport,
  type ErrorCode,
  type ErrorData,
  errorCodes,
  formatUidKey,
  type Predecessor,
  parseUidKey,
  TomaatError,
} from '@tomaat/core';
export {
  type AnnouncementCheck,
  announcementId,
  announcementLifeSeconds,
  announcementType,
  audienceOf,
  type VerifiedAnnouncement,
  verifyAnnouncement,
  verifyEntry,
} from './announcement.ts';
export { type Client, createClient, requireSuccess, type ServiceFilters } from './client.ts';
export {
  type Endpoint,
  type EndpointResponse,
  type FormFields,
  isOn,
  type Program,
  type RequestHeader,
} from './contract/endpoint.ts';
export {
  type GatewayPeer,
  type GatewaySeries,
  type GatewaySeriesState,
  type GatewayStep,
  type GatewaySummary,
  gatewaySeriesQuery,
  gatewaySeriesSchema,
  gatewaySeriesStates,
  gatewaySummarySchema,
  type StableSeries,
  stableSeriesSchema,
} from './contract/gateway.ts';
export {
  isSettled,
  type Job,
  type JobIn,
  type JobOutput,
  type JobState,
  jobOutputSchema,
  jobSchema,
  jobSchemas,
  jobStates,
  settledStates,
} from './contract/jobs.ts';
export { type LoggedOut, loggedOutSchema, type Me, meSchema } from './contract/login.ts';
export {
  idempotencyKeySchema,
  type NamedPrediction,
  namedPredictionSchema,
  seriesSchema,
} from './contract/predictions.ts';
export { type Problem, problemSchema } from './contract/problem.ts';
export {
  type AnnouncedParity,
  type Announcement,
  announcedParitySchema,
  announcementSchema,
  type Entry,
  entrySchema,
  type SignedAnnouncement,
  signedAnnouncementSchema,
} from './contract/registry.ts';
export {
  type Fit,
  fitSchema,
  type Processing,
  processingSchema,
  type Service,
  serviceSchema,
  type VolumeFacts,
  volumeFactsSchema,
} from './contract/services.ts';
export {
  attemptSchema,
  claimedJobSchema,
  claimSchema,
  completeSchema,
  failSchema,
  handBackSchema,
  touchSchema,
  type Welcome,
  welcomeSchema,
} from './contract/workers.ts';
export { type EndpointName, endpoints } from './contract.ts';
export { type AttributeGroup, summarizeReport } from './deidentification-reports.ts';
export {
  type ChosenSeries,
  type DeidentifyChoice,
  type DicomInput,
  type DicomInputFile,
  type DicomInputOptions,
  type DicomResultOptions,
  measuredLabelMap,
  openDicomInput,
  type PreparedSeries,
  type PrepareOptions,
} from './dicom-input.ts';
export {
  type DicomAttribute,
  type DicomDataset,
  type DicomElement,
  type DicomInstance,
  type DicomKeyword,
  type DicomSeries,
  type DicomStudy,
  dicomItems,
  dicomNumber,
  dicomTags,
  dicomText,
  dicomTexts,
  dicomValues,
} from './dicom-json.ts';
export { createDicomWeb, type DicomWeb, type MetadataOf } from './dicomweb.ts';
export type { DicomWebHeaders, DicomWebOptions } from './dicomweb-http.ts';
export type { RetrievedInstance, RetrieveOptions, RetrieveProgress } from './dicomweb-retrieve.ts';
export type { DicomQuery, SearchOptions } from './dicomweb-search.ts';
export {
  type DicomFile,
  type FailedInstance,
  requireStored,
  type StoredInstance,
  type StoreOptions,
  type StoreProgress,
  type StoreReason,
  type StoreReport,
} from './dicomweb-store.ts';
export { exposedHeaders } from './exposed-headers.ts';
export { createGatewayClient, type GatewayClient, type GatewayListOptions } from './gateway.ts';
export { dispositionName, parseHeaderValue } from './header-value.ts';
export { type ConnectionOptions, isCallersFault, isPassing } from './http.ts';
export { type AnonymousFiles, type AnonymousOptions, anonymousFiles } from './identifying-text.ts';
export { decideIdentity, type IdentityDecision, type IdentityFacts } from './identity.ts';
export { openApiDocument } from './openapi.ts';
export type { OutputFile } from './output-file.ts';
export type { InputParameter, PredictOptions, VolumeFile } from './prediction.ts';
export { type Receipt, receiptSchema, verifyReceipt } from './receipt.ts';
export {
  createRegistryClient,
  type DiscoverOptions,
  discoverV1,
  type RegistryClient,
  type RegistryClientOptions,
} from './registry.ts';
export { type Signed, verifySigned } from './signed.ts';
export { toSlug } from './slug.ts';
export type { FileSource, NamedBytes, UploadFile, UploadProgress } from './upload.ts';
export type { FileRef, ResumableOptions } from './upload-resumable.ts';
export {
  interfaceV1,
  predictV1,
  startValueV1,
  type V1Input,
  type V1Output,
  type V1PredictOptions,
} from './v1.ts';
export type { WatchOptions } from './watch.ts';

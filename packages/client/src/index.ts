export {
  type AnnouncementCheck,
  announcementId,
  announcementLifeSeconds,
  announcementType,
  audienceOf,
  clockSkewSeconds,
  isSameRegistry,
  verifyAnnouncement,
  verifyEntry,
} from './announcement.ts';
export {
  type Client,
  createClient,
  type InputParameter,
  type OutputFile,
  type PredictOptions,
  requireSuccess,
  type ServiceFilters,
  type VolumeFile,
} from './client.ts';
export * from './contract.ts';
export { type ConnectionOptions, errorOf, isCallersFault } from './http.ts';
export { type AnonymousFiles, type AnonymousOptions, anonymousFiles } from './identifying-text.ts';
export { openApiDocument } from './openapi.ts';
export { type Receipt, receiptSchema, verifyReceipt } from './receipt.ts';
export {
  createRegistryClient,
  type DiscoverOptions,
  discoverV1,
  type RegistryClient,
  type RegistryClientOptions,
} from './registry.ts';
export { type Signed, verifySigned } from './signed.ts';
export type { FileSource, UploadFile, UploadProgress } from './upload.ts';
export type { FileRef, ResumableOptions } from './upload-resumable.ts';
export { interfaceV1, predictV1, type V1Input, type V1Output, type V1PredictOptions } from './v1.ts';
export { isSettled, type WatchOptions } from './watch.ts';

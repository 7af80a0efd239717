import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import * as door from './index.ts';

/* The public names of @tomaat/client. Whoever adds one promises it to others; who removes one says so in the changelog. */

const values = `
  TomaatError announcementId announcementLifeSeconds announcementSchema announcementType anonymousFiles
  attemptSchema audienceOf claimSchema claimedJobSchema completeSchema createClient createRegistryClient
  discoverV1 dispositionName endpoints entrySchema errorCodes exposedHeaders failSchema fitSchema
  handBackSchema idempotencyKeySchema interfaceV1 isCallersFault isPassing isSettled jobOutputSchema
  jobSchema jobSchemas jobStates loggedOutSchema meSchema namedPredictionSchema openApiDocument
  parseHeaderValue predictV1 problemSchema receiptSchema requireSuccess serviceSchema settledStates
  signedAnnouncementSchema startValueV1 toSlug touchSchema verifyAnnouncement verifyEntry verifyReceipt
  verifySigned volumeFactsSchema welcomeSchema
`;
const types = `
  Announcement AnnouncementCheck AnonymousFiles AnonymousOptions Bytes Client ConnectionOptions
  DiscoverOptions Endpoint EndpointName EndpointResponse Entry ErrorCode ErrorData FileRef FileSource Fit
  FormFields InputParameter Job JobIn JobOutput JobState LoggedOut Me NamedBytes NamedPrediction
  OutputFile PredictOptions Problem Receipt RegistryClient RegistryClientOptions RequestHeader
  ResumableOptions Service ServiceFilters Signed SignedAnnouncement UploadFile UploadProgress V1Input
  V1Output V1PredictOptions VolumeFacts VolumeFile WatchOptions Welcome
`;

const words = (text: string) => text.trim().split(/\s+/).sort();

it('the door of @tomaat/client has these names, and each is written out', () => {
  expect(Object.keys(door).sort()).toEqual(words(values));
  const text = readFileSync(new URL('./index.ts', import.meta.url), 'utf8');
  expect(text).not.toMatch(/export (type )?\*/);
  const named = [...text.matchAll(/export (type )?\{([^}]*)\}/g)].flatMap(([, isType, list]) =>
    list
      .split(',')
      .map((name) => `${isType ?? ''}${name.trim()}`)
      .filter((name) => name.startsWith('type ') && name !== 'type '),
  );
  expect(named.map((name) => name.slice('type '.length)).sort()).toEqual(words(types));
});

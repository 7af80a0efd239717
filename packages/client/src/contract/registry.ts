import { hasUnseen, paritySchema } from '@tomaat/core';
import { z } from 'zod';
import { type Endpoint, json } from './endpoint.ts';
import { filters, slug } from './services.ts';

/**
 * How the results of a service agree with those of its author's pipeline, as announced. It is in the protected header of the
 * signed text (`parity`), not in its payload: there a registry or client of 0.1 ignores it (RFC 7515, 4), and the signature
 * covers it.
 */
export const announcedParitySchema = paritySchema
  .pick({ verdict: true, agree: true, cases: true, conditions: true })
  .extend({
    conditions: paritySchema.shape.conditions.refine(
      (text) => text === undefined || !hasUnseen(text),
      'must not hold control characters, or ones that are not seen or change the direction of writing',
    ),
  })
  .strip();
export type AnnouncedParity = z.infer<typeof announcedParitySchema>;

/** What a registry knows about a service. */
export const entrySchema = z.object({
  sid: z.string(),
  name: z.string(),
  modality: z.string(),
  anatomy: z.string(),
  task: z.string(),
  description: z.string(),
  predictionUrl: z.string().describe('TOMAAT v1 address'),
  interfaceUrl: z.string(),
  serverUrl: z
    .string()
    .optional()
    .describe('Base address of the server’s own API; missing for v1-only servers'),
  serviceId: z.string().optional(),
  version: z.string().optional(),
  default: z.boolean().optional(),
  volumes: z.int().optional().describe('Volumes that a prediction needs'),
  parity: announcedParitySchema
    .optional()
    .describe('How its results agree with those of its author’s own pipeline, as its server signed'),
  face: z.enum(['api', 'v1']).describe('How it was announced; only api entries are relayed'),
  live: z.boolean().describe('Whether the last announcement is still valid'),
  announcedTime: z.string(),
  expiresTime: z.string(),
  id: z
    .string()
    .optional()
    .describe('Of the announcement: the thumbprint of the server’s key, a dot, the service; missing for v1'),
  signed: z
    .union([z.literal(false), z.string()])
    .optional()
    .describe(
      'The announcement as its server signed it, to be checked by the client; false: TOMAAT v1 signs nothing',
    ),
});
export type Entry = z.infer<typeof entrySchema>;

const url = z
  .url({ protocol: /^https?$/ })
  .max(2000)
  .refine((text) => !hasUnseen(text) && !/\s/.test(text), 'must not hold spaces or control characters');

const unseenFault =
  'must not hold control characters, or ones that are not seen or change the direction of writing';
/** Single-line text, as shown in lists. */
const line = (least: number, most: number) =>
  z
    .string()
    .min(least)
    .max(most)
    .refine((text) => !hasUnseen(text), unseenFault);

export const announcementSchema = z.strictObject({
  name: line(1, 200),
  modality: line(1, 40),
  anatomy: slug,
  task: slug,
  description: z
    .string()
    .max(4000)
    .refine((text) => !hasUnseen(text.replace(/[\r\n\t]/g, '')), unseenFault),
  predictionUrl: url,
  interfaceUrl: url,
  serverUrl: url,
  serviceId: line(1, 100),
  version: line(0, 40).optional(),
  default: z.boolean().optional(),
  volumes: z.int().min(0).max(64).optional(),
});
export type Announcement = z.infer<typeof announcementSchema>;

const thumbprint = z.string().regex(/^[\w-]{43}$/, 'must be a SHA-256 thumbprint in base64url');
const seconds = z.int().min(0).max(Number.MAX_SAFE_INTEGER);

/** What a server signs (compact JWS, EdDSA, type `tomaat-announcement+jws`, its public key as `jwk` in the header). */
export const signedAnnouncementSchema = announcementSchema.extend({
  id: z.string().regex(/^[\w-]{43}\.[\w.:-]{1,100}$/, 'must be a thumbprint, a dot and the id of a service'),
  sub: thumbprint.describe('Thumbprint (RFC 7638) of the key that signs'),
  aud: url.describe('Address of the registry for which it is valid'),
  iat: seconds.describe('When it was signed, seconds since 1970'),
  exp: seconds.describe('Until when it is good, at most 120 s later'),
  epoch: z.int().min(1).describe('Grows with every announcement: an older one never replaces a newer one'),
  certificate: z
    .string()
    .regex(/^[0-9A-F]{2}(:[0-9A-F]{2}){31}$/, 'must be a SHA-256 fingerprint such as AB:01:…')
    .describe('SHA-256 fingerprint of the server’s TLS certificate'),
});
export type SignedAnnouncement = z.infer<typeof signedAnnouncementSchema>;

export const registryEndpoints = {
  listEntries: {
    method: 'GET',
    path: '/api/services',
    on: 'registry',
    tag: 'registry',
    summary: 'The services that are announced here',
    query: filters.extend({
      live: z.stringbool().optional().describe('true: only those whose announcement is valid'),
    }),
    responses: { 200: json(z.object({ services: z.array(entrySchema) }), 'Entries') },
  },
  announce: {
    method: 'PUT',
    path: '/api/announcements/{id}',
    on: 'registry',
    tag: 'registry',
    summary: 'Announces a service, or renews it; needs a key with the scope announce',
    description:
      'The id begins with the thumbprint of the key that signs, and is the same in the signed text: a compact JWS (EdDSA, type tomaat-announcement+jws, the public key as jwk in its header) of a SignedAnnouncement. The header may also hold parity, as in the entry. An epoch that is not greater than the last one of this id is refused.',
    params: z.object({ id: signedAnnouncementSchema.shape.id }),
    body: {
      description: 'The signed announcement',
      content: { 'application/json': z.strictObject({ signed: z.string().max(65_536) }) },
    },
    responses: { 200: json(entrySchema, 'The entry, with the time until which it is valid') },
  },
  withdraw: {
    method: 'DELETE',
    path: '/api/announcements/{id}',
    on: 'registry',
    tag: 'registry',
    summary: 'Withdraws a service',
    params: z.object({ id: z.string() }),
    responses: { 204: { description: 'Gone' } },
  },
} as const satisfies Record<string, Endpoint>;

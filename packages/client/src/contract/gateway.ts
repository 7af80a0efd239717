import { seriesFormats } from '@tomaat/core';
import { z } from 'zod';
import { type Endpoint, idParam, json } from './endpoint.ts';

// What a gateway tells about the series that it takes from a PACS to services: UIDs and descriptions, never who the patient is.

export const gatewaySeriesStates = ['waiting', 'queued', 'running', 'done', 'failed', 'dropped'] as const;
export type GatewaySeriesState = (typeof gatewaySeriesStates)[number];
export const gatewaySteps = ['fetch', 'predict', 'store'] as const;
export type GatewayStep = (typeof gatewaySteps)[number];

const uid = z
  .string()
  .max(64)
  .regex(/^\d+(\.\d+)*$/, 'must be a DICOM UID: at most 64 characters, numbers with dots between them');

/** Text of a DICOM header; empty where the header has none. */
const text = z.string().max(1024).optional();

/** What Orthanc's hook sends when a series has been stable for a while. */
export const stableSeriesSchema = z.strictObject({
  study: uid,
  series: uid,
  modality: text,
  bodyPart: text,
  description: text.describe('SeriesDescription'),
  studyDescription: text,
  callingAet: text.describe('Application entity that sent it'),
  instances: z.int().min(0).max(1_000_000).optional(),
});
export type StableSeries = z.infer<typeof stableSeriesSchema>;

const reason = z.object({ code: z.string(), message: z.string() });

export const gatewaySeriesSchema = z.object({
  id: z.string(),
  rule: z.string(),
  source: z.string(),
  study: z.string(),
  series: z.string(),
  modality: z.string().optional(),
  description: z.string().optional().describe('SeriesDescription'),
  state: z.enum(gatewaySeriesStates),
  step: z.enum(gatewaySteps).describe('How far it came'),
  instances: z.int(),
  predecessor: z.string().optional().describe('The row of what was stored before the series grew'),
  job: z.string().optional().describe('On the service, while it is there'),
  results: z.array(
    z.object({
      format: z.enum(seriesFormats),
      sopClass: z.string(),
      sopInstance: z.string(),
      series: z.string(),
      storedAt: z.array(z.string()).describe('Destinations that have confirmed it'),
    }),
  ),
  reason: reason.optional().describe('Why it failed, or what the last passing fault was'),
  attempts: z.int().describe('Passing faults in a row'),
  seenTime: z.string(),
  changedTime: z.string(),
  dueTime: z.string().optional().describe('When it is looked at next; missing where it has ended'),
  endedTime: z.string().optional(),
});
export type GatewaySeries = z.infer<typeof gatewaySeriesSchema>;

const peer = z.object({
  name: z.string(),
  lastOkTime: z.string().optional().describe('Last contact without a fault; missing if there was none yet'),
  fault: reason.extend({ sinceTime: z.string() }).optional(),
});
export type GatewayPeer = z.infer<typeof peer>;

export const gatewaySummarySchema = z.object({
  rules: z.array(z.object({ id: z.string(), service: z.string(), destinations: z.array(z.string()) })),
  counts: z.array(z.object({ rule: z.string(), state: z.enum(gatewaySeriesStates), count: z.int() })),
  sources: z.array(peer),
  destinations: z.array(peer),
  oldestWaitingTime: z.string().optional().describe('When the oldest series that has not ended was seen'),
  databaseFault: reason.optional(),
});
export type GatewaySummary = z.infer<typeof gatewaySummarySchema>;

export const gatewaySeriesQuery = z.object({
  state: z.enum(gatewaySeriesStates).optional(),
  rule: z.string().max(100).optional(),
  before: z
    .string()
    .max(100)
    .optional()
    .describe('Those after this row in the list: `next` of the last answer'),
  limit: z.coerce.number().int().min(1).max(200).default(50),
});

export const gatewayListSchema = z.object({
  series: z.array(gatewaySeriesSchema),
  next: z.string().optional().describe('For `before`; missing at the end of the list'),
});

export const gatewayEndpoints = {
  gatewaySummary: {
    method: 'GET',
    path: '/api/gateway/summary',
    on: 'gateway',
    tag: 'gateway',
    summary: 'Numbers of series, and whether sources and destinations answer',
    responses: { 200: json(gatewaySummarySchema, 'As of the last second') },
  },
  gatewayList: {
    method: 'GET',
    path: '/api/gateway/series',
    on: 'gateway',
    tag: 'gateway',
    summary: 'Series, one row for each rule that matched, newest first',
    query: gatewaySeriesQuery,
    responses: { 200: json(gatewayListSchema, 'Rows') },
  },
  gatewaySeries: {
    method: 'GET',
    path: '/api/gateway/series/{id}',
    on: 'gateway',
    tag: 'gateway',
    summary: 'One row',
    params: idParam,
    responses: { 200: json(gatewaySeriesSchema, 'It') },
  },
  gatewayRetry: {
    method: 'POST',
    path: '/api/gateway/series/{id}/retry',
    on: 'gateway',
    tag: 'gateway',
    summary:
      'Begins again with a series that has failed or was dropped, or at once with one that waits after a fault',
    params: idParam,
    responses: { 200: json(gatewaySeriesSchema, 'The row as it is now') },
  },
  gatewayDrop: {
    method: 'DELETE',
    path: '/api/gateway/series/{id}',
    on: 'gateway',
    tag: 'gateway',
    summary: 'Stops work on a series. Results that are already in the PACS stay there',
    params: idParam,
    responses: { 200: json(gatewaySeriesSchema, 'The row as it is now') },
  },
  gatewayHook: {
    method: 'POST',
    path: '/hooks/orthanc/{source}',
    on: 'gateway',
    tag: 'gateway',
    summary:
      'For Orthanc: a series is stable. Needs the secret of that source as the bearer token, not a key',
    params: z.object({ source: z.string() }),
    body: {
      description: 'At most 16 KiB. Unknown fields are refused, so that no name is sent by mistake',
      content: { 'application/json': stableSeriesSchema },
    },
    responses: {
      200: json(z.object({ taken: z.literal(true) }), 'It is on disk, for each rule that matches'),
    },
  },
  gatewayReady: {
    method: 'GET',
    path: '/health/ready',
    on: 'gateway',
    tag: 'operations',
    summary: 'Whether series are taken now. A source that does not answer is counted, and others go on',
    responses: {
      200: json(
        z.object({
          status: z.literal('ready'),
          away: z
            .object({ sources: z.int(), destinations: z.int() })
            .describe('How many do not answer at the moment'),
        }),
        'They are',
      ),
      503: { description: 'Not now', headers: ['Retry-After'] },
    },
  },
} as const satisfies Record<string, Endpoint>;

import type { Readable } from 'node:stream';
import { endpoints, toSlug, verifyAnnouncement } from '@tomaat/client';
import { hasUnseen, reservedWords, TomaatError } from '@tomaat/core';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { z } from 'zod';
import type { Access } from '../access/access.ts';
import { hasScope } from '../access/keys.ts';
import { parseJson } from '../intake/read-json.ts';
import type { Entries, V1Announcement } from './entries.ts';
import type { RegistryMetrics } from './metrics.ts';
import type { Relay } from './relay.ts';
import { checkAddress } from './targets.ts';

export interface RegistryRoutes {
  entries: Entries;
  relay: Relay;
  metrics: RegistryMetrics;
  access: Access;
  now: () => number;
  /** Whether an address, by which a server names its registry, is this registry's. */
  isOwnAddress(address: string): boolean;
}

/** The registry's routes: our API as in the contract, v1 exactly as it was, and the promise. */
export function registerRegistryRoutes(
  app: FastifyInstance,
  { entries, relay, metrics, access, now, isOwnAddress }: RegistryRoutes,
): void {
  app.get(endpoints.listEntries.path, async (request) => {
    const filters = check(endpoints.listEntries.query, request.query, 'The query');
    return { services: await entries.search(filters) };
  });

  app.put('/api/announcements/:id', async (request) => {
    const key = announcerOf(request);
    try {
      const { id } = check(endpoints.announce.params, request.params, 'The address');
      const body = endpoints.announce.body.content['application/json'];
      const { signed } = check(body, await readJson(request), 'The announcement');
      const announcement = await verifyAnnouncement(signed, { isAudience: isOwnAddress, nowMs: now() });
      if (announcement.id !== id) {
        throw new TomaatError(
          'BAD_SIGNATURE',
          `The signed announcement is for ${announcement.id}, not for ${id}. Send it to its own address.`,
        );
      }
      checkUrls(announcement);
      const entry = await entries.announce(key, announcement, signed);
      metrics.announcements.inc({ face: 'api', outcome: 'accepted' });
      return entry;
    } catch (error) {
      metrics.announcements.inc({ face: 'api', outcome: 'refused' });
      throw error;
    }
  });

  app.delete('/api/announcements/:id', async (request, reply) => {
    const key = announcerOf(request);
    const { id } = check(endpoints.withdraw.params, request.params, 'The address');
    await entries.withdraw(key, id);
    return reply.code(204).send();
  });

  registerV1(app, { entries, metrics, access });

  app.post('/:task/:anatomy', async (request, reply) => {
    const { task, anatomy } = request.params as { task: string; anatomy: string };
    const first = task.toLowerCase();
    if ((reservedWords as readonly string[]).includes(first)) {
      throw new TomaatError(
        'NOT_FOUND',
        `A registry has no POST /${task}/${anatomy}. GET /api/openapi.json lists its endpoints.`,
      );
    }
    const { service } = request.query as { service?: string | string[] };
    await relay(request, reply, {
      task: toSlug(task),
      anatomy: toSlug(anatomy),
      service: Array.isArray(service) ? service[0] : service,
    });
    return reply;
  });
}

/** The key whose entries a caller may change. */
function announcerOf({ principal }: FastifyRequest): { id: string } {
  if (principal?.keyId !== undefined) return { id: principal.keyId };
  throw new TomaatError('FORBIDDEN', 'Every entry belongs to an API key. Announce with one.');
}

// ── TOMAAT v1 ────────────────────────────────────────────────────────────────────────────────────────────────

const v1Texts = ['name', 'modality', 'anatomy', 'task', 'description'] as const;
const v1Urls = ['prediction_url', 'interface_url'] as const;
/** The client groups by these, so they may not be empty. */
const v1Grouped: readonly string[] = ['name', 'modality', 'anatomy', 'task'];
const v1MaxLength = { name: 200, modality: 200, anatomy: 200, task: 200, description: 4000 } as const;
const v1Header = {
  'access-control-allow-origin': '*',
  'access-control-allow-methods': 'GET, POST, OPTIONS',
  'access-control-allow-headers': '*',
  'access-control-max-age': '2520',
};

function registerV1(
  app: FastifyInstance,
  { entries, metrics, access }: Pick<RegistryRoutes, 'entries' | 'metrics' | 'access'>,
): void {
  // The body of a v1 server is JSON, whatever its content type; fastify would reject an invalid content type.
  app.addHook('onRequest', async (request) => {
    if (request.routeOptions.url === '/announce') request.headers['content-type'] = 'application/json';
  });
  for (const path of ['/announce', '/discover']) {
    app.options(path, async (_request, reply) => reply.headers(v1Header).code(204).send());
  }

  app.post('/announce', async (request, reply) => {
    reply.headers(v1Header);
    const problems: string[] = [];
    try {
      const body = await readJson(request);
      const { announcement, apiKey } = checkV1(body, problems);
      const key = apiKey === undefined ? undefined : await access.recognise(apiKey, request);
      if (apiKey !== undefined && !key) problems.push('api_key is unknown, expired or revoked');
      else if (key && !hasScope(key, 'announce')) problems.push('api_key lacks the scope announce');
      if (key && problems.length === 0) await entries.announceV1(key, announcement);
    } catch (error) {
      if (!(error instanceof TomaatError)) throw error;
      problems.push(error.message);
    }
    metrics.announcements.inc({ face: 'v1', outcome: problems.length === 0 ? 'accepted' : 'refused' });
    return { status: problems.length, error: problems.join('; ') };
  });

  app.get('/discover', async (_request, reply) => {
    reply.headers(v1Header);
    return (await entries.search({ live: true })).map((entry) => ({
      api_key: '',
      prediction_url: entry.predictionUrl,
      interface_url: entry.interfaceUrl,
      name: entry.name,
      modality: entry.modality,
      anatomy: entry.anatomy,
      task: entry.task,
      description: entry.description,
      SID: entry.sid,
      creation_time: Date.parse(entry.announcedTime) / 1000,
    }));
  });
}

/** Whether a text is free of characters that could mislead readers of the list; addresses are stored as parsed. */
function isShown(name: string, value: string): boolean {
  if ((v1Urls as readonly string[]).includes(name) || name === 'api_key') return true;
  return !hasUnseen(name === 'description' ? value.replace(/[\r\n\t]/g, '') : value);
}

/** Adds every problem of a v1 announcement to the list; an empty list means that the announcement is valid. */
function checkV1(body: unknown, problems: string[]): { announcement: V1Announcement; apiKey?: string } {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    throw new TomaatError('BAD_REQUEST', 'the body is not a JSON object');
  }
  const given = body as Record<string, unknown>;
  const text = (name: string, maxLength: number): string | undefined => {
    const value = Object.hasOwn(given, name) ? given[name] : undefined;
    if (value === undefined) problems.push(`${name} is missing`);
    else if (typeof value !== 'string') problems.push(`${name} is not a string`);
    else if (value.trim() === '' && name !== 'description') problems.push(`${name} is empty`);
    else if (v1Grouped.includes(name) && toSlug(value) === '')
      problems.push(`${name} has no letter or digit`);
    else if (value.length > maxLength) problems.push(`${name} is longer than ${maxLength} characters`);
    else if (!isShown(name, value))
      problems.push(
        `${name} contains control characters, invisible ones, or ones that change the direction of text`,
      );
    else return value;
    return undefined;
  };
  const apiKey = text('api_key', 1000);
  const announcement = {
    prediction_url: '',
    interface_url: '',
    name: '',
    modality: '',
    anatomy: '',
    task: '',
    description: '',
  };
  for (const name of v1Urls) {
    const value = text(name, 2000);
    if (value === undefined) continue;
    try {
      // As parsed: URL() ignores line ends and other mistakes.
      announcement[name] = checkAddress(value).href;
    } catch (error) {
      problems.push(`${name}: ${(error as TomaatError).message}`);
    }
  }
  for (const name of v1Texts) announcement[name] = text(name, v1MaxLength[name]) ?? '';
  return { announcement, apiKey };
}

// ── Reading requests ─────────────────────────────────────────────────────────────────────────────────────────

const maxJsonBytes = 65_536;
const maxJsonMs = 15_000;

/** The body as JSON, at most 64 KiB. */
async function readJson(request: FastifyRequest): Promise<unknown> {
  const body = request.body as Readable | undefined;
  const chunks: Buffer[] = [];
  let bytes = 0;
  const timer = setTimeout(() => request.raw.socket.destroy(), maxJsonMs);
  try {
    // Leaving the loop early must not close the connection: the answer goes through it.
    for await (const chunk of body?.iterator({ destroyOnReturn: false }) ?? []) {
      bytes += (chunk as Buffer).length;
      if (bytes > maxJsonBytes) {
        throw new TomaatError(
          'UPLOAD_TOO_LARGE',
          `The body is longer than ${maxJsonBytes} bytes. Send a shorter one.`,
        );
      }
      chunks.push(chunk as Buffer);
    }
  } finally {
    clearTimeout(timer);
  }
  return parseJson(Buffer.concat(chunks), 'Send a JSON object in UTF-8.');
}

/** The value as the schema defines it; otherwise one error that names every fault. */
function check<T extends z.ZodType>(schema: T, value: unknown, what: string): z.output<T> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const faults = result.error.issues.map((issue) => {
    const where = issue.path.join('.');
    return { field: where, fault: issue.message };
  });
  throw new TomaatError(
    'BAD_INPUT',
    `${what} is invalid: ${faults.map(({ field, fault }) => (field ? `${field}: ${fault}` : fault)).join('; ')}. Correct it and send it again.`,
    { field: faults[0].field || undefined, detail: { faults } },
  );
}

function checkUrls(announcement: { predictionUrl: string; interfaceUrl: string; serverUrl: string }): void {
  for (const field of ['predictionUrl', 'interfaceUrl', 'serverUrl'] as const) {
    try {
      const url = checkAddress(announcement[field]);
      if (field === 'serverUrl' && url.search !== '')
        throw new TomaatError('FORBIDDEN', 'the address has a query, which is not allowed in a base address');
    } catch (error) {
      throw new TomaatError(
        'BAD_INPUT',
        `The announcement is invalid: ${field}: ${(error as TomaatError).message}.`,
        { field, cause: error },
      );
    }
  }
}

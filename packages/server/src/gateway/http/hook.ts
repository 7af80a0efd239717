import { createHash, timingSafeEqual } from 'node:crypto';
import { type StableSeries, stableSeriesSchema } from '@tomaat/client';
import { TomaatError } from '@tomaat/core';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { addressKey, createRateLimit } from '../../access/rate-limit.ts';
import { readJson } from '../../intake/read-json.ts';
import type { GatewayConfig } from '../config.ts';
import type { SeenSeries } from '../series.ts';

const maxBytes = 16_384;
const hint =
  'Send {"study", "series"} with their UIDs and what else the guide names, as the script in deploy/orthanc does.';
/** Wrong secrets per minute and address; more are refused without being compared. */
const failuresPerMinute = 60;

export interface HookOptions {
  readonly sources: GatewayConfig['sources'];
  /** Commits a row for each rule that matches. */
  see(seen: SeenSeries): Promise<void>;
}

/** `POST /hooks/orthanc/{source}`: Orthanc says that a series is stable. The answer comes when that is on disk. */
export function registerHook(app: FastifyInstance, { sources, see }: HookOptions): void {
  const failures = createRateLimit(failuresPerMinute);
  const secrets = Object.entries(sources).flatMap(([name, source]) =>
    source.type === 'orthanc' ? [[name, digestOf(source.hookSecret)] as const] : [],
  );

  /**
   * The name of the source, if the request has its secret.
   * @throws TomaatError UNAUTHORIZED; NOT_FOUND for an unknown source, only to who has the secret of another one;
   *   LIMIT_REACHED after too many wrong ones from an address
   */
  function authenticate(request: FastifyRequest): string {
    const { source: name } = request.params as { source: string };
    const given = digestOf(secretOf(request.headers.authorization));
    // All are compared, so that the time tells nothing.
    const matching = secrets.filter(([, secret]) => timingSafeEqual(secret, given)).map(([own]) => own);
    if (matching.includes(name)) return name;
    if (matching.length > 0 && !secrets.some(([own]) => own === name)) {
      throw new TomaatError(
        'NOT_FOUND',
        `The file of rules has no source ${name.slice(0, 100)} of the type orthanc. Send to ${matching.map((own) => `/hooks/orthanc/${own}`).join(' or ')}.`,
        { field: 'source' },
      );
    }
    const waitSeconds = failures.take(addressKey(request.raw.socket.remoteAddress));
    if (waitSeconds > 0) {
      throw new TomaatError(
        'LIMIT_REACHED',
        `Too many wrong secrets from this address. Send the right one, or try again in ${waitSeconds} s.`,
        { detail: { retryAfterSeconds: waitSeconds } },
      );
    }
    throw new TomaatError(
      'UNAUTHORIZED',
      "The secret of the hook is missing or wrong. Send the header 'Authorization: Bearer SECRET' with the text of the source's hookSecretFile.",
    );
  }

  app.post('/hooks/orthanc/:source', async (request, reply) => {
    let source: string;
    try {
      source = authenticate(request);
    } catch (error) {
      if (error instanceof TomaatError && error.code === 'UNAUTHORIZED')
        reply.header('www-authenticate', 'Bearer realm="TOMAAT gateway"');
      throw error;
    }
    const told = await readJson(request, stableSeriesSchema, { maxBytes, hint });
    await see(seenOf(source, told));
    // A body: to a script of Orthanc an empty answer looks like a refusal.
    return { taken: true };
  });
}

/** What follows `Bearer`; empty without it. */
const secretOf = (authorization = ''): string =>
  authorization.slice(0, 7).toLowerCase() === 'bearer ' ? authorization.slice(7).trim() : '';

const digestOf = (text: string) => createHash('sha256').update(text).digest();

/** An attribute that a series does not have is an empty text in Orthanc. */
function seenOf(source: string, { study, series, instances = 0, ...rest }: StableSeries): SeenSeries {
  const texts = Object.entries(rest).flatMap(([name, text]) => {
    const trimmed = text?.trim();
    return trimmed ? [[name, trimmed]] : [];
  });
  return { source, study, series, instances, isStable: true, ...Object.fromEntries(texts) };
}

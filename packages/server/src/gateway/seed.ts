import { createHash, createHmac } from 'node:crypto';
import type { Service } from '@tomaat/client';
import type { Rule, ServiceConfig } from './config.ts';
import { parametersOf } from './service.ts';

/*
 * The seed of a result: what it follows from. Equal seeds give results with equal UIDs, so that a series that is
 * processed again replaces its results in an archive; anything else that gives another result has another seed.
 */

/** What a seed is made of. */
export interface SeedFacts {
  readonly rule: Rule;
  readonly config: ServiceConfig;
  readonly service: Service;
  /** SHA-256 of the SOP Instance UIDs (`digestOfInstances()`). */
  readonly digest: string;
}

/**
 * SHA-256, in hex, of a JSON list of:
 * - the id of the rule: two rules for the same service store their results side by side;
 * - the address of the service, its id and its version, and the SHA-256 of its networks: another model gives another
 *   result;
 * - the parameters, with the service's defaults filled in and in the order of their names: naming a default changes nothing;
 * - which attributes of the patient the service gets: SUV needs the weight;
 * - the digest of the instances: a series that has grown is another one.
 *
 * Destinations and formats are not in it: an object is the same wherever it is stored.
 *
 * @throws TomaatError BAD_INPUT, INPUTS_MISSING as `parametersOf()`
 */
export function seedOf({ rule, config, service, digest }: SeedFacts): string {
  const parameters = Object.entries(parametersOf(rule, service));
  return sha256Of(
    JSON.stringify([
      'tomaat gateway 1',
      rule.id,
      new URL(config.url).href,
      service.id,
      service.version,
      service.modelSha256s ?? [service.modelSha256 ?? null],
      parameters.sort(([a], [b]) => Number(a > b) - Number(a < b)),
      patientAttributesOf(rule),
      digest,
    ]),
  );
}

const patientAttributesOf = ({ keepIdentity, keepPatientCharacteristics }: Rule): string => {
  if (keepIdentity) return 'all';
  return keepPatientCharacteristics ? 'characteristics' : 'none';
};

/**
 * The key of the job at the service (Idempotency-Key): not the seed itself, from which the UIDs of the results follow, and
 * not that of another gateway, which sends the same series with other UIDs.
 */
export const jobKeyOf = (seed: string, uidKey: Uint8Array): string =>
  createHmac('sha256', uidKey).update(`tomaat gateway job ${seed}`).digest('hex');

/** SHA-256, in hex, of the sorted SOP Instance UIDs, each once, joined by line feeds. */
export const digestOfInstances = (uids: Iterable<string>): string =>
  sha256Of([...new Set(uids)].sort().join('\n'));

export const sha256Of = (text: string | Uint8Array): string =>
  createHash('sha256').update(text).digest('hex');

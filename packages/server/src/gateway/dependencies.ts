import type { AuditEvent, AuditFacts } from '../audit/events.ts';
import type { Rule } from './config.ts';
import type { VolumeOfRule } from './match-rules.ts';

/* What the steps of a series need from the rooms above, and from the other parts of the gateway. */

/**
 * Prepares requests to an address, as the command line does (cli/connect.ts): checks its certificate before anything is
 * sent, and asks nobody.
 *
 * @throws TomaatError BAD_REQUEST, UNREACHABLE
 */
export type Connect = (
  address: string,
  options: {
    readonly apiKey?: string;
    /** PEM file of authorities. */
    readonly ca?: string;
    readonly fingerprint?: string[];
    readonly signal?: AbortSignal;
  },
) => Promise<{ readonly fetch: typeof globalThis.fetch }>;

export interface SeriesDependencies {
  readonly connect: Connect;
  /** Key of the UIDs and pseudonyms in what is sent (store/files/uid-key.ts). */
  readonly uidKey: Uint8Array;
  /** Why a rule does not match a volume, as a sentence; undefined if it does (match-rules.ts). */
  matchVolume(rule: Rule, volume: VolumeOfRule): string | undefined;
  audit(event: AuditEvent, facts: AuditFacts): void | Promise<void>;
}

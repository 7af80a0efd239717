import type { Processing } from '@tomaat/client';
import type { Kysely } from 'kysely';
import { listKeys } from '../access/keys.ts';
import type { KeySchema } from '../store/key-schema.ts';
import { machineId } from '../trust/machine-id.ts';

/** `--allow-identity`: whether DICOM files that name a patient are accepted; `local`: while no other machine gets them. */
export type IdentityPolicy = 'yes' | 'local' | 'no';

export interface ProcessingOptions {
  policy: IdentityPolicy;
  /** Whether only this machine can reach the server. */
  isLoopback: boolean;
  /** Concurrent predictions here; 0: all are done by remote workers. */
  slots: number;
  stripsInputs: boolean;
  keys: Kysely<KeySchema>;
  /** The clock, in ms since 1970. */
  now?: () => number;
}

/** Where this server computes, and what it accepts: stated in the cards of its services, and enforced at intake. */
export interface ProcessingFacts {
  describe(): Promise<Processing>;
  refusesIdentity(): Promise<boolean>;
  /** A remote worker asked for jobs, with whatever key. */
  sawWorker(): void;
}

export async function createProcessing({
  policy,
  isLoopback,
  slots,
  stripsInputs,
  keys,
  now = Date.now,
}: ProcessingOptions): Promise<ProcessingFacts> {
  const machine = isLoopback ? await machineId() : undefined;
  let hasSeenWorker = slots === 0;

  async function hasRemoteWorkers(): Promise<boolean> {
    if (hasSeenWorker) return true;
    // It may connect at any time, so the key counts.
    return (await listKeys(keys)).some(
      ({ scopes, revokedTime, expiresTime }) =>
        scopes.includes('worker') &&
        revokedTime === undefined &&
        (expiresTime === undefined || Date.parse(expiresTime) > now()),
    );
  }

  async function describe(): Promise<Processing> {
    const remoteWorkers = await hasRemoteWorkers();
    const isAllowed = policy === 'yes' || (policy === 'local' && isLoopback && !remoteWorkers);
    return {
      reach: isLoopback ? 'loopback' : 'network',
      machine,
      remoteWorkers,
      identity: isAllowed ? 'allowed' : 'refused',
      stripsInputs,
    };
  }

  return {
    describe,
    refusesIdentity: async () => policy !== 'yes' && (await describe()).identity === 'refused',
    sawWorker() {
      hasSeenWorker = true;
    },
  };
}

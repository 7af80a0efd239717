import type { Processing } from '@tomaat/client';
import { machineId } from '../trust/machine-id.ts';

/** `--allow-identity`: whether DICOM files that name a patient are accepted; `local`: while no other machine gets them. */
export type IdentityPolicy = 'yes' | 'local' | 'no';

export interface ProcessingOptions {
  policy: IdentityPolicy;
  /** Whether it listens on loopback alone. */
  isLocal: boolean;
  /** Addresses and names by which others reach it nevertheless, through a proxy. */
  publicUrl?: string;
  allowHost?: readonly string[];
  /** Concurrent predictions here; 0: all are done by remote workers. */
  slots: number;
  stripsInputs: boolean;
  /** Whether a worker elsewhere has a valid key: it may connect at any time. */
  hasWorkerKey(): Promise<boolean>;
}

/** Where this server computes, and what it accepts: stated in the cards of its services, and enforced at intake. */
export interface ProcessingFacts {
  describe(): Promise<Processing>;
  refusesIdentity(): Promise<boolean>;
  /** Tells at which ports the server listens. */
  listensAt(ports: readonly number[]): void;
  /** A remote worker asked for jobs, with whatever key. */
  sawWorker(): void;
}

export async function createProcessing({
  policy,
  isLocal,
  publicUrl,
  allowHost = [],
  slots,
  stripsInputs,
  hasWorkerKey,
}: ProcessingOptions): Promise<ProcessingFacts> {
  const isLoopback = isLocal && publicUrl === undefined && allowHost.length === 0;
  const machine = isLoopback ? await machineId() : undefined;
  let hasSeenWorker = slots === 0;
  let listening: readonly number[] = [];

  async function describe(): Promise<Processing> {
    const remoteWorkers = hasSeenWorker || (await hasWorkerKey());
    const isAllowed = policy === 'yes' || (policy === 'local' && isLoopback && !remoteWorkers);
    return {
      reach: isLoopback ? 'loopback' : 'network',
      ...(machine !== undefined && { machine }),
      ...(isLoopback && { ports: [...listening] }),
      remoteWorkers,
      identity: isAllowed ? 'allowed' : 'refused',
      stripsInputs,
    };
  }

  return {
    describe,
    refusesIdentity: async () => policy !== 'yes' && (await describe()).identity === 'refused',
    listensAt(ports) {
      listening = ports;
    },
    sawWorker() {
      hasSeenWorker = true;
    },
  };
}

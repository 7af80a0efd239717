import type { Processing } from '@tomaat/client';
import { modelServersOf } from '@tomaat/core';
import { isLoopback as isLoopbackHost } from '../addresses.ts';
import type { App } from '../apps.ts';
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
  /** What computes networks here, as --device names it. */
  devices?: readonly string[];
  stripsInputs: boolean;
  /** Whether a worker elsewhere has a valid key: it may connect at any time. */
  hasWorkerKey(): Promise<boolean>;
}

/** Where this server computes, and what it accepts: stated in the cards of its services, and enforced at intake. */
export interface ProcessingFacts {
  /** Where the predictions of a service are computed; without one, where those of any service are at the least. */
  describe(app?: Pick<App, 'manifest'>): Promise<Processing>;
  refusesIdentity(app?: Pick<App, 'manifest'>): Promise<boolean>;
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
  devices = ['cpu'],
  stripsInputs,
  hasWorkerKey,
}: ProcessingOptions): Promise<ProcessingFacts> {
  const isLoopback = isLocal && publicUrl === undefined && allowHost.length === 0;
  const machine = isLoopback ? await machineId() : undefined;
  let hasSeenWorker = slots === 0;
  let listening: readonly number[] = [];

  async function describe(app?: Pick<App, 'manifest'>): Promise<Processing> {
    const modelServers = app ? modelServersElsewhere(app) : [];
    const remoteWorkers = hasSeenWorker || (await hasWorkerKey());
    const isHere = isLoopback && !remoteWorkers && modelServers.length === 0;
    const isAllowed = policy === 'yes' || (policy === 'local' && isHere);
    return {
      reach: isLoopback ? 'loopback' : 'network',
      ...(machine !== undefined && { machine }),
      ...(isLoopback && { ports: [...listening] }),
      ...(slots > 0 && { devices: [...devices] }),
      remoteWorkers,
      ...(modelServers.length > 0 && { modelServers }),
      identity: isAllowed ? 'allowed' : 'refused',
      stripsInputs,
    };
  }

  return {
    describe,
    refusesIdentity: async (app) => policy !== 'yes' && (await describe(app)).identity === 'refused',
    listensAt(ports) {
      listening = ports;
    },
    sawWorker() {
      hasSeenWorker = true;
    },
  };
}

/** The model servers that get an app's voxels, but those that are on this machine by their spelling. */
const modelServersElsewhere = ({ manifest }: Pick<App, 'manifest'>): string[] =>
  modelServersOf(manifest).flatMap(({ host, name }) => (isLoopbackHost(host) ? [] : [name]));

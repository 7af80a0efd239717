import { TomaatError } from '@tomaat/core';
import type { Processing } from './contract/services.ts';

/** What is known before DICOM files are sent. */
export interface IdentityFacts {
  /** What the service itself says: never what a registry or a page says of it. Undefined for an older server. */
  processing: Processing | undefined;
  /** The address to which the files are sent. */
  address: string;
  /**
   * The name of this machine, as a server on it states it; undefined where it is not known, as in a browser: a loopback
   * address may lead to another machine through a tunnel.
   */
  machine?: string;
  /** What the user asked for. */
  wanted?: 'keep' | 'remove';
}

/** Whether DICOM files are de-identified before they are sent. */
export interface IdentityDecision {
  readonly deidentify: boolean;
  /** Whether the user may have them sent unchanged. */
  readonly mayKeep: boolean;
  /** Why, to follow “as” or “because”. */
  readonly reason: string;
}

/**
 * DICOM files are de-identified unless the service computes on this machine alone, or the user wants them sent as they
 * are and the server accepts that.
 *
 * @throws TomaatError FORBIDDEN if the user wants to keep what the server refuses
 */
export function decideIdentity({ processing, address, machine, wanted }: IdentityFacts): IdentityDecision {
  const mayKeep = processing?.identity !== 'refused';
  if (wanted === 'keep' && !mayKeep) {
    throw new TomaatError(
      'FORBIDDEN',
      'The server does not accept DICOM files that name a patient. Send them de-identified, which is the default',
    );
  }
  if (wanted !== undefined) return { deidentify: wanted === 'remove', mayKeep, reason: 'this was asked for' };
  const reason = reasonToRemove(processing, address, machine);
  return {
    deidentify: reason !== undefined,
    mayKeep,
    reason: reason ?? 'the service computes on this machine alone',
  };
}

function reasonToRemove(
  processing: Processing | undefined,
  address: string,
  machine: string | undefined,
): string | undefined {
  if (!processing) return 'the server does not say where it computes';
  if (processing.identity === 'refused') return 'the server does not accept files that name a patient';
  if (processing.reach !== 'loopback' || !isLoopbackAddress(address))
    return 'the server can be reached from other machines';
  if (processing.remoteWorkers) return 'workers on other machines may take the jobs of the server';
  if (processing.modelServers?.length) return 'a model server on another machine gets the voxels';
  if (machine === undefined || processing.machine === undefined)
    return 'it is not known whether the server runs on this machine';
  if (processing.machine !== machine) return 'the server runs on another machine';
  if (!processing.ports?.includes(portOf(address)))
    return 'something is between here and the server, such as a proxy';
  return undefined;
}

function isLoopbackAddress(address: string): boolean {
  if (!URL.canParse(address)) return false;
  const { hostname } = new URL(address);
  return hostname === 'localhost' || hostname === '[::1]' || /^127(?:\.\d{1,3}){3}$/.test(hostname);
}

/** The port of an address, also where it is the usual one of its protocol. */
function portOf(address: string): number {
  const { port, protocol } = new URL(address);
  return port === '' ? (protocol === 'https:' ? 443 : 80) : Number(port);
}

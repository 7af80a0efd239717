import type { DicomFile, FailedInstance, StoreReport } from '@tomaat/client';
import { TomaatError } from '@tomaat/core';
import { openArchive } from '../archive.ts';
import type { DicomWebAddress } from '../config.ts';
import type { Connect } from '../dependencies.ts';
import type { Destination } from '../series.ts';

/** An archive with STOW-RS. */
export function openDicomWebDestination(
  name: string,
  address: DicomWebAddress,
  connect: Connect,
): Destination {
  const web = openArchive(address, connect);
  const once = openArchive(address, connect, { retries: 0 });
  return {
    name,
    async ask(signal) {
      try {
        await once.searchStudies({}, { limit: 1, signal });
      } catch (error) {
        // Any other answer comes from a server that is there; one that only stores may refuse every search.
        if (!(error instanceof TomaatError) || isAway(error)) throw error;
      }
    },
    async store(objects, signal) {
      requireAll(name, await web.store(objects as DicomFile[], { signal }));
    },
  };
}

/** Nobody answers, or the proxy before it says so. */
const isAway = ({ code, detail }: TomaatError): boolean =>
  code === 'UNREACHABLE' || code === 'BUSY' || detail?.httpStatus === 502;

/** What an archive says of an object that it has already (PS3.7 annex C): nothing is left to do. */
const duplicate = 0x0111;

/**
 * Reasons that a later attempt would meet too: UIDs and attributes that are not valid, kinds of objects that the archive
 * does not take, a user who may not store (PS3.7 annex C, PS3.4 table B.2-1, PS3.18 table I.2-2).
 */
const isLasting = ({ reason }: FailedInstance): boolean =>
  reason !== undefined &&
  ([0x0105, 0x0106, 0x0117, 0x0118, 0x0119, 0x0120, 0x0121, 0x0122, 0x0124].includes(reason.code) ||
    [0xa9, 0xc0, 0xc1].includes(reason.code >> 8));

/** @throws TomaatError unless every object was confirmed: UPSTREAM, which passes, or NOT_ACCEPTABLE for a lasting reason */
function requireAll(name: string, { stored, failed }: StoreReport): void {
  const open = failed.filter(({ reason }) => reason?.code !== duplicate);
  if (open.length === 0) return;
  const reasons = [...new Set(open.map(({ message }) => message))].slice(0, 3).join(' ');
  const message = `The destination ${name} has not stored ${open.length} of ${stored.length + failed.length} objects. ${reasons}`;
  throw new TomaatError(open.some(isLasting) ? 'NOT_ACCEPTABLE' : 'UPSTREAM', message);
}

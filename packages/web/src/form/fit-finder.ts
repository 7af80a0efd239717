import type { Service } from '@tomaat/client';
import { TomaatError } from '@tomaat/core';
import { isForDicom, type Picked } from '../dicom/picked-files.ts';
import { faultOf } from '../ui.tsx';
import { checkFit } from './fit.ts';
import { openScan, refusals, type Scan } from './scan.ts';
import { volumeInZip } from './zip-volume.ts';

/** Whether a scan fits one service, and if not, why. */
export interface ServiceFit {
  readonly fits: boolean;
  readonly reason: string;
}

export interface FoundFits {
  readonly name: string;
  /** By id of the service. */
  readonly fits: ReadonlyMap<string, ServiceFit>;
}

/**
 * Reads the header of the selected files and asks each service whether such a scan fits its first volume. Nothing of
 * the files is uploaded.
 *
 * @throws TomaatError if the files are not one readable volume
 */
export async function findFits(
  picked: Picked,
  services: readonly Service[],
  signal: AbortSignal,
): Promise<FoundFits> {
  const { scan, close } = await openPicked(picked, signal);
  try {
    const fits = await Promise.all(
      services.map(async (service) => [service.id, await fitOf(service, scan, signal)] as const),
    );
    return { name: scan.name, fits: new Map(fits) };
  } finally {
    close();
  }
}

async function fitOf(service: Service, scan: Scan, signal: AbortSignal): Promise<ServiceFit> {
  const input = service.inputs.find(({ type }) => type === 'volume');
  if (input?.type !== 'volume') return { fits: false, reason: 'The service takes no scan.' };
  const [refusal] = refusals(service.acceptance as never, input.name, scan.header);
  if (refusal) return { fits: false, reason: refusal };
  try {
    return await checkFit(service, input, scan, signal);
  } catch (error) {
    signal.throwIfAborted();
    return { fits: false, reason: faultOf(error).message };
  }
}

async function openPicked(picked: Picked, signal: AbortSignal): Promise<{ scan: Scan; close(): void }> {
  if (picked.files.length === 0)
    throw new TomaatError('BAD_INPUT', 'No file was dropped. Drop a volume file, or a folder with DICOM.');
  const files = picked.files.map(({ file, path }) =>
    file instanceof File ? file : new File([file], path.split('/').pop()!),
  );
  const nothing = () => undefined;
  if (!(await isForDicom(picked))) return { scan: await openScan(files), close: nothing };
  const [{ openDicomSession }, { openSeries }, { usableSeries }] = await Promise.all([
    import('../dicom/session.ts'),
    import('../dicom/open-series.ts'),
    import('../dicom/series-list.tsx'),
  ]);
  const session = await openDicomSession(picked.folder ?? files[0].name, picked.files, { signal });
  try {
    if (session.series.length === 0 && picked.folder === undefined) {
      session.close();
      return { scan: await openScan(await volumeInZip(files, signal)), close: nothing };
    }
    const usable = usableSeries(session);
    if (usable.length > 1) {
      throw new TomaatError(
        'BAD_INPUT',
        `There are ${usable.length} series. Drop the folder of one, or choose a service and then the series there.`,
      );
    }
    return { scan: await openSeries(session, usable[0]), close: session.close };
  } catch (error) {
    session.close();
    throw error;
  }
}

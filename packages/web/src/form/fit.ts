import type { Fit, Service, VolumeFacts } from '@tomaat/client';
import { client } from '../site.ts';
import type { InputOf } from './inputs.ts';
import type { Scan } from './scan.ts';

/** Whether a scan fits a service, and why, in the server's words. */
export interface ScanFit {
  readonly fits: boolean;
  readonly reason: string;
  readonly expectedSeconds?: number;
}

/** Asks the server, with the numbers of the header: neither voxels nor names leave the browser. */
export async function checkFit(
  service: Pick<Service, 'id'>,
  input: InputOf<'volume'>,
  { header, sizeBytes, dicom }: Pick<Scan, 'header' | 'sizeBytes' | 'dicom'>,
  signal?: AbortSignal,
): Promise<ScanFit> {
  const { size, affine, components, frames, voxelType } = header;
  const facts: VolumeFacts = {
    size: [size[0], size[1], size[2]],
    affine: [...affine],
    components,
    frames,
    voxelType,
    // The files of a series are sent in another form.
    ...(!dicom && { sizeBytes }),
  };
  const { verdict, reason, expectedSeconds }: Fit = await client.fit(
    service.id,
    { [input.name]: facts },
    { signal },
  );
  return { fits: verdict === 'fits' || verdict === 'tiled', reason, expectedSeconds };
}

/** The input of a service that takes a single scan and needs nothing else that belongs to that scan. */
export function onlyVolumeInput({ inputs }: Pick<Service, 'inputs'>): InputOf<'volume'> | undefined {
  const needed = inputs.filter(
    (input) =>
      ['volume', 'transform', 'fiducials'].includes(input.type) && !('optional' in input && input.optional),
  );
  const [first] = needed;
  return needed.length === 1 && first.type === 'volume' ? first : undefined;
}

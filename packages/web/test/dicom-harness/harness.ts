import { openDicomSession } from '../../src/dicom/session.ts';

/* A page that reads DICOM as the page of TOMAAT does, by the same worker, and says what it read. */

export interface Reading {
  refusal?: string;
  size?: readonly number[];
  affine?: readonly number[];
  /** SHA-256 of the values as little-endian float32, x fastest, frame after frame. */
  sha256?: string;
}

/** @param other number of a series that is not meant */
async function read(other?: number): Promise<Reading> {
  const files = [...document.querySelector('input')!.files!];
  const session = await openDicomSession(
    'case',
    files.map((file) => ({ path: file.name, file })),
  );
  try {
    const [{ uid, refusal, frames }] = session.series.filter(
      ({ content, number }) => content === 'images' && number !== other,
    );
    if (refusal !== undefined) return { refusal };
    const { header } = await session.call('choose', { uid });
    const parts: Float32Array<ArrayBuffer>[] = [];
    for (let frame = 0; frame < frames; frame++) {
      const { voxels } = await session.call('read', { uid, frame });
      parts.push(Float32Array.from(voxels as Float64Array));
    }
    const bytes = await new Blob(parts).arrayBuffer();
    const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
    return {
      size: header.frames > 1 ? [...header.size, header.frames] : header.size,
      affine: header.affine,
      sha256: Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join(''),
    };
  } finally {
    session.close();
  }
}

Object.assign(globalThis, { read });

import { TomaatError } from '@tomaat/core';
import type { DicomSession } from './session.ts';
import { browserUidKey } from './uid-key.ts';

/**
 * The original files of a sent series, in this page only: they are lost on reload, and the user can drop them again.
 */
export interface Originals {
  readonly session: DicomSession;
  /** UID of the series in the original files. */
  readonly uid: string;
}

const held = new Map<string, Originals>();
const listeners = new Set<() => void>();
/** The headers of this many selections of files are kept. */
const mostHeld = 8;

export function holdOriginals(sentUid: string, originals: Originals): void {
  const old = held.get(sentUid);
  held.delete(sentUid);
  held.set(sentUid, originals);
  if (old && !isHeld(old.session)) old.session.close();
  for (const [key, { session }] of held) {
    if (held.size <= mostHeld) break;
    held.delete(key);
    if (!isHeld(session)) session.close();
  }
  for (const listener of listeners) listener();
}

export const isHeld = (session: DicomSession): boolean =>
  [...held.values()].some((one) => one.session === session);

export const originalsOf = (sentUid: string | undefined): Originals | undefined =>
  sentUid === undefined ? undefined : held.get(sentUid);

export function onOriginals(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/**
 * Takes files as the originals of a series that was sent from this browser.
 *
 * @param images the number of images sent
 * @throws TomaatError BAD_INPUT if the series is missing or incomplete
 */
export async function recognizeOriginals(
  session: DicomSession,
  { uid: sentUid, images }: SentSeries,
): Promise<void> {
  const card = await session.call('find', { sentUid, key: browserUidKey() });
  if (card.refusal !== undefined) throw new TomaatError('BAD_INPUT', card.refusal);
  if (card.imageCount !== images) {
    throw new TomaatError(
      'BAD_INPUT',
      `The series has ${card.imageCount} images here, but ${images} were sent. Give the whole series as it was sent.`,
    );
  }
  holdOriginals(sentUid, { session, uid: card.uid });
}

/** What this browser remembers about a series that it sent. */
export interface SentSeries {
  /** Its UID as sent: not that of the original. */
  readonly uid: string;
  readonly images: number;
  /** Whether the files were sent with the identity of the patient. */
  readonly isUnchanged?: boolean;
  /** The requested frame of a 4-D series, starting at 0. */
  readonly frame?: number;
}

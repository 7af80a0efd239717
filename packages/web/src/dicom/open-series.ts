import type { Scan } from '../form/scan.ts';
import type { Removal, SeriesCard } from './messages.ts';
import { holdOriginals } from './originals.ts';
import type { DicomSession } from './session.ts';
import { browserUidKey } from './uid-key.ts';

/**
 * Opens one series of a session.
 *
 * @throws TomaatError if it is not a volume, or cannot be read here
 */
export async function openSeries(session: DicomSession, card: SeriesCard | undefined): Promise<Scan> {
  const facts = await session.call('choose', { uid: card?.uid });
  const chosen = card ?? session.series.find(({ content }) => content === 'images')!;
  const { uid } = chosen;
  const display = await session.call('display', { uid });
  let removal: Removal | undefined;
  return {
    ...facts,
    name: nameOf(session, chosen),
    fields: [],
    read: ({ frame, signal }) => session.call('read', { uid, frame }, { signal }),
    async anonymous() {
      if (!removal) throw new Error('the series is not prepared');
      const { keepPatientCharacteristics, keepIdentity } = removal;
      const choice = { keepPatientCharacteristics, keepIdentity };
      const blob = await session.call('pack', { uid, key: browserUidKey(), ...choice });
      return [{ name: 'series.zip', blob }];
    },
    display,
    dicom: {
      session,
      card: chosen,
      async prepare(choice, options) {
        const made = await session.call('prepare', { uid, key: browserUidKey(), ...choice }, options);
        removal = made;
        return made;
      },
      keepOriginals() {
        if (!removal) throw new Error('the series is not prepared');
        holdOriginals(removal.sentUid, { session, uid });
        const { sentUid, keepIdentity } = removal;
        return { uid: sentUid, images: chosen.imageCount, ...(keepIdentity && { isUnchanged: true }) };
      },
    },
  };
}

/** The base name of results: the folder or file, and the series if there are several. Several files have no name in common. */
function nameOf({ name, series }: DicomSession, { number, description }: SeriesCard): string {
  // A slash would end a folder.
  const described = description?.replaceAll(/[\\/]/g, '-');
  const ofSeries = number === undefined ? (described ?? 'series') : `series${number}`;
  if (name === undefined) return described ?? ofSeries;
  return series.filter(({ refusal }) => refusal === undefined).length < 2 ? name : `${name}_${ofSeries}`;
}

import { type Entry, type RegistryClient, type SignedAnnouncement, toSlug } from '@tomaat/client';
import { TomaatError, withoutTrailingSlashes } from '@tomaat/core';
import { addPin, findPins, type Pin } from './known-hosts.ts';

/** An entry that is trusted. */
export interface TrustedEntry {
  readonly entry: Entry;
  /** The signed announcement; missing for TOMAAT v1, which signs nothing. */
  readonly announcement?: SignedAnnouncement;
  /** Whether its key is already remembered for the query. */
  readonly known: boolean;
  /** Remembers its key; call it once its server has answered. */
  remember(): Promise<void>;
}

export interface TrustOptions {
  /** The file of known hosts. */
  file: string;
  registry: RegistryClient;
  /** The user's query to the registry. */
  wanted: string;
  /** Called with a note for each entry that is skipped. */
  note?(text: string): void;
}

/**
 * From the matching entries, in order of preference, one with a valid signature and the key that is remembered for the
 * service or for the query. A key is remembered at first use. A registry that lists another server
 * for the same query is therefore detected, and so is one that omits the signature.
 * @throws TomaatError BAD_SIGNATURE that shows both keys.
 */
export async function chooseTrusted(entries: readonly Entry[], options: TrustOptions): Promise<TrustedEntry> {
  let refusal: unknown;
  let firstUse: TrustedEntry | undefined;
  for (const entry of entries) {
    try {
      const trusted = await checkEntry(entry, options);
      if (trusted.known) return trusted;
      firstUse ??= trusted;
    } catch (error) {
      if (!(error instanceof TomaatError)) throw error;
      refusal ??= error;
      options.note?.(`Skipped: ${error.message}`);
    }
  }
  if (firstUse) return firstUse;
  throw refusal;
}

async function checkEntry(entry: Entry, { file, registry, wanted }: TrustOptions): Promise<TrustedEntry> {
  const names = namesOf(entry, wanted).map((name) => `${hostOf(registry.baseUrl)}/${name}`);
  const pins = (await Promise.all(names.map((name) => findPins(file, name)))).filter(
    (list) => list.length > 0,
  );
  if (entry.face === 'v1' && !entry.signed) {
    if (pins.length > 0) throw changed(entry, pins[0], 'nobody: it is no longer signed', registry, file);
    return { entry, known: false, remember: async () => {} };
  }
  const announcement = await registry.verify(entry);
  // An entry requested by id, which contains the thumbprint of the key, needs no remembered key.
  if (wanted === announcement.id) return { entry, announcement, known: true, remember: async () => {} };
  const other = pins.find((list) => !list.some(({ value }) => value === announcement.sub));
  if (other) throw changed(entry, other, announcement.sub, registry, file);
  return {
    entry,
    announcement,
    known: pins.length > 0,
    async remember() {
      for (const name of names) await addPin(file, name, announcement.sub);
    },
  };
}

/** The service's own id, and the query that led to it. */
function namesOf({ serviceId = '', task, anatomy }: Entry, wanted: string): string[] {
  const slugs = wanted.split('/').map(toSlug).join('/');
  const isPair = slugs === `${toSlug(task)}/${toSlug(anatomy)}`;
  const asked = isPair ? slugs : encodeURIComponent(wanted.toLowerCase());
  return [...new Set([encodeURIComponent(serviceId.toLowerCase()), asked])].filter(Boolean);
}

function hostOf(address: string): string {
  const url = new URL(address);
  const port = url.port || (url.protocol === 'https:' ? 443 : 80);
  return `${url.hostname}:${port}${withoutTrailingSlashes(url.pathname)}`;
}

function changed(
  entry: Entry,
  [{ name, value, line }]: readonly Pin[],
  now: string,
  registry: RegistryClient,
  file: string,
): TomaatError {
  return new TomaatError(
    'BAD_SIGNATURE',
    `${entry.name} at ${registry.baseUrl} is announced by a different server than before. Either it was set up again, or somebody is impersonating it.\n  known  ${value}\n  now    ${now}\nNothing was sent. Ask the operator of the server. If it was set up again: tomaat trust remove ${name} (line ${line} of ${file}), then try again.`,
    { detail: { known: value, shown: now } },
  );
}

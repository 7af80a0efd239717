import { TomaatError } from '../errors.ts';
import type { Dataset } from './dataset.ts';
import { word } from './dataset.ts';
import { tags } from './tags.ts';
import { keyedDigest, uidOf } from './uids.ts';

/*
 * Replacements for identifiers in de-identified files: UIDs, the name of a patient, the days by which dates are
 * shifted. All are an HMAC-SHA-256 (RFC 2104) under one key, so that the files of a series and of a patient stay
 * together, now and later, and nobody without the key can compute one from the other.
 */

const keyBytes = 32;

/** A new key: 32 random bytes. */
export const createUidKey = (): Uint8Array => crypto.getRandomValues(new Uint8Array(keyBytes));

/** The stored form of the key: 43 characters of base64url (RFC 4648 5), without padding. */
export const formatUidKey = (key: Uint8Array): string =>
  btoa(String.fromCharCode(...checkedKey(key)))
    .replaceAll('+', '-')
    .replaceAll('/', '_')
    .replaceAll('=', '');

/**
 * A key from its stored form; surrounding white space is ignored.
 * @throws TomaatError BAD_INPUT if it is anything but 32 bytes of base64url
 */
export function parseUidKey(text: string): Uint8Array {
  const trimmed = text.trim();
  if (/^[\w-]{43}$/.test(trimmed)) {
    const binary = atob(trimmed.replaceAll('-', '+').replaceAll('_', '/'));
    const key = Uint8Array.from(binary, (character) => character.charCodeAt(0));
    // The last character encodes four bits and two zero bits: only the canonical form of a key is accepted.
    if (formatUidKey(key) === trimmed) return key;
  }
  throw badKey();
}

function checkedKey(key: Uint8Array): Uint8Array {
  if (key.length !== keyBytes) throw badKey();
  return key;
}

const badKey = () =>
  new TomaatError(
    'BAD_INPUT',
    'The key for UIDs is not 32 bytes in base64url (43 characters): restore it from a copy, or delete it and a new one is made',
  );

/** Returns the UID that replaces another: always the same under the same key. */
export type UidMapper = (uid: string) => string;

/**
 * Replaces each UID by that of its HMAC (see `uidOf`).
 * @throws TomaatError BAD_INPUT if the key does not have 32 bytes
 */
export function createUidMapper(key: Uint8Array): UidMapper {
  checkedKey(key);
  const known = new Map<string, string>();
  return (uid) => {
    const found = known.get(uid);
    if (found !== undefined) return found;
    const replaced = uidOf(digest(key, 'uid', uid));
    known.set(uid, replaced);
    return replaced;
  };
}

/** Replacement for the identity of a patient, the same in all files of that patient. */
export interface Pseudonym {
  /** Replaces name and ID. */
  readonly name: string;
  /**
   * Days by which dates are shifted into the past: 1 to 3650. 0 for a patient whose ID is already a pseudonym under
   * this key.
   */
  readonly days: number;
}

/** Prefix of every pseudonym. */
const pseudonymStart = 'ANON-';
const letters = 'ABCDEFGHJKLMNPQRSTUVWXYZ23456789';

/**
 * The pseudonym of the patient of a data set: by PatientID, otherwise by name, otherwise by study. Its last four
 * characters are a checksum under the key, so that a pseudonym is recognised: it is not replaced, and its dates are
 * not shifted, a second time.
 */
export function pseudonymOf(dataset: Dataset, key: Uint8Array): Pseudonym {
  const id = word(dataset, tags.patientId);
  if (id !== undefined && isPseudonym(id, key)) return { name: id, days: 0 };
  const patient =
    id !== undefined
      ? `id ${id}`
      : `name ${word(dataset, tags.patientName) ?? ''} ${word(dataset, tags.studyInstanceUid) ?? ''}`;
  const start = `${pseudonymStart}${lettersOf(digest(key, 'patient', patient), 8)}`;
  const [a, b, c, d] = digest(key, 'days', patient);
  return {
    name: start + checkOf(start, key),
    days: 1 + ((((a * 256 + b) * 256 + c) * 256 + d) % 3650),
  };
}

function isPseudonym(text: string, key: Uint8Array): boolean {
  const length = pseudonymStart.length + 8;
  const start = text.slice(0, length);
  return start.startsWith(pseudonymStart) && text === start + checkOf(start, key);
}

const checkOf = (start: string, key: Uint8Array): string => lettersOf(digest(key, 'check', start), 4);

const lettersOf = (bytes: Uint8Array, count: number): string =>
  Array.from(bytes.subarray(0, count), (byte) => letters[byte % letters.length]).join('');

/** Values for different purposes never coincide: each is prefixed with its purpose. */
const digest = (key: Uint8Array, purpose: 'uid' | 'patient' | 'days' | 'check', value: string): Uint8Array =>
  keyedDigest(checkedKey(key), `${purpose}\0${value}`);

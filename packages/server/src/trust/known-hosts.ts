import { mkdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import { inTurn } from '../store/files/file-lock.ts';
import { giveToOwner, requireOwner } from '../store/files/folder-owner.ts';
import { writeWhole } from '../store/files/whole-file.ts';

/**
 * What this user trusts after first use: the file `known_hosts`, one line per entry. A line is a name, a value
 * and the time of first use:
 *
 *   server.example:9443 AB:01:… 2026-01-02T03:04:05Z # key q3…Y     the certificate of a server, and its public key
 *   registry.example:443/prostate Xw2…_4 2026-01-02T03:04:05Z       the key that announced a service there
 *
 * `#` begins a comment. Lines may be removed and added by hand. The key of a certificate is in a comment, which older
 * versions ignore; it identifies a server that has renewed its certificate with the same key.
 */
export interface Pin {
  readonly name: string;
  /** SHA-256 fingerprint of a certificate, or thumbprint of a key. */
  readonly value: string;
  readonly firstSeen?: string;
  /** SHA-256 of the certificate's public key (SubjectPublicKeyInfo), base64url. */
  readonly keyFingerprint?: string;
  /** In the file, from 1. */
  readonly line: number;
}

export const knownHostsFile = (dataFolder: string): string => join(dataFolder, 'known_hosts');

const fingerprintShape = /^[0-9A-F]{2}(:[0-9A-F]{2}){31}$/;
const thumbprintShape = /^[\w-]{43}$/;
const keyComment = /# key ([\w-]{43})$/;
const header =
  '# Servers and services that this user trusts; shown by tomaat trust list. Lines may be removed.\n';

/** The lines of the file, none if there is no file. BAD_REQUEST for an invalid line. */
export async function readPins(file: string): Promise<Pin[]> {
  const lines = (await readText(file)).split('\n');
  return lines.flatMap((text, index): Pin[] => {
    const [name, value, firstSeen, ...rest] = text.replace(/#.*/, '').trim().split(/\s+/);
    if (name === '') return [];
    const isValue = value !== undefined && (fingerprintShape.test(value) || thumbprintShape.test(value));
    if (!isValue || rest.length > 0) {
      throw new TomaatError(
        'BAD_REQUEST',
        `Line ${index + 1} of ${file} is not a name with a fingerprint. Fix it, remove it or put a # before it.`,
      );
    }
    const keyFingerprint = keyComment.exec(text.trimEnd())?.[1];
    return [{ name, value, firstSeen, ...(keyFingerprint && { keyFingerprint }), line: index + 1 }];
  });
}

/** The lines for a name; if there are several, any of them is accepted. */
export async function findPins(file: string, name: string): Promise<Pin[]> {
  return (await readPins(file)).filter((pin) => pin.name === name);
}

/** Adds a line; `replace` removes the existing ones for this name. */
export async function addPin(
  file: string,
  name: string,
  value: string,
  options: { replace?: boolean; keyFingerprint?: string } = {},
): Promise<void> {
  if (/[\s#]/.test(name)) throw new TypeError(`${name} cannot be stored in ${file}`);
  await change(file, (text, pins) => {
    if (pins.some((pin) => pin.name === name && pin.value === value)) return text;
    const kept = options.replace ? without(text, name, pins) : text;
    const start = kept === '' ? header : `${kept.trimEnd()}\n`;
    const firstSeen = new Date().toISOString().replace(/\.\d+/, '');
    return `${start}${lineOf({ name, value, firstSeen, keyFingerprint: options.keyFingerprint })}\n`;
  });
}

/** Updates a line with the certificate that a server presents now, and its key. */
export async function updatePin(
  file: string,
  { name, value }: Pin,
  now: { readonly value: string; readonly keyFingerprint: string },
): Promise<void> {
  await change(file, (text, pins) => {
    // Another process may have changed the file meanwhile, so the line is looked up again.
    const pin = pins.find((one) => one.name === name && one.value === value);
    if (!pin) return text;
    const lines = text.split('\n');
    lines[pin.line - 1] = lineOf({ ...pin, ...now });
    return lines.join('\n');
  });
}

const lineOf = ({ name, value, firstSeen = '', keyFingerprint }: Omit<Pin, 'line'>) =>
  `${name} ${value} ${firstSeen}${keyFingerprint ? ` # key ${keyFingerprint}` : ''}`.trimEnd();

/** Removes the lines of a name; returns how many there were. */
export async function removePins(file: string, name: string): Promise<number> {
  let removed = 0;
  await change(file, (text, pins) => {
    removed = pins.filter((pin) => pin.name === name).length;
    return removed === 0 ? text : without(text, name, pins);
  });
  return removed;
}

function without(text: string, name: string, pins: readonly Pin[]): string {
  const gone = new Set(pins.filter((pin) => pin.name === name).map(({ line }) => line));
  return text
    .split('\n')
    .filter((_, index) => !gone.has(index + 1))
    .join('\n');
}

async function readText(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return '';
  }
}

/** Replaces the whole file atomically; two processes take turns. */
async function change(file: string, edit: (text: string, pins: readonly Pin[]) => string): Promise<void> {
  requireOwner(dirname(file));
  await mkdir(dirname(file), { recursive: true, mode: 0o700 });
  await inTurn(file, async () => {
    const text = await readText(file);
    const changed = edit(text, await readPins(file));
    if (changed === text) return;
    await writeWhole(file, changed, { prepare: giveToOwner });
  });
}

/** Normalises a fingerprint as users type it (with or without colons, in any case). BAD_REQUEST for any other text. */
export function parseFingerprint(text: string): string {
  const digits = text
    .slice(0, 1000)
    .replaceAll(/[:=\s]/g, '')
    .toUpperCase()
    .replace(/^SHA-?256/, '')
    .replace(/^FINGERPRINT/, '');
  if (!/^[0-9A-F]{64}$/.test(digits)) {
    throw new TomaatError(
      'BAD_REQUEST',
      `“${text.slice(0, 120)}” is not a SHA-256 fingerprint. Give 32 pairs of hex digits such as AB:01:…, as the server prints them at startup.`,
    );
  }
  return digits.match(/../g)!.join(':');
}

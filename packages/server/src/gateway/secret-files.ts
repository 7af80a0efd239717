import { readFileSync, statSync } from 'node:fs';
import type { DataFault } from '@tomaat/core';

/* The files that a file of rules names. What is wrong with one becomes a fault at its key; no message shows what is in it. */

const maxBytes = 1_000_000;

/** Reads files, and collects the faults. */
export interface NamedFiles {
  /** One line of text that only the owner of the file can read, without the line's end; '' if there is a fault. */
  secret(path: readonly PropertyKey[], file: string, leastLength?: number): string;
  /** Checks that the file has certificates (PEM). */
  certificates(path: readonly PropertyKey[], file: string): void;
  /** Checks that the folder is there. */
  folder(path: readonly PropertyKey[], folder: string): void;
}

export function openNamedFiles(faults: DataFault[]): NamedFiles {
  const read = (path: readonly PropertyKey[], file: string): { text: string; mode: number } | undefined => {
    const wrong = (message: string) => void faults.push({ path, message });
    try {
      const found = statSync(file);
      if (!found.isFile()) return wrong(`${file} is not a file`);
      if (found.size > maxBytes) return wrong(`${file} is too large. Give the right file`);
      return { text: readFileSync(file, 'utf8'), mode: found.mode };
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      if (code === 'ENOENT' || code === 'ENOTDIR')
        return wrong(`${file} does not exist. Create it, or correct the path`);
      if (code === 'EACCES' || code === 'EPERM')
        return wrong(`${file} cannot be read by the user who runs the gateway. Make that user its owner`);
      return wrong(message);
    }
  };
  return {
    secret(path, file, leastLength = 1) {
      const found = read(path, file);
      if (!found) return '';
      const text = found.text.replace(/\r?\n$/, '');
      const wrong = (message: string) => {
        faults.push({ path, message });
        return '';
      };
      if ((found.mode & 0o077) !== 0)
        return wrong(`${file} can be read by others than its owner. Run: chmod 600 ${file}`);
      if (text.trim() === '') return wrong(`${file} is empty. Write the secret into it`);
      if (/[\r\n]/.test(text)) return wrong(`${file} has several lines. Leave only the secret in it`);
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they are looked for
      if (/[\u0000-\u001f\u007f]/.test(text) || text !== text.trim())
        return wrong(`${file} has spaces around the secret, or control characters in it. Remove them`);
      if (text.length < leastLength)
        return wrong(
          `the secret in ${file} has fewer than ${leastLength} characters. Make a longer one: openssl rand -hex 32`,
        );
      return text;
    },
    certificates(path, file) {
      const found = read(path, file);
      if (found && !found.text.includes('-----BEGIN CERTIFICATE-----'))
        faults.push({ path, message: `${file} has no certificate in it. Give a PEM file` });
    },
    folder(path, folder) {
      try {
        if (!statSync(folder).isDirectory()) faults.push({ path, message: `${folder} is not a folder` });
      } catch {
        faults.push({
          path,
          message: `${folder} does not exist, or cannot be read. Create it, or correct the path`,
        });
      }
    },
  };
}

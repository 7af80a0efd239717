import { createHash } from 'node:crypto';
import { readFile, realpath, stat } from 'node:fs/promises';
import { join, resolve, sep } from 'node:path';
import { isFileSpec, type Manifest, parseManifest, TomaatError } from '@tomaat/core';
import { type AppPicture, readPicture } from './picture-file.ts';
import { hashFile } from './store/files/hash-file.ts';

/** A checked app folder: a valid manifest, existing files, weights with the expected hash. */
export interface App {
  readonly folder: string;
  readonly manifest: Manifest;
  /** The text of tomaat.yaml. */
  readonly manifestText: string;
  /** SHA-256 of tomaat.yaml, 64 hexadecimal digits. */
  readonly manifestSha256: string;
}

/** Reads an app folder. BAD_MANIFEST names what is wrong and how to fix it. */
export async function openApp(folder: string): Promise<App> {
  const path = resolve(folder);
  let text: string;
  try {
    text = await readFile(join(path, 'tomaat.yaml'), 'utf8');
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code !== 'ENOENT' && code !== 'ENOTDIR') throw error;
    throw new TomaatError('BAD_MANIFEST', `${path} is not an app folder: it has no tomaat.yaml.`, {
      cause: error,
    });
  }
  const app = {
    folder: path,
    manifest: parseManifest(text, join(folder, 'tomaat.yaml')),
    manifestText: text,
    manifestSha256: createHash('sha256').update(text).digest('hex'),
  };
  // Several models may have the same file, and with it the same fault.
  const found = new Map<string, TomaatError>();
  for (const check of fileChecks(app)) {
    try {
      await check();
    } catch (error) {
      if (!(error instanceof TomaatError)) throw error;
      found.set(error.message, error);
    }
  }
  const faults = [...found.values()];
  if (faults.length === 1) throw faults[0];
  if (faults.length > 1) {
    throw new TomaatError(
      'BAD_MANIFEST',
      `The files of the app ${app.manifest.id} have ${faults.length} faults:\n${faults.map(({ message }) => `  ${message}`).join('\n')}`,
      { cause: faults[0] },
    );
  }
  return app;
}

/** One check for each file that a manifest names: it exists, and has the hash that the manifest states. */
function fileChecks(app: App): (() => Promise<unknown>)[] {
  const { model, sample, selftest, id } = app.manifest;
  const weights = model.flatMap((spec) =>
    !isFileSpec(spec)
      ? []
      : [
          async () => {
            const path = await appFile(app, spec.file);
            const found = spec.sha256 === undefined ? undefined : await hashFile(path);
            if (found === spec.sha256) return;
            throw new TomaatError(
              'BAD_MANIFEST',
              `${spec.file} of the app ${id} is not the file that its manifest names: its sha256 is ${found}, not ${spec.sha256}. Put the right file there, or write the new hash into tomaat.yaml.`,
              { field: 'model.sha256' },
            );
          },
        ],
  );
  const cases = (selftest ?? []).flatMap(({ inputs, expected }) => [expected, ...Object.values(inputs)]);
  const others = new Set([sample, ...cases]);
  others.delete(undefined);
  return [...weights, () => pictureOf(app), ...[...others].map((file) => () => appFile(app, file!))];
}

/** The real path of a file of the app; it must exist inside the folder, after following links. */
export async function appFile(app: Pick<App, 'folder'>, file: string): Promise<string> {
  const root = await realpath(app.folder);
  // A packed app has its TypeScript compiled next to the file that the manifest names.
  const candidates = file.endsWith('.ts') ? [file, file.replace(/\.ts$/, '.js')] : [file];
  for (const candidate of candidates) {
    try {
      const path = await realpath(join(root, candidate));
      if (!path.startsWith(root + sep)) {
        throw new TomaatError(
          'BAD_MANIFEST',
          `${file} leads out of the app’s folder. Put the file itself there.`,
          { field: file },
        );
      }
      if ((await stat(path)).isFile()) return path;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }
  throw new TomaatError(
    'BAD_MANIFEST',
    `The file ${file}, which the manifest names, is not in ${app.folder}.`,
    { field: file },
  );
}

/** The picture of an app's card; undefined if it has none. BAD_MANIFEST if it cannot be shown. */
export async function pictureOf(app: App): Promise<AppPicture | undefined> {
  const { picture } = app.manifest;
  return picture === undefined ? undefined : readPicture(await appFile(app, picture), picture);
}

/** Opens several app folders; two with the same id are refused. */
export async function openApps(folders: readonly string[]): Promise<App[]> {
  const apps = await Promise.all(folders.map(openApp));
  const seen = new Map<string, string>();
  for (const { manifest, folder } of apps) {
    const other = seen.get(manifest.id);
    if (other)
      throw new TomaatError(
        'BAD_MANIFEST',
        `${other} and ${folder} both have the id ${manifest.id}. Change one.`,
      );
    seen.set(manifest.id, folder);
  }
  return apps;
}

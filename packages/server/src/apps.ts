import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readFile, realpath, stat } from 'node:fs/promises';
import { join, resolve, sep } from 'node:path';
import { type Manifest, parseManifest, TomaatError } from '@tomaat/core';

/** An app folder, read and checked: manifest, files that exist, weights that have the hash they should. */
export interface App {
  readonly folder: string;
  readonly manifest: Manifest;
  /** SHA-256 of tomaat.yaml, 64 hexadecimal digits. */
  readonly manifestSha256: string;
}

/** Reads an app folder. BAD_MANIFEST names what is wrong with it and how to mend it. */
export async function openApp(folder: string): Promise<App> {
  const path = resolve(folder);
  let text: string;
  try {
    text = await readFile(join(path, 'tomaat.yaml'), 'utf8');
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code !== 'ENOENT' && code !== 'ENOTDIR') throw error;
    throw new TomaatError('BAD_MANIFEST', `${path} is no app folder: it holds no tomaat.yaml.`, {
      cause: error,
    });
  }
  const app = {
    folder: path,
    manifest: parseManifest(text, join(folder, 'tomaat.yaml')),
    manifestSha256: createHash('sha256').update(text).digest('hex'),
  };
  for (const model of app.manifest.model) {
    if (model.runtime === 'command') continue;
    const file = await appFile(app, model.file);
    if (model.sha256 === undefined) continue;
    const found = await hashFile(file);
    if (found !== model.sha256) {
      throw new TomaatError(
        'BAD_MANIFEST',
        `${model.file} of the app ${app.manifest.id} is not the file that its manifest names: its sha256 is ${found}, not ${model.sha256}. Put the right file there, or write the new hash into tomaat.yaml.`,
        { field: 'model.sha256' },
      );
    }
  }
  const { sample, selftest } = app.manifest;
  for (const file of [sample, selftest?.expected, ...Object.values(selftest?.inputs ?? {})]) {
    if (file !== undefined) await appFile(app, file);
  }
  return app;
}

/** The real path of a file of the app; it must exist and lie inside the folder, links followed. */
export async function appFile(app: Pick<App, 'folder'>, file: string): Promise<string> {
  const root = await realpath(app.folder);
  // An app that was packed has its TypeScript compiled beside the name that the manifest gives.
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

/** Opens several app folders; two with one id are refused. */
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

/** SHA-256 of a file, as 64 hexadecimal digits. */
export async function hashFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

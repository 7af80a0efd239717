import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import { isMap, isScalar, isSeq, parseDocument, type YAMLMap } from 'yaml';
import { appFile } from '../apps.ts';
import { hashFile } from '../store/files/hash-file.ts';
import { writeWhole } from '../store/files/whole-file.ts';

/** What was written for one model. */
export interface WrittenHash {
  readonly file: string;
  readonly sha256: string;
  readonly changed: boolean;
}

/**
 * Writes the SHA-256 of each model's file into the manifest of an app; everything else in it stays byte by byte, comments included.
 * @throws {TomaatError} BAD_MANIFEST if the manifest is not YAML with models that have files, or a file is missing
 */
export async function writeHashes(folder: string): Promise<WrittenHash[]> {
  const path = join(folder, 'tomaat.yaml');
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code !== 'ENOENT' && code !== 'ENOTDIR') throw cause;
    throw new TomaatError('BAD_MANIFEST', `${folder} is not an app folder: it has no tomaat.yaml.`, {
      cause,
    });
  }
  const models = modelsIn(text, path);
  const written: WrittenHash[] = [];
  // From the end, so that places in the text stay right.
  for (const model of models.reverse()) {
    const file = model.get('file');
    if (typeof file !== 'string') continue;
    const sha256 = await hashFile(await appFile({ folder }, file));
    const old = text;
    text = withHash(text, model, sha256);
    written.unshift({ file, sha256, changed: text !== old });
  }
  if (written.length === 0) {
    throw new TomaatError(
      'BAD_MANIFEST',
      `No model in ${path} names a file. Write model.file first, or leave --write-hash out.`,
      { field: 'model' },
    );
  }
  if (written.some(({ changed }) => changed))
    await writeWhole(path, text, { mode: (await stat(path)).mode & 0o777 });
  return written;
}

function modelsIn(text: string, path: string): YAMLMap[] {
  const document = parseDocument(text, { stringKeys: true });
  const refuse = (why: string) => new TomaatError('BAD_MANIFEST', `${path} ${why}`, { field: 'model' });
  if (document.errors.length > 0)
    throw refuse(`is not YAML: ${document.errors[0].message.split('\n')[0]} Correct it first.`);
  const model = isMap(document.contents) ? document.contents.get('model') : undefined;
  const models = isSeq(model) ? model.items : [model];
  if (models.every(isMap)) return models as YAMLMap[];
  throw refuse('has no model with keys of its own. Write model first.');
}

/** The text with the hash as the value of the model's `sha256`: in place of the old one, or after its `file`. */
function withHash(text: string, model: YAMLMap, sha256: string): string {
  const old = model.get('sha256', true);
  if (isScalar(old) && old.range) {
    if (old.value === sha256) return text;
    const [start, end] = old.range;
    // An empty value begins right after its colon.
    return `${text.slice(0, start)}${/[\s]$/.test(text.slice(0, start)) ? '' : ' '}${sha256}${text.slice(end)}`;
  }
  const pair = model.items.find(({ key }) => isScalar(key) && key.value === 'file')!;
  const [start] = (pair.key as { range: [number, number, number] }).range;
  const [, end] = (pair.value as { range: [number, number, number] }).range;
  if (model.flow) return `${text.slice(0, end)}, sha256: ${sha256}${text.slice(end)}`;
  const lineStart = text.lastIndexOf('\n', start - 1) + 1;
  // In a list the first key follows a dash.
  const indent = ' '.repeat(start - lineStart);
  const lineEnd = text.indexOf('\n', end);
  const at = lineEnd < 0 ? text.length : lineEnd;
  const newLine = text[at - 1] === '\r' ? '\r\n' : '\n';
  const before = text.slice(0, newLine === '\r\n' ? at - 1 : at);
  return `${before}${newLine}${indent}sha256: ${sha256}${text.slice(before.length)}`;
}

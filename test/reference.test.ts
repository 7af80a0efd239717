import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import {
  buildDicomObject,
  collectBytes,
  type DicomFormat,
  measureLabels,
  parseDicom,
  writeDicomFile,
} from '@tomaat/core';
import { beforeAll, describe, expect, it } from 'vitest';
import { word } from '../packages/core/src/dicom/dataset.ts';
import { tags } from '../packages/core/src/dicom/tags.ts';
import { transferSyntaxes } from '../packages/core/src/dicom/transfer-syntaxes.ts';
import { asymmetricLabels, madeSource } from '../packages/core/test/dicom-source.ts';
import { syntaxNames, writtenObjects } from '../scripts/conformance-statement.ts';
import { referenceFiles } from '../scripts/write-reference.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

describe('writtenObjects of the conformance statement', () => {
  it.each(Object.entries(writtenObjects))('has class and transfer syntax of %s', async (format, stated) => {
    const { source, grid } = madeSource();
    const labelMap = asymmetricLabels(grid);
    const isReport = format === 'sr.dcm';
    const object = await buildDicomObject(
      format as DicomFormat,
      isReport ? measureLabels(labelMap) : labelMap,
      {
        source,
        maker: { id: 'an-app', name: 'An app', version: '1' },
        name: 'organs',
        description: 'Organs',
        readSlice: async () => new Int16Array(grid.size[0] * grid.size[1]),
        labelMap: { name: 'organs', volume: labelMap },
      },
    );
    const { meta, dataset, transferSyntax } = parseDicom(await collectBytes(writeDicomFile(object)))!;
    const [, uid, syntax] = stated;
    expect(word(dataset, tags.sopClassUid)).toBe(uid);
    expect(word(meta, tags.mediaStorageSopClassUid)).toBe(uid);
    const uidOfSyntax = Object.entries(syntaxNames).find(([, name]) => name === syntax)?.[0];
    expect(transferSyntax).toBe(transferSyntaxes[uidOfSyntax as keyof typeof transferSyntaxes]);
  });
});

describe('referenceFiles()', () => {
  let files: Map<string, string>;
  beforeAll(async () => {
    files = await referenceFiles();
  });

  it.each([
    'docs/reference/manifest.md',
    'docs/reference/transforms.md',
    'docs/reference/formats.md',
    'docs/reference/dicom.md',
    'docs/reference/errors.md',
    'docs/reference/gateway.md',
    'docs/reference/cli.md',
    'docs/openapi.json',
    'docs/openapi-registry.json',
    'docs/openapi-gateway.json',
    'python/src/tomaat_client/types.py',
    'python/src/tomaat_client/_version.py',
  ])('%s is up to date', (file) => {
    expect(existsSync(root + file), 'run: npm run reference').toBe(true);
    expect(readFileSync(root + file, 'utf8'), 'run: npm run reference').toBe(files.get(file));
  });

  it('writes no other file than these', () => {
    expect([...files.keys()]).toHaveLength(12);
  });

  it('lists every key of the manifest and every command', () => {
    const manifest = files.get('docs/reference/manifest.md')!;
    for (const key of ['schemaVersion', 'acceptance', 'roiSize', 'memoryMb', 'keepTriangles', 'environment'])
      expect(manifest).toContain(`| \`${key}\` |`);
    const cli = files.get('docs/reference/cli.md')!;
    for (const name of ['up', 'serve', 'registry', 'gateway', 'discover', 'predict', 'run', 'check', 'keys'])
      expect(cli).toContain(`## tomaat ${name}\n`);
    expect(cli).toContain('### tomaat keys create\n');
    const rules = files.get('docs/reference/gateway.md')!;
    for (const key of [
      'hookSecretFile',
      'callingAet',
      'fingerprint',
      'source',
      'giveUp',
      'keepPatientCharacteristics',
    ])
      expect(rules).toContain(`| \`${key}\` |`);
  });
});

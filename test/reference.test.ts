import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { referenceFiles } from '../scripts/write-reference.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

describe('referenceFiles()', () => {
  let files: Map<string, string>;
  beforeAll(async () => {
    files = await referenceFiles();
  });

  it.each([
    'docs/reference/manifest.md',
    'docs/reference/transforms.md',
    'docs/reference/formats.md',
    'docs/reference/errors.md',
    'docs/reference/cli.md',
    'docs/openapi.json',
    'docs/openapi-registry.json',
  ])('%s is up to date', (file) => {
    expect(existsSync(root + file), 'run: npm run reference').toBe(true);
    expect(readFileSync(root + file, 'utf8'), 'run: npm run reference').toBe(files.get(file));
  });

  it('writes no other file than these', () => {
    expect([...files.keys()]).toHaveLength(8);
  });

  it('lists every key of the manifest and every command', () => {
    const manifest = files.get('docs/reference/manifest.md')!;
    for (const key of ['schemaVersion', 'acceptance', 'roiSize', 'memoryMb', 'keepTriangles', 'environment'])
      expect(manifest).toContain(`| \`${key}\` |`);
    const cli = files.get('docs/reference/cli.md')!;
    for (const name of ['up', 'serve', 'registry', 'discover', 'predict', 'run', 'check', 'keys'])
      expect(cli).toContain(`## tomaat ${name}\n`);
    expect(cli).toContain('### tomaat keys create\n');
  });
});

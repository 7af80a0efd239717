import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { makeSbom } from '../scripts/write-sbom.ts';

it('makeSbom() lists runtime packages and models with hashes, and no tools', async () => {
  const sbom = await makeSbom();
  expect(sbom).toMatchObject({ bomFormat: 'CycloneDX', specVersion: '1.6', version: 1 });
  const refs = sbom.components.map((component) => component['bom-ref']);
  expect(new Set(refs).size).toBe(refs.length);
  for (const { type, name, version, purl, hashes, licenses } of sbom.components) {
    expect(name).not.toBe('');
    expect(version).toMatch(/^\d/);
    expect(licenses?.length, name).toBe(1);
    if (type === 'library') {
      expect(purl).toMatch(/^pkg:npm\/(%40[\w.-]+\/)?[\w.-]+@\d/);
      expect(hashes?.[0]).toMatchObject({
        alg: 'SHA-512',
        content: expect.stringMatching(/^[0-9a-f]{128}$/),
      });
    }
  }
  const names = sbom.components.map(({ name }) => name);
  for (const name of ['fastify', 'jose', 'kysely', 'onnxruntime-node', 'zod']) expect(names).toContain(name);
  for (const name of ['vitest', 'typescript', '@biomejs/biome', 'playwright-core'])
    expect(names).not.toContain(name);
  const models = sbom.components.filter(({ type }) => type === 'machine-learning-model');
  expect(models.map(({ name }) => name.split('/')[0])).toEqual(expect.arrayContaining(['brain', 'ct-lung']));
  for (const { name, hashes } of models) {
    const bytes = await readFile(fileURLToPath(new URL(`../apps/${name}`, import.meta.url))).catch(
      () => undefined,
    );
    // The id of a bundled app is the name of its folder.
    expect(bytes, name).toBeDefined();
    expect(hashes?.[0].content).toBe(createHash('sha256').update(bytes!).digest('hex'));
  }
});

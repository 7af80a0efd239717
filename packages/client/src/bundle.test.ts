import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const rolldown = await import('rolldown').catch(() => undefined);

describe('index.ts', () => {
  it.skipIf(!rolldown)(
    'bundles for a browser without node: modules and without the server’s dependencies',
    async () => {
      const bundle = await rolldown!.rolldown({
        input: fileURLToPath(new URL('index.ts', import.meta.url)),
        platform: 'browser',
        resolve: { conditionNames: ['tomaat-source', 'browser', 'import', 'default'] },
        logLevel: 'silent',
      });
      const { output } = await bundle.generate({ format: 'esm', minify: true });
      await bundle.close();
      const chunks = output.filter((item) => item.type === 'chunk');
      expect(
        chunks
          .flatMap((chunk) => [...chunk.imports, ...chunk.dynamicImports])
          .filter((name) => !name.endsWith('.js')),
      ).toEqual([]);
      const packages = new Set(
        chunks
          .flatMap((chunk) => chunk.moduleIds)
          .map((id) => /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(id)?.[1])
          .filter((name) => name !== undefined),
      );
      const allowed = [
        'zod',
        'jose',
        'eventsource-parser',
        '@tomaat/core',
        'yaml',
        'meshoptimizer',
        'pako',
        '@zip.js/zip.js',
        '@noble/hashes',
      ];
      expect([...packages].filter((name) => !allowed.includes(name))).toEqual([]);
      expect(chunks.map((chunk) => chunk.code).join('')).not.toMatch(/["']node:/);
      expect(chunks.flatMap((chunk) => chunk.exports)).toEqual(
        expect.arrayContaining(['createClient', 'createRegistryClient', 'openApiDocument', 'endpoints']),
      );
    },
  );
});

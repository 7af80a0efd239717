import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { isOn } from './contract/endpoint.ts';
import { endpoints } from './contract.ts';
import { openApiDocument } from './openapi.ts';

const files = {
  server: '../../../docs/openapi.json',
  registry: '../../../docs/openapi-registry.json',
  gateway: '../../../docs/openapi-gateway.json',
};

describe('openApiDocument()', () => {
  it.each(['server', 'registry', 'gateway'] as const)(
    'names every endpoint of a %s, and no reference leads nowhere',
    (on) => {
      const document = openApiDocument(on, '0.1.0') as {
        paths: Record<string, Record<string, { operationId: string; responses: Record<string, unknown> }>>;
        components: { schemas: Record<string, unknown> };
      };
      const expected = Object.entries(endpoints)
        .filter(([, endpoint]) => isOn(endpoint, on))
        .map(([name]) => name);
      const listed = Object.values(document.paths).flatMap((path) =>
        Object.values(path).map((operation) => operation.operationId),
      );
      expect(listed.sort()).toEqual(expected.sort());
      const references = [...JSON.stringify(document).matchAll(/"\$ref":"([^"]*)"/g)].map(
        (match) => match[1],
      );
      expect(references.length).toBeGreaterThan(3);
      for (const reference of references) {
        const name = /^#\/components\/schemas\/(\w+)$/.exec(reference)?.[1] ?? '';
        expect(Object.keys(document.components.schemas[name] as object), reference).not.toHaveLength(0);
      }
      expect(JSON.stringify(document)).not.toContain('$defs');
      for (const [path, operations] of Object.entries(document.paths)) {
        for (const [method, operation] of Object.entries(operations)) {
          const inPath = [...path.matchAll(/\{(\w+)\}/g)].map((match) => match[1]);
          const given = ((operation as { parameters?: { in: string; name: string }[] }).parameters ?? [])
            .filter((parameter) => parameter.in === 'path')
            .map((parameter) => parameter.name);
          expect(given, `${method} ${path}`).toEqual(inPath);
        }
      }
    },
  );

  it('a service’s inputs hold their name and their kind together', () => {
    const { components } = openApiDocument('server', '0.1.0') as {
      components: { schemas: { Service: { properties: { inputs: { items: object } } } } };
    };
    const text = JSON.stringify(components.schemas.Service.properties.inputs.items);
    // A strict kind beside a name in an allOf would forbid the name.
    expect(text.includes('"allOf"') && text.includes('"additionalProperties":false')).toBe(false);
    expect(text).toContain('"slider"');
  });

  it('errors are Problems, except in v1', () => {
    const text = (on: 'server' | 'registry') =>
      openApiDocument(on, '0.1.0') as { paths: Record<string, Record<string, { responses: object }>> };
    expect(Object.keys(text('server').paths['/api/jobs/{id}'].get.responses)).toContain('default');
    expect(Object.keys(text('server').paths['/predict'].post.responses)).not.toContain('default');
  });

  it.each(['server', 'registry', 'gateway'] as const)(
    'the committed description of the %s is up to date',
    (on) => {
      const file = new URL(files[on], import.meta.url);
      expect(existsSync(file), 'run: npm run reference').toBe(true);
      const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));
      const committed = JSON.parse(readFileSync(file, 'utf8'));
      expect(committed, 'run: npm run reference').toEqual(
        JSON.parse(JSON.stringify(openApiDocument(on, version))),
      );
    },
  );
});

import { readFileSync, writeFileSync } from 'node:fs';
import { openApiDocument } from '@tomaat/client';

/** Writes docs/openapi.json and docs/openapi-registry.json from the contract. A test guards that they are up to date. */
const { version } = JSON.parse(
  readFileSync(new URL('../packages/client/package.json', import.meta.url), 'utf8'),
) as { version: string };
for (const [on, file] of [
  ['server', 'openapi.json'],
  ['registry', 'openapi-registry.json'],
] as const) {
  const path = new URL(`../docs/${file}`, import.meta.url);
  writeFileSync(path, `${JSON.stringify(openApiDocument(on, version), null, 2)}\n`);
  console.log(`wrote docs/${file}`);
}

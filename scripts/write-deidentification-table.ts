import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/**
 * Writes packages/core/src/dicom/deidentification-table.gen.ts from a JSON of PS3.15 table E.1-1, as published by the
 * project innolitics/dicom-standard (standard/confidentiality_profile_attributes.json).
 *
 * `write-deidentification-table.ts JSON EDITION`
 */

interface Row {
  readonly id: string;
  readonly name: string;
  readonly basicProfile: string;
  readonly rtnPatCharsOpt?: string;
  readonly rtnLongModifDatesOpt?: string;
}

const [path, edition] = process.argv.slice(2);
if (edition === undefined) throw new Error('Usage: write-deidentification-table.ts JSON EDITION');
const rows = (JSON.parse(readFileSync(path, 'utf8')) as Row[])
  // Repeating groups and private elements are handled by rules in deidentify.ts.
  .filter(({ id }) => /^[0-9a-f]{8}$/i.test(id))
  .map((row) => ({ ...row, tag: Number.parseInt(row.id, 16) }))
  .sort((a, b) => a.tag - b.tag);

const groups = new Map<string, string[]>();
const last = new Map<string, number>();
for (const row of rows) {
  const key = [
    row.basicProfile.replace('*', ''),
    ...(row.rtnPatCharsOpt === 'K' ? ['characteristics'] : []),
    ...(row.rtnLongModifDatesOpt === 'C' ? ['dates'] : []),
  ].join(' ');
  const distance = row.tag - (last.get(key) ?? 0);
  last.set(key, row.tag);
  const texts = groups.get(key) ?? [];
  groups.set(key, texts);
  texts.push(`${distance.toString(36)} ${row.name.replaceAll('\u200b', '')}`);
}

const lines = [...groups]
  .sort(([a], [b]) => (a < b ? -1 : 1))
  .map(([key, texts]) => `  '${key}': ${JSON.stringify(texts.join('|'))},\n`);
writeFileSync(
  fileURLToPath(new URL('../packages/core/src/dicom/deidentification-table.gen.ts', import.meta.url)),
  `/*
 * The attributes of PS3.15 table E.1-1 (${edition}) and what the Basic Application Level Confidentiality Profile does with each: X
 * removes, Z empties, D replaces by a dummy value, U replaces a UID; a slash separates what the type of the attribute decides. Behind
 * the action: "characteristics" where the Retain Patient Characteristics Option keeps the value, "dates" where the Retain Longitudinal
 * Temporal Information With Modified Dates Option keeps it with another date. The facts are those of
 * standard/confidentiality_profile_attributes.json of innolitics/dicom-standard (MIT); scripts/write-deidentification-table.ts wrote
 * this file. Of each action: its attributes in the order of their tags, each as the distance from the tag before, in base 36, and the name.
 */
export const attributesByAction = {
${lines.join('')}} as const satisfies Record<string, string>;
`,
);

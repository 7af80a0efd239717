import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { z } from 'zod';
import { gatewaySeriesSchema, gatewaySummarySchema, stableSeriesSchema } from './gateway.ts';
import { jobSchema } from './jobs.ts';
import { problemSchema } from './problem.ts';
import { entrySchema } from './registry.ts';
import { serviceSchema } from './services.ts';
import { claimedJobSchema, claimSchema, completeSchema, failSchema } from './workers.ts';

/* The examples for authors of other clients (docs/wire): what they say is what the contract takes and refuses. */

const folder = new URL('../../../../docs/wire/', import.meta.url);
const guide = readFileSync(new URL('README.md', folder), 'utf8');

/** By how the names of the files begin. */
const schemas: readonly (readonly [string, z.ZodType])[] = [
  ['job-', jobSchema],
  ['problem', problemSchema],
  ['service', serviceSchema],
  ['entry', entrySchema],
  ['worker-claimed-job', claimedJobSchema],
  ['worker-claim', claimSchema],
  ['worker-complete', completeSchema],
  ['worker-fail', failSchema],
  ['gateway-stable', stableSeriesSchema],
  ['gateway-series', gatewaySeriesSchema],
  ['gateway-summary', gatewaySummarySchema],
];

function schemaOf(file: string): z.ZodType {
  const found = schemas.find(([start]) => file.startsWith(start));
  if (!found) throw new Error(`${file} begins with none of the known names`);
  return found[1];
}

const read = (path: string): unknown => JSON.parse(readFileSync(new URL(path, folder), 'utf8'));
const filesIn = (path: string) => readdirSync(new URL(path, folder)).filter((name) => name.endsWith('.json'));
/** The rows of the tables of the guide: a link to a file, and what stands in the next column. */
const rowsTo = (start: string) =>
  [...guide.matchAll(/^\| \[([\w-]+\.json)\]\(([\w/.-]+)\) \| `?([^`|]+?)`? \|/gm)]
    .filter(([, name, link]) => link === start + name)
    .map(([, name, , next]) => ({ name, next }));
const good = rowsTo('');
const refused = rowsTo('refused/');

/** Where a fault is, as a JSON Pointer; an unknown field stands under its own name. */
const pointersOf = (error: z.ZodError): string[] =>
  error.issues.flatMap((issue) =>
    (issue.code === 'unrecognized_keys' ? issue.keys.map((key) => [...issue.path, key]) : [issue.path]).map(
      (path) => `/${path.map(String).join('/')}`,
    ),
  );

describe('docs/wire', () => {
  it('has its files in the tables of its guide, and no others', () => {
    expect(good.map(({ name }) => name).sort()).toEqual(filesIn('.').sort());
    expect(refused.map(({ name }) => name).sort()).toEqual(filesIn('refused').sort());
  });

  it.each(good)('$name is taken, and nothing of it is lost', ({ name }) => {
    const value = read(name);
    const parsed = schemaOf(name).parse(value);
    expect(JSON.parse(JSON.stringify(parsed))).toStrictEqual(value);
  });

  it.each(refused)('$name is refused for what is at $next', ({ name, next }) => {
    const { error } = schemaOf(name).safeParse(read(`refused/${name}`));
    expect(error && pointersOf(error)).toEqual([next]);
  });

  it('has a job of every state', () => {
    const states = good.flatMap(({ name }) =>
      name.startsWith('job-') ? [(read(name) as { state: string }).state] : [],
    );
    expect(states.sort()).toEqual(jobSchema.options.map(({ shape }) => shape.state.value).sort());
  });
});

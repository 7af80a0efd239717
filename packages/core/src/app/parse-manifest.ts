import { LineCounter, parseDocument } from 'yaml';
import type { z } from 'zod';
import { TomaatError } from '../errors.ts';
import { type Manifest, manifestSchema } from './manifest.ts';
import { crossFaults } from './manifest-checks.ts';

export interface ManifestFault {
  path: string;
  message: string;
  line?: number;
}

/** Reads a manifest. BAD_MANIFEST lists every fault with its path and line; `detail.faults` contains them as data. */
export function parseManifest(text: string, fileName = 'tomaat.yaml'): Manifest {
  const lines = new LineCounter();
  // A key that is itself a map would be written out as its own name, the longer the deeper.
  const document = parseDocument(text, { lineCounter: lines, stringKeys: true });
  if (document.errors.length > 0) {
    throw refuse(
      fileName,
      document.errors.map((error) => ({
        path: '(YAML)',
        message: error.code === 'NON_STRING_KEY' ? 'a key must be text' : error.message.split('\n')[0],
        line: lines.linePos(error.pos[0]).line,
      })),
    );
  }
  let data: unknown;
  try {
    data = document.toJS({ maxAliasCount: 20 });
  } catch (error) {
    // An alias without an anchor, or one that would expand into too much, is found only here.
    throw refuse(fileName, [{ path: '(YAML)', message: (error as Error).message.split('\n')[0] }]);
  }
  const result = manifestSchema.safeParse(data);
  const issues = result.success ? [] : flatten(result.error.issues);
  const faults = crossFaults(result.success ? result.data : soundPart(data));
  if (result.success && faults.length === 0) return result.data;
  const lineOf = (path: readonly PropertyKey[]): number | undefined => {
    for (let length = path.length; length > 0; length--) {
      const node = document.getIn(path.slice(0, length), true) as
        | { range?: [number, number, number] }
        | undefined;
      if (node?.range) return lines.linePos(node.range[0]).line;
    }
    return undefined;
  };
  throw refuse(
    fileName,
    [...issues.map((issue) => ({ path: issue.path, message: describe(issue) })), ...faults].map(
      ({ path, message }) => ({
        path: path.map(String).join('.') || '(whole file)',
        message,
        line: lineOf(path),
      }),
    ),
  );
}

/** The valid keys of a manifest with faults, so that the others can be checked against them. */
function soundPart(data: unknown): Partial<Manifest> {
  if (typeof data !== 'object' || data === null) return {};
  const sound: Record<string, unknown> = {};
  for (const [key, schema] of Object.entries(manifestSchema.shape)) {
    const result = schema.safeParse((data as Record<string, unknown>)[key]);
    if (result.success) sound[key] = result.data;
  }
  return sound as Partial<Manifest>;
}

type Issue = z.core.$ZodIssue;

const kinds: Record<string, string> = {
  string: 'text',
  number: 'a number',
  boolean: 'true or false',
  array: 'a list',
};

/** A fault in an author's words: a missing key, a word that is not one of the allowed ones. */
function describe(issue: Issue): string {
  const wanted = 'expected' in issue ? (kinds[issue.expected] ?? issue.expected) : undefined;
  if (issue.code === 'invalid_type') {
    return issue.message.endsWith('received undefined') ? `is missing (${wanted})` : `must be ${wanted}`;
  }
  if (issue.code === 'invalid_value') return `must be ${issue.values.map(String).join(' or ')}`;
  if (issue.code === 'unrecognized_keys')
    return `has the unknown key ${issue.keys.map((key) => key.slice(0, 100)).join(', ')}`;
  return issue.message.replace('Invalid discriminator value. Expected ', 'must be one of ');
}

/** A union reports its branches' issues inside: the branch with the fewest is most likely the intended one. */
function flatten(issues: readonly Issue[]): Issue[] {
  return issues.flatMap((issue) => {
    if (issue.code !== 'invalid_union' || issue.errors.length === 0) return [issue];
    const best = issue.errors.reduce((a, b) =>
      depth(b) > depth(a) || (depth(b) === depth(a) && b.length < a.length) ? b : a,
    );
    return flatten(best.map((inner) => ({ ...inner, path: [...issue.path, ...inner.path] })));
  });
}

const depth = (issues: readonly Issue[]) => Math.max(...issues.map((issue) => issue.path.length));

/** A file that is not a manifest at all has a fault in every line. */
const maxShownFaults = 30;

function refuse(fileName: string, faults: ManifestFault[]): TomaatError {
  const shown = faults.slice(0, maxShownFaults);
  const more = faults.length > shown.length ? `\n  and ${faults.length - shown.length} more` : '';
  const list =
    shown.map((f) => `  ${f.line ? `line ${f.line}: ` : ''}${f.path}: ${f.message}`).join('\n') + more;
  return new TomaatError(
    'BAD_MANIFEST',
    `${fileName} has ${faults.length === 1 ? 'a fault' : `${faults.length} faults`}. Correct the following:\n${list}`,
    { detail: { faults } },
  );
}

import type { z } from 'zod';
import type { SoundParts } from './config-checks.ts';
import {
  destinationSchema,
  type GatewayFile,
  limitsSchema,
  ruleSchema,
  serviceSchema,
  sourceSchema,
} from './config-schema.ts';

type Path = readonly PropertyKey[];

/**
 * The parts of a file of rules that can be checked against each other, although values in them have faults of their own: these are
 * left out, or stand-ins where a part needs them. `isSound` tells whether a fault that is found then is one of the file, and not
 * of a stand-in.
 */
export function soundParts(data: unknown): { parts: SoundParts; isSound(path: Path): boolean } {
  const whole = asMap(data);
  const leftOut: Path[] = [];
  const sound = <T>(key: string, schema: z.ZodType<T>, standIns: StandIns) =>
    Object.fromEntries(
      Object.entries(asMap(whole[key])).flatMap(([name, value]) => {
        const entry = salvage(schema, value, standIns, [key, name], leftOut);
        return entry === undefined ? [] : [[name, entry]];
      }),
    );
  const parts: SoundParts = {
    sources: sound('sources', sourceSchema, { ...address, hookSecretFile: 'file', path: '.' }),
    services: sound('services', serviceSchema, { ...address, service: 'service' }),
    destinations: sound('destinations', destinationSchema, { ...address, path: '.', source: 'source' }),
    rules: (Array.isArray(whole.rules) ? whole.rules : [])
      .slice(0, 1000)
      .map((rule, i) => salvage(ruleSchema, rule, ruleStandIns, ['rules', i], leftOut)),
    limits: soundLimits(whole.limits, leftOut),
    names: {
      sources: Object.keys(asMap(whole.sources)),
      services: Object.keys(asMap(whole.services)),
      destinations: Object.keys(asMap(whole.destinations)),
    },
  };
  const isSound = (path: Path) => !leftOut.some((other) => other.every((step, i) => path[i] === step));
  return { parts, isSound };
}

/** Values for keys that an entry must have. */
type StandIns = Readonly<Record<string, unknown>>;
const address = { url: 'http://127.0.0.1' };
const ruleStandIns = { id: 'rule', service: 'service', destinations: ['destination'] };

/** The entry without its values with faults, whose paths are added to `leftOut`; undefined if its kind is unknown. */
function salvage<T>(
  schema: z.ZodType<T>,
  value: unknown,
  standIns: StandIns,
  path: Path,
  leftOut: Path[],
): T | undefined {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const rest: Record<string, unknown> = structuredClone(asMap(value));
  for (const issue of result.error.issues) {
    const unknownKeys = issue.code === 'unrecognized_keys' ? issue.keys : [];
    if (unknownKeys.length > 0) {
      const map = mapAt(rest, issue.path);
      for (const key of unknownKeys) delete map?.[key];
      continue;
    }
    const at = issue.path.slice(0, depthOf(issue.path));
    if (at.length === 0) return undefined;
    delete mapAt(rest, at.slice(0, -1))?.[String(at.at(-1))];
    leftOut.push([...path, ...at]);
  }
  // Only keys that are missing take a stand-in; those that its kind does not know would be faults again.
  for (const [key, standIn] of Object.entries(standIns))
    if (leftOut.some((other) => other.length === path.length + 1 && isAt(other, [...path, key])))
      rest[key] = standIn;
  return schema.safeParse(rest).data;
}

const isAt = (path: Path, other: Path) => path.every((step, i) => step === other[i]);

/** Of conditions one key is left out, of all else the value of the entry. */
const depthOf = ([first, second]: Path): number => (first !== 'when' ? 1 : second === 'not' ? 3 : 2);

function mapAt(data: Record<string, unknown>, path: Path): Record<string, unknown> | undefined {
  let at: unknown = data;
  for (const step of path) at = asMap(at)[String(step)];
  return typeof at === 'object' && at !== null ? (at as Record<string, unknown>) : undefined;
}

/** Times are compared with each other: with a fault in one there is nothing to compare. */
function soundLimits(value: unknown, leftOut: Path[]): GatewayFile['limits'] | undefined {
  const own: Path[] = [];
  const limits = salvage(limitsSchema.prefault({}), value, {}, ['limits'], own);
  leftOut.push(...own);
  const isTime = ([, key]: Path) => ['firstPause', 'longestPause', 'giveUp'].includes(String(key));
  return own.some(isTime) ? undefined : limits;
}

const asMap = (value: unknown): Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : {};

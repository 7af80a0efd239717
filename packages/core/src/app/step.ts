import { z } from 'zod';
import { conditionsSchema, type Input } from './elements.ts';
import type { Parameter } from './values.ts';

/**
 * A step of a pipeline as a manifest lists it: a name (`argmax`), or a name with its parameters
 * (`spacing: { pixdim: [2, 2, 2] }`) and perhaps a condition (`when: { resolution: fast }`). A parameter
 * written `$name` is replaced by the caller's value of that input.
 */

export interface Step {
  readonly name: string;
  /** By name; a list for the steps that take one. */
  readonly parameters: Readonly<Record<string, unknown>> | readonly unknown[];
  readonly when?: Readonly<Record<string, Parameter>>;
}

/** An input as a manifest has it: a volume may have steps of its own. */
export type ManifestInput = Input & { readonly preprocess?: readonly Step[] };

/** Steps whose parameters are a list. */
const listSteps: readonly string[] = ['compose'];

export const stepSchema = z
  .union([z.string().min(1), z.record(z.string(), z.unknown())])
  .transform((raw, context): Step => {
    if (typeof raw === 'string') return { name: raw, parameters: {} };
    const { when, ...rest } = raw;
    const names = Object.keys(rest);
    if (names.length !== 1) {
      context.addIssue({
        code: 'custom',
        message: `a step is one transform with its parameters, not ${names.length ? names.join(' and ') : 'nothing'}`,
      });
      return z.NEVER;
    }
    const parameters = rest[names[0]] ?? {};
    const takesList = listSteps.includes(names[0]);
    if (typeof parameters !== 'object' || Array.isArray(parameters) !== takesList) {
      context.addIssue({
        code: 'custom',
        path: [names[0]],
        message: takesList ? 'must be a list' : 'must be parameters by name',
      });
      return z.NEVER;
    }
    const condition = when === undefined ? undefined : conditionsSchema.safeParse(when);
    if (condition && !condition.success) {
      context.addIssue({ code: 'custom', path: ['when'], message: 'must be values by the names of inputs' });
      return z.NEVER;
    }
    return { name: names[0], parameters: parameters as Step['parameters'], when: condition?.data };
  });

import { TomaatError } from '../errors.ts';
import { parsePoints } from '../formats/points.ts';
import type { SpatialTransform } from '../formats/transform-file.ts';
import type { Affine, Vec3 } from '../geometry/affine.ts';
import type { LabelMeasurement } from '../labels/measure.ts';
import type { Mesh } from '../labels/surface.ts';
import type { Volume } from '../volume.ts';
import type { Input } from './elements.ts';

/** A parameter of a prediction: any input that is not a file. */
export type Parameter = number | boolean | string | readonly Vec3[];

/** The values that an app receives for its inputs: volumes and points in RAS+ mm. */
export type InputValue = Volume | Parameter | SpatialTransform;

/** The values that an app returns for its outputs: label maps on any grid, meshes and points in RAS+ mm. */
export type OutputValue =
  | Volume
  | Mesh
  | readonly Vec3[]
  | string
  | SpatialTransform
  | readonly LabelMeasurement[];

export type { Affine };

const truths = new Map<string, boolean>([
  ['true', true],
  ['false', false],
  ['1', true],
  ['0', false],
  ['on', true],
  ['off', false],
]);

/** Whether an input arrives as a file. */
export function isFileInput(input: Input): boolean {
  return input.type === 'volume' || input.type === 'transform';
}

/** The default of a parameter; undefined if a value is required. */
export function defaultValue(input: Input): Parameter | undefined {
  if (input.type === 'slider') return input.default ?? input.minimum;
  if (input.type === 'checkbox') return input.default;
  if (input.type === 'radiobutton') return input.default ?? input.options[0];
  if (input.type === 'fiducials' && input.optional) return [];
  return undefined;
}

/** Parses one parameter from a form, a flag or a query; BAD_INPUT names the input and the allowed values. */
export function parseParameter(name: string, input: Input, raw: unknown): Parameter {
  const refuse = (expected: string): never => {
    // Numbers are shown; anything else may be text of a person, which must not appear in errors or logs.
    const text = String(raw);
    const shown = /^[\d.+\-e]{1,40}$/i.test(text) ? ` is ${text}, but it` : '';
    throw new TomaatError('BAD_INPUT', `${name}${shown} must be ${expected}.`, { field: name });
  };
  switch (input.type) {
    case 'slider': {
      const value =
        typeof raw === 'number'
          ? raw
          : typeof raw === 'string' && raw.trim() !== ''
            ? Number(raw)
            : Number.NaN;
      if (!Number.isFinite(value) || value < input.minimum || value > input.maximum) {
        refuse(`a number from ${input.minimum} to ${input.maximum}`);
      }
      return onStep(value, input);
    }
    case 'checkbox': {
      if (typeof raw === 'boolean') return raw;
      const value = truths.get(String(raw).trim().toLowerCase());
      return value === undefined ? refuse('true or false') : value;
    }
    case 'radiobutton': {
      const value = String(raw);
      return input.options.includes(value) ? value : refuse(`one of: ${input.options.join(', ')}`);
    }
    case 'fiducials': {
      const points = typeof raw === 'string' ? parsePoints(raw, name) : (raw as readonly Vec3[]);
      const valid =
        Array.isArray(points) &&
        points.every((p) => Array.isArray(p) && p.length === 3 && p.every(Number.isFinite));
      if (!valid) refuse('points as x,y,z;x,y,z;… in millimetres, RAS');
      if (points.length === 0 && input.optional) return points;
      if (points.length < input.minimumPoints || points.length > input.maximumPoints) {
        throw new TomaatError(
          'BAD_INPUT',
          `${name} has ${points.length} points, but must have ${input.minimumPoints} to ${input.maximumPoints}.`,
          { field: name },
        );
      }
      return points;
    }
    default:
      return refuse('a file');
  }
}

/** A slider has steps: a value between two of them (old clients do not know steps) is rounded to the nearest. */
function onStep(value: number, { minimum, maximum, step }: Extract<Input, { type: 'slider' }>): number {
  if (step === undefined) return value;
  const steps = Math.min(Math.round((value - minimum) / step), Math.floor((maximum - minimum) / step + 1e-9));
  return Number((minimum + steps * step).toPrecision(12));
}

/**
 * All parameters of a prediction, checked, with defaults filled in. `raw` may contain fields that are not inputs;
 * they are refused unless `ignoreUnknown` (old clients send them).
 */
export function parseParameters(
  inputs: Readonly<Record<string, Input>>,
  raw: Readonly<Record<string, unknown>>,
  options: { ignoreUnknown?: boolean } = {},
): Record<string, Parameter> {
  const parameters: Record<string, Parameter> = {};
  for (const name of Object.keys(raw)) {
    if (Object.hasOwn(inputs, name) && !isFileInput(inputs[name])) continue;
    if (options.ignoreUnknown && !Object.hasOwn(inputs, name)) continue;
    const known = Object.keys(inputs).filter((key) => !isFileInput(inputs[key]));
    if (Object.hasOwn(inputs, name)) {
      throw new TomaatError('BAD_INPUT', `${name} must be sent as a file, not as text.`, { field: name });
    }
    // Its name is not repeated: it is untrusted text.
    throw new TomaatError(
      'BAD_INPUT',
      `A field of the request is not an input of this service. Its parameters are: ${known.join(', ') || 'none'}.`,
    );
  }
  for (const [name, input] of Object.entries(inputs)) {
    if (isFileInput(input)) continue;
    if (Object.hasOwn(raw, name)) {
      parameters[name] = parseParameter(name, input, raw[name]);
      continue;
    }
    const value = defaultValue(input);
    if (value === undefined) {
      throw new TomaatError('INPUTS_MISSING', `The input ${name} is missing. Send it in the same request.`, {
        field: name,
        detail: { missing: [name] },
      });
    }
    parameters[name] = value;
  }
  return parameters;
}

/** The JSON Schema of an app's parameters, for forms and for `GET /api/services/{id}`. */
export function parameterSchema(inputs: Readonly<Record<string, Input>>): Record<string, unknown> {
  const properties: Record<string, unknown> = {};
  const required: string[] = [];
  for (const [name, input] of Object.entries(inputs)) {
    if (isFileInput(input)) continue;
    const about = {
      title: input.label ?? name,
      description: input.description,
      default: defaultValue(input),
    };
    if (input.type === 'slider') {
      properties[name] = { type: 'number', minimum: input.minimum, maximum: input.maximum, ...about };
    } else if (input.type === 'checkbox') {
      properties[name] = { type: 'boolean', ...about };
    } else if (input.type === 'radiobutton') {
      properties[name] = { type: 'string', enum: input.options, ...about };
    } else if (input.type === 'fiducials') {
      const point = { type: 'array', items: { type: 'number' }, minItems: 3, maxItems: 3 };
      properties[name] = {
        type: 'array',
        items: point,
        minItems: input.optional ? 0 : input.minimumPoints,
        maxItems: input.maximumPoints,
        ...about,
      };
    }
    if (defaultValue(input) === undefined) required.push(name);
  }
  return { type: 'object', properties, required, additionalProperties: false };
}

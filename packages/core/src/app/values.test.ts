import { describe, expect, it } from 'vitest';
import type { TomaatError } from '../errors.ts';
import { inputSchema } from './elements.ts';
import { parameterSchema, parseParameters } from './values.ts';

const inputs = {
  volume: inputSchema.parse({ type: 'volume' }),
  level: inputSchema.parse({ type: 'slider', minimum: -5, maximum: 5, default: 2 }),
  flat: inputSchema.parse({ type: 'slider', minimum: 1, maximum: 3 }),
  smooth: inputSchema.parse({ type: 'checkbox', default: true }),
  mode: inputSchema.parse({ type: 'radiobutton', options: ['fast', 'fine'] }),
  seeds: inputSchema.parse({ type: 'fiducials', minimumPoints: 2 }),
};
const seeds = '1,2,3;-4.5,0,1e2';

function refusal(raw: Record<string, unknown>): TomaatError {
  try {
    parseParameters(inputs, raw);
  } catch (error) {
    return error as TomaatError;
  }
  throw new Error('it was accepted');
}

describe('parseParameters()', () => {
  it('types what was sent and fills in defaults', () => {
    expect(parseParameters(inputs, { level: '-1.5', smooth: 'False', seeds })).toEqual({
      level: -1.5,
      flat: 1,
      smooth: false,
      mode: 'fast',
      seeds: [
        [1, 2, 3],
        [-4.5, 0, 100],
      ],
    });
  });

  it.each([
    ['a number out of range', { level: '6', seeds }, 'level', 'from -5 to 5'],
    ['no number', { level: 'many', seeds }, 'level', 'from -5 to 5'],
    ['an empty number', { level: ' ', seeds }, 'level', 'from -5 to 5'],
    ['NaN', { level: 'NaN', seeds }, 'level', 'from -5 to 5'],
    ['no truth', { smooth: 'maybe', seeds }, 'smooth', 'true or false'],
    ['no option', { mode: 'slow', seeds }, 'mode', 'fast, fine'],
    ['too few points', { seeds: '1,2,3' }, 'seeds', '2 to'],
    ['points of two numbers', { seeds: '1,2;3,4' }, 'seeds', ''],
    ['an unknown field', { sedes: '', seeds }, undefined, 'level, flat, smooth, mode, seeds'],
    ['a file as text', { volume: 'abc', seeds }, 'volume', 'as a file'],
  ])('refuses %s, naming field and remedy', (_what, raw, field, remedy) => {
    const error = refusal(raw);
    expect(error.code).toBe('BAD_INPUT');
    expect(error.field).toBe(field);
    expect(error.message).toContain(remedy);
  });

  it('says which input is missing', () => {
    expect(refusal({})).toMatchObject({
      code: 'INPUTS_MISSING',
      field: 'seeds',
      detail: { missing: ['seeds'] },
    });
  });

  it('does not take names of Object.prototype for inputs', () => {
    expect(refusal({ constructor: '1', seeds }).message).toContain('no input of this service');
  });

  it('ignores what old clients add, when asked to', () => {
    expect(() =>
      parseParameters(inputs, { module_version: 'x', seeds }, { ignoreUnknown: true }),
    ).not.toThrow();
  });
});

describe('parameterSchema()', () => {
  it('is a JSON Schema of everything that is no file', () => {
    expect(parameterSchema(inputs)).toMatchObject({
      properties: {
        level: { type: 'number', minimum: -5, maximum: 5, default: 2 },
        smooth: { type: 'boolean', default: true },
        mode: { enum: ['fast', 'fine'] },
        seeds: { type: 'array', minItems: 2 },
      },
      required: ['seeds'],
      additionalProperties: false,
    });
  });
});

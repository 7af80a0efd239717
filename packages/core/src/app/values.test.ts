import { describe, expect, it } from 'vitest';
import type { TomaatError } from '../errors.ts';
import { inputSchema } from './elements.ts';
import { defaultValue, isFileInput, parameterSchema, parseParameter, parseParameters } from './values.ts';

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

const slider = (more: object) => inputSchema.parse({ type: 'slider', minimum: 0, maximum: 1, ...more });
const fiducials = (more: object) => inputSchema.parse({ type: 'fiducials', ...more });

describe('isFileInput()', () => {
  it('is true of volumes and transforms alone', () => {
    const all = { ...inputs, warp: inputSchema.parse({ type: 'transform' }) };
    expect(Object.keys(all).filter((name) => isFileInput(all[name as keyof typeof all]))).toEqual([
      'volume',
      'warp',
    ]);
  });
});

describe('defaultValue()', () => {
  it.each([
    [slider({ minimum: -5, maximum: 5 }), -5],
    [slider({ minimum: -5, maximum: 5, default: 0 }), 0],
    [inputSchema.parse({ type: 'checkbox' }), false],
    [inputSchema.parse({ type: 'checkbox', default: true }), true],
    [inputSchema.parse({ type: 'radiobutton', options: ['a', 'b'] }), 'a'],
    [inputSchema.parse({ type: 'radiobutton', options: ['a', 'b'], default: 'b' }), 'b'],
    [fiducials({}), undefined],
    [fiducials({ optional: true }), []],
    [inputSchema.parse({ type: 'volume', optional: true }), undefined],
    [inputSchema.parse({ type: 'transform', optional: true }), undefined],
  ])('of %j is %j', (input, expected) => {
    expect(defaultValue(input)).toEqual(expected);
  });
});

describe('parseParameter()', () => {
  it.each([
    ['true', true],
    ['false', false],
    ['1', true],
    ['0', false],
    ['on', true],
    ['off', false],
    [' ON\n', true],
    [true, true],
    [false, false],
    [1, true],
  ])('reads the truth %j as %j', (raw, expected) => {
    expect(parseParameter('smooth', inputs.smooth, raw)).toBe(expected);
  });

  it.each([
    [5, 5],
    [-5, -5],
    ['5', 5],
    ['-5', -5],
    [' 1e0 ', 1],
    [0.1, 0.1],
  ])('reads the number %j as %j', (raw, expected) => {
    expect(parseParameter('level', inputs.level, raw)).toBe(expected);
  });

  it.each([5.01, -5.01, Infinity, Number.NaN, '', true, null, [1], '5 mm'])(
    'refuses the number %j',
    (raw) => {
      expect(() => parseParameter('level', inputs.level, raw)).toThrow(
        expect.objectContaining({
          code: 'BAD_INPUT',
          field: 'level',
          message: expect.stringContaining('from -5 to 5'),
        }),
      );
    },
  );

  it.each([
    [{ step: 0.25 }, 0.37, 0.25],
    [{ step: 0.25 }, 0.38, 0.5],
    [{ step: 0.25 }, 1, 1],
    [{ minimum: 1, maximum: 10, step: 4 }, 2.9, 1],
    [{ minimum: 1, maximum: 10, step: 4 }, 3.1, 5],
    // 9 is the last step; 13 would be nearer to none of the values.
    [{ minimum: 1, maximum: 12, step: 4 }, 12, 9],
    // 0.3 / 0.1 is a little less than 3, and 3 · 0.1 a little more than 0.3.
    [{ maximum: 0.3, step: 0.1 }, 0.3, 0.3],
    // -100 + 999 · 0.1 is -0.09999999999999432.
    [{ minimum: -100, step: 0.1 }, -0.1, -0.1],
    [{ step: 1e-12 }, 0.123456789012, 0.123456789012],
    [{}, 0.123456789012345, 0.123456789012345],
  ])('with %j takes %d for %d', (more, raw, expected) => {
    expect(parseParameter('level', slider(more), raw)).toBe(expected);
  });

  it('shows numbers of at most 40 characters, and no words', () => {
    const message = (raw: unknown) => {
      try {
        return String(parseParameter('level', inputs.level, raw));
      } catch (error) {
        return (error as TomaatError).message;
      }
    };
    expect(message('6.5e+1')).toContain(' is 6.5e+1, but it must be');
    expect(message(-7)).toContain(' is -7, but it must be');
    expect(message('9'.repeat(40))).toContain(` is ${'9'.repeat(40)}, but`);
    for (const hidden of ['9'.repeat(41), '6 Smith', 'Smith 6', ''])
      expect(message(hidden)).toBe('level must be a number from -5 to 5.');
  });

  it('takes an option as it is written', () => {
    expect(parseParameter('mode', inputs.mode, 'fine')).toBe('fine');
    expect(() => parseParameter('mode', inputs.mode, 'Fine')).toThrow('fast, fine');
  });

  it.each([
    ['as text', '1,2,3; 4,5,6', {}],
    ['as JSON', '[[1, 2, 3], [4, 5, 6]]', {}],
    [
      'as values',
      [
        [1, 2, 3],
        [4, 5, 6],
      ],
      {},
    ],
    ['just as many as are needed', '1,2,3;4,5,6', { minimumPoints: 2 }],
    ['just as many as are allowed', '1,2,3;4,5,6', { maximumPoints: 2 }],
  ])('takes points %s', (_how, raw, more) => {
    expect(parseParameter('seeds', fiducials(more), raw)).toEqual([
      [1, 2, 3],
      [4, 5, 6],
    ]);
  });

  it('takes no points where they are optional or none are needed', () => {
    expect(parseParameter('seeds', fiducials({ optional: true, minimumPoints: 2 }), '')).toEqual([]);
    expect(parseParameter('seeds', fiducials({ minimumPoints: 0 }), [])).toEqual([]);
  });

  it.each([
    ['', {}, '0 points, but must have 1 to 10000'],
    ['1,2,3', { optional: true, minimumPoints: 2 }, '1 points, but must have 2 to'],
    ['1,2,3;4,5,6', { maximumPoints: 1 }, '2 points, but must have 1 to 1.'],
    [7, {}, 'x,y,z'],
    [{ length: 1 }, {}, 'x,y,z'],
    [['abc'], {}, 'x,y,z'],
    [[[1, 2]], {}, 'x,y,z'],
    [[[1, 2, 3, 4]], {}, 'x,y,z'],
    [[[1, 2, Number.NaN]], {}, 'x,y,z'],
    [[[1, 2, '3']], {}, 'x,y,z'],
    [[[1, 2, 3], null], {}, 'x,y,z'],
  ])('refuses the points %j with %j', (raw, more, message) => {
    expect(() => parseParameter('seeds', fiducials(more), raw)).toThrow(
      expect.objectContaining({
        code: 'BAD_INPUT',
        field: 'seeds',
        message: expect.stringContaining(message),
      }),
    );
  });

  it('refuses values that must be files', () => {
    expect(() => parseParameter('volume', inputs.volume, 'abc')).toThrow('volume must be a file.');
  });
});

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
    expect(refusal({ constructor: '1', seeds }).message).toContain('not an input of this service');
  });

  it('ignores what old clients add, when asked to', () => {
    expect(() =>
      parseParameters(inputs, { module_version: 'x', seeds }, { ignoreUnknown: true }),
    ).not.toThrow();
  });

  it('refuses a file as text even from old clients', () => {
    expect(() => parseParameters(inputs, { volume: 'abc', seeds }, { ignoreUnknown: true })).toThrow(
      'as a file',
    );
  });

  it('gives no value for files, and no points where they are optional', () => {
    const files = { volume: inputs.volume, points: fiducials({ optional: true }) };
    expect(parseParameters(files, {})).toEqual({ points: [] });
    expect(() => parseParameters({ volume: inputs.volume }, { level: 1 })).toThrow('none.');
  });
});

describe('parameterSchema()', () => {
  it('is a JSON Schema of everything except files', () => {
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

  it('describes every type of parameter', () => {
    const described = {
      volume: inputs.volume,
      level: slider({ label: 'Level', description: 'How much.', maximum: 5, default: 2 }),
      smooth: inputs.smooth,
      mode: inputs.mode,
      seeds: fiducials({ minimumPoints: 2, maximumPoints: 9 }),
      marks: fiducials({ minimumPoints: 2, optional: true }),
    };
    const point = { type: 'array', items: { type: 'number' }, minItems: 3, maxItems: 3 };
    expect(parameterSchema(described)).toEqual({
      type: 'object',
      properties: {
        level: {
          type: 'number',
          title: 'Level',
          description: 'How much.',
          minimum: 0,
          maximum: 5,
          default: 2,
        },
        smooth: { type: 'boolean', title: 'smooth', default: true },
        mode: { type: 'string', title: 'mode', enum: ['fast', 'fine'], default: 'fast' },
        seeds: { type: 'array', title: 'seeds', items: point, minItems: 2, maxItems: 9 },
        marks: { type: 'array', title: 'marks', items: point, minItems: 0, maxItems: 10_000, default: [] },
      },
      required: ['seeds'],
      additionalProperties: false,
    });
  });
});

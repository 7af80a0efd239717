import { describe, expect, it } from 'vitest';
import { describeError, errorCodes, TomaatError, withField } from './errors.ts';

describe('the error table', () => {
  it.each(errorCodes)('%s has the status of whose fault it is', (code) => {
    const { status, fault, retryable, title } = describeError(code);
    // An app's fault shows as 422: the request was understood, and this app cannot serve it.
    if (fault === 'server') expect(status).toBeGreaterThanOrEqual(500);
    else expect(status).toBeGreaterThanOrEqual(400);
    if (fault !== 'server') expect(status).toBeLessThan(500);
    expect(retryable).toBe(fault === 'server');
    expect(title).toMatch(/^[A-Z].*[^.]$/);
  });
});

describe('TomaatError', () => {
  it('survives the way through JSON', () => {
    const error = new TomaatError('BAD_INPUT', 'x is wrong.', { field: 'x', detail: { least: 1 } });
    const revived = TomaatError.from(JSON.parse(JSON.stringify(error)));
    expect(revived).toMatchObject({
      code: 'BAD_INPUT',
      message: 'x is wrong.',
      field: 'x',
      detail: { least: 1 },
      status: 422,
    });
  });

  it('from() takes an unknown code for INTERNAL', () => {
    expect(TomaatError.from({ code: 'NO_SUCH' as 'INTERNAL', message: 'm' }).code).toBe('INTERNAL');
  });
});

describe('withField()', () => {
  it('names the field once, and leaves other errors alone', () => {
    expect(withField(new TomaatError('BAD_HEADER', 'm'), 'volume')).toMatchObject({
      field: 'volume',
      code: 'BAD_HEADER',
    });
    expect(withField(new TomaatError('BAD_HEADER', 'm', { field: 'a' }), 'b')).toMatchObject({ field: 'a' });
    const other = new Error('m');
    expect(withField(other, 'a')).toBe(other);
  });
});

import { describe, expect, it } from 'vitest';
import { describeError, errorCodes, TomaatError, withField } from './errors.ts';

/** Status and whose fault, by hand: clients and the exit codes of the command line depend on them. */
const table: Record<string, string> = {
  UNKNOWN_FORMAT: '415 caller',
  UNSUPPORTED_FORMAT: '415 caller',
  BAD_HEADER: '422 caller',
  BAD_VOXELS: '422 caller',
  FRAME_NEEDED: '422 caller',
  TOO_MANY_VOXELS: '413 caller',
  UPLOAD_TOO_LARGE: '413 caller',
  UPLOAD_TOO_SLOW: '408 caller',
  // RFC 9110, 15.5.17: the range that was asked for is not in the file.
  BAD_RANGE: '416 caller',
  BAD_REQUEST: '400 caller',
  BAD_INPUT: '422 caller',
  NOT_ACCEPTED: '422 caller',
  INPUTS_MISSING: '409 caller',
  NOT_FOUND: '404 caller',
  METHOD_NOT_ALLOWED: '405 caller',
  UNSUPPORTED_MEDIA: '415 caller',
  NOT_ACCEPTABLE: '406 caller',
  NOT_READY: '409 caller',
  CANCELED: '409 caller',
  CONFLICT: '409 caller',
  UNAUTHORIZED: '401 caller',
  FORBIDDEN: '403 caller',
  MISDIRECTED: '421 caller',
  BAD_SIGNATURE: '422 caller',
  LIMIT_REACHED: '429 caller',
  HEADER_TOO_LARGE: '431 caller',
  BAD_MANIFEST: '422 app',
  APP_FAILED: '422 app',
  APP_OUTPUT: '422 app',
  TIMEOUT: '422 app',
  OUT_OF_MEMORY: '422 app',
  WORKER_DIED: '503 server',
  BUSY: '503 server',
  DISK_FULL: '507 server',
  DAMAGED: '500 server',
  UPSTREAM: '502 server',
  UNREACHABLE: '503 server',
  INTERNAL: '500 server',
};

describe('the error table', () => {
  it('has these codes, each with this status and this fault', () => {
    const found = errorCodes.map((code) => [
      code,
      `${describeError(code).status} ${describeError(code).fault}`,
    ]);
    expect(Object.fromEntries(found)).toEqual(table);
  });

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

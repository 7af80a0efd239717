import { isPassing } from '@tomaat/client';
import { errorCodes, TomaatError } from '@tomaat/core';
import { expect, it } from 'vitest';
import { mayPass, toFault } from './faults.ts';

it('lets the faults of connections, servers and disks pass, and no others', () => {
  const passes = errorCodes.filter((code) => isPassing(toFault(new TomaatError(code, 'It failed.'))));
  expect(passes.sort()).toEqual(
    // By hand.
    [
      'BUSY',
      'DAMAGED',
      'DISK_FULL',
      'INTERNAL',
      'LIMIT_REACHED',
      'UNREACHABLE',
      'UPLOAD_TOO_SLOW',
      'UPSTREAM',
      'WORKER_DIED',
    ],
  );
  for (const code of errorCodes) {
    const error = new TomaatError(code, 'It failed.');
    expect(mayPass(error)).toBe(isPassing(toFault(error)));
  }
});

it('tells a full disk of the gateway in words, and lets it pass', () => {
  const full = Object.assign(new Error('ENOSPC: no space left on device, write'), {
    code: 'ENOSPC',
    syscall: 'write',
  });
  expect(toFault(full)).toMatchObject({
    code: 'BUSY',
    message: expect.stringContaining('disk of the gateway is full'),
  });
  const fault = new TypeError('x is not a function');
  expect(toFault(fault)).toBe(fault);
});

it('keeps a message of another machine on its lines and short', () => {
  const shown = toFault(
    new TomaatError('APP_FAILED', `It broke.\u001b[2J${'x'.repeat(5000)}`),
  ) as TomaatError;
  expect(shown.message).not.toContain('\u001b');
  expect(shown.message.length).toBe(2000);
  expect(shown.code).toBe('APP_FAILED');
});

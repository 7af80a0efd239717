import { isPassing } from '@tomaat/client';
import { type ErrorCode, escapeUnseen, TomaatError } from '@tomaat/core';

/* Which faults pass, so that the series is tried again later, and which end it. */

/** Codes that the client does not try again by itself, and that a later attempt may not meet. */
const passingLater: readonly ErrorCode[] = [
  'LIMIT_REACHED',
  'DISK_FULL',
  'UPLOAD_TOO_SLOW',
  'WORKER_DIED',
  'DAMAGED',
];

/** How often something is tried again that may be a fault of the series itself: that of 5 attempts ends it. */
export const fewAttempts = 5;

/** Whether a later attempt may have another outcome. */
export const mayPass = (error: unknown): boolean =>
  isPassing(error) || (error instanceof TomaatError && passingLater.includes(error.code));

/** A fault that passes, as the runner knows one (`isPassing`). */
export const passing = (message: string, cause?: unknown): TomaatError =>
  new TomaatError('BUSY', message, {
    cause,
    ...(cause instanceof TomaatError && { detail: cause.detail }),
  });

/** The longest message that is kept with a series. */
const longestMessage = 2000;

/** The message of an error as it is kept: on one line that can be shown anywhere. */
export const messageOf = ({ message }: TomaatError): string => escapeUnseen(message).slice(0, longestMessage);

/**
 * An error as the runner is to see it: passing, or not; with a message on one line that can be shown and stored. A full
 * disk passes, whosever it is.
 */
export function toFault(error: unknown): unknown {
  if (!(error instanceof TomaatError)) return fromSystem(error);
  const message = messageOf(error);
  if (passingLater.includes(error.code)) return passing(message, error);
  return message === error.message
    ? error
    : new TomaatError(error.code, message, { cause: error, field: error.field, detail: error.detail });
}

function fromSystem(error: unknown): unknown {
  const { code, syscall } = error as NodeJS.ErrnoException;
  if (syscall === undefined) return error;
  return passing(
    ['ENOSPC', 'EDQUOT', 'EFBIG'].includes(code ?? '')
      ? 'The disk of the gateway is full. Free space on it; the series is tried again.'
      : `The disk of the gateway is failing (${code ?? 'unknown'} at ${syscall}). Check it; the series is tried again.`,
    error,
  );
}

import { TomaatError } from '@tomaat/core';

/** An error of a worker as it is posted to the page, which revives it by `TomaatError.from()`. */
export function dataOf(error: unknown): ReturnType<TomaatError['toJSON']> {
  if (error instanceof TomaatError) return { ...error.toJSON(), detail: undefined };
  return { code: 'INTERNAL', message: error instanceof Error ? error.message : String(error) };
}

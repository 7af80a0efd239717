import { TomaatError } from '@tomaat/core';
import type { AuditFacts } from '../audit/events.ts';
import type { BuiltResult } from './build-results.ts';
import type { SeriesDependencies } from './dependencies.ts';
import { mayPass } from './faults.ts';
import { sha256Of } from './seed.ts';
import type { Destination, SeriesContext, SeriesRow, StoredResult } from './series.ts';

/* The last step: each destination gets all objects, and is remembered when it has confirmed them. */

/** Destinations that do not have all results of a row. */
export const openDestinations = (
  results: readonly StoredResult[],
  destinations: readonly Destination[],
): Destination[] =>
  destinations.filter(
    ({ name }) => results.length === 0 || !results.every((one) => one.storedAt.includes(name)),
  );

/**
 * Asks the destinations that do not have all results of a row whether they are there: while none of them is, the originals
 * need not be fetched again.
 *
 * @throws the fault of the first, if all are away
 */
export async function askDestinations(
  { results }: Pick<SeriesRow, 'results'>,
  { destinations, signal }: Pick<SeriesContext, 'destinations' | 'signal'>,
): Promise<void> {
  const faults: unknown[] = [];
  for (const destination of openDestinations(results, destinations)) {
    try {
      await destination.ask?.(signal);
      return;
    } catch (error) {
      signal.throwIfAborted();
      if (!mayPass(error)) throw error;
      faults.push(error);
    }
  }
  if (faults.length > 0) throw faults[0];
}

/**
 * Stores results at the destinations that do not have them yet, each confirmed one committed before the next is tried.
 * One that fails does not keep the others from theirs.
 *
 * @throws the first fault that passes; if there is none, the first of the others
 */
export async function storeResults(
  built: readonly BuiltResult[],
  seed: string,
  row: Pick<SeriesRow, 'results'>,
  { destinations, save, signal }: SeriesContext,
  deps: SeriesDependencies,
  facts: AuditFacts,
): Promise<void> {
  let results = built.map(
    ({ format, output, sopClass, sopInstance, series, replaces }): StoredResult => ({
      ...{ format, output, seed, sopClass, sopInstance, series, replaces },
      storedAt: row.results.find((one) => one.sopInstance === sopInstance)?.storedAt ?? [],
    }),
  );
  // Before the first is stored: which result it replaces is not looked up again.
  await save({ step: 'store', results });
  const faults: unknown[] = [];
  for (const destination of openDestinations(results, destinations)) {
    try {
      await destination.store(
        built.map(({ bytes }) => bytes),
        signal,
      );
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof TomaatError) && (error as NodeJS.ErrnoException).syscall === undefined)
        throw error;
      faults.push(error);
      continue;
    }
    await deps.audit('series.stored', {
      ...facts,
      destination: destination.name,
      outputs: built.map(({ format, bytes }) => ({ name: format, digest: `sha256:${sha256Of(bytes)}` })),
    });
    results = results.map((one) => ({ ...one, storedAt: [...new Set([...one.storedAt, destination.name])] }));
    await save({ results });
  }
  if (faults.length > 0) throw faults.find(mayPass) ?? faults[0];
}

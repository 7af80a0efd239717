import type { LabelStyle } from '../viewer/labels.ts';

export interface NamedStyle extends LabelStyle {
  /** Whether the name comes from a service; a file has numbers alone. */
  readonly isNamed: boolean;
}

interface Labelled {
  readonly labels: readonly NamedStyle[];
}

/** Names of the labels: those of a service before those of a file, which are numbers; both where two services differ. */
export function namesOf(found: Labelled, expected: Labelled): { value: number; name: string }[] {
  const values = new Set([...found.labels, ...expected.labels].map(({ value }) => value));
  return [...values].map((value) => {
    const both = [found, expected].flatMap(
      ({ labels }) => labels.find((label) => label.value === value) ?? [],
    );
    const named = both.filter(({ isNamed }) => isNamed);
    const names = (named.length > 0 ? named : both.slice(0, 1)).map(({ name }) => name);
    return { value, name: [...new Set(names)].join(' / ') };
  });
}

/** Labels that only have numbers, named and coloured as among the others: the same value looks the same on both sides. */
export const namedAs = (
  labels: readonly NamedStyle[],
  others: readonly NamedStyle[],
): readonly NamedStyle[] =>
  labels.map((own) => (own.isNamed ? own : (others.find(({ value }) => value === own.value) ?? own)));

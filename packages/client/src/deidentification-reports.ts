import { type DeidentificationReport, type ReportedAttribute, representationOf } from '@tomaat/core';

/** The reports of several files combined into one: counts are summed; texts come from the first file that has one. */
export function joinReports(reports: readonly DeidentificationReport[]): DeidentificationReport {
  const attributes = new Map<string, ReportedAttribute>();
  const counts = { removed: 0, replaced: 0, kept: 0 };
  const privateElements = { removed: 0, kept: 0 };
  for (const report of reports) {
    for (const attribute of report.attributes) {
      const key = `${attribute.tag} ${attribute.outcome}`;
      const known = attributes.get(key);
      attributes.set(key, known ? { ...known, count: known.count + attribute.count } : attribute);
    }
    for (const outcome of ['removed', 'replaced', 'kept'] as const) counts[outcome] += report.counts[outcome];
    for (const outcome of ['removed', 'kept'] as const)
      privateElements[outcome] += report.privateElements[outcome];
  }
  return {
    attributes: [...attributes.values()].sort((a, b) => a.tag - b.tag),
    counts,
    privateElements,
    burnedIn: [...new Set(reports.flatMap(({ burnedIn }) => burnedIn))],
  };
}

/** The kind of information in an attribute, in the words of a summary. */
const groups = [
  'of the patient',
  'names of people',
  'of institution and device',
  'identifiers',
  'dates and times',
  'descriptions and others',
] as const;
export type AttributeGroup = (typeof groups)[number];

/**
 * The number of attributes of each kind that were removed or replaced, in the order of the kinds, without private
 * elements.
 */
export function summarizeReport({ attributes }: DeidentificationReport): [AttributeGroup, number][] {
  const found = new Map<AttributeGroup, Set<number>>();
  for (const { tag, outcome } of attributes) {
    if (outcome === 'kept') continue;
    const group = groupOf(tag);
    found.set(group, (found.get(group) ?? new Set()).add(tag));
  }
  return groups.flatMap((group) => {
    const size = found.get(group)?.size ?? 0;
    return size > 0 ? [[group, size]] : [];
  });
}

/** (0008,0080) to (0008,0082), (0008,1010), (0008,1040): institution and station. */
const institution: ReadonlySet<number> = new Set([
  0x00080080, 0x00080081, 0x00080082, 0x00081010, 0x00081040,
]);

function groupOf(tag: number): AttributeGroup {
  const group = Math.floor(tag / 65536);
  if (group === 0x0010) return 'of the patient';
  const vr = representationOf(tag);
  if (vr === 'PN') return 'names of people';
  if (institution.has(tag) || group === 0x0018) return 'of institution and device';
  if (vr === 'UI') return 'identifiers';
  if (vr === 'DA' || vr === 'TM' || vr === 'DT') return 'dates and times';
  return 'descriptions and others';
}

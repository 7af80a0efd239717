import type { GatewayConfig, Rule } from '../config.ts';
import type { Connect } from '../dependencies.ts';
import type { Source } from '../series.ts';
import { openDicomWebSource } from './dicomweb-source.ts';
import { openFolderSource } from './folder-source.ts';

/** Of one file, which is in memory while it is fetched, bytes. */
const mostFileBytes = 2 ** 30;

/** The sources of a file of rules, by name. Nothing is asked before the first search. */
export function openSources(
  { sources, rules, limits }: GatewayConfig,
  connect: Connect,
): Map<string, Source> {
  const maxFileBytes = Math.min(limits.maxSeriesBytes, mostFileBytes);
  const opened = new Map<string, Source>();
  for (const [name, source] of Object.entries(sources)) {
    const common = { name, maxFileBytes };
    const one =
      source.type === 'folder'
        ? openFolderSource({ ...source, ...common })
        : openDicomWebSource({ ...source, ...common, modalities: modalitiesOf(rules, name) }, connect);
    opened.set(name, one);
  }
  return opened;
}

/** The modalities that rules take from a source; undefined if a rule takes any. */
export function modalitiesOf(rules: readonly Rule[], source: string): string[] | undefined {
  const found = rules
    .filter(({ when }) => when.sources?.includes(source) ?? true)
    .map(({ when }) => when.modality);
  return found.some((modality) => modality === undefined)
    ? undefined
    : [...new Set(found.flatMap((modality) => modality ?? []))];
}

import { tagsByRepresentation } from './dictionary.gen.ts';
import type { Tag } from './tags.ts';
import { isVr, type Vr } from './value-representations.ts';

let dictionary: ReadonlyMap<Tag, Vr> | undefined;

/** The value representation of a standard attribute; undefined for private and unknown ones. */
export function representationOf(tag: Tag): Vr | undefined {
  dictionary ??= unpack();
  // (gggg,0010-00FF) of an odd group identifies who defined its elements; group lengths are (gggg,0000).
  const [group, element] = [Math.floor(tag / 65536), tag % 65536];
  if (element === 0) return 'UL';
  if (group % 2 === 1) return element >= 0x10 && element <= 0xff ? 'LO' : undefined;
  return dictionary.get(tag);
}

function unpack(): Map<Tag, Vr> {
  const all = new Map<Tag, Vr>();
  for (const [vr, distances] of Object.entries(tagsByRepresentation)) {
    let tag = 0;
    for (const distance of distances.split(' ')) {
      tag += Number.parseInt(distance, 36);
      if (isVr(vr)) all.set(tag, vr);
    }
  }
  return all;
}

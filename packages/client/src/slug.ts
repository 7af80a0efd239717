/**
 * Any name as a slug, so that 'Whole Brain' and 'whole-brain' give the same address: accents dropped, lower case,
 * runs of anything but letters and digits replaced by one hyphen, at most 40 characters.
 */
export function toSlug(text: string): string {
  return (
    text
      // Sorting a long run of accents takes quadratic time.
      .slice(0, 400)
      .normalize('NFKD')
      .replace(/\p{M}/gu, '')
      .toLowerCase()
      .replace(/[^\p{L}\p{N}]+/gu, '-')
      .replace(/^-/, '')
      .slice(0, 40)
      .replace(/-$/, '')
  );
}

/**
 * Characters that can mislead a reader: control characters, those that change the direction of writing or
 * are invisible, other ends of lines, halves of characters (Unicode categories Cc, Cf, Zl, Zp, Cs). Joiners (U+200C,
 * U+200D) are none of them: scripts and emoji need them.
 */
const unseen = /(?![\u200c\u200d])[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;

/** Whether a text of one line holds such characters; ends of lines and tabs are some, too. */
export const hasUnseen = (text: string): boolean => text.search(unseen) >= 0;

/** The text with such characters as JSON escapes them, `\n` and `\u202e`: it can stand in JSON, and on a terminal. */
export const escapeUnseen = (text: string): string => text.replace(unseen, escapeCharacter);

/** The text as one line without such characters, with a space where they were. */
export const withoutUnseen = (text: string): string =>
  text.replace(unseen, ' ').replace(/ {2,}/g, ' ').trim();

function escapeCharacter(character: string): string {
  if (character === '\n') return '\\n';
  if (character === '\r') return '\\r';
  if (character === '\t') return '\\t';
  return Array.from({ length: character.length }, (_, i) => character.charCodeAt(i))
    .map((unit) => `\\u${unit.toString(16).padStart(4, '0')}`)
    .join('');
}

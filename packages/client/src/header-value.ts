/** A header such as Content-Type or Content-Disposition; parameters in order, names in lower case. */
export interface HeaderValue {
  readonly value: string;
  readonly parameters: readonly (readonly [name: string, value: string])[];
}

const isBlank = (character: string | undefined) => character === ' ' || character === '\t';

/**
 * Reads `value; name=token; name="quoted \" string"` (RFC 9110 section 5.6.6) in one pass. A backslash escapes only a
 * quote or itself: old browsers send paths with unescaped ones. Undefined if the parameters are malformed.
 */
export function parseHeaderValue(text: string): HeaderValue | undefined {
  const first = text.indexOf(';');
  const value = (first < 0 ? text : text.slice(0, first)).trim();
  const parameters: (readonly [string, string])[] = [];
  let at = first < 0 ? text.length : first;
  const skipBlanks = () => {
    while (isBlank(text[at])) at++;
  };
  /** Up to the next whitespace or one of the given characters. */
  const word = (ends: string) => {
    const start = at;
    while (at < text.length && !ends.includes(text[at]) && text[at].trim() !== '') at++;
    return text.slice(start, at);
  };
  const quoted = (): string | undefined => {
    let content = '';
    for (at++; at < text.length; at++) {
      if (text[at] === '"') {
        at++;
        return content;
      }
      const escaped = text[at] === '\\' && (text[at + 1] === '"' || text[at + 1] === '\\');
      if (escaped) at++;
      content += text[at];
    }
    return undefined;
  };
  while (at < text.length) {
    if (text[at] !== ';') return undefined;
    at++;
    skipBlanks();
    if (at === text.length || text[at] === ';') continue; // A trailing semicolon.
    const name = word('=;"').toLowerCase();
    skipBlanks();
    if (name === '' || text[at] !== '=') return undefined;
    at++;
    skipBlanks();
    const content = text[at] === '"' ? quoted() : word(';"');
    if (content === undefined) return undefined;
    parameters.push([name, content]);
    skipBlanks();
  }
  return { value, parameters };
}

/** The file name in a Content-Disposition (RFC 6266), without any folder. */
export function dispositionName(header: string | null): string | undefined {
  const parameters = new Map(parseHeaderValue(header ?? '')?.parameters);
  let name = parameters.get('filename');
  const extended = parameters.get('filename*') ?? '';
  if (extended.toLowerCase().startsWith("utf-8''")) {
    try {
      name = decodeURIComponent(extended.slice(7));
    } catch {}
  }
  return name?.split(/[\\/]/).pop()?.replace(/^\.+/, '') || undefined;
}
